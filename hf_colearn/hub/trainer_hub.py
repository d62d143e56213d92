"""What a trained student is published with: the record of its training beside the weights, and a card that tells it."""

import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

from transformers import Trainer
from transformers.utils import logging

from hf_colearn.hub.card import AUTO_CLASSES, student_card
from hf_colearn.hub.record import RECORD, TrainingRecord
from hf_colearn.models.multimodal import CoLearningForMultimodalClassification
from hf_colearn.models.student import CoLearningStudent


logger = logging.get_logger(__name__)

_NO_SCORES = ("loss", "runtime", "samples_per_second", "steps_per_second", "model_preparation_time")


class PublishingTrainer(Trainer):
    """Writes `colearning.json` wherever it saves a model, and the card of a student that it pushes."""

    auxiliary_objective: Any
    alpha: Any

    def __init__(self, *args, **kwargs):
        self._told: list[Any] = []  # pushes whose loss was told
        super().__init__(*args, **kwargs)

    def _save(self, output_dir=None, state_dict=None):
        # How a student was trained lies beside its weights, as the arguments do.
        super()._save(output_dir, state_dict)
        if self.args.should_save:
            self._record().save(self.args.output_dir if output_dir is None else output_dir)

    def _record(self) -> TrainingRecord:
        return TrainingRecord.of(
            self.args, self.state.log_history, self.auxiliary_objective, self.alpha, self.accelerator.unwrap_model(self.model)
        )  # fmt: skip

    def _finish_current_push(self):
        # Trainer pushes in the background and drops what went wrong there.
        super()._finish_current_push()
        self._tell_of_lost_pushes()

    def _tell_of_lost_pushes(self) -> None:
        push = getattr(self, "push_in_progress", None)
        for job in [] if push is None else push.jobs:
            if job.done() and job.exception() is not None and job not in self._told:
                self._told.append(job)
                reason = str(job.exception()).splitlines()[0]
                logger.warning(
                    f"A push to '{self.hub_model_id}' was lost ({type(job.exception()).__name__}: {reason}); the training goes "
                    "on, and the next push sends everything again."
                )

    def _push_from_checkpoint(self, checkpoint_folder):
        self._tell_of_lost_pushes()
        # Trainer copies weights and configuration alone, and that configuration names the model's code.
        if self.is_world_process_zero():
            for path in (*Path(checkpoint_folder).glob("*.py"), Path(checkpoint_folder) / RECORD):
                if path.is_file():
                    shutil.copy(path, self.args.output_dir)
        super()._push_from_checkpoint(checkpoint_folder)

    def create_model_card(
        self,
        language: str | None = None,
        license: str | None = None,
        tags: str | list[str] | None = None,
        model_name: str | None = None,
        finetuned_from: str | None = None,
        tasks: str | list[str] | None = None,
        dataset_tags: str | list[str] | None = None,
        dataset: str | list[str] | None = None,
        dataset_args: str | list[str] | None = None,
    ) -> None:
        """Writes the card of a student or multimodal model; that of another model, or of adapters, is Trainer's draft.

        Args:
            language, license, tags, model_name, finetuned_from: As in [`~transformers.Trainer`].
            dataset (`str`, *optional*): Pretty name of what the last evaluation was on.
            dataset_tags (`str`, *optional*): Its id on the Hub.
            tasks, dataset_args: Of Trainer's draft alone.
        """
        model = self.accelerator.unwrap_model(self.model)
        if not isinstance(model, (CoLearningStudent, CoLearningForMultimodalClassification)):
            super().create_model_card(
                language, license, tags, model_name, finetuned_from, tasks, dataset_tags, dataset, dataset_args
            )
            return
        if not self.is_world_process_zero():
            return
        folder, record = self.args.output_dir, self._record()
        evaluated: dict[str, Any] = next(
            (entry for entry in reversed(self.state.log_history) if "eval_runtime" in entry), {}
        )
        scores = {name.removeprefix("eval_"): value for name, value in evaluated.items() if name.startswith("eval_")}
        scores = {name: value for name, value in scores.items() if name not in _NO_SCORES}
        if scores and hasattr(self.eval_dataset, "__len__") and not isinstance(self.eval_dataset, dict):
            record = replace(record, scores=scores, dataset={
                "name": _first(dataset) or "the evaluation data", "type": _first(dataset_tags) or "evaluation-data",
                "split": "evaluation", "samples": len(self.eval_dataset),
            })  # fmt: skip
        if finetuned_from is not None:
            record = replace(record, base_model=[finetuned_from])
        record.save(folder)
        student_card(
            folder,
            title=model_name or os.path.basename(os.path.abspath(folder)),
            pipeline_tag=_pipeline_tag(model),
            repo_id=self.hub_model_id,
            license=license or "apache-2.0",
            language=language,
            tags=[tags] if isinstance(tags, str) else tags or [],
        ).save(os.path.join(folder, "README.md"))


def _pipeline_tag(model: Any) -> str | None:
    if isinstance(model, CoLearningForMultimodalClassification):
        return None
    return next(tag for tag, auto_class in AUTO_CLASSES.items() if auto_class == model._stock_class.__name__)


def _first(names: str | list[str] | None) -> str | None:
    return names[0] if isinstance(names, list) else names
