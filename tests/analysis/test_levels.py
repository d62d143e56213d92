"""A budget of labels: arms compared level by level, all corrected together, and what may be said of it."""

import gc

import numpy as np
import pytest

from hf_colearn.analysis.report.subtitle import subtitle
from hf_colearn.analysis.run import Run, Samples
from hf_colearn.analysis.runs import arm_at, by_level, compare_all, read_runs
from hf_colearn.analysis.statistics.compare import Arm, Comparison, compare, compare_levels
from hf_colearn.analysis.statistics.estimates import paired_estimates
from hf_colearn.analysis.statistics.levels import LevelComparisons, level_words
from hf_colearn.experiments.arms import ArmPlan, check_comparable


@pytest.fixture(autouse=True)
def no_garbage_collection(monkeypatch):
    """statsmodels collects all garbage at every call, which takes longer than the statistics."""
    monkeypatch.setattr(gc, "collect", lambda: 0)


NOISE = np.array([-0.01, 0.0, 0.01])  # of the seeds, the same in all arms, but for the wiggle of the co-learned ones
WIGGLE = np.array([0.002, -0.004, 0.002])


def arms(base, transfer, null, other_null=0.1):
    return [
        Arm("labels alone", "baseline", list(base + NOISE)),
        Arm("latent transfer", "colearned", list(transfer + NOISE + WIGGLE)),
        Arm("FixMatch", "null", list(null + NOISE)),
        Arm("permuted pairs", "null", list(other_null + NOISE)),
    ]


# At 1 label no more than the null control, at 5 helped, at 10 harm. At 5, the other null control is the best.
LEVELS = {1.0: arms(0.3, 0.4, 0.405), 5.0: arms(0.4, 0.6, 0.45, 0.5), 10.0: arms(0.7, 0.58, 0.5)}


@pytest.fixture(scope="module")
def found():
    return LevelComparisons("labels a class", compare_levels(LEVELS))


def test_an_arm_is_held_against_the_baseline_and_the_best_null_control_of_its_own_level(found):
    assert [comparison.strongest_null for comparison in found.levels.values()] == [
        "FixMatch",
        "permuted pairs",
        "FixMatch",
    ]
    gains = [comparison.arms[1].to_baseline.mean for comparison in found.levels.values()]
    assert gains == pytest.approx([0.1, 0.2, -0.12])
    assert [comparison.arms[1].to_null.mean for comparison in found.levels.values()] == pytest.approx(
        [-0.005, 0.1, 0.08]
    )


def test_the_arms_of_all_levels_are_corrected_together(found):
    # Holm over the three differences, that is what estimates.py makes of them; one level alone would be held against 0.05.
    together = paired_estimates([gain + WIGGLE for gain in (0.1, 0.2, -0.12)])
    for comparison, expected in zip(found.levels.values(), together, strict=True):
        gain = comparison.arms[1].to_baseline
        assert (gain.low, gain.high, gain.p_value) == pytest.approx((expected.low, expected.high, expected.p_value))
        assert comparison.num_judged == 3
    alone = compare(LEVELS[5.0]).arms[1].to_baseline
    assert alone.low > found.levels[5.0].arms[1].to_baseline.low
    assert "3 co-learned arms of all levels are corrected" in " ".join(found.levels[5.0].notes())


def test_what_is_said_of_the_budget(found):
    assert found.headline == (
        "The teacher's content helped at 5 labels a class, and not at 1 and 10; co-learning did harm at 10 labels a class."
    )
    first, second, third = found.verdict.split("\n")
    assert first.startswith(
        "1 label a class: a gain over the baseline, but no reliable one over the best null control: 'lat"
    )
    assert second.startswith(
        "5 labels a class: a gain over the baseline and over the best null control: 'latent transfer' (+10.00"
    )
    assert second.endswith("pp over 'permuted pairs').")
    assert third == "10 labels a class: harm: 'latent transfer'."
    nowhere = LevelComparisons("labels a class", {level: found.levels[level] for level in (1.0, 10.0)})
    assert nowhere.headline.startswith(
        "At none of 1 and 10 labels a class did the teacher's content help beyond a null"
    )


def test_tables_of_the_budget_have_a_column_a_level_and_a_row_a_gain(found):
    header, *rows = found.rows()
    assert header == ["arm", "kind", "1 label a class", "5 labels a class", "10 labels a class"]
    # 0.29, 0.30, 0.31: half width 4.3027 * 0.01 / sqrt(3) = 0.0248
    assert rows[0][:3] == ["labels alone", "baseline", "30.00 [27.52, 32.48]"]
    assert [row[:2] + row[-2:] for row in found.gain_rows()[1:]] == [
        ["latent transfer", "1", "FixMatch", "no more than a null control"],
        ["latent transfer", "5", "permuted pairs", "helped"],
        ["latent transfer", "10", "FixMatch", "harm"],
    ]


