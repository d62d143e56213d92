"""Planted curves of a sweep: a line, a step, none, one that turns back; and the test's false-positive rate."""

import numpy as np
import pytest
from scipy import stats

from hf_colearn.analysis.statistics.sweep import degradation


SHARES = [0, 0.25, 0.5, 0.75, 1]
BUDGETS = [0.1, 0.25, 0.5, 1]


def planted(means, seeds=5, noise=0.004, spread=0.03, seed=0):
    """Scores [L, S]: a mean a level, a level of every seed's own, and noise."""
    rng = np.random.default_rng(seed)
    means = np.asarray(means)[:, None]
    return means + spread * rng.normal(size=seeds) + noise * rng.normal(size=(len(means), seeds))


def test_a_line_falls_steadily():
    found = degradation(SHARES, planted([0.90, 0.87, 0.84, 0.81, 0.78]))
    assert found.sentence.startswith("falls steadily: -1")
    assert "pp from 0 % to 100 % (5 seeds, p 0.0002)." in found.sentence
    assert found.total.low < -0.12 < found.total.high
    assert found.is_reliable and found.largest_share < 0.4 and not found.goes_back


def test_a_step_is_named_by_its_levels():
    found = degradation(SHARES, planted([0.90, 0.90, 0.895, 0.80, 0.795]))
    assert found.sentence.startswith("falls mostly between 50 % and 75 % (-9.")
    assert (found.largest.start, found.largest.end) == (0.5, 0.75)
    assert found.largest_share == pytest.approx(0.9, abs=0.05)


def test_a_flat_curve_has_no_reliable_trend():
    found = degradation(SHARES, planted([0.8] * 5))
    assert not found.is_reliable
    assert found.sentence.startswith("no reliable trend: ")


def test_a_budget_rises_whatever_the_order_of_the_levels():
    means = dict(zip(BUDGETS, [0.70, 0.73, 0.78, 0.88], strict=True))  # on the line 0.68 + 0.2 * budget
    scores = planted(list(means.values()))
    found = degradation(BUDGETS, scores)
    assert found.sentence.startswith("rises steadily: +1") and "from 10 % to 100 %" in found.sentence
    assert found.largest.end == 1 and found.largest_share > 0.5  # but its step is 5 / 9 of the range
    assert degradation(BUDGETS[::-1], scores[::-1]) == found


def test_a_curve_that_turns_back_is_not_called_steady():
    found = degradation(SHARES, planted([0.90, 0.84, 0.87, 0.82, 0.78]))
    assert found.sentence.startswith("falls, but rises between 25 % and 50 % (+3.")
    assert [(step.start, step.end) for step in found.goes_back] == [(0.25, 0.5)]


def test_the_numbers_by_hand():
    # Two seeds: changes from the first level to the last -0.21 and -0.19, so -0.2 +- 12.7062 * 0.01414 / sqrt(2).
    found = degradation([0, 0.5, 1], [[0.86, 0.84], [0.85, 0.85], [0.65, 0.65]])
    assert found.means == pytest.approx((0.85, 0.85, 0.65))
    assert (found.total.mean, found.total.low, found.total.high) == pytest.approx((-0.2, -0.32706, -0.07294), abs=1e-5)
    # The steps are -0.01 and +0.01, then -0.2 twice; at 97.5 % each, t of one degree of freedom is 25.4517.
    assert [step.mean for step in found.steps] == pytest.approx([0, -0.2])
    assert found.steps[0].high == pytest.approx(25.4517 * 0.01, rel=1e-5)
    assert found.largest == found.steps[1] and found.largest_share == pytest.approx(1)
    # Ranks of the first seed 3 2 1 (Spearman -1), of the second 2 3 1 (-0.5)
    assert found.rank_correlation == pytest.approx(-0.75)
    # Of the 36 orders of two seeds, Spearman of one is 1, .5, .5, -.5, -.5, -1: a sum of 1.5 or more in 1 + 2 * 2 = 5 of
    # them, and so at the other end.
    assert found.p_value == pytest.approx(10 / 36)


