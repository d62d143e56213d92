import hf_colearn  # noqa: F401, I001  # first: its guard makes `import evaluate` work beside a CPU torch

import gc
import itertools
import json

import numpy as np
import pytest
from scipy import stats

from hf_colearn.analysis.statistics.compare import Arm, compare
from hf_colearn.analysis.statistics.estimates import paired_estimates, seeds_to_settle, sign_flip_p_value


@pytest.fixture(autouse=True)
def no_garbage_collection(monkeypatch):
    """statsmodels collects all garbage at every call, which takes longer than the statistics."""
    monkeypatch.setattr(gc, "collect", lambda: 0)


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
def test_sign_flip_p_value_counts_the_sign_patterns_that_are_as_far_out(n):
    differences = np.round(np.random.default_rng(n).normal(0.5, 1, size=n), 2)
    sums = np.array([np.dot(signs, differences) for signs in itertools.product([-1, 1], repeat=n)])
    assert sign_flip_p_value(differences) == pytest.approx(np.mean(abs(sums) >= abs(differences.sum()) - 1e-9))


def test_sign_flip_p_value_by_hand():
    # |+-1 +-2 +-3| >= 4 for +++ (6), -++ (4) and their mirror images: 4 of 8
    assert sign_flip_p_value(np.array([-1.0, 2.0, 3.0])) == 0.5
    assert sign_flip_p_value(np.array([1.0, 2.0, 3.0])) == 2 / 2**3


def test_sign_flip_p_value_of_many_seeds_is_drawn_close_to_the_exact_one():
    # 18 equal differences: p is the probability of at least 14 equal signs, a binomial tail
    differences = np.array([1.0] * 14 + [-1.0] * 4)
    assert sign_flip_p_value(differences) == pytest.approx(stats.binomtest(14, 18).pvalue, abs=0.003)
    assert sign_flip_p_value(differences) == sign_flip_p_value(differences)


def test_the_strongest_null_is_the_one_with_the_highest_mean():
    many = [*arms([0.85, 0.86, 0.84], [0.80, 0.81, 0.79]), Arm("vectors", "null", [0.84, 0.86, 0.82])]
    comparison = compare(many)
    assert comparison.strongest_null == "vectors"
    assert comparison.arms[1].to_null.mean == pytest.approx(0.01)
    assert "picking it afterwards favours the control" in comparison.table()


# ---- several co-learned arms ----

# Two differences of 3 seeds: mean 0.05 and sd 0.01, so t^2 = 75, or sd 0.02, so t^2 = 18.75. With 2 degrees of freedom
# p = 1 - t / sqrt(t^2 + 2): 0.01307 and 0.04941.
P_SURE, P_LIKELY = 1 - (75 / 77) ** 0.5, 1 - (18.75 / 20.75) ** 0.5
SURE, LIKELY = np.array([0.05, 0.06, 0.04]), np.array([0.05, 0.07, 0.03])


def half_width(level, sd, n=3):
    return stats.t.ppf(0.5 + level / 2, n - 1) * sd / np.sqrt(n)


def test_holm_by_hand():
    # 0.01307 is below 0.05 / 2, then 0.04941 below 0.05: both are found, at 97.5% and at 95%.
    second, first = paired_estimates([LIKELY, SURE])
    assert (first.confidence, second.confidence) == pytest.approx((0.975, 0.95))
    assert (first.p_value, second.p_value) == pytest.approx((2 * P_SURE, P_LIKELY))
    assert (first.low, first.high) == pytest.approx((0.05 - half_width(0.975, 0.01), 0.05 + half_width(0.975, 0.01)))
    assert second.low == pytest.approx(0.05 - half_width(0.95, 0.02)) and second.low > 0


def test_holm_stops_at_the_first_that_it_does_not_find():
    # Two of p = 0.0494: neither is below 0.025, so both stay at that level, though each alone would be found.
    once, again = paired_estimates([LIKELY, -LIKELY])
    assert once.confidence == again.confidence == pytest.approx(0.975)
    assert once.p_value == again.p_value == pytest.approx(2 * P_LIKELY)
    assert once.low < 0 < once.high and paired_estimates([LIKELY])[0].low > 0


