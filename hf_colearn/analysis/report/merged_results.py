"""What the sections of a report read: the runs of all arms, and their comparison."""

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_args

import numpy as np

from hf_colearn.analysis.plots.projection import Method
from hf_colearn.analysis.plots.style import ArmStyle
from hf_colearn.analysis.report.by_modality import PartComparison
from hf_colearn.analysis.runs import Run, by_arm
from hf_colearn.analysis.statistics.compare import Comparison, Kind
from hf_colearn.analysis.statistics.levels import LevelComparisons


KINDS = get_args(Kind)


@dataclass(frozen=True)
class MergedResults:
    """What a section of the report is made of: runs of the same seeds in every arm, without a comparison where none holds.

    The shown arms are those of maps and of tables of classes. The source is `"teacher"` or `"pairing"`, the methods are those
    of projections, and shares are other test sets on which to be right is no merit, such as following a false cue. The parts
    are the modalities and subsets of multimodal arms.

    Of a sweep with a baseline at every level, runs, comparison and parts are those of one level, such as `"5 labels a class"`,
    and the levels are all. A section without a finding is None.
    """

    runs: Sequence[Run]
    comparison: Comparison | None
    styles: Mapping[str, ArmStyle]
    metric: str
    shown: Sequence[str]
    source: str
    methods: Sequence[Method]
    shares: Sequence[str] = ()
    parts: Sequence[PartComparison] = ()
    levels: LevelComparisons | None = None
    level: str = ""

    @property
    def arms(self) -> dict[str, list[Run]]:
        """The runs of every arm, by seed."""
        return by_arm(self.runs)

    @property
    def logs(self) -> dict[str, list[list[dict[str, Any]]]]:
        """The log histories of every arm, as they are."""
        return {arm: [run.history for run in runs] for arm, runs in self.arms.items()}

    def first(self, kind: str) -> Run | None:
        """The first seed's run of the first shown arm of a kind, or of the baseline."""
        return next((run for run in self.first_seed if run.kind == kind), None)

    @property
    def first_seed(self) -> list[Run]:
        """The first seed's run of the baseline, and of every shown arm."""
        firsts = [runs[0] for runs in self.arms.values()]
        baseline = [run for run in firsts if run.kind == "baseline"]
        return baseline + [run for arm in self.shown for run in firsts if run.arm == arm and run not in baseline]


def arms_to_show(arms: Mapping[str, Sequence[Run]], metric: str, chosen: Sequence[str] | None = None) -> list[str]:
    """The chosen arms, or else the baseline, the co-learned arm and the null control with the highest means.

    Raises:
        ValueError: If there is no arm of a chosen name.
    """
    for name in chosen or ():
        if name not in arms:
            near = difflib.get_close_matches(name, arms, n=1)
            guess = f"did you mean '{near[0]}'? " if near else ""
            raise ValueError(f"there is no arm '{name}': {guess}The runs are of {', '.join(map(repr, arms))}.")
    if chosen:
        return list(dict.fromkeys(chosen))

    def mean(arm: str) -> float:
        scores = [run.metrics[metric] for run in arms[arm] if np.isfinite(run.metrics.get(metric, np.nan))]
        return float(np.mean(scores)) if scores else -np.inf

    of_kind = {kind: [arm for arm, runs in arms.items() if runs[0].kind == kind] for kind in KINDS}
    best = [max(names, key=mean) for kind, names in of_kind.items() if names and kind != "reference"]
    return best or list(arms)[:3]
