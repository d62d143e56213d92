"""Samples that cannot be read, left out and counted."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from datasets import Features, IterableDataset, Value
from transformers.utils import logging

from hf_colearn.data.columns import AnyDataset, as_stored, check_columns
from hf_colearn.utils import distributed


logger = logging.get_logger(__name__)

_SHOWN = 3  # bad samples in a log message


@dataclass(frozen=True)
class BadSample:
    """A sample that was left out: its row (in a stream, its place in what this process reads of it) and why."""

    row: int
    problem: str


def without_bad_samples(
    dataset: AnyDataset, read: Callable[[Any, int], Any], column: str, num_proc: int | None = None
) -> tuple[AnyDataset, list[BadSample]]:
    """Reads every sample once and leaves out those that cannot be read, with a warning that counts and names them.

    Leave them out *before* the samples are numbered and the bank is encoded, so that row i of the bank stays that of
    sample id i.

    A stream is filtered while it is read, and its good samples stay encoded, since `datasets` would decode the bad ones
    first. Its first bad samples are named at once, the running count is logged whenever it has doubled, and that of a whole
    pass at the beginning of the next one. The list grows meanwhile; workers of a data loader have lists of their own.

    Args:
        dataset ([`datasets.Dataset`] or [`datasets.IterableDataset`]): Images and audio are read as they are stored.
        read (`Callable`): Takes a cell and its row and raises a ValueError where it is bad, such as
            [`~hf_colearn.data.audio.read_waveform`] or [`~hf_colearn.data.images.as_rgb`].
        column (`str`): The cells' column.
        num_proc (`int`, *optional*): Processes that share the reading; not for streams.

    Returns:
        `tuple`: The dataset of good samples and the list of the bad ones.

    Raises:
        ValueError: If there is no such column, or every sample is bad.
    """
    if dataset.column_names is not None:
        check_columns(dataset, column)
    if isinstance(dataset, IterableDataset):
        bad: list[BadSample] = []
        is_good = _StreamFilter(read, column, bad)
        return as_stored(dataset, column).filter(is_good, with_indices=True, input_columns=[column]), bad
    checked = as_stored(dataset.with_format(None).select_columns(column), column).map(
        lambda cell, row: {"problem": _problem(read, cell, row)},
        with_indices=True,
        input_columns=[column],
        remove_columns=[column],
        features=Features({"problem": Value("string")}),
        num_proc=num_proc,
        keep_in_memory=True,  # nothing is cached: a file may have been mended since
        desc=f"Checking the samples of '{column}'",
    )
    problems = checked["problem"][:]
    bad = [BadSample(row, problem) for row, problem in enumerate(problems) if problem is not None]
    if not bad:
        return dataset, bad
    if len(bad) == len(problems):
        raise ValueError(f"all {len(bad):,} samples of column '{column}' are bad; the first: {bad[0].problem}")
    if distributed.rank() == 0:
        shown = "".join(f"\n  {sample.problem}" for sample in bad[:_SHOWN])
        more = f"\n  and {len(bad) - _SHOWN:,} more" if len(bad) > _SHOWN else ""
        logger.warning(f"{len(bad):,} of {len(problems):,} samples of column '{column}' are skipped:{shown}{more}")
    return dataset.select([row for row, problem in enumerate(problems) if problem is None]), bad


def _problem(read: Callable[[Any, int], Any], cell: Any, row: int) -> str | None:
    try:
        read(cell, row)
    except ValueError as error:
        return str(error)
    return None


class _StreamFilter:
    """Whether a sample of a stream is good; it counts what it leaves out in the current pass."""

    def __init__(self, read: Callable[[Any, int], Any], column: str, bad: list[BadSample]):
        self.read, self.column, self.bad = read, column, bad
        self.seen = self.skipped = 0

    def __call__(self, cell: Any, row: int) -> bool:
        if row == 0:
            if self.skipped:
                logger.warning(f"{self._count()} were skipped in the last pass.")
            self.seen = self.skipped = 0
        self.seen += 1
        problem = _problem(self.read, cell, row)
        if problem is None:
            return True
        self.bad.append(BadSample(row, problem))
        self.skipped += 1
        if self.skipped <= _SHOWN or self.skipped & (self.skipped - 1) == 0:  # a power of 2
            logger.warning(f"{self._count()} are skipped in this pass so far: {problem}")
        return False

    def _count(self) -> str:
        return f"{self.skipped:,} of {self.seen:,} samples of column '{self.column}'"
