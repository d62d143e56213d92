"""Stochastic depth for ViT, which has none in transformers.

Shapes: B samples, T tokens, H hidden width.
"""

import torch
import torch.nn.functional as F
from torch import nn
from transformers import PreTrainedModel
from transformers.models.vit.modeling_vit import ViTLayer

from .configuration import CoLearningStudentConfig


def add_stochastic_depth(model: PreTrainedModel, rate: float) -> None:
    """Lets the residual branches of a ViT drop out sample by sample while it trains (Huang et al., 2016, "drop path").

    The probability p rises linearly from 0 in the first layer to `rate` in the last, as in timm; the rest is scaled up by
    1 / (1 - p). A checkpoint holds nothing of it: call this again on a model that is loaded to be trained on.

    Args:
        model ([`PreTrainedModel`]): A co-learning student of a ViT, or a ViT of transformers; changed in place.
        rate (`float`): The last layer's probability, from 0 up to but not including 1.

    Raises:
        ValueError: If the rate is out of range, the model is no ViT, or it has stochastic depth already.
    """
    if not 0 <= rate < 1:
        raise ValueError(f"rate={rate} is no probability of dropping a branch: pass a number from 0 to below 1.")
    config = model.config.backbone_config if isinstance(model.config, CoLearningStudentConfig) else model.config
    if hasattr(config, "drop_path_rate"):
        raise ValueError(
            f"'{config.model_type}' has stochastic depth of its own: build the model from a configuration with "
            f"drop_path_rate={rate} (it has {config.drop_path_rate}) instead."
        )
    layers = [module for module in model.modules() if isinstance(module, ViTLayer)]
    if not layers:
        raise ValueError(
            f"'{config.model_type}' has no layers of a ViT: take a ViT, a backbone whose configuration has "
            "`drop_path_rate`, or leave stochastic depth out."
        )
    if any(not isinstance(layer.dropout, nn.Dropout) for layer in layers):
        raise ValueError("the model has stochastic depth already: call this once, on a new or loaded model.")
    for layer, probability in zip(layers, torch.linspace(0, rate, len(layers), dtype=torch.float64), strict=True):
        # A ViT's layer sends both of its branches through `dropout` before it adds them.
        layer.dropout = nn.Sequential(layer.dropout, DropPath(probability.item())).train(layer.training)


class DropPath(nn.Module):
    """Zeroes whole samples of a branch with a probability while training, and scales the others up."""

    def __init__(self, probability: float):
        super().__init__()
        self.probability = probability

    def forward(self, branch_BTH: torch.Tensor) -> torch.Tensor:
        if not self.training or not self.probability:
            return branch_BTH
        return branch_BTH * F.dropout(branch_BTH.new_ones(len(branch_BTH), 1, 1), self.probability)

    def extra_repr(self) -> str:
        return f"probability={self.probability}"
