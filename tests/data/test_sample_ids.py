"""Sample ids: labels by id, and the samples that have none."""

import numpy as np
import pytest
from datasets import ClassLabel, Dataset, Features, Value

from hf_colearn.data.sample_ids import labels_by_id


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
