"""Imputation by a joint masked autoencoder of the modalities' latents; travels with every multimodal checkpoint.

Shapes: B samples, M modalities, R readings of a sample, D latent width, H width of the joint latent.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from .heads import check_width
from .imputed import Imputed
from .modality_mask import drop_modalities


class AutoencoderImputation(nn.Module):
    r"""The latent of an absent modality, decoded from a joint latent of those that are there: a masked autoencoder.

    With \\(v_m\\) the latent of modality m where it is read, and a learned vector \\(e_m\\) where it is not,

    \\(h = f(v_1, ..., v_M)\\), \\(\hat z_m = W_m h + c_m\\),

    where f, `num_layers` linear layers with GELU, reads the vectors side by side; by \\(e_m\\) it is told what is hidden. Every
    modality is decoded from a reading in which it is hidden itself, so that [`LatentImputation`] never asks for what it was
    given. In training each other modality is hidden, too, with a probability, but for one that always stays: at test any
    subset may be there. Of a joint latent in `joint_latents` nothing that is there is hidden.

    Where encoders learn, latents are targets that move: with the label loss alone to keep them apart they may come close to
    each other, and without any (alpha 1) they would all become the same, which no error tells. Freeze the encoders there,
    `model.encoders.requires_grad_(False)`, as of features that are given. [`ImputationError`] is relative to the variance.

    Source: multimodal deep Boltzmann machines (Srivastava & Salakhutdinov, JMLR 2014) have the task; masked autoencoders (He et
    al., CVPR 2022; of several modalities Bachmann et al., ECCV 2022) the training, there of patches. Here it is deterministic:
    what is decoded is the mean of what may be missing.

    Args:
        num_modalities (`int`): M.
        latent_dim (`int`): D.
        hidden_dim (`int`): H.
        num_layers (`int`): Of f.
        mask_probability (`float`): That in training another modality is hidden, too; below 1.

    Example:

    ```python
    >>> import torch
    >>> from hf_colearn.models.autoencoder_imputation import AutoencoderImputation

    >>> imputation = AutoencoderImputation(3, latent_dim=4, hidden_dim=8, num_layers=1, mask_probability=0.5).eval()
    >>> mask = torch.tensor([[True, True, False], [False, True, False]])
    >>> imputed = imputation([torch.randn(2, 4) for _ in range(3)], mask)
    >>> [mean.shape for mean in imputed.means], imputed.joint.shape
    ([torch.Size([2, 4]), torch.Size([2, 4]), torch.Size([2, 4])], torch.Size([2, 8]))
    ```
    """

    defaults: Mapping[str, Any] = {"hidden_dim": 256, "num_layers": 1, "mask_probability": 0.5}

    def __init__(
        self, num_modalities: int, latent_dim: int, hidden_dim: int, num_layers: int, mask_probability: float
    ):
        super().__init__()
        self.mask_probability = mask_probability
        self.mask_vectors = nn.Parameter(torch.empty(num_modalities, latent_dim))
        widths = [num_modalities * latent_dim, *[hidden_dim] * num_layers]
        pairs = zip(widths[:-1], widths[1:], strict=True)
        self.encoder = nn.Sequential(*(layer for pair in pairs for layer in (nn.Linear(*pair), nn.GELU())))
        self.decoders = nn.ModuleList(nn.Linear(hidden_dim, latent_dim) for _ in range(num_modalities))
        self.reset_parameters()

    @staticmethod
    def check_options(options: Mapping[str, Any]) -> None:
        """An error where an option has no such value."""
        check_width("hidden_dim", options["hidden_dim"], of=" of the imputation")
        check_width("num_layers", options["num_layers"], of=" of the imputation")
        probability = options["mask_probability"]
        if isinstance(probability, bool) or not isinstance(probability, (int, float)) or not 0 <= probability < 1:
            raise ValueError(
                f"mask_probability={probability!r} is no probability of hiding a modality: pass 0 to below 1."
            )

    def reset_parameters(self) -> None:
        """Draws what is no linear layer: the vectors in the place of what is hidden."""
        nn.init.normal_(self.mask_vectors, std=0.02)

    def forward(self, latents: list[torch.Tensor], mask_BM: torch.Tensor) -> Imputed:
        """What every modality's latents are imputed as from the others alone, whether it is there or not.

        Args:
            latents (`list[torch.Tensor]`): M tensors `(B, D)`.
            mask_BM (`torch.BoolTensor` of shape `(B, M)`): What is read of them.

        Returns:
            [`Imputed`]: M means `(B, D)`; where no other modality is there, they mean nothing. In evaluation mode the joint
            latents `(B, H)`, too.
        """
        are_others_MM = ~torch.eye(mask_BM.shape[1], dtype=torch.bool, device=mask_BM.device)
        read_BRM = mask_BM[:, None] & are_others_MM
        if self.training and self.mask_probability:
            read_BRM = drop_modalities(read_BRM.flatten(0, 1), self.mask_probability).view_as(read_BRM)
        if not self.training:
            read_BRM = torch.cat([read_BRM, mask_BM[:, None]], dim=1)
        z_B1MD = torch.stack(latents, dim=1)[:, None]
        v_BRMD = torch.where(read_BRM[..., None], z_B1MD, self.mask_vectors.to(z_B1MD.dtype))
        joint_BRH = self.encoder(v_BRMD.flatten(2))
        means = [decoder(joint_BRH[:, i]).to(z_B1MD.dtype) for i, decoder in enumerate(self.decoders)]
        return Imputed(means, joint=None if self.training else joint_BRH[:, -1])
