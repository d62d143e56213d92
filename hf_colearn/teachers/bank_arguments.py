"""What a bank is made of: a teacher and its inputs, or latents and ids that were computed elsewhere.

Shapes: N inputs, D dimensions; sequences of lengths T_i, M = sum T_i frames together.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from hf_colearn.data.sample_ids import NO_LABEL
from hf_colearn.teachers.bank_inputs import check_inputs
from hf_colearn.teachers.encoder import FrozenEncoder
from hf_colearn.teachers.stored_latents import DTYPES
from hf_colearn.utils.checks import check_choice, check_integer, check_path


def check_encoding(encoder: Any, inputs: Any, cache_dir: Any, batch_size: Any, dtype: Any = "float32") -> None:
    """Refuses what cannot be encoded, or not so."""
    if not isinstance(encoder, FrozenEncoder):
        shown = f"the text '{encoder}'" if isinstance(encoder, str) else f"a {type(encoder).__name__}"
        raise TypeError(
            f"encoder is {shown}: pass a teacher, such as `FrozenEncoder.from_pretrained(name_or_folder)`."
        )
    check_inputs(inputs)
    check_integer("batch_size", batch_size, least=1)
    check_choice("dtype", dtype, DTYPES)
    if cache_dir is not None:
        check_path("cache_dir", cache_dir)


def check_stored(dtype: Any, rows_per_file: Any) -> None:
    """Refuses what latents cannot be stored as."""
    check_choice("dtype", dtype, DTYPES)
    if rows_per_file is not None:
        check_integer("rows_per_file", rows_per_file, least=1)


def as_latents(latents: Any) -> np.ndarray:
    """A copy of latents as `(N, D)` float32 on the CPU; refuses what is no such array, or is not finite."""
    try:
        tensor = torch.as_tensor(latents)
        if tensor.is_complex():
            raise TypeError(f"they are {tensor.dtype}")
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(
            f"latents is a {type(latents).__name__} that makes no array of numbers ({error}): pass a tensor or array [N, D]."
        ) from error
    array_ND = tensor.detach().to("cpu", torch.float32, copy=True).contiguous().numpy()
    if array_ND.ndim != 2 or 0 in array_ND.shape:
        raise ValueError(f"latents of shape {tuple(array_ND.shape)} are no bank: pass [N, D] with N, D > 0.")
    bad_N = ~np.isfinite(array_ND).all(axis=1)
    if bad_N.any():
        raise ValueError(
            f"{bad_N.sum()} of {len(bad_N)} latents hold NaN or infinite values (the first is row {bad_N.argmax()}): "
            "look at the teacher's input there, or encode in float32."
        )
    return array_ND


def as_sequences(sequences: Any) -> tuple[np.ndarray, np.ndarray]:
    """Sequences of latents `(T_i, D)` one after another, `(M, D)` float32, and their lengths `(N,)`; refuses what are none."""
    _check_list("sequences", sequences)
    arrays = [_as_array("sequence", row, each) for row, each in enumerate(sequences)]
    for row, array in enumerate(arrays):
        if array.ndim != 2 or 0 in array.shape or array.shape[1] != arrays[0].shape[1] or array.dtype.kind != "f":
            raise ValueError(
                f"sequence {row} is {array.dtype} of shape {array.shape}: pass an array of floats [T, D] a row, with one width "
                "and at least one frame (of ids, `SequenceBank.from_ids`). Samples without a sequence have no row: "
                "`Paired(rows)` says which row each sample has, `WherePaired` who has none."
            )
        if not np.isfinite(array).all():
            raise ValueError(f"sequence {row} holds NaN or infinite values: leave those frames out.")
    return np.concatenate(arrays).astype(np.float32), np.array([len(array) for array in arrays], dtype=np.int64)


def as_ids(ids: Any, num_ids: int | None) -> tuple[np.ndarray, np.ndarray, int]:
    """Sequences of ids one after another, `(M,)` int64, their lengths `(N,)`, and how many ids there are."""
    _check_list("ids", ids)
    arrays = [_as_array("sequence", row, each) for row, each in enumerate(ids)]
    for row, array in enumerate(arrays):
        if array.ndim != 1 or not len(array) or array.dtype.kind not in "iu":
            raise ValueError(
                f"sequence {row} is {array.dtype} of shape {array.shape}: pass a list of integers a row, with at least one. "
                "Samples without a sequence have no row: `Paired(rows)` says which row each sample has, `WherePaired` who has "
                "none."
            )
        odd = array[(array < 0) & (array != NO_LABEL)]
        if len(odd):
            raise ValueError(
                f"sequence {row} holds the id {odd[0]}: ids count from 0, and -100 says that there is none."
            )
    ids_M = np.concatenate(arrays).astype(np.int64)
    if ids_M.max() == NO_LABEL:
        raise ValueError(
            f"none of the {len(arrays)} sequences holds an id, all positions are -100: pass ids for some of them at least."
        )
    if num_ids is None:
        num_ids = int(ids_M.max()) + 1
    check_integer("num_ids", num_ids, least=1)
    if ids_M.max() >= num_ids:
        raise ValueError(f"num_ids={num_ids}, and there is an id {ids_M.max()}: ids run from 0 to num_ids - 1.")
    return ids_M, np.array([len(array) for array in arrays], dtype=np.int64), int(num_ids)


def _check_list(name: str, values: Any) -> None:
    if isinstance(values, str) or not hasattr(values, "__len__") or not hasattr(values, "__getitem__"):
        raise TypeError(f"{name} is a {type(values).__name__}: pass a list of arrays, one a row.")
    if not len(values):
        raise ValueError(f"{name} is empty: pass at least one array.")


def _as_array(name: str, row: int, value: Any) -> np.ndarray:
    try:
        array = value.detach().float().cpu().numpy() if _is_float(value) else np.asarray(value)
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(f"{name} {row} is a {type(value).__name__} that makes no array ({error}).") from error
    return array


def _is_float(value: Any) -> bool:
    return isinstance(value, torch.Tensor) and value.is_floating_point()


def stored_rows(rows: Sequence[int] | np.ndarray | torch.Tensor, number: int) -> np.ndarray:
    """Row numbers as `(B,)` int64; refuses those that a bank of `number` rows does not have."""
    rows_B = np.asarray(rows)
    if rows_B.ndim != 1 or (len(rows_B) and rows_B.dtype.kind not in "iu"):
        raise TypeError(
            f"rows={rows!r} are {rows_B.dtype} of shape {rows_B.shape}: pass a list of row numbers, 0 to {number - 1}."
        )
    rows_B = rows_B.astype(np.int64, copy=False)
    outside = (rows_B < 0) | (rows_B >= number)
    if outside.any():
        raise IndexError(
            f"row {rows_B[outside][0]} is out of range: the bank has {number} rows, so ask for 0 to {number - 1}."
        )
    return rows_B