def test_intervals_exclude_zero_exactly_where_the_adjusted_p_value_is_small():
    rng = np.random.default_rng(0)
    found = 0
    for _ in range(200):
        differences = list(rng.normal(rng.uniform(0, 2, size=(4, 1)), 1, size=(4, 5)))
        estimates = paired_estimates(differences)
        raw = [stats.ttest_1samp(values, 0).pvalue for values in differences]
        # Holm's adjusted p: max over the smaller ones (and itself) of p times the number of those that are not smaller.
        holm = [max(sum(q >= r for q in raw) * r for r in raw if r <= p) for p in raw]
        assert [e.p_value for e in estimates] == pytest.approx([min(1, p) for p in holm])
        assert [e.low > 0 or e.high < 0 for e in estimates] == [p <= 0.05 for p in holm]
        found += sum(p <= 0.05 for p in holm)
    assert 100 < found < 700


def test_arms_are_corrected_once_against_the_baseline_and_once_against_the_null():
    # Against the null control the second arm's scores are 0.01, 0.01 and -0.05 away: no difference.
    third = Arm("third", "colearned", list(np.add(BASELINE, LIKELY)))
    comparison = compare([*arms(list(np.add(BASELINE, SURE)), [0.84, 0.88, 0.86]), third])
    by_name = {arm.name: arm for arm in comparison.arms}
    assert by_name["text"].to_baseline.confidence == pytest.approx(0.975)
    assert by_name["third"].to_baseline.confidence == pytest.approx(0.95)
    assert by_name["text"].to_null.confidence == by_name["third"].to_null.confidence == pytest.approx(0.975)
    assert by_name["noise"].to_baseline.confidence == pytest.approx(0.95), "a control is not judged"
    assert "The 2 co-learned arms are corrected for their number (Holm)" in comparison.table()
    assert "have up to 97.5%" in comparison.table()


def test_one_arm_is_not_corrected():
    comparison = compare(arms(list(np.add(BASELINE, LIKELY)), BASELINE))
    assert comparison.arms[1].to_baseline.p_value == pytest.approx(P_LIKELY)
    assert "corrected" not in comparison.table()


# ---- how often it errs, and how often it finds ----


def experiment(rng, n_seeds, gains, nulls=2, noise=0.02):
    """An experiment of a baseline, co-learned arms with these true gains, and null controls without any."""
    seed_effect = rng.normal(0, 0.05, size=n_seeds)  # common to all arms of a seed

    def scores(gain):
        return list(0.5 + gain + seed_effect + rng.normal(0, noise, size=n_seeds))

    return compare(
        [
            Arm("base", "baseline", scores(0)),
            *(Arm(f"text {i}", "colearned", scores(gain)) for i, gain in enumerate(gains)),
            *(Arm(f"noise {i}", "null", scores(0)) for i in range(nulls)),
        ]
    )


def judged(comparison):
    return [arm for arm in comparison.arms if arm.kind == "colearned"]


@pytest.mark.parametrize("n_arms", [1, 3])
@pytest.mark.parametrize("n_seeds", [3, 5])
def test_of_200_experiments_without_any_effect_one_in_twenty_finds_a_difference(n_arms, n_seeds):
    rng = np.random.default_rng([n_seeds, n_arms])
    experiments = [judged(experiment(rng, n_seeds, [0] * n_arms)) for _ in range(200)]
    differs = [any(a.to_baseline.low > 0 or a.to_baseline.high < 0 for a in found) for found in experiments]
    helped = [any(a.finding == "helped" for a in found) for found in experiments]
    assert 0.02 <= np.mean(differs) <= 0.08
    assert np.mean(helped) <= 0.025 + 0.02  # half of them lie above 0, and the controls stand in the way of those


def test_the_error_over_three_arms_is_a_twentieth_to_within_a_hundredth():
    # Each arm's difference shares the baseline's scores; 0.01 is 2.5 standard errors of 3000 experiments.
    rng = np.random.default_rng(1)
    scores = rng.normal(size=(3000, 4, 5))
    found = [paired_estimates(list(of_arms[1:] - of_arms[0])) for of_arms in scores]
    assert np.mean([any(e.low > 0 or e.high < 0 for e in arms) for arms in found]) == pytest.approx(0.05, abs=0.01)


