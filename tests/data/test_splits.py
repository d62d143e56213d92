"""The validation split that is cut from a training set."""

import numpy as np
import pytest
from datasets import ClassLabel, Dataset, Features, Value

import tiny
from hf_colearn import with_sample_ids
from hf_colearn.data.splits import cut_validation


NAMES = ["cat", "dog", "owl"]


def dataset(labels, names=True):
    feature = ClassLabel(names=NAMES) if names else Value("int64")
    features = Features({"label": feature, "text": Value("string")})
    return Dataset.from_dict(
        {"label": labels, "text": [f"text {row}" for row in range(len(labels))]}, features=features
    )


# 60 cats, 30 dogs and 10 owls, in no order.
LABELS = np.random.default_rng(0).permutation([0] * 60 + [1] * 30 + [2] * 10).tolist()


@pytest.mark.parametrize("share_or_count", [0.2, 20])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_both_sides_hold_the_classes_in_the_same_shares(share_or_count, seed):
    train, validation = cut_validation(dataset(LABELS), share_or_count, seed)

    assert np.bincount(validation["label"][:]).tolist() == [12, 6, 2]
    assert np.bincount(train["label"][:]).tolist() == [48, 24, 8]
    assert sorted(train["text"][:] + validation["text"][:]) == sorted(dataset(LABELS)["text"][:])
    assert train.features == dataset(LABELS).features


def test_ids_survive_the_cut():
    numbered = with_sample_ids(dataset(LABELS))

    for side in cut_validation(numbered, 0.2, seed=0):
        assert [f"text {i}" for i in side["sample_id"]] == side["text"][:]
        assert side["sample_id"][:] == sorted(side["sample_id"][:])  # in the dataset's order


def test_the_seed_draws_the_split():
    cuts = [cut_validation(dataset(LABELS), 0.2, seed)[1]["text"][:] for seed in (0, 0, 1)]

    assert cuts[0] == cuts[1] != cuts[2]


@pytest.mark.parametrize("labels", [LABELS, [NAMES[label] for label in LABELS], [label - 7 for label in LABELS]])
def test_labels_need_be_no_classes(labels):
    data = Dataset.from_dict({"kind": labels, "row": list(range(100))})

    validation = cut_validation(data, 0.2, seed=0, label_column="kind")[1]

    assert sorted(np.unique(validation["kind"][:], return_counts=True)[1].tolist()) == [2, 6, 12]


def test_a_formatted_dataset_keeps_its_format():
    digits = tiny.digits(100)

    train, validation = cut_validation(digits, 0.3, seed=0, label_column="labels")

    assert len(train) == 70 and len(validation) == 30
    assert train[0]["pixel_values"].shape == (1, 8, 8)
    assert train.format["type"] == "torch"


@pytest.mark.parametrize(
    ("labels", "share_or_count", "message"),
    [
        (LABELS, 1.0, "share_or_count=1.0 cuts no validation split: pass a share between 0 and 1"),
        (LABELS, 0.0, "share_or_count=0.0 cuts no"),
        (LABELS, 0, "share_or_count=0 cuts no"),
        (LABELS, 0.01, "share_or_count=0.01 makes 1 validation samples of 100: each side needs.*the 3 classes"),
        (LABELS, 98, "share_or_count=98 makes 98 validation samples of 100"),
        (LABELS, 1000, "share_or_count=1000 makes 1000 validation samples of 100"),
        ([0, 0, 1, 1, 2], 3, r"class 2 \('owl'\) has 1 sample, which cannot be on both sides"),
        ([], 1, "share_or_count=1 makes 1 validation samples of 0"),
    ],
)
def test_a_cut_that_cannot_be_stratified_is_refused(labels, share_or_count, message):
    with pytest.raises(ValueError, match=message):
        cut_validation(dataset(labels), share_or_count, seed=0)


def test_a_missing_label_column_is_named():
    with pytest.raises(ValueError, match="no column 'emotion'.*'label', 'text'"):
        cut_validation(dataset(LABELS), 0.2, seed=0, label_column="emotion")
