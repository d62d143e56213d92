"""The arms of co-training: equal settings and updates, pairs that are permuted, and where each arm falls."""

import numpy as np
import pytest
import torch

from hf_colearn import classification_metrics
from hf_colearn.analysis.plots.style import arm_styles
from hf_colearn.analysis.report.co_training import rounds_section, section_co_training
from hf_colearn.analysis.report.merged_results import MergedResults
from hf_colearn.experiments.co_training import (
    CO,
    PERMUTED,
    SELF,
    CoTrainings,
    co_training_arms,
    co_training_run,
    pair_dataset,
    permuted_pool,
)
from hf_colearn.experiments.frozen_features import feature_dataset, feature_student


CLASSES, TRAIN = 3, 90


def test_every_arm_has_as_many_settings_and_nulls_stand_beside_both_kinds_of_views():
    arms = co_training_arms(with_prompts=True)
    assert {len(arm.grid) for arm in arms} == {3}
    kinds = [arm.kind for arm in arms]
    assert (kinds.count("null"), kinds.count("colearned"), kinds.count("baseline")) == (3, 2, 1)
    assert [arm.name for arm in co_training_arms()] == ["labels alone", SELF, PERMUTED, CO, "label oracle"]


def test_partners_are_permuted_in_the_pool_alone():
    labels = [0, 1, -100, -100, -100, -100, -100, -100]
    features = {"a": torch.arange(8.0)[:, None], "b": torch.arange(8.0)[:, None]}
    found = permuted_pool(pair_dataset(features, labels), ["b"], seed=0)
    b_N = found["b_features"][:][:, 0].tolist()
    assert b_N[:2] == [0, 1] and sorted(b_N) == list(range(8)) and b_N != list(range(8))
    assert found["a_features"][:][:, 0].tolist() == list(range(8)) and found["labels"][:].tolist() == labels
    assert permuted_pool(pair_dataset(features, labels), ["b"], seed=1)["b_features"][:][:, 0].tolist() != b_N
    with pytest.raises(ValueError, match="no column is of c"):
        permuted_pool(pair_dataset(features, labels), ["c"], seed=0)


# ---- where each arm falls ----
@pytest.fixture(scope="module")
def trainings():
    """A clear picture and noisy speech of a class, independent of each other given the class."""
    rng, classes = np.random.default_rng(0), np.arange(TRAIN + 60) % CLASSES
    views = {}
    for view, width, clarity in (("speech", 12, 2), ("image", CLASSES, 8)):
        values = clarity * np.eye(CLASSES, width)[classes] + rng.normal(size=(len(classes), width))
        views[view] = torch.from_numpy(values).float()
    train, test = (
        pair_dataset({view: of[rows] for view, of in views.items()}, classes[rows])
        for rows in (slice(TRAIN), slice(TRAIN, None))
    )
    students = {
        view: lambda of=of: feature_student(of[:TRAIN], [8], 4, num_labels=CLASSES) for view, of in views.items()
    }
    built = CoTrainings(train, test, students, {}, 2, compute_metrics=classification_metrics(("accuracy",)))
    return built, feature_dataset(views["speech"][TRAIN:], classes[TRAIN:]).remove_columns("sample_id")


@pytest.fixture(scope="module")
def runs(trainings, tmp_path_factory):
    built, test = trainings
    training = {"output_dir": str(tmp_path_factory.mktemp("arms")), "learning_rate": 3e-2, "max_steps": 36}
    training |= {"per_device_train_batch_size": 16, "report_to": "none", "save_strategy": "no", "use_cpu": True}
    found = {}
    for arm in (arm.at("labels a class", 1) for arm in co_training_arms() if arm.name != "label oracle"):
        torch.manual_seed(0)
        trainer = built.make_trainer(arm, arm.arguments(training, seed=0))
        trainer.train()
        found[arm.method] = co_training_run(trainer, test, arm.method, arm.kind, sweep=arm.sweep)
    return found


def test_true_pairs_help_the_noisy_view_and_permuted_ones_harm_the_clear_one(runs):
    speech = {arm: run.metrics["accuracy"] for arm, run in runs.items()}
    image = {arm: run.metrics["image_accuracy"] for arm, run in runs.items()}
    assert speech[CO] > max(speech[SELF], speech[PERMUTED], speech["labels alone"]) + 0.05
    assert image[PERMUTED] < image[SELF] - 0.2


def test_all_arms_make_as_many_updates_of_every_student(runs):
    for arm, run in runs.items():
        steps = sum("loss" not in entry and "train_runtime" in entry for entry in run.history)
        assert steps == (1 if arm == "labels alone" else 3), arm
        assert max(entry["step"] for entry in run.history) == 36, arm


def test_the_other_view_and_the_ensemble_are_scored_and_the_rounds_kept(runs):
    for arm, run in runs.items():
        assert set(run.metrics) == {"accuracy", "image_accuracy", "ensemble_accuracy"}, arm
    kept = runs[CO].facts["co_training"]
    assert kept["rounds"][kept["kept"]]["test"]["speech"] == pytest.approx(runs[CO].metrics["accuracy"])
    assert kept["rounds"][kept["kept"]]["test"]["ensemble"] == runs[CO].metrics["ensemble_accuracy"]
    assert "co_training" not in runs["labels alone"].facts


def test_the_report_tells_what_the_rounds_did(runs):
    arms = {run.arm: run.kind for run in runs.values()}
    section = section_co_training(
        MergedResults(list(runs.values()), None, arm_styles(arms), "accuracy", [], "pairing", [])
    )
    assert section.tables[0].header[:3] == ["arm", "round", "labels"]
    first = next(row for row in section.tables[0].rows if row[:2] == [CO, "0"])
    assert first[2:4] == [str(CLASSES), "-"]
    labels = [axis.get_ylabel() for picture in section.pictures for axis in picture.figure.axes]
    assert labels == ["accuracy [%]", "that are correct [%]"]
    assert section.numbers["rounds"][CO]["accuracy"][-1] == pytest.approx(runs[CO].metrics["accuracy"])
    none = MergedResults([runs["labels alone"]], None, {}, "accuracy", [], "pairing", [])
    assert section_co_training(none) is None
    empty = {"labels": [3], "correct": [None], "accuracy": [None]}
    assert "nothing to draw" in rounds_section({"a": empty}, {}, "view").notes[0]


def test_too_few_updates_for_the_rounds_are_refused(trainings, tmp_path):
    built, _ = trainings
    arm = next(arm for arm in co_training_arms() if arm.name == CO).at("labels a class", 1)
    training = {
        "output_dir": str(tmp_path),
        "learning_rate": 1e-3,
        "max_steps": 2,
        "report_to": "none",
        "use_cpu": True,
    }
    with pytest.raises(ValueError, match="max_steps=2 cannot be shared by 3 fits of a student"):
        built.make_trainer(arm, arm.arguments(training, seed=0))
