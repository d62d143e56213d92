"""Section of a report: at which levels of a budget, such as labels a class, does the teacher help?"""

from functools import partial

from hf_colearn.analysis.plots.budget import plot_budget
from hf_colearn.analysis.report.merged_results import MergedResults
from hf_colearn.analysis.report.page import Section, Table
from hf_colearn.utils.metric_names import called, with_unit


def section_budget(results: MergedResults) -> Section | None:
    """At which levels does the teacher help?"""
    found = results.levels
    if found is None:
        return None
    metric = called(found.metric)
    section = Section("budget", f"{metric[:1].upper()}{metric[1:]} over the {found.variable}")
    section.lead = (
        f"{found.n_seeds} seed{'s' if found.n_seeds > 1 else ''} an arm and level. Arms are held against the baseline and the "
        f"best null control of their own level. All sections below are of one level, {results.level}."
    )
    header, *rows = found.rows()
    section.tables.append(Table(header, rows, f"{with_unit(found.metric)}, means and intervals"))
    if found.findings:
        header, *rows = found.gain_rows()
        section.tables.append(Table(header, rows, "What the co-learned arms gain, level by level"))
    section.notes.extend(found.notes())
    section.add_picture(
        "budget",
        partial(plot_budget, found, results.styles),
        f"{metric} of every arm over the {found.variable}. {found.headline}",
        "Intervals of null controls are drawn where a control is the best one at some level; the table has them all.",
    )
    return section
