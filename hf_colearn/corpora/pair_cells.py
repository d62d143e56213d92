"""Cells of pairs: pictures and sounds as they are stored, texts, vectors; which are there, and what tells them apart."""

from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow.compute as pc
import xxhash
from datasets import Dataset, Value

from hf_colearn.corpora.pair_columns import PairColumns
from hf_colearn.data.audio import read_waveform
from hf_colearn.data.bad_samples import without_bad_samples
from hf_colearn.data.columns import STORED_MEDIA
from hf_colearn.data.images import as_rgb


MEDIA = {"image": datasets.Image(decode=False), "audio": datasets.Audio(decode=False)}
_READERS: dict[str, Callable[[Any, int], Any]] = {"image": as_rgb, "audio": read_waveform}


def has_cell(dataset: Dataset, column: str) -> np.ndarray:
    """Which samples have something in a column, `(N,)` booleans."""
    return dataset.with_format("arrow").select_columns(column)[:][column].is_valid().to_numpy(zero_copy_only=False)


def content(part: Dataset, column: str, kind: str, folder: Path, out: str) -> Dataset:
    """A column of pictures, sounds or texts; paths are relative to the table or folder that names them."""
    feature = part.features[column]
    if kind == "text":
        texts = [None if cell is None or not str(cell).strip() else str(cell).strip() for cell in part[column]]
        if isinstance(feature, datasets.ClassLabel):
            texts = [None if cell is None or cell < 0 else feature.int2str(cell) for cell in part[column]]
        return part.add_column(out, texts, feature=Value("string"))
    if not isinstance(feature, Value):
        return part.rename_column(column, out)  # and not a copy of all bytes
    cells = [None if not cell else {"bytes": None, "path": str(folder / cell)} for cell in part[column]]
    return part.add_column(out, cells, feature=STORED_MEDIA).cast_column(out, MEDIA[kind])


def features(part: Dataset, columns: Sequence[str], split: str, may_miss: bool = False) -> list[Any]:
    """Vectors of one width; None where one is missing or in part NaN and may be so."""
    if len(columns) > 1 or isinstance(part.features[columns[0]], Value):
        rows = [list(row) for row in zip(*(part[name] for name in columns), strict=True)]
    else:
        rows = part[columns[0]][:]
    made: list[list[float] | None] = []
    widths = Counter(len(row) for row in rows if row is not None)
    width = widths.most_common(1)[0][0] if widths else 0
    for number, row in enumerate(rows):
        is_whole = row is not None and not any(value is None or value != value for value in row)
        if row is not None and len(row) != width:
            raise ValueError(
                f"row {number} of '{columns[0]}' in '{split}' has {len(row)} numbers where others have {width}: features need "
                "one width."
            )
        if not is_whole and not may_miss:
            raise ValueError(
                f"row {number} of the features ({some(columns)}) in '{split}' lacks a number: fill it, or remove the row."
            )
        made.append([float(value) for value in row] if is_whole and row is not None else None)
    return made


def readable(part: Dataset, columns: PairColumns, split: str, skip_bad_samples: bool) -> Dataset:
    """Every sample needs an input, and every file that is named must be there; what cannot be decoded shows when it is read."""
    kinds = {"input": columns.input_kind, "other": str(columns.other_kind)}
    kinds = {column: kind for column, kind in kinds.items() if column in part.column_names}
    if skip_bad_samples:
        for column, kind in kinds.items():
            part, _ = without_bad_samples(part, partial(_read, kind, column == "other", split), column)
        return part
    for column, kind in kinds.items():
        missing = _absent(part, column) if kind in MEDIA else []
        lacks = [row for row, has in enumerate(has_cell(part, column)) if not has] if column == "input" else []
        if missing:
            raise FileNotFoundError(
                f"{len(missing)} of {len(part)} files of '{split}' are not there; the first: "
                f"'{part[missing[0]][column]['path']}' of row {missing[0]}. Restore them, or leave these samples out with "
                "--skip_bad_samples."
            )
        if lacks:
            raise ValueError(
                f"{len(lacks)} of {len(part)} samples of '{split}' have no {columns.input_kind} in column "
                f"'{columns.input[0]}' (the first is row {lacks[0]}): complete them, or leave them out with --skip_bad_samples."
            )
    return part


def _read(kind: str, may_miss: bool, split: str, cell: Any, row: int) -> None:
    """Raises a ValueError of a cell that cannot be used."""
    if cell is None and not may_miss:
        raise ValueError(f"row {row} of '{split}' has no {kind}: complete it, or remove the row.")
    if cell is not None and kind in _READERS:
        _READERS[kind](cell, row)


def _absent(part: Dataset, column: str) -> list[int]:
    """The rows whose file is named and not there."""
    cells = part.with_format("arrow").select_columns(column)[:][column]
    has_bytes = pc.is_valid(pc.struct_field(cells, "bytes")).to_pylist()
    paths = enumerate(pc.struct_field(cells, "path").to_pylist())
    of_files = [(row, path) for row, path in paths if path and not has_bytes[row] and "://" not in path]
    return [row for row, path in of_files if not Path(path).is_file()]


def digests(part: Dataset, column: str) -> list[Hashable | None]:
    """What tells contents apart: of files their bytes, of texts their words whatever their case, of features their values."""

    def of(cell: Any) -> Hashable | None:
        if cell is None:
            return None
        if isinstance(cell, str):
            return " ".join(cell.lower().split())
        if isinstance(cell, dict):
            content = cell["bytes"] if cell.get("bytes") is not None else _bytes(str(cell["path"]))
            return xxhash.xxh3_128_digest(content)
        return xxhash.xxh3_128_digest(np.asarray(cell, dtype=np.float32).tobytes())

    return [of(cell) for cell in part[column]]


def _bytes(path: str) -> bytes:
    return Path(path).read_bytes() if Path(path).is_file() else path.encode()


def some(names: Sequence[str]) -> str:
    shown = ", ".join(map(str, names[:4]))
    return f"{shown}, ..." if len(names) > 4 else shown
