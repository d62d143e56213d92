"""Means and variances of what is seen part by part. Shapes: B rows, D dimensions."""

from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True, eq=False)
class Moments:
    """How many rows were seen, their mean and the sum of squared deviations from it, `(D,)` float64 each.

    Source: Chan, Golub & LeVeque, "Algorithms for computing the sample variance" (The American Statistician, 1983), eq. 2.1.
    """

    number: int
    mean_D: np.ndarray
    squares_D: np.ndarray

    @classmethod
    def of(cls, t_BD: np.ndarray, counts_B: np.ndarray) -> "Moments":
        """Those of rows `(B, D)`, each of which counts `counts_B` times; at least one does."""
        t_BD, number = t_BD.astype(np.float64), int(counts_B.sum())
        mean_D = counts_B @ t_BD / number
        return cls(number, mean_D, counts_B @ (t_BD - mean_D) ** 2)

    @classmethod
    def none(cls, dim: int) -> "Moments":
        """Those of no row."""
        return cls(0, np.zeros(dim), np.zeros(dim))

    def __add__(self, other: "Moments") -> "Moments":
        if not self.number or not other.number:
            return self if self.number else other
        number = self.number + other.number
        apart_D = other.mean_D - self.mean_D
        squares_D = self.squares_D + other.squares_D + apart_D**2 * (self.number * other.number / number)
        return Moments(number, self.mean_D + apart_D * (other.number / number), squares_D)

    @property
    def std_D(self) -> np.ndarray:
        """The standard deviation, that of the population, `(D,)`."""
        return np.sqrt(self.squares_D / self.number)

    def as_json(self) -> dict[str, Any]:
        return {"number": self.number, "mean": self.mean_D.tolist(), "squares": self.squares_D.tolist()}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "Moments":
        return cls(values["number"], np.array(values["mean"]), np.array(values["squares"]))
