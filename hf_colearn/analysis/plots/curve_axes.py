"""Curves over training in one panel: what the pictures of [`hf_colearn.analysis.plots.training_curves`] share.

Shape legend: S logged steps (or epochs) that all seeds of an arm have in common.
"""

import textwrap
from collections.abc import Mapping, Sequence
from os import PathLike
from typing import TYPE_CHECKING, Any

import numpy as np

from hf_colearn.analysis.plots.style import (
    PANEL,
    ArmStyle,
    arm_styles,
    bare,
    name_lines,
    new_figure,
    save,
    seeds,
    spread,
    title,
)


if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Histories = Mapping[str, list[list[dict[str, Any]]]]  # for each arm by name, one `trainer.state.log_history` a seed


def styles_of(histories: Histories, styles: Mapping[str, ArmStyle] | None) -> Mapping[str, ArmStyle]:
    """The given looks of the arms, or those of a baseline that comes first."""
    if styles is None:
        return arm_styles({arm: "colearned" if i else "baseline" for i, arm in enumerate(histories)})
    if strangers := [arm for arm in histories if arm not in styles]:
        raise ValueError(
            f"arms without a style: {strangers}; make the styles of all arms with arm_styles({{arm: kind}})"
        )
    return styles


def panels(n: int) -> tuple["Figure", list["Axes"]]:
    """A figure of `n` panels side by side."""
    figure = new_figure(*PANEL) if n == 1 else new_figure(4.2 * n, 3.6)
    return figure, list(figure.subplots(1, n, squeeze=False)[0])


