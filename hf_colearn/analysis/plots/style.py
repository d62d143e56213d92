"""Style of all figures: the palettes, one style an arm, and the frame of a figure. Needs `pip install hf-colearn[report]`.

Both palettes are for colour-blind readers: Okabe and Ito's (2008, without its faint yellow) for arms, Paul Tol's "muted"
("Colour Schemes", 2021) for classes. Dashes and markers repeat what colours say, for print.
"""

import textwrap
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from scipy.optimize import isotonic_regression

from hf_colearn.analysis.plots.text import drawable, help_out
from hf_colearn.analysis.statistics.compare import Kind
from hf_colearn.utils.extras import extra


if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BLACK, BLUE, RED = "#000000", "#0072B2", "#D55E00"
ARM_COLOURS = {  # Okabe & Ito, "Color Universal Design" (2008)
    "baseline": [BLACK],
    "colearned": [RED, BLUE, "#009E73", "#CC79A7", "#E69F00", "#56B4E9"],
    "null": ["#595959", "#8C8C8C", "#737373", "#A3A3A3"],
    "reference": ["#7F9DB5", "#B59A73", "#8DAA83", "#B08CA6"],
}
ARM_DASHES: dict[str, list[tuple[float, ...]]] = {  # in line widths: on, off, ...; () is solid
    "baseline": [()],
    "colearned": [(), (6, 1.5), (6, 1.5, 1, 1.5)],
    "null": [(4, 2), (6, 2, 1.5, 2), (2, 1.5), (8, 3)],
    "reference": [(1, 1.5), (1, 3)],
}
ARM_MARKERS = {"baseline": ["o"], "colearned": ["s", "^", "D", "v", "P", "X"], "null": ["o", "s", "^", "D", "v"]}
ARM_MARKERS["reference"] = ["P", "X", "v", "D"]
LAYERS = {"baseline": 2.0, "reference": 2.2, "null": 2.4, "colearned": 2.8}  # higher ones lie over lower ones
CLASS_COLOURS = [
    *("#332288", "#CC6677", "#117733", "#88CCEE", "#DDCC77"),
    *("#882255", "#44AA99", "#999933", "#AA4499", "#777777"),
]
_OUTLINES = {  # of the markers, in a box from -1 to 1, y down, for a web page's legend
    "o": "M-1 0A1 1 0 1 1 1 0A1 1 0 1 1 -1 0Z",
    "s": "M-.9-.9H.9V.9H-.9Z",
    "^": "M0-1L1 .9H-1Z",
    "D": "M0-1.1L1.1 0L0 1.1L-1.1 0Z",
    "v": "M0 1L1-.9H-1Z",
    "P": "M-.4-1H.4V-.4H1V.4H.4V1H-.4V.4H-1V-.4H-.4Z",
    "X": "M-1-.5L-.5-1L0-.5L.5-1L1-.5L.5 0L1 .5L.5 1L0 .5L-.5 1L-1 .5L-.5 0Z",
}
MARKERS = list(_OUTLINES)
PANEL = (4.8, 3.4)  # inches
ROW_NAME = 24  # characters in a line of a row's name
GREY = "#595959"  # of text that stands back


@dataclass(frozen=True)
class ArmStyle:
    """The style of one arm, or of one class, in all figures of a page.

    Args:
        colour (`str`), marker (`str`): As `#rrggbb`, and one of `MARKERS`.
        dashes (`tuple[float, ...]`, *optional*): Lengths on, off, on, ... in line widths; `()` is a solid line.
        filled (`bool`, *optional*, defaults to `True`): Whether the marker is filled, or white within.
        width, layer (`float`, *optional*): Of the line, in points; and higher layers lie over lower ones.
    """

    colour: str
    marker: str
    dashes: tuple[float, ...] = ()
    filled: bool = True
    width: float = 1.6
    layer: float = 2.0

    @property
    def face(self) -> str:
        """The colour within the marker."""
        return self.colour if self.filled else "#ffffff"

    @property
    def line(self) -> dict[str, Any]:
        """Keywords of matplotlib's `plot` for a line."""
        dashes = (0, self.dashes) if self.dashes else "-"
        return {"color": self.colour, "linestyle": dashes, "linewidth": self.width, "zorder": self.layer}

    @property
    def points(self) -> dict[str, Any]:
        """Keywords of matplotlib's `plot` for its markers."""
        edge = {"markeredgecolor": self.colour, "markeredgewidth": 1.0}
        return {"marker": self.marker, "markerfacecolor": self.face} | edge

    def swatch(self) -> str:
        """The line with its dashes and marker as a small inline SVG, for the legend of a web page."""
        lengths = " ".join(f"{self.width * length:g}" for length in self.dashes)
        dashes = f' stroke-dasharray="{lengths}"' if lengths else ""
        return (
            '<svg xmlns="http://www.w3.org/2000/svg" width="36" height="14" viewBox="0 0 36 14" aria-hidden="true" '
            f'fill="none"><path d="M1 7H35" stroke="{self.colour}" stroke-width="{self.width:g}"{dashes}/>'
            f'<path transform="translate(18 7) scale(3.6)" d="{_OUTLINES[self.marker]}" fill="{self.face}" '
            f'stroke="{self.colour}" stroke-width=".3"/></svg>'
        )


