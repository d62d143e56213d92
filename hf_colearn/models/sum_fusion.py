"""Weighted means of the heads' logits; travels with every multimodal checkpoint.

Shapes: B samples, M modalities, D latent width, C classes.
"""

import torch
from torch import nn

from .fusion_base import Fusion, masked


class SumFusion(Fusion):
    """The mean of the present modalities' logits (published as `sum`); F = D, the mean of their latents.

    A sample without any modality gets logits of 0.
    """

    def weights(self, mask_BM: torch.Tensor) -> torch.Tensor:
        """What each modality counts for in each sample, `[B, M]`, in float32; a row sums to 1, or to 0 without any."""
        return mask_BM / mask_BM.sum(1, keepdim=True).clamp(min=1)

    def forward(self, latents, logits, mask_BM):
        weights_BM1 = self.weights(mask_BM).to(logits[0].dtype).unsqueeze(-1)
        means = (torch.stack(masked(x, mask_BM), dim=1).mul(weights_BM1).sum(1) for x in (latents, logits))
        return tuple(means)


class WeightedFusion(SumFusion):
    """As `SumFusion`, weighted by a learned softmax (uniform at first), renormalised over the modalities present."""

    def __init__(self, widths: list[int], latent_dim: int, num_labels: int):
        super().__init__(widths, latent_dim, num_labels)
        self.scores_M = nn.Parameter(torch.empty(len(widths)))

    def reset_parameters(self) -> None:
        nn.init.zeros_(self.scores_M)

    def weights(self, mask_BM: torch.Tensor) -> torch.Tensor:
        shares_BM = self.scores_M.float().softmax(0) * mask_BM
        return shares_BM / shares_BM.sum(1, keepdim=True).clamp(min=torch.finfo(torch.float32).tiny)
