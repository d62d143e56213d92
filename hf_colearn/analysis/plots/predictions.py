"""Figure of a regression's predictions against what is true. Needs `pip install hf-colearn[report]`."""

from os import PathLike
from typing import TYPE_CHECKING

import numpy as np

from hf_colearn.analysis.plots.style import ArmStyle, finish, finite, new_figure, plain_axes
from hf_colearn.analysis.run import kept_rows


if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST = 2000  # points that are drawn


def plot_predictions(
    true: np.ndarray,
    predicted: np.ndarray,
    arm: str,
    style: ArmStyle,
    limits: tuple[float, float],
    path: str | PathLike | None = None,
) -> "Figure":
    """Draws the predicted value of every sample over the true one, with the line on which they are equal.

    Args:
        true, predicted (`np.ndarray` of shape `(N,)`): In units of the label; of more than 2,000 samples as many are drawn.
        arm (`str`), style ([`~hf_colearn.analysis.plots.style.ArmStyle`]): Whose predictions these are.
        limits (`tuple[float, float]`): Of both axes, the same for all arms that are to be compared.
        path (`str` or `PathLike`, *optional*): Where to write the figure; the ending gives the format.

    Raises:
        `ValueError`: If a value is not finite.
    """
    true, predicted = finite("true values", true), finite(f"predictions of '{arm}'", predicted)
    rows = kept_rows(len(true), MOST)
    figure, (axis,) = new_figure(height=4.2)
    edge = 0.03 * (limits[1] - limits[0])
    limits = limits[0] - edge, limits[1] + edge
    axis.plot(limits, limits, color="0.6", linewidth=1, zorder=1)
    axis.scatter(true[rows], predicted[rows], s=12, color=style.colour, alpha=0.4, linewidths=0, zorder=2)
    axis.set(xlabel="true value", ylabel="predicted value", xlim=limits, ylim=limits, aspect="equal")
    plain_axes(axis)
    return finish(
        figure, f"'{arm}'", f"{'' if len(rows) == len(true) else f'{len(rows):,} of '}{len(true):,} test samples", path
    )
