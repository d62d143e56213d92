"""Labels of a data set, some of which may be missing: None, -100 among classes, NaN among numbers."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from datasets import ClassLabel, Dataset, IterableDataset, LargeList, List, Value

from hf_colearn.data.sample_ids import LABELS, NO_LABEL


def label_column(dataset: Any) -> str | None:
    """The column that Trainer's collators take for labels; None where there is none, or the columns are not known."""
    return next((name for name in LABELS if name in (getattr(dataset, "column_names", None) or [])), None)


def label_array(dataset: Dataset, column: str) -> np.ndarray:
    """The stored labels, without the data set's transform, as `(N,)` or `(N, C)`: integers with -100, or floats with NaN,
    for what is missing.

    Raises:
        ValueError: If the labels are neither numbers nor lists of one length of numbers.
    """
    cells = dataset.select_columns(column).with_format("arrow")[:][column]
    if not isinstance(dataset.features[column], (List, LargeList)):
        array = cells.to_numpy()
        if cells.null_count and _are_integers(dataset.features[column]):
            return np.where(np.isnan(array), NO_LABEL, array).astype(np.int64)
        return array
    values = cells.to_pylist()
    width = max((len(value) for value in values if value is not None), default=0)
    values = [[None] * width if value is None else value for value in values]
    try:
        has_none = any(None in value for value in values)
        return np.array(values, dtype=np.float64 if has_none else None)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"the labels in column '{column}' are no array ({error}): give every sample a number, or a list of the same "
            "length of numbers."
        ) from error


def is_labelled(labels: np.ndarray) -> np.ndarray:
    """Which samples have a label, or one at least of several, `(N,)` booleans."""
    is_several = labels.ndim > 1
    return np.any(_known(labels, is_several), axis=1) if is_several else _known(labels, is_several)


def labelled_rows(dataset: Dataset, column: str) -> np.ndarray:
    """Which samples of a data set have a label, or one at least in a list of whatever length, `(N,)` booleans."""
    if not isinstance(dataset.features[column], (List, LargeList)):
        return is_labelled(label_array(dataset, column))
    entries = dataset.select_columns(column).with_format("arrow")[:][column].combine_chunks()
    rows = np.arange(len(entries))
    while _is_list(entries.type):
        rows, entries = rows[pc.list_parent_indices(entries).to_numpy()], pc.list_flatten(entries)
    return np.isin(np.arange(len(dataset)), rows[_known(entries.to_numpy(zero_copy_only=False), True)])


def _is_list(kind: pa.DataType) -> bool:
    return pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)


def _known(labels: np.ndarray, is_one_of_several: bool) -> np.ndarray:
    """Which labels are there: not None, NaN or -100, which is a number where it is the only one of a sample."""
    if labels.dtype.kind == "O":
        return np.array([label is not None for label in labels], dtype=bool)
    if labels.dtype.kind not in "fiub":
        return np.ones(labels.shape, dtype=bool)
    is_number = labels.dtype.kind == "f" and not is_one_of_several
    return ~np.isnan(labels) & (is_number | (labels != NO_LABEL))


def problem_type_of(dataset: Any, num_labels: int | None) -> str | None:
    """What the labels of a data set are for, as transformers takes them; None where its columns do not tell."""
    column, features = label_column(dataset), getattr(dataset, "features", None)
    if column is None or features is None or column not in features:
        return None
    if num_labels == 1:
        return "regression"
    feature = features[column]
    if isinstance(feature, List):
        return "multi_label_classification"
    return "single_label_classification" if _are_integers(feature) else None


class MissingLabels:
    """Writes what the models take for "no label" in the place of None, where a batch is collated.

    Args:
        dataset: Whose samples are collated.
        is_regression (`bool`, *optional*, defaults to `False`): Whether integers are numbers, among which -100 is one.
    """

    def __init__(self, dataset: Any, is_regression: bool = False):
        features = getattr(dataset, "features", None) if isinstance(dataset, (Dataset, IterableDataset)) else None
        self.columns = [name for name in LABELS if name in (features or {})]
        self._numbers = {name: is_regression or not _are_integers((features or {})[name]) for name in self.columns}
        self._widths: dict[str, int] = {}

    def filled(self, features: list[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
        """The samples with a number for every label that is None, or NaN where a format has made that of it."""
        for name in self.columns:
            values = [sample.get(name, 0) for sample in features]
            width = next((len(value) for value in values if isinstance(value, _ROWS) and np.ndim(value)), None)
            if width is not None:
                self._widths[name] = width
            if any(self._lacks(name, value) for value in values):
                features = [{**sample, name: self._label(name, sample[name])} for sample in features]
        return features

    def _lacks(self, name: str, value: Any) -> bool:
        if isinstance(value, list):
            return None in value
        is_nan = (
            not self._numbers[name] and isinstance(value, _NUMBERS) and np.ndim(value) == 0 and bool(value != value)
        )
        return value is None or is_nan

    def _label(self, name: str, value: Any) -> Any:
        lacks = self._lacks(name, value)
        if isinstance(value, list):
            return [float("nan") if entry is None else entry for entry in value]
        if name in self._widths:
            return [float("nan")] * self._widths[name] if lacks else value
        if self._numbers[name]:
            return float("nan") if lacks else float(value)
        return NO_LABEL if lacks else int(value)


_NUMBERS = (float, np.floating, np.ndarray, torch.Tensor)
_ROWS = (list, np.ndarray, torch.Tensor)


def _are_integers(feature: Any) -> bool:
    return isinstance(feature, ClassLabel) or (isinstance(feature, Value) and "int" in feature.dtype)
