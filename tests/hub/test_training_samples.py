"""How many training samples have a label and a target, as run folders and cards say it."""

import numpy as np
import pytest
from datasets import Dataset, IterableDataset

import tiny
from hf_colearn import (
    CoLearningForFeatureClassification,
    CoLearningTrainer,
    FeatureBackboneConfig,
    PairedFraction,
    Teacher,
    TeacherBank,
)
from hf_colearn.hub.training_samples import problem_type_of, samples_in_words, training_samples
from hf_colearn.teachers.pairing import Paired


BANK = TeacherBank.from_latents(np.random.default_rng(0).normal(size=(40, 4)))


def student(num_labels=3, **kwargs):
    return CoLearningForFeatureClassification.from_backbone(
        FeatureBackboneConfig(feature_dim=2), latent_dim=4, num_labels=num_labels, **kwargs
    )


def counts_of(labels, **teachers):
    data = Dataset.from_dict(
        {"features": np.zeros((len(labels), 2)), "labels": labels, "sample_id": range(len(labels))}
    )
    return training_samples(CoLearningTrainer(student(), tiny.arguments(), train_dataset=data, **teachers))


@pytest.mark.parametrize(
    ("labels", "labelled"),
    [
        ([0, -100, 2, None], 2),
        ([0.5, float("nan"), None, -100.0], 2),
        ([[1.0, 0.0], None, [-100.0, -100.0], [float("nan"), 1.0]], 2),
    ],
)
def test_what_is_no_label_of_any_kind_is_not_counted(labels, labelled):
    assert counts_of(labels) == {"num_train": 4, "num_labelled": labelled, "num_paired": None}


def test_targets_are_counted_and_of_several_teachers_by_name():
    labels = [0, 1, -100, -100] * 10
    assert counts_of(labels, bank=BANK)["num_paired"] == 40
    half = PairedFraction(Paired(), 0.5)
    expected = int((~half.targets(BANK, np.arange(40), 0, 7).isnan()).any(dim=1).sum())
    assert counts_of(labels, bank=BANK, pairing=half)["num_paired"] == expected
    assert 10 < expected < 30
    teachers = {"text": Teacher(BANK), "audio": Teacher(BANK, half)}
    trainer = CoLearningTrainer(
        student(training_heads={"latent_text": 4, "latent_audio": 4}), tiny.arguments(alpha=0.2), teachers=teachers,
        train_dataset=Dataset.from_dict({"features": np.zeros((40, 2)), "labels": labels, "sample_id": range(40)}),
    )  # fmt: skip
    assert training_samples(trainer) == {
        "num_train": 40, "num_labelled": 20, "num_paired": {"text": 40, "audio": expected},
    }  # fmt: skip


def test_what_would_have_to_be_read_is_not_known():
    rows = [{"features": [0.0, 0.0], "labels": 1, "sample_id": i} for i in range(4)]
    stream = IterableDataset.from_generator(lambda: iter(rows))
    for data, size in ((stream, None), (rows, 4)):
        trainer = CoLearningTrainer(student(), tiny.arguments(), train_dataset=data, bank=BANK)
        assert training_samples(trainer) == {"num_train": size, "num_labelled": None, "num_paired": None}


@pytest.mark.parametrize(
    ("counts", "words"),
    [
        ((1200, 24, 1200), "24 of 1,200 samples labelled, 1,200 paired"),
        ((1200, 1200, 300), "1,200 samples labelled, 300 paired"),
        ((1200, 24, None), "24 of 1,200 samples labelled"),
        (
            (1200, 24, {"text": 1200, "audio": 7}),
            "24 of 1,200 samples labelled, 1,200 paired with text, 7 paired with audio",
        ),
        ((1200, 1200, 1200), None),
        ((1200, 1200, None), None),
        ((None, None, None), None),
    ],
)
def test_they_are_put_in_words_where_some_are_missing(counts, words):
    assert samples_in_words(dict(zip(("num_train", "num_labelled", "num_paired"), counts, strict=True))) == words


def test_the_problem_type_is_the_configurations_or_follows_the_number_of_outputs():
    assert problem_type_of(student(problem_type="multi_label_classification")) == "multi_label_classification"
    assert problem_type_of(student()) == "single_label_classification"
    assert problem_type_of(student(num_labels=1)) == "regression"
