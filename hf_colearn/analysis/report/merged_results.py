"""What the sections of a report read: the runs of all arms, and their comparison."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hf_colearn.analysis.plots.projection import Method
from hf_colearn.analysis.plots.style import ArmStyle
from hf_colearn.analysis.report.by_modality import PartComparison
from hf_colearn.analysis.runs import Run, by_arm
from hf_colearn.analysis.statistics.compare import Comparison
from hf_colearn.analysis.statistics.levels import LevelComparisons


@dataclass(frozen=True)
class MergedResults:
    """What a section of the report is made of: runs of the same seeds in every arm, without a comparison where none holds.

    The source is `"teacher"` or `"pairing"`, the methods are those of projections, and shares are other test sets on which to
    be right is no merit, such as following a false cue. The parts are the modalities and subsets of multimodal arms.

    Of a sweep with a baseline at every level, runs, comparison and parts are those of one level, such as `"5 labels a class"`,
    and the levels are all. A section without a finding is None.
    """

    runs: Sequence[Run]
    comparison: Comparison | None
    styles: Mapping[str, ArmStyle]
    metric: str
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
        """The first run of the first arm of a kind: picked by order, not by score."""
        return next((run for run in self.runs if run.kind == kind), None)
