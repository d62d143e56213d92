"""What a trainer publishes a student with: the record of its training beside the weights, and its card."""

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from transformers import TrainingArguments
from transformers.trainer_utils import HubStrategy
from transformers.utils import logging
from transformers.utils.hub import hf_api

from hf_colearn.hub.card import model_card
from hf_colearn.hub.evaluations import FILE_LOADERS, Evaluations, dataset_id
from hf_colearn.hub.exported_files import training_heads_in, write_without_training_heads
from hf_colearn.hub.model_kind import ModelKind
from hf_colearn.hub.record import RECORD, TrainingRecord
from hf_colearn.hub.teachers import teachers_in_record
from hf_colearn.hub.training_samples import training_samples
from hf_colearn.utils.hub_names import check_branch, check_repo_id


logger = logging.get_logger(__name__)


class HubRecord:
    """Writes `colearning.json` beside a trainer's model, its card, and a warning where a push was lost.

    Args:
        trainer ([`CoLearningTrainer`]): Whose student it is.
    """

    def __init__(self, trainer: Any):
        self._trainer = trainer
        self.evaluations = Evaluations(trainer)
        self._is_publishing = False
        self._samples: dict[str, Any] | None = None
        self._warned: list[Any] = []  # pushes that were lost, and were warned of

    def _record(self) -> TrainingRecord:
        trainer = self._trainer
        model = trainer.accelerator.unwrap_model(trainer.model)
        history = trainer.state.log_history
        if self._samples is None:
            self._samples = training_samples(trainer)  # which may read every target: once
        ours = (trainer.auxiliary_objective, trainer.alpha, model, trainer.balance)
        known = {"training_samples": self._samples, **teachers_in_record(trainer.teachers)}
        return TrainingRecord.of(trainer.args, history, *ours, **known)

    @contextmanager
    def publishing(self) -> Iterator[None]:
        """Within, a model is saved without the heads that only training needs."""
        self._is_publishing = True
        try:
            yield
        finally:
            self._is_publishing = False

    def tags_of_draft(self, dataset_tags: str | list[str] | None) -> str | list[str] | None:
        """The `dataset_tags` for Trainer's draft of a card, which else takes a loader of files for a data set of the Hub."""
        data = self._trainer.train_dataset if self._trainer.eval_dataset is None else self._trainer.eval_dataset
        return [] if dataset_tags is None and getattr(data, "builder_name", None) in FILE_LOADERS else dataset_tags

    def save(self, folder: str | None) -> None:
        """Writes the record beside a model that was saved; the output folder by default."""
        folder = self._trainer.args.output_dir if folder is None else folder
        if self._is_publishing and training_heads_in(Path(folder)):
            write_without_training_heads(Path(folder), Path(folder))
        self._record().save(folder)

    def push(self, checkpoint: str, push_from: Callable[[str], None]) -> None:
        """Has Trainer push a checkpoint's model while training, in the repository's root without training heads.

        `push_from` is Trainer's: it copies weights and configuration out of a checkpoint, and pushes that, and the whole
        checkpoint where the strategy says so.
        """
        trainer, strategy = self._trainer, HubStrategy(self._trainer.args.hub_strategy)
        self.warn_of_lost_pushes()
        if strategy == HubStrategy.END or not trainer.is_world_process_zero():
            return
        self.copy_from(checkpoint)
        if not training_heads_in(Path(checkpoint)):
            push_from(checkpoint)
            return
        before = _jobs_of(trainer)
        with TemporaryDirectory() as scratch:
            for path in Path(checkpoint).iterdir():
                (Path(scratch) / path.name).symlink_to(path.resolve())
            for name in write_without_training_heads(Path(checkpoint), Path(scratch) / "changed"):
                (Path(scratch) / name).unlink()
            for path in (Path(scratch) / "changed").iterdir():
                path.replace(Path(scratch) / path.name)
            trainer.args.hub_strategy = HubStrategy.EVERY_SAVE
            try:
                push_from(scratch)
            finally:
                trainer.args.hub_strategy = strategy
        if strategy != HubStrategy.EVERY_SAVE and _jobs_of(trainer) != before:  # a busy Trainer leaves the push out
            self._push_whole(checkpoint, strategy)

    def _push_whole(self, checkpoint: str, strategy: HubStrategy) -> None:
        """What Trainer does beside the model: the checkpoint as it is, to resume from."""
        args, state = self._trainer.args, self._trainer.state
        at = f"step {state.global_step}" if args.save_strategy == "steps" else f"epoch {int(state.epoch or 0)}"
        job = hf_api().upload_folder(
            repo_id=self._trainer.hub_model_id,
            folder_path=checkpoint,
            path_in_repo="last-checkpoint" if strategy == HubStrategy.CHECKPOINT else Path(checkpoint).name,
            commit_message=f"Training in progress, {at}, checkpoint",
            token=args.hub_token,
            run_as_future=True,
            revision=args.hub_revision,
        )
        self._trainer.push_in_progress.jobs.append(job)

    def warn_of_lost_pushes(self) -> None:
        """Trainer pushes in the background and drops what went wrong there."""
        push = getattr(self._trainer, "push_in_progress", None)
        for job in [] if push is None else push.jobs:
            if job.done() and job.exception() is not None and job not in self._warned:
                self._warned.append(job)
                reason = str(job.exception()).splitlines()[0]
                logger.warning(
                    f"A push to '{self._trainer.hub_model_id}' was lost ({type(job.exception()).__name__}: {reason}); the "
                    "training goes on, and the next push sends everything again."
                )

    def copy_from(self, checkpoint: str) -> None:
        """Copies the record and the model's code beside the weights that Trainer copies out of a checkpoint."""
        for path in (*Path(checkpoint).glob("*.py"), Path(checkpoint) / RECORD):
            if path.is_file():
                shutil.copy(path, self._trainer.args.output_dir)

    def write_card(
        self,
        language: str | None,
        license: str | None,
        tags: str | list[str] | None,
        model_name: str | None,
        finetuned_from: str | None,
        dataset_tags: str | list[str] | None,
        dataset: str | list[str] | None,
    ) -> bool:
        """Writes the card of a model of ours, of one that was co-learned, and of a plain module; False for another model,
        whose card is Trainer's.
        """
        trainer = self._trainer
        model = trainer.accelerator.unwrap_model(trainer.model)
        kind = ModelKind.of_model(model)
        if not kind.is_ours and kind.is_pretrained and trainer.auxiliary_objective is None:
            return False
        if finetuned_from is not None:
            check_repo_id(finetuned_from, "finetuned_from", with_owner=False)
        data_type, folder = dataset_id(dataset_tags), trainer.args.output_dir
        record = replace(self._record(), **self.evaluations.of_record(_first(dataset), data_type, model))
        if finetuned_from is not None:
            record = replace(record, base_model=[finetuned_from])
        record.save(folder)
        model_card(
            folder,
            kind,
            TrainingRecord.load(folder),
            title=model_name or os.path.basename(os.path.abspath(folder)),
            repo_id=trainer.hub_model_id,
            license=license,
            language=language,
            tags=[tags] if isinstance(tags, str) else tags or [],
        ).save(os.path.join(folder, "README.md"))
        return True


def check_hub_names(args: TrainingArguments, revision: str | None = None) -> None:
    """Refuses a repository or a branch that the Hub would not take, before a token is looked for."""
    if args.hub_model_id is not None:
        check_repo_id(args.hub_model_id, "hub_model_id", with_owner=False)
    else:
        name = Path(args.output_dir).absolute().name
        check_repo_id(
            name, "without a hub_model_id, the folder's name is the repository's: output_dir", with_owner=False
        )
    for name, branch in (("hub_revision", args.hub_revision), ("revision", revision)):
        if branch is not None:
            check_branch(branch, name)


def _jobs_of(trainer: Any) -> list[Any]:
    """The pushes in the background."""
    return [] if trainer.push_in_progress is None else [*trainer.push_in_progress.jobs]


def _first(names: str | list[str] | None) -> str | None:
    if isinstance(names, list):
        return names[0] if names else None
    return names or None
