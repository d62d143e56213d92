"""Null controls: pairings that keep the shape of the targets and take out the teacher's knowledge.

A gain that a null control matches is regularisation, not co-learning; so no gain is claimed without these beside it.
Shapes: B sample ids, D dimensions, C classes or prototypes.
"""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch

from hf_colearn.teachers.pairing import Pairing, PairingWrapper, as_integers, draw_bits, per_sample


class ConstantTarget(Pairing):
    """Every sample sees the bank's mean: a pull to one point, without any content."""

    def rows(self, bank, sample_ids, epoch, seed):
        raise ValueError("ConstantTarget shows the bank's mean, which is no row of it: ask for `targets` instead.")

    def targets(self, bank, sample_ids, epoch, seed):
        return bank.mean().expand(len(sample_ids), -1).clone()

    def check(self, bank, sample_ids):
        bank.mean()  # read the bank once here, not in every worker


class RandomPrototypes(Pairing):
    """Every sample sees one of C Gaussian vectors with the bank's mean and standard deviation in each dimension.

    Args:
        labels (`Sequence[int]`, *optional*): The class of sample id 0, 1, ..., which sees the vector of its class: the
            information of the label, without the teacher's.
        num_prototypes (`int`, *optional*): Instead of labels, how many vectors to draw from, a random one every epoch:
            the counterpart of [`RandomPrompt`].
    """

    def __init__(self, labels: Sequence[int] | np.ndarray | None = None, num_prototypes: int | None = None):
        if (labels is None) == (num_prototypes is None):
            raise ValueError(
                "RandomPrototypes needs either `labels` (one vector a class) or `num_prototypes` (a random one of so "
                f"many every epoch); got labels={'given' if labels is not None else None}, {num_prototypes=}."
            )
        self._labels = _as_classes(labels)
        self.num_prototypes = (num_prototypes or 0) if self._labels is None else int(self._labels.max()) + 1
        if self.num_prototypes < 1:
            raise ValueError(f"num_prototypes={num_prototypes} gives no vector to see: pass at least 1.")

    def rows(self, bank, sample_ids, epoch, seed):
        if self._labels is not None:
            return per_sample(self._labels, sample_ids, "`labels`")
        return (draw_bits(sample_ids, epoch, seed) % np.uint64(self.num_prototypes)).astype(np.int64)

    def targets(self, bank, sample_ids, epoch, seed):
        gaussian_CD = _gaussian(self.num_prototypes, bank.dim, seed)
        return bank.mean() + bank.std() * gaussian_CD[self.rows(bank, sample_ids, epoch, seed)]

    def check(self, bank, sample_ids):
        bank.std()  # read the bank once here, not in every worker
        if self._labels is not None:
            per_sample(self._labels, sample_ids, "`labels`")


@lru_cache(maxsize=8)
def _gaussian(count: int, dim: int, seed: int) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).standard_normal((count, dim), dtype=np.float32))


def _as_classes(labels: Sequence[int] | np.ndarray | None) -> np.ndarray | None:
    classes = None if labels is None else as_integers(labels, "labels")
    if classes is not None and classes.min() < 0:
        raise ValueError(f"label {classes.min()} is negative: classes are numbered from 0.")
    return classes


@lru_cache(maxsize=4096)
def _class_permutation(label: int, seed: int, dim: int) -> np.ndarray:
    """The fixed permutation of D dimensions that belongs to one class, `(D,)` int64."""
    return np.random.default_rng([seed, label]).permutation(dim)


class Permuted(PairingWrapper):
    """The targets of another pairing with their dimensions permuted, by one fixed permutation a class.

    Every target keeps its values (mean, norm, histogram) and the classes stay distinct, but the relations *between*
    classes, which are the teacher's knowledge, are gone.

    Args:
        pairing (`Pairing`): Whose targets are permuted.
        labels (`Sequence[int]`, *optional*): The class of sample id 0, 1, ...; by default a class is a row of the
            bank, which is right where the bank holds one prompt a class.
    """

    def __init__(self, pairing: Pairing, labels: Sequence[int] | np.ndarray | None = None):
        super().__init__(pairing)
        self._labels = _as_classes(labels)

    def targets(self, bank, sample_ids, epoch, seed):
        t_BD = self.pairing.targets(bank, sample_ids, epoch, seed)
        if self._labels is None:
            classes = self.pairing.rows(bank, sample_ids, epoch, seed)
        else:
            classes = per_sample(self._labels, sample_ids, "`labels`")
        order_BD = np.stack([_class_permutation(int(c), seed, bank.dim) for c in classes])
        return t_BD.gather(1, torch.from_numpy(order_BD))

    def check(self, bank, sample_ids):
        super().check(bank, sample_ids)
        if self._labels is not None:
            per_sample(self._labels, sample_ids, "`labels`")
