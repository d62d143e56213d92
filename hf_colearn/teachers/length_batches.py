"""Batches of inputs of like length, the longest first. Shapes: U inputs."""

from collections.abc import Iterable, Iterator

import numpy as np


_ROW = (1 << 32) - 1  # the bits of a row; those above are its length's, subtracted from the largest
_LARGEST = (1 << 31) - 1


class LengthBatches:
    """The numbers of U inputs in batches: the longest first, those of one length in their order. 8 bytes an input.

    Args:
        lengths (`Iterable[int]`): Of the U inputs.
        number (`int`): U.
        batch_size (`int`): Inputs of a batch, at most.
        of_one_length (`bool`): Whether only inputs of one length share a batch.

    Example:

    ```python
    >>> from hf_colearn.teachers.length_batches import LengthBatches

    >>> list(LengthBatches([2, 7, 2, 7, 7], 5, batch_size=2, of_one_length=False))
    [[1, 3], [4, 0], [2]]
    >>> list(LengthBatches([2, 7, 2, 7, 7], 5, batch_size=2, of_one_length=True))
    [[1, 3], [4], [0, 2]]

    ```
    """

    def __init__(self, lengths: Iterable[int], number: int, batch_size: int, of_one_length: bool):
        keys = ((_LARGEST - length) << 32 | row for row, length in enumerate(lengths))
        self._keys_U = np.fromiter(keys, np.int64, number)
        self._keys_U.sort()
        starts = [0]
        if of_one_length:
            starts += (1 + np.flatnonzero(np.diff(self._keys_U >> 32))).tolist()
        ends = [*starts[1:], number]
        self._starts = np.concatenate(
            [np.arange(start, end, batch_size) for start, end in zip(starts, ends, strict=True)] + [[number]]
        )

    def __len__(self) -> int:
        return len(self._starts) - 1

    def __getitem__(self, batch: int) -> list[int]:
        if not 0 <= batch < len(self):
            raise IndexError(f"there are {len(self)} batches, and none is {batch}.")
        start, end = self._starts[batch : batch + 2]
        return (self._keys_U[start:end] & _ROW).tolist()

    def __iter__(self) -> Iterator[list[int]]:
        return map(self.__getitem__, range(len(self)))
