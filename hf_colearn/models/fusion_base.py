"""What all fusions share; travels with every multimodal checkpoint.

Shapes: B samples, M modalities, D latent width, F width of what the fusion's classifier reads, C classes, H_m width of a
modality's pooled features.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import nn


class Fusion(nn.Module):
    """Base of the fusions, made from H_m of every modality, D and C, and the options that a fusion has."""

    options: tuple[str, ...] = ()  # the names of `fusion_options`, which the constructor takes

    is_of_classes = False  # whether it reads probabilities of classes that exclude each other

    @classmethod
    def check_options(cls, options: Mapping[str, Any]) -> None:
        """A ValueError where an option has no such value."""

    def __init__(self, widths: list[int], latent_dim: int, num_labels: int):
        super().__init__()
        self.width = latent_dim  # F

    def reset_parameters(self) -> None:
        """Draws the parameters that are the fusion's own and in no layer of torch."""

    def forward(self, latents, logits, mask_BM):
        """
        Args:
            latents, logits (`list[torch.Tensor]`): M tensors `(B, D)`, and M `(B, C)` of the modalities' own heads.
            mask_BM (`torch.Tensor` of shape `(B, M)`, bool): What the prediction may use; the rest is not read.

        Returns:
            `tuple[torch.Tensor, torch.Tensor]`: The fused latents `[B, F]` and logits `[B, C]`.
        """
        raise NotImplementedError


def masked(values: Iterable[torch.Tensor], mask_BM: torch.Tensor) -> list[torch.Tensor]:
    """Every modality's values `[B, ...]`, with 0 where it is absent: filled and not multiplied, as these may be anything."""
    return [value.masked_fill(~mask_BM[:, i, None], 0) for i, value in enumerate(values)]
