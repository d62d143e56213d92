"""Fusion of the heads' logits by their certainty; travels with every multimodal checkpoint.

Shapes: B samples, M modalities, D latent width, C classes.
"""

from collections.abc import Mapping
from typing import Any

import torch

from .fusion_base import Fusion, masked
from .heads import check_choice


class EntropyFusion(Fusion):
    r"""The heads' logits, each weighted by how certain it is of its sample (MLA, Zhang et al., CVPR 2024); F = D.

    \\(z = \sum_m w_m u_m\\) with \\(w_m \propto \exp(H_{max} - H_m)\\), where \\(H_m\\) is the entropy of softmax(u_m) and
    \\(H_{max}\\) the largest of a sample's modalities that are present. Absent ones weigh 0, and a sample without any gets
    logits of 0. Fused latents are the latents' mean by the same weights.

    The weights are a rule of the prediction, and carry no gradient. The released code takes the softmax and the entropy over
    the batch, so that a prediction depends on the samples beside it; here it depends on its sample alone.

    Options:
        weights (`str`, *optional*, defaults to `"entropy"`): Or `"fixed"`, the same weight for each that is present.
    """

    options = ("weights",)
    is_of_classes = True

    @classmethod
    def check_options(cls, options: Mapping[str, Any]) -> None:
        check_choice("weights", options.get("weights", "entropy"), ("entropy", "fixed"))

    def __init__(self, widths: list[int], latent_dim: int, num_labels: int, weights: str = "entropy"):
        super().__init__(widths, latent_dim, num_labels)
        self.weights = weights

    def forward(self, latents, logits, mask_BM):
        latents, logits = masked(latents, mask_BM), masked(logits, mask_BM)
        if self.weights == "entropy":
            weights_BM = entropy_weights(logits, mask_BM)
        else:
            weights_BM = mask_BM / mask_BM.sum(1, keepdim=True).clamp(min=1)
        weights_BM1 = weights_BM.to(logits[0].dtype).unsqueeze(-1)
        fused_BD, logits_BC = ((torch.stack(x, dim=1) * weights_BM1).sum(1) for x in (latents, logits))
        return fused_BD, logits_BC


@torch.no_grad()
def entropy_weights(logits: list[torch.Tensor], mask_BM: torch.Tensor) -> torch.Tensor:
    """What each modality weighs in each sample, `[B, M]`, in float32; 0 where it is absent, and a row sums to 1.

    Args:
        logits (`list[torch.Tensor]`): M tensors `(B, C)`.
        mask_BM (`torch.BoolTensor` of shape `(B, M)`): Which modalities a sample has.

    Example:

    ```python
    >>> import torch
    >>> from hf_colearn.models.entropy_fusion import entropy_weights

    >>> certain, even = torch.tensor([[0.9, 0.1]]).log(), torch.zeros(1, 2)
    >>> entropy_weights([certain, even], torch.ones(1, 2, dtype=torch.bool))
    tensor([[0.5910, 0.4090]])
    ```
    """
    log_p_BMC = torch.stack(masked(logits, mask_BM), dim=1).float().log_softmax(-1)
    entropy_BM = -(log_p_BMC.exp() * log_p_BMC).sum(-1)
    # Proportional to exp(H_max - H_m): what is common to a row cancels.
    return (-entropy_BM).masked_fill(~mask_BM, -torch.inf).softmax(1).nan_to_num()
