"""A teacher bank's files as they are written: latents and the keys of their inputs, the index of the rows, the description.

Shapes: N rows, U distinct ones, D dimensions.
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, groupby
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
from datasets import Features, List, Value
from datasets.arrow_writer import ArrowWriter

from hf_colearn.teachers.rows import StoredColumn, row_bytes
from hf_colearn.teachers.stored_latents import StoredLatents, stored_latents


LATENTS, INDEX, DESCRIPTION = "latents.arrow", "index.arrow", "bank.json"
FILE_BYTES = 4 * 1024**3  # of latents; what is more goes into several files
_INDEX_ROWS = 1024 * 1024  # written at once


class Keys(Protocol):
    """Texts or digests that are read by slice, as a list or a column is."""

    def __getitem__(self, rows: slice, /) -> Sequence[str]: ...


def as_stored(chunks: Iterable[np.ndarray], dtype: str) -> Iterator[StoredLatents]:
    """Latents that are read piece by piece as they are stored; an error names a row."""
    start = 0
    for chunk in chunks:
        yield stored_latents(chunk, dtype, range(start, start + len(chunk)))
        start += len(chunk)


def write_bank(
    folder: Path,
    chunks: Iterable[StoredLatents],
    distinct_inputs: Keys | None,
    index: np.ndarray | StoredColumn | None,
    description: dict[str, Any],
    rows_per_file: int | None = None,
) -> None:
    """Writes a bank's files.

    `latents.arrow`, or of more rows than `rows_per_file` `latents-00000-of-00012.arrow` and so on; `index.arrow` where rows
    repeat; and last `bank.json` with the sizes of the others. Memory holds one chunk.

    Args:
        folder (`Path`): Made where there is none.
        chunks (`Iterable[StoredLatents]`): The U distinct latents, piece by piece, as they are to be stored; at least one.
        distinct_inputs ([`Keys`], *optional*): The keys of their inputs, read by slice.
        index (`np.ndarray` of shape `(N,)`, *optional*): Which of them each row has; row by row by default.
        description (`dict`): What is recorded.
        rows_per_file (`int`, *optional*): By default as many as make 4 GB.
    """
    folder.mkdir(parents=True, exist_ok=True)
    names = _write_latents(folder, chunks, distinct_inputs, rows_per_file)
    if index is not None:
        with ArrowWriter(path=str(folder / INDEX), features=Features({"row": Value("int64")})) as writer:
            for rows in index_chunks(index):
                writer.write_table(pa.table({"row": pa.array(rows.astype(np.int64))}), len(rows))
            writer.finalize()
        names.append(INDEX)
    write_description(folder, description, names)


def _write_latents(
    folder: Path, chunks: Iterable[StoredLatents], distinct_inputs: Keys | None, rows_per_file: int | None
) -> list[str]:
    chunks = iter(chunks)
    first = next(chunks)  # a bank has at least one row
    dtype, dim = first[0].dtype.name, first[0].shape[1]
    features = Features({"latent": List(Value(dtype), length=dim), "input": Value("string")})
    if dtype == "int8":
        features["scale"] = Value("float32")
    most = rows_per_file or max(1, FILE_BYTES // row_bytes(dtype, dim))
    written = []
    for file, pieces in groupby(_cut(chain([first], chunks), most), key=lambda piece: piece[0] // most):
        written.append(folder / f"latents-{file:05d}.arrow")
        with ArrowWriter(path=str(written[-1]), features=features) as writer:
            for start, values, scales in pieces:
                keys = None if distinct_inputs is None else distinct_inputs[start : start + len(values)]
                writer.write_table(latent_table(values, scales, keys), len(values))
            writer.finalize()
    if len(written) == 1:
        return [written[0].rename(folder / LATENTS).name]
    return [path.rename(folder / f"{path.stem}-of-{len(written):05d}.arrow").name for path in written]


def _cut(chunks: Iterable[StoredLatents], most: int) -> Iterator[tuple[int, np.ndarray, np.ndarray | None]]:
    """Pieces that do not cross a multiple of `most` rows, each with its first row."""
    start = 0
    for values, scales in chunks:
        done = 0
        while done < len(values):
            part = slice(done, done + min(len(values) - done, most - start % most))
            yield start, values[part], None if scales is None else scales[part]
            start, done = start + part.stop - done, part.stop


def index_chunks(index: np.ndarray | StoredColumn) -> Iterator[np.ndarray]:
    """An index of rows, piece by piece."""
    if isinstance(index, StoredColumn):
        yield from index.chunks()
    else:
        yield from (index[start : start + _INDEX_ROWS] for start in range(0, len(index), _INDEX_ROWS))


def latent_table(values_UD: np.ndarray, scales_U: np.ndarray | None, inputs: Sequence[str] | None) -> pa.Table:
    """An Arrow table of the columns `latent` (fixed-size lists), `input` (text, null where unknown) and, of int8, `scale`."""
    flat = pa.array(np.ascontiguousarray(values_UD).reshape(-1))
    latent = pa.FixedSizeListArray.from_arrays(flat, values_UD.shape[1])
    texts = pa.nulls(len(latent), pa.string()) if inputs is None else pa.array(list(inputs), pa.string())
    columns = {"latent": latent, "input": texts}
    return pa.table(columns if scales_U is None else columns | {"scale": pa.array(np.ascontiguousarray(scales_U))})


def write_description(folder: Path, description: dict[str, Any], names: Sequence[str]) -> None:
    """Writes `bank.json`, last, with the sizes of the files beside it."""
    sizes = {name: (folder / name).stat().st_size for name in names}
    (folder / DESCRIPTION).write_text(json.dumps(description | {"files": sizes}, indent=2, default=str))
