"""Reliability diagrams: accuracy against confidence. Need `pip install hf-colearn[report]`."""

from collections.abc import Mapping
from os import PathLike
from typing import TYPE_CHECKING, Any

from hf_colearn.analysis.plots.style import GREY, ArmStyle, finish, new_figure, plain_axes
from hf_colearn.analysis.statistics.calibration import Reliability


if TYPE_CHECKING:
    from matplotlib.figure import Figure

FEW = 10  # samples of a bin whose accuracy says little


def plot_reliability(
    curves: Mapping[str, Reliability], styles: Mapping[str, ArmStyle], path: str | PathLike | None = None
) -> "Figure":
    """Draws the accuracy of predictions by their confidence; the larger a marker, the more samples are in its bin.

    Bins of fewer than 10 samples are faint, and no line goes through them.

    Args:
        curves (`Mapping[str, Reliability]`): By arm, of [`~hf_colearn.analysis.statistics.calibration.reliability`]. A single
            arm's bins have their number of samples beside them.
        styles (`Mapping[str, ArmStyle]`): As of [`~hf_colearn.analysis.plots.style.arm_styles`].
        path (`str` or `PathLike`, *optional*): Where to write the figure; the ending gives the format.

    Raises:
        `ValueError`: If there is no arm.
    """
    if not curves:
        raise ValueError("there is no arm whose calibration could be drawn")
    figure, (axis,) = new_figure()
    axis.plot([0, 1], [0, 1], color="0.6", linewidth=1, zorder=1)
    font: dict[str, Any] = {"fontsize": 8, "color": GREY}
    for arm, curve in curves.items():
        style = styles[arm]
        many = [(of_bin.confidence, of_bin.accuracy) for of_bin in curve.bins if of_bin.count >= FEW]
        axis.plot([x for x, _ in many], [y for _, y in many], **style.line | {"linewidth": 1.3})
        marker: dict[str, Any] = {"marker": style.marker, "facecolor": style.face, "edgecolor": style.colour}
        for of_bin in curve.bins:
            at, size = (of_bin.confidence, of_bin.accuracy), 12 + 250 * of_bin.count / curve.count
            alpha = 0.85 if of_bin.count >= FEW else 0.3
            axis.scatter(*at, s=size, alpha=alpha, zorder=style.layer + 1, **marker)
            if len(curves) == 1:
                axis.annotate(f"{of_bin.count:,}", at, (6, -6), textcoords="offset points", va="top", **font)
    axis.text(0.03, 0.96, "underconfident", va="top", style="italic", **font)
    axis.text(1.03, 0.0, "overconfident", ha="right", style="italic", **font)
    axis.set(xlabel="confidence of the prediction", ylabel="accuracy", xlim=(0, 1.06), ylim=(-0.03, 1.05))
    plain_axes(axis)
    counts = sorted({curve.count for curve in curves.values()})
    samples = f"{counts[0]:,}" if len(counts) == 1 else f"{counts[0]:,} to {counts[-1]:,}"
    below = f"{samples} predictions an arm; a larger marker holds more of them, a faint one fewer than {FEW}"
    return finish(figure, "Calibration", below, path)
