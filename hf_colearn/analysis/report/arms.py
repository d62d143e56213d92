"""Sections of a report: did the arms differ, on the test set, on other ones, and over the levels of a sweep?"""

from collections.abc import Sequence
from functools import partial

import numpy as np

from hf_colearn.analysis.plots.comparisons import plot_differences, plot_sweep
from hf_colearn.analysis.report.merged_results import MergedResults
from hf_colearn.analysis.report.page import Section, Table
from hf_colearn.analysis.runs import Run, by_arm, compare_runs, mean_percent, means_table
from hf_colearn.analysis.statistics.sweep import degradation
from hf_colearn.utils.metric_names import called, is_count, is_error, with_unit


def section_arms(results: MergedResults) -> Section:
    """Did the arms differ?"""
    section = Section("arms", "The arms by the fused prediction" if results.parts else "The arms")
    comparison = results.comparison
    if comparison is None:
        section.lead = "Each arm's own score; no difference between them is stated, for the reason above."
        header, *rows = rows_of_each(results.runs, results.metric)
        section.tables.append(Table(header, rows, "Every arm by itself: they are not compared."))
        return section
    section.lead = (
        f"{comparison.n_seeds} seed{'s' if comparison.n_seeds > 1 else ''} an arm, scored once on the test set."
    )
    if comparison.strongest_null is not None:
        section.lead += " Null controls have everything but the content: what they gain needs none."
    header, *rows = comparison.rows()
    section.tables.append(Table(header, rows))
    section.notes.extend(comparison.notes())
    alt = f"Differences of every arm to the baseline in percentage points. {comparison.headline}"
    has_bars = any(arm.to_baseline is not None and arm.to_baseline.low is not None for arm in comparison.arms)
    caption = "Where a bar does not touch the line at 0, the arm differs from the baseline." if has_bars else ""
    section.add_picture("differences", partial(plot_differences, comparison, results.styles), alt, caption)
    measured = dict.fromkeys(key for run in results.runs for key, value in run.metrics.items() if np.isfinite(value))
    shown = {results.metric, *(part.comparison.metric for part in results.parts)}
    keys = [key for key in measured if key not in shown and not is_count(key) and "_on_" not in key]
    if unread := dict.fromkeys(name for run in results.runs for name in run.facts.get("metrics_without_a_number", ())):
        section.notes.append(f"Measured, and no number: {', '.join(unread)}.")
    if keys:
        header, *rows = means_table(results.runs, {key: called(key) for key in keys})
        but = ", errors as they are" if any(map(is_error, keys)) else ""
        section.tables.append(Table(header, rows, f"Everything else that was measured, in %{but}, means over seeds"))
    return section


def rows_of_each(runs: Sequence[Run], metric: str) -> list[list[str]]:
    """The mean of every arm by itself, the header first."""
    rows = [["arm", "kind", "seeds", f"{with_unit(metric)}, mean"]]
    return rows + [[arm, of[0].kind, str(len(of)), mean_percent(of, metric)] for arm, of in by_arm(runs).items()]


def section_tests(results: MergedResults) -> Section | None:
    """Do the arms hold on other test sets?"""
    if results.comparison is None:
        return None
    section = Section("tests", "Other test sets")
    with section.error_notes("Other test sets"):
        marker = f"{results.metric}_on_"
        tests = {
            key.removeprefix(marker).replace("_", " "): compare_runs(results.runs, key, results.source)
            for key in results.runs[0].metrics
            if key.startswith(marker) and all(key in run.metrics for run in results.runs)
        }
        if not tests:
            return None
        section.lead = "The same runs on other test samples: means over seeds, in %."
        everything = {"test": results.comparison, **tests}
        rows = [
            [arm.name, *(f"{100 * comparison.arms[i].mean.mean:.2f}" for comparison in everything.values())]
            for i, arm in enumerate(results.comparison.arms)
        ]
        section.tables.append(Table(["arm", *everything], rows))
        shares = {name.replace("_", " ") for name in results.shares}
        for name, comparison in tests.items():
            if name in shares:
                section.notes.append(f"'{name}' is no score: it is how often an arm does so, and less is better.")
            else:
                section.notes.append(f"On '{name}': {comparison.headline}")
    return section


def section_sweep(results: MergedResults) -> Section | None:
    """Does the gain fall smoothly as the pairing gets worse?"""
    if results.levels is not None:  # whose levels have baselines of their own
        return None
    swept: dict[str, dict[float, list[Run]]] = {}
    for run in results.runs:
        if run.sweep is not None:
            variable, level = run.sweep
            swept.setdefault(variable, {}).setdefault(level, []).append(run)
    swept = {variable: by_level for variable, by_level in swept.items() if len(by_level) > 1}
    if not swept or results.comparison is None:
        return None
    section = Section("sweep", "How much pairing it takes")
    section.lead = "The same arm with less and less of it: does the score fall steadily, or at one step?"
    scores_of = {arm.name: arm.scores for arm in results.comparison.arms}
    baseline = scores_of[results.comparison.baseline]
    null = scores_of.get(results.comparison.strongest_null or "")
    for number, (variable, by_level) in enumerate(swept.items()):
        with section.error_notes(f"Sweep of the {variable}"):
            levels = sorted(by_level)
            scores = [[run.metrics[results.metric] for run in by_level[level]] for level in levels]
            draw = partial(plot_sweep, levels, scores, baseline, null, variable=variable, metric=results.metric)
            section.add_picture(f"sweep_{number}", draw, f"{results.metric} over the {variable}")
            section.notes.append(degradation(levels, scores).sentence)
    return section
