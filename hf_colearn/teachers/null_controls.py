"""Null controls: pairings that keep the shape of the targets and take out the teacher's knowledge.

A gain that a null control matches is regularisation, not co-learning; so no gain is claimed without these beside it.
The controls that take `labels` show nothing to samples without a label (-100): these have no target and no part in the
latent loss. A vector drawn for each would be noise that makes a control easy to beat, and a permutation that they share would
leave all of the teacher's knowledge in. What pairs without labels give is told by [`Shuffled`] and [`ConstantTarget`].

Shapes: B sample ids, D dimensions, C classes or prototypes.
"""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch

from hf_colearn.data.sample_ids import NO_LABEL
from hf_colearn.teachers.pairing import (
    Pairing,
    PairingWrapper,
    as_integers,
    draw_bits,
    holds_ids,
    per_sample,
    without_target,
)
from hf_colearn.teachers.sequence_bank import AnyBank, SequenceBank
from hf_colearn.utils.checks import check_integer


class ConstantTarget(Pairing):
    """Every sample sees the bank's mean: a pull to one point, without any content."""

    def rows(self, bank, sample_ids, epoch, seed):
        raise ValueError("ConstantTarget shows the bank's mean, which is no row of it: ask for `targets` instead.")

    def targets(self, bank, sample_ids, epoch, seed):
        return bank.mean().expand(len(sample_ids), -1).clone()

    def check(self, bank, sample_ids):
        _refuse_sequences(bank, self)
        bank.mean()  # read the bank once here, not in every worker


class RandomPrototypes(Pairing):
    """Every sample sees one of C Gaussian vectors with the bank's mean and standard deviation in each dimension.

    Args:
        labels (`Sequence[int]`, *optional*): The class of sample id 0, 1, ..., which sees the vector of its class: the
            information of the label, without the teacher's. A sample with -100 has no target.
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
        if num_prototypes is not None:
            check_integer("num_prototypes", num_prototypes, least=1)
        self.num_prototypes = int(num_prototypes or 0) if self._labels is None else int(self._labels.max()) + 1

    def rows(self, bank, sample_ids, epoch, seed):
        if self._labels is not None:
            return per_sample(self._labels, sample_ids, "`labels`")
        return (draw_bits(sample_ids, epoch, seed) % np.uint64(self.num_prototypes)).astype(np.int64)

    def targets(self, bank, sample_ids, epoch, seed):
        gaussian_CD, classes = _gaussian(self.num_prototypes, bank.dim, seed), self.rows(bank, sample_ids, epoch, seed)
        return without_target(bank.mean() + bank.std() * gaussian_CD[np.maximum(classes, 0)], classes != NO_LABEL)

    def check(self, bank, sample_ids):
        _refuse_sequences(bank, self)
        bank.std()  # read the bank once here, not in every worker
        if self._labels is not None:
            per_sample(self._labels, sample_ids, "`labels`")


@lru_cache(maxsize=8)
def _gaussian(count: int, dim: int, seed: int) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).standard_normal((count, dim), dtype=np.float32))


def _as_classes(labels: Sequence[int] | np.ndarray | None) -> np.ndarray | None:
    """The class of every sample id, int64, -100 where a sample has no label."""
    if labels is None:
        return None
    kind = np.asarray(labels)
    if kind.ndim != 1 or not np.issubdtype(kind.dtype, np.integer):
        raise ValueError(
            f"labels must be a non-empty list of integers, one a sample; got {kind.dtype} of shape {kind.shape}. Where a "
            "sample has a number or several labels, use a control without classes: `Shuffled()`, `ConstantTarget()` or "
            "`RandomPrototypes(num_prototypes=...)`. No label is -100."
        )
    classes = as_integers(labels, "labels")
    is_odd = (classes < 0) & (classes != NO_LABEL)
    if is_odd.any():
        raise ValueError(f"label {classes[is_odd][0]} is negative: classes are numbered from 0, and -100 is no label.")
    if (classes == NO_LABEL).all():
        raise ValueError(
            f"all {len(classes)} labels are -100, so no sample has a class: use a control without classes, `Shuffled()`, "
            "`ConstantTarget()` or `RandomPrototypes(num_prototypes=...)`."
        )
    return classes


def _refuse_sequences(bank: AnyBank, control: Pairing) -> None:
    if isinstance(bank, SequenceBank):
        raise ValueError(
            f"{type(control).__name__} shows one vector a sample, and the bank holds sequences: use `Shuffled()` or "
            "`Mismatched(Paired(), 1.0)`, or of latents a bank of Gaussian ones, `gaussian_sequences(bank)`."
        )


def gaussian_sequences(bank: SequenceBank, seed: int = 0) -> SequenceBank:
    """A bank of Gaussian noise with the lengths of another one, and in every dimension its mean and standard deviation over all
    frames: targets of the same moments, without any content.

    Args:
        bank ([`SequenceBank`]): Of latents.
        seed (`int`, *optional*, defaults to 0): Of the draws.

    Example:

    ```python
    >>> import numpy as np
    >>> from hf_colearn.teachers.null_controls import gaussian_sequences
    >>> from hf_colearn.teachers.sequence_bank import SequenceBank

    >>> bank = SequenceBank.from_sequences([np.full((3, 2), 5.0), np.full((1, 2), 5.0)])
    >>> gaussian_sequences(bank).lookup([0]).tolist()  # no variance, so the mean alone
    [[[5.0, 5.0], [5.0, 5.0], [5.0, 5.0]]]

    ```
    """
    if holds_ids(bank):
        raise ValueError("the bank holds ids, which have no moments: permute them instead.")
    mean_D, std_D = bank.mean().numpy(), bank.std().numpy()
    noise_MD = np.random.default_rng(seed).standard_normal((int(bank.lengths.sum()), len(mean_D)), dtype=np.float32)
    frames = np.split(mean_D + std_D * noise_MD, np.cumsum(bank.lengths)[:-1])
    return SequenceBank.from_sequences(frames, teacher="Gaussian noise", moments_of=bank.fingerprint)


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
        labels (`Sequence[int]`, *optional*): The class of sample id 0, 1, ...; a sample with -100 has no target. By default
            a class is a row of the bank, which is right where the bank holds one prompt a class.
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
        order_BD = np.stack([_class_permutation(int(c), seed, bank.dim) for c in np.maximum(classes, 0)])
        if t_BD.ndim == 3:  # sequences: every frame alike
            order_BD = order_BD[:, None].repeat(t_BD.shape[1], axis=1)
        permuted_BD = t_BD.gather(-1, torch.from_numpy(order_BD))
        return permuted_BD if self._labels is None else without_target(permuted_BD, classes != NO_LABEL)

    def check(self, bank, sample_ids):
        super().check(bank, sample_ids)
        if holds_ids(bank):
            raise ValueError(
                "Permuted permutes the dimensions of latents, and the bank holds ids: permute the ids before the bank is made "
                "of them, or use `Shuffled()`."
            )
        if self._labels is not None:
            per_sample(self._labels, sample_ids, "`labels`")