def draw(
    axis: "Axes",
    histories: Histories,
    key: str,
    along: str,
    looks: Mapping[str, ArmStyle],
    lines: dict[str, Any],
    notes: list[str],
    widths: Mapping[str, float] | None = None,
) -> np.ndarray:
    """Draws every arm that logged the key, adds its line to `lines`, and what did not go well to `notes`.

    With `widths` every seed is a thin line, else the seeds are a band.

    Returns:
        `np.ndarray`: All values drawn.
    """
    found = {arm: series(runs, key, along) for arm, runs in histories.items()}
    found = {arm: (x_S, values) for arm, (x_S, values) in found.items() if len(x_S)}
    if not found:
        raise ValueError(f"no arm logged '{key}': the log histories hold {logged_keys(histories)}")
    drawn = []
    for i, (arm, (x_S, values)) in enumerate(found.items()):
        look = looks[arm]
        finite_S = np.isfinite(values).all(axis=0)
        end = len(x_S) if finite_S.all() else int(finite_S.argmin())
        if end == 0:
            notes.append(f"'{arm}' was never finite")
            continue
        mean_S = values[:, :end].mean(axis=0)
        line = look.line | ({} if widths is None else {"linewidth": widths[arm], "zorder": 2 + 0.01 * i})
        if widths is None:
            low_S, high_S = values[:, :end].min(axis=0), values[:, :end].max(axis=0)
            alpha = 0.16 if len(found) <= 4 else 0.09
            axis.fill_between(x_S[:end], low_S, high_S, color=look.colour, alpha=alpha, lw=0, zorder=1.5)
        else:
            for of_seed in values[:, :end] if len(values) > 1 else ():
                axis.plot(x_S[:end], of_seed, **line | {"linewidth": 0.6, "alpha": 0.5})
        every = max(1, end // 4)  # few markers, at other places in each arm
        markers = {"markevery": (min(i * every // len(found), end - 1), every), "markersize": 4.5}
        lines[arm] = axis.plot(x_S[:end], mean_S, **line, **look.points | markers)[0]
        if end < len(x_S):
            axis.plot(
                x_S[end - 1], mean_S[-1], marker="x", color=look.colour, markersize=9, markeredgewidth=2, zorder=4
            )
            notes.append("x: a seed's value is not finite from here on")
        drawn.append(values[:, :end].ravel())
    if not drawn:
        raise ValueError(f"'{key}' was never finite in {list(found)}: the runs diverged")
    bare(axis)
    return np.concatenate(drawn)


def floors(axis: "Axes", floor: Mapping[str, float], looks: Mapping[str, ArmStyle]) -> None:
    """Lines across the panel, those of one value together, named beside their right ends."""
    names: dict[float, list[str]] = {}
    for name, value in floor.items():
        if not np.isfinite(value):
            raise ValueError(f"the floor '{name}' is {value}, and no line can be drawn there")
        names.setdefault(float(value), []).append(name)
    for value in names:
        axis.axhline(value, color="0.25", linestyle=(0, (1, 1)), linewidth=1.0, zorder=1.8)
    low, high = axis.get_ylim()
    words = [_floor_words(of_value, value, looks) for value, of_value in names.items()]
    lines = max(text.count("\n") + 1 for text in words)
    scale = axis.transData.transform  # heights on the page: the axis may be logarithmic
    bottom, top = scale((0, low))[1], scale((0, high))[1]
    shares = [(scale((0, value))[1] - bottom) / (top - bottom) for value in names]
    for (value, of_value), text, height in zip(names.items(), words, spread(shares, 0.055 * lines), strict=True):
        colour = looks[of_value[0]].colour if len(of_value) == 1 and of_value[0] in looks else "0.25"
        look: dict[str, Any] = {"va": "center", "fontsize": 8, "color": colour, "annotation_clip": False}
        places: dict[str, Any] = {"xycoords": ("axes fraction", "data"), "textcoords": "axes fraction"}
        axis.annotate(text, (1.0, value), (1.02, height), **places, **look)


def _floor_words(names: Sequence[str], value: float, looks: Mapping[str, ArmStyle]) -> str:
    """As in `variance of the targets 0.172`, or `floor of text teacher, random prompts 0.172`; in short lines."""
    arms = [name for name in names if name in looks]
    told = [name for name in names if name not in looks] + ([f"floor of {', '.join(arms)}"] if arms else [])
    return "\n".join([*textwrap.wrap(", ".join(told), 15), f"{value:.3g}"])


def finish(
    figure: "Figure",
    heading: str,
    histories: Histories,
    lines: Mapping[str, Any],
    notes: Sequence[str],
    with_legend: bool,
    path: str | PathLike | None,
    below: str = "mean and range over {}",
    what: str = "arm",
) -> "Figure":
    """Title, seeds, notes, the legend at the right; and saved."""
    counts = [len(runs) for arm, runs in histories.items() if arm in lines or what != "arm"]
    if with_legend:
        of_arm = {arm: f"{arm} ({seeds([len(runs)])})" for arm, runs in histories.items()}
        name_lines(figure, {of_arm.get(name, name): line for name, line in lines.items()}, what)
    told = below.format(seeds(counts)) if max(counts) > 1 else "1 seed"
    title(figure, heading, "; ".join([told, *dict.fromkeys(notes)]))
    return save(figure, path)


def words(key: str) -> str:
    """As in `modality gap image audio (evaluation)`."""
    words = key.removeprefix("eval_").replace("_", " ")
    return f"{words[:1].upper()}{words[1:]}{' (evaluation)' if key.startswith('eval_') else ''}"


def logged_keys(histories: Histories) -> list[str]:
    """Keys of the entries, in the order of their first appearance."""
    return list(dict.fromkeys(key for runs in histories.values() for run in runs for entry in run for key in entry))


def series(runs: list[list[dict[str, Any]]], term: str, along: str = "step") -> tuple[np.ndarray, np.ndarray]:
    """Steps or epochs (S,) that every seed logged, and the values (seeds, S) there, the first of several at one."""
    by_step = [{entry[along]: entry[term] for entry in reversed(run) if term in entry} for run in runs]
    steps = sorted(set.intersection(*(set(values) for values in by_step)))
    return np.array(steps), np.array([[values[step] for step in steps] for values in by_step], dtype=float)
