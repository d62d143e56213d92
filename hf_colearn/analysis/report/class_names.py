"""What classes are called on a page: short, printable, and each by its own name."""

from collections import Counter
from collections.abc import Sequence


LONGEST = 40  # characters of a name


def readable(names: Sequence[str] | None) -> list[str] | None:
    """The names by class; of several classes of one name each with its number, as in `crane (134)` and `crane (517)`."""
    if names is None:
        return None
    words = [" ".join("".join(char if char.isprintable() else " " for char in str(name)).split()) for name in names]
    short = [word if len(word) <= LONGEST else f"{word[: LONGEST - 1]}…" for word in words]
    counts = Counter(short)
    return [f"{name} ({i})".lstrip() if counts[name] > 1 or not name else name for i, name in enumerate(short)]


def are_numbers(names: Sequence[str] | None) -> bool:
    """Whether nobody has named the classes: they are called by their numbers, or as transformers does, `LABEL_0`."""
    return names is None or all(str(name) in (str(i), f"LABEL_{i}") for i, name in enumerate(names))
