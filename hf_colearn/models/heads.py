"""Heads, the loss of their logits, and checks of what they are made of; travels with every checkpoint.

Shapes: B samples, C classes.
"""

from collections.abc import Collection, Iterable
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn


def check_width(name: str, value: Any, way_out: str = "pass at least 1", of: str = "") -> None:
    """A ValueError where no layer can be so wide."""
    if type(value) is not int or value < 1:
        raise ValueError(f"{name}={value!r}{of} is no width: {way_out}.")


def check_choice(name: str, value: Any, choices: Collection[str]) -> None:
    """A ValueError where the value is none of the choices."""
    if value not in choices:
        shown = " or ".join(map(repr, choices)) if len(choices) == 2 else f"one of {', '.join(choices)}"
        raise ValueError(f"{name}='{value}' is unknown: choose {shown}.")


def make_head(in_features: int, hidden_features: int | None, out_features: int) -> nn.Module:
    """A linear layer; or two of them with GELU between, where a hidden width is given."""
    if hidden_features is None:
        return nn.Linear(in_features, out_features)
    return nn.Sequential(nn.Linear(in_features, hidden_features), nn.GELU(), nn.Linear(hidden_features, out_features))


def task_loss(logits_BC: torch.Tensor, labels: torch.Tensor, problem_type: str | None) -> torch.Tensor:
    """Cross-entropy for class indices `(B,)` or class probabilities `(B, C)`; BCE or MSE where `problem_type` says so.

    Computed in float32, whatever the weights' dtype.
    """
    logits_BC = logits_BC.float()
    if problem_type == "multi_label_classification":
        return F.binary_cross_entropy_with_logits(logits_BC, labels.to(logits_BC.dtype))
    if problem_type == "regression":  # labels (B,) or (B, C), never broadcast against each other
        return F.mse_loss(logits_BC, labels.to(logits_BC.dtype).reshape(logits_BC.shape))
    return F.cross_entropy(logits_BC, labels if labels.ndim == 1 else labels.to(logits_BC.dtype))


def zero_gradient(logits_BC: torch.Tensor, parameters: Iterable[nn.Parameter]) -> torch.Tensor:
    """The logits, with a gradient of 0 for parameters that may have no other: plain DDP waits for every parameter's."""
    # One element of each: a sum over all of them could overflow, and infinity times 0 is not 0.
    zeros = [0 * x.flatten()[:1].sum() for x in parameters if x.requires_grad]
    return logits_BC + torch.stack(zeros).sum() if zeros else logits_BC
