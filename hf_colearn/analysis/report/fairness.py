"""Section of a report: who gained and who lost, by class and by group, and how well is an arm calibrated?

Where a sample may have several labels, F1 by label; of a regression, what was predicted over what is true.
"""

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np

from hf_colearn.analysis.plots.calibration import plot_reliability
from hf_colearn.analysis.plots.comparisons import plot_class_changes
from hf_colearn.analysis.plots.predictions import plot_predictions
from hf_colearn.analysis.report.class_names import readable
from hf_colearn.analysis.report.merged_results import MergedResults
from hf_colearn.analysis.report.page import Section, Table
from hf_colearn.analysis.runs import Run
from hf_colearn.analysis.statistics.calibration import Reliability, reliability
from hf_colearn.analysis.statistics.changes import (
    MIN_SAMPLES,
    Changes,
    per_class_changes,
    per_group_changes,
    per_label_changes,
)
from hf_colearn.analysis.statistics.estimates import points


BINS = 15  # of a reliability diagram
MOST_OUTPUTS = 4  # of a regression that are drawn
MOST_ROWS = 12  # of gains, and as many of losses, in a table of classes


def section_fairness(results: MergedResults) -> Section | None:
    """Who gained and who lost?"""
    baseline = results.first("baseline")
    compared = [run for run in results.first_seed if run.arm in results.shown and run is not baseline]
    if results.comparison is None or baseline is None or not compared:
        return None
    if baseline.problem_type == "regression":
        return _section_predictions(results, baseline, *compared)
    section = Section("fairness", "Who gained and who lost")
    by = "class" if baseline.problem_type == "single_label_classification" else "label"
    arms = " and ".join(repr(run.arm) for run in compared)
    section.lead = f"{arms} against '{baseline.arm}', {by} by {by}, on the test set."
    names = readable(baseline.facts.get("class_names"))
    if by == "label":
        every = names or [str(c) for c in range(baseline.labels.shape[1])]
        with section.error_notes("Changes by label"):
            found = _of_arms(results, compared, baseline, partial(per_label_changes, names=every))
            _add_changes(section, found, "labels", "labels", "F1")
        section.notes.append("No changes by group and no calibration: both are of predictions of one class a sample.")
        return section
    with section.error_notes("Changes by class"):
        found = _of_arms(results, compared, baseline, partial(per_class_changes, class_names=names))
        _add_changes(section, found, "classes", "classes")
    groups = {name: groups_N for run in (*compared, baseline) for name, groups_N in run.groups.items()}
    for name, groups_N in groups.items():
        with section.error_notes(f"Changes by {name}"):
            found = _of_arms(results, compared, baseline, partial(per_group_changes, groups_N=groups_N))
            _add_changes(section, found, f"by_{name}", f"groups of {name}")
    _add_calibration(section, results)
    return section


def _of_arms(
    results: MergedResults, compared: Sequence[Run], baseline: Run, changes: Callable[..., Changes]
) -> dict[str, Changes]:
    """The changes from the baseline, by arm."""
    before = [run.predictions for run in results.arms[baseline.arm]]
    return {
        run.arm: changes([each.predictions for each in results.arms[run.arm]], before, baseline.labels)
        for run in compared
    }


def _section_predictions(results: MergedResults, *runs: Run) -> Section:
    """Predicted over true values of a regression, an output and an arm at a time."""
    section = Section("predictions", "Predicted and true values", "First seed, on the test set.")
    section.notes.append("No changes by class or group and no calibration: a regression has no classes.")
    true_NC = runs[0].labels.reshape(len(runs[0].labels), -1)
    predicted = {run.arm: run.predictions.reshape(len(run.labels), -1) for run in runs}
    for c in range(min(MOST_OUTPUTS, true_NC.shape[1])):
        is_known_N = ~np.isnan(true_NC[:, c])
        true_N = true_NC[is_known_N, c]
        of_arms = {arm: values_NC[is_known_N, c] for arm, values_NC in predicted.items()}
        together = np.concatenate([true_N, *of_arms.values()])
        limits = float(together.min()), float(together.max())
        for number, (arm, values_N) in enumerate(of_arms.items()):
            draw = partial(plot_predictions, true_N, values_N, arm, results.styles[arm], limits)
            row = f"Output {c}" if true_NC.shape[1] > 1 else ""
            alt = f"Predicted over true values of '{arm}'"
            section.add_picture(f"predictions_{c}_{number}", draw, alt, "On the line they are equal.", row)
    if (more := true_NC.shape[1] - MOST_OUTPUTS) > 0:
        section.notes.append(f"{more} more outputs are not drawn.")
    return section


