"""Weights that FSDP2 spreads over the processes: what one process holds of them, and the whole ones."""

from collections import Counter
from typing import Any

import torch
from peft import PeftModel
from torch import nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor


def check_version(version: int) -> None:
    """Refuses the FSDP of earlier versions of torch."""
    if version != 2:
        raise ValueError(
            f"FSDP version {version} flattens weights, which averages, rates by layer and checkpoints need one by one: "
            "leave `version` out of fsdp_config (of accelerate's configuration, `fsdp_version: 2`)."
        )


def sharded_modules(model: nn.Module) -> list[Any]:
    """The modules of a model whose weights FSDP2 gathers together."""
    return [module for module in model.modules() if isinstance(module, FSDPModule)]


def reshard(model: nn.Module) -> None:
    """Frees whole weights that a forward without a backward leaves behind: they hide what is written to the shards."""
    for module in sharded_modules(model):
        module.reshard()


def local_part(tensor: torch.Tensor) -> torch.Tensor:
    """Of a tensor that is spread over the processes what this one holds, in the same memory; any other one as it is."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def part_of(whole: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """What this process holds of a whole tensor that is spread as another one is; where that is whole, too, all of it."""
    if not isinstance(like, DTensor):
        return whole
    return distribute_tensor(whole.to(like.device), like.device_mesh, like.placements, src_data_rank=None)


def plain_class(model: nn.Module) -> type:
    """The class of a model, sharded or not."""
    return type(model).__mro__[2] if isinstance(model, FSDPModule) else type(model)  # after torch's own FSDPModule


def whole_weights(model: nn.Module) -> dict[str, Any]:
    """The gathered state dict on the main process, in its memory; empty on the others. Of adapters what they train."""
    options = StateDictOptions(
        full_state_dict=True, cpu_offload=True, ignore_frozen_params=isinstance(model, PeftModel)
    )
    return get_model_state_dict(model, options=options)


def shard_like(copy: nn.Module, model: nn.Module) -> None:
    """Shards a whole copy of a sharded model, layer by layer, so that every process holds the same parts of both."""
    mesh = next(weight.device_mesh for weight in model.parameters() if isinstance(weight, DTensor))
    names = [name for name, module in model.named_modules() if isinstance(module, FSDPModule)]
    modules, uses = dict(copy.named_modules()), _uses(copy)
    for name in reversed(names):  # the layers first
        layer = modules.get(name)
        if layer is not None and all(uses[weight] == count for weight, count in _uses(layer).items()):
            fully_shard(layer, mesh=mesh)


def _uses(model: nn.Module) -> Counter[nn.Parameter]:
    """How many modules within a model have each of its weights."""
    return Counter(weight for module in model.modules() for weight in module.parameters(recurse=False))
