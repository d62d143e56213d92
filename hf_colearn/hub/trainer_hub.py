"""What a trainer publishes a student with: the record of its training beside the weights, and its card."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from transformers.utils import logging

from hf_colearn.hub.card import model_card
from hf_colearn.hub.evaluations import Evaluations, dataset_id
from hf_colearn.hub.model_kind import ModelKind
from hf_colearn.hub.record import RECORD, TrainingRecord
from hf_colearn.hub.teachers import teachers_in_record
from hf_colearn.hub.training_samples import training_samples
from hf_colearn.models.checkpoint import CheckedModel
from hf_colearn.utils.hub_names import check_repo_id


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
        ours = (trainer.auxiliary_objective, trainer.alpha, model)
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

    def save(self, folder: str | None) -> None:
        """Writes the record beside a model that was saved; the output folder by default."""
        folder = self._trainer.args.output_dir if folder is None else folder
        model = self._trainer.accelerator.unwrap_model(self._trainer.model)
        if self._is_publishing and isinstance(model, CheckedModel) and model.config.training_heads:
            model.without_training_heads().save_pretrained(folder)
        self._record().save(folder)

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


def _first(names: str | list[str] | None) -> str | None:
    if isinstance(names, list):
        return names[0] if names else None
    return names or None
