"""The outer split: training samples that a learned alpha is fitted to, and the weights are not."""

from typing import Any

import numpy as np
from datasets import Dataset

from hf_colearn.data.sample_ids import LABELS
from hf_colearn.data.splits import cut_validation


def split_outer(
    train: Any, evaluated: Any, split: float | int | Dataset, seed: int, id_column: str
) -> tuple[Dataset, Dataset]:
    """The training set without the outer split, and the outer split.

    Raises:
        ValueError: If the split is evaluated on, shares samples with the training set, or is too small for its classes.
        TypeError: If the training set is not a [`datasets.Dataset`].
    """
    if not isinstance(train, Dataset):
        raise TypeError(
            f"LearnedAlpha draws its own batches from the training set, which is a {type(train).__name__}: pass a "
            "datasets.Dataset, not a stream."
        )
    if isinstance(split, Dataset):
        inner, outer = train, split
        for name, other in (evaluated if isinstance(evaluated, dict) else {"eval_dataset": evaluated}).items():
            if other is not None and (other is split or getattr(other, "_fingerprint", None) == split._fingerprint):
                raise ValueError(
                    f"outer_split is '{name}', on which the run is evaluated: alpha would be fitted to it. Cut the outer "
                    "split from the training set, `outer_split=0.1`."
                )
        if len(split) == 0:
            raise ValueError("outer_split has no samples: pass some, or a share of the training set such as 0.1.")
    else:
        column = next((name for name in LABELS if name in train.column_names), None)
        if column is None:
            raise ValueError(
                f"outer_split={split} is cut class by class, and the training set has no column 'labels' (it has "
                f"{', '.join(train.column_names)}): name it so, or pass an outer split of your own."
            )
        try:
            inner, outer = cut_validation(train, split, seed, column)
        except ValueError as error:
            raise ValueError(f"outer_split={split} cannot be cut from {len(train)} samples: {error}") from error
    if id_column in inner.column_names and id_column in outer.column_names:
        both = np.intersect1d(_ids(inner, id_column), _ids(outer, id_column))
        if len(both):
            raise ValueError(
                f"{len(both)} sample ids are in the training set and in the outer split, such as {both[0]}: alpha would be "
                "fitted to samples that the weights train on. Give every sample an id of its own, or pass an outer split "
                "without them."
            )
    return inner, outer


def _ids(dataset: Dataset, column: str) -> np.ndarray:
    return np.asarray(dataset.with_format("numpy").select_columns(column)[column][:])
