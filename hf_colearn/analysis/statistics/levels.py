"""At which levels of a sweep did the teacher help, such as at how many labels a class? Every level has a baseline of its own.

[`~hf_colearn.analysis.statistics.sweep`] has the other kind of sweep: levels of one arm beside a single baseline.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hf_colearn.analysis.statistics.compare import ArmResult, Comparison, Finding
from hf_colearn.analysis.statistics.estimates import (
    beyond_what_is_possible,
    hundredths,
    interval,
    percent,
    points,
)
from hf_colearn.utils.metric_names import pp, with_unit
from hf_colearn.utils.tables import markdown_table, text_table


def level_words(level: float, variable: str) -> str:
    """As in `5 labels a class`, and `1 label a class`.

    Example:

    ```python
    >>> from hf_colearn.analysis.statistics.levels import level_words

    >>> level_words(5, "labels a class"), level_words(1.0, "labels a class")
    ('5 labels a class', '1 label a class')
    ```
    """
    unit, *rest = variable.split(" ")
    return " ".join([f"{level:g}", unit.removesuffix("s") if level == 1 else unit, *rest])


@dataclass(frozen=True)
class LevelComparisons:
    """The arms at every level of a sweep, as [`~hf_colearn.analysis.statistics.compare.compare_levels`] found them.

    Args:
        variable (`str`): What is swept, in the plural: `"labels a class"`.
        levels (`Mapping[float, Comparison]`): Ascending; arms have the same names at every level, and at one level at least.
    """

    variable: str
    levels: Mapping[float, Comparison]

    def __repr__(self) -> str:
        return f"LevelComparisons({len(self.arms)} arms at {self._at(list(self.levels))}): {self.headline}"

    @property
    def first(self) -> Comparison:
        """That of the lowest level."""
        return next(iter(self.levels.values()))

    @property
    def metric(self) -> str:
        """What was compared."""
        return self.first.metric

    @property
    def source(self) -> str:
        """What a gain over the null controls is credited to."""
        return self.first.source

    @property
    def n_seeds(self) -> int:
        """Of every arm at every level."""
        return self.first.n_seeds

    @property
    def findings(self) -> dict[str, Finding]:
        """What was found of every co-learned arm at every level, by the name of both."""
        return {
            f"{arm}, {level_words(level, self.variable)}": finding
            for level, comparison in self.levels.items()
            for arm, finding in comparison.findings.items()
        }

    @property
    def arms(self) -> dict[str, dict[float, ArmResult]]:
        """Every arm at the levels at which it was trained."""
        arms: dict[str, dict[float, ArmResult]] = {}
        for level, comparison in self.levels.items():
            for arm in comparison.arms:
                arms.setdefault(arm.name, {})[level] = arm
        return arms

    @property
    def headline(self) -> str:
        """At which levels the teacher's content helped, and where it did harm."""
        if not self.findings:
            return "No arm was co-learned, so there is nothing to judge."
        if self.n_seeds == 1:
            return "One seed, so no claim."
        helped, harmed, undecided = (
            [level for level, comparison in self.levels.items() if finding in comparison.findings.values()]
            for finding in ("helped", "harm", "undecided")
        )
        open_at = [level for level in undecided if level not in helped]
        rest = [level for level in self.levels if level not in [*helped, *open_at]]
        told = []
        if helped:
            but = f", and not at {_listed([f'{level:g}' for level in rest])}" if rest else ""
            told.append(f"the {self.source}'s content helped at {self._at(helped)}{but}")
        elif rest:
            none = f"{'at none of' if len(rest) > 1 else 'not at'} {self._at(rest)}"
            told.append(f"{none} did the {self.source}'s content help beyond a null control")
        told += [f"co-learning did harm at {self._at(harmed)}"] if harmed else []
        told += [f"undecided at {self._at(open_at)}, where {self.n_seeds} seeds settle nothing"] if open_at else []
        sentence = "; ".join(told)
        return f"{sentence[0].upper()}{sentence[1:]}."

    @property
    def verdict(self) -> str:
        """One line a level: which arms have a gain over the baseline and over the best null control, and which have not."""
        return "\n".join(
            f"{level_words(level, self.variable)}: {_sentence(comparison)}"
            for level, comparison in self.levels.items()
            if comparison.findings
        )

    def rows(self) -> list[list[str]]:
        """Every arm's mean in percent with its interval at every level, the header first."""
        levels = [level_words(level, self.variable) for level in self.levels]
        rows = [["arm", "kind", *levels]]
        for name, at in self.arms.items():
            means = [at[level].mean if level in at else None for level in self.levels]
            cells = ["-" if m is None else f"{hundredths(m.mean, '')} {interval(m, '')}".rstrip() for m in means]
            rows.append([name, next(iter(at.values())).kind, *cells])
        return rows

    def gain_rows(self) -> list[list[str]]:
        """Every co-learned arm's differences in percentage points at every level, and what was found; the header first."""
        rows = [["arm", self.variable, "vs baseline [pp]", "vs best null [pp]", "best null", "finding"]]
        for level, comparison in self.levels.items():
            for arm in comparison.arms:
                if arm.finding is not None:
                    differences = points(arm.to_baseline), points(arm.to_null)
                    rows.append([arm.name, f"{level:g}", *differences, comparison.strongest_null or "-", arm.finding])
        return rows

    def notes(self) -> list[str]:
        """What a reader of the tables must know."""
        if self.n_seeds == 1:
            return [f"One seed: no intervals, so no claim. pp = {pp(self.metric)}."]
        count, confidence = self.first.num_judged, self.first.confidence
        notes = [
            f"{self.n_seeds} seeds; brackets are {percent(confidence)} t-intervals over seeds, differences are paired by "
            f"seed; pp = {pp(self.metric)}.",
            "The best null control is that with the highest mean at that level; picking it afterwards favours the control.",
        ]
        if count > 1:
            notes.append(
                f"All {count} differences of co-learned arms, at every level, are corrected for their number (Holm): the "
                f"chance of finding any where there is none is {percent(1 - confidence)} at most, once against the baseline "
                "and once against the best null control."
            )
        estimates = [
            e for at in self.arms.values() for arm in at.values() for e in (arm.mean, arm.to_baseline, arm.to_null)
        ]
        shown = [estimate for estimate in estimates if estimate is not None]
        if any(estimate.by_seed for estimate in shown):
            notes.append(beyond_what_is_possible(self.n_seeds))
        if any(estimate.low is None and not estimate.by_seed for estimate in shown):
            notes.append(
                "No bracket and no claim where a value is the same at every seed: nothing tells how certain it is."
            )
        return notes

    def table(self) -> str:
        """Both tables and the notes as plain text."""
        tables = [text_table(rows) for rows in (self.rows(), self.gain_rows())]
        return "\n".join([with_unit(self.metric), tables[0], "", tables[1], "", *self.notes()])

    def to_markdown(self) -> str:
        """The same in Markdown."""
        tables = [markdown_table(rows) for rows in (self.rows(), self.gain_rows())]
        return "\n".join(
            [f"{with_unit(self.metric)}\n\n{tables[0]}", "", tables[1], "", *(f"- {n}" for n in self.notes())]
        )

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain values, for JSON."""
        levels = [{"level": level, **comparison.to_dict()} for level, comparison in self.levels.items()]
        return {"variable": self.variable, "levels": levels, "verdict": self.verdict, "headline": self.headline}

    def _at(self, levels: Sequence[float]) -> str:
        """As in `2, 5 and 10 labels a class`."""
        *others, last = levels
        return _listed([*(f"{level:g}" for level in others), level_words(last, self.variable)])


def _sentence(comparison: Comparison) -> str:
    null = f"'{comparison.strongest_null}'"
    claims: dict[Finding, str] = {
        "helped": "a gain over the baseline and over the best null control",
        "no more than a null control": "a gain over the baseline, but no reliable one over the best null control",
        "no null control": "a gain over the baseline, and no null control was trained",
        "no reliable difference": "no reliable difference to the baseline",
        "harm": "harm",
        "undecided": f"undecided, since {comparison.n_seeds} seeds settle nothing",
        "one seed": "one seed has no interval, so no claim",
    }
    parts = []
    for finding, claim in claims.items():
        arms = [arm for arm in comparison.arms if arm.finding == finding]
        sizes = [f" ({points(arm.to_null)} pp over {null})" if finding == "helped" else "" for arm in arms]
        names = [f"'{arm.name}'{size}" for arm, size in zip(arms, sizes, strict=True)]
        parts += [f"{claim}: {', '.join(names)}"] if arms else []
    return "; ".join(parts) + "."


def _listed(words: Sequence[str]) -> str:
    *others, last = words
    return f"{', '.join(others)} and {last}" if others else last
