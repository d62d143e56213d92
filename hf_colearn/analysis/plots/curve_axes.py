"""Curves of arms over training, in panels that share styles, legend and subtitle.

Shape legend: S logged steps (or epochs) that all seeds of an arm have in common.
"""

import textwrap
from collections.abc import Mapping
from os import PathLike
from typing import TYPE_CHECKING, Any

import numpy as np

from hf_colearn.analysis.plots.style import (
    ArmStyle,
    arm_styles,
    finish,
    label_right,
    legend_right,
    new_figure,
    plain_axes,
    seeds,
)


if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Histories = Mapping[str, list[list[dict[str, Any]]]]  # for each arm by name, one `trainer.state.log_history` a seed


class CurveFigure:
    """A figure of curves over training.

    Args:
        histories (`Mapping[str, list[list[dict]]]`): For each arm by name, one `trainer.state.log_history` a seed.
        styles (`Mapping[str, ArmStyle]`, *optional*): Of the arms; by default the first arm is taken for the baseline.
        panels (`int`, *optional*, defaults to 1): Side by side.
    """

    def __init__(self, histories: Histories, styles: Mapping[str, ArmStyle] | None, panels: int = 1):
        if styles is None:
            styles = arm_styles({arm: "colearned" if i else "baseline" for i, arm in enumerate(histories)})
        if strangers := [arm for arm in histories if arm not in styles]:
            raise ValueError(
                f"arms without a style: {strangers}; make the styles of all arms with arm_styles({{arm: kind}})"
            )
        self.histories, self.styles = histories, styles
        self.figure, self.axes = new_figure(panels)
        self.lines: dict[str, Any] = {}  # of the arms that were drawn, for the legend
        self.notes: list[str] = []  # what did not go well

    def draw(
        self,
        axis: "Axes",
        key: str,
        along: str,
        widths: Mapping[str, float] | None = None,
        histories: Histories | None = None,
    ) -> np.ndarray:
        """Draws the mean over seeds of every arm that logged the key.

        The seeds are a band from the lowest to the highest, or with `widths` of the mean lines a thin line each.

        Returns:
            `np.ndarray`: All values drawn.
        """
        histories = self.histories if histories is None else histories
        found = {arm: series(runs, key, along) for arm, runs in histories.items()}
        found = {arm: (x_S, values) for arm, (x_S, values) in found.items() if len(x_S)}
        if not found:
            raise ValueError(f"no arm logged '{key}': the log histories hold {logged_keys(histories)}")
        drawn = []
        for i, (arm, (x_S, values)) in enumerate(found.items()):
            finite_S = np.isfinite(values).all(axis=0)
            end = len(x_S) if finite_S.all() else int(finite_S.argmin())
            if end == 0:
                self.notes.append(f"'{arm}' was never finite")
                continue
            line = self.styles[arm].line
            if widths is not None:  # wider lines lie below narrower ones, so that arms with equal values are all seen
                line |= {"linewidth": widths[arm], "zorder": 2 + 0.01 * i}
            every = max(1, end // 4)  # few markers, at other places in each arm
            markers = {"markevery": (min(i * every // len(found), end - 1), every), "markersize": 4.5}
            x_S, values, all_steps = x_S[:end], values[:, :end], len(x_S)
            if widths is None:
                range_S, alpha = (values.min(axis=0), values.max(axis=0)), 0.16 if len(found) <= 4 else 0.09
                axis.fill_between(x_S, *range_S, color=line["color"], alpha=alpha, lw=0, zorder=1.5)
            elif len(values) > 1:
                axis.plot(x_S, values.T, **line | {"linewidth": 0.6, "alpha": 0.5})
            mean_S = values.mean(axis=0)
            self.lines[arm] = axis.plot(x_S, mean_S, **line, **self.styles[arm].points | markers)[0]
            if end < all_steps:
                cross: dict[str, Any] = {"marker": "x", "markersize": 9, "markeredgewidth": 2, "zorder": 4}
                axis.plot(x_S[-1], mean_S[-1], color=line["color"], **cross)
                self.notes.append("x: a seed's value is not finite from here on")
            drawn.append(values.ravel())
        if not drawn:
            raise ValueError(f"'{key}' was never finite in {list(found)}: the runs diverged")
        plain_axes(axis)
        return np.concatenate(drawn)

    def draw_target_variances(self, axis: "Axes", variances: Mapping[str, float]) -> None:
        """Lines across the panel by the names of arms or other words; those of one value together, named at the right."""
        names: dict[float, list[str]] = {}
        for name, value in variances.items():
            if not np.isfinite(value):
                raise ValueError(f"the target variance '{name}' is {value}, and no line can be drawn there")
            names.setdefault(float(value), []).append(name)
        labels = []
        for value, of_value in names.items():
            axis.axhline(value, color="0.25", linestyle=(0, (1, 1)), linewidth=1.0, zorder=1.8)
            arms = [name for name in of_value if name in self.styles]
            words = [name for name in of_value if name not in self.styles]
            words += [f"target variance of {', '.join(arms)}"] if arms else []
            text = "\n".join([*textwrap.wrap(", ".join(words), 15), f"{value:.3g}"])
            labels.append((text, value, self.styles[arms[0]].colour if len(of_value) == len(arms) == 1 else "0.25"))
        label_right(self.figure, axis, labels, size=8)

    def finish(
        self, heading: str, legend: bool, path: str | PathLike | None, below: str = "mean and range over {}"
    ) -> "Figure":
        """Writes the title, the number of seeds, notes and the legend; and the file."""
        counts = {arm: len(self.histories[arm]) for arm in self.lines}
        if legend:
            names = {f"{arm} ({seeds([counts[arm]])})": line for arm, line in self.lines.items()}
            legend_right(self.figure, names, "arm")
        many = below.format(seeds([*counts.values()])) if max(counts.values()) > 1 else "1 seed"
        return finish(self.figure, heading, "; ".join([many, *dict.fromkeys(self.notes)]), path)


def in_words(key: str) -> str:
    """As in `Modality gap image audio (evaluation)`."""
    words = key.removeprefix("eval_").replace("_", " ")
    return f"{words[:1].upper()}{words[1:]}{' (evaluation)' if key.startswith('eval_') else ''}"


def logged_keys(histories: Histories) -> list[str]:
    """Keys of the entries, in the order of their first appearance."""
    return list(dict.fromkeys(key for runs in histories.values() for run in runs for entry in run for key in entry))


def series(runs: list[list[dict[str, Any]]], key: str, along: str) -> tuple[np.ndarray, np.ndarray]:
    """Steps or epochs (S,) that every seed logged, and the values (seeds, S) there, the first of several at one."""
    by_step = [{entry[along]: entry[key] for entry in reversed(run) if key in entry} for run in runs]
    steps = sorted(set.intersection(*(set(values) for values in by_step)))
    return np.array(steps), np.array([[values[step] for step in steps] for values in by_step], dtype=float)
