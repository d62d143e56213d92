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


def infer_problem_type(num_labels: int | None, labels: torch.Tensor) -> str:
    """What labels are taken for where no `problem_type` is given: one output is a regression; several with labels that are
    no integers, as transformers has it, or with a row of them a sample, are several labels."""
    if num_labels == 1:
        return "regression"
    is_several = labels.is_floating_point() or labels.ndim > 1
    return "multi_label_classification" if is_several else "single_label_classification"


def label_mask(labels: torch.Tensor, problem_type: str | None = None) -> torch.Tensor:
    """Which labels count, booleans: a class, or one of several labels, of -100 is none, and neither is a NaN.

    An entry each, `(B,)` or `(B, C)`; class probabilities `(B, C)` of a single-label classification count by row, `(B,)`, and
    one with a NaN in it does not.
    """
    if problem_type == "regression" or (labels.is_floating_point() and labels.ndim == 1):
        return ~labels.isnan()
    is_label = ~labels.isnan() & (labels != -100)
    return is_label.all(dim=-1) if problem_type == "single_label_classification" and labels.ndim > 1 else is_label


def task_loss(
    logits_BC: torch.Tensor,
    labels: torch.Tensor,
    problem_type: str | None,
    num_items: torch.Tensor | None = None,
) -> torch.Tensor:
    """Cross-entropy for class indices `(B,)` or class probabilities `(B, C)`, BCE for several labels `(B, C)`, or MSE.

    The mean over the labels that count, see [`label_mask`]; 0 with a gradient of 0 where none does. Computed in float32,
    whatever the weights' dtype.

    Args:
        logits_BC (`torch.Tensor` of shape `(B, C)`): Before softmax or sigmoid.
        labels (`torch.Tensor` of shape `(B,)` or `(B, C)`): As `problem_type` has them.
        problem_type (`str`, *optional*): As of transformers; by default [`infer_problem_type`].
        num_items (`torch.Tensor` of one number, *optional*): What the sum is divided by, instead of the labels that count here.
    """
    logits_BC = logits_BC.float()
    problem_type = problem_type or infer_problem_type(logits_BC.shape[-1], labels)
    if problem_type == "regression":  # labels (B,) or (B, C), never broadcast against each other
        labels = labels.to(logits_BC.dtype).reshape(logits_BC.shape)
    counts = label_mask(labels, problem_type)
    if problem_type == "single_label_classification":
        if labels.ndim > 1:
            labels = torch.where(counts[:, None], labels, 0).to(logits_BC.dtype)  # all 0: no loss, no gradient
        total = F.cross_entropy(logits_BC, labels, reduction="sum")
    else:
        labels = torch.where(counts, labels, 0).to(logits_BC.dtype)
        elementwise = F.mse_loss if problem_type == "regression" else F.binary_cross_entropy_with_logits
        total = torch.where(counts, elementwise(logits_BC, labels, reduction="none"), 0).sum()
    return total / (counts.sum() if num_items is None else num_items.reshape(())).clamp(min=LEAST_COUNT)


LEAST_COUNT = 1e-9  # a mean count of a micro-batch may be below 1, and where nothing counts the sum is 0


def zero_gradient(logits_BC: torch.Tensor, parameters: Iterable[torch.Tensor]) -> torch.Tensor:
    """The logits, or a loss, with a gradient of 0 for parameters that may have no other, or for all that these tensors
    depend on: plain DDP waits for every parameter's."""
    # One element of each: a sum over all of them could overflow, and infinity times 0 is not 0.
    zeros = [0 * x.flatten()[:1].sum() for x in parameters if x.requires_grad]
    return logits_BC + torch.stack(zeros).sum() if zeros else logits_BC
