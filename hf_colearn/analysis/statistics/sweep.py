"""How a score changes over a sweep, such as the share of mismatched pairs: steadily, at one step, or not reliably.

Shapes: L levels of the sweep, S seeds.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import permutation_test, rankdata, sem
from scipy.stats import t as student_t

from hf_colearn.analysis.statistics.estimates import Estimate, paired_differences, points


@dataclass(frozen=True, kw_only=True)
class Change(Estimate):
    """How much the score changes between two levels; with one seed without an interval."""

    start: float
    end: float


@dataclass(frozen=True)
class Degradation:
    """What [`degradation`] found; all levels ascend.

    Args:
        levels, means (`tuple[float, ...]`): Of the sweep, and the means of the scores over seeds there.
        total (`Change`): From the lowest level to the highest.
        steps (`tuple[Change, ...]`): From each level to the next, with intervals that hold all at once (Bonferroni).
        largest (`Change`): The step that goes furthest in the direction of the total change.
        largest_share (`float`, *optional*): Of the total change; above 1 where others go back. None without a change.
        rank_correlation (`float`): Spearman's, between level and score within a seed, averaged; ties count as no order.
        p_value (`float`, *optional*): Two-sided, of "within a seed, the scores may stand at any level"; one seed has none.
        num_seeds (`int`), confidence (`float`): S, and of the intervals.
    """

    levels: tuple[float, ...]
    means: tuple[float, ...]
    total: Change
    steps: tuple[Change, ...]
    largest: Change
    largest_share: float | None
    rank_correlation: float
    p_value: float | None
    num_seeds: int
    confidence: float

    @property
    def is_reliable(self) -> bool:
        """Whether there is a trend: the ranks' test and the interval of the total change agree."""
        if self.p_value is None or not (self.total.is_gain or self.total.is_loss):
            return False
        return self.p_value < 1 - self.confidence and self.rank_correlation * self.total.mean > 0

    @property
    def goes_back(self) -> tuple[Change, ...]:
        """Steps that go reliably against the total change."""
        return tuple(step for step in self.steps if (step.is_gain if self.total.mean < 0 else step.is_loss))

    @property
    def sentence(self) -> str:
        """What may be said of the curve, levels in percent and scores in percentage points."""
        size = f"{_points(self.total)} from {_percent(self.levels[0])} to {_percent(self.levels[-1])}"
        if self.p_value is None:
            return f"one seed has no interval, so no claim: {size}; train more seeds."
        evidence = f"{size} ({self.num_seeds} seeds, p {self.p_value:.2g})"
        if self.total.by_seed:
            return f"undecided, {self.num_seeds} seeds settle nothing: {evidence}."
        if not self.is_reliable:
            return f"no reliable trend: {evidence}."
        falls, rises = ("falls", "rises") if self.total.mean < 0 else ("rises", "falls")
        if self.goes_back:
            back = self.goes_back[0]
            return f"{falls}, but {rises} {_between(back)} ({_points(back)}): {evidence}."
        assert self.largest_share is not None  # a reliable change is not 0
        if self.largest_share > _one_step(self.largest, self.levels):
            most = f"{_points(self.largest)}, {self.largest_share:.0%} of it"
            return f"{falls} mostly {_between(self.largest)} ({most}): {evidence}."
        return f"{falls} steadily: {evidence}."


