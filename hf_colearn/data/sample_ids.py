"""Sample ids, by which a pairing knows a training sample, and the names of columns that batches share."""

import numpy as np
import pyarrow as pa
from datasets import Dataset


LABELS = ("labels", "label", "label_ids")  # what Trainer's collators take for labels, the first one that is there
NO_LABEL = -100  # of a class: what cross-entropy ignores
# Entries of a training batch that are not the model's inputs.
TARGETS = "teacher_latents"  # the targets [B, D] of a single teacher, and the start of the names of several teachers'
SAMPLE_IDS = "sample_ids"  # [B]
VIEWS = "views"  # [B], which view of its sample a row is, where an augmentation makes several
STEP_COUNTS = "step_counts"  # how many samples of the optimizer step count


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
    """The class of sample id 0, 1, ... up to the largest, int64, as `Paired` and the null controls take it.

    -100 is no label: of samples that have -100 or nothing in the column, and of ids that the dataset does not hold.

    Raises:
        ValueError: If the labels are not one integer a sample.
    """
    plain = dataset.with_format("arrow").select_columns([column, label_column])[:]
    ids, found = plain[column].to_numpy(), plain[label_column]
    if not pa.types.is_integer(found.type):
        raise ValueError(
            f"the labels in column '{label_column}' are {found.type}, and a pairing by class needs one integer a sample: "
            "encode names with `dataset.class_encode_column`; numbers and several labels are no classes."
        )
    labels = np.full(ids.max() + 1, NO_LABEL)
    labels[ids] = found.fill_null(NO_LABEL).to_numpy()
    return labels
