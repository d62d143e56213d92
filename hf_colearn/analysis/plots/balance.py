"""Figures of what a method of modality balance logged, a line a modality. Need `pip install hf-colearn[report]`."""

from collections.abc import Mapping, Sequence
from os import PathLike
from typing import TYPE_CHECKING, Any

import numpy as np

from hf_colearn.analysis.plots.style import CLASS_COLOURS, GREY, MARKERS, ArmStyle, label_right
from hf_colearn.analysis.plots.training_curves import CurveFigure, series


if TYPE_CHECKING:
    from matplotlib.figure import Figure

PREFIX = "balance_"  # of the logs' keys
COLOURS = [CLASS_COLOURS[i] for i in (0, 1, 2, 5, 7, 9)]  # dark enough for thin lines
DASHES: list[tuple[float, ...]] = [(), (6, 1.5), (2, 1.5), (6, 1.5, 1, 1.5)]


def modality_styles(modalities: Sequence[str]) -> dict[str, ArmStyle]:
    """One style a modality, for all figures of a page; `""` is what is of no modality."""
    styles = {
        name: ArmStyle(COLOURS[i % len(COLOURS)], MARKERS[i % len(MARKERS)], DASHES[i % len(DASHES)])
        for i, name in enumerate(modalities)
    }
    return {**styles, "": ArmStyle(GREY, MARKERS[0])}


def balance_curve(runs: Sequence[Sequence[Mapping[str, Any]]], key: str) -> dict[str, list[float]]:
    """The steps that all seeds of an arm logged, and the mean, the lowest and the highest value over the seeds there.

    Args:
        runs (`Sequence`): One `trainer.state.log_history` a seed.
        key (`str`): Of the log entries, such as `"balance_coefficient_image"`.

    Raises:
        ValueError: If the seeds logged it at no common step.
    """
    steps_S, values = series(runs, key)
    if not len(steps_S):
        raise ValueError(f"its seeds logged '{key}' at no common step, so that no curve has a mean")
    found = {
        "steps": steps_S,
        "mean": values.mean(axis=0),
        "lowest": values.min(axis=0),
        "highest": values.max(axis=0),
    }
    return {name: of_steps.tolist() for name, of_steps in found.items()}


def plot_balance(
    runs: Sequence[Sequence[Mapping[str, Any]]],
    keys: Mapping[str, str],
    ylabel: str,
    path: str | PathLike | None = None,
    *,
    heading: str,
    styles: Mapping[str, ArmStyle] | None = None,
    last: int | None = None,
) -> "Figure":
    """Draws what one arm logged over the optimizer steps, a line a modality: mean over seeds, and lowest to highest as a band.

    Positive values that span more than a factor of 20 get a logarithmic axis.

    Args:
        runs (`Sequence`): One `trainer.state.log_history` a seed.
        keys (`Mapping[str, str]`): By modality, the key of the log entries: `{"image": "balance_coefficient_image"}`.
        ylabel (`str`): What it is.
        path (`str`, *optional*): Where the figure is written; its ending gives the format.
        heading (`str`): The figure's, such as the arm's name.
        styles (`Mapping[str, ArmStyle]`, *optional*): By modality, see [`modality_styles`].
        last (`int`, *optional*): Where the x axis ends; by default at the last step that is logged.

    Raises:
        ValueError: If nothing of it was logged at a step that the seeds have in common.
    """
    renamed = {
        part: [[{"step": entry["step"], ylabel: entry[key]} for entry in run if key in entry] for run in runs]
        for part, key in keys.items()
    }
    styles = modality_styles([part for part in keys if part]) if styles is None else styles
    curves = CurveFigure(renamed, styles)
    curves.last = last or curves.last
    (axis,) = curves.axes
    values = curves.draw(axis, ylabel)
    if values.min() > 0 and values.max() / values.min() > 20:
        axis.set_yscale("log", subs=[2, 5])
        axis.yaxis.set_major_formatter("{x:g}")
        axis.yaxis.set_minor_formatter("{x:g}")
    elif np.ptp(values) < 1e-6:  # or rounding would be drawn as a mountain range
        axis.set_ylim(values.mean() - 0.5, values.mean() + 0.5)
    axis.set_ylabel(ylabel)
    drawn = [(part, line) for part, line in curves.lines.items() if part]
    ends = [(part, float(np.asarray(line.get_ydata())[-1]), styles[part].colour) for part, line in drawn]
    label_right(curves.figure, axis, ends, styles=[styles[part] for part, _ in drawn])
    return curves.finish(heading, False, path)
