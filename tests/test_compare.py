import hf_colearn  # noqa: F401, I001  # first: its guard makes `import evaluate` work beside a CPU torch

import json

import numpy as np
import pytest
from scipy import stats

from hf_colearn.analysis.compare import Arm, compare, sign_flip_p_value


BASELINE = [0.80, 0.82, 0.78]


def arms(colearned, null, baseline=BASELINE):
    return [Arm("base", "baseline", baseline), Arm("text", "colearned", colearned), Arm("noise", "null", null)]


# ---- the numbers ----


def test_mean_and_interval_by_hand():
    # scores 0.80, 0.82, 0.78: mean 0.80, sd 0.02, t(0.975, df 2) = 4.303, half width 4.303 * 0.02 / sqrt(3) = 0.04968
    mean = compare(arms(BASELINE, BASELINE)).arms[0].mean
    assert (mean.mean, mean.low, mean.high) == pytest.approx((0.80, 0.75032, 0.84968), abs=1e-5)


def test_differences_are_paired_by_seed():
    # text - base = 0.05, 0.06, 0.04: mean 0.05, sd 0.01 (unpaired it would be 0.02 and more)
    result = compare(arms([0.85, 0.88, 0.82], BASELINE)).arms[1].to_baseline
    half = stats.t.ppf(0.975, 2) * 0.01 / np.sqrt(3)
    assert (result.mean, result.low, result.high) == pytest.approx((0.05, 0.05 - half, 0.05 + half))


def test_intervals_equal_scipy_at_another_confidence():
    scores = [0.81, 0.86, 0.83, 0.90]
    mean = compare(arms(scores, scores, baseline=scores), confidence=0.8).arms[0].mean
    interval = stats.ttest_1samp(scores, 0).confidence_interval(0.8)
    assert (mean.low, mean.high) == pytest.approx(tuple(interval))


@pytest.mark.parametrize("n", [2, 5, 9])
def test_sign_flip_p_value_equals_scipy(n):
    differences = np.round(np.random.default_rng(n).normal(0.5, 1, size=n), 2)
    expected = stats.permutation_test((differences,), np.mean, permutation_type="samples", n_resamples=2**n)
    assert sign_flip_p_value(differences) == pytest.approx(expected.pvalue)


def test_sign_flip_p_value_by_hand():
    # |+-1 +-2 +-3| >= 4 for +++ (6), -++ (4) and their mirror images: 4 of 8
    assert sign_flip_p_value(np.array([-1.0, 2.0, 3.0])) == 0.5
    assert sign_flip_p_value(np.array([1.0, 2.0, 3.0])) == 2 / 2**3


def test_sign_flip_p_value_of_many_seeds_is_drawn_close_to_the_exact_one():
    # 18 equal differences: p is the probability of at least 14 equal signs, a binomial tail
    differences = np.array([1.0] * 14 + [-1.0] * 4)
    assert sign_flip_p_value(differences) == pytest.approx(stats.binomtest(14, 18).pvalue, abs=0.003)


def test_the_strongest_null_is_the_one_with_the_highest_mean():
    many = [*arms([0.85, 0.86, 0.84], [0.80, 0.81, 0.79]), Arm("vectors", "null", [0.84, 0.85, 0.83])]
    comparison = compare(many)
    assert comparison.strongest_null == "vectors"
    assert comparison.arms[1].to_null.mean == pytest.approx(0.01)
    assert "picking it afterwards favours the control" in comparison.table()


# ---- the verdict ----


def test_content_helped_when_both_intervals_exclude_zero():
    verdict = compare(arms([0.85, 0.88, 0.82], [0.81, 0.83, 0.79])).verdict
    assert verdict.startswith(
        "text: the teacher's content helped: +5.00 [+2.52, +7.48] pp over the baseline and +4.00"
    )


