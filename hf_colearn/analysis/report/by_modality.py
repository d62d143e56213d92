"""The arms of several modalities, each modality and subset by itself: what is deployed alone is not the fused score.

A modality is scored by its own head, and held against the modality trained alone. The joint arms (the baseline and the
co-learned ones) are corrected for their number by Holm's procedure, once in every modality.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from hf_colearn.analysis.runs import Run, by_arm, compare_runs, means_table
from hf_colearn.analysis.statistics.compare import Comparison
from hf_colearn.analysis.statistics.estimates import (
    Estimate,
    paired_differences,
    paired_estimates,
    points,
    score_limits,
)
from hf_colearn.utils.tables import markdown_table


@dataclass(frozen=True)
class PartComparison:
    """The arms on one modality, or on one subset of the modalities.

    Args:
        name (`str`): A modality's, or such as `"given image audio"`.
        comparison ([`~hf_colearn.analysis.statistics.compare.Comparison`]): Of the score of this part.
        alone (`str`, *optional*): The arm of this modality alone.
        to_alone (`dict[str, Estimate]`): By arm, the difference to that.
    """

    name: str
    comparison: Comparison
    alone: str | None
    to_alone: dict[str, Estimate]

    @property
    def is_head(self) -> bool:
        """Whether it is a modality by its own head, and no subset."""
        return not self.name.startswith("given ")

    def rows(self) -> list[list[str]]:
        """The comparison's cells, and a column of the differences to the modality alone."""
        header, *rows = self.comparison.rows()
        if self.alone is None:
            return [header, *rows]
        column = [points(self.to_alone.get(row[0])) for row in rows]
        return [[*header, f"vs '{self.alone}' [pp]"], *([*row, cell] for row, cell in zip(rows, column, strict=True))]

    @property
    def verdict(self) -> str:
        """What helped against the baseline and the null control, and which joint arms are better than the modality alone."""
        found = [self.comparison.headline] if self.comparison.findings else []
        return f"{self.name}: {' '.join([*found, *self._against_alone()]) or 'there is nothing to judge.'}"

    @property
    def better_than_alone(self) -> list[str]:
        """The joint arms that are reliably better than the modality alone."""
        joint = [arm.name for arm in self.comparison.arms if arm.kind in ("baseline", "colearned")]
        return [name for name in joint if name in self.to_alone and self.to_alone[name].is_gain]

    @property
    def is_undecided(self) -> bool:
        """Whether so few seeds settle nothing of a joint arm against the modality alone."""
        joint = [arm.name for arm in self.comparison.arms if arm.kind in ("baseline", "colearned")]
        return any(self.to_alone[name].by_seed for name in joint if name in self.to_alone)

    @property
    def headline(self) -> str:
        """Whether any joint arm is better than the modality alone, or where that was not trained, what the comparison says."""
        if self.alone is None or self.comparison.n_seeds == 1:
            return f"'{self.name}' by itself: {self.comparison.headline}"
        if better := ", ".join(map(repr, self.better_than_alone)):
            return f"Better than '{self.alone}': {better}."
        if self.is_undecided:
            return f"Undecided, {self.comparison.n_seeds} seeds settle nothing: is a joint arm better than '{self.alone}'?"
        return f"No joint arm is better than '{self.alone}'."

    def _against_alone(self) -> list[str]:
        if self.alone is None or self.comparison.n_seeds == 1:
            return []
        alone = next(arm for arm in self.comparison.arms if arm.name == self.alone)
        joint = [arm.name for arm in self.comparison.arms if arm.kind in ("baseline", "colearned")]
        groups: dict[str, list[str]] = {"better": [], "worse": [], "no reliable difference": [], "undecided": []}
        for name in joint:
            gain = self.to_alone[name]
            group = "better" if gain.is_gain else "worse" if gain.is_loss else "no reliable difference"
            group = "undecided" if gain.by_seed else group
            groups[group].append(f"'{name}' {points(gain)} pp")
        parts = [f"{group}: {', '.join(names)}" for group, names in groups.items() if names]
        none = "" if groups["better"] or groups["undecided"] else "no joint arm is better; "
        return [f"Against '{self.alone}' ({100 * alone.mean.mean:.2f} %): {none}{'; '.join(parts)}."]