def test_without_the_correction_three_arms_would_find_a_difference_far_more_often():
    rng = np.random.default_rng([3, 5])
    experiments = [experiment(rng, 5, [0] * 3) for _ in range(200)]
    uncorrected = [
        any(stats.ttest_rel(arm.scores, found.arms[0].scores).pvalue < 0.05 for arm in judged(found))
        for found in experiments
    ]
    assert np.mean(uncorrected) > 0.08


@pytest.mark.parametrize(("n_seeds", "effect"), [(3, 4.0), (5, 1.5), (5, 2.5)])
def test_a_planted_gain_is_found_as_often_as_the_noncentral_t_says(n_seeds, effect):
    # A difference of two arms has sqrt(2) times the noise, so the gain is `effect` standard deviations of it.
    rng = np.random.default_rng([n_seeds, int(10 * effect)])
    noise = 0.01
    experiments = [
        judged(experiment(rng, n_seeds, [effect * noise * 2**0.5], nulls=1, noise=noise))[0] for _ in range(200)
    ]
    power = stats.nct.sf(stats.t.ppf(0.975, n_seeds - 1), n_seeds - 1, effect * n_seeds**0.5)
    assert 0.4 < power < 0.999
    found = np.mean([arm.to_baseline.low > 0 for arm in experiments])
    assert found == pytest.approx(power, abs=3 * (power * (1 - power) / 200) ** 0.5)
    helped = np.mean([arm.finding == "helped" for arm in experiments])
    assert power**2 - 0.05 < helped < found + 1e-9  # the control has to be beaten, too


def test_holm_finds_more_than_one_level_for_all_would():
    # Four arms that all help: at 5% / 4 for each of them an arm is found with the power of the noncentral t.
    rng = np.random.default_rng(4)
    found = [a.to_baseline.low > 0 for _ in range(200) for a in judged(experiment(rng, 5, [0.06] * 4))]
    effect = 0.06 / (0.02 * 2**0.5)
    bonferroni = stats.nct.sf(stats.t.ppf(1 - 0.0125 / 2, 4), 4, effect * 5**0.5)
    uncorrected = stats.nct.sf(stats.t.ppf(0.975, 4), 4, effect * 5**0.5)
    assert bonferroni + 0.05 < np.mean(found) < uncorrected


@pytest.mark.parametrize(
    ("effect", "confidence", "expected_below"), [(0.5, 0.95, 40), (1.2, 0.975, 15), (0.1, 0.95, 900)]
)
def test_the_seeds_that_settle_a_difference_agree_with_a_simulation_of_the_t_test(effect, confidence, expected_below):
    # Power by drawing what the t-statistic is made of: a normal mean and a chi-square variance.
    differences = effect + np.array([-1.0, 0.0, 1.0])  # mean `effect`, sd 1
    n = seeds_to_settle(differences, confidence)
    assert 3 < n < expected_below
    rng = np.random.default_rng(0)

    def power(n):
        means = rng.normal(effect, n**-0.5, size=400_000)
        spreads = np.sqrt(rng.chisquare(n - 1, size=400_000) / (n - 1))
        return np.mean(means / spreads * n**0.5 > stats.t.ppf(0.5 + confidence / 2, n - 1))

    assert power(n) > 0.8 - 0.002 and power(n - 1) < 0.8 + 0.002


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
    assert verdict.endswith("the teacher's gain is not shown to be larger than a null control's.")


def test_a_gain_below_that_of_a_null_control_is_not_called_help():
    verdict = compare(arms([0.85, 0.88, 0.82], [0.90, 0.94, 0.87])).verdict
    assert "helped no more than a null" in verdict
    assert verdict.endswith("the teacher's gain is not larger than a null control's.")


