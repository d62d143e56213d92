"""What finished runs say, as text for a terminal: the arms' table, the verdict, and every arm by modality."""

from collections.abc import Mapping, Sequence
from typing import Any

from hf_colearn.analysis.runs import Run, means_table
from hf_colearn.analysis.statistics.compare import Comparison
from hf_colearn.utils.tables import markdown_table


def summary(runs: Sequence[Run], comparison: Comparison, experiment: Mapping[str, Any]) -> str:
    """What a recipe prints in the end, and `hf-colearn report` of anybody's runs.

    The `experiment` is what `experiment.json` says: `title`, `dataset`, `published`, as far as they are known.
    """
    title = ": ".join(experiment[name] for name in ("title", "dataset") if experiment.get(name))
    parts = [f"{title + ', ' if title else ''}{len(runs[0].labels):,} test samples\n", comparison.table()]
    if comparison.verdict:
        parts.append(comparison.verdict)
    if by_modality := modality_table(runs, comparison.metric):
        parts.append(f"\n{by_modality}")
    if experiment.get("published"):
        parts.append(f"Published: {experiment['published']}")
    return "\n".join(parts)


def modality_table(runs: Sequence[Run], metric: str = "accuracy") -> str | None:
    """Every arm's metric in percent, of the fused prediction, of each modality's own head, and of each subset: Markdown.

    Means over the seeds; the test samples are those that have the modality. None where no model has several modalities.
    """
    if not any(run.test.modality_latents for run in runs):
        return None
    measured = dict.fromkeys(key for run in runs for key in run.metrics)
    keys = [key for key in measured if key.startswith(metric) and "_on_" not in key]
    names = {key: key.removeprefix(metric).removeprefix("_").replace("_", " ") or "fused" for key in keys}
    return markdown_table(means_table(runs, names))
