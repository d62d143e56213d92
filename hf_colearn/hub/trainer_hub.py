"""What a trainer publishes a student with: the record of its training beside the weights, and its card."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from transformers.utils import logging

from hf_colearn.hub.card import AUTO_CLASSES, student_card
from hf_colearn.hub.record import RECORD, TrainingRecord
from hf_colearn.hub.training_samples import training_samples
from hf_colearn.models.checkpoint import CheckedModel
from hf_colearn.models.multimodal import CoLearningForMultimodalClassification
from hf_colearn.models.student import CoLearningStudent
from hf_colearn.training.data_checks import labelled_part


logger = logging.get_logger(__name__)

_NO_SCORES = ("loss", "runtime", "samples_per_second", "steps_per_second", "model_preparation_time")


class HubRecord:
    """Writes `colearning.json` beside a trainer's model, its card, and a warning where a push was lost.

    Args:
        trainer ([`CoLearningTrainer`]): Whose student it is.
    """

    def __init__(self, trainer: Any):
        self._trainer = trainer
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
        return TrainingRecord.of(trainer.args, history, *ours, training_samples=self._samples)

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
        """Writes the card of a student or a multimodal model; False for another model, which has none of ours."""
        trainer = self._trainer
        model = trainer.accelerator.unwrap_model(trainer.model)
        if not isinstance(model, (CoLearningStudent, CoLearningForMultimodalClassification)):
            return False
        folder, record = trainer.args.output_dir, self._record()
        evaluated: dict[str, Any] = next(
            (entry for entry in reversed(trainer.state.log_history) if "eval_runtime" in entry), {}
        )
        scores = {name.removeprefix("eval_"): value for name, value in evaluated.items() if name.startswith("eval_")}
        unlabelled = scores.pop("num_unlabelled", 0)
        scores = {name: value for name, value in scores.items() if name not in _NO_SCORES}
        if scores and hasattr(trainer.eval_dataset, "__len__") and not isinstance(trainer.eval_dataset, dict):
            record = replace(record, scores=scores, dataset={
                "name": _first(dataset) or "the evaluation data", "type": _first(dataset_tags) or "evaluation-data",
                "split": "evaluation", "samples": len(labelled_part(trainer.eval_dataset, model)) - unlabelled,
            })  # fmt: skip
        if finetuned_from is not None:
            record = replace(record, base_model=[finetuned_from])
        record.save(folder)
        student_card(
            folder,
            title=model_name or os.path.basename(os.path.abspath(folder)),
            pipeline_tag=_pipeline_tag(model),
            repo_id=trainer.hub_model_id,
            license=license or "apache-2.0",
            language=language,
            tags=[tags] if isinstance(tags, str) else tags or [],
        ).save(os.path.join(folder, "README.md"))
        return True


def _pipeline_tag(model: Any) -> str | None:
    if isinstance(model, CoLearningForMultimodalClassification):
        return None
    if model._stock_class is None:
        return "feature-classification"
    return next(tag for tag, auto_class in AUTO_CLASSES.items() if auto_class == model._stock_class.__name__)


def _first(names: str | list[str] | None) -> str | None:
    return names[0] if isinstance(names, list) else names