def test_one_seed_of_a_budget_makes_no_claim():
    one = {level: [Arm(a.name, a.kind, a.scores[:1]) for a in of_level] for level, of_level in LEVELS.items()}
    found = LevelComparisons("labels a class", compare_levels(one))
    assert found.headline == "One seed, so no claim." and "one seed has no interval" in found.verdict


def test_levels_of_other_seeds_are_refused():
    fewer = [Arm(arm.name, arm.kind, arm.scores[:2]) for arm in LEVELS[5.0]]
    with pytest.raises(ValueError, match=r"every level needs .* got \{1.0: 3, 5.0: 2\} scores"):
        compare_levels({1.0: LEVELS[1.0], 5.0: fewer})


def test_coefficients_may_be_negative_and_no_score_is_above_one():
    compare([Arm("baseline", "baseline", [-0.4, 0.1]), Arm("text", "colearned", [0.3, 0.2])], metric="r2")
    with pytest.raises(ValueError, match="score 0 of arm 'text' is -inf"):
        compare([Arm("baseline", "baseline", [0.1]), Arm("text", "colearned", [-np.inf])])


# ---- of runs ----
def make_run(arm, kind, score, seed=0, level=None, **facts):
    labels = np.array([0, 1])
    if level is not None:
        facts["sweep"] = {"variable": "labels a class", "level": level}
        arm = arm_at(arm, "labels a class", level)
    metrics = {"accuracy": score + 0.01 * seed}
    test = Samples(labels, np.zeros((2, 3), np.float32))
    return Run(arm, kind, seed, metrics, [], 1.0, labels, labels, np.ones(2), test, facts=facts)


def budget(levels=(10, 1, 2)):
    runs = [
        make_run(arm, kind, score + 0.01 * level, seed, level)
        for seed in (0, 1)
        for level in levels
        for arm, kind, score in (("labels alone", "baseline", 0.3), ("latent transfer", "colearned", 0.5))
    ]
    return [*runs, *(make_run("label oracle", "reference", 0.9, seed) for seed in (0, 1))]


def test_runs_are_grouped_by_level_under_the_names_of_their_arms():
    variable, levels = by_level(budget())
    assert variable == "labels a class" and list(levels) == [1, 2, 10]
    assert level_words(1, variable) == "1 label a class"
    for level, runs in levels.items():
        assert [run.arm for run in runs] == ["labels alone", "latent transfer"] * 2 + ["label oracle"] * 2
        assert runs[0].metrics["accuracy"] == pytest.approx(0.3 + 0.01 * level)
    assert isinstance(compare_all(budget()), LevelComparisons)


def test_a_sweep_beside_one_baseline_is_compared_as_ever():
    runs = [run for run in budget() if run.kind != "baseline"] + [
        make_run("baseline", "baseline", 0.2, s) for s in (0, 1)
    ]
    assert by_level(runs) == ("", {})
    assert isinstance(compare_all(runs), Comparison)
    assert isinstance(compare_all([run for run in budget(levels=(5,))]), Comparison)


def test_levels_of_two_sweeps_are_not_mixed():
    other = make_run("half of the pairs", "colearned", 0.4)
    other.facts["sweep"] = {"variable": "share of samples with a pair", "level": 0.5}
    with pytest.raises(ValueError, match="arm 'half of the pairs' is of another sweep"):
        by_level([*budget(), other])


def test_folders_of_one_level_each_are_one_budget(tmp_path):
    for level in (2, 5):
        for arm, kind in (("labels alone", "baseline"), ("latent transfer", "colearned")):
            run = make_run(arm, kind, 0.5, facts=None, level=level)
            run.arm = arm  # without its level, as a recipe of one level has it
            run.save(tmp_path / str(level) / arm)
    runs, _ = read_runs([tmp_path / "2", tmp_path / "5"])
    assert [run.kind for run in runs].count("baseline") == 2
    assert {level: [run.arm for run in of] for level, of in by_level(runs)[1].items()} == {
        level: ["labels alone", "latent transfer"] for level in (2, 5)
    }


def test_plans_of_several_levels_are_checked_level_by_level():
    plans = [ArmPlan("baseline", "baseline"), ArmPlan("text", "colearned")]
    swept = [plan.at("labels a class", level) for level in (1, 5) for plan in plans]
    assert [plan.name for plan in swept][2:] == ["baseline, 5 labels a class", "text, 5 labels a class"]
    assert swept[0].sweep == ("labels a class", 1)
    check_comparable([*swept, ArmPlan("label oracle", "reference")], 3)
    with pytest.raises(ValueError, match="exactly one arm of kind 'baseline' and at least one 'colearned'"):
        check_comparable([*swept[:3]], 3)
    with pytest.raises(ValueError, match="2 arms are named 'baseline'"):
        check_comparable([*plans, *plans], 3)


