"""The distinct ones among N inputs, U <= N, found by their digests with a few bytes of memory an input."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from tempfile import SpooledTemporaryFile
from typing import Any

import numpy as np
import xxhash

from hf_colearn.teachers.inputs import digest


_BYTES = 16  # of a digest
_BLOCK = 1 << 16  # inputs whose digests are read or written at once
_PART = 1 << 21  # inputs, about, that are compared at once
IN_MEMORY = 1 << 20  # digests; more are in a file


@dataclass
class Distinct:
    """The distinct ones among N inputs: where each first stands, and which of them every input is.

    Args:
        positions (`Sequence[int]`): `[U]`, into the inputs; a range where none repeats.
        digests ([`Digests`]): Of the inputs, by their positions.
        index (`np.ndarray` of shape `(N,)`): Into the U, uint32.
        fingerprint (`str`): Of the distinct inputs and the index.
    """

    positions: Sequence[int] | np.ndarray
    digests: "Digests"
    index: np.ndarray
    fingerprint: str


class Digests:
    """The digests of N inputs, in a file without a name once they are many.

    Args:
        digests (`Iterable[bytes]`): 16 bytes each.
        folder (`Path`, *optional*): Where the file is; among the temporary ones by default.
    """

    def __init__(self, digests: Iterable[bytes], folder: Path | None = None):
        self._file = SpooledTemporaryFile(max_size=IN_MEMORY * _BYTES, dir=None if folder is None else str(folder))  # noqa: SIM115 (kept open)
        self._number, digests = 0, iter(digests)
        while block := list(islice(digests, _BLOCK)):
            self._file.write(b"".join(block))
            self._number += len(block)

    def __len__(self) -> int:
        return self._number

    def __getitem__(self, position: int) -> bytes:
        self._file.seek(position * _BYTES)
        return self._file.read(_BYTES)

    def blocks(self) -> Iterator[tuple[int, np.ndarray]]:
        """The first position and the digests `(n, 2)`, uint64, of one block after another."""
        for start in range(0, len(self), _BLOCK):
            self._file.seek(start * _BYTES)
            yield start, np.frombuffer(self._file.read(_BLOCK * _BYTES), np.uint64).reshape(-1, 2)


def find_distinct(inputs: Iterable[Any], modality: str = "text", folder: Path | None = None) -> Distinct:
    """Reads every input once and finds the distinct ones by their digests; `modality` is the teacher's.

    Memory holds 4 bytes an input, 8 where some repeat, and what comparing 2 million of them takes. The digests of more than a
    million are in a file of 16 bytes an input in `folder`.
    """
    digests = Digests((digest(item, position, modality) for position, item in enumerate(inputs)), folder)
    if not len(digests):
        raise ValueError(
            "there are no inputs to encode: the list is empty. Pass at least one text, image or waveform."
        )
    if len(digests) > 1 << 32:
        raise ValueError(f"there are {len(digests)} inputs: encode banks of at most 4,294,967,296 of them.")
    first_N = _first_positions(digests)
    fingerprint, positions, number = xxhash.xxh3_128(), [], 0
    for start, block in digests.blocks():
        is_first = first_N[start : start + len(block)] == np.arange(start, start + len(block))
        fingerprint.update(np.ascontiguousarray(block[is_first]).data)
        positions.append((start + np.flatnonzero(is_first)).astype(np.uint32))
        number += int(is_first.sum())
    index_N = _numbered(first_N, positions)
    for start in range(0, len(index_N), _BLOCK):
        fingerprint.update(index_N[start : start + _BLOCK].astype(np.int64).data)
    positions_U = range(number) if number == len(digests) else np.concatenate(positions)
    return Distinct(positions_U, digests, index_N, fingerprint.hexdigest())


def _first_positions(digests: Digests) -> np.ndarray:
    """Of every input the position of the first one that equals it, `(N,)` uint32."""
    first_N = np.empty(len(digests), np.uint32)
    parts = np.uint64(-(-len(digests) // _PART))
    for part in range(int(parts)):
        chosen = [(start, block, np.flatnonzero(block[:, 0] % parts == part)) for start, block in digests.blocks()]
        keys_P2 = np.concatenate([block[there] for _, block, there in chosen])
        where_P = np.concatenate([(start + there).astype(np.uint32) for start, _, there in chosen])
        order_P = np.lexsort(keys_P2.T)  # stable: of equal ones the first comes first
        keys_P2, where_P = keys_P2[order_P], where_P[order_P]
        is_other_P = np.concatenate([[True], (keys_P2[1:] != keys_P2[:-1]).any(axis=1)])[: len(where_P)]
        first_N[where_P] = where_P[is_other_P][np.cumsum(is_other_P) - 1]
    return first_N


def _numbered(first_N: np.ndarray, positions: list[np.ndarray]) -> np.ndarray:
    """First positions become the numbers of the distinct inputs, block by block, in the same array."""
    number = 0
    for start, new in zip(range(0, len(first_N), _BLOCK), positions, strict=True):
        block = first_N[start : start + _BLOCK]
        is_repeat = block != np.arange(start, start + len(block))
        first_N[new] = np.arange(number, number + len(new))
        block[is_repeat] = first_N[block[is_repeat]]  # which stand before, and are numbered
        number += len(new)
    return first_N
