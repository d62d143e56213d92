"""What a check of a teacher is given, as arrays: features, labels, and the latents that a pairing shows.

Shape legend: N samples, D and E widths of features and latents, n labelled samples, C classes or values of a label.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from datasets import Dataset
from pyarrow import csv, json, parquet

from hf_colearn.analysis.latents.transfer import Labelled
from hf_colearn.data.columns import check_columns
from hf_colearn.data.sample_ids import NO_LABEL
from hf_colearn.teachers.bank import TeacherBank
from hf_colearn.teachers.pairing import Pairing
from hf_colearn.teachers.teacher import Teacher


LEAST_VALUES = 4  # labelled samples of a regression


def read_features(
    features: Any, labels: Any, feature_column: str, label_column: str, id_column: str
) -> tuple[np.ndarray, Any, np.ndarray]:
    """Features `(N, D)`, labels as they are given, and sample ids `(N,)`."""
    ids = None
    if isinstance(features, Dataset):
        check_columns(features, feature_column, *([label_column] if labels is None else []))
        plain = features.with_format(None)
        labels = plain[label_column][:] if labels is None else labels
        ids = np.asarray(plain[id_column][:]) if id_column in plain.column_names else None
        features = plain.select_columns(feature_column).with_format("numpy")[feature_column][:]
    elif isinstance(features, TeacherBank):
        features = features.lookup(np.arange(len(features))).numpy()
    x_ND = np.asarray(features, dtype=np.float64)
    if x_ND.ndim != 2 or 0 in x_ND.shape:
        raise ValueError(
            f"the features have the shape {x_ND.shape}: pass [N, D], one vector a sample (pool steps first)."
        )
    if bad := int((~np.isfinite(x_ND).all(axis=1)).sum()):
        raise ValueError(f"{bad} of {len(x_ND)} features hold NaN or infinite values: leave these samples out.")
    if labels is None:
        raise ValueError("there are no labels: pass one a sample, with -100, NaN or None where it is missing.")
    return x_ND, labels, np.arange(len(x_ND)) if ids is None else ids


def read_banks(
    features: str, teacher: str, labels: str, label_column: str, row_column: str | None
) -> tuple[np.ndarray, np.ndarray, list[Any]]:
    """Features `(N, D)` and latents `(N, E)` of two folders of banks, and the labels of a file with one row a sample."""
    x_ND, bank = (TeacherBank.load(folder) for folder in (features, teacher))
    table = _read_table(Path(labels))
    check_columns(table, label_column, *([] if row_column is None else [row_column]))
    if len(table) != len(x_ND):
        raise ValueError(
            f"'{labels}' has {len(table)} rows and '{features}' {len(x_ND)}: they must be the same samples."
        )
    if row_column is None:
        if len(bank) != len(table):
            raise ValueError(
                f"'{teacher}' has {len(bank)} rows for {len(table)} samples: name the column of '{labels}' that holds every "
                "sample's row with --row_column."
            )
        rows_N = np.arange(len(table))
    else:
        cells = [-1 if row is None else row for row in table[row_column][:]]
        if wrong := [row for row in cells if not isinstance(row, int) or not -1 <= row < len(bank)]:
            raise ValueError(
                f"column '{row_column}' of '{labels}' holds {wrong[0]!r}, and '{teacher}' has the rows 0 to {len(bank) - 1}: "
                "write one of them, or -1 where a sample has no pair."
            )
        rows_N = np.asarray(cells)
    t_NE = np.full((len(rows_N), bank.dim), np.nan)
    t_NE[rows_N >= 0] = bank.lookup(rows_N[rows_N >= 0]).numpy()
    return x_ND.lookup(np.arange(len(x_ND))).numpy(), t_NE, table[label_column][:]


def _read_table(path: Path) -> Dataset:
    if not path.is_file():
        raise FileNotFoundError(
            f"there is no file '{path}': pass one with a row a sample, .csv, .json, .jsonl or .parquet."
        )
    readers: dict[str, Callable] = {
        ".csv": csv.read_csv,
        ".json": json.read_json,
        ".jsonl": json.read_json,
        ".parquet": parquet.read_table,
    }
    if path.suffix not in readers:
        raise ValueError(f"'{path}' is none of {', '.join(readers)}: save the labels as one of them.")
    try:
        return Dataset(readers[path.suffix](str(path)))  # integers with empty cells stay integers
    except pa.ArrowException as error:
        raise ValueError(f"'{path}' cannot be read as {path.suffix}: {str(error).splitlines()[0]}") from error


def read_targets(teacher: Any, pairing: Pairing | None, sample_ids: np.ndarray, n: int, seed: int) -> np.ndarray:
    """The teacher's latents `(N, E)`, rows of NaN where a sample has no pair."""
    if isinstance(teacher, Teacher):
        if pairing is not None:
            raise ValueError("the teacher has a pairing already: pass its bank, or leave `pairing` out.")
        teacher, pairing = teacher.bank, teacher.pairing
    if isinstance(teacher, TeacherBank):
        paired = Teacher(teacher) if pairing is None else Teacher(teacher, pairing)
        paired.check(sample_ids)
        teacher = paired.targets(sample_ids, 0, seed)
    elif pairing is not None:
        raise ValueError("a pairing chooses rows of a bank, and the teacher is an array: pass a `TeacherBank`.")
    t_NE = np.asarray(teacher, dtype=np.float64)
    if t_NE.ndim != 2 or len(t_NE) != n or not t_NE.shape[1]:
        raise ValueError(
            f"the teacher's latents have the shape {t_NE.shape}, and there are {n} samples: pass [{n}, E]."
        )
    broken = ~np.isfinite(t_NE).all(axis=1) & ~np.isnan(t_NE).all(axis=1)
    if broken.any():
        raise ValueError(
            f"{broken.sum()} of {n} latents hold NaN or infinite values in part (the first is row {broken.argmax()}): a "
            "sample without a pair is a row of nothing but NaN."
        )
    return t_NE


