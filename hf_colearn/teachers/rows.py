"""Rows of latents in Arrow files, memory-mapped and read by row without growing the process.

Shapes: U stored rows, D dimensions, B rows of a look-up.
"""

import mmap
import os

import numpy as np
import pyarrow as pa


_FAULT_AROUND = 64 * 1024  # bytes that Linux maps around a page that is touched
_MOST_RESIDENT = 64 * 1024 * 1024  # bytes of mapped pages kept before they are handed back


class MappedRows:
    """The column `latent` (fixed-size lists of float32) of Arrow stream files, as one [U, D] array on disk.

    A look-up copies the rows out and hands the mapped pages back to the system, so that resident memory stays flat
    however many rows have been read; the page cache keeps them at hand.

    Args:
        paths (`list[str]`): Arrow stream files as `datasets` writes them, in the order of their rows.

    Raises:
        ValueError: If a file is truncated, no Arrow file, or has no such column.
    """

    def __init__(self, paths: list[str]):
        self.paths = [os.path.abspath(path) for path in paths]
        self._maps: list[mmap.mmap] = []
        self._chunks: list[np.ndarray] = []
        for path in self.paths:
            try:
                with open(path, "rb") as file:
                    mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
                batches = list(pa.ipc.open_stream(pa.py_buffer(mapped)))
                columns = [batch.column("latent") for batch in batches]
                self._chunks += [column.flatten().to_numpy().reshape(-1, column.type.list_size) for column in columns]
            except (pa.ArrowInvalid, pa.ArrowException, OSError, KeyError, AttributeError, ValueError) as error:
                raise ValueError(
                    f"'{path}' holds no complete bank of latents ({error}): it is truncated or of another program. "
                    "Delete its folder, and the bank is encoded anew."
                ) from error
            self._maps.append(mapped)
        dims = {chunk.shape[1] for chunk in self._chunks}
        if len(dims) != 1:
            raise ValueError(f"{self.paths} hold latents of the widths {sorted(dims)}: a bank has exactly one width.")
        self._starts = np.cumsum([0] + [len(chunk) for chunk in self._chunks])
        self.dim = self._chunks[0].shape[1]
        self._resident = 0

    def __len__(self) -> int:
        return int(self._starts[-1])

    def __getstate__(self) -> list[str]:
        return self.paths  # a spawned worker maps the files itself

    def __setstate__(self, paths: list[str]) -> None:
        self.__init__(paths)  # type: ignore[misc]

    def take(self, rows_B: np.ndarray) -> np.ndarray:
        """Copies rows out, `(B, D)` float32; `rows_B` must be within range."""
        out_BD = np.empty((len(rows_B), self.dim), dtype=np.float32)
        chunk_of_B = np.searchsorted(self._starts, rows_B, side="right") - 1
        for out_D, row, chunk in zip(
            out_BD, (rows_B - self._starts[chunk_of_B]).tolist(), chunk_of_B.tolist(), strict=True
        ):
            out_D[:] = self._chunks[chunk][row]
        self._resident += len(rows_B) * (self.dim * 4 + _FAULT_AROUND)
        if self._resident > _MOST_RESIDENT:
            self.release()
        return out_BD

    def chunks(self):
        """Every stored row in order, piece by piece: arrays `(rows, D)` that must not outlive the iteration."""
        for chunk in self._chunks:
            yield chunk
            self.release()

    def release(self) -> None:
        """Hands the pages that were read back to the system (where it can be told so)."""
        self._resident = 0
        if hasattr(mmap, "MADV_DONTNEED"):
            for mapped in self._maps:
                mapped.madvise(mmap.MADV_DONTNEED)
