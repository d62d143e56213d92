"""Learning rates: by layer, and in steps of epochs."""

import torch
from torch import nn
from torch.nn.utils.parametrize import ParametrizationList
from torch.optim.lr_scheduler import StepLR
from transformers import PreTrainedModel
from transformers.utils import logging

from hf_colearn.models.lora import base_model


logger = logging.get_logger(__name__)


def layers_above(model: nn.Module) -> dict[nn.Parameter, int]:
    """How many layers lie above every parameter of a model; a ValueError where it has no `nn.ModuleList`.

    Layers are the elements of the backbone's outermost `nn.ModuleList`s in the order of their definition: the blocks of
    ViT, BERT or wav2vec2 (whose convolutions come first), the stages of ResNet, Swin or ConvNeXt. What is defined before
    the first is the layer below it (embeddings), what lies between two lists counts with the layer before it, and what
    comes after the last, with every head, is the top. So the top has 0 layers above it, the last block 1, and the
    embeddings of a backbone with n blocks n + 1, as in BEiT and timm. A module that is not of transformers is all backbone.
    """
    backbone = base_model(model)
    while isinstance(backbone, PreTrainedModel) and backbone.base_model is not backbone:
        backbone = backbone.base_model
    lists = [
        name
        for name, module in backbone.named_modules()
        if isinstance(module, nn.ModuleList)
        and not isinstance(module, ParametrizationList)  # of a weight norm: not layers
        and next(module.parameters(), None) is not None
    ]
    outermost = [f"{name}." for name in lists if not any(name.startswith(f"{other}.") for other in lists)]
    if not outermost:
        raise ValueError(
            f"layer_decay needs layers, and {type(backbone).__name__} has no nn.ModuleList to find them in: leave "
            "layer_decay out, or pass an optimizer with learning rates of your own."
        )
    layers: dict[str, None] = {}  # those met so far
    met = []  # for every parameter, how many, and whether it lies in one
    for name, parameter in backbone.named_parameters():  # in the order of definition
        prefix = next((prefix for prefix in outermost if name.startswith(prefix)), None)
        if prefix is not None:
            layers[prefix + name.removeprefix(prefix).split(".")[0]] = None
        met.append((parameter, len(layers), prefix is not None))
    last = max(index for index, (_, _, is_inside) in enumerate(met) if is_inside)
    above = {parameter: len(layers) + 1 - below for parameter, below, _ in met[: last + 1]}
    return {parameter: above.get(parameter, 0) for parameter in model.parameters()}


def decay_learning_rates(optimizer: torch.optim.Optimizer, model: nn.Module, layer_decay: float) -> None:
    """Splits an optimizer's parameter groups by layer, with the group's learning rate times `layer_decay ** layers_above`.

    Everything else of a group, such as its weight decay, stays. The first group is one of the top, whose learning rate
    is the one that Trainer logs. BEiT and MAE fine-tune with a decay of 0.65 to 0.75.
    """
    above = layers_above(model)
    groups = []
    for group in optimizer.param_groups:
        by_layer: dict[int, list[nn.Parameter]] = {}
        for parameter in group["params"]:
            if parameter not in above:
                raise ValueError(
                    f"layer_decay={layer_decay}: the optimizer holds a parameter of shape {tuple(parameter.shape)} that is "
                    "none of the model's, as FSDP's flat parameters are: leave layer_decay out."
                )
            by_layer.setdefault(above[parameter], []).append(parameter)
        for layer, parameters in by_layer.items():
            groups.append((layer, {**group, "params": parameters, "lr": group["lr"] * layer_decay**layer}))
    groups.sort(key=lambda pair: pair[0])
    optimizer.param_groups[:] = [group for _, group in groups]
    rates = [float(group["lr"]) for _, group in groups]
    logger.info(f"layer_decay={layer_decay:g}: learning rates from {min(rates):.3g} to {max(rates):.3g}.")


def step_schedule(
    optimizer: torch.optim.Optimizer, epochs: float, steps_per_epoch: int | None, gamma: float
) -> StepLR:
    """Multiplies every learning rate with `gamma` after every so many epochs; a stream has no `steps_per_epoch`.

    The published protocols of Lee & Yoon (ICLR 2025) take 25 epochs for AVMNIST, 70 for CREMA-D.
    """
    if steps_per_epoch is None:
        raise ValueError(
            f"lr_step_epochs={epochs:g} counts epochs, and the training set has no length: pass a data set with one, or "
            "another schedule (`lr_scheduler_type`), which counts `max_steps`."
        )
    for group in optimizer.param_groups:  # StepLR multiplies what it finds, which a train() before may have left
        group["lr"] = group.setdefault("initial_lr", group["lr"])
    return StepLR(optimizer, step_size=max(1, round(epochs * steps_per_epoch)), gamma=gamma)
