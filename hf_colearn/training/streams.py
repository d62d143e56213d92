"""Training streams: which share each process reads, and where a resumed run is in it."""

import copy
import os
from typing import Any

from datasets import IterableDataset
from datasets.distributed import split_dataset_by_node
from transformers import TrainerState
from transformers.trainer import TRAINER_STATE_NAME

from hf_colearn.training.share_loader import stages
from hf_colearn.utils import distributed


def share_for(trainer: Any, dataset: Any, is_training: bool) -> IterableDataset | None:
    """The share of a trainer's stream that this process reads; None where Trainer's own data loader is right.

    A whole training stream is split here, unless accelerate is told how to hand it out (`accelerator_config`); one that
    the user has split stays as it is. A plain run of one process is Trainer's. A collective.

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
        if split is None and (
            hands_out or config.dispatch_batches is not None or (processes == 1 and trainer.is_plain)
        ):
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
    if split is not None or processes == 1:
        return copy.copy(dataset)  # a state is loaded into it
    return split_dataset_by_node(dataset, rank, processes)


def _shuffles(examples: Any) -> list[str]:
    """The states of the generators that a stream's stages shuffle with."""
    generators = [vars(stage).get("generator") for stage in stages(examples)]
    return [str(generator.bit_generator.state) for generator in generators if generator is not None]


def position_in_stream(checkpoint: str, accumulation_steps: int) -> tuple[int, int]:
    """How many whole epochs of a stream a checkpoint has seen, and how many batches of the next one.

    Trainer does not know how long an epoch of a stream is, and counts one as the part of a run that it has got through:
    `TrainerState.epoch` is its number plus batches / (max_steps * accumulation steps).
    """
    state = TrainerState.load_from_json(os.path.join(checkpoint, TRAINER_STATE_NAME))
    epochs = int(state.epoch)
    return epochs, round((state.epoch - epochs) * state.max_steps * accumulation_steps)