def test_seeds_whose_interval_is_impossible_are_told_one_by_one():
    # -0.3 and -0.1: -0.2 +- 12.7062 * 0.1414 / sqrt(2) is -147 to +107 pp.
    found = degradation([0, 0.5, 1], [[0.9, 0.8], [0.8, 0.9], [0.6, 0.7]])
    assert found.total.low is None and found.sentence.startswith(
        "undecided, 2 seeds settle nothing: -20.00 (by seed -30.00, -10.00) pp from 0 % to 100 % "
    )


def test_the_trend_is_that_of_pages_test():
    scores = planted([0.8, 0.795, 0.79], seeds=4, noise=0.01, seed=3)
    found = degradation([0, 0.5, 1], scores)
    page = stats.page_trend_test(-scores.T, method="exact")  # one-sided, for falling scores
    assert found.p_value == pytest.approx(min(1, 2 * page.pvalue))
    assert 0.01 < found.p_value < 1
    spearmans = [stats.spearmanr([0, 0.5, 1], of_seed).statistic for of_seed in scores.T]
    assert found.rank_correlation == pytest.approx(np.mean(spearmans))


def test_no_trend_is_found_in_most_sweeps_without_one():
    found = [degradation([0, 0.5, 1], planted([0.8] * 3, seed=seed)) for seed in range(200)]
    assert sum(f.p_value < 0.05 for f in found) <= 18  # 10 expected at the most; more than 18 has a chance of 0.5 %
    assert 0 < sum(f.is_reliable for f in found) <= sum(f.p_value < 0.05 for f in found)  # the interval must agree


def test_scores_that_never_change_have_no_trend():
    found = degradation(SHARES, np.full((5, 3), 0.5))
    assert (found.p_value, found.rank_correlation, found.total.mean, found.largest_share) == (1, 0, 0, None)
    assert found.sentence == "no reliable trend: +0.00 [+0.00, +0.00] pp from 0 % to 100 % (3 seeds, p 1)."


def test_one_seed_makes_no_claim():
    found = degradation(SHARES, [[0.9], [0.8], [0.7], [0.6], [0.5]])
    assert found.sentence == "one seed has no interval, so no claim: -40.00 pp from 0 % to 100 %; train more seeds."
    assert found.total.low is None and found.p_value is None and not found.goes_back


@pytest.mark.parametrize(
    ("levels", "scores", "message"),
    [
        ([0, 1], [[0.5], [0.4]], "at least 3 levels, and there are 2"),
        ([0, 0.5, 0.5], [[0.5]] * 3, r"\[0.0, 0.5, 0.5\] hold one twice"),
        ([0, 50, 100], [[0.5]] * 3, r"\[0.0, 50.0, 100.0\] are no shares"),
        ([0, np.nan, 1], [[0.5]] * 3, "are no shares"),
        ([0, 0.5, 1], [[0.5]] * 4, "scores of 4 levels, but 3 levels"),
        ([0, 0.5, 1], [[0.5], [0.5, 0.4], [0.5]], r"same seeds, and they have \[1, 2, 1\]"),
        ([0, 0.5, 1], [[], [], []], "one score for each"),
        ([0, 0.5, 1], [[0.5, 0.5], [0.5, np.nan], [0.5, 0.4]], "a score at level 0.5 is NaN or infinite"),
        ([0, 0.5, 1], [[0.5], [np.inf], [0.4]], "a score at level 0.5 is NaN or infinite"),
    ],
)
def test_sweeps_that_tell_nothing_are_refused(levels, scores, message):
    with pytest.raises(ValueError, match=message):
        degradation(levels, scores)


def test_a_confidence_that_is_none_is_refused():
    with pytest.raises(ValueError, match="confidence=95 is none"):
        degradation(SHARES, planted([0.8] * 5), confidence=95)
