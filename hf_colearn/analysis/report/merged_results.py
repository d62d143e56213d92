"""Sections of a report: who gained and who lost, and what the modalities contribute; see [`hf_colearn.analysis.report.sections`]."""

import itertools
from collections.abc import Sequence

import numpy as np

from hf_colearn.analysis.latents import geometry
from hf_colearn.analysis.plots import comparisons
from hf_colearn.analysis.plots import training_curves as plots
from hf_colearn.analysis.plots.calibration import plot_reliability
from hf_colearn.analysis.report.page import Picture, Section, Table
from hf_colearn.analysis.report.sections import Findings, said
from hf_colearn.analysis.runs import Run
from hf_colearn.analysis.statistics import calibration, changes, information, sweep
from hf_colearn.analysis.statistics.estimates import points


# Of every modality over the epochs, with what the axis says.
CURVES = {
    "accuracy_": "accuracy of its own head",
    "modality_gap": "distance of the modalities' means (0 to 2)",
    "label_alignment": "cosine of features and class weights",
}


def fairness_section(found: Findings) -> Section:
    """Who gained and who lost?"""
    section = Section("fairness", "Who gained and who lost")
    baseline = [run for run in found.runs if run.kind == "baseline"]
    first = found.first("colearned")
    if found.comparison is None or first is None or not baseline:
        return section
    arm = found.arms[first.arm]
    section.lead = (
        f"'{first.arm}', the first co-learned arm, against '{baseline[0].arm}', class by class, on the test set."
    )
    predicted, before = [run.predictions for run in arm], [run.predictions for run in baseline]
    with said(section, "Changes by class"):
        by_class = changes.per_class_changes(predicted, before, first.labels, first.facts.get("class_names"))
        _add_changes(section, by_class, "classes", "classes")
    for name, groups_N in first.groups.items():
        with said(section, f"Changes by {name}"):
            by_group = changes.per_group_changes(predicted, before, first.labels, groups_N)
            _add_changes(section, by_group, f"by_{name}", f"groups of {name}")
    _calibration(found, section)
    return section


def _add_changes(section: Section, found: changes.Changes, name: str, what: str) -> None:
    judged = [change for change in found.changes if change.difference.low is not None]
    drawn = judged or list(found.changes)
    low = [change.difference.low for change in judged] if judged else None
    high = [change.difference.high for change in judged] if judged else None
    section.notes.extend(found.notes)
    if found.arm is not None and found.baseline is not None:
        rows = [
            [of, f"{each.worst} ({100 * each.worst_accuracy:.1f})", f"{each.best} ({100 * each.best_accuracy:.1f})",
             f"{100 * each.gap:.1f}"]
            for of, each in (("baseline", found.baseline), ("co-learned", found.arm))
        ]  # fmt: skip
        section.tables.append(Table(["arm", "worst [%]", "best [%]", "gap [pp]"], rows, f"The extremes among {what}"))
    rows = [
        [change.name, f"{change.samples:,}", f"{100 * change.baseline_accuracy:.1f}", f"{100 * change.accuracy:.1f}",
         points(change.difference)]
        for change in found.changes
    ]  # fmt: skip
    if len(rows) > 24:
        rows = [*rows[:12], *rows[-12:]]
        section.notes.append(f"The table has the 12 largest gains and losses of {len(found.changes)} {what}.")
    header = [what, "test samples", "baseline [%]", "arm [%]", "change [pp]"]
    section.tables.append(Table(header, rows, f"Accuracy of {what}, means over {found.n_seeds} seeds"))
    with said(section, f"No picture of the {what}"):
        figure = comparisons.plot_class_changes(
            [change.name for change in drawn], [change.difference.mean for change in drawn],
            None if low is None else [float(value) for value in low if value is not None],
            None if high is None else [float(value) for value in high if value is not None],
            [change.samples for change in drawn], what=what,
        )  # fmt: skip
        section.pictures.append(Picture(f"changes_{name}", figure, f"Change of accuracy of {what}"))


def _calibration(found: Findings, section: Section) -> None:
    curves: dict[str, calibration.Reliability] = {}
    rows = []
    for arm, runs in found.arms.items():
        with said(section, f"Calibration of '{arm}'"):
            each = [calibration.reliability(run.confidences, run.predictions == run.labels) for run in runs]
            errors = [100 * one.error for one in each]
            over = np.mean([one.confidence - one.accuracy for one in each])
            section.numbers.setdefault("calibration_error", {})[arm] = [one.error for one in each]
            rows.append([arm, f"{np.mean(errors):.2f}", f"{100 * over:+.2f}"])
            if runs[0].kind in ("baseline", "colearned") and len(curves) < 4:
                curves[arm] = each[0]
    if rows:
        caption = (
            "Expected calibration error over 15 bins (Guo et al., 2017), and how far confidence is above accuracy"
        )
        section.tables.append(Table(["arm", "ECE [pp]", "overconfidence [pp]"], rows, caption))
    if curves:
        with said(section, "No calibration diagram"):
            figure = plot_reliability(curves, found.styles)
            alt = "Accuracy against confidence of the baseline and the co-learned arms, first seed"
            section.pictures.append(
                Picture("calibration", figure, alt, "First seed. On the diagonal, confidence is earned.")
            )


