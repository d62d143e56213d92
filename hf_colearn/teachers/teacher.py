"""A teacher for the trainer: a bank of latents and the pairing that says which of them a sample sees."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch

from hf_colearn.teachers.pairing import Paired, Pairing
from hf_colearn.teachers.sequence_bank import AnyBank


@dataclass(frozen=True)
class Teacher:
    """A teacher bank and its pairing: `teachers={"text": Teacher(bank), ...}` trains with one loss term each.

    Args:
        bank ([`TeacherBank`] or [`SequenceBank`]): The latents of the teacher, or its sequences.
        pairing ([`Pairing`], *optional*, defaults to `Paired()`): Which row of the bank a sample sees.

    Example:

    ```python
    >>> import numpy as np
    >>> from hf_colearn import Paired, Teacher, TeacherBank

    >>> teacher = Teacher(TeacherBank.from_latents(np.eye(3)), Paired([0, 2, 1, 1]))  # a latent for each of 3 classes
    >>> teacher.targets(np.array([3, 0]), epoch=0, seed=0).tolist()
    [[0.0, 1.0, 0.0], [1.0, 0.0, 0.0]]

    ```
    """

    bank: AnyBank
    pairing: Pairing = Paired()

    def __post_init__(self):
        if isinstance(self.bank, Mapping):
            named = ", ".join(f'"{name}": Teacher(...)' for name in self.bank)
            raise TypeError(f"bank is a {type(self.bank).__name__}: name several teachers by `teachers={{{named}}}`.")
        if isinstance(self.bank, type):
            raise TypeError(f"bank={self.bank.__name__} is a class: pass an object, as `TeacherBank.load(folder)` is.")
        if not hasattr(self.bank, "lookup"):
            raise TypeError(f"bank is a {type(self.bank).__name__}: pass `TeacherBank.from_latents(latents)`.")
        if self.pairing is None:
            object.__setattr__(self, "pairing", Paired())
        if isinstance(self.pairing, type):
            name = self.pairing.__name__
            raise TypeError(f"pairing={name} is a class: pass an object of it, `{name}()`.")
        if not isinstance(self.pairing, Pairing):
            raise TypeError(
                f"pairing is a {type(self.pairing).__name__}: pass one such as `Paired(rows)`, or an object of your own "
                "subclass of `Pairing`, which gives `rows`."
            )
        kind = type(self.pairing)
        if kind.rows is Pairing.rows and kind.targets is Pairing.targets:
            raise TypeError(f"{kind.__name__} gives neither `rows` nor `targets`: define `rows` in it.")

    @property
    def dim(self) -> int | None:
        """D, the width of the targets; None of ids."""
        return self.bank.dim

    def targets(self, sample_ids: np.ndarray, epoch: int, seed: int) -> torch.Tensor:
        """The target of every sample on the CPU, `(B, D)` float32; of sequences `(B, T, D)`, of ids `(B, T)` int64. A row of
        NaN, of ids of -100, where a sample has none."""
        return self.pairing.targets(self.bank, sample_ids, epoch, seed)

    def check(self, sample_ids: np.ndarray) -> None:
        """Refuses, before training, sample ids that the pairing cannot serve: a ValueError that names the value."""
        self.pairing.check(self.bank, sample_ids)
