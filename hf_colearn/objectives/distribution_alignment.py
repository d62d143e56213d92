"""The modalities' own class distributions are pulled together. Shapes: B samples, C classes."""

from collections.abc import Mapping
from typing import Any

import torch

from hf_colearn.objectives.distances import jensen_shannon
from hf_colearn.objectives.modality_pairs import modality_pairs
from hf_colearn.objectives.objective import CoLearningBatch


class DistributionAlignment:
    """Pulls the class distributions of the modalities' own heads together: the term `distribution`.

    Jensen-Shannon divergence of the softmaxes, in nats, summed over all pairs of modalities; a pair counts the samples
    that have both. This is the form of matching in the released code of Yang et al. (NeurIPS 2024).

    Example:

    ```python
    >>> import torch
    >>> from hf_colearn import DistributionAlignment
    >>> from hf_colearn.objectives.objective import CoLearningBatch

    >>> logits = {"image": torch.tensor([[99.0, 0.0]]), "audio": torch.tensor([[0.0, 99.0]])}
    >>> DistributionAlignment()({"modality_logits": logits}, CoLearningBatch())  # log 2, the most there is
    {'distribution': tensor(0.6931)}
    ```
    """

    terms: tuple[str, ...] = ("distribution",)

    def __call__(self, outputs: Mapping[str, Any], batch: CoLearningBatch) -> dict[str, torch.Tensor]:
        divergences = []
        for a_BC, b_BC, both_B in modality_pairs("DistributionAlignment", outputs, "modality_logits"):
            counts_B = torch.ones_like(a_BC[:, 0], dtype=torch.bool) if both_B is None else both_B
            divergences.append(jensen_shannon(a_BC, b_BC, both_B) * batch.weight(counts_B))
        return {"distribution": torch.stack(divergences).sum()}

    def __repr__(self) -> str:
        return "DistributionAlignment()"
