"""Figure of seen and unseen classes over the gates of novelty. Needs `pip install hf-colearn[report]`.

Shapes: Q gates, K curves of an arm.
"""

from collections.abc import Mapping, Sequence
from os import PathLike
from typing import TYPE_CHECKING

import numpy as np

from hf_colearn.analysis.plots.style import ArmStyle, arm_styles, finish, label_right, new_figure, plain_axes, seeds
from hf_colearn.evaluation.zero_shot import SeenUnseenCurve


if TYPE_CHECKING:
    from matplotlib.figure import Figure

BEYOND = 1.08  # where infinity is drawn
PANELS = {"unseen": "unseen classes", "harmonic": "harmonic mean", "seen": "seen classes"}
SIZE = (12.0, 3.9)  # inches: it has the names of all arms at its right


def plot_seen_unseen(
    curves: Mapping[str, Sequence[SeenUnseenCurve]],
    styles: Mapping[str, ArmStyle] | None = None,
    path: str | PathLike | None = None,
) -> "Figure":
    """Draws the accuracy of the unseen and of the seen classes, and their harmonic mean, over the gate's quantile.

    A line an arm, the mean over its curves; infinity stands right of 1. A high gate takes more samples for seen ones, which
    costs the unseen classes.

    Args:
        curves (`Mapping[str, Sequence[SeenUnseenCurve]]`): By arm one a seed, all over the same gates; see
            [`~hf_colearn.evaluation.zero_shot.generalised_zero_shot`].
        styles (`Mapping[str, ArmStyle]`, *optional*): By arm; by default those of co-learned arms.
        path (`str` or `PathLike`, *optional*): Where the figure is written.

    Raises:
        `ValueError`: If an arm has no curve, or its curves are over other gates than the first.
    """
    gates_Q = _common_gates(curves)
    styles = arm_styles(dict.fromkeys(curves, "colearned")) if styles is None else styles
    figure, axes = new_figure(len(PANELS))
    figure.set_size_inches(*SIZE)
    at_Q = np.where(np.isfinite(gates_Q), gates_Q, BEYOND)
    quarters = np.linspace(0, 1, 5)
    ticks = [(tick, f"{tick:g}") for tick in quarters] + [(BEYOND, "∞")] * bool(np.isinf(gates_Q).any())
    for axis, (quantity, words) in zip(axes, PANELS.items(), strict=True):
        ends = []
        for arm, of_arm in curves.items():
            mean_Q = 100 * np.mean([getattr(curve, quantity) for curve in of_arm], axis=0)
            axis.plot(at_Q, mean_Q, **styles[arm].line)
            ends.append((arm, float(mean_Q[-1]), styles[arm].colour))
        axis.set_xticks(*zip(*ticks, strict=True))
        axis.set(xlabel="quantile of the gate", ylabel="accuracy [%]")
        axis.set_ylim(bottom=0)
        axis.set_title(words, fontsize=9.5)
        plain_axes(axis)
    label_right(figure, axes[-1], ends, styles=[styles[arm] for arm in curves])
    below = (
        seeds([len(of_arm) for of_arm in curves.values()]) + ", mean; at 0 all samples are taken for unseen classes, "
    )
    return finish(
        figure, "Seen and unseen classes over the gate of novelty", below + "at infinity for seen ones", path
    )


def _common_gates(curves: Mapping[str, Sequence[SeenUnseenCurve]]) -> np.ndarray:
    if not curves:
        raise ValueError("there is no curve to draw: pass at least one arm's")
    first: np.ndarray | None = None
    for arm, of_arm in curves.items():
        if not of_arm:
            raise ValueError(f"arm '{arm}' has no curve: pass one a seed, or leave the arm out")
        for curve in of_arm:
            first = curve.gates if first is None else first
            if not np.array_equal(curve.gates, first):
                raise ValueError(
                    f"a curve of arm '{arm}' has other gates than the first one: measure all over the same"
                )
    assert first is not None
    return first
