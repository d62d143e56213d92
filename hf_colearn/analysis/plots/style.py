"""How the pictures look: one palette, one look an arm, and the frame of a picture. Needs `pip install hf-colearn[report]`.

Both palettes can be told apart by colour-blind readers: Okabe and Ito's for arms ("Color Universal Design", 2008; its
faint yellow left out), Paul Tol's "muted" for classes ("Colour Schemes", 2021). Dashes and markers repeat what colours
say, so that nothing is lost in print without colour.
"""

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.optimize import isotonic_regression

from hf_colearn.analysis.statistics.compare import Kind


if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BLACK, BLUE, RED = "#000000", "#0072B2", "#D55E00"
ARM_COLOURS = {
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
LAYERS = {"baseline": 2.0, "reference": 2.2, "null": 2.4, "colearned": 2.8}  # what lies over what
CLASS_COLOURS = [
    *("#332288", "#CC6677", "#117733", "#88CCEE", "#DDCC77"),
    *("#882255", "#44AA99", "#999933", "#AA4499", "#777777"),
]
MARKERS = ["o", "s", "^", "D", "v", "P", "X"]
# Their outlines in a box from -1 to 1, y down, for a web page's legend.
_OUTLINES = {
    "o": "M-1 0A1 1 0 1 1 1 0A1 1 0 1 1 -1 0Z",
    "s": "M-.9-.9H.9V.9H-.9Z",
    "^": "M0-1L1 .9H-1Z",
    "v": "M0 1L1-.9H-1Z",
    "D": "M0-1.1L1.1 0L0 1.1L-1.1 0Z",
    "P": "M-.4-1H.4V-.4H1V.4H.4V1H-.4V.4H-1V-.4H-.4Z",
    "X": "M-1-.5L-.5-1L0-.5L.5-1L1-.5L.5 0L1 .5L.5 1L0 .5L-.5 1L-1 .5L-.5 0Z",
}
PANEL = (4.8, 3.4)  # inches
ROW_NAME = 24  # characters in a line of a row's name
GREY = "#595959"  # of text that stands back


@dataclass(frozen=True)
class ArmStyle:
    """The look of one arm, or of one class, in all pictures of a page.

    Args:
        colour (`str`): As `#rrggbb`.
        marker (`str`): One of `MARKERS`.
        dashes (`tuple[float, ...]`, *optional*): Lengths on, off, on, ... in line widths; `()` is a solid line, and
            `None` none, as of a class, which has points alone.
        filled (`bool`, *optional*, defaults to `True`): Whether the marker is filled, or white within.
        width (`float`, *optional*, defaults to 1.6): Of the line, in points.
        layer (`float`, *optional*, defaults to 2): Higher ones lie over lower ones.
    """

    colour: str
    marker: str
    dashes: tuple[float, ...] | None = ()
    filled: bool = True
    width: float = 1.6
    layer: float = 2.0

    @property
    def linestyle(self) -> Any:
        """As matplotlib takes it."""
        if self.dashes is None:
            return "none"
        return (0, self.dashes) if self.dashes else "-"

    @property
    def line(self) -> dict[str, Any]:
        """Keywords of matplotlib's `plot` for a line."""
        return {"color": self.colour, "linestyle": self.linestyle, "linewidth": self.width, "zorder": self.layer}

    @property
    def points(self) -> dict[str, Any]:
        """Keywords of matplotlib's `plot` for its markers."""
        face = self.colour if self.filled else "white"
        return {
            "marker": self.marker,
            "markerfacecolor": face,
            "markeredgecolor": self.colour,
            "markeredgewidth": 1.0,
        }

    def swatch(self) -> str:
        """The line with its dashes and marker as a small inline SVG, for the legend of a web page."""
        x, line, face = (18, "", self.colour if self.filled else "#ffffff")
        if self.dashes is None:
            x = 7
        else:
            dashes = " ".join(f"{self.width * length:g}" for length in self.dashes)
            dashes = f' stroke-dasharray="{dashes}"' if dashes else ""
            line = f'<path d="M1 7H{2 * x - 1}" stroke="{self.colour}" stroke-width="{self.width:g}"{dashes}/>'
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{2 * x}" height="14" viewBox="0 0 {2 * x} 14" '
            f'aria-hidden="true" fill="none">{line}<path transform="translate({x} 7) scale(3.6)" '
            f'd="{_OUTLINES[self.marker]}" fill="{face}" stroke="{self.colour}" stroke-width=".3"/></svg>'
        )


