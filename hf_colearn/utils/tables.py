"""Tables of text, for terminals and in Markdown."""

from collections.abc import Sequence


def text_table(rows: Sequence[Sequence[str]]) -> str:
    """Aligned columns with a rule below the header, the first row.

    Example:

    ```python
    >>> from hf_colearn.utils.tables import text_table

    >>> print(text_table([["arm", "accuracy [%]"], ["baseline", "82.91"]]))
    arm       accuracy [%]
    --------  ------------
    baseline  82.91
    ```
    """
    return "\n".join("  ".join(row).rstrip() for row in _aligned(rows))


def markdown_table(rows: Sequence[Sequence[str]]) -> str:
    """The same in Markdown, with the pipes within cells escaped."""
    escaped = [[cell.replace("|", "\\|") for cell in row] for row in rows]
    return "\n".join(f"| {' | '.join(row)} |" for row in _aligned(escaped))


def _aligned(rows: Sequence[Sequence[str]]) -> list[list[str]]:
    widths = [max(3, *map(len, column)) for column in zip(*rows, strict=True)]
    header, *body = rows
    ruled = [header, ["-" * width for width in widths], *body]
    return [[cell.ljust(width) for cell, width in zip(row, widths, strict=True)] for row in ruled]