def compare_parts(runs: Sequence[Run], metric: str, source: str = "pairing") -> list[PartComparison]:
    """The arms by modality, and then by subset; none where no model has several modalities.

    A part is left out where the baseline was not scored on it, or nothing else was.
    """
    with_own = _with_own_scores(runs, metric)
    parts = []
    for key, name in _parts(runs, metric).items():
        scored = [run for run in with_own if key in run.metrics]
        if len(by_arm(scored)) < 2 or len({run.arm for run in scored if run.kind == "baseline"}) != 1:
            continue
        comparison = compare_runs(scored, key, source)
        alone = next((run.arm for run in scored if run.facts.get("modality") == name.removeprefix("given ")), None)
        parts.append(PartComparison(name, comparison, alone, {} if alone is None else _differences(comparison, alone)))
    return parts


def modality_table(runs: Sequence[Run], metric: str = "accuracy") -> str | None:
    """The cells of [`modality_rows`] in Markdown; None where no model has several modalities."""
    rows = modality_rows(runs, metric)
    return markdown_table(rows) if rows else None


def modality_rows(runs: Sequence[Run], metric: str = "accuracy") -> list[list[str]]:
    """Every arm's metric in percent, by each modality's own head, by each subset, and last fused; the header first.

    Means over the seeds; the test samples are those that have the modality. An arm of one modality stands in its column.
    Empty where no model has several modalities.
    """
    names = _parts(runs, metric)
    if not names:
        return []
    heads = {key: name for key, name in names.items() if not name.startswith("given ")}
    shown = [
        replace(run, metrics={key: value for key, value in run.metrics.items() if key in heads})
        if "modality" in run.facts
        else run
        for run in _with_own_scores(runs, metric)
    ]
    return means_table(shown, {**names, metric: "fused"})


def main_parts(parts: Sequence[PartComparison]) -> list[PartComparison]:
    """The modalities by their own heads, or where there are no heads, the subsets."""
    return [part for part in parts if part.is_head] or list(parts)


def parts_text(parts: Sequence[PartComparison], table: Callable[[Sequence[Sequence[str]]], str]) -> str:
    """Verdict and table of every modality, then the verdicts of the subsets; `table` makes text of cells."""
    heads = [part for part in parts if part.is_head]
    subsets = [part.verdict for part in parts if not part.is_head]
    text = [f"By the head of '{part.name}' alone:\n\n{table(part.rows())}\n\n{part.verdict}" for part in heads]
    lines = "\n\n".join(subsets)
    return "\n\n".join([*text, *([f"By the fused prediction of a subset:\n\n{lines}"] if subsets else [])])


def _parts(runs: Sequence[Run], metric: str) -> dict[str, str]:
    """The metrics of the modalities' heads and of the subsets, in this order, with their names."""
    modalities = dict.fromkeys(name for run in runs for name in run.test.modality_latents)
    measured = dict.fromkeys(key for run in runs for key in run.metrics if "_on_" not in key)
    marker = f"{metric}_given_"
    heads = {f"{metric}_{name}": name for name in modalities if f"{metric}_{name}" in measured}
    subsets = [key for key in measured if modalities and key.startswith(marker)]
    return heads | {key: f"given {key.removeprefix(marker).replace('_', ' ')}" for key in subsets}


def _with_own_scores(runs: Sequence[Run], metric: str) -> list[Run]:
    """The runs, those of one modality with their score under its names, too."""
    return [
        replace(run, metrics=run.metrics | {f"{metric}_{m}": run.metrics[metric] for m in (name, f"given_{name}")})
        if (name := run.facts.get("modality")) and metric in run.metrics
        else run
        for run in runs
    ]


def _differences(comparison: Comparison, alone: str) -> dict[str, Estimate]:
    """Of every other arm to the modality alone; those of the joint arms are corrected together."""
    scores = {arm.name: arm.scores for arm in comparison.arms}
    joint = [arm.name for arm in comparison.arms if arm.kind in ("baseline", "colearned")]
    others = [name for name in scores if name not in (alone, *joint)]
    found: dict[str, Estimate] = {}
    lowest, highest = score_limits(comparison.metric, [score for of_arm in scores.values() for score in of_arm])
    for family in (joint, *([name] for name in others)):
        differences = [paired_differences(scores[name], scores[alone]) for name in family]
        estimates = paired_estimates(differences, comparison.confidence, highest - lowest)
        found.update(zip(family, estimates, strict=True))
    return found
