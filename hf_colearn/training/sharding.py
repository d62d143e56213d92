"""Weights that are spread over the processes: which layers are sharded, and FSDP on processes without an accelerator."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from accelerate.state import AcceleratorState, PartialState
from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin
from torch import nn
from transformers.utils import logging

from hf_colearn.utils import distributed
from hf_colearn.utils.sharded import check_version, plain_class, reshard, sharded_modules


logger = logging.get_logger(__name__)


def shard_on_cpu(trainer: Any) -> bool:
    """Lets accelerate shard by FSDP2 on CPU processes, where it would train with plain data parallelism without a word.

    Torch's `fully_shard` works on gloo, and everything after the choice of the kind of training is the same as on GPUs.

    Returns:
        `bool`: Whether the state of accelerate has changed, so that the trainer's accelerator is to be made again.
    """
    plugin_args = trainer.args.fsdp_plugin_args
    is_asked = plugin_args is not None or os.environ.get("ACCELERATE_USE_FSDP", "false").lower() == "true"
    if not is_asked or PartialState().distributed_type != DistributedType.MULTI_CPU:
        return False
    shared = AcceleratorState._shared_state  # no public way: accelerate offers FSDP to GPUs alone
    shared["fsdp_plugin"] = FullyShardedDataParallelPlugin(**(plugin_args or {}))
    shared["distributed_type"] = PartialState._shared_state["distributed_type"] = DistributedType.FSDP
    logger.warning_once(
        "FSDP without a GPU: accelerate ignores `fsdp=True` on CPU processes, so the trainer asks it to shard all the same, by "
        "torch's fully_shard over gloo."
    )
    return True


def check_shards(trainer: Any) -> None:
    """Refuses what FSDP2 cannot shard, when the trainer is built."""
    check_version(trainer.accelerator.state.fsdp_plugin.fsdp_version)
    numbers = [] if trainer.model is None else [name for name, w in trainer.model.named_parameters() if w.ndim == 0]
    if numbers:
        raise ValueError(
            f"FSDP shards no weights that are single numbers, and the model has '{numbers[0]}': build it with "
            "`learned_logit_scale=False`, where that is it, make it a vector of length 1, or train with plain data parallelism."
        )


def choose_layers(plugin: FullyShardedDataParallelPlugin, model: nn.Module) -> None:
    """Names the layers that are sharded one by one, where the user names none: those that the model says must stay in one
    piece, without what holds its input embedding, which accelerate shards by itself and torch shards once alone.

    A ViT's `_no_split_modules` name both its embeddings and its layers.
    """
    if plugin.transformer_cls_names_to_wrap is not None:
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


@contextmanager
def preparing(trainer: Any) -> Iterator[None]:
    """Within, accelerate may shard a trainer's model, in layers of its own; afterwards the classes have their names.

    A model of transformers without an input embedding says so, as accelerate expects, where it would raise. Embeddings that
    accelerate cannot shard by themselves, as a third module has a weight of theirs, remain with the rest of the model.
    """
    model = trainer.model
    choose_layers(trainer.accelerator.state.fsdp_plugin, model)
    reshard(model)  # accelerate finds the shards, and not what an evaluation has gathered
    getters = ("get_input_embeddings", "get_output_embeddings")
    hidden = [name for name in getters if hasattr(model, name)] if _embeddings_stay(model) else []
    for name in hidden:
        vars(model)[name] = lambda: None
    try:
        yield
    finally:
        for name in hidden:
            del vars(model)[name]
    call_by_plain_names(trainer.model)


def _embeddings_stay(model: nn.Module) -> bool:
    """Whether a model has no input embedding, or its embeddings have a weight in common with a third module."""
    inputs, outputs = input_embedding(model), getattr(model, "get_output_embeddings", lambda: None)()
    if inputs is None:
        return True
    embeddings = [module for module in (inputs, outputs) if module is not None]
    parts = {part for module in embeddings for part in module.modules()}
    of_embeddings = {id(weight) for module in embeddings for weight in module.parameters()}
    others = (module for module in model.modules() if module not in parts)
    return any(id(weight) in of_embeddings for module in others for weight in module.parameters(recurse=False))


def input_embedding(model: nn.Module) -> nn.Module | None:
    """The module that accelerate takes for the input embedding, if any."""
    getter = getattr(model, "get_input_embeddings", None)
    try:
        return None if getter is None else getter()
    except NotImplementedError:
        return None


def call_by_plain_names(model: nn.Module) -> None:
    """Gives the classes that torch makes of sharded modules the names of the plain ones.

    Torch's are `FSDP{name}` in a file of torch, and by a class's name and file a model is saved, loaded and described.
    """
    for module in sharded_modules(model):
        made, plain = type(module), plain_class(module)
        made.__name__, made.__qualname__, made.__module__ = plain.__name__, plain.__qualname__, plain.__module__


def agree_on_buffers(model: nn.Module) -> None:
    """Gives every process the main one's buffers, such as batch statistics, as plain data parallelism does; a collective."""
    distributed.overwrite_from_main_process([*model.buffers()])


def names_of_parameters(optimizer: torch.optim.Optimizer, model: nn.Module) -> list[list[str]]:
    """The names of an optimizer's parameters, group by group."""
    names = {parameter: name for name, parameter in model.named_parameters()}
    return [[names[parameter] for parameter in group["params"]] for group in optimizer.param_groups]


def shard_for_evaluation(trainer: Any) -> None:
    """Shards a model that is evaluated before it was trained; accelerate does so together with an optimizer alone."""
    unused = torch.optim.SGD(trainer.model.parameters())
    with preparing(trainer):
        trainer.model, _ = trainer.accelerator.prepare(trainer.model, unused)
    trainer.accelerator._optimizers.pop()
    trainer.model_wrapped = trainer.model
