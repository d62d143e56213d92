"""Texts that a figure can show: users' names may have characters that its font lacks, or `$`, which begins a formula."""

import unicodedata
from functools import cache
from typing import TYPE_CHECKING, Any


if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Fonts of many scripts, of which those that are installed help out.
FALLBACKS = (
    "Noto Sans CJK SC", "Noto Sans CJK JP", "Source Han Sans SC", "WenQuanYi Micro Hei", "Droid Sans Fallback", "PingFang SC",
    "Microsoft YaHei", "Arial Unicode MS", "Unifont",
)  # fmt: skip


def drawable(text: str) -> str:
    """The text for a figure: characters that no installed font has by name where they are pictures, else by their code.

    Example:

    ```python
    >>> from hf_colearn.analysis.plots.text import drawable

    >>> drawable("US$ and \\U0001f98a")
    'US\\\\$ and fox face'
    ```
    """
    return "".join(char if char.isascii() or _has_glyph(char) else _spelled(char) for char in text).replace("$", "\\$")


def is_drawable(text: str) -> bool:
    """Whether all its characters have a glyph."""
    return all(char.isascii() or _has_glyph(char) for char in text)


def help_out(figure: "Figure") -> None:
    """Lets installed fonts draw what the usual one lacks."""
    from matplotlib.text import Text

    if len(fonts := _fonts()) > 1:
        for text in figure.findobj(Text):
            text.set_fontfamily([name for name, _ in fonts])  # type: ignore[attr-defined]


def _spelled(char: str) -> str:
    if unicodedata.category(char) in ("Mn", "Cf"):  # such as the selector of a coloured picture
        return ""
    return unicodedata.name(char, "").lower() if unicodedata.category(char) == "So" else f"U+{ord(char):04X}"


@cache
def _has_glyph(char: str) -> bool:
    return any(font.get_char_index(ord(char)) for _, font in _fonts())


@cache
def _fonts() -> list[tuple[str, Any]]:
    """The usual font and installed fallbacks, by their families."""
    from matplotlib.font_manager import FontProperties, findfont, fontManager
    from matplotlib.ft2font import FT2Font

    usual = FontProperties()
    files = {usual.get_name(): findfont(usual)}
    installed = {entry.name: entry.fname for entry in fontManager.ttflist if entry.name in FALLBACKS}
    return [
        (name, FT2Font(file))
        for name, file in (files | {n: installed[n] for n in FALLBACKS if n in installed}).items()
    ]
