"""Every collective of ours, each a no-op on one process."""

from contextlib import contextmanager

import torch
import torch.distributed as dist


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


def mean_over_processes(values: torch.Tensor) -> torch.Tensor:
    """The mean of a tensor over the processes, the same on each; the argument is left alone, no gradient flows."""
    values = values.detach().clone()
    if is_distributed():
        dist.all_reduce(values)
        values /= dist.get_world_size()
    return values


@contextmanager
def together():
    """What one process raises within, every process raises at the end, so that none waits for ever for the others.

    Raises:
        Exception: This process's own error, or a RuntimeError that names the first process that failed and why.
    """
    error = None
    try:
        yield
    except Exception as caught:
        error = caught
    failures: list[str | None] = [None]
    if is_distributed():
        failures = [None] * dist.get_world_size()
        dist.all_gather_object(failures, None if error is None else f"{type(error).__name__}: {error}")
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