def test_no_more_than_a_null_control_when_only_the_baseline_is_beaten():
    # over the null: 0.01, -0.01, 0.03, so +1 pp on average and an interval of 4.97 pp to both sides
    verdict = compare(arms([0.85, 0.88, 0.82], [0.84, 0.89, 0.79])).verdict
    assert "but +1.00 [-3.97, +5.97] pp over the strongest null control 'noise'" in verdict
    assert "it helped no more than a null control does" in verdict
    assert verdict.endswith("the teacher's gain is not larger than a null control's.")


def test_a_gain_below_that_of_a_null_control_is_not_called_help():
    assert "helped no more than a null" in compare(arms([0.85, 0.87, 0.83], [0.90, 0.92, 0.88])).verdict


def test_no_reliable_difference_tells_how_many_seeds_would_settle_it():
    # differences 0.01, 0.03, -0.01: mean 0.01, sd 0.02. Reference: power of the t-test by the noncentral t.
    verdict = compare(arms([0.81, 0.85, 0.77], [0.80, 0.81, 0.79])).verdict

    def power(n):
        return stats.nct.sf(stats.t.ppf(0.975, n - 1), n - 1, 0.01 / 0.02 * np.sqrt(n))

    expected = next(n for n in range(4, 100) if power(n) >= 0.8)  # 34
    assert "no reliable difference at 3 seeds: +1.00 [-3.97, +5.97] pp over the baseline" in verdict
    told = int(verdict.split("about ")[1].split()[0])
    assert abs(told - expected) <= 1


@pytest.mark.parametrize(
    ("colearned", "baseline"),
    [
        (BASELINE, BASELINE),
        ([0.1 + 0.2] * 3, [0.3] * 3),  # 0.30000000000000004
        ([0.3, 0.3, 0.3], [0.2, 0.1, 0.6]),  # 0.1 + 0.2 - 0.3 = 5.6e-17
    ],
)
def test_a_difference_of_zero_is_settled_by_no_number_of_seeds(colearned, baseline):
    verdict = compare(arms(colearned, BASELINE, baseline=baseline)).verdict
    assert "no number of seeds settles a difference of 0" in verdict


def test_a_tiny_noisy_difference_needs_more_than_a_thousand_seeds():
    assert "more than 1000 seeds" in compare(arms([0.9001, 0.72, 0.78], BASELINE)).verdict


def test_harm_is_said_plainly():
    verdict = compare(arms([0.75, 0.78, 0.72], BASELINE)).verdict
    assert verdict == "text: co-learning did harm: -5.00 [-7.48, -2.52] pp over the baseline (3 seeds)."


def test_without_a_null_control_a_gain_is_not_credited_to_the_teacher():
    comparison = compare(arms([0.85, 0.88, 0.82], BASELINE)[:2])
    assert "no null control was trained" in comparison.verdict
    assert "helped" not in comparison.verdict


def test_one_seed_is_compared_without_intervals_and_without_a_claim():
    comparison = compare(arms([0.9], [0.7], baseline=[0.8]))
    assert comparison.verdict == (
        "text: one seed has no interval, so no claim: +10.00 pp over the baseline, "
        "+20.00 pp over the strongest null control 'noise'; train more seeds."
    )
    assert comparison.arms[1].to_baseline.low is None
    assert "[" not in comparison.table().split("\n")[3]  # the row of the co-learned arm


def test_every_colearned_arm_gets_a_sentence():
    comparison = compare([*arms([0.85, 0.88, 0.82], BASELINE), Arm("audio", "colearned", [0.75, 0.78, 0.72])])
    first, second = comparison.verdict.split("\n")
    assert first.startswith("text: the teacher's content helped")
    assert second.startswith("audio: co-learning did harm")
    assert "not corrected for their number" in comparison.table()


# ---- the reports ----


