"""Batches with a given number of labelled samples, two streams as semi-supervised methods draw them; batches of one task."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from torch.utils.data import Sampler

from hf_colearn.data.labels import label_column, labelled_rows
from hf_colearn.data.unpaired import UnpairedBatches, UnpairedSampler
from hf_colearn.training.task_checks import batches_can_be_of_one_task


class LabelledSampler(Sampler[int]):
    """Orders the samples so that every batch has `labelled_per_batch` labelled ones, and unlabelled ones for the rest.

    An epoch is one pass over the longer of the two streams, counted in batches; the shorter one is passed over as often as
    it takes. Every pass is shuffled anew, by seed and epoch alone, so a resumed run and other processes see the same order.

    Args:
        is_labelled (`np.ndarray` of shape `(N,)`): Booleans.
        batch_size (`int`): Of a batch on one device.
        labelled_per_batch (`int`): From 1 to `batch_size - 1`.
        seed (`int`): Of the order.
        epoch (`torch.Tensor` of shape `()`): The current epoch, from 0; it is read when an epoch begins.
    """

    def __init__(
        self, is_labelled: np.ndarray, batch_size: int, labelled_per_batch: int, seed: int, epoch: torch.Tensor
    ):
        self._labelled, self._unlabelled = np.flatnonzero(is_labelled), np.flatnonzero(~is_labelled)
        if not 0 < labelled_per_batch < batch_size:
            raise ValueError(
                f"labelled_per_batch={labelled_per_batch} with a batch of {batch_size} a device: pass a number from 1 to "
                f"{batch_size - 1}, so that a batch has labelled and unlabelled samples."
            )
        if not len(self._labelled) or not len(self._unlabelled):
            raise ValueError(
                f"labelled_per_batch={labelled_per_batch} needs labelled and unlabelled samples, and {len(self._labelled)} of "
                f"{len(is_labelled)} have a label: leave it out."
            )
        self._sizes = (labelled_per_batch, batch_size - labelled_per_batch)
        self._seed, self._epoch = seed, epoch
        streams = zip((self._labelled, self._unlabelled), self._sizes, strict=True)
        self._batches = max(-(-len(stream) // size) for stream, size in streams)

    def __len__(self) -> int:
        return self._batches * sum(self._sizes)

    def __iter__(self) -> Iterator[int]:
        rng = np.random.default_rng([self._seed, int(self._epoch)])
        orders = [
            _passes(stream, self._batches * size, rng).reshape(self._batches, size)
            for stream, size in zip((self._labelled, self._unlabelled), self._sizes, strict=True)
        ]
        yield from rng.permuted(np.concatenate(orders, axis=1), axis=1).ravel().tolist()


def _passes(stream: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """So many samples of a stream, in passes over all of it that are shuffled each."""
    return np.concatenate([rng.permutation(stream) for _ in range(-(-count // len(stream)))])[:count]


def own_sampler(trainer: Any, dataset: Any) -> Sampler[int] | None:
    """Draws batches of one task each, or of two streams, where the training set or the arguments ask for it."""
    args, epoch, size = trainer.args, trainer.batches.clock.epoch, trainer._train_batch_size
    if isinstance(dataset, UnpairedBatches):
        batches_can_be_of_one_task(trainer.model, args)
        processes = 1 if args.accelerator_config.split_batches else args.world_size
        return UnpairedSampler(dataset, size, processes, args.gradient_accumulation_steps, _seed(args), epoch)
    return None if args.labelled_per_batch is None else labelled_sampler(dataset, args, size, epoch)


def _seed(args: Any) -> int:
    return args.seed if args.data_seed is None else args.data_seed


def labelled_sampler(dataset: Any, args: Any, batch_size: int, epoch: torch.Tensor) -> LabelledSampler:
    """The sampler that `labelled_per_batch` asks for, of a training set with a column of labels."""
    count = args.labelled_per_batch
    if not isinstance(dataset, Dataset):
        raise ValueError(
            f"labelled_per_batch={count} needs to know which samples have a label, and the training set is a "
            f"{type(dataset).__name__}: pass a datasets.Dataset, or leave it out."
        )
    column = label_column(dataset)
    if column is None:
        raise ValueError(
            f"labelled_per_batch={count} needs a column of labels, and the training set has "
            f"{', '.join(map(repr, dataset.column_names))}: name it 'labels', or leave labelled_per_batch out."
        )
    return LabelledSampler(labelled_rows(dataset, column), batch_size, count, _seed(args), epoch)
