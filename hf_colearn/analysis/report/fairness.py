"""Section of a report: who gained and who lost, by class and by group, and how well is an arm calibrated?

Where a sample may have several labels, F1 by label; of a regression, what was predicted over what is true.
"""

from functools import partial

import numpy as np

from hf_colearn.analysis.plots.calibration import plot_reliability
from hf_colearn.analysis.plots.comparisons import plot_class_changes
from hf_colearn.analysis.plots.predictions import plot_predictions
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


MOST_OUTPUTS = 4  # of a regression that are drawn
MOST_ROWS = 12  # of gains, and as many of losses, in a table of classes


def section_fairness(results: MergedResults) -> Section | None:
    """Who gained and who lost?"""
    baseline, first = results.first("baseline"), results.first("colearned")
    if results.comparison is None or first is None or baseline is None:
        return None
    if first.problem_type == "regression":
        return _section_predictions(results, baseline, first)
    section = Section("fairness", "Who gained and who lost")
    by = "class" if first.problem_type == "single_label_classification" else "label"
    section.lead = f"'{first.arm}', the first co-learned arm, against '{baseline.arm}', {by} by {by}, on the test set."
    predicted, before = ([run.predictions for run in results.arms[arm]] for arm in (first.arm, baseline.arm))
    if by == "label":
        with section.error_notes("Changes by label"):
            names = first.facts.get("class_names") or [str(c) for c in range(first.labels.shape[1])]
            by_label = per_label_changes(predicted, before, first.labels, names)
            _add_changes(section, by_label, "labels", "labels", "F1")
        section.notes.append("No changes by group and no calibration: both are of predictions of one class a sample.")
        return section
    with section.error_notes("Changes by class"):
        by_class = per_class_changes(predicted, before, first.labels, first.facts.get("class_names"))
        _add_changes(section, by_class, "classes", "classes")
    for name, groups_N in first.groups.items():
        with section.error_notes(f"Changes by {name}"):
            by_group = per_group_changes(predicted, before, first.labels, groups_N)
            _add_changes(section, by_group, f"by_{name}", f"groups of {name}")
    _add_calibration(section, results)
    return section


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


def _add_changes(section: Section, found: Changes, name: str, what: str, score: str = "accuracy") -> None:
    section.notes.extend(found.notes)
    if found.arm is not None and found.baseline is not None:
        rows = []
        for arm, of in (("baseline", found.baseline), ("co-learned", found.arm)):
            worst, best, gap = (f"{100 * value:.1f}" for value in (of.worst_accuracy, of.best_accuracy, of.gap))
            rows.append([arm, f"{of.worst} ({worst})", f"{of.best} ({best})", gap])
        section.tables.append(Table(["arm", "worst [%]", "best [%]", "gap [pp]"], rows, f"The extremes among {what}"))
    rows = []
    for change in found.changes:
        accuracies = (f"{100 * accuracy:.1f}" for accuracy in (change.baseline_accuracy, change.accuracy))
        rows.append([change.name, f"{change.samples:,}", *accuracies, points(change.difference)])
    if len(rows) > 2 * MOST_ROWS:
        rows = [*rows[:MOST_ROWS], *rows[-MOST_ROWS:]]
        section.notes.append(f"The table has the {MOST_ROWS} largest gains and losses of {len(found.changes)} {what}.")
    header = [what, "test samples", "baseline [%]", "arm [%]", "change [pp]"]
    means = f"means over {found.n_seeds} seeds" if found.n_seeds > 1 else "1 seed"
    caption = f"{score[:1].upper()}{score[1:]} of {what}, {means}"
    section.tables.append(Table(header, rows, caption))
    drawn = [change for change in found.changes if change.samples >= MIN_SAMPLES] or found.changes
    names, counts = [change.name for change in drawn], [change.samples for change in drawn]
    changes, intervals = [c.difference.mean for c in drawn], [(c.difference.low, c.difference.high) for c in drawn]
    low, high = np.array(intervals, dtype=float).T if found.n_seeds > 1 else (None, None)
    draw = partial(plot_class_changes, names, changes, low, high, counts, what=what, score=score)
    section.add_picture(f"changes_{name}", draw, f"Change of {score} of {what}")


def _add_calibration(section: Section, results: MergedResults) -> None:
    curves: dict[str, Reliability] = {}
    rows = []
    for arm, runs in results.arms.items():
        with section.error_notes(f"Calibration of '{arm}'"):
            each = [reliability(run.confidences, run.predictions == run.labels) for run in runs]
            errors = [one.error for one in each]
            over = np.mean([one.confidence - one.accuracy for one in each])
            section.numbers.setdefault("calibration_error", {})[arm] = errors
            rows.append([arm, f"{100 * np.mean(errors):.2f}", f"{100 * over:+.2f}"])
            if runs[0].kind in ("baseline", "colearned") and len(curves) < 4:
                curves[arm] = each[0]
    if rows:
        caption = "Expected calibration error, 15 bins (Guo et al., 2017), and how far confidence is above accuracy"
        section.tables.append(Table(["arm", "ECE [pp]", "overconfidence [pp]"], rows, caption))
    if curves:
        alt = "Accuracy against confidence of the baseline and the co-learned arms, first seed"
        caption = "First seed. On the diagonal, confidence is as high as accuracy."
        section.add_picture("calibration", partial(plot_reliability, curves, results.styles), alt, caption)
