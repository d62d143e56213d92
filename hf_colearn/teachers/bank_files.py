"""A teacher bank's files as they are read: what may be missing, damaged or of another program is named."""

import json
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset, concatenate_datasets

from hf_colearn.teachers.bank_writing import DESCRIPTION, INDEX, LATENTS
from hf_colearn.teachers.rows import HeldRows, LatentRows, StoredColumn, StoredRows


FORMAT = 1  # of the files; part of every fingerprint, so that another format is another cache entry
IN_MEMORY = 64 * 1024 * 1024  # bytes; of rows or their index, what is smaller is read whole


def read(folder: Path, data: str = LATENTS) -> tuple[dict[str, Any], np.ndarray | StoredColumn | None]:
    """The description of a bank whose files are whole, and the index of its rows where inputs repeat; `data` is the file
    that it must have, of latents one or all of several."""
    if not (folder / DESCRIPTION).is_file():
        raise FileNotFoundError(
            f"'{folder}' holds no teacher bank ({DESCRIPTION} is missing): delete the folder if there is one, and "
            "encode a bank."
        )
    try:
        description = json.loads((folder / DESCRIPTION).read_text())
        sizes, _ = dict(description["files"]), description["fingerprint"]
        if not (names_of_latents(sizes) if data == LATENTS else data in sizes):
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
    return description, row_index([str(folder / INDEX)]) if INDEX in sizes else None


def described_dtype(dtype: str) -> dict[str, str]:
    """What a description says of what latents are stored as; nothing of float32, so that banks of earlier versions fit."""
    return {} if dtype == "float32" else {"latent_dtype": dtype}


def names_of_latents(files: Mapping[str, int]) -> list[str]:
    """Those of a bank's files that hold latents, in their order; none where one of several is not listed."""
    parts = sorted(name for name in files if re.fullmatch(r"latents-\d{5}-of-\d{5}\.arrow", name))
    if parts:
        return parts if len(parts) == int(parts[0][-11:-6]) else []
    return [LATENTS] if LATENTS in files else []


def replace(folder: Path, new: Path) -> None:
    """Puts the files of the bank in `new` in the place of one in `folder`."""
    (folder / DESCRIPTION).unlink(missing_ok=True)
    names = [path.name for path in new.iterdir()]
    for old in [*folder.glob("latents*.arrow"), folder / INDEX]:
        if old.name not in names:
            old.unlink(missing_ok=True)
    for name in sorted(names, key=lambda name: name == DESCRIPTION):  # which comes last
        os.replace(new / name, folder / name)


def held_if_small(rows: LatentRows | np.ndarray) -> LatentRows:
    """Rows in memory as they are, and those in files read whole where they are few."""
    if isinstance(rows, np.ndarray):
        return HeldRows(rows)
    return HeldRows.of(rows) if isinstance(rows, StoredRows) and rows.nbytes <= IN_MEMORY else rows


def row_index(paths: list[str]) -> np.ndarray | StoredColumn:
    """Which of the stored latents every row is, `(N,)` int64; a large one is read by row."""
    index = StoredColumn(paths, "row")
    return np.asarray(index) if len(index) * 8 <= IN_MEMORY else index


def inputs_of(paths: Sequence[str]) -> Sequence[str] | None:
    """The column of inputs in files of latents, mapped; `None` where they were unknown."""
    return known_inputs(latents_of(paths))


def known_inputs(latents: Dataset) -> Sequence[str] | None:
    """The column of inputs; `None` where they were unknown."""
    inputs = latents.select_columns("input")["input"]
    return None if inputs[0] is None else inputs


def latents_of(paths: Sequence[str]) -> Dataset:
    """Files with latents as a data set, mapped."""
    return concatenate_datasets([Dataset.from_file(path) for path in paths])
