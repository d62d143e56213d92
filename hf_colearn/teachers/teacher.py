"""A teacher for the trainer: a bank or a column of latents and the pairing that says which of them a sample sees."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from hf_colearn.teachers.latent_column import LatentColumn, NoOtherRows, OwnLatents
from hf_colearn.teachers.pairing import Paired, Pairing, PairingWrapper, without_target
from hf_colearn.teachers.sequence_bank import AnyBank


@dataclass(frozen=True)
class Teacher:
    """A teacher bank and its pairing: `teachers={"text": Teacher(bank), ...}` trains with one loss term each.

    Args:
        bank ([`TeacherBank`], [`SequenceBank`] or [`LatentColumn`]): The latents of the teacher, its sequences, or the
            column of the training data that holds its latents.
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

    bank: AnyBank | LatentColumn
    pairing: Pairing = Paired()

    def __post_init__(self):
        if isinstance(self.bank, Mapping):
            named = ", ".join(f'"{name}": Teacher(...)' for name in self.bank)
            raise TypeError(f"bank is a {type(self.bank).__name__}: name several teachers by `teachers={{{named}}}`.")
        if isinstance(self.bank, type):
            raise TypeError(f"bank={self.bank.__name__} is a class: pass an object, as `TeacherBank.load(folder)` is.")
        if not isinstance(self.bank, LatentColumn) and not hasattr(self.bank, "lookup"):
            raise TypeError(
                f"bank is a {type(self.bank).__name__}: pass `TeacherBank.from_latents(latents)`, or of a column of the "
                "training data `LatentColumn(column, dim=...)`."
            )
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

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns of the training data that the targets come from; none of a bank."""
        return self.bank.columns if isinstance(self.bank, LatentColumn) else ()

    @property
    def needs_ids(self) -> bool:
        """Whether a sample's target depends on its id, as that of a column which is shown as it is does not."""
        return not isinstance(self.bank, LatentColumn) or type(self.pairing) is not Paired

    def targets(
        self, sample_ids: np.ndarray, epoch: int, seed: int, samples: Sequence[Mapping[str, Any]] = ()
    ) -> torch.Tensor:
        """The target of every sample on the CPU, `(B, D)` float32; of sequences `(B, T, D)`, of ids `(B, T)` int64. A row of
        NaN, of ids of -100, where a sample has none. `samples` are the rows with the columns that targets come from."""
        if not isinstance(self.bank, LatentColumn):
            return self.pairing.targets(self.bank, sample_ids, epoch, seed)
        own: Any = self.bank.own(sample_ids, samples)
        targets_BD = self.pairing.targets(own, sample_ids, epoch, seed)
        has_B = own.have_latent
        return targets_BD if has_B.all() else without_target(targets_BD, has_B)

    def check(self, sample_ids: np.ndarray) -> None:
        """Refuses, before training, sample ids that the pairing cannot serve, and of a column a pairing that shows other rows:
        a ValueError that names the value."""
        if not isinstance(self.bank, LatentColumn):
            self.pairing.check(self.bank, sample_ids)
            return
        one = np.zeros(1, dtype=np.int64) if not len(sample_ids) else np.asarray(sample_ids[:1])
        try:
            for ids in (sample_ids, one):
                self.pairing.check(_unread(self.bank, ids), ids)
            self.pairing.targets(_unread(self.bank, one), one, 0, 0)
        except NoOtherRows as refusal:
            raise ValueError(f"{_named(self.pairing)} {refusal}") from None


def _unread(column: LatentColumn, sample_ids: np.ndarray) -> Any:
    """A column's latents before any was read."""
    return OwnLatents(column, sample_ids, np.zeros((len(sample_ids), column.dim), dtype=np.float32))


def _named(pairing: Pairing) -> str:
    name, inner = type(pairing).__name__, pairing.pairing if isinstance(pairing, PairingWrapper) else None
    if isinstance(pairing, Paired):
        return f"{name}(rows)"
    return name if inner is None or type(inner) is Paired else f"{name}({_named(inner)})"
