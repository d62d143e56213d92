"""Every collective of ours, each a no-op on one process."""

import functools
import itertools
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from accelerate.utils import find_batch_size
from datasets import IterableDataset
from datasets.distributed import split_dataset_by_node
from torch.distributed.nn.functional import all_gather
from transformers.utils import logging


logger = logging.get_logger(__name__)


def is_distributed() -> bool:
    """Whether several processes share this run."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def rank() -> int:
    """This process's index, from 0."""
    return dist.get_rank() if is_distributed() else 0


def world_size() -> int:
    """How many processes share this run."""
    return dist.get_world_size() if is_distributed() else 1


def barrier() -> None:
    """Waits until every process is here."""
    if is_distributed():
        dist.barrier()


def destroy_process_group() -> None:
    """Waits for the others and leaves the group, at the end of a script: a process that exits in it may be aborted."""
    if dist.is_available() and dist.is_initialized():
        dist.barrier()
        dist.destroy_process_group()


def mean_over_processes(values: torch.Tensor) -> torch.Tensor:
    """The mean of a tensor over the processes, the same on each; the argument is left alone, no gradient flows."""
    values = values.detach().clone()
    if is_distributed():
        dist.all_reduce(values)
        values /= dist.get_world_size()
    return values


@contextmanager
def raise_on_all_ranks():
    """What one process raises within, every process raises at the end, so that none waits for ever for the others.

    Raises:
        Exception: This process's own error, or a RuntimeError that names the first process that failed and why.
    """
    error = None
    try:
        yield
    except Exception as caught:
        error = caught
    failures = from_all_processes(None if error is None else f"{type(error).__name__}: {error}")
    if error is not None:
        raise error
    for process, failure in enumerate(failures):
        if failure is not None:
            raise RuntimeError(f"process {process} failed: {failure}")


def from_main_process(value):
    """The main process's value of a small picklable object, on every process."""
    if not is_distributed():
        return value
    box = [value]
    dist.broadcast_object_list(box, src=0)
    return box[0]


def from_all_processes(value) -> list:
    """Every process's value of a small picklable object, in their order, on every process."""
    values = [value]
    if is_distributed():
        values = [None] * dist.get_world_size()
        dist.all_gather_object(values, value)
    return values


def overwrite_from_main_process(tensors: list[torch.Tensor]) -> None:
    """Writes the main process's values into the tensors of every process."""
    if is_distributed():
        for tensor in tensors:
            dist.broadcast(tensor, src=0)


@functools.cache
def _cpu_group(world: Any) -> Any:
    return dist.new_group(backend="gloo")


def integer_over_processes(value: int, operation: str) -> int:
    """The `"min"` or the `"sum"` of a number over the processes, without waiting for a device."""
    if not is_distributed():
        return value
    box = torch.tensor(value)
    reduction = {"min": dist.ReduceOp.MIN, "sum": dist.ReduceOp.SUM}[operation]
    dist.all_reduce(box, reduction, group=_cpu_group(dist.group.WORLD))
    return int(box)


def gather_with_gradient(tensor: torch.Tensor) -> torch.Tensor:
    """The rows of every process, in their order, on every process; gradients flow back to the process of each row.

    The gradients that the processes have for a row are summed, as for any tensor that is used several times.

    Args:
        tensor (`torch.Tensor` of shape `(B, ...)`): As many rows on every process.

    Returns:
        `torch.Tensor` of shape `(processes * B, ...)`: On one process, the tensor itself.

    Raises:
        ValueError: On every process, if they have unequal numbers of rows.
    """
    if not is_distributed():
        return tensor
    sizes = torch.empty(world_size(), dtype=torch.int64)
    dist.all_gather(list(sizes.split(1)), torch.tensor([len(tensor)]), group=_cpu_group(dist.group.WORLD))
    if len(set(sizes.tolist())) > 1:
        raise ValueError(
            f"the processes have batches of {sizes.tolist()} samples, but only batches of one size can be gathered: "
            "set `dataloader_drop_last=True`, so that no process has a smaller one at the end of an epoch."
        )
    return torch.cat(all_gather(tensor))


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
        if integer_over_processes(len(taken), "min") == count:
            return taken
        self._ended = weakref.ref(batches)
        dropped = integer_over_processes(sum(find_batch_size(batch) for batch in taken), "sum")
        if dropped and rank() == 0:
            logger.warning(
                f"The stream's epoch ended with {dropped} samples read that were not used: the {world_size()} processes "
                f"stop together, where the first one has less than {count} more batches. Samples that the others had "
                "not read yet are not counted. Shards of equal size, as many as processes or a multiple, lose least."
            )
        return []


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
    with raise_on_all_ranks():
        split = stream._distributed  # `datasets` has no public way to ask
        hands_out = bool(dispatch_batches) or split_batches
        if split is None and (not is_distributed() or hands_out or dispatch_batches is not None):
            return None
        if split is not None and (split.rank, split.world_size) != (rank(), world_size()):
            raise ValueError(
                f"the stream is split for process {split.rank} of {split.world_size}, and this is process {rank()} of "
                f"{world_size()}, so samples would be lost or seen twice: pass the stream whole, and it is split here."
            )
        if split is not None and is_distributed() and hands_out:
            raise ValueError(
                f"the stream is split by process, but dispatch_batches={dispatch_batches} and "
                f"split_batches={split_batches} let the main process read for all, so the other shares would be lost: "
                "pass the stream whole, or leave both out."
            )
    with raise_on_all_ranks():
        if _shuffles(stream._ex_iterable) != from_main_process(_shuffles(stream._ex_iterable)):
            raise ValueError(
                f"process {rank()} shuffles the stream in another order than the main process, so samples would be lost "
                "or seen twice: give it a seed, `stream.shuffle(seed=0, buffer_size=...)`."
            )
    return stream if split is not None else split_dataset_by_node(stream, rank(), world_size())


def _shuffles(examples: Any) -> list[str]:
    """The states of the generators that a stream's stages shuffle with."""
    stage = vars(examples)
    inner = [*stage.get("ex_iterables", []), *([stage["ex_iterable"]] if "ex_iterable" in stage else [])]
    generator = stage.get("generator")
    found = [] if generator is None else [str(generator.bit_generator.state)]
    return found + [state for one in inner for state in _shuffles(one)]
