"""Batches of a run: their targets, their augmentation, and batches that are drawn beside training."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch

from hf_colearn.data.sample_ids import SAMPLE_IDS
from hf_colearn.objectives.objective import target_key
from hf_colearn.teachers.collator import EpochClock, TargetCollator
from hf_colearn.utils import distributed


class Batches:
    """What a trainer makes its batches with: its collator, its teachers and the user's augmentation."""

    def __init__(self, trainer: Any, augment: Callable[[dict[str, Any]], dict[str, Any]] | None):
        self._trainer = trainer
        self.augment = augment.to(trainer.args.device) if isinstance(augment, torch.nn.Module) else augment
        self.clock = EpochClock()

    def collator(self, with_targets: bool) -> TargetCollator:
        """The data collator that drops the column of ids and, for training, adds ids and targets."""
        trainer = self._trainer
        if not with_targets or trainer.auxiliary_objective is None:
            return TargetCollator(trainer.data_collator, trainer.args.id_column)
        teachers = {target_key(name): teacher for name, teacher in trainer.teachers.items()}
        seed, epoch = trainer.args.seed, self.clock.epoch
        return TargetCollator(trainer.data_collator, trainer.args.id_column, teachers, True, seed, epoch)

    def augmented(self, batch: dict[str, Any]) -> dict[str, Any]:
        """A batch on the device after the user's augmentation; itself where there is none."""
        if self.augment is None:
            return batch
        ids = {name: batch.pop(name) for name in (SAMPLE_IDS,) if name in batch}  # these cannot be mixed
        with torch.no_grad():
            augmented = self.augment(batch)
        if not isinstance(augmented, Mapping):
            raise TypeError(f"augment returned a {type(augmented).__name__}: let it return the batch, a dictionary.")
        return self._trainer._prepare_input({**augmented, **ids})

    def draw(
        self, dataset: Any, rng: np.random.Generator, size: int | None = None, augment: bool = False
    ) -> dict[str, Any]:
        """This process's share of a batch beside training, with targets where it is of the training set.

        `rng` is the same on all processes, which then share one batch of `size` samples (by default those of a training
        step), however many they are.
        """
        trainer, processes = self._trainer, distributed.world_size()
        asked = trainer.args.train_batch_size * processes if size is None else size
        count = max(min(asked, len(dataset)) // processes, 1) * processes
        rows = rng.choice(len(dataset), count, replace=False)[distributed.rank() :: processes]
        drawn = trainer._remove_unused_columns(dataset).select(rows)
        collate = self.collator(with_targets=dataset is trainer.train_dataset)
        batch = trainer._prepare_input(collate([drawn[i] for i in range(len(drawn))]))
        return self.augmented(batch) if augment else batch
