"""Imputation of the latents of absent modalities, before the fusion: that by centroids, and what all imputations share.

This file travels with every multimodal checkpoint.

Shapes: B samples, M modalities, D latent width, K centroids, S = (M - 1) * D width of what the others are read as.
"""

import math
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from .autoencoder_imputation import AutoencoderImputation
from .fusion import HEAD_FUSIONS
from .fusion_base import masked
from .heads import check_choice, check_width
from .imputed import Imputed


_FIRST_SCALE = 0.1  # of the noise, before anything is learned


class CentroidImputation(nn.Module):
    r"""The latent of an absent modality as a weighted mean of centroids (SMIL, Ma et al., AAAI 2021).

    With \\(s\\) the latents of the other modalities side by side, zeros where one is absent, divided by how many are there,
    and \\(c_1, ..., c_K\\) the centroids of the modality's latents (k-means of the complete training samples):

    \\(\hat z = \sum_k w_k c_k\\), \\(w = \text{softmax}(A s + b)\\).

    In training what the fusion sees is modulated, \\(\hat z \, (1 + \sigma \epsilon)\\) with
    \\(\epsilon \sim N(0, I)\\) and a learned \\(\sigma = \text{softplus}(V s + v)\\), 0.1 at first; at test it is its mean,
    \\(\hat z\\). One centroid is the mean of the complete samples.

    What is simpler here than as published: the layers learn by the gradients of the step (the task's, and that of
    [`LatentImputation`]), and not by meta-learning on complete samples; noise is put on imputed latents alone.

    The centroids are a buffer, `(M, K, D)`, zeros until they are computed. They are a checkpoint's part and the
    export's; [`ModalityCentroids`] computes them.

    Args:
        num_modalities (`int`): M.
        latent_dim (`int`): D.
        num_centroids (`int`): K.
        modulation (`bool`): Whether there is noise in training.

    Example:

    ```python
    >>> import torch
    >>> from hf_colearn.models.imputation import weighted_centroids

    >>> centroids = torch.tensor([[0.0, 0.0], [2.0, 2.0]])
    >>> weighted_centroids(torch.tensor([[1.0, 3.0]]).log(), centroids)  # weights .25 and .75
    tensor([[1.5000, 1.5000]])
    ```
    """

    defaults: Mapping[str, Any] = {"num_centroids": 8, "modulation": True}
    centroids: torch.Tensor
    scales: Any

    def __init__(self, num_modalities: int, latent_dim: int, num_centroids: int, modulation: bool):
        super().__init__()
        width = (num_modalities - 1) * latent_dim
        self.weights = nn.ModuleList(nn.Linear(width, num_centroids) for _ in range(num_modalities))
        self.scales = nn.ModuleList(nn.Linear(width, latent_dim) for _ in range(num_modalities if modulation else 0))
        self.register_buffer("centroids", torch.zeros(num_modalities, num_centroids, latent_dim))
        self._is_known = False  # whether centroids were seen to be there, which waits for the device once
        self.reset_parameters()

    @staticmethod
    def check_options(options: Mapping[str, Any]) -> None:
        """An error where an option has no such value."""
        check_width("num_centroids", options["num_centroids"], of=" of the imputation")
        if not isinstance(options["modulation"], bool):
            raise TypeError(
                f"modulation={options['modulation']!r} is a {type(options['modulation']).__name__}: pass a bool."
            )

    def reset_parameters(self) -> None:
        """Sets what is no plain linear layer: the centroids, and the scale of the noise."""
        nn.init.zeros_(self.centroids)
        for layer in self.scales:
            nn.init.zeros_(layer.weight)
            nn.init.constant_(layer.bias, math.log(math.expm1(_FIRST_SCALE)))

    def forward(self, latents: list[torch.Tensor], mask_BM: torch.Tensor) -> Imputed:
        """What every modality's latents are imputed as from the others alone, whether it is there or not.

        Args:
            latents (`list[torch.Tensor]`): M tensors `(B, D)`.
            mask_BM (`torch.BoolTensor` of shape `(B, M)`): What is read of them.

        Returns:
            [`Imputed`]: M means `(B, D)`, and in training with modulation the scales of their noise `(B, D)`. Where no other
            modality is there, they mean nothing.

        Raises:
            ValueError: In training, if the centroids were never computed.
        """
        self._need_centroids()
        here = masked(latents, mask_BM)
        means: list[torch.Tensor] = []
        scales: list[torch.Tensor] = []
        for i, layer in enumerate(self.weights):
            others_BM = torch.cat([mask_BM[:, :i], mask_BM[:, i + 1 :]], dim=1)
            source_BS = torch.cat([*here[:i], *here[i + 1 :]], dim=1) / others_BM.sum(1, keepdim=True).clamp(min=1)
            source_BS = source_BS.to(here[i].dtype)
            means.append(weighted_centroids(layer(source_BS), self.centroids[i]).to(here[i].dtype))
            if self.training and len(self.scales):
                scales.append(F.softplus(self.scales[i](source_BS)))
        return Imputed(means, scales or None)

    def _need_centroids(self) -> None:
        if not self.training or self._is_known:
            return
        self._is_known = bool(self.centroids.any())
        if not self._is_known:
            raise ValueError(
                "imputation='centroids' has no centroids yet, so absent modalities would be trained as zeros: pass "
                "`ModalityCentroids()` among the trainer's callbacks, which computes them."
            )


