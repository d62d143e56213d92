"""The labels of a data set, read, replaced, and those samples that have one. Shapes: N samples, C classes."""

import numpy as np
from datasets import Dataset

from hf_colearn.data.labels import label_array, labelled_rows


def labels_of(dataset: Dataset) -> np.ndarray:
    """The classes `(N,)`, -100 where there is none."""
    return label_array(dataset, "labels")


def labelled(dataset: Dataset) -> Dataset:
    """The samples that have a label."""
    return dataset.select(np.flatnonzero(labelled_rows(dataset, "labels")))


def relabelled(dataset: Dataset, labels: np.ndarray) -> Dataset:
    """The dataset with other `labels`: classes `(N,)` or probabilities `(N, C)`."""
    column = labels if labels.ndim == 1 else list(labels)
    changed = dataset.with_format(None).remove_columns("labels").add_column("labels", column)
    return changed.with_format(dataset.format["type"], **dataset.format["format_kwargs"])
