"""Sample ids, by which a pairing knows a training sample, and the names of columns that batches share."""

import numpy as np
from datasets import Dataset


LABELS = ("labels", "label", "label_ids")  # what Trainer's collators take for labels, the first one that is there
# Entries of a training batch that are not the model's inputs.
TARGETS = "teacher_latents"  # the targets [B, D] of a single teacher, and the start of the names of several teachers'
SAMPLE_IDS = "sample_ids"  # [B]


def is_target(entry: str) -> bool:
    """Whether an entry of a batch holds the targets of a teacher."""
    return entry == TARGETS or entry.startswith(f"{TARGETS}_")


def with_sample_ids(dataset: Dataset, column: str = "sample_id") -> Dataset:
    """Numbers the samples of a dataset from 0, in a column that survives shuffling, filtering and selecting.

    Call it on the whole training set, *before* anything that picks or reorders samples, so that an id goes on naming
    the sample whose teacher input is row `id` of the bank.

    Args:
        dataset ([`datasets.Dataset`]): Without such a column.
        column (`str`, *optional*, defaults to `"sample_id"`): `CoLearningArguments.id_column`.
    """
    if column in dataset.column_names:
        raise ValueError(f"the dataset has a column '{column}' already: keep it, or pass another `column`.")
    return dataset.add_column(column, list(range(len(dataset))))


def labels_by_id(dataset: Dataset, column: str = "sample_id", label_column: str = "label") -> np.ndarray:
    """The label of sample id 0, 1, ... up to the largest, int64, as `Paired` and the null controls take it; 0 for ids that
    the dataset does not hold.
    """
    plain = dataset.with_format("numpy").select_columns([column, label_column])
    ids = np.asarray(plain[column][:])
    labels = np.zeros(ids.max() + 1, dtype=np.int64)
    labels[ids] = plain[label_column][:]
    return labels
