"""Splits and subsets of a training set, by class, where some or most samples may have no label."""

from collections.abc import Mapping
from numbers import Real

import numpy as np
from datasets import ClassLabel, Dataset, Features, Value

from hf_colearn.data.columns import check_columns, check_dataset
from hf_colearn.data.labels import is_labelled, label_array
from hf_colearn.data.sample_ids import NO_LABEL
from hf_colearn.utils.checks import check_integer


def cut_validation(
    dataset: Dataset, share_or_count: float | int, seed: int, label_column: str = "label"
) -> tuple[Dataset, Dataset]:
    """Cuts a validation split off a training set, with the same shares of the classes on both sides.

    Only labelled samples are validated on: those without a label (`None` or -100, NaN among numbers, a row of nothing but
    these in multi-hot labels) stay in training, and do not count. Numbers and multi-hot labels have no classes to stratify
    by; their cut is random.

    Both sides keep the order and every column of the dataset. Ids survive: number the samples before the cut where the
    bank has a row for each of them all, or number the remaining training set after it for a bank of that one alone.

    Args:
        dataset ([`datasets.Dataset`]): With N labelled samples.
        share_or_count (`float` or `int`): The validation split's share of them, between 0 and 1, or its number of samples.
        seed (`int`): Draws the split.
        label_column (`str`, *optional*, defaults to `"label"`): The labels' column.

    Returns:
        `tuple[Dataset, Dataset]`: What remains for training, and the validation split.

    Raises:
        ValueError: If a class has fewer than 2 samples, or a side would have fewer samples than there are classes.
    """
    values, labelled = _labels(dataset, label_column)
    check_integer("seed", seed)
    is_share, is_number = (
        isinstance(share_or_count, float),
        type(share_or_count) is not bool and isinstance(share_or_count, Real),
    )
    if not is_number or not (0 < share_or_count < 1 if is_share else share_or_count >= 1):
        raise ValueError(
            f"share_or_count={share_or_count!r} cuts no validation split: pass a share between 0 and 1, or a number of "
            "samples from 1."
        )
    rows_N = np.flatnonzero(labelled)
    classes_N = values[rows_N] if _has_classes(values) else np.zeros(len(rows_N), dtype=np.int64)
    names, dense, counts = np.unique(classes_N, return_inverse=True, return_counts=True)
    if len(rows_N) and counts.min() < 2:
        name = _name_of(dataset, label_column, names[counts.argmin()])
        raise ValueError(
            f"class {name} has 1 sample, which cannot be on both sides: remove the class, or add samples."
        )
    count = round(share_or_count * len(rows_N)) if is_share else share_or_count
    if not len(names) <= count <= len(rows_N) - len(names) or not count:
        unlabelled = len(values) - len(rows_N)
        of_which = f" ({unlabelled} more have no label)" if unlabelled else ""
        raise ValueError(
            f"share_or_count={share_or_count} makes {count} validation samples of {len(rows_N)}{of_which}: each side needs "
            f"at least one of each of the {len(names)} classes."
        )
    features = Features({"row": Value("int64"), "label": ClassLabel(num_classes=len(names))})
    rows = Dataset.from_dict({"row": rows_N, "label": dense}, features=features)
    cut = rows.train_test_split(test_size=count, stratify_by_column="label", seed=seed)
    in_validation = np.isin(np.arange(len(values)), cut["test"]["row"][:])
    train, validation = (dataset.select(np.flatnonzero(side)) for side in (~in_validation, in_validation))
    return train, validation


def with_validation(splits: Mapping[str, Dataset], share: float, seed: int = 0) -> dict[str, Dataset]:
    """`train`, `validation` and `test` of a data set with `train` and `test`: a share of the training part is cut off, see
    [`cut_validation`]."""
    train, validation = cut_validation(splits["train"], share, seed)
    return {"train": train, "validation": validation, "test": splits["test"]}


def at_least_one_a_class(dataset: Dataset, share: float, label_column: str = "label") -> int | float:
    """A share as the number of samples that [`cut_validation`] cuts for it, but no fewer than there are classes: for shares
    that were chosen for large data sets, and are to fit small ones. What is no share is given back as it is."""
    if not 0 < share < 1:
        return share
    values, labelled = _labels(dataset, label_column)
    classes = len(np.unique(values[labelled])) if _has_classes(values) else 1
    return max(round(share * int(labelled.sum())), classes)


