"""Did the teacher help, and more than a null control does?

A latent loss regularises by itself: a student may gain as much from random vectors as from a real teacher. So a gain
over the baseline is credited to the teacher's content only where the null controls of the same comparison stay behind.
All intervals are t-intervals over seeds; differences are paired by seed.
"""

from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, get_args

import numpy as np
from scipy.stats import t as student_t


Kind = Literal["baseline", "colearned", "null", "reference"]


@dataclass(frozen=True)
class Arm:
    """One trained configuration.

    Args:
        name (`str`): Unique within the comparison.
        kind (`str`): `"baseline"` (no teacher), `"colearned"` (the real teacher), `"null"` (a null control), or
            `"reference"` (shown beside them, such as one modality alone; neither judged nor a control).
        scores (`list[float]`): One score in [0, 1] a seed, higher is better, the seeds in the same order in every arm.
    """

    name: str
    kind: Kind
    scores: list[float]


@dataclass(frozen=True)
class Estimate:
    """A mean over seeds, as a fraction, with its t-interval; one seed has neither interval nor p-value (`None`).

    `p_value`, of a paired difference only: two-sided sign-flip permutation test, never below `2 / 2**n_seeds`.
    """

    mean: float
    low: float | None = None
    high: float | None = None
    p_value: float | None = None


@dataclass(frozen=True)
class ArmResult:
    """An arm with its mean and its differences; an arm has no difference to itself."""

    name: str
    kind: Kind
    scores: list[float]
    mean: Estimate
    to_baseline: Estimate | None
    to_null: Estimate | None


