"""Training streams: each process reads its share, all end an epoch together, a resumed run goes on where it was."""

import itertools
import os
import weakref
from collections.abc import Callable, Iterator
from typing import Any

from accelerate.data_loader import prepare_data_loader
from accelerate.utils import find_batch_size
from datasets import IterableDataset
from datasets.distributed import split_dataset_by_node
from torch.utils.data import DataLoader
from transformers import TrainerState
from transformers.trainer import TRAINER_STATE_NAME
from transformers.utils import logging

from hf_colearn.training import data_checks
from hf_colearn.utils import distributed


logger = logging.get_logger(__name__)


class SynchronisedBatches:
    """Takes batches of a stream for as long as every process has some, so that all end their epoch together.

    A process whose share of the stream is longer would otherwise wait for ever for the gradients of the others. What was
    read but not used when the first one ran out is dropped, and so are batches that do not fill an accumulation, whose
    gradients Trainer would otherwise carry into the next epoch; the log says how many samples that were.
    """

    def __init__(self):
        self._ended: Any = lambda: None

    def take(self, batches: Iterator, count: int) -> list:
        """The next `count` batches, or none where the epoch is over; a collective."""
        if batches is self._ended():
            return []
        taken = list(itertools.islice(batches, count))
        if distributed.integer_over_processes(len(taken), "min") == count:
            return taken
        self._ended = weakref.ref(batches)
        dropped = distributed.integer_over_processes(sum(find_batch_size(batch) for batch in taken), "sum")
        if dropped and distributed.rank() == 0:
            logger.warning(
                f"The stream's epoch ended with {dropped} samples read that were not used: the {distributed.world_size()} processes "
                f"stop together, where the first one has less than {count} more batches. Samples that the others had "
                "not read yet are not counted. Shards of equal size, as many as processes or a multiple, lose least."
            )
        return []


def share_for(trainer: Any, dataset: Any, is_training: bool) -> IterableDataset | None:
    """The share of a trainer's stream that this process reads; None where Trainer's own data loader is right."""
    if not isinstance(dataset, IterableDataset) or trainer.accelerator.parallelism_config is not None:
        return None
    config = trainer.args.accelerator_config
    if is_training:
        return share_of_stream(dataset, config.dispatch_batches, config.split_batches)
    data_checks.evaluated_stream(dataset, config.dispatch_batches)
    return None


def share_of_stream(stream: IterableDataset, dispatch_batches: bool | None, split_batches: bool) -> Any:
    """This process's share of a training stream; a collective.

    A whole stream is split here, unless accelerate is told how to hand it out; one that the user has split stays as it
    is.

    Args:
        stream ([`datasets.IterableDataset`]): The training set.
        dispatch_batches, split_batches (`bool`): As in accelerate's `accelerator_config`.

    Returns:
        [`datasets.IterableDataset`]: The share, or None where accelerate is to read the stream.

    Raises:
        ValueError: If the stream is split for other processes, or shuffled in another way on each.
    """
    with distributed.raise_on_all_ranks():
        split = stream._distributed  # `datasets` has no public way to ask
        hands_out = bool(dispatch_batches) or split_batches
        if split is None and (not distributed.is_distributed() or hands_out or dispatch_batches is not None):
            return None
        if split is not None and (split.rank, split.world_size) != (distributed.rank(), distributed.world_size()):
            raise ValueError(
                f"the stream is split for process {split.rank} of {split.world_size}, and this is process {distributed.rank()} of "
                f"{distributed.world_size()}, so samples would be lost or seen twice: pass the stream whole, and it is split here."
            )
        if split is not None and distributed.is_distributed() and hands_out:
            raise ValueError(
                f"the stream is split by process, but dispatch_batches={dispatch_batches} and "
                f"split_batches={split_batches} let the main process read for all, so the other shares would be lost: "
                "pass the stream whole, or leave both out."
            )
    with distributed.raise_on_all_ranks():
        if _shuffles(stream._ex_iterable) != distributed.from_main_process(_shuffles(stream._ex_iterable)):
            raise ValueError(
                f"process {distributed.rank()} shuffles the stream in another order than the main process, so samples would be lost "
                "or seen twice: give it a seed, `stream.shuffle(seed=0, buffer_size=...)`."
            )
    return stream if split is not None else split_dataset_by_node(stream, distributed.rank(), distributed.world_size())


def _shuffles(examples: Any) -> list[str]:
    """The states of the generators that a stream's stages shuffle with."""
    stage = vars(examples)
    inner = [*stage.get("ex_iterables", []), *([stage["ex_iterable"]] if "ex_iterable" in stage else [])]
    generator = stage.get("generator")
    found = [] if generator is None else [str(generator.bit_generator.state)]
    return found + [state for one in inner for state in _shuffles(one)]


def share_loader(share: IterableDataset, args: Any, batch_size: int, collator: Callable, accelerator: Any) -> Any:
    """The data loader of this process's share, as Trainer makes it of a whole stream.

    Trainer's own would be split among the processes again, or read on the main process alone.
    """
    # The fields that a DataLoader takes; not every version of transformers has all of them.
    names = (
        "num_workers",
        "pin_memory",
        "persistent_workers",
        "prefetch_factor",
        "multiprocessing_context",
        "in_order",
    )
    given = {name: vars(args)[f"dataloader_{name}"] for name in names if f"dataloader_{name}" in vars(args)}
    loader = DataLoader(share, batch_size=batch_size, collate_fn=collator, **given)
    alone = {"num_processes": 1, "process_index": 0, "dispatch_batches": False}
    return prepare_data_loader(
        loader, accelerator.device, put_on_device=True, non_blocking=accelerator.non_blocking, **alone
    )


def position_in_stream(checkpoint: str, accumulation_steps: int) -> tuple[int, int]:
    """How many whole epochs of a stream a checkpoint has seen, and how many batches of the next one.

    Trainer does not know how long an epoch of a stream is, and counts one as the part of a run that it has got through:
    `TrainerState.epoch` is its number plus batches / (max_steps * accumulation steps).
    """
    state = TrainerState.load_from_json(os.path.join(checkpoint, TRAINER_STATE_NAME))
    epochs = int(state.epoch)
    return epochs, round((state.epoch - epochs) * state.max_steps * accumulation_steps)
