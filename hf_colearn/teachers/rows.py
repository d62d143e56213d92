"""U stored rows of latents (D dimensions) in Arrow files or in memory, B of them read at once without growing the process."""

import mmap
import os
from collections.abc import Iterator
from dataclasses import dataclass
from io import FileIO

import numpy as np
import pyarrow as pa

from hf_colearn.teachers.stored_latents import DTYPES, StoredLatents, restored_latents


CHUNK_BYTES = 8 * 1024 * 1024


class LatentRows:
    """Latents of U rows as float32, however they are stored; `shape` is (U, D), `dtype` what the numbers are stored as.

    An int8 row has a scale; a row whose numbers, or whose scale, are NaN holds no latent.
    """

    shape: tuple[int, ...]
    dtype: str

    def stored(self, rows_B: np.ndarray) -> StoredLatents:
        """Rows as they are stored: `(B, D)`, and the scales `(B,)` of int8; `rows_B` must be within range."""
        raise NotImplementedError

    def stored_chunks(self) -> Iterator[StoredLatents]:
        """Every row in order, piece by piece, as it is stored."""
        raise NotImplementedError

    def __len__(self) -> int:
        return self.shape[0]

    @property
    def nbytes(self) -> int:
        """Of all rows, with their scales."""
        return len(self) * row_bytes(self.dtype, self.shape[1])

    def __getitem__(self, rows_B: np.ndarray) -> np.ndarray:
        """Rows, `(B, D)` float32, in an array of their own; `rows_B` must be within range."""
        return restored_latents(*self.stored(rows_B))

    def chunks(self) -> Iterator[np.ndarray]:
        """Every row in order, piece by piece: arrays `(rows, D)` float32."""
        return (restored_latents(*stored) for stored in self.stored_chunks())


def row_bytes(dtype: str, dim: int) -> int:
    """What a row of D numbers takes: 4 D, 2 D, or of int8 D + 4 bytes."""
    return np.dtype(dtype).itemsize * dim + (4 if dtype == "int8" else 0)


