"""Labels of any column as a model takes them: classes numbered from 0 with their names, values, or several a sample.

Shapes: N samples of a split, C classes.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from datasets import ClassLabel, Dataset, List

from hf_colearn.data.sample_ids import NO_LABEL
from hf_colearn.utils.checks import check_choice


SINGLE, MULTI, REGRESSION = "single_label_classification", "multi_label_classification", "regression"
_MANY = 50  # distinct whole numbers, above which they are values and no classes


@dataclass(frozen=True)
class PairLabels:
    """The labels of all splits.

    Args:
        by_split (`dict[str, np.ndarray]`): Classes `(N,)` with -100, values `(N,)` with NaN, or multi-hot `(N, C)` with rows of
            NaN, where there is no label.
        problem_type (`str`): As transformers calls it.
        names (`dict[int, str]`, *optional*): Of the classes; None of values.
    """

    by_split: dict[str, np.ndarray]
    problem_type: str
    names: dict[int, str] | None


def read_labels(splits: Mapping[str, Dataset], column: str, problem_type: str | None = None) -> PairLabels:
    """Numbers the classes of the training split from 0, in the order of their names or numbers.

    Whole numbers are classes (of up to 50 different ones; also where gaps have made floats of them), other numbers values,
    lists several labels a sample: of names or numbers, or multi-hot of 0 and 1. None, NaN, blank strings and -100 are no label;
    -1 is none where the dataset names its classes, as on the Hub.

    Args:
        splits (`Mapping[str, Dataset]`): `train` among them.
        column (`str`): Of the labels, in all of them.
        problem_type (`str`, *optional*): Where it is not what the values tell.

    Raises:
        ValueError: If a split lacks the column, the training split has fewer than two classes or no label, or another split
            has a class that it has not.
    """
    if problem_type is not None:
        check_choice("problem_type", problem_type, (SINGLE, MULTI, REGRESSION))
    for split, part in splits.items():
        if column not in part.column_names:
            raise ValueError(
                f"the split '{split}' has no column '{column}' (it has {part.column_names}): complete it."
            )
    cells = {split: part.with_format(None)[column][:] for split, part in splits.items()}
    feature = splits["train"].features[column]
    known = [cell for cell in cells["train"] if not _is_missing(cell)]
    if not known:
        raise ValueError(
            f"column '{column}' has no label in the training split: name the column of labels, or pass --label none to train "
            "on pairs alone."
        )
    found = problem_type or _problem_type(known, column)
    if found == REGRESSION:
        return PairLabels({split: _values(of_split, column) for split, of_split in cells.items()}, REGRESSION, None)
    if found == MULTI:
        return _several(cells, feature, column)
    return _classes(cells, feature, column)


def _is_missing(cell: Any) -> bool:
    if cell is None or (isinstance(cell, str) and not cell.strip()):
        return True
    return not isinstance(cell, (str, list)) and (cell != cell or cell == NO_LABEL)


def _problem_type(known: Sequence[Any], column: str) -> str:
    if isinstance(known[0], list):
        return MULTI
    if isinstance(known[0], (str, bool)):
        return SINGLE
    are_whole = all(float(cell).is_integer() for cell in known)
    return SINGLE if are_whole and len(set(known)) <= _MANY else REGRESSION


def _values(cells: Sequence[Any], column: str) -> np.ndarray:
    try:
        return np.array([np.nan if _is_missing(cell) else float(cell) for cell in cells])
    except (TypeError, ValueError) as error:
        raise ValueError(f"column '{column}' holds no numbers ({error}): a regression needs one a sample.") from error


def _classes(cells: Mapping[str, Sequence[Any]], feature: Any, column: str) -> PairLabels:
    if isinstance(feature, ClassLabel):
        cells = {split: [None if cell is None or cell < 0 else cell for cell in of] for split, of in cells.items()}
    else:
        cells = {split: [_plain(cell) for cell in of_split] for split, of_split in cells.items()}
    counts = Counter(cell for cell in cells["train"] if not _is_missing(cell))
    found = sorted(counts)
    called = [feature.int2str(label) if isinstance(feature, ClassLabel) else str(label) for label in found]
    number = {label: i for i, label in enumerate(found)}
    if len(found) < 2:
        raise ValueError(
            f"column '{column}' has a single class in the training split, '{called[0]}' ({counts[found[0]]} samples): there is "
            "nothing to tell apart. Name another column with --label, or pass --label none to train on pairs alone."
        )
    for split, of_split in cells.items():
        if new := [cell for cell in of_split if not _is_missing(cell) and cell not in number]:
            raise ValueError(
                f"'{new[0]}' of column '{column}' is in the split '{split}' {new.count(new[0])} times and never in 'train': no "
                "student can learn it. Move samples of it to 'train', or remove it."
            )
    numbered = {
        split: np.array([NO_LABEL if _is_missing(cell) else number[cell] for cell in of_split], dtype=np.int64)
        for split, of_split in cells.items()
    }
    return PairLabels(numbered, SINGLE, dict(enumerate(called)))


def _plain(cell: Any) -> Any:
    """A class as it is named: a string without its margins, and 3 for the 3.0 that gaps have made of it."""
    if isinstance(cell, str):
        return cell.strip()
    return int(cell) if isinstance(cell, float) and cell.is_integer() else cell


def _several(cells: Mapping[str, Sequence[Any]], feature: Any, column: str) -> PairLabels:
    train = [cell for cell in cells["train"] if cell is not None]
    inner = feature.feature if isinstance(feature, List) else None
    entries = {entry for cell in train for entry in cell}
    is_hot = (
        not isinstance(inner, ClassLabel)
        and entries <= {0, 1, None}
        and len({len(cell) for cell in train}) == 1
        and len(train[0]) > 1
    )
    if is_hot:
        width = len(train[0])
        hot = {split: _hot(of_split, width, column) for split, of_split in cells.items()}
        return PairLabels(hot, MULTI, {i: f"LABEL_{i}" for i in range(width)})
    found = list(range(inner.num_classes)) if isinstance(inner, ClassLabel) else sorted(entries)
    if len(found) < 2:
        raise ValueError(f"column '{column}' has {len(found)} classes in 'train': there is nothing to tell apart.")
    names = dict(enumerate(inner.names)) if isinstance(inner, ClassLabel) else {i: str(c) for i, c in enumerate(found)}
    number = {label: i for i, label in enumerate(found)}
    hot = {}
    for split, of_split in cells.items():
        rows = np.zeros((len(of_split), len(found)), dtype=np.float32)
        for row, cell in zip(rows, of_split, strict=True):
            if cell is None:
                row[:] = np.nan
                continue
            if new := [entry for entry in cell if entry not in number]:
                raise ValueError(
                    f"'{new[0]}' of column '{column}' is in the split '{split}' and never in 'train': remove it."
                )
            row[[number[entry] for entry in cell]] = 1
        hot[split] = rows
    return PairLabels(hot, MULTI, names)


def _hot(cells: Sequence[Any], width: int, column: str) -> np.ndarray:
    rows = [[np.nan] * width if cell is None else [np.nan if e is None else e for e in cell] for cell in cells]
    if wrong := [row for row, cell in enumerate(rows) if len(cell) != width]:
        raise ValueError(
            f"row {wrong[0]} of column '{column}' has {len(rows[wrong[0]])} labels where others have {width}: give every "
            "sample as many."
        )
    return np.array(rows, dtype=np.float32)
