"""Batches of a run: their targets, their augmentation, and batches that are drawn beside training."""

import inspect
from collections.abc import Callable, Container, Mapping, MutableMapping
from typing import Any

import numpy as np
import torch
from datasets import Dataset

from hf_colearn.data.labels import MissingLabels, label_column, labelled_rows
from hf_colearn.data.sample_ids import SAMPLE_IDS, STEP_COUNTS, VIEWS
from hf_colearn.data.unpaired import MissingLabelsByTask, UnpairedBatches, UnpairedCollator
from hf_colearn.models.lora import base_model
from hf_colearn.models.training_heads import decoder_teachers
from hf_colearn.objectives.objective import CoLearningBatch, target_key
from hf_colearn.teachers.collator import EpochClock, TargetCollator
from hf_colearn.training.blank_batches import BLANK, blank, keep_statistics
from hf_colearn.training.counts import step_counts
from hf_colearn.training.task_checks import problem_of_task
from hf_colearn.utils import distributed
from hf_colearn.utils.rng import preserve_rng_state


class Batches:
    """What a trainer makes its batches with: its collator, its teachers and the user's augmentation."""

    def __init__(self, trainer: Any, augment: Callable[[dict[str, Any]], dict[str, Any]] | None):
        self._trainer = trainer
        self.augment = augment.to(trainer.args.device) if isinstance(augment, torch.nn.Module) else augment
        self.clock = EpochClock()

    def collator(self, with_targets: bool, dataset: Any = None) -> Callable[[list[Any]], dict[str, Any]]:
        """The data collator that drops the column of ids, fills in labels that are None (of `dataset`, by default the training
        set) and, for training, adds ids and targets; the user's own where the training is Trainer's."""
        trainer = self._trainer
        if trainer.is_plain:
            return self._collator_of_tasks(dataset)
        dataset = trainer.train_dataset if dataset is None else dataset
        ours = self._collator_of_tasks(dataset), trainer.args.id_column
        missing, keeps_ids = self._missing_labels(dataset), trainer.args.id_column in self._read_by_model
        columns = self._latent_columns
        if not with_targets or trainer.auxiliary_objective is None:
            return TargetCollator(*ours, missing_labels=missing, keeps_ids=keeps_ids, columns=columns)
        teachers = {target_key(name): teacher for name, teacher in trainer.teachers.items()}
        return TargetCollator(*ours, teachers, True, trainer.args.seed, self.clock.epoch, missing, keeps_ids, columns)

    @property
    def _latent_columns(self) -> set[str]:
        return {name for teacher in self._trainer.teachers.values() for name in teacher.columns}

    def with_null_latents(self, dataset: Any) -> Any:
        """A data set that can be read in batches though a column of latents has null cells: `datasets` makes no arrays of such
        a column, so it gives the cells as they are stored."""
        columns = self._latent_columns
        if not isinstance(dataset, Dataset) or dataset.format["type"] in (None, "arrow", "custom"):
            return dataset
        if not any(dataset.data.column(name).null_count for name in columns & set(dataset.column_names)):
            return dataset
        formatted = [name for name in dataset.format["columns"] if name not in columns]
        kwargs = dataset.format["format_kwargs"]
        return dataset.with_format(dataset.format["type"], columns=formatted, output_all_columns=True, **kwargs)

    def _collator_of_tasks(self, dataset: Any) -> Callable[[list[Any]], dict[str, Any]]:
        """The user's data collator, which of unpaired data leaves a batch the name of its task."""
        collator = self._trainer.data_collator
        if not isinstance(dataset, UnpairedBatches) or isinstance(collator, UnpairedCollator):
            return collator
        return UnpairedCollator(default=collator)

    def _missing_labels(self, dataset: Any) -> MissingLabels | MissingLabelsByTask:
        model = self._trainer.model
        if isinstance(dataset, UnpairedBatches):
            return MissingLabelsByTask(
                dataset, [t for t in dataset.datasets if problem_of_task(model, t) == "regression"]
            )
        config = getattr(base_model(model), "config", None)
        return MissingLabels(dataset, getattr(config, "problem_type", None) == "regression")

    @property
    def collate_of_user(self) -> Callable[[Any, int], Mapping[str, Any]] | None:
        """Makes a batch of a data set's sample with a collator of the user's, which may make anything of the labels; None
        where the collator is transformers' or ours."""
        collator = self._trainer.data_collator
        module = getattr(collator, "__module__", "").partition(".")[0]
        return None if module in ("transformers", "hf_colearn") else self._collated

    def _collated(self, dataset: Any, row: int) -> Mapping[str, Any]:
        with preserve_rng_state(self._trainer.args.device):
            return self.collator(False, dataset)([self._trainer._remove_unused_columns(dataset)[row]])

    def taken_from(self, inputs: MutableMapping[str, Any]) -> CoLearningBatch:
        """Takes what the model does not read out of a batch: what an objective is told."""
        return CoLearningBatch.taken_from(inputs, self.clock.number, kept=self._read_by_model)

    @property
    def _read_by_model(self) -> Container[str]:
        return inspect.signature(base_model(self._trainer.model).forward).parameters

    def of_step(self, batches: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """The micro-batches of an optimizer step, each of which knows the others: see [`prepared`]."""
        step = _Step(self, batches)
        return [{**batch, _STEP: (step, index)} for index, batch in enumerate(batches)]

    def prepared(self, batch: dict[str, Any]) -> dict[str, Any]:
        """A training batch on the device after the user's augmentation, with the counts of its step.

        The counts are of all micro-batches, so the first one that is asked for augments them all: this is where a resumed
        run has its random numbers back. A batch that has them already is left as it is.
        """
        if STEP_COUNTS in batch:
            return batch
        step, index = batch.pop(_STEP, (None, 0))
        if step is None:
            return self.augmented(batch)
        if step.are_blank[index]:
            keep_statistics(self._trainer.model)
        return step.batch(index)

    def augmented(self, batch: dict[str, Any]) -> dict[str, Any]:
        """A batch on the device after the user's augmentation; itself where there is none."""
        if self.augment is None:
            return batch
        batch = dict(batch)
        # Most augmentations could only mix them up.
        ids = None if getattr(self.augment, "needs_sample_ids", False) else batch.pop(SAMPLE_IDS, None)
        with torch.no_grad():
            augmented = self.augment(batch)
        if not isinstance(augmented, Mapping):
            raise TypeError(f"augment returned a {type(augmented).__name__}: let it return the batch, a dictionary.")
        augmented = dict(augmented)
        if ids is not None:
            views = augmented.get(VIEWS)
            augmented[SAMPLE_IDS] = ids if views is None else ids.repeat(len(views) // len(ids))
        return self._trainer._prepare_input(augmented)

    def draw(
        self, dataset: Any, rng: np.random.Generator, size: int | None = None, augment: bool = False
    ) -> dict[str, Any]:
        """This process's share of a batch beside training, with targets where it is of the training set.

        `rng` is the same on all processes, which then share one batch of `size` samples (by default those of a training
        step), however many they are.
        """
        trainer, processes = self._trainer, distributed.world_size()
        asked = trainer._train_batch_size * processes if size is None else size
        count = max(min(asked, len(dataset)) // processes, 1) * processes
        rows = self._drawn(dataset, rng, count)[distributed.rank() :: processes]
        drawn = trainer._remove_unused_columns(dataset).select(rows)
        collate = self.collator(dataset is trainer.train_dataset, dataset)
        batch = trainer._prepare_input(collate([drawn[i] for i in range(len(drawn))]))
        return self.augmented(batch) if augment else batch

    def _drawn(self, dataset: Any, rng: np.random.Generator, count: int) -> np.ndarray:
        """Rows of a batch, with the share of labelled ones that a training batch has where `labelled_per_batch` is set."""
        args, column = self._trainer.args, label_column(dataset)
        if args.labelled_per_batch is None or column is None or dataset is not self._trainer.train_dataset:
            return rng.choice(len(dataset), count, replace=False)
        is_labelled = labelled_rows(dataset, column)
        labelled, rest = np.flatnonzero(is_labelled), np.flatnonzero(~is_labelled)
        share = round(count * args.labelled_per_batch / args.train_batch_size)
        of_labelled = min(max(share, 1), len(labelled))
        of_rest = min(count - of_labelled, len(rest))
        drawn = [rng.choice(labelled, of_labelled, replace=False), rng.choice(rest, of_rest, replace=False)]
        kept = (of_labelled + of_rest) // distributed.world_size() * distributed.world_size()
        return rng.permutation(np.concatenate(drawn))[:kept]


def decoder_inputs(model: Any, batch: CoLearningBatch) -> dict[str, Any]:
    """What the student's forward is given of the targets: the captions of decoders among its training heads."""
    captions = {
        head: batch.targets[teacher]
        for head, teacher in decoder_teachers(base_model(model)).items()
        if teacher in batch.targets
    }
    return {"training_inputs": captions} if captions else {}


_STEP = (
    "hf_colearn.step"  # no column is called so: the entry of a batch that leads to the others of its optimizer step
)


class _Step:
    """The micro-batches of one optimizer step."""

    def __init__(self, batches: Batches, raw: list[dict[str, Any]]):
        self._batches, self._raw = batches, raw
        self._prepared: list[dict[str, Any]] = []
        self.are_blank = [batch.pop(BLANK, False) for batch in raw]  # nothing of them counts

    def batch(self, index: int) -> dict[str, Any]:
        if not self._prepared:
            trainer = self._batches._trainer
            augmented = [self._batches.augmented(trainer._prepare_input(batch)) for batch in self._raw]
            problem = getattr(getattr(base_model(trainer.model), "config", None), "problem_type", None)
            augmented = [
                blank(batch, problem) if is_blank else batch
                for batch, is_blank in zip(augmented, self.are_blank, strict=True)
            ]
            counts = step_counts(trainer.model, augmented)
            self._raw, self._prepared = [], [{**batch, STEP_COUNTS: counts} for batch in augmented]
        return dict(self._prepared[index])  # what reads it takes entries out