@dataclass(eq=False)
class HeldRows(LatentRows):
    """Rows in memory, as they are stored.

    Args:
        values (`np.ndarray` of shape `(U, D)`): float32, float16 or int8.
        scales (`np.ndarray` of shape `(U,)`, *optional*): float32, of int8.
    """

    values: np.ndarray
    scales: np.ndarray | None = None

    def __post_init__(self):
        self.shape, self.dtype = self.values.shape, self.values.dtype.name

    @classmethod
    def of(cls, rows: LatentRows) -> "HeldRows":
        """All of them, read."""
        values, scales = zip(*rows.stored_chunks(), strict=True)
        return cls(np.concatenate(values), np.concatenate(scales) if rows.dtype == "int8" else None)

    def stored(self, rows_B: np.ndarray) -> StoredLatents:
        return self.values[rows_B], None if self.scales is None else self.scales[rows_B]

    def stored_chunks(self) -> Iterator[StoredLatents]:
        size = max(1, CHUNK_BYTES // row_bytes(self.dtype, self.shape[1]))
        for start in range(0, len(self), size):
            part = slice(start, start + size)
            yield self.values[part], None if self.scales is None else self.scales[part]


class StoredRows(LatentRows):
    """The column `latent` (fixed-size lists of float32, float16 or int8) of Arrow stream files in the order of `paths`; the
    column `scale` (float32) has those of int8."""

    def __init__(self, paths: list[str]):
        self._latents = StoredColumn(paths, "latent")
        self.shape, self.dtype = self._latents.shape, self._latents.dtype.name
        if self.dtype not in DTYPES or len(self.shape) != 2:
            raise ValueError(f"{paths} hold latents of {self.dtype}: a bank has lists of {', '.join(DTYPES)}.")
        self._scales = StoredColumn(paths, "scale") if self.dtype == "int8" else None

    @property
    def paths(self) -> list[str]:
        return self._latents.paths

    def stored(self, rows_B: np.ndarray) -> StoredLatents:
        return self._latents[rows_B], None if self._scales is None else self._scales[rows_B]

    def stored_chunks(self) -> Iterator[StoredLatents]:
        if self._scales is None:
            return ((values, None) for values in self._latents.chunks())
        return zip(self._latents.chunks(), self._scales.chunks(), strict=True)


class StoredColumn:
    """A column of numbers, or of fixed-size lists of numbers, of Arrow stream files in the order of `paths`, as one array.

    Rows are read through the system's page cache, which all processes share, and not through a mapping: a page that is
    touched in a mapping brings up to 2 MB of its neighbours into resident memory (256 rows: 200 MB on Linux 6.18).
    """

    def __init__(self, paths: list[str], name: str):
        self.paths, self._name = [os.path.abspath(path) for path in paths], name
        self._chunks: list[tuple[FileIO, int, int]] = []  # file, offset in bytes, rows
        kinds: dict[tuple[str, tuple[int, ...]], str] = {}  # dtype and shape of a row, in which file first
        for path in self.paths:
            try:
                file = open(path, "rb", buffering=0)  # noqa: SIM115 (kept open: a file that is replaced goes on)
                for offset, rows, kind in _find_chunks(file, name):
                    self._chunks.append((file, offset, rows))
                    kinds.setdefault(kind, path)
            except (pa.ArrowException, OSError, KeyError, AttributeError, ValueError) as error:
                raise ValueError(
                    f"'{path}' holds no complete bank of latents ({error}): it is truncated or of another program. "
                    "Delete its folder, and the bank is encoded anew."
                ) from error
        if len(kinds) != 1:
            found = ", ".join(f"{dtype} of shape {list(shape)} in '{path}'" for (dtype, shape), path in kinds.items())
            raise ValueError(f"the rows of a bank are of one type and one width, and '{name}' is {found or 'empty'}.")
        ((dtype, shape),) = kinds
        self._starts = np.cumsum([0] + [rows for _, _, rows in self._chunks])
        self._offsets = np.array([offset for _, offset, _ in self._chunks])
        self.dtype, self.shape = np.dtype(dtype), (int(self._starts[-1]), *shape)

    def __len__(self) -> int:
        return self.shape[0]

    def __getstate__(self) -> tuple[list[str], str]:
        return self.paths, self._name  # a spawned worker opens the files itself

    def __setstate__(self, state: tuple[list[str], str]) -> None:
        self.__init__(*state)  # type: ignore[misc]

    def __getitem__(self, rows_B: np.ndarray) -> np.ndarray:
        """Reads rows, `(B, ...)`; `rows_B` must be within range."""
        out_B = np.empty((len(rows_B), *self.shape[1:]), dtype=self.dtype)
        chunk_of_B = np.searchsorted(self._starts, rows_B, side="right") - 1
        size = out_B.dtype.itemsize * int(np.prod(self.shape[1:]))
        offset_of_B = self._offsets[chunk_of_B] + (rows_B - self._starts[chunk_of_B]) * size
        whole = out_B.view(np.uint8).reshape(-1).data
        for i, (chunk, offset) in enumerate(zip(chunk_of_B.tolist(), offset_of_B.tolist(), strict=True)):
            _read(self._chunks[chunk][0], whole[i * size : (i + 1) * size], offset)
        return out_B

    def chunks(self) -> Iterator[np.ndarray]:
        """Every row in order, piece by piece: arrays `(rows, ...)`."""
        for file, offset, rows in self._chunks:
            chunk = np.empty((rows, *self.shape[1:]), dtype=self.dtype)
            _read(file, chunk.view(np.uint8).reshape(-1).data, offset)
            yield chunk

    def __array__(self, dtype: np.dtype | None = None, copy: bool | None = None) -> np.ndarray:
        return np.concatenate(list(self.chunks()), dtype=dtype)


def _find_chunks(file: FileIO, name: str) -> Iterator[tuple[int, int, tuple[str, tuple[int, ...]]]]:
    """Where a column lies in a file: of every record batch the offset in bytes, the rows, and the dtype and shape of a row."""
    mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    if hasattr(mapped, "madvise"):  # only the batches' metadata are read
        mapped.madvise(mmap.MADV_RANDOM)
    whole = pa.py_buffer(mapped)
    for batch in pa.ipc.open_stream(whole):
        column = batch.column(name)
        is_list = pa.types.is_fixed_size_list(column.type)
        values = (column.flatten() if is_list else column).to_numpy()
        offset = values.ctypes.data - whole.address
        if column.null_count or not 0 <= offset <= whole.size - values.nbytes:
            raise ValueError(f"its column '{name}' of {column.type} is compressed or has nulls")
        if len(column):
            yield offset, len(column), (values.dtype.name, (column.type.list_size,) if is_list else ())


def _read(file: FileIO, buffer: memoryview, offset: int) -> None:
    if hasattr(os, "preadv"):  # leaves the file's position alone, which forked workers share
        found = os.preadv(file.fileno(), [buffer], offset)
    else:
        file.seek(offset)
        found = file.readinto(buffer)
    if found != buffer.nbytes:
        raise OSError(f"'{file.name}' ends within a row: it was truncated while in use. Encode the bank anew.")
