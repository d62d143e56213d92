"""Collective operations between the processes of a run; each is a no-op on one process."""

import functools
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch.autograd import Function


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


class OtherProcessFailed(RuntimeError):
    """Another process of the run has raised an error: which one, and what it says."""


@contextmanager
def raise_on_all_ranks():
    """Where a process raises within, all do at the end, so that no collective waits for a failed process.

    It raises its own error, the others an [`OtherProcessFailed`] that names the first process that failed and why.
    """
    error = None
    try:
        yield
    except Exception as caught:
        error = caught
    failures = from_all_processes(None if error is None else f"{type(error).__name__}: {error}")
    for process, failure in enumerate(failures):
        if failure is not None:
            raise OtherProcessFailed(f"process {process} failed: {failure}") if error is None else error


def from_main_process(value):
    """The main process's value of a small picklable object, on every process."""
    return from_all_processes(value)[0]


def from_all_processes(value) -> list:
    """Every process's value of a small picklable object, in their order, on every process."""
    values = [value] * world_size()
    if is_distributed():
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
    """The `"min"`, the `"max"` or the `"sum"` of a number over the processes, without waiting for a device."""
    if not is_distributed():
        return value
    box = torch.tensor(value)
    dist.all_reduce(box, getattr(dist.ReduceOp, operation.upper()), group=_cpu_group(dist.group.WORLD))
    return int(box)


def check_equal_rows(rows: int) -> None:
    """A ValueError on every process, if they have unequal numbers of rows to gather."""
    if not is_distributed():
        return
    sizes = torch.empty(world_size(), dtype=torch.int64)
    dist.all_gather(list(sizes.split(1)), torch.tensor([rows]), group=_cpu_group(dist.group.WORLD))
    if len(set(sizes.tolist())) > 1:
        raise ValueError(
            f"the processes have batches of {sizes.tolist()} samples, but only batches of one size can be gathered: "
            "set `dataloader_drop_last=True`, so that no process has a smaller one at the end of an epoch."
        )


def gather(tensor: torch.Tensor) -> torch.Tensor:
    """The rows `(B, ...)` of every process, in their order, on every process: `(processes * B, ...)`.

    All have the same number of them; no gradient flows.
    """
    if not is_distributed():
        return tensor
    gathered = tensor.new_empty(world_size(), *tensor.shape)
    dist.all_gather(list(gathered), tensor.detach().contiguous())
    return gathered.flatten(0, 1)


def sum_to_owners(tensor: torch.Tensor) -> torch.Tensor:
    """The opposite of [`gather`]: the sum over the processes of what each holds for the rows of all,
    `(processes * B, ...)`; each process is given that of its own rows, `(B, ...)`."""
    if not is_distributed():
        return tensor
    by_process = tensor.detach().contiguous().unflatten(0, (world_size(), -1))
    own = torch.empty_like(by_process[0])
    dist.reduce_scatter(own, list(by_process))
    return own


def gather_with_gradient(tensor: torch.Tensor) -> torch.Tensor:
    """As [`gather`], and gradients flow back to the process of each row, summed over the processes, any number of times.

    A ValueError on every process, if they have unequal numbers of rows.
    """
    if not is_distributed():
        return tensor
    check_equal_rows(len(tensor))
    return _Gathered.apply(tensor)


class _Gathered(Function):
    @staticmethod
    def forward(ctx, tensor):
        return gather(tensor)

    @staticmethod
    def backward(ctx, grad):
        return _Summed.apply(grad)


class _Summed(Function):
    @staticmethod
    def forward(ctx, tensor):
        return sum_to_owners(tensor)

    @staticmethod
    def backward(ctx, grad):
        return _Gathered.apply(grad)
