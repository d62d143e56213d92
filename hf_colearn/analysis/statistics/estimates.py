"""Means over seeds with their t-intervals, which decide every claim of the analysis; differences are paired by seed.

The exact sign-flip test decides nothing: its two-sided p is at least `2 / 2**n`, with five seeds never below 0.05. The
t-interval keeps its 5% at any n >= 2 of normal differences, and at five finds a gain of two standard deviations 9 times of 10.

Of two or three seeds that differ it may reach beyond what is possible: fractions differ by 100 percentage points at most.
Such an interval says that these seeds settle nothing, so there is none: the estimate has its values `by_seed` instead, decides
nothing, and counts as a p-value of 1 where several are corrected. A mean's interval is cut at the scores that are possible,
which keeps its level: 98.7 to 100.3 % becomes 98.7 to 100 %.

Shape legend: K differences, S seeds.
"""

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.stats import nct, permutation_test, rankdata
from scipy.stats import t as student_t

from hf_colearn.utils.extras import extra
from hf_colearn.utils.metric_names import pp


MAX_SEEDS = 1000  # beyond which nobody trains to settle a difference


@dataclass(frozen=True)
class Estimate:
    """A mean over seeds, as a fraction; of one seed, or the same value at every seed, it is alone.

    Args:
        mean, low, high (`float`): The mean and the ends of its t-interval.
        confidence (`float`, *optional*): The interval's level; that of Holm's step where several were corrected.
        p_value (`float`, *optional*): Of a difference: two-sided paired t-test, adjusted where several were corrected.
        sign_flip_p_value (`float`, *optional*): Of a difference: see [`sign_flip_p_value`]; never adjusted.
        by_seed (`tuple[float, ...]`, *optional*): The values, where an interval would reach beyond what is possible.
    """

    mean: float
    low: float | None = None
    high: float | None = None
    confidence: float | None = None
    p_value: float | None = None
    sign_flip_p_value: float | None = None
    by_seed: tuple[float, ...] = ()

    @property
    def is_gain(self) -> bool:
        """Whether its interval lies above 0."""
        return self.low is not None and self.low > 0

    @property
    def is_loss(self) -> bool:
        """Whether its interval lies below 0."""
        return self.high is not None and self.high < 0


def paired_differences(scores: Sequence[float] | np.ndarray, others: Sequence[float] | np.ndarray) -> np.ndarray:
    """Differences by seed, without the rounding noise that would make a reliable gain of 0.1 + 0.2 over 0.3."""
    return np.round(np.subtract(scores, others), 12)


def score_limits(metric: str, scores: Iterable[float] = ()) -> tuple[float, float]:
    """What scores lie between: 0 and 1, or of a coefficient such as R2 minus infinity and 1."""
    is_coefficient = pp(metric) != "percentage points" or any(score < 0 for score in scores)
    return (-np.inf if is_coefficient else 0.0), 1.0


def mean_estimate(scores: Sequence[float] | np.ndarray, confidence: float, limits: tuple[float, float]) -> Estimate:
    """The mean of scores `(S,)`, its interval cut at the limits; by seed where it would hold all between them."""
    values_S = np.round(np.asarray(scores, dtype=np.float64), 12)  # rounding noise is no spread
    found, (lowest, highest) = replace(paired_estimates([values_S], confidence)[0], p_value=None), limits
    if found.low is None or found.high is None:
        return found
    if found.low <= lowest and found.high >= highest:
        return Estimate(found.mean, by_seed=tuple(values_S.tolist()))
    return replace(found, low=max(found.low, lowest), high=min(found.high, highest))


def paired_estimates(
    differences: Sequence[np.ndarray], confidence: float = 0.95, reach: float = np.inf
) -> list[Estimate]:
    """Means of K paired differences `(S,)`, with the `confidence` of all findings together, by Holm's procedure.

    The smallest of K p-values is held against `(1 - confidence) / K`, the next against `(1 - confidence) / (K - 1)`, and
    so on up to the first that is larger, whose level holds for all that are left. An interval has the level of its p-value,
    so it excludes 0 exactly where the adjusted `p_value` is below `1 - confidence`; the K intervals do not cover their true
    values all at once. One without a spread, or of one seed, has a mean alone, and counts in K; so does one whose interval
    would go beyond `reach`, the largest difference that is possible (1 of fractions), which has its values `by_seed`.
    """
    if len(differences) == 0:
        return []
    values_KS = np.asarray(differences, dtype=np.float64)
    count, num_seeds = values_KS.shape
    means_K, has_spread_K = values_KS.mean(axis=1), np.ptp(values_KS, axis=1) > 0
    errors_K = values_KS.std(axis=1, ddof=min(1, num_seeds - 1)) / num_seeds**0.5
    t_K = np.divide(abs(means_K), errors_K, out=np.zeros(count), where=has_spread_K)
    is_open_K = np.zeros(count, dtype=bool)
    while True:  # without those that are open, the levels of the others are stricter, and more of them may be
        p_K = np.where(has_spread_K & ~is_open_K, 2 * student_t.sf(t_K, num_seeds - 1), 1.0)
        adjusted_K, levels_K = _holm(p_K, 1 - confidence)
        halves_K = student_t.isf(levels_K / 2, num_seeds - 1) * errors_K
        is_beyond_K = has_spread_K & ~is_open_K & (abs(means_K) + halves_K > reach + 1e-9)
        if not is_beyond_K.any():
            break
        is_open_K |= is_beyond_K
    estimates = []
    for k, mean in enumerate(means_K.tolist()):
        if has_spread_K[k] and not is_open_K[k]:
            half, level, p_value = float(halves_K[k]), float(levels_K[k]), float(adjusted_K[k])
            estimates.append(Estimate(mean, mean - half, mean + half, 1 - level, p_value))
        else:
            estimates.append(Estimate(mean, by_seed=tuple(values_KS[k].tolist()) if is_open_K[k] else ()))
    return estimates


