"""Features standardised by the training set's statistics, which are saved with the weights; travels with every checkpoint.

Shapes: B inputs, N training samples, F features.
"""

import torch
from torch import nn


class Standardization(nn.Module):
    """Features less their mean, divided by their standard deviation; as they come until `set_statistics` is called."""

    mean_F: torch.Tensor
    std_F: torch.Tensor

    def __init__(self, width: int):
        super().__init__()
        self.register_buffer("mean_F", torch.zeros(width))
        self.register_buffer("std_F", torch.ones(width))

    def set_statistics(self, features_NF: torch.Tensor) -> None:
        """Standardises by these N features from now on, such as the training set's; one in which they are equal becomes 0."""
        if features_NF.shape[1:] != self.mean_F.shape or len(features_NF) < 2:
            raise ValueError(
                f"features of shape {tuple(features_NF.shape)} give no statistics of {len(self.mean_F)} features: pass [N, "
                f"{len(self.mean_F)}] with N > 1."
            )
        std_F = features_NF.std(dim=0, correction=0)
        self.mean_F.copy_(features_NF.mean(dim=0))
        self.std_F.copy_(torch.where(std_F > 0, std_F, 1.0))

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Features `[B, F]` or `[B, T, F]`."""
        return ((features - self.mean_F) / self.std_F).to(self.mean_F.dtype)
