"""Imports of optional dependencies."""

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def extra(name: str, why: str) -> Iterator[None]:
    """Names the extra to install where an import within fails.

    Args:
        name (`str`): Of the extra, as in `"report"`.
        why (`str`): What needs which package, as in `"the plots need matplotlib"`.

    Raises:
        `ImportError`: With both.
    """
    try:
        yield
    except ImportError as error:
        raise ImportError(f"{why}: pip install 'hf-colearn[{name}]'") from error
