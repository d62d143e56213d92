"""What finished runs say, as text for a terminal: the arms' table and verdict, by modality before the fused prediction."""

from collections.abc import Mapping, Sequence
from typing import Any

from hf_colearn.analysis.report.by_modality import compare_parts, modality_table, parts_text
from hf_colearn.analysis.runs import Run, at_one_level
from hf_colearn.analysis.statistics.compare import Comparison
from hf_colearn.analysis.statistics.levels import LevelComparisons
from hf_colearn.utils.tables import text_table


BY_MODALITY = (
    "By modality, by subset, and last fused, in %, means over the seeds. A modality's column is its own head's (of an arm of "
    "that modality alone, its model's); 'given' is the fused prediction where only these are present."
)


def summary(
    runs: Sequence[Run], comparison: Comparison | LevelComparisons, experiment: Mapping[str, Any], level: str = ""
) -> str:
    """What a recipe prints in the end, and `hf-colearn report` of anybody's runs.

    The `experiment` is what `experiment.json` says: `title`, `dataset`, `published`, as far as they are known; the `level` is
    that of all arms, where their names are without it.
    """
    title = ": ".join(experiment[name] for name in ("title", "dataset") if experiment.get(name))
    runs, of_names = at_one_level(runs)
    title = ", ".join(filter(None, (title, level or of_names)))
    parts = [f"{title + ', ' if title else ''}{len(runs[0].labels):,} test samples\n"]
    by_modality = modality_table(runs, comparison.metric)
    if by_modality and isinstance(comparison, Comparison):
        parts.append(f"{BY_MODALITY}\n\n{by_modality}\n")
        compared = compare_parts(runs, comparison.metric, comparison.source)
        parts.append(f"{parts_text(compared, text_table)}\n\nBy the fused prediction of all modalities:\n")
    parts.append(comparison.table())
    if comparison.verdict:
        parts.append(comparison.verdict)
    if experiment.get("published"):
        parts.append(f"Published: {experiment['published']}")
    return "\n".join(parts)
