"""What the sections of a report read: the runs of all arms, and their comparison."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from hf_colearn.analysis.plots.projection import Method
from hf_colearn.analysis.plots.style import ArmStyle
from hf_colearn.analysis.runs import Run
from hf_colearn.analysis.statistics.compare import Comparison


@dataclass(frozen=True)
class MergedResults:
    """The results of several runs; a section is a function of them that returns a `Section`, or None without a finding.

    Args:
        runs (`list[Run]`): Those that are compared: every arm with the same seeds.
        comparison (`Comparison`, *optional*): None where the arms cannot be compared.
        styles (`Mapping[str, ArmStyle]`): One style an arm.
        metric (`str`): What the arms are compared on.
        source (`str`): `"teacher"` or `"pairing"`.
        methods (`Sequence[str]`): Of projections: `"pca"`, `"tsne"`, `"umap"`.
        shares (`Sequence[str]`): Of other test sets on which to be right is no merit, such as following a false cue.
    """

    runs: Sequence[Run]
    comparison: Comparison | None
    styles: Mapping[str, ArmStyle]
    metric: str
    source: str
    methods: Sequence[Method]
    shares: Sequence[str] = ()

    @property
    def arms(self) -> dict[str, list[Run]]:
        """The runs of every arm, by seed."""
        return {
            arm: [run for run in self.runs if run.arm == arm] for arm in dict.fromkeys(run.arm for run in self.runs)
        }

    @property
    def logs(self) -> dict[str, list[list[dict[str, Any]]]]:
        """The log histories of every arm, as they are."""
        return {arm: [run.history for run in runs] for arm, runs in self.arms.items()}

    def first(self, kind: str) -> Run | None:
        """The first run of the first arm of a kind: picked by order, not by score."""
        return next((run for run in self.runs if run.kind == kind), None)


def mean_percent(runs: Sequence[Run], metric: str) -> str:
    """The mean of a metric over those runs that have it, as in `82.91`."""
    scores = [run.metrics[metric] for run in runs if metric in run.metrics]
    return f"{100 * np.mean(scores):.2f}" if scores else "-"
