"""Did the teacher help, and more than a null control does?

A latent loss regularises by itself: a student may gain as much from random vectors. So a gain over the baseline is credited
to the teacher's content only where the null controls stay behind. Paired t-intervals decide, see
[`~hf_colearn.analysis.statistics.estimates`]; where one would reach beyond what is possible, the arm is undecided.

Several co-learned arms are corrected for their number by Holm's procedure (1979), once against the baseline and once against
the strongest null control: the chance of finding any difference where there is none is 5% at most. Each arm's interval has
the level of its Holm step, from `1 - 0.05 / arms` to 0.95, so that it excludes 0 exactly where a difference is found. An arm
has helped only where both intervals lie above 0, which is stricter than either and asks for no further correction.
[`compare_levels`] does so at every level of a sweep, or for every modality, and corrects for all of these together.
"""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, TypeVar

import numpy as np

from hf_colearn.analysis.statistics.arm import Arm, Kind, check_arms
from hf_colearn.analysis.statistics.estimates import (
    MAX_SEEDS,
    Estimate,
    beyond_what_is_possible,
    interval,
    mean_estimate,
    paired_differences,
    paired_estimates,
    percent,
    points,
    score_limits,
    seeds_to_settle,
    sign_flip_p_value,
    words,
)
from hf_colearn.utils.metric_names import pp, with_unit
from hf_colearn.utils.tables import markdown_table, text_table


Finding = Literal[
    "helped",
    "no more than a null control",
    "no reliable difference",
    "harm",
    "undecided",
    "one seed",
    "no null control",
]
Level = TypeVar("Level", bound=Hashable)


@dataclass(frozen=True)
class ArmResult(Arm):
    """An arm with its mean and its differences, none to itself; only co-learned arms have a finding."""

    mean: Estimate
    to_baseline: Estimate | None
    to_null: Estimate | None
    finding: Finding | None = None


