"""Batches of a training stream: every process makes as many steps, and a resumed run goes on where it was."""

import itertools
import weakref
from collections.abc import Iterator
from typing import Any

import torch
from accelerate.utils import find_batch_size
from transformers.utils import logging

from hf_colearn.training.blank_batches import BLANK, add_nothing
from hf_colearn.training.share_loader import ShareLoader
from hf_colearn.utils import distributed


logger = logging.get_logger(__name__)


class StreamBatches:
    """Takes the batches of a stream for the optimizer steps of a run, as many on every process.

    The shares of processes differ in length, and one that went on alone would wait for ever for the gradients of the others.
    A process whose share has ended goes on with micro-batches in which nothing counts, until all have ended; these also fill
    the last accumulation, whose gradients Trainer would otherwise carry into the next epoch. So every sample is seen once an
    epoch. Where such a micro-batch would not leave the run as it is (see [`add_nothing`]), or a process has no batch at all,
    all end their epoch with the first, and what was read but not used is dropped with a warning.

    Args:
        trainer ([`CoLearningTrainer`], *optional*): Whose losses tell whether a micro-batch may be one in which nothing counts.
        loader (*optional*): The run's.
    """

    def __init__(self, trainer: Any = None, loader: Any = None):
        self._trainer, self._loader = trainer, loader if isinstance(loader, ShareLoader) else None
        self._may_fill: bool | None = None  # looked at when it matters
        self._ended: Any = lambda: None
        self._first: Any = None  # of the epoch that ends, for those in which nothing counts
        self._resumed: Iterator | None = None  # goes on from a checkpoint's state,
        self._replaced: Any = None  # in the place of Trainer's iterator, which would read all again

    def take(self, batches: Iterator, count: int, has_trained: bool = True) -> list:
        """The next `count` batches, or none where the epoch is over; a collective.

        Raises:
            ValueError: If the run has made no step yet and the epoch is over: no other epoch would be longer.
        """
        if batches is self._ended():
            return []
        taken = list(itertools.islice(self._read(batches), count))
        least = distributed.integer_over_processes(len(taken), "min")
        if least == count:
            return taken
        if self._can_be_filled(taken, count):
            return taken + [_blank_copy(self._first) for _ in range(count - len(taken))]
        if not has_trained:
            raise ValueError(
                f"an epoch of the training stream has {least} batches{_on_each()}, and an optimizer step takes "
                f"gradient_accumulation_steps={count}, so none would be made: accumulate less, make batches smaller, or "
                "repeat the stream (`stream.repeat(n)`)."
            )
        self._ended, self._first = weakref.ref(batches), None
        dropped = distributed.integer_over_processes(sum(find_batch_size(batch) for batch in taken), "sum")
        if dropped and distributed.rank() == 0:
            logger.warning(
                f"The stream's epoch ended with {dropped} samples read that were not used (samples not read yet are not "
                f"counted): fewer than the {count} batches of a step were left{_on_each()}. Shards of equal size, as many "
                "as processes or a multiple, lose least."
            )
        return []

    def _can_be_filled(self, taken: list, count: int) -> bool:
        """Whether some process has a batch left, and the others one to make those of in which nothing counts."""
        if self._may_fill is None:
            self._may_fill = self._loader is not None and add_nothing(self._trainer)
        if not self._may_fill or distributed.integer_over_processes(len(taken), "max") == 0:
            return False
        if self._first is None and len(taken) < count:
            self._first = self._loader.first_batch()  # type: ignore[union-attr]
        has_all = len(taken) == count or self._first is not None
        return distributed.integer_over_processes(int(has_all), "min") == 1

    # ---- resuming ----
    def save(self, folder: str) -> None:
        """Writes where every process is into a checkpoint."""
        if self._loader is not None:
            self._loader.save(folder)

    def resume(self, folder: str, epoch: int) -> None:
        """Goes on in a checkpoint's epoch without reading it again, where the stream's state allows it; a collective."""
        is_left = None if self._loader is None else self._loader.resume(folder, epoch)
        if is_left is not None:
            self._resumed = iter(self._loader if is_left else ())  # type: ignore[arg-type]

    def _read(self, batches: Iterator) -> Iterator:
        if self._resumed is None:
            return batches
        if self._replaced is None:
            self._replaced = weakref.ref(batches)
        if self._replaced() is batches:
            return self._resumed
        self._resumed = None  # another epoch
        return batches


def _blank_copy(batch: dict[str, Any]) -> dict[str, Any]:
    """A copy, since an augmentation may work in place, with the mark that nothing of it is to count."""
    copied = {name: entry.clone() if isinstance(entry, torch.Tensor) else entry for name, entry in batch.items()}
    return {**copied, BLANK: True}


def _on_each() -> str:
    processes = distributed.world_size()
    return f" on one of {processes} processes, which stop together" if processes > 1 else ""