def test_no_reliable_difference_tells_how_many_seeds_would_settle_it():
    # differences 0.01, 0.03, -0.01: mean 0.01, sd 0.02. Reference: power of the t-test by the noncentral t.
    verdict = compare(arms([0.81, 0.85, 0.77], [0.80, 0.81, 0.79])).verdict

    def power(n):
        return stats.nct.sf(stats.t.ppf(0.975, n - 1), n - 1, 0.01 / 0.02 * np.sqrt(n))

    expected = next(n for n in range(4, 100) if power(n) >= 0.8)  # 34
    assert "no reliable difference at 3 seeds: +1.00 [-3.97, +5.97] pp over the baseline" in verdict
    assert f"about {expected} seeds would settle" in verdict


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
    # Both differences have p = 0.01307: held against 0.025, and then against 0.05.
    assert first.startswith("text: the teacher's content helped")
    assert second.startswith("audio: co-learning did harm")


# ---- findings and the headline ----


@pytest.mark.parametrize(
    ("colearned", "null", "finding", "headline"),
    [
        (
            [0.85, 0.88, 0.82],
            [0.81, 0.83, 0.79],
            "helped",
            "The teacher's content helped: +5.00 pp over the baseline (95% interval +2.52 to +7.48).",
        ),
        (
            [0.85, 0.88, 0.82],
            [0.84, 0.89, 0.79],
            "no more than a null control",
            "Co-learning helped no more than a null control: +5.00 pp over the baseline (95% interval +2.52 to +7.48), "
            "and +1.00 pp over 'noise' (95% interval -3.97 to +5.97).",
        ),
        (
            [0.82, 0.85, 0.76],
            BASELINE,
            "no reliable difference",
            "No reliable difference at 3 seeds: +1.00 pp over the baseline (95% interval -5.57 to +7.57).",
        ),
        (
            [0.75, 0.78, 0.72],
            BASELINE,
            "harm",
            "Co-learning did harm: -5.00 pp over the baseline (95% interval -7.48 to -2.52).",
        ),
    ],
)
def test_a_single_arm_has_a_finding_and_a_headline(colearned, null, finding, headline):
    # The third: differences 0.02, 0.03, -0.02, mean 0.01, sd 0.02646, half width 4.303 * 0.02646 / sqrt(3) = 0.0657.
    comparison = compare(arms(colearned, null))
    assert comparison.findings == {"text": finding}
    assert [arm.finding for arm in comparison.arms] == [None, finding, None]
    assert comparison.headline == headline


def test_the_headline_of_one_seed_and_of_no_null_control():
    one = compare(arms([0.9], [0.7], baseline=[0.8]))
    assert one.findings == {"text": "one seed"}
    assert one.headline == "One seed, so no claim: +10.00 pp over the baseline."
    alone = compare(arms([0.85, 0.88, 0.82], BASELINE)[:2])
    assert alone.findings == {"text": "no null control"}
    assert alone.headline.startswith("A gain, and no null control that would credit it to the teacher: +5.00 pp")
    assert compare(arms([0.9], [0.7], baseline=[0.8])[:2]).findings == {"text": "one seed"}


def test_the_headline_of_several_arms_tells_which_helped_and_which_did_not():
    more = [
        Arm("audio", "colearned", [0.75, 0.78, 0.72]),
        Arm("video", "colearned", [0.81, 0.83, 0.76]),
        Arm("depth", "colearned", [0.80, 0.85, 0.76]),
    ]
    comparison = compare([*arms([0.85, 0.8702, 0.83], BASELINE), *more])
    assert comparison.headline == (
        "The teacher's content helped ('text'); co-learning did harm ('audio'); no reliable difference at 3 seeds "
        "('video', 'depth')."
    )
    assert len(comparison.verdict.split("\n")) == 4


# ---- no spread, no certainty ----


def test_the_same_gain_at_every_seed_has_no_interval_and_is_no_claim():
    # An interval of width 0 would look like certainty.
    comparison = compare(arms([0.85, 0.87, 0.83], [0.80, 0.81, 0.78]))
    gain = comparison.arms[1].to_baseline
    assert gain.mean == pytest.approx(0.05)
    assert (gain.low, gain.high, gain.p_value) == (None, None, None)
    assert comparison.findings == {"text": "no reliable difference"}
    assert comparison.verdict == (
        "text: no reliable difference at 3 seeds: +5.00 pp over the baseline; it is the same at every seed, so nothing "
        "tells how certain it is."
    )
    assert "No bracket and no claim where a value is the same at every seed" in comparison.table()
    assert "'text' vs 'base'." in comparison.table()
    assert comparison.headline == "No reliable difference at 3 seeds: +5.00 pp over the baseline."


