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

from hf_colearn.utils import distributed


logger = logging.get_logger(__name__)


class SynchronisedBatches:
    """Takes batches of a stream for as long as every process has some, so that all end their epoch together.

    A process whose share of the stream is longer would otherwise wait for ever for the gradients of the others. What was
    read when the first one ran out is dropped, and so are batches that do not fill an accumulation, whose gradients
    Trainer would otherwise carry into the next epoch.
    """

    def __init__(self):
        self._ended: Any = lambda: None

    def take(self, batches: Iterator, count: int, has_trained: bool = True) -> list:
        """The next `count` batches, or none where the epoch is over; a collective.

        Raises:
            ValueError: If the run has made no step yet and the epoch is over: no other epoch would be longer.
        """
        if batches is self._ended():
            return []
        taken = list(itertools.islice(batches, count))
        if distributed.integer_over_processes(len(taken), "min") == count:
            return taken
        if not has_trained:
            least = distributed.integer_over_processes(len(taken), "min")
            raise ValueError(
                f"an epoch of the training stream has {least} batches{_on_each()}, and an optimizer step takes "
                f"gradient_accumulation_steps={count}, so none would be made: accumulate less, make batches smaller, or "
                "repeat the stream (`stream.repeat(n)`)."
            )
        self._ended = weakref.ref(batches)
        dropped = distributed.integer_over_processes(sum(find_batch_size(batch) for batch in taken), "sum")
        if dropped and distributed.rank() == 0:
            logger.warning(
                f"The stream's epoch ended with {dropped} samples read that were not used (samples not read yet are not "
                f"counted): fewer than the {count} batches of a step were left{_on_each()}. Shards of equal size, as many "
                "as processes or a multiple, lose least."
            )
        return []


def _on_each() -> str:
    processes = distributed.world_size()
    return f" on one of {processes} processes, which stop together" if processes > 1 else ""


def share_for(trainer: Any, dataset: Any, is_training: bool) -> IterableDataset | None:
    """The share of a trainer's stream that this process reads; None where Trainer's own data loader is right.

    A whole training stream is split here, unless accelerate is told how to hand it out (`accelerator_config`); one that
    the user has split stays as it is. A collective.

    Raises:
        ValueError: If the stream is split for other processes, or shuffled in another way on each.
    """
    if not isinstance(dataset, IterableDataset) or trainer.accelerator.parallelism_config is not None:
        return None
    config = trainer.args.accelerator_config
    rank, processes, split = distributed.rank(), distributed.world_size(), dataset._distributed  # no public way to ask
    if not is_training:
        if processes > 1 and split is not None and config.dispatch_batches is not False:
            raise ValueError(
                f"the evaluation stream is split for process {split.rank} of {split.world_size}, but the main process reads "
                "it for all, so the other shares would be left out: pass it whole."
            )
        return None
    hands_out = bool(config.dispatch_batches) or config.split_batches
    with distributed.raise_on_all_ranks():
        if split is None and (processes == 1 or hands_out or config.dispatch_batches is not None):
            return None
        if split is not None and (split.rank, split.world_size) != (rank, processes):
            raise ValueError(
                f"the stream is split for process {split.rank} of {split.world_size}, and this is process {rank} of "
                f"{processes}, so samples would be lost or seen twice: pass the stream whole, and it is split here."
            )
        if split is not None and processes > 1 and hands_out:
            raise ValueError(
                f"the stream is split by process, but dispatch_batches={config.dispatch_batches} and "
                f"split_batches={config.split_batches} let the main process read for all, so the other shares would be "
                "lost: pass the stream whole, or leave both out."
            )
    with distributed.raise_on_all_ranks():
        if _shuffles(dataset._ex_iterable) != distributed.from_main_process(_shuffles(dataset._ex_iterable)):
            raise ValueError(
                f"process {rank} shuffles the stream in another order than the main process, so samples would be lost or "
                "seen twice: give it a seed, `stream.shuffle(seed=0, buffer_size=...)`."
            )
    return dataset if split is not None else split_dataset_by_node(dataset, rank, processes)


def _shuffles(examples: Any) -> list[str]:
    """The states of the generators that a stream's stages shuffle with."""
    stage = vars(examples)
    inner = [*stage.get("ex_iterables", []), *([stage["ex_iterable"]] if "ex_iterable" in stage else [])]
    generator = stage.get("generator")
    found = [] if generator is None else [str(generator.bit_generator.state)]
    return found + [state for one in inner for state in _shuffles(one)]


def share_loader(share: IterableDataset, args: Any, batch_size: int, collator: Callable, accelerator: Any) -> Any:
    """The data loader of this process's share; Trainer's own would split it again, or read it on the main process alone."""
    # The fields that a DataLoader takes; not every version of transformers has all of them.
    names = [
        "num_workers",
        "pin_memory",
        "persistent_workers",
        "prefetch_factor",
        "multiprocessing_context",
        "in_order",
    ]
    given = {name: vars(args)[f"dataloader_{name}"] for name in names if f"dataloader_{name}" in vars(args)}
    loader = DataLoader(share, batch_size=batch_size, collate_fn=collator, **given)
    alone = {"num_processes": 1, "process_index": 0, "dispatch_batches": False}
    on_device = {"put_on_device": True, "non_blocking": accelerator.non_blocking}
    return prepare_data_loader(loader, accelerator.device, **on_device, **alone)


def position_in_stream(checkpoint: str, accumulation_steps: int) -> tuple[int, int]:
    """How many whole epochs of a stream a checkpoint has seen, and how many batches of the next one.

    Trainer does not know how long an epoch of a stream is, and counts one as the part of a run that it has got through:
    `TrainerState.epoch` is its number plus batches / (max_steps * accumulation steps).
    """
    state = TrainerState.load_from_json(os.path.join(checkpoint, TRAINER_STATE_NAME))
    epochs = int(state.epoch)
    return epochs, round((state.epoch - epochs) * state.max_steps * accumulation_steps)
