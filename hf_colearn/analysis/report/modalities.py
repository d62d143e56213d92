"""Sections of a report: how good is each modality by itself, and what does each contribute?"""

import itertools
from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np

from hf_colearn.analysis.latents import geometry
from hf_colearn.analysis.plots.comparisons import plot_differences, plot_modality_shares
from hf_colearn.analysis.plots.training_curves import plot_curves
from hf_colearn.analysis.report.by_modality import main_parts, modality_rows
from hf_colearn.analysis.report.merged_results import MergedResults
from hf_colearn.analysis.report.page import Section, Table
from hf_colearn.analysis.runs import Run
from hf_colearn.analysis.statistics.information import cross_entropy_reduction, shapley_of_metrics
from hf_colearn.utils.metric_names import with_unit


MAX_RETRIEVED = 2000  # samples among which the other modality's is looked for
# What is logged of every modality over the epochs, with what the axis says.
LOGGED = {
    "accuracy_": "accuracy of its own head",
    "modality_gap": "distance of the modalities' means (0 to 2)",
    "label_alignment": "cosine of features and class weights",
}


def section_by_modality(results: MergedResults) -> Section | None:
    """Is a modality better by itself than it was without the others?"""
    if not results.parts:
        return None
    section = Section("by_modality", "Each modality by itself")
    section.lead = (
        "A modality that is deployed alone is scored by its own head, and held against a model of that modality alone; the "
        "fused score of all modalities hides it, and stands below."
    )
    header, *rows = modality_rows(results.runs, results.metric)
    caption = (
        f"{with_unit(results.metric)}, means over seeds: by each modality's own head, by the fused prediction where only some "
        "modalities are given, and last fused"
    )
    section.tables.append(Table(header, rows, caption))
    for part in main_parts(results.parts):
        scored = f"By the head of '{part.name}'" if part.is_head else f"By the fused prediction, {part.name}"
        header, *rows = part.rows()
        section.tables.append(Table(header, rows, scored))
        draw = partial(plot_differences, part.comparison, results.styles)
        alt = f"Differences of every arm to the baseline. {scored}: {part.comparison.headline}"
        section.add_picture(f"differences_{part.name.replace(' ', '_')}", draw, alt, f"{scored}.")
    section.notes.extend(part.verdict for part in results.parts)
    return section


def section_modalities(results: MergedResults) -> Section | None:
    """What does each modality contribute?"""
    arms = {arm: runs for arm, runs in results.arms.items() if runs[0].test.modality_latents}
    if not arms:
        return None
    section = Section("modalities", "What each modality contributes")
    section.lead = "From the models of several modalities: their heads, their latents, and what one adds to another."
    names = list(next(iter(arms.values()))[0].test.modality_latents)
    with section.error_notes("Shapley values"):
        _add_shapley_values(section, arms, names, results.metric)
    with section.error_notes("Between the modalities"):
        section.tables.append(_pairs_table(arms, names))
    for run in (results.first("baseline"), results.first("colearned")):
        if run is not None and run.test.modality_latents and run.problem_type == "single_label_classification":
            with section.error_notes(f"What a modality tells beside another, '{run.arm}'"):
                found = cross_entropy_reduction(run.test.modality_latents, run.test.labels)
                section.notes.extend(f"'{run.arm}', seed {run.seed}: {each.sentence}" for each in found.reductions)
    logs = {arm: results.logs[arm] for arm in arms}
    for key in dict.fromkeys(key for runs in logs.values() for entries in runs for entry in entries for key in entry):
        ylabel = next((unit for name, unit in LOGGED.items() if key.startswith(f"eval_{name}")), None)
        if ylabel is not None and "given" not in key:
            draw = partial(plot_curves, logs, key, ylabel=ylabel, styles=results.styles, legend=False)
            section.add_picture(key, draw, f"{key} of every arm over the epochs")
    return section


def _add_shapley_values(
    section: Section, arms: Mapping[str, Sequence[Run]], names: Sequence[str], metric: str
) -> None:
    """Raises `ValueError` where test samples lack a modality: each subset of modalities was scored on other ones then."""
    run = next(iter(arms.values()))[0]
    if run.problem_type != "single_label_classification":
        raise ValueError(
            "they share out a gain over always naming the most frequent class, and a sample has no one class."
        )
    lacking = {name: int(np.isnan(z_ND).all(axis=1).sum()) for name, z_ND in run.test.modality_latents.items()}
    if any(lacking.values()):
        counts = ", ".join(f"{count} lack '{name}'" for name, count in lacking.items() if count)
        raise ValueError(
            f"of {len(run.test.labels)} test samples {counts}, so that every subset of modalities was scored on other "
            "samples, and shares of a common gain mean nothing."
        )
    chance = float(np.bincount(run.labels).max() / len(run.labels))
    values = {
        arm: [shapley_of_metrics(run.metrics, names, metric, chance=chance) for run in arms[arm]] for arm in arms
    }
    shares = {arm: {name: [of_seed[name] for of_seed in each] for name in names} for arm, each in values.items()}
    section.numbers["shapley"] = shares
    section.add_picture(
        "shapley",
        partial(plot_modality_shares, shares, metric=metric),
        "Shapley value of every modality in every arm",
        f"Of the gain over always naming the most frequent class ({100 * chance:.1f} %), after Shapley (1953).",
    )


def _pairs_table(arms: Mapping[str, Sequence[Run]], names: Sequence[str]) -> Table:
    header, rows = ["arm"], [[arm] for arm in arms]
    for one, other in itertools.combinations(names, 2):
        header += [f"gap {one}-{other}", f"R@10 {one} to {other} [%]", f"R@10 {other} to {one} [%]", "chance [%]"]
        for row, runs in zip(rows, arms.values(), strict=True):
            pairs = [
                geometry.present(run.test.modality_latents[one], run.test.modality_latents[other]) for run in runs
            ]
            row.append(f"{np.mean([geometry.modality_gap(x_ND, y_ND) for x_ND, y_ND in pairs]):.3f}")
            recalls = geometry.retrieval_recall(pairs[-1][0][:MAX_RETRIEVED], pairs[-1][1][:MAX_RETRIEVED], k=(10,))
            row.extend(f"{100 * recalls[way][10]:.1f}" for way in ("x_to_y", "y_to_x", "chance"))
    caption = (
        "Distance of the modalities' mean directions (0 to 2; Liang et al., 2022), mean over seeds; and how often the other "
        f"modality of a sample is among the 10 nearest (last seed, at most {MAX_RETRIEVED:,} samples)"
    )
    return Table(header, rows, caption)
