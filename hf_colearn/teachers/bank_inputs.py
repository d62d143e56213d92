"""What a bank's rows were encoded from, and where an input stands among them.

A bank keeps of every distinct input a key by which it is known again: a text itself, of an image or a waveform 128 bits of its
content in hexadecimal.

Shapes: N rows of the bank, U distinct inputs, B inputs that are looked for.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from datasets import Column, Dataset

from hf_colearn.teachers.inputs import digest
from hf_colearn.teachers.rows import StoredColumn


NOWHERE = -1  # the row of an input that the bank does not hold
_SHOWN = 60  # characters of a text in an error


@dataclass(frozen=True)
class Fit:
    """Whether B inputs are those that B rows were encoded from.

    Args:
        fits (`np.ndarray` of shape `(B,)`): Booleans.
        found (`np.ndarray` of shape `(B,)`): The first row of the bank with this input, int64; -1 where none has it.
    """

    fits: np.ndarray
    found: np.ndarray


class BankInputs:
    """The keys of a bank's rows.

    Args:
        distinct (`Sequence[str]`): The U keys.
        index (`np.ndarray` or [`StoredColumn`] of shape `(N,)`, *optional*): Which of them each row has; row i the
            i-th by default.
        modality (`str`, *optional*): The teacher's: `"text"`, `"vision"` or `"audio"`.
    """

    def __init__(self, distinct: Sequence[str], index: np.ndarray | StoredColumn | None, modality: str | None):
        self._distinct, self._index, self.modality = distinct, index, modality

    @cached_property
    def _keys(self) -> pa.ChunkedArray:
        if isinstance(self._distinct, Column):  # of a file: mapped, not read
            name = self._distinct.column_name
            return self._distinct.source.with_format("arrow")[:][name]
        return pa.chunked_array([pa.array(self._distinct, pa.string())])

    def keys_of(self, inputs: Iterable[Any]) -> list[str]:
        """The keys of B inputs."""
        if self.modality in (None, "text"):
            return [x if isinstance(x, str) else digest(x, position).hex() for position, x in enumerate(inputs)]
        return [digest(x, position, self.modality).hex() for position, x in enumerate(inputs)]

    def first_rows(self, keys: Sequence[str]) -> np.ndarray:
        """The first row with each key, `(B,)` int64; -1 where none has it."""
        found = pc.index_in(pa.array(keys, pa.string()), value_set=self._keys).fill_null(NOWHERE)
        stored_B = found.to_numpy(zero_copy_only=False).astype(np.int64)
        if self._index is None:
            return stored_B
        first_U = np.unique(np.asarray(self._index), return_index=True)[1]
        return np.where(stored_B == NOWHERE, NOWHERE, first_U[stored_B])

    def at(self, rows: np.ndarray) -> list[str]:
        """The keys of B rows."""
        return self._keys.take(pa.array(rows if self._index is None else self._index[rows])).to_pylist()

    def fit(self, keys: Sequence[str], rows: np.ndarray) -> Fit:
        """Compares the keys of B inputs with those of B rows."""
        fits_B = np.array([key == own for key, own in zip(keys, self.at(rows), strict=True)], dtype=bool)
        found_B = np.array(rows, dtype=np.int64)
        if not fits_B.all():
            found_B[~fits_B] = self.first_rows([key for key, fits in zip(keys, fits_B, strict=True) if not fits])
        return Fit(fits_B, found_B)

    def mismatch(self, name: str, item: Any, row: int, found: int) -> str:
        """What to say of an input that is not what a row was encoded from, without the way out."""
        shown = f" ('{item[:_SHOWN]}')" if isinstance(item, str) else ""
        is_text = self.modality in (None, "text")
        own = f"'{self.at(np.array([row]))[0][:_SHOWN]}'" if is_text else "another one"
        its = "no row is encoded from this one" if found == NOWHERE else f"this one's is row {found}"
        return f"{name}{shown} is paired with row {row} of the bank, which was encoded from {own}: {its}"


def find_rows(stored: BankInputs | None, inputs: Sequence[Any]) -> np.ndarray:
    """The first row with each input, `(B,)` int64; see [`TeacherBank.rows_of`]."""
    stored, keys = _known(stored), keys_of(stored, inputs)
    rows_B = stored.first_rows(keys)
    if (missing := rows_B == NOWHERE).any():
        first = int(missing.argmax())
        shown = f"'{keys[first][:_SHOWN]}'" if isinstance(inputs[first], str) else f"a {type(inputs[first]).__name__}"
        raise ValueError(
            f"{missing.sum()} of {len(keys)} inputs are not among those that the bank was encoded from, such as input {first}, "
            f"{shown}: encode a bank of all of them, as they are here, or leave them out."
        )
    return rows_B


def check_pairs(stored: BankInputs | None, inputs: Sequence[Any], rows: np.ndarray) -> None:
    """Refuses inputs that are not what their rows, `(B,)`, were encoded from; see [`TeacherBank.check_inputs`]."""
    stored, keys = _known(stored), keys_of(stored, inputs)
    if len(keys) != len(rows):
        raise ValueError(
            f"{len(keys)} inputs for {len(rows)} rows: pass one input a row, or the `rows` of these inputs."
        )
    fit = stored.fit(keys, rows)
    if not fit.fits.all():
        first = int(fit.fits.argmin())
        wrong = stored.mismatch(f"input {first}", inputs[first], int(rows[first]), int(fit.found[first]))
        raise ValueError(
            f"{wrong}. {(~fit.fits).sum()} of {len(keys)} do not fit: find their rows by `bank.rows_of(inputs)`, or encode a "
            "bank of these inputs."
        )


def _known(stored: BankInputs | None) -> BankInputs:
    if stored is None:
        raise ValueError(
            "the bank does not know what its rows were encoded from: make it with `TeacherBank.encode`, or with "
            "`TeacherBank.from_latents(latents, inputs=inputs)`."
        )
    return stored


def keys_of(stored: BankInputs, inputs: Any) -> list[str]:
    """The keys of a list of inputs, refusing what is none."""
    check_inputs(inputs)
    return stored.keys_of(inputs)


def check_inputs(inputs: Any) -> None:
    """Refuses what is no list of inputs that can be read twice."""
    if isinstance(inputs, Dataset):
        raise TypeError(
            f"inputs is a Dataset: pass one of its columns, such as `dataset['{inputs.column_names[0]}']`."
        )
    if isinstance(inputs, str):
        raise ValueError(f"inputs='{inputs[:_SHOWN]}' is a single text: pass a list of inputs.")
    if isinstance(inputs, Mapping) or not hasattr(inputs, "__len__") or not hasattr(inputs, "__getitem__"):
        raise TypeError(f"inputs is a {type(inputs).__name__}: pass a list or column of inputs.")
