"""Imputed latents are pulled to true ones. Shapes: B samples, M modalities, D dimensions of a latent."""

from collections.abc import Mapping
from typing import Any

import torch

from hf_colearn.models.heads import LEAST_COUNT
from hf_colearn.models.imputation import imputable
from hf_colearn.models.lora import base_model
from hf_colearn.objectives.objective import IMPUTABLE, CoLearningBatch


class LatentImputation:
    r"""Teaches an imputation what the latents of a modality are, given the other modalities: the term `imputation`.

    \\(\frac{1}{D} \| \hat z_m - z_m \|^2\\), where \\(\hat z_m\\) is imputed from the sample's other modalities alone and
    \\(z_m\\) is what the modality's encoder gives, into which no gradient flows. The mean over all latents of the optimizer
    step that are there together with another modality of their sample; 0 where none is.

    The imputation is the model's: `from_backbones(..., imputation="centroids")`, see
    [`~hf_colearn.models.imputation.CentroidImputation`], whose centroids [`ModalityCentroids`] computes; or
    `imputation="autoencoder"`, [`~hf_colearn.models.autoencoder_imputation.AutoencoderImputation`], a joint masked
    autoencoder, which this is the loss of. The gradient reaches the encoders of the modalities that are imputed from, too:
    without a label loss (alpha 1) freeze the encoders, or all latents become the same.

    Source: the reconstruction of SMIL (Ma et al., AAAI 2021), there a part of meta-learning; of masked autoencoders (He et al.,
    CVPR 2022) the loss on what is hidden alone.

    Example:

    ```python
    >>> import torch
    >>> from hf_colearn import LatentImputation
    >>> from hf_colearn.objectives.objective import CoLearningBatch

    >>> latents = {"image": torch.tensor([[1.0, 1.0], [5.0, 5.0]]), "audio": torch.tensor([[0.0, 2.0], [0.0, 0.0]])}
    >>> imputed = {"image": torch.tensor([[1.0, 3.0], [0.0, 0.0]]), "audio": torch.tensor([[0.0, 2.0], [9.0, 9.0]])}
    >>> mask = torch.tensor([[True, True], [True, False]])  # the second sample has no pair to learn from
    >>> outputs = {"modality_latents": latents, "imputed_latents": imputed, "modality_mask": mask}
    >>> LatentImputation()(outputs, CoLearningBatch())  # ((0 + 4) / 2 + 0) / 2
    {'imputation': tensor(1.)}
    ```
    """

    terms: tuple[str, ...] = ("imputation",)

    def __call__(self, outputs: Mapping[str, Any], batch: CoLearningBatch) -> dict[str, torch.Tensor]:
        imputed = outputs.get("imputed_latents")
        if imputed is None:
            raise ValueError(f"the model's output has no `imputed_latents`: {_WAY_OUT}.")
        errors_BM = torch.stack(
            [squared_errors(imputed[name], z_BD.detach()) for name, z_BD in outputs["modality_latents"].items()], dim=1
        )
        mask_BM = outputs.get("modality_mask")
        counts_BM = imputable(torch.ones_like(errors_BM, dtype=torch.bool) if mask_BM is None else mask_BM)
        count = counts_BM.sum().float()
        mean = torch.where(counts_BM, errors_BM, 0).sum() / count.clamp(min=1)
        of_step = batch.step_counts.get(IMPUTABLE)
        share = batch.weight(counts_BM) if of_step is None else count / of_step.clamp(min=LEAST_COUNT)
        return {"imputation": mean * share}

    def check(self, model: Any, teachers: Mapping[str, Any]) -> None:
        """Refuses a model that imputes nothing."""
        model = base_model(model)
        if model is not None and getattr(model, "imputation", None) is None:
            raise ValueError(
                f"LatentImputation teaches an imputation, and {type(model).__name__} has none: {_WAY_OUT}."
            )

    def __repr__(self) -> str:
        return "LatentImputation()"


_WAY_OUT = "build it with `CoLearningForMultimodalClassification.from_backbones(..., imputation='centroids')`, or 'autoencoder'"


def squared_errors(imputed_BD: torch.Tensor, true_BD: torch.Tensor) -> torch.Tensor:
    """The mean over the dimensions of the squared difference, `[B]`, in float32."""
    return (imputed_BD.float() - true_BD.float()).square().mean(-1)