@pytest.mark.parametrize(
    ("null", "finding"),
    [
        ([0.81, 0.84, 0.78], "no reliable difference"),  # 4 pp above it at every seed
        ([0.85, 0.88, 0.82], "no more than a null control"),  # equal to it
        ([0.86, 0.89, 0.83], "no more than a null control"),  # 1 pp below it
    ],
)
def test_a_gain_that_exceeds_the_control_by_the_same_at_every_seed_is_not_credited(null, finding):
    comparison = compare(arms([0.85, 0.88, 0.82], null))
    assert comparison.findings == {"text": finding}
    assert "'text' vs 'noise'" in comparison.table()


def test_scores_that_no_seed_moves_have_no_interval():
    comparison = compare(arms([0.85, 0.88, 0.82], BASELINE, baseline=[0.3, 0.1 + 0.2, 0.3]))
    assert comparison.arms[0].mean.low is None
    assert "['base'" not in comparison.table() and "certain it is: 'base'." in comparison.table()
    assert comparison.arms[1].to_baseline.low > 0, "the arm has a spread, and so has the difference"


def test_an_arm_without_a_spread_still_counts_among_those_that_were_tried():
    same = Arm("same", "colearned", list(np.add(BASELINE, 0.05)))
    first, second = (
        arm.to_baseline for arm in judged(compare([*arms(list(np.add(BASELINE, LIKELY)), BASELINE), same]))
    )
    assert first.low < 0 and first.confidence == pytest.approx(0.975)
    assert second.low is None


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
    row = next(line for line in markdown.split("\n") if "a\\|b" in line)
    assert row.replace("\\|", "").count("|") == 7


def test_no_negative_zero_is_printed():
    table = compare(arms([0.80, 0.82, 0.77999], BASELINE)).table()
    assert "-0.00 " not in table


def test_report_dict_is_json_and_complete():
    report = json.loads(json.dumps(compare(arms(np.array([0.85, 0.88, 0.82]), BASELINE)).to_dict()))
    assert report["n_seeds"] == 3 and report["baseline"] == "base" and report["strongest_null"] == "noise"
    assert report["arms"][1]["scores"] == [0.85, 0.88, 0.82]
    difference = report["arms"][1]["to_baseline"]
    assert difference["sign_flip_p_value"] == 0.25  # 2 / 2**3: all three differences have the same sign
    assert difference["p_value"] == pytest.approx(P_SURE)
    assert report["arms"][1]["finding"] == "helped" and report["arms"][0]["finding"] is None
    assert report["headline"].startswith("The teacher's content helped")
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


# ---- intervals beyond what is possible ----

WIDE = [0.9, 0.4, 0.4]  # minus [0.2, 0.5, 0.3]: +70, -10 and +10 pp, a mean of 23.33 and a standard deviation of 41.63


def test_seeds_whose_interval_is_impossible_settle_nothing_and_are_told_one_by_one():
    # t(0.975, df 2) = 4.303: +23.33 +- 4.303 * 41.63 / sqrt(3) is -80.09 to +126.76 pp, and 100 is the most there is.
    found = compare(arms(WIDE, [0.2, 0.5, 0.3], [0.2, 0.5, 0.3]))
    gain = found.arms[1].to_baseline
    assert (gain.low, gain.high, gain.p_value) == (None, None, None) and gain.by_seed == pytest.approx(
        (0.7, -0.1, 0.1)
    )
    assert found.findings == {"text": "undecided"} and not gain.is_gain
    assert found.headline == (
        "Undecided, 3 seeds settle nothing: +23.33 pp over the baseline (by seed +70.00, -10.00, +10.00), and +23.33 pp over "
        "'noise' (by seed +70.00, -10.00, +10.00)."
    )
    assert found.verdict.startswith(
        "text: undecided, 3 seeds settle nothing: +23.33 (by seed +70.00, -10.00, +10.00) pp"
    )
    assert found.verdict.endswith("seeds would settle a difference of this size.")
    for told in (found.table(), found.to_markdown()):
        assert "+23.33 (by seed +70.00, -10.00, +10.00)" in told and "126.76" not in told
        assert (
            "beyond what is possible" in told and "the same at every seed" in told
        )  # that of 'noise' to the baseline
    stored = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert stored["arms"][1]["to_baseline"]["by_seed"] == pytest.approx([0.7, -0.1, 0.1])


