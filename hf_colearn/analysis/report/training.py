"""Sections of a report: how did training go, and what did it cost?"""

import re
from functools import partial
from typing import Any

import numpy as np

from hf_colearn.analysis.plots import training_curves as plots
from hf_colearn.analysis.report.merged_results import MergedResults
from hf_colearn.analysis.report.page import Section, Table
from hf_colearn.analysis.runs import Run, histories, mean_percent
from hf_colearn.analysis.timing import training_time
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
        # Arms whose loss of this name is another one have an axis of their own: the numbers do not compare.
        for number, (unit, arms) in enumerate(_units(results, term).items()):
            of_unit = {arm: curves[arm] for arm in arms}
            lines = {arm: above_0[arm] for arm in arms if term == "loss_latent" and arm in above_0}
            draw = partial(
                plots.plot_losses, of_unit, terms=(term,), target_variance=lines or None, last=_last_step(results),
                units=units | ({term: unit} if unit else {}), **options,
            )  # fmt: skip
            caption = (
                "The dotted lines are the variance of a sample's targets over the epochs, below which no student can come, "
                "whatever it learns (Lee & Yoon pair at random)."
            )
            name = f"{term}_{number + 1}" if number else term
            alt = f"{term} of {', '.join(arms) if number else 'every arm'} over the optimizer steps"
            section.add_picture(name, draw, alt, caption if lines else "")
    if any(key == "alpha" or key.startswith("alpha_") for key in logged):
        draw = partial(plots.plot_alphas, results.logs, **options)
        section.add_picture("alpha", draw, "Alpha of every arm over the optimizer steps", "Its share of the loss.")
    if not section.pictures:
        section.notes.append(
            f"The longest run of {_last_step(results)} steps logged no loss: train with smaller 'logging_steps'."
        )
    return section


def _last_step(results: MergedResults) -> int:
    return max((e["step"] for runs in results.logs.values() for run in runs for e in run if "step" in e), default=0)


def _units(results: MergedResults, term: str) -> dict[str, list[str]]:
    """The arms that logged the term, by what it is measured in; all together where that is not known."""
    units: dict[str, list[str]] = {}
    for arm, runs in results.arms.items():
        if any(term in entry or term == "loss_task" for run in runs for entry in run.history):
            units.setdefault(_unit(runs[0], term), []).append(arm)
    return units


def _unit(run: Run, term: str) -> str:
    """As in `mean squared error [standardized latents]`; empty of another loss than that of latents."""
    found = re.search(r"LatentMatching\(loss='(\w+)', reduction='(\w+)'", str(run.facts.get("objective")))
    if found is None or not term.startswith("loss_latent"):
        return ""
    loss, reduction = found.groups()
    if loss == "cosine":
        return "1 - cosine of latents and targets"
    scaling = ((run.facts.get("teacher") or {}).get("scaling") or {}).get("how")
    latents = {"standardized": "standardized latents", "l2": "latents of length 1"}.get(str(scaling), "latent units")
    error = {"mse": "squared error", "smooth_l1": "smooth L1 error"}[loss]
    return f"{reduction} {error} [{latents}{'' if scaling == 'standardized' or loss != 'mse' else ', squared'}]"


def _target_variances(results: MergedResults) -> dict[str, float]:
    """By arm, the mean over seeds, of those that have it; runs of earlier versions call it `latent_floor`."""
    values = {
        arm: [run.facts.get("target_variance", run.facts.get("latent_floor", np.nan)) for run in runs]
        for arm, runs in results.arms.items()
    }
    return {arm: float(np.mean(of_arm)) for arm, of_arm in values.items() if np.isfinite(of_arm).all()}


def section_cost(results: MergedResults) -> Section:
    """What did it cost?"""
    section = Section("cost", "What it cost", "Means over seeds. ")
    times = {arm: [training_time(run.history) for run in runs] for arm, runs in results.arms.items()}
    columns: dict[str, list[str]] = {}
    if all(time is not None for of_arm in times.values() for time in of_arm):
        section.lead += "Time is of training alone, without its evaluations, as logged by the machines it ran on."
        seconds = {arm: float(np.mean([time.seconds for time in of_arm if time])) for arm, of_arm in times.items()}
        parts = {arm: [time for time in of_arm if time and not time.is_whole] for arm, of_arm in times.items()}
        for arm, resumed in parts.items():
            if resumed:
                spans = ", ".join(f"{time.steps:,} of {time.all_steps:,}" for time in resumed)
                section.notes.append(f"'{arm}' was resumed: its time is that of {spans} steps, and no ratio is told.")
    else:
        seconds = {arm: float(np.mean([run.seconds for run in runs])) for arm, runs in results.arms.items()}
        parts = dict.fromkeys(results.arms, [])
        if np.isfinite([*seconds.values()]).any():
            section.lead += "Time is of the whole training, evaluations included."
    baselines = [arm for arm, runs in results.arms.items() if runs[0].kind == "baseline" and not parts[arm]]
    base = seconds[baselines[0]] if baselines else np.nan
    if np.isfinite([*seconds.values()]).any():
        columns["time [s]"] = [_number(value, 1) for value in seconds.values()]
        if np.isfinite(base) and base > 0:
            columns["time / baseline"] = [
                "-" if parts[arm] else _number(value / base, 2) for arm, value in seconds.items()
            ]
    else:
        section.notes.append(
            "No time: the runs' logs have no 'train_runtime', which Trainer writes when training ends."
        )
    memory = {arm: [run.facts.get("peak_memory") or np.nan for run in runs] for arm, runs in results.arms.items()}
    if np.isfinite([value for of_arm in memory.values() for value in of_arm]).any():
        mebibytes = [np.mean(of_arm) / 2**20 for of_arm in memory.values()]
        columns["peak memory [MiB]"] = [f"{value:,.0f}" if np.isfinite(value) else "-" for value in mebibytes]
        section.notes.append(
            "Peak memory is the device's, as torch allocated it."
            if any(run.facts.get("peak_memory_of_device") for run in results.runs)
            else "Peak memory is all that the process held, the libraries and data included: compare arms, not machines."
        )
    facts = [runs[0].facts for runs in results.arms.values()]
    for name, key in (("parameters", "parameters"), ("of these trained", "trained_parameters")):
        if any(of_arm.get(key) and of_arm[key] != of_arm.get("parameters") or key == name for of_arm in facts):
            columns[name] = [f"{of_arm[key]:,}" if of_arm.get(key) else "-" for of_arm in facts]
    columns[with_unit(results.metric)] = [mean_percent(runs, results.metric) for runs in results.arms.values()]
    section.lead = section.lead.strip()
    rows = [[arm, *cells] for arm, *cells in zip(results.arms, *columns.values(), strict=True)]
    section.tables.append(Table(["arm", *columns], rows))
    return section


def _number(value: float, digits: int) -> str:
    return f"{value:.{digits}f}" if np.isfinite(value) else "-"