def _holm(p_K: np.ndarray, level: float) -> tuple[np.ndarray, np.ndarray]:
    """The adjusted p-values, and the level against which each was held."""
    if len(p_K) == 1:  # nothing to correct, and statsmodels collects all garbage at every call: 50 ms
        return p_K, np.array([level])
    with extra("report", "Holm's correction is statsmodels'"):
        from statsmodels.stats.multitest import multipletests
    is_found_K, adjusted_K, *_ = multipletests(p_K, alpha=level, method="holm")
    # statsmodels returns no levels: one for each rank, up to the first p-value that is not below its own.
    ranks_K = np.minimum(rankdata(p_K, method="ordinal") - 1, is_found_K.sum())
    return adjusted_K, level / (len(p_K) - ranks_K)


def sign_flip_p_value(differences: np.ndarray) -> float:
    """Two-sided p-value of "the signs of the paired differences `(S,)` are coin flips", never below `2 / 2**S`.

    Exact up to 16 seeds; above, over `2**16` seeded draws of the signs.
    """
    options = {"permutation_type": "samples", "vectorized": True, "n_resamples": 2**16}
    return float(permutation_test((differences,), np.mean, **options, rng=np.random.default_rng(0)).pvalue)


def seeds_to_settle(differences: np.ndarray, confidence: float = 0.95, power: float = 0.8) -> int | None:
    """How many more seeds than these `(S,)` find a difference of their mean and spread; None for more than 1000.

    At so many, the t-interval excludes 0, on the difference's side, with this power: the tail of a noncentral t.
    """
    effect = abs(np.mean(differences)) / np.std(differences, ddof=1)
    choices = range(len(differences) + 1, MAX_SEEDS + 1)
    found = bisect_left(
        choices, power, key=lambda n: nct.sf(student_t.isf((1 - confidence) / 2, n - 1), n - 1, effect * n**0.5)
    )
    return choices[found] if found < len(choices) else None


def points(difference: Estimate | None) -> str:
    """As in `+1.20 [+0.40, +2.00]`, in percentage points, or `+11.00 (by seed +3.00, -1.00, +31.00)`."""
    return "-" if difference is None else f"{hundredths(difference.mean, '+')} {interval(difference, '+')}".rstrip()


def words(difference: Estimate | None, over: str) -> str:
    """As in `+1.20 pp over the baseline (95% interval +0.40 to +2.00)`; empty where there is no difference."""
    if difference is None:
        return ""
    size = f"{hundredths(difference.mean, '+')} pp over {over}"
    if difference.by_seed:
        return f"{size} {interval(difference, '+')}"
    if difference.low is None or difference.high is None or difference.confidence is None:
        return size
    ends = f"{hundredths(difference.low, '+')} to {hundredths(difference.high, '+')}"
    return f"{size} ({percent(difference.confidence)} interval {ends})"


def interval(estimate: Estimate, sign: str) -> str:
    """As in `[+0.40, +2.00]`, in percent; the sign is `"+"` or `""`. Without an interval the values by seed, or nothing."""
    if values := estimate.by_seed:
        ends = (hundredths(end, sign) for end in (min(values), max(values)))
        by_seed = ", ".join(hundredths(value, sign) for value in values) if len(values) <= 5 else " to ".join(ends)
        return f"(by seed {by_seed})"
    if estimate.low is None or estimate.high is None:
        return ""
    return f"[{hundredths(estimate.low, sign)}, {hundredths(estimate.high, sign)}]"


def beyond_what_is_possible(n_seeds: int) -> str:
    """The note on values `by_seed`."""
    return (
        f"By seed where the t-interval of {n_seeds} seeds would reach beyond what is possible (a difference of 100 pp, a score "
        "of 0 or 100 %): so few settle nothing, and nothing is claimed there."
    )


def hundredths(fraction: float, sign: str) -> str:
    return f"{round(100 * fraction, 2) + 0.0:{sign}.2f}"  # + 0.0: no "-0.00"


def percent(fraction: float) -> str:
    """As in `97.5%`, with four digits at most."""
    return f"{100 * fraction:.4g}%"
