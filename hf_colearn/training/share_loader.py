"""The data loader of one process's share of a training stream, which can tell where it is and go on from there."""

import copy
import os
from collections.abc import Callable
from typing import Any

import torch
from accelerate.data_loader import DataLoaderShard
from accelerate.utils import send_to_device
from accelerate.utils.imports import is_torchdata_stateful_dataloader_available
from datasets import IterableDataset
from datasets.iterable_dataset import (
    BufferShuffledExamplesIterable,
    MappedExamplesIterable,
    RandomlyCyclingMultiSourcesExamplesIterable,
    VerticallyConcatenatedMultiSourcesExamplesIterable,
)
from torch.utils.data import DataLoader
from transformers.utils import logging

from hf_colearn.utils import distributed
from hf_colearn.utils.rng import preserve_rng_state


logger = logging.get_logger(__name__)

_JOINED = (RandomlyCyclingMultiSourcesExamplesIterable, VerticallyConcatenatedMultiSourcesExamplesIterable)
STATE = "stream_state_{}.pt"  # in a checkpoint, by the process
# The fields that a DataLoader takes; not every version of transformers has all of them.
_OF_LOADERS = (
    "num_workers",
    "pin_memory",
    "persistent_workers",
    "prefetch_factor",
    "multiprocessing_context",
    "in_order",
)


class ShareLoader(DataLoaderShard):
    """Batches of a share of a stream. Trainer's own loader would split it again, or read it on the main process alone.

    Its state is kept in checkpoints by torchdata's `StatefulDataLoader`, where that is installed and the stream can go on from
    a state exactly: not with a shuffle buffer, for example, whose content `datasets` does not keep.

    Args:
        share ([`datasets.IterableDataset`]): What this process reads; nothing else reads this object.
        args ([`~transformers.TrainingArguments`]): The trainer's, whose `dataloader_...` are used.
        batch_size (`int`): Of a device.
        collator (`Callable`): Makes a batch.
        accelerator ([`~accelerate.Accelerator`]): The trainer's.
    """

    def __init__(self, share: IterableDataset, args: Any, batch_size: int, collator: Callable, accelerator: Any):
        names = [name for name in _OF_LOADERS if f"dataloader_{name}" in vars(args)]
        given = {name: vars(args)[f"dataloader_{name}"] for name in names}
        given |= {"batch_size": batch_size, "collate_fn": collator}
        super().__init__(share, device=accelerator.device, _non_blocking=accelerator.non_blocking, **given)
        self._spare = DataLoader(copy.copy(share), batch_size=batch_size, collate_fn=collator)
        self._rereads = _why_not(
            share, self.num_workers
        )  # why a resumed run reads again what it has seen; None where it does not
        if self._rereads is None:
            from torchdata.stateful_dataloader import StatefulDataLoader

            self.base_dataloader = StatefulDataLoader(share, **given)

    def first_batch(self) -> Any:
        """The first batch of the share in this epoch, read once more; None where it has none. Random numbers stay."""
        with preserve_rng_state(self.device):
            batch = next(iter(self._spare), None)
        return None if batch is None else send_to_device(batch, self.device)

    # ---- checkpoints ----
    def save(self, folder: str) -> None:
        """Writes where this process is, after the batches that it was given."""
        if self._rereads is None:
            torch.save({"readers": self._readers, "state": self.state_dict()}, _path(folder))

    def resume(self, folder: str, epoch: int) -> bool | None:
        """Makes the next pass go on where a checkpoint was; whether anything is left of its epoch. None where the checkpoint
        has no state that fits, so that the epoch must be read again up to there. A collective."""
        reason, found = self._rereads, None
        if reason is None and not os.path.isfile(_path(folder)):
            reason = "the checkpoint has no states of the stream for these processes"
        elif reason is None:
            found = torch.load(_path(folder), weights_only=True)
            if found["readers"] != self._readers:
                reason = "it was read by {} processes with {} workers each, now by {} with {}"
                reason = reason.format(*found["readers"], *self._readers)
        reasons = [reason for reason in distributed.from_all_processes(reason) if reason is not None]
        if reasons or found is None:
            if distributed.rank() == 0:
                logger.warning(f"The stream is read again up to where the checkpoint was: {reasons[0]}.")
            return None
        self.dl_state_dict = found["state"]  # what is saved until a batch is read
        self.set_epoch(epoch)
        if found["state"]["_iterator_finished"]:
            return False
        self.load_state_dict(found["state"])
        return True

    @property
    def _readers(self) -> list[int]:
        return [distributed.world_size(), self.num_workers]


def _path(folder: str) -> str:
    return os.path.join(folder, STATE.format(distributed.rank()))


def _why_not(share: IterableDataset, workers: int) -> str | None:
    """Why a stream cannot go on from a state; None where it can."""
    if not is_torchdata_stateful_dataloader_available():
        return "torchdata is not installed (pip install 'hf-colearn[streams]')"
    found = stages(share._ex_iterable)
    if any(isinstance(stage, BufferShuffledExamplesIterable) for stage in found):
        return (
            "it has a shuffle buffer, whose content is in no state (shards change their order every epoch without one)"
        )
    if any(isinstance(stage, MappedExamplesIterable) and stage.batched and _is_table(stage) for stage in found):
        return "it maps batches of tables, and a state may lose one"
    if workers and any(isinstance(stage, _JOINED) for stage in found):  # datasets 5.2 restores others, or none
        return "it joins streams, or mixes them at random, whose states are not restored in workers"
    return None


def _is_table(stage: MappedExamplesIterable) -> bool:
    return stage.formatting is not None and stage.formatting.is_table


def stages(examples: Any) -> list[Any]:
    """A stream's stages, each before those that it reads."""
    stage = vars(examples)
    inner = [*stage.get("ex_iterables", []), *([stage["ex_iterable"]] if "ex_iterable" in stage else [])]
    return [examples, *(one for each in inner for one in stages(each))]
