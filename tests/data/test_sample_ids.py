"""Sample ids: labels by id, the samples that have none, and what cannot be numbered, cut or hidden."""

import numpy as np
import pytest
from datasets import ClassLabel, Dataset, DatasetDict, Features, Value, concatenate_datasets

from hf_colearn import with_sample_ids
from hf_colearn.data.sample_ids import labels_by_id
from hf_colearn.data.splits import cut_validation, few_per_class, hide_labels
from refusals import Refusals, assert_refused


def dataset(labels, ids, feature=None):
    columns = {"sample_id": ids, "label": labels}
    features = None if feature is None else Features({"sample_id": Value("int64"), "label": feature})
    return Dataset.from_dict(columns, features)


@pytest.mark.parametrize("feature, missing", [(Value("int64"), -100), (ClassLabel(num_classes=3), None)])
def test_labels_are_found_by_id_and_missing_ones_are_minus_100(feature, missing):
    data = dataset([2, None, 0, missing, 1], [4, 0, 1, 5, 3], feature).select([4, 1, 2, 3, 0])

    found = labels_by_id(data)

    assert found.tolist() == [-100, 0, -100, 1, 2, -100] and found.dtype == np.int64  # nothing has the id 2


@pytest.mark.parametrize("labels", [[0.5, 1.5], ["cat", "dog"], [[0, 1], [1, 1]]])
def test_labels_that_are_no_classes_are_refused(labels):
    with pytest.raises(ValueError, match="the labels in column 'label' are .* a pairing by class needs one integer"):
        labels_by_id(dataset(labels, [0, 1]))


def test_samples_that_share_an_id_share_its_label():
    # The id 1 has the label 2 in one of its samples, and none in the others.
    found = labels_by_id(dataset([2, -100, 1, None], [1, 1, 0, 1]))

    assert found.tolist() == [1, 2]


# ---- what is refused ----
REFUSALS = Refusals()
case = REFUSALS.case


@pytest.mark.parametrize(Refusals.NAMES, REFUSALS.cases)
def test_bad_data_are_refused_with_the_way_out(situation, error, texts, tmp_path):
    assert_refused(situation, error, texts, tmp_path)


FOUR = dataset([0, 0, 1, 1], [0, 1, 2, 3])


@case(TypeError, "has the splits train, test", "`data['train']`")
def ids_for_all_splits_at_once(folder):
    yield
    with_sample_ids(DatasetDict(train=FOUR, test=FOUR))


@case(TypeError, "is a stream", "before it is a stream, `with_sample_ids(dataset).to_iterable_dataset(num_shards=n)`")
def ids_for_a_stream(folder):
    yield
    with_sample_ids(FOUR.to_iterable_dataset())


@case(TypeError, "is a list", "pass a datasets.Dataset")
def ids_for_a_list(folder):
    yield
    with_sample_ids([1, 2])


@case(ValueError, "column=None is no name", "such as 'sample_id'")
def ids_in_a_column_without_a_name(folder):
    yield
    with_sample_ids(FOUR, column=None)


@case(ValueError, "has a column 'sample_id' already", "keep it", "`dataset.remove_columns('sample_id')`")
def ids_for_what_has_ids(folder):
    yield
    with_sample_ids(concatenate_datasets([FOUR, FOUR]))


@case(
    ValueError, "sample id 0 has the labels 0 and 1", "numbered data sets put together", "remove_columns('sample_id')"
)
def an_id_of_two_classes(folder):
    yield
    labels_by_id(concatenate_datasets([FOUR, dataset([1, 0], [0, 1])]))


@case(ValueError, "ids in column 'sample_id' are int64, such as -1", "`with_sample_ids`")
def a_negative_id(folder):
    yield
    labels_by_id(dataset([0, 1], [0, -1]))


@case(ValueError, "ids in column 'sample_id' are string, such as 'a.png'", "`with_sample_ids`")
def ids_that_are_names(folder):
    yield
    labels_by_id(dataset([0, 1], ["a.png", "b.png"]))


@case(ValueError, "ids in column 'sample_id' are int64, such as None", "`with_sample_ids`")
def an_id_that_is_missing(folder):
    yield
    labels_by_id(dataset([0, 1], [0, None]))


@case(ValueError, "such as 4611686018427387904", "`with_sample_ids`")
def ids_that_are_hashes(folder):
    yield
    labels_by_id(dataset([0, 1], [0, 2**62]))  # an array of 2**62 labels would not fit into memory


@case(ValueError, "has no column 'label' (it has ['sample_id'])", "name it")
def labels_by_id_without_labels(folder):
    yield
    labels_by_id(FOUR.remove_columns("label"))


@case(ValueError, "the dataset is empty", "split, filter or selection")
def labels_by_id_of_nothing(folder):
    yield
    labels_by_id(FOUR.select([]))


@case(TypeError, "is a stream", "pass a datasets.Dataset")
def a_stream_that_is_cut(folder):
    yield
    cut_validation(FOUR.to_iterable_dataset(), 0.5, seed=0)


@case(ValueError, "share_or_count='2' cuts no validation split", "between 0 and 1")
def a_count_that_is_a_text(folder):
    yield
    cut_validation(FOUR, "2", seed=0)


@case(ValueError, "seed=None", "a whole number, at least 0")
def a_cut_without_a_seed(folder):
    yield
    cut_validation(FOUR, 0.5, seed=None)  # another cut in every run


@case(ValueError, "labels_per_class=0.5", "a whole number, at least 1")
def half_a_label(folder):
    yield
    hide_labels(FOUR, 0.5, seed=0, label_column="label")


@case(ValueError, "labels_per_class=True", "a whole number, at least 1")
def a_truth_for_a_number(folder):
    yield
    few_per_class(FOUR, True, seed=0)
