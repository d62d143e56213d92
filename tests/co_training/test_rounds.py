"""Rounds of self-training and co-training: what each student is fitted to, what is undone, and runs that were broken off."""

import json
import os
import signal
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import TrainerCallback

from hf_colearn import CoLearningTrainer, FrozenView
from hf_colearn.co_training.rounds import ensemble
from hf_colearn.data.multimodal import missing_as_none, only_modality
from hf_colearn.hub.training_samples import samples_in_words, training_samples
from scripts.co_train_two import CLASSES, SAMPLES, arguments, losses, pairs, student, trained


class Known(FrozenView):
    """Tells the class of a column with a probability."""

    num_labels = CLASSES

    def probabilities(self, dataset):
        columns = dataset.with_format("numpy")
        rows = np.arange(len(dataset))
        found = np.tile(1 - columns["sure"][:][:, None], CLASSES)
        found[rows, columns["class"][:]] = columns["sure"][:]
        return found


def known(sure, **options):
    """Pairs and a frozen view `c` of them, which is so sure of the hidden class, or of another one where negative."""
    of_pairs = pairs(**options)
    classes = np.where(np.array(sure) < 0, 1 - np.asarray(of_pairs["hidden"][:]), of_pairs["hidden"][:])
    return of_pairs.add_column("c_sure", np.abs(sure)).add_column("c_class", classes)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run of two views, two rounds, with checkpoints and a report."""
    folder = tmp_path_factory.mktemp("whole")
    fields = {"save_strategy": "steps", "save_steps": 2}
    test = pairs(SAMPLES, seed=1)
    return trained(folder, fields=fields, test_dataset=test, report=True), folder


def test_every_view_gains_labels_of_the_other_a_number_a_class_and_keeps_them(whole):
    result, _ = whole
    assert [record["round"] for record in result.rounds] == [0, 1, 2] and result.kept == 2
    for view, labels_N in result.labels.items():
        counts = [record["labels"][view] for record in result.rounds]
        gained = [record["gained"][view] for record in result.rounds]
        assert counts == np.add.accumulate([4, *gained[1:]]).tolist() and counts[-1] == (labels_N >= 0).sum()
        assert max(gained) <= 2 * CLASSES and labels_N[:4].tolist() == [0, 1, 0, 1]
        hidden = np.arange(SAMPLES) % CLASSES
        gained_N = (labels_N >= 0) & (np.arange(SAMPLES) >= 4)
        assert result.rounds[-1]["correct"][view] == np.mean(labels_N[gained_N] == hidden[gained_N])


def test_the_kept_student_is_a_fresh_fit_of_the_given_weights_to_its_labels(whole, tmp_path):
    result, _ = whole
    seen = only_modality(pairs(), "b").with_format(None).remove_columns("labels")
    seen = seen.add_column("labels", result.labels["b"]).select(np.flatnonzero(result.labels["b"] >= 0))
    alone = CoLearningTrainer(student(1), arguments(tmp_path), train_dataset=seen.with_format("torch"))
    alone.train()
    for name, weight in alone.model.state_dict().items():
        torch.testing.assert_close(result.students["b"].state_dict()[name], weight, rtol=0, atol=0)


def test_the_record_and_the_card_tell_of_labels_that_were_predicted(whole):
    result, folder = whole
    trainer = result.trainers["b"]
    gained = int((result.labels["b"] >= 0).sum()) - 4
    counts = training_samples(trainer)
    assert (counts["num_predicted"], counts["num_labelled"]) == (gained, gained + 4)
    assert samples_in_words(counts) == f"{gained + 4} samples labelled, {gained} labels predicted in co-training"
    trainer.create_model_card()
    card = Path(trainer.args.output_dir, "README.md").read_text()
    assert "on given labels and on those that co-training or self-training predicted" in card


def test_the_ensemble_is_the_mean_of_the_views_that_a_sample_has(whole):
    result, _ = whole
    test = pairs(SAMPLES, seed=1)
    by_view = result.probabilities(test)
    np.testing.assert_allclose(result.predict(test), (by_view["a"] + by_view["b"]) / 2)
    right = result.predict(test).argmax(axis=1) == np.asarray(test["labels"][:])
    assert result.rounds[-1]["test"]["ensemble"] == right.mean()

    some = {"a": np.array([[0.8, 0.2], [np.nan, np.nan]]), "b": np.array([[0.4, 0.6], [0.1, 0.9]])}
    np.testing.assert_allclose(ensemble(some), [[0.6, 0.4], [0.1, 0.9]])


def test_what_came_of_it_is_shown_and_the_students_of_earlier_rounds_are_gone(whole):
    result, folder = whole
    assert "a: gained, correct [%]" in repr(result) and "kept is round 2: all rounds are done." in repr(result)
    page = (folder / "out" / "report.md").read_text()
    assert "Kept is round 2" in page and "| ensemble | 2 |" in page
    assert (folder / "out" / "figures" / "co_training_accuracy.svg").is_file()
    assert json.loads((folder / "out" / "report.json").read_text())["rounds"] == result.rounds
    kept = {view: max(fit["round"] for fit in fits) for view, fits in result.fits.items()}
    left = {path.name: path.parent.name for path in (folder / "out").glob("round-*/*")}
    assert left == {view: f"round-{number}" for view, number in kept.items()}


# ---- after a break ----
class KillAt(TrainerCallback):
    """Kills this process at a step of a fit."""

    def __init__(self, fit, step):
        self.fit, self.step = fit, step

    def on_step_end(self, args, state, control, **kwargs):
        if args.output_dir.endswith(self.fit) and state.global_step == self.step:
            os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize(("fit", "step"), [("round-2/a", 3), ("round-1/b", 1)])
def test_a_run_killed_within_a_round_goes_on_with_identical_losses_and_labels(whole, tmp_path, fit, step):
    expected, _ = whole
    options = {"fields": {"save_strategy": "steps", "save_steps": 2}, "test_dataset": pairs(SAMPLES, seed=1)}
    killed = {view: {"callbacks": [KillAt(fit, step)]} for view in "ab"}
    run = get_context("fork").Process(target=lambda: trained(tmp_path, trainer_kwargs=killed, **options))
    run.start()
    run.join(60)
    assert run.exitcode == -signal.SIGKILL

    result = trained(tmp_path, resume=True, **options)

    assert losses(result) == losses(expected) and result.rounds == expected.rounds
    assert all(np.array_equal(result.labels[view], expected.labels[view]) for view in "ab")
    for name, weight in expected.students["a"].state_dict().items():
        assert torch.equal(result.students["a"].state_dict()[name], weight)


def test_more_rounds_may_follow_and_other_settings_may_not(whole, tmp_path):
    expected, _ = whole
    options = {"fields": {"save_strategy": "steps", "save_steps": 2}, "test_dataset": pairs(SAMPLES, seed=1)}
    trained(tmp_path, rounds=1, **options)
    assert losses(trained(tmp_path, resume=True, **options)) == losses(expected)
    with pytest.raises(ValueError, match="has selection='Selection.per_class=2.* resume with what it was begun with"):
        trained(tmp_path, per_class=3, resume=True, **options)
    (tmp_path / "out" / "co_training.json").write_text("{")
    with pytest.raises(ValueError, match="co_training.json' is damaged"):
        trained(tmp_path, resume=True, **options)


# ---- frozen views, harm, absent views ----
def test_a_frozen_view_labels_the_pool_from_round_1_on_without_any_label(tmp_path):
    # Rows 0 to 3 of classes 0, 1, 0, 1: the surer ones of each class are rows 2 and 1.
    train = known([0.7, 0.9, 0.8, 0.6], labelled=0, samples=4)
    result = trained(tmp_path, {"a": student(), "c": Known()}, train, rounds=1, per_class=1, true_labels=None)
    assert [record["labels"]["a"] for record in result.rounds] == [0, 2] and result.labels["a"].tolist() == [
        -100,
        1,
        0,
        -100,
    ]
    assert result.rounds[1]["correct"]["a"] is None and [fit["round"] for fit in result.fits["a"]] == [1]
    assert list(result.students) == ["a"] and set(result.probabilities(train)) == {"a", "c"}


def test_it_ends_where_nothing_is_gained(tmp_path):
    result = trained(tmp_path, rounds=3, per_class=None, threshold=0.99999)
    assert (result.kept, result.stopped, len(result.rounds)) == (0, "no label was gained", 1)


def test_a_round_that_harms_is_undone(tmp_path):
    # The frozen view is wrong of every sample of the pool, so that a student that learns from it tells the other class.
    train = known([0.99] * 4 + [-0.99] * 12, samples=16, noise=0.1)
    held_out = known([0.99] * 8, labelled=8, samples=8, seed=1, noise=0.1)
    views = {"a": student(), "c": Known()}
    rule = {"per_class": None, "threshold": 0.95, "rounds": 3, "held_out": held_out}  # the student is not so sure
    result = trained(tmp_path, views, train, **rule)
    assert (result.kept, result.stopped, len(result.rounds)) == (0, "the round did harm", 2)
    assert result.rounds[0]["held_out"]["a"] == 1.0 and result.rounds[1]["held_out"]["a"] < 0.5
    assert (result.labels["a"] >= 0).sum() == 4 and "1 (undone)" in repr(result)
    assert (result.predict(held_out).argmax(axis=1) == np.asarray(held_out["labels"][:])).all()
    again = trained(tmp_path, views, train, resume=True, **rule)
    assert again.rounds == result.rounds and losses(again) == losses(result)


def test_a_share_of_the_labels_is_held_out_and_never_trained_with_or_gained(tmp_path):
    result = trained(tmp_path, {"a": student()}, pairs(labelled=12), rounds=1, per_class=12, held_out=0.25)
    labels_N = result.labels["a"]
    # A quarter of 12 labelled samples.
    assert (labels_N[:12] < 0).sum() == 3 and result.rounds[0]["labels"]["a"] == 9
    assert result.rounds[0]["held_out"]["a"] is not None


def test_a_sample_may_lack_a_view(tmp_path):
    train = pairs().with_format(None)
    features = [None if row == 5 else value for row, value in enumerate(train["a_features"][:])]
    train = train.remove_columns("a_features").add_column("a_features", features).with_transform(missing_as_none)
    result = trained(tmp_path, train=train, rounds=1, per_class=12)
    # The view gains no label of a sample that it cannot see... and the ensemble of that sample is the other view's.
    assert np.isnan(result.probabilities(train)["a"][5]).all()
    np.testing.assert_allclose(result.predict(train)[5], result.probabilities(train)["b"][5])


def test_the_pool_is_read_where_batches_have_a_share_of_it_and_an_augmentation_is_a_views_own(tmp_path):
    seen = []

    def look(batch):
        seen.append((batch["labels"] < 0).sum().item())
        return batch

    fields = {"max_steps": 1, "labelled_per_batch": 1, "per_device_train_batch_size": 4}
    result = trained(tmp_path, rounds=1, fields=fields, trainer_kwargs={"a": {"augment": look}})
    assert seen.count(3) == 2  # of the step of each of two fits; others are samples that are looked at before
    assert {fit["labels"] for fit in result.fits["b"]} > {4}
