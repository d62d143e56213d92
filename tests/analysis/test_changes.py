import hf_colearn  # noqa: F401, I001  # first: its guard makes `import evaluate` work beside a CPU torch

import gc
import json
from dataclasses import asdict

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import f1_score, recall_score

from hf_colearn.analysis.statistics.changes import per_class_changes, per_group_changes, per_label_changes


@pytest.fixture(autouse=True)
def no_garbage_collection(monkeypatch):
    """statsmodels collects all garbage at every call, which takes longer than the statistics."""
    monkeypatch.setattr(gc, "collect", lambda: 0)


# 3 classes of 10 samples. A prediction of class 3 is wrong for all.
LABELS = np.repeat([0, 1, 2], 10)


def predicted(*right):
    """So many of each class's 10 samples predicted right."""
    return np.concatenate([[c] * k + [3] * (10 - k) for c, k in enumerate(right)])


# Differences by seed, in tenths: class 0 +4, +5, +3; class 1 -1, 0, +1; class 2 -2, -2, -2.
BASELINE = [predicted(4, 8, 9), predicted(3, 8, 9), predicted(5, 8, 9)]
ARM = [predicted(8, 7, 7), predicted(8, 8, 7), predicted(8, 9, 7)]


def test_accuracies_differences_and_order_by_hand():
    found = per_class_changes(ARM, BASELINE, LABELS, ["cat", "dog", "owl"])
    assert [change.name for change in found.changes] == ["cat", "dog", "owl"]
    assert [change.samples for change in found.changes] == [10, 10, 10]
    assert [change.baseline_accuracy for change in found.changes] == pytest.approx([0.4, 0.8, 0.9])
    assert [change.accuracy for change in found.changes] == pytest.approx([0.8, 0.8, 0.7])
    assert [change.difference.mean for change in found.changes] == pytest.approx([0.4, 0.0, -0.2])


def test_intervals_are_paired_by_seed_and_corrected_for_the_number_of_classes():
    # Class 0: mean 0.4, sd 0.1, t = 0.4 / 0.1 * sqrt(3) = 6.93, p = 0.0202: below 0.05, and not below 0.05 / 3.
    found = per_class_changes(ARM, BASELINE, LABELS)
    half = stats.t.ppf(1 - 0.05 / 3 / 2, 2) * 0.1 / 3**0.5
    gain = found.changes[0].difference
    assert (gain.low, gain.high) == pytest.approx((0.4 - half, 0.4 + half))
    assert gain.low < 0 and not gain.is_gain
    assert "corrected for 3 classes (Holm)" in " ".join(found.notes)
    # Alone in the test split it needs no correction: the half width is 4.303 * 0.1 / sqrt(3) = 0.248.
    [alone] = per_class_changes([p[:10] for p in ARM], [p[:10] for p in BASELINE], LABELS[:10]).changes
    assert alone.difference.is_gain and alone.difference.low == pytest.approx(0.4 - 0.2484, abs=1e-4)


def test_a_gain_and_a_loss_are_told():
    rng = np.random.default_rng(0)
    baseline = [predicted(2, 9, 5 + rng.integers(3)) for _ in range(5)]
    arm = [predicted(8 + rng.integers(2), 2 + rng.integers(2), 5 + rng.integers(3)) for _ in range(5)]
    found = per_class_changes(arm, baseline, LABELS).changes
    assert [(c.name, c.difference.is_gain, c.difference.is_loss) for c in found] == [
        ("0", True, False),
        ("2", False, False),
        ("1", False, True),
    ]


def test_of_classes_that_differ_by_chance_one_experiment_in_twenty_finds_any():
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(8), 40)

    def runs():
        return [np.where(rng.random(320) < 0.7, labels, 8) for _ in range(5)]

    found = [
        any(c.difference.is_gain or c.difference.is_loss for c in per_class_changes(runs(), runs(), labels).changes)
        for _ in range(400)
    ]
    assert np.mean(found) == pytest.approx(0.05, abs=0.03)


def test_a_difference_that_is_the_same_at_every_seed_has_no_interval_and_is_no_loss():
    owl = per_class_changes(ARM, BASELINE, LABELS).changes[-1]
    assert owl.difference.mean == pytest.approx(-0.2)
    assert owl.difference.low is None and not owl.difference.is_loss
    # 0.3 - 0.1 and 0.9 - 0.7 are 0.2 but for rounding, which must not pass for a spread.
    same = per_class_changes(
        [predicted(3, 5, 5), predicted(9, 5, 5)], [predicted(1, 5, 5), predicted(7, 5, 5)], LABELS
    )
    assert same.changes[0].difference.low is None


def test_accuracy_of_a_class_is_its_recall_in_scikit_learn():
    rng = np.random.default_rng(1)
    labels, ids = rng.integers(0, 6, size=300), rng.integers(0, 6, size=300)
    found = per_class_changes([ids], [labels], labels)
    expected = recall_score(labels, ids, average=None)
    by_name = {change.name: change for change in found.changes}
    assert [by_name[str(c)].accuracy for c in range(6)] == pytest.approx(list(expected))
    assert {change.baseline_accuracy for change in found.changes} == {1.0}


def test_the_worst_class_and_the_largest_gap_of_each_arm():
    found = per_class_changes(ARM, BASELINE, LABELS, ["cat", "dog", "owl"])
    assert (found.baseline.worst, found.baseline.best) == ("cat", "owl")
    assert (found.baseline.worst_accuracy, found.baseline.gap) == pytest.approx((0.4, 0.5))
    assert found.arm.worst == "owl"
    assert (found.arm.worst_accuracy, found.arm.best_accuracy, found.arm.gap) == pytest.approx((0.7, 0.8, 0.1))