def test_table_columns_are_aligned():
    header, rule, *rows = compare(arms([0.85, 0.88, 0.82], [0.81, 0.83, 0.79])).table().split("\n\n")[0].split("\n")
    starts = [i for i in range(len(rule)) if rule[i] == "-" and (i == 0 or rule[i - 1] == " ")]
    assert len(starts) == 6 and len(rows) == 3
    for line in (header, *rows):
        for start in starts:
            assert line[start] != " " and (start == 0 or line[start - 2 : start] == "  ")
    cells = [rows[1][start:end].strip() for start, end in zip(starts, [*starts[1:], None], strict=True)]
    # text: sd 0.03, so half width 4.303 * 0.03 / sqrt(3) = 0.0745; both differences: sd 0.01, half width 0.0248
    assert cells == [
        *("text", "colearned", "85.00", "[77.55, 92.45]"),
        *("+5.00 [+2.52, +7.48]", "+4.00 [+1.52, +6.48]"),
    ]


def test_markdown_escapes_pipes_in_names():
    markdown = compare([*arms(BASELINE, BASELINE), Arm("a|b", "null", [0.1, 0.1, 0.1])]).to_markdown()
    row = next(line for line in markdown.split("\n") if "b |" in line)
    assert row.replace("\\|", "").count("|") == 7


def test_no_negative_zero_is_printed():
    table = compare(arms([0.80, 0.82, 0.77999], BASELINE)).table()
    assert "-0.00 " not in table


def test_report_dict_is_json_and_complete():
    report = json.loads(json.dumps(compare(arms(np.array([0.85, 0.88, 0.82]), BASELINE)).to_dict()))
    assert report["n_seeds"] == 3 and report["baseline"] == "base" and report["strongest_null"] == "noise"
    assert report["arms"][1]["scores"] == [0.85, 0.88, 0.82]
    assert report["arms"][1]["to_baseline"]["p_value"] == 0.25  # 2 / 2**3: all three differences have the same sign
    assert report["arms"][0]["to_baseline"] is None
    assert "text: " in report["verdict"]


# ---- bad input ----


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (arms([0.8, 0.9], BASELINE), r"same seeds, got \{'base': 3, 'text': 2, 'noise': 3\}"),
        (arms([], [], baseline=[]), "one score for each of the same seeds"),
        (arms([0.8, np.nan, 0.9], BASELINE), "score 1 of arm 'text' is nan"),
        (arms([0.8, 81.0, 0.9], BASELINE), "score 1 of arm 'text' is 81.0.*divide percent by 100"),
        (arms(BASELINE, BASELINE)[1:], "exactly one arm of kind 'baseline'"),
        (arms(BASELINE, BASELINE)[::2], "at least one 'colearned'"),
        ([*arms(BASELINE, BASELINE), Arm("b2", "baseline", BASELINE)], "exactly one arm of kind 'baseline'"),
        ([*arms(BASELINE, BASELINE), Arm("text", "null", BASELINE)], "2 arms are named 'text'"),
        ([*arms(BASELINE, BASELINE), Arm("x", "control", BASELINE)], "arm 'x' is of kind 'control'"),
        ([], "exactly one arm of kind 'baseline'"),
    ],
)
def test_bad_arms_are_named(bad, message):
    with pytest.raises(ValueError, match=message):
        compare(bad)


def test_confidence_must_be_a_fraction():
    with pytest.raises(ValueError, match="got 95"):
        compare(arms(BASELINE, BASELINE), confidence=95)


def test_a_reference_is_shown_and_neither_judged_nor_a_control():
    one = Arm("image alone", "reference", [0.99, 0.99, 0.99])
    comparison = compare([*arms([0.85, 0.88, 0.82], BASELINE), one])
    assert comparison.strongest_null == "noise"
    assert "image alone" in comparison.table() and "image alone" not in comparison.verdict
    assert compare([Arm("base", "baseline", BASELINE), one]).verdict == ""


def test_without_a_teacher_the_pairing_gets_the_credit():
    verdicts = [
        compare(arms(colearned, null), source="pairing").verdict
        for colearned, null in (([0.85, 0.88, 0.82], BASELINE), ([0.85, 0.88, 0.82], [0.85, 0.87, 0.83]))
    ]
    assert "the pairing's content helped" in verdicts[0] and "teacher" not in "".join(verdicts)
    assert "the pairing's gain is not larger than a null control's" in verdicts[1]
