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
    quantity: str,
    ylabel: str,
    styles: Mapping[str, ArmStyle],
    path: str | PathLike | None = None,
    *,
    heading: str,
    below: str = "",
) -> "Figure":
    """Draws what every round came to, a line a view or an arm, named at its right.

    Args:
        series (`Mapping[str, Mapping[str, Sequence]]`): By name and quantity, a value a round, None where there is none.
        quantity (`str`): What is drawn: shares, in percent.
        ylabel (`str`): What its axis is called.
        styles (`Mapping[str, ArmStyle]`): By name.
        path (`str` or `PathLike`, *optional*): Where the figure is written.
        heading, below (`str`): The figure's title, and a line below it.

    Raises:
        ValueError: If there is nothing to draw.
    """
    values = {name: _values(of, quantity) for name, of in series.items()}
    drawn = {name: values_R for name, values_R in values.items() if values_R.size}
    if not drawn:
        raise ValueError("no round was scored, and the right labels are not known, so there is nothing to draw")
    from matplotlib.ticker import MaxNLocator

    figure, (axis,) = new_figure(1)
    figure.set_size_inches(4.1 + 0.08 * max(map(len, drawn)), 3.6)
    ends, lines = [], []
    for name, values_R in drawn.items():
        style: Any = styles[name]
        axis.plot(np.arange(len(values_R)), values_R, **style.line | style.points | {"markersize": 4.5})
        ends.append((name, float(values_R[np.isfinite(values_R)][-1]), style.colour))
        lines.append(style)
    axis.set(xlabel="round", ylabel=ylabel)
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    plain_axes(axis)
    label_right(figure, axis, ends, styles=lines)
    return finish(figure, heading, below, path)


def _values(of: Mapping[str, Sequence[float | None]], key: str) -> np.ndarray:
    """In percent, NaN where there is none; empty without any."""
    values_R = np.array([np.nan if value is None else 100 * value for value in of.get(key, ())], dtype=float)
    return values_R if np.isfinite(values_R).any() else values_R[:0]