@dataclass(frozen=True)
class Comparison:
    """What [`compare`] found: the arms in the given order, and the controls that they were held against.

    `num_judged` differences were corrected together: the co-learned arms, those of other levels included.
    """

    arms: tuple[ArmResult, ...]
    n_seeds: int
    confidence: float
    metric: str
    baseline: str
    strongest_null: str | None
    source: str = "teacher"
    num_judged: int = 0

    def __repr__(self) -> str:
        arms = ", ".join(f"{arm.name!r}" for arm in self.arms)
        return f"Comparison({arms}; {self.metric}, {self.n_seeds} seed{'s'[: self.n_seeds - 1]}): {self.headline}"

    @property
    def findings(self) -> dict[str, Finding]:
        """What was found of every co-learned arm, by name."""
        return {arm.name: arm.finding for arm in self.arms if arm.finding is not None}

    @property
    def verdict(self) -> str:
        """One line a co-learned arm, that claims no more than the intervals do."""
        judged = [(arm, arm.to_baseline) for arm in self.arms if arm.finding is not None]
        return "\n".join(f"{arm.name}: {self._sentence(arm, gain)}" for arm, gain in judged if gain is not None)

    @property
    def headline(self) -> str:
        """One sentence: of the only co-learned arm with its gain, or which (of many: how many) helped and which not."""
        claims = {
            "helped": f"the {self.source}'s content helped",
            "harm": "co-learning did harm",
            "no more than a null control": "co-learning helped no more than a null control",
            "no null control": f"a gain, and no null control that would credit it to the {self.source}",
            "no reliable difference": f"no reliable difference at {self.n_seeds} seeds",
            "undecided": f"undecided, {self.n_seeds} seeds settle nothing",
            "one seed": "one seed, so no claim",
        }
        names = {claim: [name for name, found in self.findings.items() if found == claim] for claim in claims}
        if not self.findings:
            return "No arm was co-learned, so there is nothing to judge."
        if (count := len(self.findings)) > 1:
            claimed = [
                f"{claims[claim]} ({', '.join(map(repr, named)) if count < 5 else f'{len(named)} of {count} arms'})"
                for claim, named in names.items()
                if named
            ]
            return f"{_capital('; '.join(claimed))}."
        arm = next(arm for arm in self.arms if arm.finding is not None)
        gains = [words(arm.to_baseline, "the baseline")]
        if arm.finding == "no more than a null control" or (arm.to_null is not None and arm.to_null.by_seed):
            gains.append(words(arm.to_null, f"'{self.strongest_null}'"))
        return f"{_capital(claims[self.findings[arm.name]])}: {', and '.join(gains)}."

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain values, for JSON; scores and differences are fractions, not percent."""
        return asdict(self) | {"verdict": self.verdict, "headline": self.headline}

    def table(self) -> str:
        """The arms as plain text with aligned columns, in percent and percentage points, with notes below."""
        return "\n".join([text_table(self.rows()), "", *self.notes()])

    def to_markdown(self) -> str:
        """The same table and notes in Markdown."""
        return "\n".join([markdown_table(self.rows()), "", *(f"- {note}" for note in self.notes())])

    def rows(self) -> list[list[str]]:
        """The table's cells, the first row its header."""
        null = "best null" if self.strongest_null is None else f"null '{self.strongest_null}'"
        level = f"{percent(self.confidence)} interval"
        rows = [["arm", "kind", with_unit(self.metric), level, f"vs '{self.baseline}' [pp]", f"vs {null} [pp]"]]
        for arm in self.arms:
            differences = [points(difference) for difference in (arm.to_baseline, arm.to_null)]
            rows.append(
                [arm.name, arm.kind, f"{100 * arm.mean.mean:.2f}", interval(arm.mean, "") or "-", *differences]
            )
        return rows

    def notes(self) -> list[str]:
        """What a reader of the table must know, a sentence or two each."""
        colearned = [arm for arm in self.arms if arm.finding is not None]
        notes = [f"One seed: no intervals, so no claim. pp = {pp(self.metric)}."]
        if self.n_seeds > 1:
            notes = [
                f"{self.n_seeds} seeds; brackets are {percent(self.confidence)} t-intervals over seeds, differences "
                f"are paired by seed; pp = {pp(self.metric)}.",
            ]
        if self.n_seeds > 1 and colearned:
            p_values = ", ".join(f"'{arm.name}' {_p_values(arm)}" for arm in colearned)
            notes.append(
                f"Sign-flip permutation p: {p_values} (it cannot be below {2 / 2**self.n_seeds:.3g} with "
                f"{self.n_seeds} seeds, so the intervals decide)."
            )
        if self.strongest_null is not None:
            notes.append(
                f"'{self.strongest_null}' is the null control with the highest mean; picking it afterwards favours "
                "the control, so the comparison is conservative for the co-learned arms."
            )
        if self.num_judged > 1 and self.n_seeds > 1:
            widest = percent(1 - (1 - self.confidence) / self.num_judged)
            which = "" if self.num_judged == len(colearned) else " of all levels"
            notes.append(
                f"The {self.num_judged} co-learned arms{which} are corrected for their number (Holm): their differences' "
                f"brackets have up to {widest}, so that the chance of finding any difference where there is none is "
                f"{percent(1 - self.confidence)} at most."
            )
        others = ("", f" vs '{self.baseline}'", f" vs '{self.strongest_null}'")
        estimates = [
            (estimate, f"'{arm.name}'{what}")
            for arm in self.arms
            for estimate, what in zip((arm.mean, arm.to_baseline, arm.to_null), others, strict=True)
            if estimate is not None
        ]
        if any(estimate.by_seed for estimate, _ in estimates):
            notes.append(beyond_what_is_possible(self.n_seeds))
        constant = [name for estimate, name in estimates if estimate.low is None and not estimate.by_seed]
        if constant and self.n_seeds > 1:
            notes.append(
                f"No bracket and no claim where a value is the same at every seed, since nothing tells how certain it is: "
                f"{', '.join(constant)}. See that the seed reaches the training, or score on more samples."
            )
        return notes

    def _sentence(self, arm: ArmResult, gain: Estimate) -> str:
        seeds = f"{self.n_seeds} seeds"
        over_baseline = f"{points(gain)} pp over the baseline"
        over_null = f"{points(arm.to_null)} pp over the strongest null control '{self.strongest_null}'"
        if arm.finding == "one seed":
            also = "" if arm.to_null is None else f", {over_null}"
            return f"one seed has no interval, so no claim: {over_baseline}{also}; train more seeds."
        if arm.finding == "harm":
            return f"co-learning did harm: {over_baseline} ({seeds})."
        if arm.finding == "undecided" and not gain.by_seed:
            return f"undecided: {over_baseline}, but {seeds} do not settle whether a null control gains as much: {over_null}."
        if arm.finding == "undecided":
            return f"undecided, {seeds} settle nothing: {over_baseline}; {self._what_would_settle(arm, gain)}."
        if arm.finding == "no null control":
            return (
                f"a gain, but not one to credit to the {self.source}: {over_baseline} ({seeds}), and no null control was "
                "trained; add an arm of kind 'null'."
            )
        if arm.finding == "helped":
            return f"the {self.source}'s content helped: {over_baseline} and {over_null} ({seeds})."
        if arm.finding == "no more than a null control":
            is_larger = "is not shown to be larger" if arm.to_null and arm.to_null.mean > 0 else "is not larger"
            return (
                f"it helped no more than a null control does: {over_baseline}, but {over_null} ({seeds}); the "
                f"{self.source}'s gain {is_larger} than a null control's."
            )
        if gain.is_gain:
            return (
                f"no reliable difference at {seeds} from a null control: {over_baseline}, and {over_null}, the same at "
                "every seed, so nothing tells how certain it is."
            )
        less = arm.to_null is not None and arm.to_null.mean <= 0
        but = f"; the {self.source}'s gain is not larger than a null control's ({over_null})" if less else ""
        return f"no reliable difference at {seeds}: {over_baseline}; {self._what_would_settle(arm, gain)}{but}."

    def _what_would_settle(self, arm: ArmResult, gain: Estimate) -> str:
        if round(gain.mean, 12) == 0:
            return "no number of seeds settles a difference of 0"
        if gain.confidence is None and not gain.by_seed:
            return "it is the same at every seed, so nothing tells how certain it is"
        baseline = next(other for other in self.arms if other.name == self.baseline)
        confidence = gain.confidence or self.confidence
        needed = seeds_to_settle(paired_differences(arm.scores, baseline.scores), confidence)
        seeds = f"more than {MAX_SEEDS}" if needed is None else f"about {needed}"
        return f"{seeds} seeds would settle a difference of this size"


