"""What an imputation returns; travels with every multimodal checkpoint."""

from typing import NamedTuple

import torch


class Imputed(NamedTuple):
    """Imputed latents of a batch. Shapes: B samples, D latent width, H width of a joint latent.

    Args:
        means (`list[torch.Tensor]`): Of every modality, `(B, D)`.
        scales (`list[torch.Tensor]`, *optional*): Of the noise that modulates each in training, `(B, D)`.
        joint (`torch.Tensor` of shape `(B, H)`, *optional*): The joint latents of what is there.
    """

    means: list[torch.Tensor]
    scales: list[torch.Tensor] | None = None
    joint: torch.Tensor | None = None
