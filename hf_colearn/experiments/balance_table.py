"""The table of a comparison of balance methods: fused and by modality, against the label loss and the late ensemble, with
what a step costs."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hf_colearn.analysis.report.by_modality import modality_rows
from hf_colearn.analysis.runs import Run, by_arm, finite
from hf_colearn.analysis.statistics.compare import Arm, Comparison, Estimate, compare, compare_levels
from hf_colearn.analysis.statistics.estimates import beyond_what_is_possible, points
from hf_colearn.experiments.balance import LATE, BalanceArm
from hf_colearn.experiments.cost import step_seconds
from hf_colearn.experiments.settings import words_of
from hf_colearn.utils.tables import markdown_table, text_table


@dataclass(frozen=True)
class BalanceTable:
    """What the runs of the arms say.

    Args:
        plans (`Sequence[BalanceArm]`): The arms, in order.
        runs (`Sequence[Run]`): Of all of them, with the same seeds.
        notes (`Sequence[str]`): More to say of the arms.
        metric (`str`): What arms are compared on.
    """

    plans: Sequence[BalanceArm]
    runs: Sequence[Run]
    notes: Sequence[str] = ()
    metric: str = "accuracy"

    @property
    def late(self) -> list[str]:
        """The late ensembles to compare with: that of equal total updates, and the one with the highest mean."""
        means = {
            arm: np.mean([run.metrics[self.metric] for run in runs])
            for arm, runs in by_arm(self.runs).items()
            if arm.startswith(LATE)
        }
        best = max(means, key=lambda arm: means[arm], default=LATE)
        return [arm for arm in dict.fromkeys([LATE, best]) if arm in means]

    def to_label_loss(self) -> dict[str, Estimate]:
        """Of every arm but the label losses the difference to that of its own fusion where it was trained, or else to the
        baseline; those of the methods are corrected together."""
        baseline = next(plan.name for plan in self.plans if plan.kind == "baseline")
        trained = {plan.name for plan in self.plans}
        levels: dict[str, list[Arm]] = {}
        for plan in self.plans:
            against = plan.baseline if plan.baseline in trained else baseline
            if against not in levels:
                levels[against] = [self._arm(against, "baseline")]
            if plan.name != against:
                levels[against].append(self._arm(plan.name, plan.kind))
        levels = {against: arms for against, arms in levels.items() if len(arms) > 1}
        return _differences(compare_levels(levels, metric=self.metric)) if levels else {}

    def to_late_ensemble(self, late: str) -> dict[str, Estimate]:
        """Of every other arm the difference to a late ensemble; those of the methods are corrected together."""
        others = [
            self._arm(plan.name, "reference" if plan.kind == "baseline" else plan.kind)
            for plan in self.plans
            if plan.name != late
        ]
        return _differences({"": compare([self._arm(late, "baseline"), *others], metric=self.metric)})

    def steps(self) -> dict[str, float]:
        """What a training step costs beside the baseline's: the median over seeds of the ratios."""
        baseline = next(plan.name for plan in self.plans if plan.kind == "baseline")
        plain = {run.seed: step_seconds(run.history) for run in by_arm(self.runs)[baseline]}
        return {
            arm: float(np.median([step_seconds(run.history) / plain[run.seed] for run in runs]))
            for arm, runs in by_arm(self.runs).items()
        }

    def rows(self) -> list[list[str]]:
        """The table's cells, the header first."""
        heads, *by_modality = modality_rows(self.runs, self.metric)
        shown = [i for i, name in enumerate(heads) if i and name != "fused" and not name.startswith("given ")]
        cells = {row[0]: [row[i] for i in shown] for row in by_modality}
        to_loss, to_late, steps = self.to_label_loss(), [*map(self.to_late_ensemble, self.late)], self.steps()
        late = [f"vs {name} [pp]" for name in self.late]
        header = ["arm", "kind", f"{self.metric} [%]", *(heads[i] for i in shown), "vs ce [pp]", *late]
        rows = [[*header, "step", "setting"]]
        for plan in self.plans:
            scores = [run.metrics[self.metric] for run in by_arm(self.runs)[plan.name]]
            fused = "-" if plan.modality is not None else f"{100 * np.mean(scores):.2f}"
            against = [points(differences.get(plan.name)) for differences in to_late]
            rows.append(
                [
                    plan.name,
                    plan.kind,
                    fused,
                    *cells[plan.name],
                    points(to_loss.get(plan.name)),
                    *against,
                    f"{steps[plan.name]:.2f}",
                    words_of(plan.setting),
                ]
            )
        return rows

    def sentences(self) -> list[str]:
        """What the table says, and what a reader of it must know."""
        seeds = len({run.seed for run in self.runs})
        notes = [
            f"{seeds} seed{'s' if seeds > 1 else ''}. A modality's column is its own head's accuracy; of an arm of that "
            "modality alone, its model's. 'step' is what a training step takes beside the baseline's: the median over seeds "
            "of the ratios. A rate is relative to the recipe's learning rate.",
            "'vs ce' is against the label loss with the arm's own fusion where that was trained, or else the baseline's.",
        ]
        if len(self.late) > 1:
            notes.append(
                f"'{self.late[-1]}' is the late ensemble with the highest mean; picking it afterwards favours the reference."
            )
        if seeds > 1:
            notes.append(
                "Brackets are t-intervals of differences paired by seed; those of the methods are corrected for their number "
                "(Holm), once in each column."
            )
            notes += self._verdicts()
        return [*notes, *self.notes]

    def _verdicts(self) -> list[str]:
        methods = [plan.name for plan in self.plans if plan.kind == "colearned"]
        found = []
        columns = {"the label loss (ce)": self.to_label_loss()}
        columns |= {f"'{late}'": self.to_late_ensemble(late) for late in self.late}
        for what, differences in columns.items():
            known = [name for name in methods if name in differences]
            if not known:
                continue
            for word, is_so in (("better", "is_gain"), ("worse", "is_loss")):
                names = [f"{name} {points(differences[name])}" for name in known if getattr(differences[name], is_so)]
                found.append(f"Of {len(known)} methods {word} than {what}: {'; '.join(names) or 'none'}.")
            if any(differences[name].by_seed for name in known):
                found.append(beyond_what_is_possible(len({run.seed for run in self.runs})))
        return found

    def text(self) -> str:
        """For a terminal."""
        return "\n".join([text_table(self.rows()), "", *self.sentences()])

    def write(self, folder: str | Path, title: str) -> list[Path]:
        """`balance.md`, the table, and `balance.json`, its numbers as fractions."""
        folder = Path(folder)
        lines = [f"# {title}", "", markdown_table(self.rows()), "", *(f"- {note}" for note in self.sentences())]
        files = [folder / "balance.md", folder / "balance.json"]
        files[0].write_text("\n".join([*lines, ""]))
        numbers = {
            "settings": {plan.name: dict(plan.setting) for plan in self.plans},
            "to_label_loss": _plain(self.to_label_loss()),
            "to_late_ensemble": {late: _plain(self.to_late_ensemble(late)) for late in self.late},
            "steps": self.steps(),
        }
        files[1].write_text(json.dumps(finite(numbers), indent=1))
        return files

    def _arm(self, name: str, kind: Any) -> Arm:
        return Arm(name, kind, [run.metrics[self.metric] for run in by_arm(self.runs)[name]])


def _differences(comparisons: Mapping[Any, Comparison]) -> dict[str, Estimate]:
    return {
        arm.name: arm.to_baseline
        for comparison in comparisons.values()
        for arm in comparison.arms
        if arm.to_baseline is not None
    }


def _plain(differences: Mapping[str, Estimate]) -> dict[str, dict[str, Any]]:
    return {name: vars(estimate) for name, estimate in differences.items()}
