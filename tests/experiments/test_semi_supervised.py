"""Few labels and many pairs: what each arm is trained on, and how settings are chosen and read back."""

import dataclasses
from collections import Counter

import numpy as np
import pytest
import torch
import yaml

from hf_colearn import TeacherBank, classification_metrics
from hf_colearn.data.views import StoredViews, TwoViews
from hf_colearn.experiments.chosen_settings import (
    SemiSupervisedOptions,
    _majority,
    check_teacher,
    choose_settings,
)
from hf_colearn.experiments.frozen_features import feature_dataset, feature_student
from hf_colearn.experiments.semi_supervised import (
    SemiSupervised,
    class_probabilities,
    halves,
    labels_of,
    own_modality,
    semi_supervised_arms,
    with_own_labels,
)


N, LATENT = 60, 4
TRAINING = {"max_steps": 4, "per_device_train_batch_size": 8, "labelled_per_batch": 4, "report_to": "none"}
TRAINING |= {"save_strategy": "no", "use_cpu": True, "learning_rate": 3e-3, "logging_strategy": "no"}


@pytest.fixture(scope="module")
def semi():
    # Three classes far apart for the teacher, and close to each other in the student's two features.
    rng, labels = np.random.default_rng(0), np.arange(N) % 3
    features_NF = torch.from_numpy(rng.normal(size=(N, 2)) + labels[:, None]).float()
    latents = np.eye(LATENT)[labels] * 9 + rng.normal(size=(N, LATENT))
    return SemiSupervised(
        feature_dataset(features_NF, labels),
        TeacherBank.from_latents(latents),
        lambda: feature_student(features_NF, [8], LATENT, {0: "a", 1: "b", 2: "c"}),
        features_NF.numpy(),
        TwoViews(strong=StoredViews(features_NF[:, None] + 0.1)),
        compute_metrics=classification_metrics(("accuracy",)),
    )


def arms(*levels, names=None):
    options = SemiSupervisedOptions(labels_per_class=list(levels), arms=names, settings="none.yaml")
    return {plan.name: plan for plan in options.plans("recipe.py", "student from teacher")}


def built(semi, name, folder):
    arm = arms(2)[name if name == "label oracle" else f"{name}, 2 labels a class"]
    return semi.make_trainer(arm, arm.arguments({**TRAINING, "output_dir": str(folder)}, seed=3))


@pytest.mark.parametrize("arm", [arm.name for arm in semi_supervised_arms()])
def test_every_arm_makes_the_same_number_of_updates_from_few_labels(semi, arm, tmp_path):
    trainer = built(semi, arm, tmp_path)
    labels = labels_of(trainer.train_dataset)
    trainer.train()
    before = 2 if arm in ("self-training", "two-stage") else 0  # in the first of two stages
    assert trainer.state.global_step + before == 4
    if arm in ("labels alone", "two-stage"):
        assert len(labels) == 6 and (labels != -100).all()
    elif arm == "label oracle":
        assert len(labels) == N and (labels != -100).all()
    elif arm != "self-training":
        assert len(labels) == N and (labels != -100).sum() == 6
    else:  # half of the 54 predictions, rounded up in each of up to three classes
        assert 6 + 27 <= len(labels) <= 6 + 29
    assert torch.isfinite(torch.tensor(trainer.evaluate(semi.train)["eval_accuracy"]))


def test_wrong_partners_stay_over_the_epochs_and_are_a_permutation(semi):
    wrong, ids = arms(2)["permuted pairs, 2 labels a class"].pairing, np.arange(N)
    rows = wrong.rows(semi.bank, ids, 0, 3)
    assert sorted(rows) == ids.tolist() and (rows != ids).all()
    assert np.array_equal(rows, wrong.rows(semi.bank, ids, 9, 3))
    assert not np.array_equal(rows, wrong.rows(semi.bank, ids, 0, 4))


def test_the_most_confident_predictions_of_every_class_become_labels():
    logits = np.array([[3.0, 0.0], [9.0, 0.0], [5.0, 0.0], [0.0, 1.0], [0.0, 0.5]])
    labels = np.array([1, -100, -100, -100, -100])
    assert with_own_labels(logits, labels, 0.5).tolist() == [1, 0, -100, 1, -100]
    assert with_own_labels(logits, labels, 1.0).tolist() == [1, 0, 0, 1, 1]  # what has a label keeps it
    with pytest.raises(ValueError, match="share=0"):
        with_own_labels(logits, labels, 0)


def test_a_teachers_classifier_of_few_labels_says_what_the_others_are(semi):
    few = np.full(N, -100)
    few[:3] = [0, 1, 2]
    probabilities = class_probabilities(semi.bank.lookup(np.arange(N)).numpy(), few)
    assert probabilities[:3].tolist() == np.eye(3).tolist()  # their own labels, whatever it says
    assert probabilities.sum(axis=1) == pytest.approx(np.ones(N), abs=1e-5)
    assert (probabilities.argmax(axis=1) == np.arange(N) % 3).mean() > 0.95


