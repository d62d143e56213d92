"""Validation splits, few labels, and samples without a label."""

import numpy as np
import pytest
import torch
from datasets import ClassLabel, Dataset, Features, Value

import tiny
from hf_colearn import with_sample_ids
from hf_colearn.data.splits import at_least_one_a_class, cut_validation, few_per_class, hide_labels


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


# ---- samples without a label ----

HALF = [label if row % 2 else -100 for row, label in enumerate(LABELS)]


@pytest.mark.parametrize("empty", [-100, None])
def test_a_validation_split_is_cut_of_the_labelled_samples_alone(empty):
    labels = [label if row % 2 else empty for row, label in enumerate(LABELS)]
    data = Dataset.from_dict({"label": labels, "row": list(range(100))}, features=FEATURES)

    train, validation = cut_validation(data, 0.2, seed=0)

    assert len(validation) == 10 and all(row % 2 for row in validation["row"])
    assert sorted(train["row"][:] + validation["row"][:]) == list(range(100))
    assert set(range(0, 100, 2)) <= set(train["row"])
    # Among the 50 labelled ones the classes have their shares on both sides, to a sample.
    counts = np.bincount([label for label in HALF if label >= 0])
    assert np.abs(np.bincount(validation["label"][:]) - counts / 5).max() < 1


FEATURES = Features({"label": Value("int64"), "row": Value("int64")})


@pytest.mark.parametrize(
    "labels",
    [
        [float("nan") if row % 2 else row / 7 for row in range(40)],
        [[-100.0, float("nan")] if row % 2 else [1.0, -100.0] for row in range(40)],
    ],
)
def test_numbers_and_multi_hot_labels_are_cut_at_random(labels):
    data = Dataset.from_dict({"label": labels, "row": list(range(40))})

    train, validation = cut_validation(data, 5, seed=0)

    assert len(validation) == 5 and len(train) == 35 and not any(row % 2 for row in validation["row"])
    assert validation["row"][:] != cut_validation(data, 5, seed=1)[1]["row"][:]


def test_too_few_labelled_samples_are_counted():
    data = dataset([0, 0, 1, 1, *[-100] * 6], names=False)

    with pytest.raises(ValueError, match=r"makes 3 validation samples of 4 \(6 more have no label\): each side needs"):
        cut_validation(data, 3, seed=0)
    with pytest.raises(ValueError, match="makes 0 validation samples of 0"):
        cut_validation(dataset([-100] * 4, names=False), 0.5, seed=0)


def test_hidden_labels_leave_every_row_and_k_labels_of_each_class():
    data = with_sample_ids(dataset(LABELS).rename_column("label", "labels"))

    hidden = hide_labels(data, 3, seed=5)

    assert hidden["text"][:] == data["text"][:] and hidden["sample_id"][:] == data["sample_id"][:]
    assert hidden.column_names == data.column_names and hidden.features["labels"] == Value("int64")
    kept = {row: label for row, label in enumerate(hidden["labels"]) if label != -100}
    assert all(LABELS[row] == label for row, label in kept.items())
    assert np.bincount(list(kept.values())).tolist() == [3, 3, 3]
    # The same as few_per_class draws, and others by another seed.
    assert few_per_class(data, 3, seed=5, label_column="labels")["sample_id"][:] == list(kept)
    assert hide_labels(data, 3, seed=6)["labels"][:] != hidden["labels"][:]


def test_hidden_labels_are_drawn_of_the_labels_that_are_there():
    hidden = hide_labels(dataset(HALF, names=False), 2, seed=0, label_column="label")["label"][:]

    assert np.bincount([label for label in hidden if label >= 0]).tolist() == [2, 2, 2]
    assert all(label in (-100, given) for label, given in zip(hidden, HALF, strict=True))
    assert set(few_per_class(dataset(HALF, names=False), 2, seed=0)["label"][:]) == {0, 1, 2}


def test_hidden_labels_keep_a_selection_and_its_format():
    digits = tiny.digits(40).select(range(30, 10, -1))

    hidden = hide_labels(digits, 1, seed=0)

    assert hidden.format["type"] == "torch" and hidden[3]["labels"].dtype == torch.int64
    assert torch.equal(hidden[3]["pixel_values"], digits[3]["pixel_values"])
    labels = torch.stack([digits[row]["labels"] for row in range(20)])
    kept = torch.stack([hidden[row]["labels"] for row in range(20)])
    assert torch.equal(kept[kept >= 0], labels[kept >= 0]) and (kept >= 0).sum() == len(labels.unique())


@pytest.mark.parametrize(
    ("labels", "count", "message"),
    [
        ([0, 0, 1], 2, r"class 1 has 1 samples, 2 were asked for"),
        ([-100, None], 1, "none of the 2 samples has a label in 'labels'"),
        (["cat", "dog"], 1, r"'labels' holds 'cat', and only class indices can become -100.*class_encode_column"),
        ([0.5, 1.5], 1, r"'labels' holds no classes but .*0.5"),
        ([0, 1], 0, "labels_per_class=0: pass a whole number, at least 1"),
    ],
)
def test_labels_that_cannot_be_hidden_are_refused(labels, count, message):
    with pytest.raises(ValueError, match=message):
        hide_labels(Dataset.from_dict({"labels": labels}), count, seed=0)


@pytest.mark.parametrize(
    ("labels", "share", "number"),
    [
        ([0, 1, 2] * 10, 0.2, 6),
        ([0, 1, 2] * 10, 0.05, 3),  # 1.5 of 30, but there are 3 classes
        ([0, 1, 2, None, None] * 10, 0.05, 3),  # of 30 labelled ones
        ([0, 1, 2] * 10, 1.5, 1.5),  # no share: `cut_validation` says so
    ],
)
def test_a_share_of_a_small_set_is_at_least_one_sample_a_class(labels, share, number):
    assert at_least_one_a_class(dataset(labels), share) == number
