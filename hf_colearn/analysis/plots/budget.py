"""Figure of all arms over a budget, such as the number of labels a class. Needs `pip install hf-colearn[report]`."""

from collections.abc import Mapping
from os import PathLike
from typing import TYPE_CHECKING

import numpy as np

from hf_colearn.analysis.plots.style import (
    ArmStyle,
    arm_styles,
    finish,
    finite,
    label_right,
    new_figure,
    plain_axes,
    seeds,
)
from hf_colearn.analysis.statistics.levels import LevelComparisons, level_words
from hf_colearn.utils.metric_names import called, with_unit


if TYPE_CHECKING:
    from matplotlib.figure import Figure

SIZE = (5.8, 4.2)  # inches: it has the names of all arms at its right
APART = 0.028  # octaves between the arms, so that their intervals stand side by side


def plot_budget(
    found: LevelComparisons, styles: Mapping[str, ArmStyle] | None = None, path: str | PathLike | None = None
) -> "Figure":
    """Draws every arm's score over the levels, with 95% t-intervals over seeds: a line an arm, named at the right.

    The axis of the levels is logarithmic (base 2), its ticks are the levels. Co-learned arms are solid and coloured, the
    baseline is wide and black; null controls are dashed and references dotted, both thinner and with hollow markers. Null
    controls that are the best at no level have no intervals.

    Args:
        found ([`~hf_colearn.analysis.statistics.levels.LevelComparisons`]): At levels above 0.
        styles (`Mapping[str, ArmStyle]`, *optional*): By arm; by default those of
            [`~hf_colearn.analysis.plots.style.arm_styles`].
        path (`str` or `PathLike`, *optional*): Where the figure is written.

    Raises:
        `ValueError`: If a level is not above 0, which a logarithmic axis does not show.
    """
    levels = finite("levels", list(found.levels))
    if levels.min() <= 0:
        raise ValueError(f"the level {levels.min():g} has no place on a logarithmic axis: levels must be above 0")
    arms = found.arms
    if styles is None:
        styles = arm_styles({name: next(iter(at.values())).kind for name, at in arms.items()})
    best_nulls = {comparison.strongest_null for comparison in found.levels.values()}
    figure, (axis,) = new_figure()
    figure.set_size_inches(*SIZE)
    axis.set_xscale("log", base=2)
    names, lines = [], []
    for number, (name, at) in enumerate(arms.items()):
        style, kind = styles[name], next(iter(at.values())).kind
        x_L = np.array(list(at)) * 2 ** (APART * (number - (len(arms) - 1) / 2))
        means_L = 100 * np.array([arm.mean.mean for arm in at.values()])
        axis.plot(x_L, means_L, **style.line | style.points | {"markersize": 5 if style.filled else 4})
        for x, arm in zip(x_L, at.values(), strict=True):
            if arm.mean.low is not None and arm.mean.high is not None and (kind != "null" or name in best_nulls):
                ends = [100 * arm.mean.low, 100 * arm.mean.high]
                axis.plot([x, x], ends, color=style.colour, linewidth=1.1, alpha=0.7, zorder=style.layer)
        names.append((name, means_L[-1], style.colour))
        lines.append(style)
    axis.set_xticks(levels, [f"{level:g}" for level in levels])
    axis.minorticks_off()
    axis.set_xlim(levels.min() / 2**0.3, levels.max() * 2**0.3)
    axis.set(xlabel=found.variable, ylabel=with_unit(found.metric))
    plain_axes(axis)
    label_right(figure, axis, names, styles=lines)
    below = seeds([found.n_seeds]) + (", mean and 95% interval" if found.n_seeds > 1 else "")
    below += "; dashed: null controls, dotted: references"
    heading = f"{called(found.metric)} at {levels.min():g} to {level_words(levels.max(), found.variable)}"
    return finish(figure, heading[:1].upper() + heading[1:], below, path)