def test_targets_of_the_own_modality_have_its_distances_and_an_even_variance():
    # A rotation of the principal components keeps all distances, where none is cut off, and spreads the variance.
    inputs = np.random.default_rng(0).normal(size=(50, 3)) * [100, 1, 1]
    latents = own_modality(inputs, 8).lookup(np.arange(50)).numpy()
    assert latents.shape == (50, 8)
    between = np.linalg.norm(inputs[:1] - inputs, axis=1)
    assert np.linalg.norm(latents[:1] - latents, axis=1) == pytest.approx(between, rel=1e-4)
    assert latents.std(axis=0).min() > 1  # padded with zeros it would be 0


def test_arms_are_named_and_compared_level_by_level_with_one_oracle():
    plans = arms(1, 5)
    assert len(plans) == 2 * 9 + 1 and plans["label oracle"].sweep is None
    assert plans["latent transfer, 1 label a class"].sweep == ("labels a class", 1)
    kinds = {plan.method: plan.kind for plan in plans.values()}
    assert [name for name, kind in kinds.items() if kind == "null"] == [
        "self-training", "FixMatch", "permuted pairs", "own modality"
    ]  # fmt: skip
    assert len({len(plan.grid) for plan in plans.values()}) == 1  # as many settings to choose from in every arm
    with pytest.raises(ValueError, match="there is no arm 'fixmatch'"):
        arms(5, names=["labels alone", "fixmatch"])


def test_the_best_setting_of_every_arm_is_written_and_read_back(semi, tmp_path, capsys):
    file = tmp_path / "settings.yaml"
    file.write_text(yaml.safe_dump({"another": {"label oracle": {"rate": 0.5}}}))
    options = SemiSupervisedOptions(labels_per_class=[2], arms=["labels alone"], choose=True, settings=str(file))
    plans = options.plans("recipe.py", "student from teacher")
    training = {**TRAINING, "output_dir": str(tmp_path), "max_steps": 12}
    broken = [{"rate": 1e-6}, {"rate": 15.0}, {"rate": 1e-6}]
    plans = [dataclasses.replace(plan, grid=tuple(broken)) for plan in plans]
    chosen = choose_settings(plans, [0, 1], training, semi.make_trainer, semi.train, file, "student from teacher")
    assert chosen == {"labels alone": {"rate": 15.0}}
    assert "rate 15 *" in capsys.readouterr().out
    assert yaml.safe_load(file.read_text())["another"] == {"label oracle": {"rate": 0.5}}
    options.choose, options.arms = False, ["labels alone", "label oracle"]
    plan, _ = options.plans("recipe.py", "student from teacher")
    assert plan.setting == {"rate": 15.0}
    assert plan.arguments(training, 0).learning_rate == pytest.approx(15 * 3e-3)
    file.write_text(yaml.safe_dump({"student from teacher": {plan.method: {"alpha": 0.5}}}))
    with pytest.raises(ValueError, match="expected is rate"):
        options.plans("recipe.py", "student from teacher")
    options.choose, options.labels_per_class = True, [2, 5]
    with pytest.raises(ValueError, match="chosen at one number of labels"):
        options.plans("recipe.py", "student from teacher")


@pytest.mark.parametrize(
    ("counts", "verdict"),
    [
        ({"likely to help": 3, "undecided": 2}, "likely to help"),
        ({"will harm": 2, "undecided": 2, "cannot help": 1}, "will harm"),  # three draws say that it is no help
        ({"cannot help": 2, "undecided": 2, "will harm": 0}, "undecided"),
        ({"undecided": 5}, "undecided"),
    ],
)
def test_what_most_draws_of_labels_say_of_a_teacher_is_the_verdict(counts, verdict):
    assert _majority(Counter(counts)) == verdict


def test_the_teacher_is_checked_before_anything_is_trained(semi, capsys):
    found = check_teacher([arms(2)["latent transfer, 2 labels a class"]], [0, 1], semi, "student from teacher")
    assert list(found) == ["student from teacher, 2 labels a class"]
    assert f"student from teacher, 2 labels a class: {found.popitem()[1]} (of 2 draws" in capsys.readouterr().out


def test_two_stages_share_the_updates_out(tmp_path):
    first, second = halves(
        arms(2)["two-stage, 2 labels a class"].arguments({**TRAINING, "output_dir": str(tmp_path)}, 0)
    )
    assert (first.max_steps, second.max_steps) == (2, 2)
    first.max_steps = 1
    with pytest.raises(ValueError, match="max_steps=1 makes no two stages"):
        halves(first)
