"""Sample ids, by which a pairing knows a training sample, and the names of columns that batches share."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from datasets import Dataset

from hf_colearn.data.columns import check_columns, check_dataset


LABELS = ("labels", "label", "label_ids")  # what Trainer's collators take for labels, the first one that is there
NO_LABEL = -100  # of a class: what cross-entropy ignores
# Entries of a training batch that are not the model's inputs.
TARGETS = "teacher_latents"  # the targets [B, D] of a single teacher, and the start of the names of several teachers'
SAMPLE_IDS = "sample_ids"  # [B]
VIEWS = "views"  # [B], which view of its sample a row is, where an augmentation makes several
STEP_COUNTS = "hf_colearn.step_counts"  # how many samples of the optimizer step count
_MAX_ID = 2**31  # sample ids number samples; those beyond are hashes or names


def is_target(entry: str) -> bool:
    """Whether an entry of a batch holds the targets of a teacher."""
    return entry == TARGETS or entry.startswith(f"{TARGETS}_")


def with_sample_ids(dataset: Dataset, column: str = "sample_id") -> Dataset:
    """Numbers the samples of a dataset from 0, in a column that survives shuffling, filtering and selecting.

    Call it on the whole training set, *before* anything that picks or reorders samples, so that an id goes on naming
    the sample whose teacher input is row `id` of the bank. Data sets that are put together are numbered afterwards. Where
    the bank has another order, or several samples are of one thing and share its row (two photographs of what one sentence
    describes), number the samples all the same and find the rows by the inputs: `Paired(bank.rows_of(train["text"]))`.

    Args:
        dataset ([`datasets.Dataset`]): Without such a column.
        column (`str`, *optional*, defaults to `"sample_id"`): `CoLearningArguments.id_column`.

    Raises:
        TypeError: If it is no data set of one split.
        ValueError: If it has such a column already.
    """
    check_dataset(dataset)
    if not isinstance(column, str) or not column:
        raise ValueError(f"column={column!r} is no name of a column: pass one such as 'sample_id'.")
    if column in dataset.column_names:
        raise ValueError(
            f"the dataset has a column '{column}' already: keep it if it has the numbers of the bank's rows, or pass another "
            f"`column`. Of numbered data sets that were put together, remove it first, `dataset.remove_columns('{column}')`."
        )
    return dataset.add_column(column, list(range(len(dataset))))


def labels_by_id(dataset: Dataset, column: str = "sample_id", label_column: str = "label") -> np.ndarray:
    """The class of sample id 0, 1, ... up to the largest, int64, as `Paired` and the null controls take it.

    -100 is no label: of samples that have -100 or nothing in the column, and of ids that the dataset does not hold. Samples
    that share an id have one class; those of them without a label take it from the others.

    Raises:
        ValueError: If the labels are not one integer a sample, the ids no numbers from 0, or an id has two classes.
    """
    check_dataset(dataset)
    check_columns(dataset, column, label_column)
    plain = dataset.with_format("arrow").select_columns([column, label_column])[:]
    ids, found = plain[column], plain[label_column]
    if not pa.types.is_integer(found.type):
        raise ValueError(
            f"the labels in column '{label_column}' are {found.type}, and a pairing by class needs one integer a sample: "
            "encode names with `dataset.class_encode_column`; numbers and several labels are no classes."
        )
    if not len(ids):
        raise ValueError("the dataset is empty, so no id has a class: look at its split, filter or selection.")
    is_bad = ids.null_count or not pa.types.is_integer(ids.type)
    if is_bad or not 0 <= pc.min(ids).as_py() <= pc.max(ids).as_py() < _MAX_ID:
        odd = next(i for i in ids.to_pylist() if not isinstance(i, int) or not 0 <= i < _MAX_ID)
        raise ValueError(
            f"the sample ids in column '{column}' are {ids.type}, such as {odd!r}: number the samples from 0 with "
            "`with_sample_ids`."
        )
    ids_N, labels_N = ids.to_numpy(), found.fill_null(NO_LABEL).to_numpy()
    labels, known = np.full(ids_N.max() + 1, NO_LABEL), labels_N != NO_LABEL
    labels[ids_N[known]] = labels_N[known]
    if (clash := known & (labels[ids_N] != labels_N)).any():
        first, other = ids_N[clash.argmax()], labels_N[clash.argmax()]
        raise ValueError(
            f"sample id {first} has the labels {other} and {labels[first]}: were numbered data sets put together? "
            f"Number them afterwards, `with_sample_ids(dataset.remove_columns('{column}'))`."
        )
    return labels
