"""Section of a report: are classes known that were never trained on, alone and beside the seen ones?"""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from hf_colearn.analysis.plots.zero_shot import plot_seen_unseen
from hf_colearn.analysis.report.merged_results import MergedResults
from hf_colearn.analysis.report.page import Section, Table
from hf_colearn.evaluation.zero_shot import SeenUnseenCurve, measures
from hf_colearn.utils.metric_names import with_unit


FACT = "zero_shot"  # of a run


def curve_as_fact(curve: SeenUnseenCurve) -> dict[str, list[Any]]:
    """What a run keeps of it; infinity is None, which JSON has."""
    gates = [gate if np.isfinite(gate) else None for gate in curve.gates.tolist()]
    return {"gates": gates, "seen": curve.seen.tolist(), "unseen": curve.unseen.tolist()}


def curve_of_fact(fact: Mapping[str, Sequence[Any]]) -> SeenUnseenCurve:
    """The curve of what a run has kept."""
    gates_Q = np.array([np.inf if gate is None else gate for gate in fact["gates"]], dtype=float)
    return SeenUnseenCurve(gates_Q, np.array(fact["seen"]), np.array(fact["unseen"]))


def section_zero_shot(results: MergedResults) -> Section | None:
    """Are classes known that were never trained on?"""
    curves = {
        arm: [curve_of_fact(run.facts[FACT]) for run in runs]
        for arm, runs in results.arms.items()
        if all(FACT in run.facts for run in runs)
    }
    if not curves:
        return None
    section = Section("zero_shot", "Seen and unseen classes")
    section.lead = (
        "Unseen classes have no training sample. A gate decides whether a sample is of one: where its latent is farther from "
        "the nearest mean of a seen class than a share of the training latents is."
    )
    found = {arm: {name: [measures(curve)[name] for curve in of_arm] for name in measures(of_arm[0])}
             for arm, of_arm in curves.items()}  # fmt: skip
    names = list(next(iter(found.values())))
    rows = [[arm, *(f"{100 * np.mean(of_arm[name]):.1f}" for name in names)] for arm, of_arm in found.items()]
    section.tables.append(
        Table(["arm", *(with_unit(name) for name in names)], rows, "Means over the classes, and over the seeds")
    )
    section.notes.append(
        "Unseen accuracy is among the unseen classes alone, and seen accuracy among the seen alone. The best harmonic mean is "
        "of the gate that is best for these test samples; the area is under seen over unseen accuracy."
    )
    section.numbers["by_seed"] = found
    section.add_picture(
        "zero_shot",
        partial(plot_seen_unseen, curves, results.styles),
        "Accuracy of unseen and seen classes, and their harmonic mean, over the quantile of the gate",
        "Means over the seeds.",
    )
    return section
