"""How a bank's latents are scaled as they are read. Shapes: B rows, D dimensions; `(rows, D)` of a chunk."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np


SCALINGS = ("standardized", "l2", "none")
_ROUNDING = 1e-6  # of float32 latents, relative to their size: what varies less does not vary


def moments(chunks: Iterable[np.ndarray], counts: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """The mean and the standard deviation (the population's) in every dimension of rows that are read chunk by chunk.

    Rows of NaN count as none.

    Args:
        chunks (`Iterable[np.ndarray]`): `(rows, D)` each, together at least one row that is not NaN.
        counts (`np.ndarray`, *optional*): How often every row counts, in the order of the chunks; once by default.

    Returns:
        `tuple[np.ndarray, np.ndarray]`: `(D,)` each, float64.
    """
    origin_D, total_D, squares_D, start, number = None, 0.0, 0.0, 0, 0.0
    for chunk in chunks:
        has_latent = ~np.isnan(chunk).all(axis=1)
        weights = np.ones(len(chunk)) if counts is None else counts[start : start + len(chunk)].astype(np.float64)
        start += len(chunk)
        if not has_latent.all():
            chunk, weights = chunk[has_latent], weights[has_latent]
        if not len(chunk):
            continue
        if origin_D is None:
            origin_D = chunk[0].astype(np.float64)  # shifted, so that squares do not cancel
        centred = chunk.astype(np.float64) - origin_D
        total_D += weights @ centred
        squares_D += weights @ centred**2
        number += weights.sum()
    if origin_D is None:
        raise ValueError("none of the rows holds a latent, all are NaN: take rows that have one.")
    mean_D = total_D / number
    return mean_D + origin_D, np.sqrt(np.maximum(squares_D / number - mean_D**2, 0))


def counts_of(index_chunks: Iterable[np.ndarray], number: int) -> np.ndarray:
    """How often each of `number` distinct rows occurs in an index that is read piece by piece, `(U,)` int64."""
    counts_U = np.zeros(number, dtype=np.int64)
    for rows in index_chunks:
        distinct, times = np.unique(rows, return_counts=True)
        counts_U[distinct] += times
    return counts_U


def first_zero(chunks: Iterable[np.ndarray]) -> int | None:
    """Where the first row is that is 0 in every dimension; None where none is."""
    start = 0
    for chunk in chunks:
        is_zero = ~chunk.any(axis=1)
        if is_zero.any():
            return start + int(is_zero.argmax())
        start += len(chunk)
    return None


def unit_norm(t_BD: np.ndarray) -> np.ndarray:
    """Every row divided by its length, `(B, D)` float32."""
    return (t_BD / np.linalg.norm(t_BD.astype(np.float64), axis=1, keepdims=True)).astype(np.float32)


@dataclass(frozen=True, eq=False)
class Standardization:
    """Mean 0 and standard deviation 1 in every dimension; dimensions that do not vary become 0.

    Args:
        mean_D, std_D (`np.ndarray` of shape `(D,)`): What [`moments`] gives.
    """

    mean_D: np.ndarray
    std_D: np.ndarray

    @property
    def varies_D(self) -> np.ndarray:
        """Which dimensions vary by more than the rounding of float32, `(D,)` booleans."""
        return self.std_D > _ROUNDING * np.abs(self.mean_D)

    def __call__(self, t_BD: np.ndarray) -> np.ndarray:
        deviation_BD = np.where(self.varies_D, t_BD - self.mean_D, 0)
        deviation_BD[np.isnan(t_BD[:, 0])] = np.nan  # rows without a latent
        return (deviation_BD / np.where(self.varies_D, self.std_D, 1)).astype(np.float32)


def standardization(chunks: Iterable[np.ndarray], number: int) -> Standardization:
    """Of all rows in chunks `(rows, D)`, `number` together; a ValueError where they do not vary."""
    scale = Standardization(*moments(chunks)) if number else None
    if scale is None or not scale.varies_D.any():
        raise ValueError(
            f"the bank's latents cannot be standardized, since the {number} distinct ones to compute a mean and a standard "
            "deviation from have no variance: pass `latent_scaling='none'` (or 'l2') to CoLearningArguments, or give the "
            "teacher inputs that differ."
        )
    return scale
