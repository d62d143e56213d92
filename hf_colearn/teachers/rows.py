"""U stored rows of latents (D dimensions) in Arrow files, B of them read at once without growing the process."""

import mmap
import os
from collections.abc import Iterator
from io import FileIO

import numpy as np
import pyarrow as pa


class StoredRows:
    """The column `latent` (fixed-size lists of float32) of Arrow stream files in the order of `paths`, as one [U, D] array.

    Rows are read through the system's page cache, which all processes share, and not through a mapping: a page that is
    touched in a mapping brings up to 2 MB of its neighbours into resident memory (256 rows: 200 MB on Linux 6.18).
    """

    def __init__(self, paths: list[str]):
        self.paths = [os.path.abspath(path) for path in paths]
        self._chunks: list[tuple[FileIO, int, int]] = []  # file, offset in bytes, rows
        dims = set()
        for path in self.paths:
            try:
                file = open(path, "rb", buffering=0)  # noqa: SIM115 (kept open: a file that is replaced goes on)
                for offset, rows, dim in _find_chunks(file):
                    self._chunks.append((file, offset, rows))
                    dims.add(dim)
            except (pa.ArrowException, OSError, KeyError, AttributeError, ValueError) as error:
                raise ValueError(
                    f"'{path}' holds no complete bank of latents ({error}): it is truncated or of another program. "
                    "Delete its folder, and the bank is encoded anew."
                ) from error
        if len(dims) != 1:
            raise ValueError(f"{self.paths} hold latents of the widths {sorted(dims)}: a bank has exactly one width.")
        self._starts = np.cumsum([0] + [rows for _, _, rows in self._chunks])
        self._offsets = np.array([offset for _, offset, _ in self._chunks])
        self.shape = int(self._starts[-1]), dims.pop()

    def __len__(self) -> int:
        return self.shape[0]

    def __getstate__(self) -> list[str]:
        return self.paths  # a spawned worker opens the files itself

    def __setstate__(self, paths: list[str]) -> None:
        self.__init__(paths)  # type: ignore[misc]

    def __getitem__(self, rows_B: np.ndarray) -> np.ndarray:
        """Reads rows, `(B, D)` float32; `rows_B` must be within range."""
        out_BD = np.empty((len(rows_B), self.shape[1]), dtype=np.float32)
        chunk_of_B = np.searchsorted(self._starts, rows_B, side="right") - 1
        offset_of_B = self._offsets[chunk_of_B] + (rows_B - self._starts[chunk_of_B]) * self.shape[1] * 4
        for out_D, chunk, offset in zip(out_BD, chunk_of_B.tolist(), offset_of_B.tolist(), strict=True):
            _read(self._chunks[chunk][0], out_D, offset)
        return out_BD

    def chunks(self) -> Iterator[np.ndarray]:
        """Every stored row in order, piece by piece: arrays `(rows, D)`."""
        for file, offset, rows in self._chunks:
            chunk = np.empty((rows, self.shape[1]), dtype=np.float32)
            _read(file, chunk, offset)
            yield chunk


def _find_chunks(file: FileIO) -> list[tuple[int, int, int]]:
    """Where the latents lie in a file: the offset in bytes, rows and width of every record batch."""
    whole = pa.py_buffer(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    chunks = []
    for batch in pa.ipc.open_stream(whole):
        column = batch.column("latent")
        values = column.flatten().to_numpy()
        offset = values.ctypes.data - whole.address
        if values.dtype != np.float32 or not 0 <= offset <= whole.size - values.nbytes:
            raise ValueError(f"its latents are {values.dtype} or compressed, not plain float32")
        chunks.append((offset, len(column), column.type.list_size))
    return chunks


def _read(file: FileIO, array: np.ndarray, offset: int) -> None:
    if hasattr(os, "preadv"):  # leaves the file's position alone, which forked workers share
        found = os.preadv(file.fileno(), [array.data], offset)
    else:
        file.seek(offset)
        found = file.readinto(array.data)
    if found != array.nbytes:
        raise OSError(f"'{file.name}' ends within a row: it was truncated while in use. Encode the bank anew.")
