"""An exponential moving average of the weights: what is evaluated and saved, while the raw weights train on."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch.optim.swa_utils import get_ema_multi_avg_fn
from transformers import TrainerCallback
from transformers.utils import logging

from hf_colearn.models.checkpoint import current_names
from hf_colearn.training import shards
from hf_colearn.utils import distributed
from hf_colearn.utils.sharded import local_part, part_of, reshard, sharded_modules


logger = logging.get_logger(__name__)

TRAINING_WEIGHTS = "training_weights.safetensors"  # in a checkpoint: the raw weights and buffers, which train on
AVERAGED_WEIGHTS = "averaged_weights.safetensors"  # the averages as they are kept, which a model file may round
NEGLIGIBLE = 0.05  # how much of the initial weights an average may hold at the end


class WeightAverage(TrainerCallback):
    r"""Follows a model's weights: \\(\bar w_t = d \, \bar w_{t-1} + (1 - d) \, w_t\\) after every optimizer step t.

    The average starts from the weights that the model has now. It covers every trainable parameter and every
    floating-point buffer of the state dict (batch statistics); integers and frozen weights stay as they are. Of weights
    that FSDP2 shards every process averages its shard.
    """

    def __init__(self, model: torch.nn.Module, decay: float):
        self._model = model
        reshard(model)
        persistent = model.state_dict(keep_vars=True)
        parameters = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
        buffers = {name: buffer for name, buffer in model.named_buffers() if name in persistent}
        # The very tensors of the model: it is written to in place, so that DDP and compiled graphs keep their storage.
        self._weights = {**parameters, **buffers}
        self._averages = {name: _in_fp32(w).clone() for name, w in self._weights.items() if w.is_floating_point()}
        self._buffers = [name for name in buffers if name in self._averages]
        self._update = get_ema_multi_avg_fn(decay)
        self._is_in_place = False

    def update(self) -> None:
        """Takes the weights of this moment in."""
        averages = [local_part(average) for average in self._averages.values()]
        self._update(averages, [local_part(_in_fp32(self._weights[name])) for name in self._averages], None)

    def on_optimizer_step(self, args, state, control, optimizer=None, **kwargs):
        if not optimizer.step_was_skipped:  # as fp16 does where a gradient overflows
            self.update()

    @contextmanager
    def in_place(self, agree: bool = False) -> Iterator[None]:
        """Within, the model holds the averages; afterwards, and after any error, the raw weights to the last bit.

        With `agree` every process holds the main process's batch statistics, which are those that are saved; a collective.
        """
        if agree:
            self._agree()
        if self._is_in_place:
            yield
            return
        raw = {name: self._weights[name].detach().clone() for name in self._averages}
        self._is_in_place = True
        try:
            self._put(self._averages)
            yield
        finally:
            self._put(raw)
            self._is_in_place = False

    def finish(self) -> None:
        """Leaves the averages in the model for good; a collective."""
        self._agree()
        self._put(self._averages)

    def _put(self, weights: dict[str, torch.Tensor]) -> None:
        _write(weights, self._weights)
        reshard(self._model)  # or the next forward would not look at the shards

    def _agree(self) -> None:
        distributed.overwrite_from_main_process([self._averages[name] for name in self._buffers])

    def save(self, folder: str) -> None:
        """Writes the raw weights and the averages beside the model's own, which are the averages.

        A sharded model's are folders of shards, which all processes write.
        """
        for path, tensors in self._files(folder):
            if sharded_modules(self._model):
                shards.write(tensors, path.with_suffix(""))
            else:
                plain = {key: tensor.detach().contiguous() for key, tensor in tensors.items()}
                save_file(plain, path, metadata={"format": "pt"})

    def load(self, folder: str) -> None:
        """Puts raw weights and averages back as they were; a ValueError where they are missing or of another model."""
        for path, tensors in self._files(folder):
            in_shards = path.with_suffix("")
            if not path.is_file() and not in_shards.is_dir():
                raise ValueError(
                    f"'{folder}' has no {path.name}: it was written without `ema_decay` or with `save_only_model`. Resume "
                    "without `ema_decay`, or start anew from the weights alone with `from_pretrained`."
                )
            saved = None if in_shards.is_dir() else current_names(load_file(path), tensors)
            shapes = shards.shapes(in_shards) if saved is None else _shapes(saved)
            if wrong := shapes.items() ^ _shapes(tensors).items():
                key, shape = min(wrong)
                raise ValueError(
                    f"'{path}' is of another model than this one, or of one with other weights frozen: only one of the "
                    f"two has '{key}' of shape {shape}. Resume with the model that wrote it."
                )
            if saved is None:
                shards.read_into(tensors, in_shards)
            else:
                _write({name: part_of(whole, tensors[name]) for name, whole in saved.items()}, tensors)
        reshard(self._model)

    def _files(self, folder: str) -> list[tuple[Path, dict[str, torch.Tensor]]]:
        return [(Path(folder, TRAINING_WEIGHTS), self._weights), (Path(folder, AVERAGED_WEIGHTS), self._averages)]


class RunAverage:
    """The [`WeightAverage`] of a trainer's runs with `ema_decay`; does nothing without."""

    def __init__(self, trainer: Any):
        self._trainer = trainer
        self._average: WeightAverage | None = None

    def start(self, max_steps: int, checkpoint: str | None) -> None:
        """From the weights as they are now on their device, or from where a checkpoint's average was."""
        self._end()
        decay = self._trainer.args.ema_decay
        if decay is not None:
            warn_of_initial_weights(decay, max_steps)
            self._average = WeightAverage(self._trainer.model, decay)
            self._trainer.add_callback(self._average)
            if checkpoint is not None:
                self._average.load(checkpoint)
        elif checkpoint is not None and any(Path(checkpoint).glob(f"{Path(TRAINING_WEIGHTS).stem}*")):
            # Training would go on from the averages with the optimizer's state of the raw weights.
            raise ValueError(
                f"'{checkpoint}' was written with `ema_decay`, so its model file holds averaged weights: resume with "
                "`ema_decay`, or start anew from the weights alone with `from_pretrained`."
            )

    def finish(self) -> None:
        """Leaves the averages in the model for good; a collective."""
        if self._average is not None:
            self._average.finish()
            self._end()

    def _end(self) -> None:
        if self._average is not None:
            self._trainer.remove_callback(self._average)
            self._average = None

    def in_place(self, agree: bool = False) -> AbstractContextManager:
        return nullcontext() if self._average is None else self._average.in_place(agree)

    def save(self, folder: str) -> None:
        is_sharded = self._trainer.sharded_by is not None
        if self._average is not None and (is_sharded or self._trainer.args.should_save):
            self._average.save(folder)


def warn_of_initial_weights(decay: float, steps: int) -> None:
    """An average that is slow for a run's length is mostly the initial weights."""
    left = decay**steps
    if left > NEGLIGIBLE:
        logger.warning(
            f"ema_decay={decay:g} over {steps} steps: at the end the average still holds {left:.0%} of the initial "
            f"weights ({decay:g}^{steps}), so it will be worse than the weights it follows. Train longer, or lower "
            f"ema_decay to {NEGLIGIBLE ** (1 / steps):.4g} or less."
        )


def _in_fp32(tensor: torch.Tensor) -> torch.Tensor:
    """Half precisions cannot hold the small steps of an average."""
    return tensor.detach().to(torch.promote_types(tensor.dtype, torch.float32))


def _shapes(tensors: dict[str, torch.Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in tensors.items()}


@torch.no_grad()
def _write(source: dict[str, torch.Tensor], target: dict[str, torch.Tensor]) -> None:
    for name, tensor in source.items():
        target[name].copy_(tensor)