def few_per_class(dataset: Dataset, labels_per_class: int, seed: int, label_column: str = "label") -> Dataset:
    """A random subset with the same number of samples of every class: few labels, and no other samples.

    Samples without a label (`None` or -100) are left out. [`hide_labels`] draws the same samples and keeps the others.

    Args:
        dataset ([`datasets.Dataset`]): With classes as labels.
        labels_per_class (`int`): Samples of every class, at least 1; no class has fewer.
        seed (`int`): Draws the subset.
        label_column (`str`, *optional*, defaults to `"label"`): The labels' column.
    """
    rows = _drawn(dataset, labels_per_class, seed, label_column)
    return dataset.select(rows.tolist())


def hide_labels(dataset: Dataset, labels_per_class: int, seed: int, label_column: str = "labels") -> Dataset:
    """All samples, of which the same number of every class keep their label: semi-supervised data.

    The others' label becomes -100, which no loss or metric counts; rows, their order and ids stay, and with them the
    pairs of a teacher. The column becomes int64, since a `datasets.ClassLabel` holds no -100: read the names of the classes
    before.

    Args:
        dataset ([`datasets.Dataset`]): With class indices as labels; those without (`None` or -100) stay without.
        labels_per_class (`int`): Labels of every class that are kept, at least 1; no class has fewer.
        seed (`int`): Draws them, the same as [`few_per_class`] with this seed.
        label_column (`str`, *optional*, defaults to `"labels"`): The labels' column.

    Returns:
        [`datasets.Dataset`]: With the same rows and format.

    Raises:
        ValueError: If the labels are no class indices, or a class has fewer.

    Example:

    ```python
    >>> from datasets import Dataset
    >>> from hf_colearn.data.splits import hide_labels

    >>> dataset = Dataset.from_dict({"labels": [0, 0, 0, 1, 1]})
    >>> hide_labels(dataset, labels_per_class=1, seed=0)["labels"][:]
    [-100, -100, 0, -100, 1]
    ```
    """
    values, _ = _labels(dataset, label_column)
    kept = _drawn(dataset, labels_per_class, seed, label_column)
    if values.dtype.kind not in "iu":
        raise ValueError(
            f"'{label_column}' holds {values[kept].tolist()[0]!r}, and only class indices can become -100: number the classes "
            f"with `dataset.class_encode_column('{label_column}')`."
        )
    hidden = np.full(len(values), NO_LABEL, dtype=np.int64)
    hidden[kept] = values[kept]
    both = dataset.with_format(None).add_column(f"{label_column}_hidden", hidden).remove_columns(label_column)
    renamed = both.rename_column(f"{label_column}_hidden", label_column).select_columns(dataset.column_names)
    return renamed.with_format(dataset.format["type"], **dataset.format["format_kwargs"])


def _drawn(dataset: Dataset, labels_per_class: int, seed: int, label_column: str) -> np.ndarray:
    """The rows of so many random samples of every class, in order."""
    check_integer("labels_per_class", labels_per_class, least=1)
    check_integer("seed", seed)
    values, labelled = _labels(dataset, label_column)
    if not _has_classes(values):
        raise ValueError(
            f"'{label_column}' holds no classes but {values[:1].tolist()[0]!r}: there is no number of labels a class."
        )
    if not labelled.any():
        raise ValueError(f"none of the {len(values)} samples has a label in '{label_column}': there is none to draw.")
    rng, kept = np.random.default_rng(seed), []
    for label in np.unique(values[labelled]):
        of_class = np.flatnonzero(labelled & (values == label))
        if len(of_class) < labels_per_class:
            name = _name_of(dataset, label_column, label)
            raise ValueError(
                f"class {name} has {len(of_class)} samples, {labels_per_class} were asked for: take fewer per class."
            )
        kept.append(rng.choice(of_class, labels_per_class, replace=False))
    return np.sort(np.concatenate(kept))


def _labels(dataset: Dataset, column: str) -> tuple[np.ndarray, np.ndarray]:
    """Labels `(N,)`, or `(N, C)` multi-hot ones, and which of the samples have any."""
    check_dataset(dataset)
    check_columns(dataset, column)
    values = label_array(dataset, column)
    return values, is_labelled(values)


def _has_classes(values: np.ndarray) -> bool:
    return values.ndim == 1 and values.dtype.kind != "f"


def _name_of(dataset: Dataset, column: str, label: object) -> str:
    feature = dataset.features[column]
    return f"{label} ('{feature.int2str(int(str(label)))}')" if isinstance(feature, ClassLabel) else str(label)