def arm_styles(arms: Mapping[str, Kind]) -> dict[str, ArmStyle]:
    """One style an arm, by their kinds in their order, for all figures of a page.

    The baseline is a wide black line below the others, so that it shows where they lie on it. Co-learned arms have
    colours, null controls dashed greys and references light dots; the latter two have hollow markers. Styles repeat only
    beyond 18 co-learned arms, 20 null controls or 4 references.
    """
    styles: dict[str, ArmStyle] = {}
    seen = Counter[Kind]()
    for arm, kind in arms.items():
        i = seen[kind]
        seen[kind] += 1
        colours, dashes, markers = ARM_COLOURS[kind], ARM_DASHES[kind], ARM_MARKERS[kind]
        styles[arm] = ArmStyle(
            colour=colours[i % len(colours)],
            marker=markers[i % len(markers)],
            # Co-learned arms run through the colours before the dashes change; the greys need their dashes at once.
            dashes=dashes[(i // len(colours) if kind == "colearned" else i) % len(dashes)],
            filled=kind in ("baseline", "colearned"),
            width={"baseline": 3.0, "colearned": 1.8}.get(kind, 1.4),
            layer=LAYERS[kind],
        )
    return styles


def new_figure(panels: int = 1, height: float | None = None) -> tuple["Figure", list["Axes"]]:
    """A figure with panels side by side, and their axes; the height is in inches.

    Without pyplot: the user's backend and open figures are left alone.
    """
    with extra("report", "the plots need matplotlib"):
        from matplotlib.figure import Figure
    width, usual = PANEL if panels == 1 else (4.2 * panels, 3.6)
    figure = Figure(figsize=(width, height or usual), layout="constrained")
    return figure, list(figure.subplots(1, panels, squeeze=False)[0])


def finish(figure: "Figure", heading: str, below: str, path: str | PathLike | None = None) -> "Figure":
    """Writes the title, and the figure where a path is given; its ending gives the format.

    A bold heading stands at the top left, a smaller grey line below; both are wrapped to the figure's width.
    """
    width, height = figure.get_size_inches()
    top = 0.06
    for text, size, weight, colour in ((drawable(heading), 11, "bold", BLACK), (drawable(below), 8.5, "normal", GREY)):
        lines = textwrap.wrap(text, int(72 * (width - 0.16) / (0.56 if weight == "normal" else 0.63) / size))
        if lines:
            font: dict[str, Any] = {"fontsize": size, "fontweight": weight, "color": colour, "linespacing": 1.2}
            figure.text(0.08 / width, 1 - top / height, "\n".join(lines), va="top", **font)
            top += len(lines) * size * 1.4 / 72 + 0.02
    for axis in figure.axes:
        for label in (axis.xaxis.label, axis.yaxis.label, axis.title):
            label.set_text(drawable(label.get_text()))
    help_out(figure)
    figure.set_layout_engine("constrained", rect=(0, 0, 1, 1 - (top + 0.02) / height), w_pad=0.08)
    if path is not None:
        figure.savefig(path, dpi=150)
    return figure


def plain_axes(axis: "Axes", grid: Literal["both", "x"] = "both") -> None:
    """A faint grid below the marks, small numbers, and no frame at the top and the right."""
    axis.set_axisbelow(True)
    axis.grid(axis=grid, color="0.9", linewidth=0.7)
    axis.spines[["top", "right"]].set_visible(False)
    axis.spines[["left", "bottom"]].set_color("0.6")
    axis.tick_params(labelsize=8.5, color="0.6")
    for label in (axis.xaxis.label, axis.yaxis.label):
        label.set_fontsize(9)


def label_rows(axis: "Axes", heights: np.ndarray, names: Sequence[str], size: float = 9) -> None:
    """Names rows at the left, without ticks; long names in two lines, and too long ones cut."""
    options: dict[str, Any] = {"break_on_hyphens": False, "max_lines": 2, "placeholder": " …"}
    lines = [textwrap.fill(drawable(name), ROW_NAME, **options) for name in names]
    axis.set_yticks(heights, lines)
    plain_axes(axis, grid="x")
    axis.tick_params(axis="y", length=0, labelsize=size, labelcolor=BLACK)
    axis.spines["left"].set_visible(False)


def label_right(
    figure: "Figure",
    axis: "Axes",
    labels: Sequence[tuple[str, float, str]],
    size: float = 8.5,
    styles: Sequence["ArmStyle"] = (),
) -> None:
    """Writes (text, height in data, colour) beside the right edge, moved apart where texts would overlap; where styles are
    given, each text stands behind a piece of its line.

    The limits of the axis must be those of the finished figure.
    """
    axis.autoscale_view()
    to_axes = axis.transData + axis.transAxes.inverted()  # the axis may be logarithmic
    heights = [to_axes.transform((1, y))[1] for _, y, _ in labels]
    inches = 0.6 * figure.get_size_inches()[1]  # the height of the axes, roughly
    room = [(text.count("\n") + 1) * size * 1.3 / 72 / inches for text, _, _ in labels]
    places = spread(heights, room)
    for style, height in zip(styles, places, strict=bool(styles)):
        piece: dict[str, Any] = {"transform": axis.transAxes, "clip_on": False, "markersize": 4, "markevery": [1]}
        axis.plot([1.02, 1.06, 1.1], [height] * 3, **style.line | style.points | piece)
    for (text, _, colour), height in zip(labels, places, strict=True):
        x = 1.12 if styles else 1.02
        axis.text(x, height, drawable(text), transform=axis.transAxes, va="center", fontsize=size, color=colour)


def shortened(name: str, length: int) -> str:
    """At most so many characters of a name, its end included, where names of one kind differ."""
    return name if len(name) <= length else f"{name[: length - 9]}…{name[-8:]}"


def legend_right(figure: "Figure", handles: Mapping[str, Any], heading: str, longest: int = 48) -> None:
    """A legend of lines or points at the right of the panels, for which the figure grows wider; long names are cut."""
    names = [drawable(shortened(name, longest)) for name in handles]
    width, height = figure.get_size_inches()
    figure.set_size_inches(width + 0.75 + 0.083 * max(map(len, [heading, *names])), height)
    font: dict[str, Any] = {"frameon": False, "handlelength": 3, "fontsize": 9}
    figure.legend(list(handles.values()), names, loc="outside right center", title=heading, **font)


def finite(what: str, values: Any) -> np.ndarray:
    """The values as an array of float64; raises a `ValueError` that says `what` they are where one is not finite."""
    array = np.asarray(values, dtype=float)
    if bad := int((~np.isfinite(array)).sum()):
        raise ValueError(f"{bad} of {array.size} {what} are not finite, so they cannot be drawn")
    return array


def spread(positions: Sequence[float] | np.ndarray, room: float | Sequence[float]) -> np.ndarray:
    """Moves positions (n,) as little as possible, in least squares, so that each has its room (n,), or that of all."""
    positions = np.asarray(positions, dtype=float)
    order = np.argsort(positions, kind="stable")
    sizes = np.broadcast_to(room, positions.shape)[order]
    steps = np.cumsum(sizes) - sizes / 2
    moved = np.empty_like(positions)
    moved[order] = isotonic_regression(positions[order] - steps).x + steps
    return moved


def seeds(numbers: Sequence[int]) -> str:
    """As in `5 seeds`, or `3 to 5 seeds` where arms differ."""
    low, high = min(numbers), max(numbers)
    return f"{low} seed{'' if high == 1 else 's'}" if low == high else f"{low} to {high} seeds"
