"""A teacher bank's files as they are read: what may be missing, damaged or of another program is named."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset

from hf_colearn.teachers.encoding import DESCRIPTION, INDEX, LATENTS


FORMAT = 1  # of the files; part of every fingerprint, so that another format is another cache entry


def read(folder: Path, data: str = LATENTS) -> tuple[dict[str, Any], np.ndarray | None]:
    """The description of a bank whose files are whole, and the index of its rows where inputs repeat; `data` is the file
    that it must have."""
    if not (folder / DESCRIPTION).is_file():
        raise FileNotFoundError(
            f"'{folder}' holds no teacher bank ({DESCRIPTION} is missing): delete the folder if there is one, and "
            "encode a bank."
        )
    try:
        description = json.loads((folder / DESCRIPTION).read_text())
        sizes, _ = dict(description["files"]), description["fingerprint"]
        if data not in sizes:
            raise ValueError(f"it lists no {data}")
        if description["format"] != FORMAT:
            raise ValueError(f"format {description['format']} instead of {FORMAT}")
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"'{folder / DESCRIPTION}' is no description of a bank of this version ({error}): it is damaged or of "
            "another program. Delete the folder, and the bank is encoded anew."
        ) from error
    for name, size in sizes.items():
        found = (folder / name).stat().st_size if (folder / name).is_file() else 0
        if found != size:
            raise ValueError(
                f"'{folder / name}' has {found} bytes, {size} were written: the bank is truncated. "
                "Delete the folder, and the bank is encoded anew."
            )
    return description, row_index(Dataset.from_file(str(folder / INDEX))) if INDEX in sizes else None


def row_index(index: Dataset) -> np.ndarray:
    """Which of the stored latents every row is, `(N,)` int64."""
    return index.with_format("numpy")["row"][:].astype(np.int64)


def inputs_of(latents: Dataset) -> Sequence[str] | None:
    """The column of inputs, mapped; `None` where they were unknown."""
    inputs = latents.select_columns("input")["input"]
    return None if inputs[0] is None else inputs