def arm_styles(arms: Mapping[str, Kind]) -> dict[str, ArmStyle]:
    """One look an arm, for all pictures of a page.

    The baseline is a wide black line below the others, so that it shows where they lie on it. Co-learned arms have
    colours, null controls dashed greys and references light dots; the latter two have hollow markers. Looks repeat only
    beyond 18 co-learned arms, 20 null controls or 4 references.

    Args:
        arms (`Mapping[str, str]`): Kinds of the arms by name, in their order.

    Example:

    ```python
    >>> from hf_colearn.analysis.plots.style import arm_styles

    >>> arm_styles({"ce": "baseline", "text teacher": "colearned"})["text teacher"].colour
    '#D55E00'
    ```
    """
    styles, seen = {}, dict.fromkeys(ARM_COLOURS, 0)
    for arm, kind in arms.items():
        i = seen[kind]
        seen[kind] += 1
        colours, dashes, markers = ARM_COLOURS[kind], ARM_DASHES[kind], ARM_MARKERS[kind]
        # Co-learned arms run through the colours before the dashes change; the greys need their dashes at once.
        dash = dashes[(i // len(colours) if kind == "colearned" else i) % len(dashes)]
        styles[arm] = ArmStyle(
            colour=colours[i % len(colours)],
            marker=markers[i % len(markers)],
            dashes=dash,
            filled=kind in ("baseline", "colearned"),
            width={"baseline": 3.0, "colearned": 1.8}.get(kind, 1.4),
            layer=LAYERS[kind],
        )
    return styles


def new_figure(width: float = PANEL[0], height: float = PANEL[1]) -> "Figure":
    """A figure of `width` x `height` inches. Without pyplot: the user's backend and open figures are left alone."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError("the plots need matplotlib: pip install 'hf-colearn[report]'") from error
    return Figure(figsize=(width, height), layout="constrained")


def title(figure: "Figure", heading: str, below: str = "") -> None:
    """A bold heading on top at the left, and a smaller grey line below; both are wrapped to the figure's width."""
    width, height = figure.get_size_inches()
    top = 0.06
    for text, size, weight, colour in ((heading, 11, "bold", "black"), (below, 8.5, "normal", GREY)):
        lines = textwrap.wrap(text, int(72 * (width - 0.16) / (0.56 if weight == "normal" else 0.63) / size))
        if lines:
            look: dict[str, Any] = {"fontsize": size, "fontweight": weight, "color": colour, "linespacing": 1.2}
            figure.text(0.08 / width, 1 - top / height, "\n".join(lines), va="top", **look)
            top += len(lines) * size * 1.4 / 72 + 0.02
    figure.set_layout_engine("constrained", rect=(0, 0, 1, 1 - (top + 0.02) / height), w_pad=0.08)


def bare(axis: "Axes", grid: str = "both") -> None:
    """A faint grid below the marks, small numbers, and no frame at the top and the right."""
    axis.set_axisbelow(True)
    axis.grid(axis=grid, color="0.9", linewidth=0.7)  # type: ignore[arg-type]
    axis.spines[["top", "right"]].set_visible(False)
    axis.spines[["left", "bottom"]].set_color("0.6")
    axis.tick_params(labelsize=8.5, color="0.6")
    for label in (axis.xaxis.label, axis.yaxis.label):
        label.set_fontsize(9)


def name_lines(figure: "Figure", handles: Mapping[str, Any], heading: str, columns: int = 1) -> None:
    """A legend of lines or points at the right of the panels, for which the figure grows wider."""
    width, height = figure.get_size_inches()
    figure.set_size_inches(width + columns * (0.75 + 0.083 * max(map(len, [heading, *handles]))), height)
    look: dict[str, Any] = {"frameon": False, "handlelength": 3, "fontsize": 9, "ncols": columns}
    figure.legend(list(handles.values()), list(handles), loc="outside right center", title=heading, **look)


def name_rows(axis: "Axes", heights: np.ndarray, names: Sequence[str], size: float = 9) -> None:
    """Names rows at the left, without ticks; long names in two lines, and too long ones cut."""
    lines = [textwrap.fill(name, ROW_NAME, break_on_hyphens=False, max_lines=2, placeholder=" …") for name in names]
    axis.set_yticks(heights, lines)
    bare(axis, grid="x")
    axis.tick_params(axis="y", length=0, labelsize=size, labelcolor=BLACK)
    axis.spines["left"].set_visible(False)


def finite(what: str, values: Any) -> np.ndarray:
    """The values as an array of float64; raises a `ValueError` that says `what` they are where one is not finite."""
    array = np.asarray(values, dtype=float)
    if bad := int((~np.isfinite(array)).sum()):
        raise ValueError(f"{bad} of {array.size} {what} are not finite, so they cannot be drawn")
    return array


def spread(positions: Sequence[float] | np.ndarray, gap: float) -> np.ndarray:
    """Moves `positions` (n,) as little as possible, in least squares, so that any two are at least `gap` apart."""
    positions = np.asarray(positions, dtype=float)
    order = np.argsort(positions, kind="stable")
    steps = gap * np.arange(len(positions))
    moved = np.empty_like(positions)
    moved[order] = isotonic_regression(positions[order] - steps).x + steps
    return moved


def save(figure: "Figure", path: str | PathLike | None) -> "Figure":
    """Writes the figure where a path is given; the ending gives the format. Returns the figure."""
    if path is not None:
        figure.savefig(path, dpi=150)
    return figure


def seeds(numbers: Sequence[int]) -> str:
    """As in `5 seeds`, or `3 to 5 seeds` where arms differ."""
    low, high = min(numbers), max(numbers)
    return f"{low} seed{'' if high == 1 else 's'}" if low == high else f"{low} to {high} seeds"
