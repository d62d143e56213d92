"""Figure of the rounds of a co-training. Needs `pip install hf-colearn[report]`."""

from collections.abc import Mapping, Sequence
from os import PathLike
from typing import TYPE_CHECKING, Any

import numpy as np

from hf_colearn.analysis.plots.style import ArmStyle, finish, label_right, new_figure, plain_axes


if TYPE_CHECKING:
    from matplotlib.figure import Figure


def plot_rounds(
    series: Mapping[str, Mapping[str, Sequence[float | None]]],
    panels: Mapping[str, str],
    styles: Mapping[str, ArmStyle],
    path: str | PathLike | None = None,
    *,
    heading: str,
    below: str = "",
) -> "Figure":
    """Draws what every round came to, a panel a quantity and a line a view or an arm, named at the right of its panel.

    Args:
        series (`Mapping[str, Mapping[str, Sequence]]`): By name and quantity, a value a round, None where there is none.
        panels (`Mapping[str, str]`): By quantity what its axis is called; shares are drawn in percent.
        styles (`Mapping[str, ArmStyle]`): By name.
        path (`str` or `PathLike`, *optional*): Where the figure is written.
        heading, below (`str`): The figure's title, and a line below it.

    Raises:
        ValueError: If there is nothing to draw.
    """
    drawn = {key: [name for name, of in series.items() if _values(of, key).size] for key in panels}
    panels = {key: words for key, words in panels.items() if drawn[key]}
    if not panels:
        raise ValueError("no round was scored, and the right labels are not known, so there is nothing to draw")
    from matplotlib.ticker import MaxNLocator

    longest = max(len(name) for names in drawn.values() for name in names)
    figure, axes = new_figure(len(panels))
    figure.set_size_inches((4.1 + 0.08 * longest) * len(panels), 3.6)
    for axis, (key, words) in zip(axes, panels.items(), strict=True):
        ends, lines = [], []
        for name in drawn[key]:
            values_R = _values(series[name], key)
            style: Any = styles[name]
            axis.plot(np.arange(len(values_R)), values_R, **style.line | style.points | {"markersize": 4.5})
            ends.append((name, float(values_R[np.isfinite(values_R)][-1]), style.colour))
            lines.append(style)
        axis.set(xlabel="round", ylabel=words)
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        plain_axes(axis)
        label_right(figure, axis, ends, styles=lines)
    return finish(figure, heading, below, path)


def _values(of: Mapping[str, Sequence[float | None]], key: str) -> np.ndarray:
    """In percent, NaN where there is none; empty without any."""
    values_R = np.array([np.nan if value is None else 100 * value for value in of.get(key, ())], dtype=float)
    return values_R if np.isfinite(values_R).any() else values_R[:0]
