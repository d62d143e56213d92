"""Sections of a report: how did training go, and what did it cost?"""

from functools import partial
from typing import Any

import numpy as np

from hf_colearn.analysis.plots import training_curves as plots
from hf_colearn.analysis.report.merged_results import MergedResults
from hf_colearn.analysis.report.page import Section, Table
from hf_colearn.analysis.runs import histories, mean_percent
from hf_colearn.utils.metric_names import with_unit


TASK_LOSSES = {
    "single_label_classification": "cross-entropy [nats]",
    "multi_label_classification": "binary cross-entropy [nats]",
    "regression": "mean squared error",
}


def section_training(results: MergedResults) -> Section:
    """How did the losses and alpha go?"""
    section = Section("training", "How training went", "Every term of the loss as it is, before alpha weighs it.")
    curves = histories(results.runs)
    logged = {key for runs in curves.values() for entries in runs for entry in entries for key in entry}
    variances = _target_variances(results)
    above_0 = {arm: value for arm, value in variances.items() if value > 0}
    section.numbers["target_variance"] = variances
    units = {"loss_task": TASK_LOSSES[results.runs[0].problem_type]}
    options: dict[str, Any] = {"styles": results.styles, "legend": False}
    for term in sorted((key for key in logged if key.startswith("loss_")), key=lambda key: (key != "loss_task", key)):
        lines = above_0 if term == "loss_latent" else {}
        draw = partial(plots.plot_losses, curves, terms=(term,), target_variance=lines or None, units=units, **options)
        caption = (
            "The dotted lines are the variance of a sample's targets over the epochs, below which no student can come, "
            "whatever it learns (Lee & Yoon pair at random)."
        )
        section.add_picture(term, draw, f"{term} of every arm over the optimizer steps", caption if lines else "")
    if any(key == "alpha" or key.startswith("alpha_") for key in logged):
        draw = partial(plots.plot_alphas, results.logs, **options)
        section.add_picture("alpha", draw, "Alpha of every arm over the epochs", "Its share of the loss.")
    if not section.pictures:
        section.notes.append("No losses were logged: train with a smaller `logging_steps`.")
    return section


def _target_variances(results: MergedResults) -> dict[str, float]:
    """By arm, the mean over seeds, of those that have it; runs of earlier versions call it `latent_floor`."""
    values = {
        arm: [run.facts.get("target_variance", run.facts.get("latent_floor", np.nan)) for run in runs]
        for arm, runs in results.arms.items()
    }
    return {arm: float(np.mean(of_arm)) for arm, of_arm in values.items() if np.isfinite(of_arm).all()}


def section_cost(results: MergedResults) -> Section:
    """What did it cost?"""
    section = Section("cost", "What it cost", "Means over seeds; time is of training alone, on this machine.")
    baselines = [run.seconds for run in results.runs if run.kind == "baseline"]
    base = np.mean(baselines) if baselines else np.nan
    rows = []
    for arm, runs in results.arms.items():
        seconds = np.mean([run.seconds for run in runs])
        times = (
            f"{time:.{digits}f}" if np.isfinite(time) else "-" for time, digits in ((seconds, 1), (seconds / base, 2))
        )
        memory = [run.facts["peak_memory"] for run in runs if run.facts.get("peak_memory")]
        mebibytes = f"{np.mean(memory) / 2**20:,.0f}" if memory else "-"
        rows.append(
            [arm, *times, mebibytes, f"{runs[0].facts.get('parameters', 0):,}", mean_percent(runs, results.metric)]
        )
    header = ["arm", "time [s]", "time / baseline", "peak memory [MiB]", "parameters", with_unit(results.metric)]
    section.tables.append(Table(header, rows))
    section.notes.append(
        "Peak memory is the device's, as torch allocated it."
        if any(run.facts.get("peak_memory_of_device") for run in results.runs)
        else "Peak memory is all that the process held, the libraries and data included: compare arms, not machines."
    )
    return section
