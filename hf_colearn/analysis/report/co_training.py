"""Section of a report: what did the rounds of self-training and co-training do?"""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from hf_colearn.analysis.plots.co_training import plot_rounds
from hf_colearn.analysis.plots.style import ArmStyle, seeds
from hf_colearn.analysis.report.merged_results import MergedResults
from hf_colearn.analysis.report.page import Section, Table
from hf_colearn.analysis.run import Run


FACT = "co_training"  # of a run: `rounds`, `kept`, `stopped`, and the `main` view
SCORED = ("test", "held_out")
_LEAD = (
    "In every round confident predictions become labels of the pool, and fresh students are fitted. Correct are the gained "
    "labels that agree with the hidden ones, which training does not see."
)


def section_co_training(results: MergedResults) -> Section | None:
    """What did the rounds of self-training and co-training do?"""
    arms = {arm: runs for arm, runs in results.arms.items() if all(FACT in run.facts for run in runs)}
    if not arms:
        return None
    series = {arm: _mean([_of_main_view(run) for run in runs]) for arm, runs in arms.items()}
    main = next(iter(arms.values()))[0].facts[FACT]["main"]
    number = seeds([len(runs) for runs in arms.values()])
    below = f"the student of {main}, mean of {number}"
    section = rounds_section(series, results.styles, "arm", below)
    for arm, runs in arms.items():
        stops = [run.facts[FACT]["stopped"] for run in runs]
        counts = ", ".join(f"{reason} ({stops.count(reason)})" for reason in dict.fromkeys(stops))
        section.notes.append(f"'{arm}' ended for {number}: {counts}.")
    return section


def rounds_section(
    series: Mapping[str, Mapping[str, Sequence[float | None]]],
    styles: Mapping[str, ArmStyle],
    of: str,
    below: str = "",
) -> Section:
    """A section on rounds, a line and a row each for every arm or view.

    Args:
        series (`Mapping`): By arm or view, of every round `labels`, `correct`, `accuracy` and, where it is known, `ensemble`.
        styles (`Mapping[str, ArmStyle]`): By arm or view.
        of (`str`): What the names are: `"arm"` or `"view"`.
        below (`str`, *optional*): What the figure says in its second line.
    """
    section = Section(FACT, "What the rounds did", _LEAD, has_arms_in_pictures=of == "arm")
    quantities = {"labels": "labels", "correct": "gained labels that are correct [%]", "accuracy": "accuracy [%]"}
    quantities["ensemble"] = "accuracy of the ensemble [%]"
    known = [
        key for key in quantities if any(value is not None for each in series.values() for value in each.get(key, ()))
    ]
    rows = [
        [name, str(number), *(_cell(key, each[key][number]) if key in each else "-" for key in known)]
        for name, each in series.items()
        for number in range(len(each["accuracy"]))
    ]
    section.tables.append(Table([of, "round", *(quantities[key] for key in known)], rows))
    pictures = {"accuracy": ("Accuracy", "accuracy [%]"), "correct": ("Gained labels", "that are correct [%]")}
    for key, (heading, ylabel) in pictures.items():
        if key in known or key == "accuracy":
            draw = partial(plot_rounds, series, key, ylabel, styles, heading=heading, below=below)
            alt = f"{heading}, {ylabel}, after every round, a line {'an' if of == 'arm' else 'a'} {of}"
            section.add_picture(f"{FACT}_{key}", draw, alt, row="Round by round")
    section.numbers["rounds"] = {name: dict(each) for name, each in series.items()}
    return section


def view_series(rounds: Sequence[Mapping[str, Any]], view: str) -> dict[str, list[float | None]]:
    """What the rounds of one co-training came to for a view; accuracies are of the test set, or else of what is held out."""
    part = next((name for name in SCORED if any(record.get(name) for record in rounds)), "")
    return {
        "labels": [record["labels"].get(view) for record in rounds],
        "correct": [record["correct"].get(view) for record in rounds],
        "accuracy": [record.get(part, {}).get(view) for record in rounds],
    }


def _of_main_view(run: Run) -> dict[str, list[float | None]]:
    """Of a run's main view, the rounds up to the kept one."""
    known = run.facts[FACT]
    rounds = known["rounds"][: known["kept"] + 1]
    ensemble = view_series(rounds, "ensemble")["accuracy"]
    return {**view_series(rounds, known["main"]), "ensemble": ensemble}


def _mean(runs: Sequence[Mapping[str, Sequence[float | None]]]) -> dict[str, list[float | None]]:
    """The mean over seeds, in every round; a run that ended earlier stays at its last one."""
    longest = max(len(run["accuracy"]) for run in runs)
    means: dict[str, list[float | None]] = {}
    for key in runs[0]:
        columns = zip(*([*run[key], *[run[key][-1]] * (longest - len(run[key]))] for run in runs), strict=True)
        of_rounds = [[value for value in column if value is not None] for column in columns]
        means[key] = [float(np.mean(values)) if values else None for values in of_rounds]
    return means


def _cell(key: str, value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.0f}" if key == "labels" else f"{100 * value:.1f}"
