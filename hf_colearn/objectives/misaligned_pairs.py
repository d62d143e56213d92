"""Null control of the objectives between modalities: pairs that are never of one sample. Shapes: B samples, M modalities."""

from collections.abc import Mapping
from typing import Any

import torch
from transformers.utils import logging

from hf_colearn.objectives.objective import CoLearningBatch, Objective, check_objective


logger = logging.get_logger(__name__)


class MisalignedPairs:
    """Null control: another objective, whose pairs are never of the same sample.

    The second modality's rows are rotated by one within the batch, the third's by two, and so on, latents, logits and
    modality masks alike. What remains of a gain then comes from the loss's shape (spread latents, smoothed heads), not from
    the pairing. Labels stay in the order of the first modality: under `mask_same_class` as many negatives are left out
    as without the control. A batch of fewer samples than modalities cannot be misaligned: its terms are 0, with one
    warning.

    Args:
        objective ([`ContrastiveAlignment`] or [`DistributionAlignment`]): Whose terms are computed.

    Example:

    ```python
    >>> import torch
    >>> from hf_colearn import ContrastiveAlignment, MisalignedPairs
    >>> from hf_colearn.objectives.objective import CoLearningBatch

    >>> latents = {"image": torch.eye(2), "audio": torch.eye(2)}
    >>> MisalignedPairs(ContrastiveAlignment(temperature=1.0))(
    ...     {"modality_latents": latents}, CoLearningBatch()
    ... )  # log(1 + e)
    {'contrastive': tensor(1.3133)}
    ```
    """

    def __init__(self, objective: Objective):
        check_objective(objective, "MisalignedPairs")
        self.objective = objective
        self.terms = objective.terms

    def __call__(self, outputs: Mapping[str, Any], batch: CoLearningBatch) -> dict[str, torch.Tensor]:
        rotated = dict(outputs)
        for key in ("modality_latents", "modality_logits"):
            values = outputs.get(key)
            if values is not None:
                size = min(len(z) for z in values.values())
                if size < len(values):
                    logger.warning_once(
                        f"A batch of {size} samples cannot be rotated so that no two of {len(values)} modalities meet: "
                        "MisalignedPairs gives 0 for it."
                    )
                    nothing = 0 * torch.stack([z.float().sum() for z in values.values()]).sum()
                    return dict.fromkeys(self.terms, nothing)
                rotated[key] = {name: z.roll(by, dims=0) for by, (name, z) in enumerate(values.items())}
        mask_BM = outputs.get("modality_mask")
        if mask_BM is not None:
            columns = [present_B.roll(by) for by, present_B in enumerate(mask_BM.unbind(1))]
            rotated["modality_mask"] = torch.stack(columns, dim=1)
        return self.objective(rotated, batch)

    def __repr__(self) -> str:
        return f"MisalignedPairs({self.objective!r})"
