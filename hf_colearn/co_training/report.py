"""The page of one co-training: labels gained, how many are right, and accuracies, round by round."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

from hf_colearn.co_training.rounds import ENSEMBLE
from hf_colearn.co_training.views import HELD_OUT, TEST


if TYPE_CHECKING:
    from hf_colearn.co_training.result import CoTrainingResult


def write_report(folder: Path, result: "CoTrainingResult") -> list[Path]:
    """Writes `report.html`, `report.md`, `report.json` and `figures/`, which it returns. For the main process."""
    from hf_colearn.analysis.plots.balance import modality_styles  # needs the extra `report`
    from hf_colearn.analysis.report.co_training import rounds_section, view_series
    from hf_colearn.analysis.report.page import Page

    names = [*result.views, ENSEMBLE]
    series = {name: view_series(result.rounds, name) for name in names}
    styles = modality_styles(names)
    part = next((name for name in (TEST, HELD_OUT) if any(record.get(name) for record in result.rounds)), None)
    scored = "" if part is None else f"accuracies are of the {part.replace('_', '-')} set"
    section = rounds_section(series, styles, "view", scored)
    gained = ", ".join(
        f"{sum(r['gained'][view] for r in result.rounds[: result.kept + 1]):,} labels for {view}"
        for view in result.labels
    )
    conflicts = sum(sum(record["conflicts"].values()) for record in result.rounds)
    section.notes.append(f"{conflicts} predictions were left out, on which two views disagreed.")
    if harmed := [record["round"] for record in result.rounds if record["harmed"]]:
        section.notes.append(f"Round {harmed[0]} is undone: the students tell fewer of the held-out samples after it.")
    page = Page(
        title="Co-training" if len(result.views) > 1 else "Self-training",
        subtitle=f"views: {', '.join(result.views)}",
        headline=f"Kept is round {result.kept}: {result.stopped}.",
        tone="plain",
        verdict=[f"Gained were {gained}."],
        legend={},
        sections=[section],
        metadata={},
    )
    numbers = {"rounds": result.rounds, "kept": result.kept, "stopped": result.stopped, "fits": result.fits}
    file = folder / "report.json"
    file.write_text(json.dumps(numbers, indent=1))
    return [*page.save(folder), file]
