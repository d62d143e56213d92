"""The classifier on a latent, and the loss of its logits; travels with every checkpoint.

Shapes: B samples, D latent width, C classes.
"""

import torch
import torch.nn.functional as F
from torch import nn


def make_classifier(latent_dim: int, hidden_dim: int | None, num_labels: int) -> nn.Module:
    """A linear layer; or two of them with GELU between, where a hidden width is given."""
    if hidden_dim is None:
        return nn.Linear(latent_dim, num_labels)
    return nn.Sequential(nn.Linear(latent_dim, hidden_dim), nn.GELU(), nn.Linear(hidden_dim, num_labels))


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