def compare(
    arms: list[Arm], confidence: float = 0.95, metric: str = "accuracy", source: str = "teacher"
) -> Comparison:
    """Holds every arm against the baseline and against the strongest null control.

    The strongest null control is the null arm with the highest mean; picking it afterwards favours it, so the comparison is
    conservative. The module's docstring says what a finding rests on; the differences of null controls and references are
    shown, not judged, and so not corrected.

    Args:
        arms (`list[Arm]`): Exactly one baseline, at least one co-learned arm or reference, and the null controls, all with
            the same seeds in the same order. One seed gives neither intervals nor claims.
        confidence (`float`, *optional*, defaults to 0.95): Of the t-intervals, between 0 and 1.
        metric (`str`, *optional*, defaults to `"accuracy"`): What the scores are, for the header of the table.
        source (`str`, *optional*, defaults to `"teacher"`): What a gain over the null controls is credited to: `"pairing"`,
            where the modalities teach each other.

    Returns:
        [`Comparison`]: With a finding for every co-learned arm: `"helped"` (both intervals lie above 0), `"no more than
        a null control"` (only that against the baseline does), `"no reliable difference"`, `"harm"`, `"undecided"` (so few
        seeds that an interval would reach beyond what is possible), `"one seed"` or `"no null control"` (a gain, and nothing
        to hold it against).

    Raises:
        `ValueError`: If arms are missing, share a name or differ in their number of seeds, or a score is above 1 or not finite.

    Example:

    ```python
    >>> from hf_colearn.analysis.statistics.compare import Arm, compare

    >>> baseline = Arm("baseline", "baseline", [0.80, 0.81, 0.79])
    >>> null = Arm("random vectors", "null", [0.81, 0.81, 0.80])
    >>> compare([baseline, Arm("text teacher", "colearned", [0.85, 0.87, 0.83]), null]).headline
    "The teacher's content helped: +5.00 pp over the baseline (95% interval +2.52 to +7.48)."
    ```
    """
    return compare_levels({metric: arms}, confidence, metric, source)[metric]