def modalities_section(found: Findings) -> Section:
    """What does each modality contribute?"""
    section = Section("modalities", "What each modality contributes")
    arms = {arm: runs for arm, runs in found.arms.items() if runs[0].test.modality_latents}
    if not arms:
        return section
    section.lead = "From the models of several modalities: their heads, their latents, and what one adds to another."
    logs = {arm: [run.history for run in runs] for arm, runs in arms.items()}
    names = list(next(iter(arms.values()))[0].test.modality_latents)
    with said(section, "Shapley values"):
        _refuse_incomplete(next(iter(arms.values()))[0])
        chance = _majority(next(iter(arms.values()))[0])
        shares = {
            arm: {
                name: [
                    information.shapley_of_metrics(run.metrics, names, found.metric, chance=chance)[name]
                    for run in runs
                ]
                for name in names
            }
            for arm, runs in arms.items()
        }
        section.numbers["shapley"] = shares
        figure = comparisons.plot_modality_shares(shares, metric=found.metric)
        caption = (
            f"Of the gain over always naming the most frequent class ({100 * chance:.1f} %), after Shapley (1953)."
        )
        section.pictures.append(Picture("shapley", figure, "Shapley value of every modality in every arm", caption))
    with said(section, "Between the modalities"):
        section.tables.append(_between_table(arms, names))
    first = found.first("colearned") if found.first("colearned") in found.runs else None
    probed = [run for run in (found.first("baseline"), first) if run is not None and run.test.modality_latents]
    for run in probed:
        with said(section, f"What a modality tells beside another, '{run.arm}'"):
            told = information.cross_entropy_reduction(run.test.modality_latents, run.test.labels)
            section.notes.extend(f"'{run.arm}', seed {run.seed}: {each.sentence}" for each in told.reductions)
    keys = dict.fromkeys(key for runs in logs.values() for run in runs for entry in run for key in entry)
    for key in keys:
        measured = next((unit for name, unit in CURVES.items() if key.startswith(f"eval_{name}")), None)
        if measured is not None and "given" not in key:
            with said(section, f"No picture of {key}"):
                figure = plots.plot_curves(logs, key, ylabel=measured, styles=found.styles, legend=False)
                section.pictures.append(Picture(key, figure, f"{key} of every arm over the epochs"))
    return section


def _refuse_incomplete(run: Run) -> None:
    """Refuses test samples that lack a modality: every subset of modalities was scored on other samples then."""
    lacking = {name: int(np.isnan(z_ND).all(axis=1).sum()) for name, z_ND in run.test.modality_latents.items()}
    if any(lacking.values()):
        told = ", ".join(f"{count} lack '{name}'" for name, count in lacking.items() if count)
        raise ValueError(
            f"of {len(run.test.labels)} test samples {told}, so that every subset of modalities was scored on other samples, "
            "and shares of a common gain mean nothing."
        )


def _majority(run: Run) -> float:
    return float(np.bincount(run.labels).max() / len(run.labels))


def _between_table(arms: dict[str, list[Run]], names: Sequence[str]) -> Table:
    rows = []
    pairs = list(itertools.combinations(names, 2))
    for arm, runs in arms.items():
        row = [arm]
        for one, other in pairs:
            gaps = []
            for run in runs:
                x_ND, y_ND = geometry.present(run.test.modality_latents[one], run.test.modality_latents[other])
                gaps.append(geometry.modality_gap(x_ND, y_ND))
            x_ND, y_ND = x_ND[:2000], y_ND[:2000]
            recalls = geometry.retrieval_recall(x_ND, y_ND, k=(1, 10))
            row += [
                f"{np.mean(gaps):.3f}",
                *(f"{100 * recalls[way][10]:.1f}" for way in ("x_to_y", "y_to_x", "chance")),
            ]
        rows.append(row)
    header = ["arm"]
    for one, other in pairs:
        header += [f"gap {one}-{other}", f"R@10 {one} to {other} [%]", f"R@10 {other} to {one} [%]", "chance [%]"]
    caption = (
        "Distance of the modalities' mean directions (0 to 2; Liang et al., 2022), mean over seeds; and how often the other "
        "modality of a sample is among the 10 nearest (last seed, at most 2,000 samples)"
    )
    return Table(header, rows, caption)


def sweep_section(found: Findings) -> Section:
    """Does the gain fall smoothly as the pairing gets worse?"""
    section = Section("sweep", "How much pairing it takes")
    swept: dict[str, dict[float, list[Run]]] = {}
    for run in found.runs:
        if where := run.facts.get("sweep"):
            swept.setdefault(where["variable"], {}).setdefault(float(where["level"]), []).append(run)
    if not swept or found.comparison is None:
        return section
    section.lead = "The same arm with less and less of it: does the score fall steadily, or at one step?"
    by_name = {arm.name: arm for arm in found.comparison.arms}
    baseline = by_name[found.comparison.baseline].scores
    null = None if found.comparison.strongest_null is None else by_name[found.comparison.strongest_null].scores
    for number, (variable, by_level) in enumerate(swept.items()):
        with said(section, f"Sweep of the {variable}"):
            levels = sorted(by_level)
            scores = [[run.metrics[found.metric] for run in by_level[level]] for level in levels]
            figure = comparisons.plot_sweep(levels, scores, baseline, null, variable=variable, metric=found.metric)
            section.pictures.append(Picture(f"sweep_{number}", figure, f"{found.metric} over the {variable}"))
            section.notes.append(sweep.degradation(levels, scores).sentence)
    return section