def test_a_gain_is_undecided_where_only_the_null_control_is():
    # Over the baseline +30, +32 and +28 pp: +- 4.97. Over the null +70, 0 and +30: 33.33 +- 87.2, which is beyond 100.
    found = compare(arms([0.70, 0.62, 0.68], [0.0, 0.62, 0.38], [0.40, 0.30, 0.40]))
    assert found.findings == {"text": "undecided"} and found.arms[1].to_baseline.is_gain
    assert (
        "but 3 seeds do not settle whether a null control gains as much: +33.33 (by seed +70.00, +0.00, +30.00)"
        in (found.verdict)
    )


def test_harm_and_coefficients_have_their_intervals():
    assert compare(arms([0.1, 0.13, 0.07], BASELINE)).findings == {"text": "harm"}
    wide = compare(
        arms([0.9, -3.0, 0.5], BASELINE), metric="r2"
    )  # R2 has no least value, so no difference is too large
    assert wide.findings == {"text": "no reliable difference"} and wide.arms[1].to_baseline.low < -1


def test_the_interval_of_a_mean_ends_where_scores_do():
    # 98, 99 and 100 %: 99 +- 4.303 * 1 / sqrt(3) = 2.48; of 10 and 90 % it would be 50 +- 508, which leaves nothing out.
    mean = compare(arms(BASELINE, BASELINE, [0.98, 0.99, 1.0])).arms[0].mean
    assert (mean.low, mean.high) == pytest.approx((0.96516, 1.0), abs=1e-5)
    found = compare(arms([0.5, 0.5], [0.5, 0.5], [0.1, 0.9]))
    assert found.rows()[1][3] == "(by seed 10.00, 90.00)"


def test_a_corrected_interval_that_is_impossible_leaves_the_others_their_level():
    # 57.5 and 62.5 pp: a standard error of 2.5, and t of one degree of freedom is 12.706: +- 31.8, a gain. Of two arms it is
    # held against 0.05 / 2, where t is 25.45: +- 63.6 is beyond 100 pp. So is the other then: 1 pp, +- 25.45 * 0.1.
    wide, narrow = np.array([0.575, 0.625]), np.array([0.009, 0.011])
    [alone] = paired_estimates([wide], reach=1.0)
    assert (alone.low, alone.high) == pytest.approx((0.6 - 0.31766, 0.6 + 0.31766), abs=1e-4)
    both = paired_estimates([wide, narrow], reach=1.0)
    assert both[0].low is None and both[0].by_seed == pytest.approx((0.575, 0.625))
    assert both[1].high == pytest.approx(0.01 + 25.4517 * 0.001, rel=1e-4) and both[1].confidence == 0.975


def test_a_comparison_is_shown_in_one_line():
    shown = repr(compare(arms([0.85, 0.87, 0.83], BASELINE)))
    assert shown.startswith("Comparison('base', 'text', 'noise'; accuracy, 3 seeds): ") and "\n" not in shown
    assert len(shown) < 250


@pytest.mark.parametrize(
    ("kind", "guess"), [("co-learned", "did you mean 'colearned'?"), ("teacher", "it is one of 'base")]
)
def test_a_wrong_kind_is_named_with_the_four_that_there_are(kind, guess):
    with pytest.raises(ValueError, match=f"arm 'text' is of kind '{kind}'.*'null'.*'reference'") as caught:
        compare([Arm("base", "baseline", BASELINE), Arm("text", kind, BASELINE)])
    assert guess in str(caught.value)
