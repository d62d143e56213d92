"""Section of a report: who gained and who lost, by class and by group, and how well is an arm calibrated?"""

from functools import partial

import numpy as np

from hf_colearn.analysis.plots.calibration import plot_reliability
from hf_colearn.analysis.plots.comparisons import plot_class_changes
from hf_colearn.analysis.report.merged_results import MergedResults
from hf_colearn.analysis.report.page import Section, Table
from hf_colearn.analysis.statistics.calibration import Reliability, reliability
from hf_colearn.analysis.statistics.changes import Changes, per_class_changes, per_group_changes
from hf_colearn.analysis.statistics.estimates import points


MOST_ROWS = 12  # of gains, and as many of losses, in a table of classes


def section_fairness(results: MergedResults) -> Section | None:
    """Who gained and who lost?"""
    baseline, first = results.first("baseline"), results.first("colearned")
    if results.comparison is None or first is None or baseline is None:
        return None
    section = Section("fairness", "Who gained and who lost")
    section.lead = (
        f"'{first.arm}', the first co-learned arm, against '{baseline.arm}', class by class, on the test set."
    )
    predicted, before = ([run.predictions for run in results.arms[arm]] for arm in (first.arm, baseline.arm))
    with section.error_notes("Changes by class"):
        by_class = per_class_changes(predicted, before, first.labels, first.facts.get("class_names"))
        _add_changes(section, by_class, "classes", "classes")
    for name, groups_N in first.groups.items():
        with section.error_notes(f"Changes by {name}"):
            by_group = per_group_changes(predicted, before, first.labels, groups_N)
            _add_changes(section, by_group, f"by_{name}", f"groups of {name}")
    _add_calibration(section, results)
    return section


def _add_changes(section: Section, found: Changes, name: str, what: str) -> None:
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
    section.tables.append(Table(header, rows, f"Accuracy of {what}, means over {found.n_seeds} seeds"))
    judged = [change for change in found.changes if change.difference.low is not None]
    drawn = judged or found.changes
    names, counts = [change.name for change in drawn], [change.samples for change in drawn]
    means, intervals = [c.difference.mean for c in drawn], [(c.difference.low, c.difference.high) for c in drawn]
    low, high = np.array(intervals, dtype=float).T if judged else (None, None)
    draw = partial(plot_class_changes, names, means, low, high, counts, what=what)
    section.add_picture(f"changes_{name}", draw, f"Change of accuracy of {what}")


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