# ---- the subtitle ----
@pytest.mark.parametrize(
    ("facts", "words"),
    [
        ({"num_train": 1200, "num_labelled": 24, "num_paired": 1200}, "24 of 1,200 labelled, 1,200 paired"),
        ({"num_train": 1200, "num_labelled": 1200, "num_paired": 300}, "1,200 of 1,200 labelled, 300 paired"),
        ({"num_train": 1200, "num_labelled": 24, "num_paired": None}, "24 of 1,200 labelled"),
        (
            {"num_train": 9, "num_labelled": 9, "num_paired": {"text": 9, "audio": 4}},
            "9 of 9 labelled, 9 paired with text, 4 paired with audio",
        ),
        ({"num_train": 1200, "num_labelled": 1200, "num_paired": 1200}, None),
        ({"num_train": 1200}, None),
    ],
)
def test_the_subtitle_says_how_many_are_labelled_and_paired_where_some_are_not(facts, words):
    runs = [
        make_run("labels alone", "baseline", 0.3, **facts | {"num_paired": None}),
        make_run("text", "colearned", 0.4, **facts),
    ]
    line = subtitle(runs, "digits")
    assert line.startswith(f"digits; {facts['num_train']:,} training samples; ")
    assert (f"; {words}; " in line) if words else "labelled" not in line
    assert line.endswith("2 test samples; 2 arms, seed 0")


def test_many_seeds_in_a_row_are_told_by_the_first_and_the_last():
    runs = [make_run("text", "colearned", 0.4, seed=seed, num_train=4) for seed in range(100, 120)]
    assert subtitle(runs).endswith("seeds 100 to 119")
    assert subtitle(runs[:3]).endswith("seeds 100, 101, 102")


def test_arms_that_see_a_part_of_the_training_set_do_not_hide_it():
    runs = budget(levels=(1, 5))
    for run in runs:
        k = int(run.sweep[1]) if run.sweep else 99
        whole = {"num_train": 1200, "num_labelled": 12 * k, "num_paired": 1200}
        run.facts |= whole if run.kind == "colearned" else {"num_train": 12 * k, "num_labelled": 12 * k}
    soft = [
        make_run("teacher's soft labels", "colearned", 0.5, s, 5, num_train=1200, num_labelled=1200) for s in (0, 1)
    ]
    two_stage = [make_run("two-stage", "colearned", 0.5, s, 5, num_train=60, num_labelled=60) for s in (0, 1)]
    line = subtitle([*runs, *soft, *two_stage])
    assert line.startswith("1,200 training samples; 12 to 60 of 1,200 labelled, 1,200 paired; 2 test samples; ")
    assert line.endswith("; 5 arms at 1 and 5 labels a class, seeds 0, 1")


def test_test_samples_without_a_label_are_counted():
    runs = [make_run("a", "baseline", 0.3, num_unlabelled={"test": 7}), make_run("b", "colearned", 0.4)]
    assert "2 test samples (7 more without a label)" in subtitle(runs)


def test_levels_of_which_so_few_seeds_settle_nothing_are_undecided():
    wide = [
        Arm("base", "baseline", [0.2, 0.5]),
        Arm("text", "colearned", [0.9, 0.4]),
        Arm("noise", "null", [0.3, 0.4]),
    ]
    clear = [
        Arm("base", "baseline", [0.2, 0.2]),
        Arm("text", "colearned", [0.201, 0.199]),
        Arm("noise", "null", [0.1, 0.2]),
    ]
    # +70 and -10 pp: 30 +- 12.7 * 56.6 / sqrt(2) is beyond 100 pp
    found = LevelComparisons("labels", compare_levels({1.0: wide, 5.0: clear}))
    assert found.headline == (
        "Not at 5 labels did the teacher's content help beyond a null control; undecided at 1 label, where 2 seeds settle "
        "nothing."
    )
    assert found.verdict.startswith("1 label: undecided, since 2 seeds settle nothing: 'text'.")
    assert "(by seed +70.00, -10.00)" in found.gain_rows()[1][2] and "beyond what is possible" in " ".join(
        found.notes()
    )
    assert LevelComparisons("labels", compare_levels({1.0: wide, 2.0: wide})).headline.startswith(
        "Undecided at 1 and 2 labels,"
    )
    assert len(repr(found)) < 300 and "\n" not in repr(found)
