"""Weights that are spread over the processes: which layers are sharded, and FSDP on processes without an accelerator."""

import os
from typing import Any

from accelerate.state import AcceleratorState, PartialState
from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin
from torch import nn
from transformers.utils import logging


logger = logging.get_logger(__name__)


def shard_on_cpu(trainer: Any) -> bool:
    """Lets accelerate shard by FSDP2 on CPU processes, where it would train with plain data parallelism without a word.

    Torch's `fully_shard` works on gloo, and everything after the choice of the kind of training is the same as on GPUs.

    Returns:
        `bool`: Whether the state of accelerate has changed, so that the trainer's accelerator is to be made again.

    Raises:
        ValueError: If another version than FSDP2 is asked for.
    """
    plugin_args = trainer.args.fsdp_plugin_args
    is_asked = plugin_args is not None or os.environ.get("ACCELERATE_USE_FSDP", "false").lower() == "true"
    if not is_asked or PartialState().distributed_type != DistributedType.MULTI_CPU:
        return False
    plugin = FullyShardedDataParallelPlugin(**(plugin_args or {}))
    if plugin.fsdp_version != 2:
        raise ValueError(
            f"FSDP version {plugin.fsdp_version} shards on GPUs alone: leave `version` out of fsdp_config, which is then 2."
        )
    shared = AcceleratorState._shared_state  # no public way: accelerate offers FSDP to GPUs alone
    shared["fsdp_plugin"] = plugin
    shared["distributed_type"] = PartialState._shared_state["distributed_type"] = DistributedType.FSDP
    logger.warning_once(
        "FSDP without a GPU: accelerate ignores `fsdp=True` on CPU processes, so the trainer asks it to shard all the same, by "
        "torch's fully_shard over gloo."
    )
    return True


def choose_layers(plugin: FullyShardedDataParallelPlugin, model: nn.Module) -> None:
    """Names the layers that are sharded one by one, where the user names none: those that the model says must stay in one
    piece, without what holds its input embedding, which accelerate shards by itself and torch shards once alone.

    A ViT's `_no_split_modules` name both its embeddings and its layers.
    """
    if plugin.fsdp_version != 2 or plugin.transformer_cls_names_to_wrap is not None:
        return
    named = set(getattr(model, "_no_split_modules", None) or ())
    embedding = input_embedding(model)
    layers, holders = set(), set()
    for module in model.modules():
        name = type(module).__name__
        if name in named:
            layers.add(name)
            if embedding is not None and any(part is embedding for part in module.modules()):
                holders.add(name)
    plugin.transformer_cls_names_to_wrap = sorted(layers - holders)


def input_embedding(model: nn.Module) -> nn.Module | None:
    """The module that accelerate takes for the input embedding, if any."""
    getter = getattr(model, "get_input_embeddings", None)
    try:
        return None if getter is None else getter()
    except NotImplementedError:
        return None
