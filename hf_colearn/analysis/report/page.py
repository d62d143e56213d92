"""The report as a page: sections of words, tables and pictures, written as HTML, which needs nothing else, and Markdown."""

import base64
import io
import itertools
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, StrictUndefined


if TYPE_CHECKING:
    from matplotlib.figure import Figure


_ONE_PANEL = 8  # inches: wider figures have several


@dataclass(frozen=True)
class Table:
    """A table of texts; the first column names the rows."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    caption: str = ""


@dataclass(frozen=True)
class Picture:
    """A figure with its file name, what it shows in one line, and what may be read off; and what its row is called."""

    name: str
    figure: "Figure"
    alt: str
    caption: str = ""
    row: str = ""

    @property
    def is_wide(self) -> bool:
        """Whether it has panels side by side, which need the page's width."""
        return self.figure.get_figwidth() > _ONE_PANEL


@dataclass
class Section:
    """A part of the page: a lead sentence, tables, pictures, and notes on what is missing or must be known."""

    name: str
    title: str
    lead: str = ""
    tables: list[Table] = field(default_factory=list)
    pictures: list[Picture] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    numbers: dict[str, Any] = field(default_factory=dict)  # for `report.json`
    has_arms_in_pictures: bool = True  # so that they need the arms' legend

    def __repr__(self) -> str:
        return f"Section('{self.name}', {len(self.tables)} tables, {len(self.pictures)} pictures, {len(self.notes)} notes)"

    @contextmanager
    def error_notes(self, what: str) -> Iterator[None]:
        """What cannot be computed (no latents, one class, a collapsed cloud) is noted, and the section goes on."""
        try:
            yield
        except (ValueError, ImportError) as error:
            self.notes.append(f"{what}: {error}")

    def add_picture(self, name: str, draw: Callable[[], "Figure"], alt: str, caption: str = "", row: str = "") -> None:
        """Adds what `draw` returns, as [`Picture`]; where it raises, the notes say why there is no picture."""
        with self.error_notes(f"No picture '{alt}'"):
            self.pictures.append(Picture(re.sub(r"[^\w.-]+", "_", name), draw(), alt, caption, row))

    def rows(self) -> list[tuple[str, list[Picture]]]:
        """The pictures that stand side by side, with what their row is called."""
        return [(row, list(pictures)) for row, pictures in itertools.groupby(self.pictures, lambda p: p.row)]


@dataclass(frozen=True)
class Page:
    """Everything that a template shows.

    The tone (`"good"`, `"bad"`, `"plain"`) colours the headline; the verdict has a sentence a co-learned arm, the legend each
    arm's kind and line (an inline SVG); the first section's pictures stand beside the headline, the metadata at the end.
    """

    title: str
    subtitle: str
    headline: str
    tone: str
    verdict: Sequence[str]
    legend: Mapping[str, tuple[str, str]]
    sections: Sequence[Section]
    metadata: Mapping[str, str]

    @property
    def metadata_title(self) -> str:
        return "How to repeat it" if "Command" in self.metadata else "What it was made of"

    def save(self, folder: Path) -> list[Path]:
        """Writes `report.html`, `report.md` and `figures`, as SVG and PNG, and returns their paths."""
        pictures = folder / "figures"
        pictures.mkdir(parents=True, exist_ok=True)
        images = {}
        for section in self.sections:
            for picture in section.pictures:
                svg = _svg(picture)
                (pictures / f"{picture.name}.svg").write_bytes(svg)
                picture.figure.set_layout_engine("none")  # all has its place by now
                picture.figure.savefig(pictures / f"{picture.name}.png", dpi=150)
                images[picture.name] = f"data:image/svg+xml;base64,{base64.b64encode(svg).decode()}"
        written = []
        for template, escaped in (("report.html", True), ("report.md", False)):
            environment = Environment(
                autoescape=escaped, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
            )
            environment.filters["cell"] = lambda text: str(text).replace("|", "\\|")
            source = files("hf_colearn.analysis.report").joinpath(template).read_text(encoding="utf-8")
            text = environment.from_string(source).render(page=self, images=images)
            written.append(folder / template)
            written[-1].write_text(text, encoding="utf-8")
        return [*written, pictures]


def _svg(picture: Picture) -> bytes:
    """The same figure gives the same bytes; letters are outlines, so that no font is needed."""
    import matplotlib

    file = io.BytesIO()
    with matplotlib.rc_context({"svg.fonttype": "path", "svg.hashsalt": picture.name}):
        picture.figure.savefig(file, format="svg", metadata={"Date": None})
    return file.getvalue()