def compare_levels(
    levels: Mapping[Level, list[Arm]], confidence: float = 0.95, metric: str = "accuracy", source: str = "teacher"
) -> dict[Level, Comparison]:
    """As [`compare`] at every level, such as a number of labels a class: held against the level's own baseline and its own
    strongest null control.

    The co-learned arms of all levels are corrected together, so that the chance of finding any difference anywhere where
    there is none is `1 - confidence` at most, once against the baselines and once against the null controls.

    Args:
        levels (`Mapping[Hashable, list[Arm]]`): The arms of every level, all with the same seeds in the same order.
        confidence, metric, source: As of [`compare`].
    """
    for arms in levels.values():
        check_arms(arms, confidence)
    counts = {level: len(arms[0].scores) for level, arms in levels.items()}
    if len({*counts.values()}) > 1:
        raise ValueError(f"every level needs one score for each of the same seeds, got {counts} scores")
    baselines = {level: next(arm for arm in arms if arm.kind == "baseline") for level, arms in levels.items()}
    nulls = {level: _strongest_null(arms) for level, arms in levels.items()}
    limits = score_limits(metric, [score for arms in levels.values() for arm in arms for score in arm.scores])
    to_baseline, to_null = (
        _differences(levels, others, confidence, limits[1] - limits[0]) for others in (baselines, nulls)
    )
    num_judged = sum(arm.kind == "colearned" for arms in levels.values() for arm in arms)
    found = {}
    for level, arms in levels.items():
        results, n_seeds, null = [], len(arms[0].scores), nulls[level]
        for arm in arms:
            mean = mean_estimate(arm.scores, confidence, limits)
            gains = to_baseline.get((level, arm.name)), to_null.get((level, arm.name))
            scores = [float(score) for score in arm.scores]
            results.append(ArmResult(arm.name, arm.kind, scores, mean, *gains, _finding(arm.kind, *gains, n_seeds)))
        names = baselines[level].name, None if null is None else null.name
        found[level] = Comparison(tuple(results), n_seeds, confidence, metric, *names, source, num_judged)
    return found


def _strongest_null(arms: Sequence[Arm]) -> Arm | None:
    return max((arm for arm in arms if arm.kind == "null"), key=lambda arm: np.mean(arm.scores), default=None)


def _differences(
    levels: Mapping[Level, list[Arm]], others: Mapping[Level, Arm | None], confidence: float, reach: float
) -> dict[tuple[Level, str], Estimate]:
    """The differences of all arms to another one of their level; those of co-learned arms are corrected together."""
    paired, judged = dict[tuple[Level, str], np.ndarray](), list[tuple[Level, str]]()
    for level, arms in levels.items():
        if (other := others[level]) is not None:
            paired |= {(level, a.name): paired_differences(a.scores, other.scores) for a in arms if a is not other}
            judged += [(level, arm.name) for arm in arms if arm.kind == "colearned"]
    estimates: dict[tuple[Level, str], Estimate] = {}
    for family in (judged, *([key] for key in paired if key not in judged)):
        found = paired_estimates([paired[key] for key in family], confidence, reach)
        estimates.update(zip(family, found, strict=True))
    return {
        key: replace(estimate, sign_flip_p_value=sign_flip_p_value(paired[key])) if len(paired[key]) > 1 else estimate
        for key, estimate in estimates.items()
    }


def _finding(kind: Kind, gain: Estimate | None, over_null: Estimate | None, n_seeds: int) -> Finding | None:
    if kind != "colearned" or gain is None:
        return None
    if n_seeds == 1:
        return "one seed"
    if gain.by_seed:
        return "undecided"
    if gain.is_loss:
        return "harm"
    if not gain.is_gain:
        return "no reliable difference"
    if over_null is None:
        return "no null control"
    if over_null.by_seed:
        return "undecided"
    if over_null.low is None and over_null.mean > 0:  # the same at every seed
        return "no reliable difference"
    return "helped" if over_null.is_gain else "no more than a null control"


def _capital(sentence: str) -> str:
    return sentence[0].upper() + sentence[1:]


def _p_values(arm: ArmResult) -> str:
    p_values = [d.sign_flip_p_value for d in (arm.to_baseline, arm.to_null) if d is not None]
    return " and ".join(f"{p_value:.3g}" for p_value in p_values)
