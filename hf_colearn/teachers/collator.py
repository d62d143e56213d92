"""Collation: takes the sample ids out of a batch and puts the teachers' targets in.

This runs in the data loader's workers, so that neither the look-up nor the ids' way to the CPU costs the training
step.
"""

from collections.abc import Callable, Collection, Mapping
from typing import Any

import numpy as np
import torch
from transformers import TrainerCallback

from hf_colearn.data.labels import MissingLabels
from hf_colearn.data.sample_ids import SAMPLE_IDS
from hf_colearn.teachers.teacher import Teacher


class TargetCollator:
    """Wraps a collator: drops the id column and, for training, adds the ids and the targets `[B, D]` of this epoch.

    Args:
        collator (`Callable`): Makes a batch of the features without their ids.
        id_column (`str`): The column of the sample ids; ignored where it is absent and no targets are needed.
        teachers (`Mapping[str, Teacher]`, *optional*): Where the targets come from, by the entry of the batch that they
            become; without one none are added.
        with_ids (`bool`, *optional*, defaults to `False`): Whether the batch gets the ids, where there are any.
        seed (`int`, *optional*, defaults to 0): The pairings'.
        epoch (`torch.Tensor`, *optional*): The current epoch in shared memory, so that living workers see it change;
            epoch 0 by default.
        missing_labels ([`~hf_colearn.data.labels.MissingLabels`], *optional*): What stands for labels that are None.
        keeps_ids (`bool`, *optional*, defaults to `False`): Whether the id column stays, because the model reads it.
        columns (`Collection[str]`, *optional*): Columns of latents, which the collator and the model are not given.
    """

    def __init__(
        self,
        collator: Callable[[list[Any]], dict[str, Any]],
        id_column: str,
        teachers: Mapping[str, Teacher] | None = None,
        with_ids: bool = False,
        seed: int = 0,
        epoch: torch.Tensor | None = None,
        missing_labels: MissingLabels | None = None,
        keeps_ids: bool = False,
        columns: Collection[str] = (),
    ):
        self.collator, self.id_column, self.seed = collator, id_column, seed
        self.teachers, self.with_ids, self.missing_labels = dict(teachers or {}), with_ids, missing_labels
        self.keeps_ids, self.columns = keeps_ids, frozenset(columns)
        self.epoch = torch.zeros((), dtype=torch.int64) if epoch is None else epoch

    def __call__(self, features: list[Any]) -> dict[str, Any]:
        if not isinstance(features[0], Mapping):
            if not self.teachers:
                return self.collator(features)
            raise ValueError(
                f"a training sample is of type {type(features[0]).__name__}, so it has no '{self.id_column}': let the "
                "dataset give dictionaries with that key."
            )
        if self.missing_labels is not None:
            features = self.missing_labels.filled(features)
        inputs, dropped = features, self.columns if self.keeps_ids else self.columns | {self.id_column}
        if dropped:
            inputs = [{key: value for key, value in f.items() if key not in dropped} for f in features]
        batch = self.collator(inputs)
        has_ids = self.id_column in features[0]
        if not has_ids and any(teacher.needs_ids for teacher in self.teachers.values()):
            raise ValueError(missing_ids(self.id_column, list(features[0])))
        if not self.teachers and not (self.with_ids and has_ids):
            return batch
        ids = [int(feature[self.id_column]) for feature in features] if has_ids else range(len(features))
        sample_ids = np.array(ids, dtype=np.int64)
        for key, teacher in self.teachers.items():
            batch[key] = teacher.targets(sample_ids, int(self.epoch), self.seed, features)
        if self.with_ids and has_ids:
            batch[SAMPLE_IDS] = torch.from_numpy(sample_ids)
        return batch


class EpochClock(TrainerCallback):
    """The epoch, from 0: as a number, and in shared memory, where the data loader's workers see it."""

    def __init__(self):
        self.number = 0
        self.epoch = torch.zeros((), dtype=torch.int64).share_memory_()

    def on_train_begin(self, args, state, control, **kwargs):
        self._set(int(state.epoch or 0) - 1)  # epochs already whole; `on_epoch_begin` counts this one

    def on_epoch_begin(self, args, state, control, **kwargs):
        self._set(self.number + 1)

    def _set(self, number: int) -> None:
        self.number = number
        self.epoch.fill_(number)


def missing_ids(id_column: str, found: list[str]) -> str:
    """What to say where the training set has no ids."""
    return (
        f"the training samples have no column '{id_column}' (they have {', '.join(map(repr, found))}), so no teacher "
        "target can be found for them: number them with `train = with_sample_ids(train)` before shuffling or "
        "selecting, let a transform pass the column on, or set `id_column`."
    )