def degradation(
    levels: Sequence[float], scores: Sequence[Sequence[float]] | np.ndarray, confidence: float = 0.95
) -> Degradation:
    """Whether a score falls (or rises) over the levels of a sweep, and whether smoothly or at one step.

    *Trend*: Spearman's rank correlation within every seed, averaged; its p-value is from permuting the scores among the
    levels within each seed: Page's test for ordered alternatives (1963) with two sides (scipy's `page_trend_test` has one,
    and no ties), exact below 10,000 permutations, of which there are `(L!)**S`, else over 9,999 seeded draws. *Size*:
    changes between levels, paired by seed, with t-intervals.

    A trend is claimed where both exclude none. It is "mostly between" two levels where one step has more of the total change
    than half-way from its share of the levels' range to all of it (62.5 % at five equidistant levels); a step that reliably
    goes back is named. The largest step is picked by the same scores, so its size is somewhat overstated.

    Args:
        levels (`Sequence[float]`): L shares from 0 to 1, at least 3 and distinct, in any order.
        scores (`Sequence[Sequence[float]]` of shape `(L, S)`): By level and seed; fractions, or gains as fractions.
        confidence (`float`, *optional*, defaults to 0.95): Of the intervals; the trend's p is held against what it leaves.

    Returns:
        [`Degradation`]: Its `sentence` says it in words.

    Raises:
        ValueError: If there are fewer than 3 levels or no seeds, levels are doubled or no shares, shapes differ, or a
            score is not finite.
    """
    levels_L, scores_LS = _checked(levels, scores, confidence)
    order = np.argsort(levels_L)
    levels_L, scores_LS = levels_L[order], scores_LS[order]
    count, num_seeds = scores_LS.shape
    reach = 1.0 if (scores_LS >= 0).all() else np.inf  # of fractions; gains, and coefficients, have none that is known

    def change(i: int, j: int, confidence: float) -> Change:
        start, end = levels_L[[i, j]].tolist()
        differences_S = paired_differences(scores_LS[j], scores_LS[i])  # 0.3 - 0.2 and 0.2 - 0.1 are the same step
        mean = float(differences_S.mean())
        if num_seeds == 1:
            return Change(start=start, end=end, mean=mean)
        half = float(student_t.ppf(0.5 + confidence / 2, num_seeds - 1) * sem(differences_S))
        if abs(mean) + half > reach:
            return Change(start=start, end=end, mean=mean, by_seed=tuple(differences_S.tolist()))
        return Change(start=start, end=end, mean=mean, low=mean - half, high=mean + half)

    total = change(0, count - 1, confidence)
    steps = tuple(change(i, i + 1, 1 - (1 - confidence) / (count - 1)) for i in range(count - 1))
    largest = max(steps, key=lambda step: step.mean * np.sign(total.mean))

    places_L = np.arange(count) - (count - 1) / 2
    ranks_LS = rankdata(scores_LS, axis=0) - (count + 1) / 2

    def correlation(*ranks: np.ndarray, axis: int = -1) -> np.ndarray:
        # One array a level, seeds along the axis; ties stay out of the denominator.
        return sum(p * np.mean(r, axis=axis) for p, r in zip(places_L, ranks, strict=True)) / np.sum(places_L**2)

    p_value = None
    if num_seeds > 1:
        options: dict = {"permutation_type": "samples", "vectorized": True, "n_resamples": 9999, "rng": 0}
        p_value = float(permutation_test(list(ranks_LS), correlation, **options).pvalue)
    return Degradation(
        levels=tuple(levels_L.tolist()),
        means=tuple(scores_LS.mean(axis=1).tolist()),
        total=total,
        steps=steps,
        largest=largest,
        largest_share=None if total.mean == 0 else largest.mean / total.mean,
        rank_correlation=float(correlation(*ranks_LS)),
        p_value=p_value,
        num_seeds=num_seeds,
        confidence=confidence,
    )


def _checked(
    levels: Sequence[float], scores: Sequence[Sequence[float]] | np.ndarray, confidence: float
) -> tuple[np.ndarray, np.ndarray]:
    if not 0 < confidence < 1:
        raise ValueError(f"confidence={confidence} is none: pass a number between 0 and 1.")
    levels_L = np.asarray(levels, dtype=np.float64)
    if levels_L.ndim != 1 or len(levels_L) < 3:
        raise ValueError(f"a trend needs at least 3 levels, and there are {levels_L.size}: {list(levels)}.")
    if not ((levels_L >= 0) & (levels_L <= 1)).all():  # also catches NaN
        raise ValueError(f"the levels {levels_L.tolist()} are no shares: pass numbers from 0 to 1 (percent over 100).")
    if len(set(levels_L.tolist())) < len(levels_L):
        raise ValueError(f"the levels {levels_L.tolist()} hold one twice: give each one row of scores.")
    if len(scores) != len(levels_L):
        raise ValueError(f"there are scores of {len(scores)} levels, but {len(levels_L)} levels.")
    counts = list(map(len, scores))
    if len(set(counts)) > 1 or counts[0] == 0:
        raise ValueError(f"every level needs one score for each of the same seeds, and they have {counts}.")
    scores_LS = np.asarray(scores, dtype=np.float64)
    for level, of_level in zip(levels_L, scores_LS, strict=True):
        if not np.isfinite(of_level).all():
            raise ValueError(f"a score at level {level:g} is NaN or infinite: a failed run has no place in a sweep.")
    return levels_L, scores_LS


def _one_step(step: Change, levels: tuple[float, ...]) -> float:
    """The share of the total change from which one step is most of it: half-way from its share of the range to all."""
    return (1 + (step.end - step.start) / (levels[-1] - levels[0])) / 2


def _between(step: Change) -> str:
    return f"between {_percent(step.start)} and {_percent(step.end)}"


def _percent(level: float) -> str:
    return f"{100 * level:.4g} %"


def _points(change: Change) -> str:
    return f"{points(change)} pp"
