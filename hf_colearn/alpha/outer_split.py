"""The outer split: labelled training samples that a learned alpha is fitted to, and the weights are not."""

from typing import Any

import numpy as np
from datasets import ClassLabel, Dataset, Value

from hf_colearn.data.labels import label_column, labelled_rows
from hf_colearn.data.splits import at_least_one_a_class, cut_validation


def split_outer(
    train: Any, evaluated: Any, split: float | int | Dataset, seed: int, id_column: str, num_labels: int | None = None
) -> tuple[Dataset, Dataset]:
    """The training set without the outer split, and the outer split, which must be apart from it and not evaluated on.

    Alpha is fitted to labels, so the outer split is of labelled samples alone: a share or number is of those (a share at
    least one of every class), and all
    samples without a label (`None`, -100, NaN, or a row of nothing but these) stay in the training set; of an outer split
    that is given they are left out. Classes are on both sides in the same shares; numbers and multi-hot labels have no
    classes to stratify by, and are cut at random.

    Raises:
        TypeError: If the training set is a stream.
        ValueError: If the outer split is evaluated on or trained on, has no labels, or is smaller than the classes.
    """
    if not isinstance(train, Dataset):
        raise TypeError(
            f"LearnedAlpha draws its own batches from the training set, which is a {type(train).__name__}: pass a "
            "datasets.Dataset, not a stream."
        )
    if isinstance(split, Dataset):
        inner, outer = train, _given(split, evaluated, num_labels)
    else:
        inner, outer = _cut(train, split, seed)
    if id_column in inner.column_names and id_column in outer.column_names:
        plain = [part.with_format("numpy").select_columns(id_column)[id_column] for part in (inner, outer)]
        if len(both := np.intersect1d(np.asarray(plain[0][:]), np.asarray(plain[1][:]))):
            raise ValueError(
                f"{len(both)} sample ids are in the training set and in the outer split, such as {both[0]}, so alpha would be "
                "fitted to what the weights train on: give every sample an id of its own, or pass an outer split without them."
            )
    return inner, outer


def _cut(train: Dataset, split: float | int, seed: int) -> tuple[Dataset, Dataset]:
    column = label_column(train)
    if column is None:
        raise ValueError(
            f"outer_split={split} is cut of the labelled samples, and the training set has no column 'labels' (it has "
            f"{', '.join(train.column_names)}): name it so, or pass an outer split of your own."
        )
    labelled = labelled_rows(train, column)
    if not labelled.any():
        raise ValueError(
            f"outer_split={split} is cut of the labelled samples, and none of the {len(train)} training samples has a label "
            f"in '{column}': alpha is fitted to labels, so pass labelled samples as `outer_split`, or a constant alpha."
        )
    try:
        number = at_least_one_a_class(train, split, column) if isinstance(split, float) else split
        return cut_validation(train, number, seed, column)
    except ValueError as error:
        raise ValueError(
            f"outer_split={split} cannot be cut from {labelled.sum()} labelled samples: {error}"
        ) from error


def _given(split: Dataset, evaluated: Any, num_labels: int | None) -> Dataset:
    """The labelled samples of an outer split of the user's."""
    for name, other in (evaluated if isinstance(evaluated, dict) else {"eval_dataset": evaluated}).items():
        if other is not None and (other is split or getattr(other, "_fingerprint", None) == split._fingerprint):
            raise ValueError(
                f"outer_split is '{name}', on which the run is evaluated: alpha would be fitted to it. Cut the outer "
                "split from the training set, `outer_split=0.1`."
            )
    if len(split) == 0:
        raise ValueError("outer_split has no samples: pass some, or a share of the training set such as 0.1.")
    column = label_column(split)
    labelled = np.zeros(len(split), dtype=bool) if column is None else labelled_rows(split, column)
    if not labelled.any():
        where = f"the columns {', '.join(split.column_names)}" if column is None else f"none of them in '{column}'"
        raise ValueError(
            f"outer_split has {len(split)} samples without labels ({where}): alpha is fitted to labels, so pass labelled "
            "samples, or a share of the training set such as 0.1."
        )
    if _has_classes(split, column) and labelled.sum() < (num_labels or 1):
        raise ValueError(
            f"outer_split has {labelled.sum()} samples for {num_labels} classes: give it at least one of each."
        )
    return split if labelled.all() else split.select(np.flatnonzero(labelled))


def _has_classes(dataset: Dataset, column: str | None) -> bool:
    feature = dataset.features[column]
    return isinstance(feature, ClassLabel) or isinstance(feature, Value) and feature.dtype.startswith(("int", "uint"))
