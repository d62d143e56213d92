"""Torch's distributed checkpoints: folders of shards, which every process writes its part of and any number of them reads."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch import nn
from torch.distributed.checkpoint.metadata import TensorStorageMetadata
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)


MODEL_SHARDS = "pytorch_model_fsdp_0"  # as accelerate calls them
OPTIMIZER_SHARDS = "optimizer_0"
_WHOLE = StateDictOptions(full_state_dict=True, strict=False)


def write(tensors: Mapping[str, Any], folder: Path) -> None:
    """Writes named tensors, each whole or spread over the processes; a collective."""
    dcp.save(dict(tensors), checkpoint_id=folder, no_dist=_is_alone())


def read_into(values: dict[str, Any], folder: Path) -> None:
    """Reads a folder's values of these names: tensors in place, each process what it holds of them; a collective."""
    dcp.load(values, checkpoint_id=folder, no_dist=_is_alone())


def _is_alone() -> bool:
    return not (dist.is_available() and dist.is_initialized())


def shapes(folder: Path, prefix: str = "") -> dict[str, tuple[int, ...]]:
    """The shapes of a folder's tensors whose names begin with `prefix`, by the rest of the name."""
    stored = dcp.FileSystemReader(folder).read_metadata().state_dict_metadata
    return {
        name.removeprefix(prefix): tuple(of_tensor.size)
        for name, of_tensor in stored.items()
        if isinstance(of_tensor, TensorStorageMetadata) and name.startswith(prefix)
    }


def load_model(model: nn.Module, checkpoint: Path) -> None:
    """Reads the weights of a model, whole or in shards, from a checkpoint in shards; a ValueError where they do not fit."""
    weights: dict[str, Any] = get_model_state_dict(model)
    saved, own = shapes(checkpoint / MODEL_SHARDS, "model."), {name: tuple(w.shape) for name, w in weights.items()}
    if wrong := sorted(name for name in saved | own if saved.get(name) != own.get(name)):
        raise ValueError(f"{len(wrong)} weights do not fit, such as '{wrong[0]}'")
    read_into({"model": weights}, checkpoint / MODEL_SHARDS)
    set_model_state_dict(model, weights)


def spread_weights(model: nn.Module, weights: dict[str, Any]) -> None:
    """Gives a sharded model whole weights, of which every process keeps its part."""
    set_model_state_dict(model, weights, options=_WHOLE)


def load_optimizer(model: nn.Module, optimizer: torch.optim.Optimizer, checkpoint: Path) -> None:
    """Reads the state of an optimizer, whole or in shards, from a checkpoint in shards."""
    state = get_optimizer_state_dict(model, optimizer)
    read_into({"optimizer": state}, checkpoint / OPTIMIZER_SHARDS)
    set_optimizer_state_dict(model, optimizer, state)


def spread_optimizer(model: nn.Module, optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Gives an optimizer a whole state by the names of its parameters, of which every process keeps its part."""
    if not state["state"]:  # of SGD without momentum, which torch does not take
        for group, saved in zip(optimizer.param_groups, state["param_groups"], strict=True):
            group.update({name: value for name, value in saved.items() if name != "params"})
        return
    set_optimizer_state_dict(model, optimizer, state, options=_WHOLE)


def by_name(state: Mapping[str, Any], names: list[list[str]]) -> dict[str, Any]:
    """An optimizer's state by the names of its parameters, which `optimizer.state_dict()` numbers.

    Args:
        state (`dict`): Of an optimizer with the same groups of parameters.
        names (`list[list[str]]`): Of the parameters, group by group.
    """
    groups, flat = state["param_groups"], [name for of_group in names for name in of_group]
    if [len(group["params"]) for group in groups] != [len(of_group) for of_group in names]:
        raise ValueError(
            f"the checkpoint's optimizer has {sum(len(group['params']) for group in groups)} parameters in {len(groups)} "
            f"groups, and this one {len(flat)} in {len(names)}: resume with that run's model and layer_decay."
        )
    name_of = dict(zip((number for group in groups for number in group["params"]), flat, strict=True))
    return {
        "state": {name_of[number]: values for number, values in state["state"].items()},
        "param_groups": [{**group, "params": of_group} for group, of_group in zip(groups, names, strict=True)],
    }
