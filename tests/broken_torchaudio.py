"""Copies of the installed torchaudio that are broken in a known way."""

import importlib.util
import shutil
from pathlib import Path

import pytest


HAS_TORCHAUDIO = importlib.util.find_spec("torchaudio") is not None
needs_torchaudio = pytest.mark.skipif(not HAS_TORCHAUDIO, reason="torchaudio is not installed, nothing to guard")


def copy_torchaudio(folder: Path, library: bytes = b"no library") -> Path:
    """Copies the installed torchaudio into `folder`, with `library` as the content of its compiled part."""
    source = Path(importlib.util.find_spec("torchaudio").submodule_search_locations[0])
    ignore = shutil.ignore_patterns("*.so", "*.pyd", "*.disabled")
    copy = Path(shutil.copytree(source, folder / "torchaudio", ignore=ignore))
    for name in ("_torchaudio", "libtorchaudio"):
        (copy / "lib" / f"{name}.abi3.so").write_bytes(library)
    return copy
