"""Imports of optional dependencies."""

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def extra(name: str, why: str) -> Iterator[None]:
    """Names the extra to install (`"report"`) and why (`"the plots need matplotlib"`) where an import within fails."""
    try:
        yield
    except ImportError as error:
        raise ImportError(f"{why}: pip install 'hf-colearn[{name}]'") from error