@dataclass(frozen=True)
class Comparison:
    """What [`compare`] found: the arms in the given order, and the controls that they were held against."""

    arms: tuple[ArmResult, ...]
    n_seeds: int
    confidence: float
    metric: str
    baseline: str
    strongest_null: str | None
    source: str = "teacher"

    @property
    def verdict(self) -> str:
        """One line a co-learned arm, that claims no more than the intervals do."""
        return "\n".join(
            f"{arm.name}: {self._sentence(arm, arm.to_baseline)}"
            for arm in self.arms
            if arm.kind == "colearned" and arm.to_baseline is not None
        )

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain values, for JSON; scores and differences are fractions, not percent."""
        return asdict(self) | {"verdict": self.verdict}

    def table(self) -> str:
        """The arms as plain text with aligned columns, in percent and percentage points, with notes below."""
        rows = self._rows()
        widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
        rows.insert(1, ["-" * width for width in widths])
        padded = [[cell.ljust(width) for cell, width in zip(row, widths, strict=True)] for row in rows]
        return "\n".join([*("  ".join(row).rstrip() for row in padded), "", *self._notes()])

    def to_markdown(self) -> str:
        """The same table and notes in Markdown."""
        rows = [[cell.replace("|", "\\|") for cell in row] for row in self._rows()]
        rows.insert(1, ["---"] * len(rows[0]))
        return "\n".join([*("| " + " | ".join(row) + " |" for row in rows), "", *(f"- {n}" for n in self._notes())])

    def _sentence(self, arm: ArmResult, gain: Estimate) -> str:
        seeds = f"{self.n_seeds} seeds"
        over_baseline = f"{_points(gain)} pp over the baseline"
        over_null = f"{_points(arm.to_null)} pp over the strongest null control '{self.strongest_null}'"
        if gain.low is None or gain.high is None:
            also = "" if arm.to_null is None else f", {over_null}"
            return f"one seed has no interval, so no claim: {over_baseline}{also}; train more seeds."
        if gain.high < 0:
            return f"co-learning did harm: {over_baseline} ({seeds})."
        if gain.low <= 0:
            less = arm.to_null is not None and arm.to_null.mean <= 0
            but = f"; the {self.source}'s gain is not larger than a null control's ({over_null})" if less else ""
            return f"no reliable difference at {seeds}: {over_baseline}; {self._seeds_to_settle(arm)}{but}."
        if arm.to_null is None or arm.to_null.low is None:
            return (
                f"a gain, but not one to credit to the {self.source}: {over_baseline} ({seeds}), and no null control was "
                "trained; add an arm of kind 'null'."
            )
        if arm.to_null.low > 0:
            return f"the {self.source}'s content helped: {over_baseline} and {over_null} ({seeds})."
        return (
            f"it helped no more than a null control does: {over_baseline}, but {over_null} ({seeds}); the "
            f"{self.source}'s gain is not larger than a null control's."
        )

    def _seeds_to_settle(self, arm: ArmResult) -> str:
        """Seeds at which the interval excludes 0 in 4 of 5 repeats, if mean and spread of the difference stay."""
        baseline = next(other for other in self.arms if other.name == self.baseline)
        difference = _paired(arm.scores, baseline.scores)
        if round(difference.mean(), 12) == 0:
            return "no number of seeds settles a difference of 0"
        n = np.arange(self.n_seeds + 1, 1001)
        reach = student_t.ppf(0.5 + self.confidence / 2, n - 1) + student_t.ppf(0.8, n - 1)
        enough = n[abs(difference.mean()) * np.sqrt(n) >= reach * difference.std(ddof=1)]
        needed = f"about {enough[0]}" if len(enough) else "more than 1000"
        return f"{needed} seeds would settle a difference of this size"

    def _rows(self) -> list[list[str]]:
        null = "best null" if self.strongest_null is None else f"null '{self.strongest_null}'"
        interval = f"{100 * self.confidence:.4g}% interval"
        rows = [["arm", "kind", f"{self.metric} [%]", interval, f"vs '{self.baseline}' [pp]", f"vs {null} [pp]"]]
        for arm in self.arms:
            differences = [_points(difference) for difference in (arm.to_baseline, arm.to_null)]
            rows.append([arm.name, arm.kind, f"{100 * arm.mean.mean:.2f}", _interval(arm.mean, ""), *differences])
        return rows

    def _notes(self) -> list[str]:
        colearned = [arm for arm in self.arms if arm.kind == "colearned"]
        if self.n_seeds == 1:
            notes = ["One seed: no intervals, so no claim. pp = percentage points."]
        else:
            p_values = ", ".join(f"'{arm.name}' {_p_values(arm)}" for arm in colearned)
            notes = [
                f"{self.n_seeds} seeds; brackets are {100 * self.confidence:.4g}% t-intervals over seeds, differences "
                "are paired by seed; pp = percentage points.",
            ]
            if colearned:
                notes.append(
                    f"Sign-flip permutation p: {p_values} (it cannot be below {2 / 2**self.n_seeds:.3g} with "
                    f"{self.n_seeds} seeds)."
                )
        if self.strongest_null is not None:
            notes.append(
                f"'{self.strongest_null}' is the null control with the highest mean; picking it afterwards favours "
                "the control, so the comparison is conservative for the co-learned arms."
            )
        if len(colearned) > 1:
            notes.append("Each co-learned arm is judged by itself: the intervals are not corrected for their number.")
        return notes


def compare(
    arms: list[Arm], confidence: float = 0.95, metric: str = "accuracy", source: str = "teacher"
) -> Comparison:
    """Holds every arm against the baseline and against the strongest null control.

    The strongest null control is the null arm with the highest mean. It is picked after the fact, which favours it:
    the comparison is conservative for the co-learned arms. Several co-learned arms are not corrected for their number.

    Args:
        arms (`list[Arm]`):
            Exactly one baseline, at least one co-learned arm, and the null controls, all with the same seeds in the
            same order. One seed is enough for a comparison without intervals and without claims.
        confidence (`float`, *optional*, defaults to 0.95):
            Of the t-intervals, between 0 and 1.
        metric (`str`, *optional*, defaults to `"accuracy"`):
            What the scores are, for the header of the table.
        source (`str`, *optional*, defaults to `"teacher"`):
            What a gain over the null controls is credited to: `"pairing"`, where the modalities teach each other.

    Raises:
        `ValueError`: If arms are missing, share a name or differ in their number of seeds, or a score is not in
            [0, 1].

    Example:

    ```python
    >>> from hf_colearn.analysis.compare import Arm, compare

    >>> comparison = compare(
    ...     [
    ...         Arm("baseline", "baseline", [0.80, 0.81, 0.79]),
    ...         Arm("text teacher", "colearned", [0.85, 0.86, 0.84]),
    ...         Arm("random vectors", "null", [0.81, 0.82, 0.80]),
    ...     ]
    ... )
    >>> comparison.verdict.split(":")[1]
    " the teacher's content helped"
    ```
    """
    _check(arms, confidence)
    baseline = next(arm for arm in arms if arm.kind == "baseline")
    null = max((arm for arm in arms if arm.kind == "null"), key=lambda arm: np.mean(arm.scores), default=None)
    results = tuple(
        ArmResult(
            name=arm.name,
            kind=arm.kind,
            scores=[float(score) for score in arm.scores],
            mean=_estimate(np.asarray(arm.scores), confidence),
            to_baseline=None if arm is baseline else _difference(arm, baseline, confidence),
            to_null=None if null is None or arm is null else _difference(arm, null, confidence),
        )
        for arm in arms
    )
    strongest_null = None if null is None else null.name
    return Comparison(results, len(baseline.scores), confidence, metric, baseline.name, strongest_null, source)


def sign_flip_p_value(differences: np.ndarray) -> float:
    """Two-sided p-value of "the signs of the paired differences are coin flips".

    Exact up to 16 seeds; above, over `2**16` seeded draws of the signs.

    Args:
        differences (`np.ndarray` of shape `(n,)`): One difference a seed.
    """
    n = len(differences)
    if n <= 16:
        signs = 1 - 2 * (np.arange(2**n)[:, None] >> np.arange(n) & 1)
    else:
        signs = np.random.default_rng(0).choice([-1, 1], size=(2**16, n))
        signs[0] = 1  # the observed signs are one of the draws, so that p is never 0
    return float(np.mean(abs(signs @ differences) >= abs(differences.sum()) - 1e-12))


def _paired(scores: list[float], others: list[float]) -> np.ndarray:
    """Differences by seed, without the rounding noise that would make a reliable gain of 0.1 + 0.2 over 0.3."""
    return np.round(np.subtract(scores, others), 12)


def _estimate(values: np.ndarray, confidence: float) -> Estimate:
    mean, n = float(values.mean()), len(values)
    if n == 1:
        return Estimate(mean)
    half = float(student_t.ppf(0.5 + confidence / 2, n - 1) * values.std(ddof=1) / n**0.5)
    return Estimate(mean, mean - half, mean + half)


def _difference(arm: Arm, other: Arm, confidence: float) -> Estimate:
    differences = _paired(arm.scores, other.scores)
    p_value = sign_flip_p_value(differences) if len(differences) > 1 else None
    return replace(_estimate(differences, confidence), p_value=p_value)


def _check(arms: list[Arm], confidence: float) -> None:
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must lie between 0 and 1, got {confidence}")
    names = [arm.name for arm in arms]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"{names.count(name)} arms are named '{name}': give every arm its own name")
    kinds = [arm.kind for arm in arms]
    for arm in arms:
        if arm.kind not in get_args(Kind):
            raise ValueError(f"arm '{arm.name}' is of kind '{arm.kind}': choose from {list(get_args(Kind))}")
        if len(arm.scores) == 0 or len(arm.scores) != len(arms[0].scores):
            counts = {arm.name: len(arm.scores) for arm in arms}
            raise ValueError(f"every arm needs one score for each of the same seeds, got {counts} scores")
        for seed, score in enumerate(arm.scores):
            if not 0 <= score <= 1:  # also catches NaN
                raise ValueError(
                    f"score {seed} of arm '{arm.name}' is {score}: scores are fractions between 0 and 1 "
                    "(divide percent by 100; a NaN is a failed run, train it again or leave the arm out)"
                )
    if kinds.count("baseline") != 1 or not {"colearned", "reference"} & set(kinds):
        raise ValueError(f"need exactly one arm of kind 'baseline' and at least one 'colearned', got {kinds}")


def _points(difference: Estimate | None) -> str:
    """As in `+1.20 [+0.40, +2.00]`, in percentage points."""
    return "-" if difference is None else f"{_hundredths(difference.mean, '+')} {_interval(difference, '+')}".rstrip()


def _interval(estimate: Estimate, sign: str) -> str:
    if estimate.low is None or estimate.high is None:
        return ""
    return f"[{_hundredths(estimate.low, sign)}, {_hundredths(estimate.high, sign)}]"


def _hundredths(fraction: float, sign: str) -> str:
    return f"{round(100 * fraction, 2) + 0.0:{sign}.2f}"  # + 0.0: no "-0.00"


def _p_values(arm: ArmResult) -> str:
    p_values = [f"{d.p_value:.3g}" for d in (arm.to_baseline, arm.to_null) if d is not None and d.p_value is not None]
    return " and ".join(p_values)