def read_labels(labels: Sequence[Any] | np.ndarray, n: int) -> tuple[Labelled, int]:
    """The labels, and how many classes were left out because their single label cannot be held out.

    Where fewer than two classes have two labels, none is left out: nothing can be held out then.
    """
    if len(labels) != n:
        raise ValueError(f"there are {len(labels)} labels for {n} samples: pass one a sample, -100 or None for none.")
    array = np.asarray(labels)
    if array.dtype.kind == "f" or (array.dtype.kind == "O" and any(isinstance(label, float) for label in labels)):
        return _values(np.asarray(array, dtype=np.float64)), 0
    if array.ndim != 1:
        raise ValueError(
            f"labels of shape {array.shape} and type {array.dtype}: pass classes [N], or floats for several labels [N, C]."
        )
    missing = np.array([label is None or label == "" or label == NO_LABEL for label in array.tolist()])
    rows = np.flatnonzero(~missing)
    names, classes, counts = np.unique(array[rows].astype(str), return_inverse=True, return_counts=True)
    if len(names) < 2:
        raise ValueError(f"{len(rows)} of {n} samples are labelled, of {len(names)} classes: probes need two classes.")
    is_kept_C = counts > 1 if (counts > 1).sum() > 1 else counts > 0
    kept = is_kept_C[classes]
    classes = np.unique(classes[kept], return_inverse=True)[1]
    others = np.flatnonzero(missing)
    return Labelled(rows[kept], others, np.eye(classes.max() + 1)[classes], classes), int((~is_kept_C).sum())


def _values(y: np.ndarray) -> Labelled:
    y_NC = y.reshape(len(y), -1)
    known = np.isfinite(y_NC).all(axis=1)
    if y.ndim > 1:
        known &= ~(y_NC == NO_LABEL).any(axis=1)
    rows = np.flatnonzero(known)
    if len(rows) < LEAST_VALUES or (y_NC[rows] == y_NC[rows[0]]).all():
        raise ValueError(
            f"{len(rows)} of {len(y)} samples have a value: probes need {LEAST_VALUES} labelled samples that differ."
        )
    return Labelled(rows, np.flatnonzero(~known), y_NC[rows], None)
