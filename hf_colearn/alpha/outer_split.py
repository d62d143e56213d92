"""The outer split: training samples that a learned alpha is fitted to, and the weights are not."""

from typing import Any

import numpy as np
from datasets import Dataset

from hf_colearn.data.sample_ids import LABELS
from hf_colearn.data.splits import cut_validation


def split_outer(
    train: Any, evaluated: Any, split: float | int | Dataset, seed: int, id_column: str
) -> tuple[Dataset, Dataset]:
    """The training set without the outer split, and the outer split, which must be apart from it and not evaluated on."""
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
        plain = [part.with_format("numpy").select_columns(id_column)[id_column] for part in (inner, outer)]
        if len(both := np.intersect1d(np.asarray(plain[0][:]), np.asarray(plain[1][:]))):
            raise ValueError(
                f"{len(both)} sample ids are in the training set and in the outer split, such as {both[0]}, so alpha would be "
                "fitted to what the weights train on: give every sample an id of its own, or pass an outer split without them."
            )
    return inner, outer