def test_groups_cut_across_the_classes():
    # Of each class the first 4 samples are by one speaker: baseline 4+4+4, 3+4+4, 4+4+4 of 12 right, the arm all.
    speakers = np.where(np.arange(30) % 10 < 4, "ann", "bob")
    found = per_group_changes(ARM, BASELINE, LABELS, speakers)
    by_name = {change.name: change for change in found.changes}
    assert by_name["ann"].samples == 12 and by_name["bob"].samples == 18
    assert by_name["ann"].accuracy == 1 and by_name["ann"].baseline_accuracy == pytest.approx(35 / 36)
    # bob: what is right beyond the first 4 of a class: arm 4+3+3, 4+4+3, 4+5+3; baseline 0+4+5, 0+4+5, 1+4+5.
    assert by_name["bob"].accuracy == pytest.approx(33 / 54)
    assert by_name["bob"].baseline_accuracy == pytest.approx(28 / 54)
    assert (found.arm.worst, found.arm.gap) == ("bob", pytest.approx(1 - 33 / 54))
    assert found.changes[0].name == "bob"
    assert "corrected for 2 groups" in " ".join(found.notes)


def test_few_samples_are_shown_and_not_judged():
    # 4 samples of a fourth class, all lost; it is no worst class, and the other three are corrected for 3.
    labels = np.append(LABELS, [4] * 4)
    arm, baseline = [np.append(p, [3] * 4) for p in ARM], [np.append(p, [4] * 4) for p in BASELINE]
    found = per_class_changes(arm, baseline, labels)
    rare = found.changes[-1]
    assert (rare.name, rare.samples, rare.accuracy, rare.baseline_accuracy) == ("4", 4, 0, 1)
    assert rare.difference.mean == -1 and rare.difference.low is None
    assert found.arm.worst == "2"
    assert found.notes[0] == "Shown and not judged for having fewer than 5 samples: '4'."
    assert found.changes[0].difference == per_class_changes(ARM, BASELINE, LABELS).changes[0].difference


def test_many_small_classes_are_named_in_part():
    labels = np.arange(20)
    found = per_class_changes([labels, labels], [labels, labels], labels)
    assert "'0', '1', '2', '3', '4' and 15 more" in found.notes[0]
    assert found.arm is None and found.baseline is None


def test_one_class_has_nothing_to_be_held_against():
    found = per_class_changes([np.zeros(6, int)], [np.zeros(6, int)], np.zeros(6, int), ["cat"])
    assert found.arm is None
    assert found.notes[0] == "The test samples are all of one class ('cat'), so there is nothing to hold it against."


def test_classes_without_a_test_sample_are_counted():
    found = per_class_changes(ARM, BASELINE, LABELS, ["cat", "dog", "owl", "yak", "elk"])
    assert len(found.changes) == 3
    assert found.notes[0] == "2 of 5 classes have no test sample and are not listed."


def test_one_seed_has_no_intervals():
    found = per_class_changes(ARM[:1], BASELINE[:1], LABELS)
    assert all(change.difference.low is None for change in found.changes)
    assert "One seed: no intervals, so no change is claimed." in found.notes


def test_values_are_plain():
    found = json.loads(json.dumps(asdict(per_class_changes(ARM, BASELINE, LABELS))))
    assert found["changes"][0]["name"] == "0" and found["n_seeds"] == 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((ARM[:2], BASELINE, LABELS), "predictions of 2 seeds and the baseline of 3"),
        (([], [], LABELS), "predictions of 0 seeds"),
        ((ARM, [p[:9] for p in BASELINE], LABELS), "got 9 predictions for 30 labels"),
        (([p * 1.0 for p in ARM], BASELINE, LABELS), r"predictions must be integer class ids \[N\].*float64"),
        ((ARM, BASELINE, LABELS * np.nan), "labels must be integer"),
        (([[]], [[]], []), "the labels are empty"),
        ((ARM, BASELINE, LABELS, ["cat"]), "labels go from 0 to 2, and there are 1 class names"),
        ((ARM, BASELINE, LABELS, None, 95), "got 95"),
    ],
)
def test_bad_input_is_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        per_class_changes(*arguments)


@pytest.mark.parametrize("groups", [["ann"] * 29, np.arange(30), np.array(["ann"] * 29 + [None], dtype=object)])
def test_groups_are_one_string_a_sample(groups):
    with pytest.raises(ValueError, match="need one string a sample for 30 samples"):
        per_group_changes(ARM, BASELINE, LABELS, groups)


def test_f1_by_label_is_that_of_scikit_learn_over_the_samples_where_it_is_known():
    rng = np.random.default_rng(0)
    labels = (rng.random((40, 3)) < [0.5, 0.3, 0.0]).astype(np.int8)
    labels[:8, 1] = -100
    arms = [[(rng.random((40, 3)) < 0.5).astype(np.int8) for _ in range(3)] for _ in range(2)]
    found = per_label_changes(*arms, labels, ["happy", "loud", "never"])
    by_name = {change.name: change for change in found.changes}
    assert set(by_name) == {"happy", "loud"} and "1 of 3 labels have no test sample" in found.notes[0]
    for c, (name, known) in enumerate((("happy", slice(0, 40)), ("loud", slice(8, 40)))):
        f1 = [[f1_score(labels[known, c], of_seed[known, c]) for of_seed in arm] for arm in arms]
        change = by_name[name]
        assert change.samples == (labels[:, c] == 1).sum()
        assert [change.accuracy, change.baseline_accuracy] == pytest.approx(np.mean(f1, axis=1))
        assert change.difference.mean == pytest.approx(np.mean(np.subtract(*f1)))
    with pytest.raises(ValueError, match="none of the 40 test samples has any of the 3 labels"):
        per_label_changes(*arms, np.zeros((40, 3), np.int8), ["happy", "loud", "never"])
