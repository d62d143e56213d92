"""How well absent modalities are imputed. Shapes: B samples of a batch, D dimensions of a latent."""

from collections.abc import Mapping

import torch

from hf_colearn.evaluation.modality_metrics import ModalityMetrics, sum_and_count
from hf_colearn.models.imputation import imputable


class ImputationError(ModalityMetrics):
    r"""The error of imputed latents, relative to that of their mean: `imputation_error_{modality}`, lower is better.

    \\(\sum_i \| \hat z_i - z_i \|^2 / \sum_i \| z_i - \bar z \|^2\\), over the samples that have the modality and at least one
    other, from which \\(\hat z\\) is imputed; \\(\bar z\\) is the mean of these samples' latents. 0 is perfect, 1 as good as
    the mean; the mean of other samples, such as the training set's, has more than 1. A modality whose latents are all
    alike has no value.

    Example:

    ```python
    trainer = CoLearningTrainer(model, args, train_dataset=train, callbacks=[ModalityCentroids(), ImputationError()])
    ```
    """

    reads = ("modality_latents", "imputed_latents")
    prefix = "imputation_error"

    def sums(self, outputs, labels, model, training):
        latents, imputed = outputs["modality_latents"], outputs["imputed_latents"]
        mask_BM = outputs.get("modality_mask")
        found = {}
        for i, (name, z_BD) in enumerate(latents.items()):
            counts_B = torch.ones_like(z_BD[:, 0], dtype=torch.bool) if mask_BM is None else imputable(mask_BM)[:, i]
            z_BD, error_BD = z_BD.double(), imputed[name].double() - z_BD.double()
            squares_B2 = torch.stack([error_BD.square().sum(1), z_BD.square().sum(1)], dim=1)
            found[name] = sum_and_count(torch.cat([squares_B2, z_BD], dim=1), counts_B)
        return found

    def curves(self, sums: Mapping[str, torch.Tensor]) -> dict[str, float]:
        found = {}
        for name, (error, square, *totals, count) in sums.items():
            around_mean = square - torch.stack(totals).square().sum() / count.clamp(min=1)
            if around_mean > 1e-9 * square:
                found[f"{self.prefix}_{name}"] = (error / around_mean).item()
        return found
