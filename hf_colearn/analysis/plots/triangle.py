"""The Wasserstein distances between targets, baseline and co-learned latents. Needs `pip install hf-colearn[report]`."""

from collections.abc import Sequence
from os import PathLike
from typing import TYPE_CHECKING, Any

import numpy as np

from hf_colearn.analysis.plots.style import BLACK, BLUE, GREY, RED, finish, finite, label_rows, new_figure, shortened
from hf_colearn.analysis.plots.text import drawable


if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

UNIT = "Wasserstein distance W2 [latent units]"


def plot_transport(
    targets_to_baseline: float,
    targets_to_colearned: float,
    baseline_to_colearned: float,
    path: str | PathLike | None = None,
    *,
    names: tuple[str, str, str] = ("teacher targets", "baseline", "co-learned"),
    below: str = "",
) -> "Figure":
    """Draws the three Wasserstein distances as a triangle to scale, or as bars where there is none.

    W2 is a metric, so three distances make a triangle; estimates from mini-batches or projections may violate its inequality.

    Args:
        targets_to_baseline, targets_to_colearned, baseline_to_colearned (`float`): W2 in latent units.
        path (`str` or `PathLike`, *optional*): Where to write the figure; the ending gives the format.
        names (`tuple[str, str, str]`, *optional*): Of the targets, the baseline and the co-learned latents.
        below (`str`, *optional*): The line below the title, such as the split and the number of samples.

    Raises:
        `ValueError`: If a value is negative or not finite.
    """
    sides = finite("distances", [targets_to_baseline, targets_to_colearned, baseline_to_colearned])
    if sides.min() < 0:
        raise ValueError(f"distances cannot be negative, got {sides.tolist()}")
    figure, (axis,) = new_figure()
    flat = 2 * sides.max() - sides.sum() > 1e-6 * sides.max()  # one is longer than the two others together
    if flat or sides.min() == 0:
        _bars(axis, sides, names)
        why = "a distance is 0" if sides.min() == 0 else "one distance is larger than the two others together"
        shown = f"no triangle: {why}"
    else:
        _triangle(axis, sides, names)
        shown = f"{UNIT}, drawn to scale"
    return finish(figure, "Distances between latents", "; ".join(filter(None, [below, shown])), path)


def _bars(axis: "Axes", sides: np.ndarray, names: Sequence[str]) -> None:
    targets, baseline, colearned = names
    heights = np.array([2, 1, 0])
    bars = axis.barh(heights, sides, color=[GREY, RED, "#B8B8B8"], height=0.55)
    axis.bar_label(bars, fmt="%.3g", padding=4, fontsize=9)
    label_rows(axis, heights, [f"{targets} to {baseline}", f"{targets} to {colearned}", f"{baseline} to {colearned}"])
    axis.margins(x=0.15)
    axis.set(xlabel=UNIT)


def _triangle(axis: "Axes", sides: np.ndarray, names: Sequence[str]) -> None:
    """Targets on the left, baseline on the right, co-learned above; lengths by the law of cosines."""
    to_baseline, to_colearned, between = sides
    along = (to_baseline**2 + to_colearned**2 - between**2) / (2 * to_baseline)
    up = np.sqrt(max(0.0, to_colearned**2 - along**2))
    corners = np.array([(0.0, 0.0), (to_baseline, 0.0), (along, up)])
    centre = corners.mean(axis=0)
    # Sides by their corners, and where outwards is if the triangle is flat.
    edges = [(0, 1, GREY, (4, 2), (0, -1)), (0, 2, RED, (), (0, 1)), (1, 2, GREY, (1, 1.5), (0, 1))]
    font: dict[str, Any] = {"textcoords": "offset points", "fontsize": 9.5}
    for (start, end, colour, dashes, flat), length in zip(edges, sides, strict=True):
        ends = corners[[start, end]]
        axis.plot(*ends.T, color=colour, linewidth=2, linestyle=(0, dashes) if dashes else "-", zorder=2)
        across = np.array([ends[0, 1] - ends[1, 1], ends[1, 0] - ends[0, 0]]) / length
        outwards = across @ (ends.mean(axis=0) - centre)
        normal = across * np.sign(outwards) if abs(outwards) > 1e-6 * sides.max() else np.array(flat)
        side = "left" if normal[0] > 0.4 else "right" if normal[0] < -0.4 else "center"
        at = tuple(10 * normal)
        axis.annotate(f"{length:.3g}", ends.mean(axis=0), at, ha=side, va="center", color=colour, **font)
    markers = [("D", BLUE, -11), ("o", BLACK, -11), ("s", RED, 9)]
    for corner, name, (marker, colour, dy) in zip(corners, names, markers, strict=True):
        axis.plot(*corner, marker, color=colour, markersize=10, zorder=5)
        va = "top" if dy < 0 else "bottom"
        options: dict[str, Any] = {"ha": "center", "va": va, "color": colour, "fontweight": "bold", **font}
        axis.annotate(drawable(shortened(name, 24)), corner, (0, dy), **options)
    axis.set_aspect("equal", adjustable="box")  # of the data's limits matplotlib would take the margins away
    axis.margins(0.25)
    axis.axis("off")