def weighted_centroids(logits_BK: torch.Tensor, centroids_KD: torch.Tensor) -> torch.Tensor:
    """The means of the centroids by the softmax of the logits, `[B, D]`."""
    return logits_BK.softmax(-1) @ centroids_KD.to(logits_BK.dtype)


def modulated(mean_BD: torch.Tensor, scale_BD: torch.Tensor) -> torch.Tensor:
    """The means times 1 plus Gaussian noise of these standard deviations."""
    return mean_BD * (1 + scale_BD.to(mean_BD.dtype) * torch.randn_like(mean_BD))


def imputable(mask_BM: torch.Tensor) -> torch.Tensor:
    """Which latents are there together with at least one other of the sample, booleans `[B, M]`."""
    return mask_BM & (mask_BM.sum(1, keepdim=True) > 1)


def filled(
    model: Any, imputed: Imputed, latents: list[torch.Tensor], logits: list[torch.Tensor], seen_BM: torch.Tensor
) -> tuple[list[torch.Tensor], list[torch.Tensor], torch.Tensor]:
    """The latents and logits that a fusion sees, with imputed ones where a modality is not seen, and what of them counts.

    A sample of which nothing is seen stays so. Imputed logits are those of the modality's head; a fusion that reads none
    gets none.

    Args:
        model ([`CoLearningForMultimodalClassification`]): With an imputation.
        imputed ([`Imputed`]): What it makes of what is seen.
        latents, logits (`list[torch.Tensor]`): Of every modality, `(B, D)` and `(B, C)`.
        seen_BM (`torch.BoolTensor` of shape `(B, M)`): What the prediction may use.
    """
    means = imputed.means
    if imputed.scales is not None:
        means = [modulated(mean_BD, scale_BD) for mean_BD, scale_BD in zip(means, imputed.scales, strict=True)]
    is_seen = [seen_B1.bool() for seen_B1 in seen_BM.split(1, dim=1)]
    if model.config.fusion in HEAD_FUSIONS:
        of_imputed = [encoder.classifier(z_BD) for encoder, z_BD in zip(model.encoders.values(), means, strict=True)]
        logits = [torch.where(*each) for each in zip(is_seen, logits, of_imputed, strict=True)]
    latents = [torch.where(*each) for each in zip(is_seen, latents, means, strict=True)]
    return latents, logits, seen_BM.any(1, keepdim=True).expand_as(seen_BM)


Imputation = CentroidImputation | AutoencoderImputation
IMPUTATIONS: Mapping[str, Any] = {"centroids": CentroidImputation, "autoencoder": AutoencoderImputation}


def make_imputation(config: Any) -> nn.Module | None:
    """That of a multimodal model's configuration, where it has one."""
    if config.imputation is None:
        return None
    return IMPUTATIONS[config.imputation](len(config.modalities), config.latent_dim, **config.imputation_options)


def check_imputation(imputation: Any, options: Any) -> dict[str, Any]:
    """Every option of an imputation; none where there is no imputation. An error that names those that it has."""
    if imputation is not None:
        check_choice("imputation", imputation, IMPUTATIONS)
    if options is not None and not isinstance(options, Mapping):
        raise TypeError(
            f"imputation_options={options!r} is a {type(options).__name__}: pass a dict, such as {{'num_centroids': 8}}."
        )
    if imputation is None:
        if options:
            raise ValueError(
                f"imputation_options={dict(options)} without an imputation: pass imputation='centroids' or 'autoencoder', too."
            )
        return {}
    defaults = IMPUTATIONS[imputation].defaults
    if unknown := [name for name in options or {} if name not in defaults]:
        raise ValueError(
            f"imputation_options names {unknown}: the options of '{imputation}' are {', '.join(defaults)}."
        )
    checked = {**defaults, **(options or {})}
    IMPUTATIONS[imputation].check_options(checked)
    return checked


def check_some_present(mask_BM: torch.Tensor) -> None:
    """A ValueError where a sample has no modality to impute the others from; waits for the device."""
    if (nothing_B := ~mask_BM.any(1)).any():
        raise ValueError(
            f"modality_mask leaves sample {int(nothing_B.int().argmax())} of {len(mask_BM)} without any modality, and the "
            "absent ones are imputed from those that are there: leave such samples out."
        )
