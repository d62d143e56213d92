"""Fusion where the modalities agree, and the most confident of them where they do not; travels with every multimodal
checkpoint.

Shapes: B samples, M modalities, D latent width, C classes.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from .fusion_base import Fusion, masked


class DynamicFusion(Fusion):
    r"""A linear classifier on the concatenated latents, or the most confident head (DOMFN, Yang et al., ACM MM 2022).

    \\(d_m = \max_c (p_{m,c} - \bar p_c)^2\\), with p the softmax of a head's logits and \\(\bar p\\) its mean over the
    modalities that a sample has. The gate is open where every \\(d_m / \tau < \gamma\\): the logits are those of
    `classifier`, F = M * D, zeros where a modality is absent. Where it is closed they are those of the modality whose
    largest p is largest. The gate is decided for each sample, without host synchronisation, and has no gradient.

    The distance of M modalities is at most \\((1 - 1/M)^2\\), of two 1/4: with the published gamma of 0.8 and tau = 1 the gate
    is always open, and it may close for tau below 0.3125. Heads are untrained as long as nothing trains them: pass a
    `modality_loss_weight`, or use a loss that has theirs, as published. The released code takes a sigmoid's outputs and
    their distance from the fused one, and is written for batches of one.

    Options:
        gamma (`float`, *optional*, defaults to 0.8): Positive.
        tau (`float`, *optional*, defaults to 1.0): Positive.
    """

    options = ("gamma", "tau")
    is_of_classes = True

    @classmethod
    def check_options(cls, options: Mapping[str, Any]) -> None:
        for name, value in options.items():
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < float("inf"):
                raise ValueError(f"{name}={value!r}: pass a positive number, by default gamma=0.8 and tau=1.0.")

    def __init__(self, widths: list[int], latent_dim: int, num_labels: int, gamma: float = 0.8, tau: float = 1.0):
        super().__init__(widths, len(widths) * latent_dim, num_labels)
        self.gamma, self.tau = gamma, tau
        self.classifier = nn.Linear(self.width, num_labels)

    def forward(self, latents, logits, mask_BM):
        fused_BF = torch.cat(masked(latents, mask_BM), dim=1)
        is_open_B = gate_is_open(disagreement(logits, mask_BM), self.gamma, self.tau)
        chosen_BC = most_confident(logits, mask_BM)
        return fused_BF, torch.where(is_open_B[:, None], self.classifier(fused_BF), chosen_BC)


def disagreement(logits: list[torch.Tensor], mask_BM: torch.Tensor) -> torch.Tensor:
    r"""How far each modality is from the mean: \\(d_m = \max_c (p_{m,c} - \bar p_c)^2\\), `[B, M]`, in float32.

    Args:
        logits (`list[torch.Tensor]`): M tensors `(B, C)`.
        mask_BM (`torch.BoolTensor` of shape `(B, M)`): Which modalities a sample has; 0 for the others, which the mean leaves
            out.

    Example:

    ```python
    >>> import torch
    >>> from hf_colearn.models.dynamic_fusion import disagreement

    >>> logits = [torch.tensor([[0.9, 0.1]]).log(), torch.tensor([[0.5, 0.5]]).log()]
    >>> disagreement(logits, torch.ones(1, 2, dtype=torch.bool))
    tensor([[0.0400, 0.0400]])
    ```
    """
    p_BMC = torch.stack(masked(logits, mask_BM), dim=1).float().softmax(-1) * mask_BM.unsqueeze(-1)
    mean_B1C = (p_BMC.sum(1) / mask_BM.sum(1, keepdim=True).clamp(min=1)).unsqueeze(1)
    return (p_BMC - mean_B1C).square().amax(-1) * mask_BM


def gate_is_open(d_BM: torch.Tensor, gamma: float = 0.8, tau: float = 1.0) -> torch.Tensor:
    """Where all modalities agree, d / tau < gamma: booleans `[B]`."""
    return (d_BM.detach() / tau < gamma).all(1)


def most_confident(logits: list[torch.Tensor], mask_BM: torch.Tensor) -> torch.Tensor:
    """The logits `[B, C]` of the modality that is surest of its class, of those that a sample has; 0 without any."""
    logits_BMC = torch.stack(masked(logits, mask_BM), dim=1)
    confidence_BM = logits_BMC.detach().float().softmax(-1).amax(-1).masked_fill(~mask_BM, -1)
    chosen_B11 = confidence_BM.argmax(1)[:, None, None]
    return logits_BMC.gather(1, chosen_B11.expand(-1, 1, logits_BMC.shape[-1])).squeeze(1)