def _add_changes(section: Section, found: dict[str, Changes], name: str, what: str, score: str = "accuracy") -> None:
    """A table of all arms, by the changes of the first, and a picture an arm."""
    first = next(iter(found.values()))
    section.notes.extend(dict.fromkeys(note for of_arm in found.values() for note in of_arm.notes))
    extremes = {"baseline": first.baseline, **{arm: of_arm.arm for arm, of_arm in found.items()}}
    rows = []
    for arm, of in extremes.items():
        if of is not None:
            worst, best, gap = (f"{100 * value:.1f}" for value in (of.worst_accuracy, of.best_accuracy, of.gap))
            rows.append([arm, f"{of.worst} ({worst})", f"{of.best} ({best})", gap])
    if rows:
        section.tables.append(Table(["arm", "worst [%]", "best [%]", "gap [pp]"], rows, f"The extremes among {what}"))
    by_name = [{change.name: change for change in of_arm.changes} for of_arm in found.values()]
    rows = []
    for change in first.changes:
        cells = [change.name, f"{change.samples:,}", f"{100 * change.baseline_accuracy:.1f}"]
        for changes_by_name in by_name:
            mine = changes_by_name[change.name]
            cells += [f"{100 * mine.accuracy:.1f}", points(mine.difference)]
        rows.append(cells)
    if len(rows) > 2 * MOST_ROWS:
        rows = [*rows[:MOST_ROWS], *rows[-MOST_ROWS:]]
        section.notes.append(f"The table has the {MOST_ROWS} largest gains and losses of {len(first.changes)} {what}.")
    of_arms = [("arm [%]", "change [pp]")] if len(found) == 1 else [(f"{arm} [%]", "change [pp]") for arm in found]
    header = [what, "test samples", "baseline [%]", *(cell for pair in of_arms for cell in pair)]
    means = f"means over {first.n_seeds} seeds" if first.n_seeds > 1 else "1 seed"
    section.tables.append(Table(header, rows, f"{score[:1].upper()}{score[1:]} of {what}, {means}"))
    for number, (arm, of_arm) in enumerate(found.items()):
        drawn = [change for change in of_arm.changes if change.samples >= MIN_SAMPLES] or list(of_arm.changes)
        names, counts = [change.name for change in drawn], [change.samples for change in drawn]
        changes, intervals = [c.difference.mean for c in drawn], [(c.difference.low, c.difference.high) for c in drawn]
        low, high = np.array(intervals, dtype=float).T if of_arm.n_seeds > 1 else (None, None)
        draw = partial(plot_class_changes, names, changes, low, high, counts, what=what, score=score, arm=arm)
        ending = f"_{number + 1}" if number else ""
        section.add_picture(f"changes_{name}{ending}", draw, f"Change of {score} of {what}, '{arm}'")


def _add_calibration(section: Section, results: MergedResults) -> None:
    found = [run.confidences for runs in results.arms.values() for run in runs]
    counts = [len(one) for one in found if one is not None and one.ndim]
    fewest = min(counts, default=BINS)
    if fewest < BINS:
        section.notes.append(f"No calibration: its {BINS} bins need as many test samples, and there are {fewest}.")
        return
    curves: dict[str, Reliability] = {}
    rows = []
    for arm, runs in results.arms.items():
        with section.error_notes(f"Calibration of '{arm}'"):
            each = [reliability(run.confidences, run.predictions == run.labels, BINS) for run in runs]
            errors = [one.error for one in each]
            over = np.mean([one.confidence - one.accuracy for one in each])
            section.numbers.setdefault("calibration_error", {})[arm] = errors
            rows.append([arm, f"{100 * np.mean(errors):.2f}", f"{100 * over:+.2f}"])
            if arm in {run.arm for run in results.first_seed} and len(curves) < 4:
                curves[arm] = each[0]
    if rows:
        caption = (
            f"Expected calibration error, {BINS} bins (Guo et al., 2017), and how far confidence is above accuracy"
        )
        section.tables.append(Table(["arm", "ECE [pp]", "overconfidence [pp]"], rows, caption))
    if curves:
        alt = f"Accuracy against confidence of {', '.join(map(repr, curves))}, first seed"
        caption = "First seed. On the diagonal, confidence is as high as accuracy."
        section.add_picture("calibration", partial(plot_reliability, curves, results.styles), alt, caption)
