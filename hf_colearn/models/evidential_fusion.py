"""Fusion of the modalities' evidence by Dempster's rule; travels with every multimodal checkpoint.

Shapes: B samples, M modalities, D latent width, C classes.
"""

import torch
import torch.nn.functional as F
from torch import nn

from .fusion_base import Fusion, masked


class EvidentialFusion(Fusion):
    r"""Dirichlet distributions of all modalities and a pseudo view, combined (ETMC, Han et al., ICLR 2021 and TPAMI 2022).

    A head's logits u are evidence \\(e = \text{softplus}(u)\\), a Dirichlet distribution of \\(\alpha = e + 1\\). The pseudo
    view is a linear layer, `pseudo`, on the concatenated latents; F = M * D, zeros where a modality is absent. Combined by
    [`combine`], in float32, they give \\(\alpha\\), and the logits are \\(\log \alpha\\), also in float32: their softmax is
    the mean of the Dirichlet distribution, and their exponential \\(\alpha\\). An absent modality is \\(\alpha = 1\\), which
    changes nothing.

    The evidential loss is not the model's: its own is the cross-entropy of these logits. What it costs beside `concat`: the
    heads, which predict here.
    """

    is_of_classes = True

    def __init__(self, widths: list[int], latent_dim: int, num_labels: int):
        super().__init__(widths, len(widths) * latent_dim, num_labels)
        self.pseudo = nn.Linear(self.width, num_labels)

    def forward(self, latents, logits, mask_BM):
        fused_BF = torch.cat(masked(latents, mask_BM), dim=1)
        alpha_BC = dirichlet(self.pseudo(fused_BF))
        for i, u_BC in enumerate(masked(logits, mask_BM)):
            alpha_BC = combine(alpha_BC, torch.where(mask_BM[:, i, None], dirichlet(u_BC), 1.0))
        return fused_BF, alpha_BC.log()


def dirichlet(logits: torch.Tensor) -> torch.Tensor:
    r"""The parameters \\(\alpha = \text{softplus}(u) + 1\\) of logits `[..., C]`, in float32."""
    return F.softplus(logits.float()) + 1


def combine(alpha1: torch.Tensor, alpha2: torch.Tensor) -> torch.Tensor:
    r"""Two views' Dirichlet parameters `[..., C]` by Dempster's reduced rule, in float32.

    With \\(S = \sum \alpha\\), beliefs \\(b = (\alpha - 1) / S\\), uncertainty \\(u = C / S\\) and conflict
    \\(K = \sum_{i \ne j} b^1_i b^2_j\\), the combined are \\(b = (b^1 b^2 + b^1 u^2 + b^2 u^1) / (1 - K)\\) and
    \\(u = u^1 u^2 / (1 - K)\\), hence \\(S = C / u\\) and \\(\alpha = b S + 1\\). In these 1 - K cancels, as do the sums:
    of evidence \\(e = \alpha - 1\\) there remains \\(e = e^1 + e^2 + e^1 e^2 / C\\), which is what is computed. It is
    commutative and associative, and \\(\alpha = 1\\) (no evidence) is neutral.

    Args:
        alpha1, alpha2 (`torch.Tensor` of shape `(..., C)`): At least 1 everywhere.

    Returns:
        `torch.Tensor`: `(..., C)`.

    Example:

    ```python
    >>> import torch
    >>> from hf_colearn.models.evidential_fusion import combine

    >>> combine(torch.tensor([3.0, 1.0]), torch.tensor([1.0, 2.0]))
    tensor([3., 2.])
    ```
    """
    e1, e2 = alpha1.float() - 1, alpha2.float() - 1
    return e1 + e2 + e1 * e2 / alpha1.shape[-1] + 1
