"""Latents of one sample are pulled together, those of different samples apart. Shapes: B samples, D dimensions."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from transformers.utils import logging

from hf_colearn.objectives.info_nce import info_nce
from hf_colearn.objectives.modality_pairs import check_known, checked_pairs, modalities_of, modality_pairs
from hf_colearn.objectives.objective import CoLearningBatch
from hf_colearn.utils.checks import is_number
from hf_colearn.utils.distributed import world_size


logger = logging.get_logger(__name__)


class ContrastiveAlignment:
    r"""Pulls the latents of one sample together and those of different samples apart: the term `contrastive`.

    Symmetric InfoNCE, summed over all pairs of modalities, or over those that are named; a pair counts the samples that have
    both. The samples of all processes are negatives; gradient accumulation adds none. See
    [`~hf_colearn.objectives.info_nce.info_nce`].

    Modalities that have no pair of their own may meet in a third one that both are paired with: with
    `pairs=[("image", "text"), ("image", "speech")]`, and samples of an image and either of the others, sentences and speech
    come together without a sample that has both.

    Source: the matching loss of "Facilitating Multimodal Classification via Dynamically Learning Modality Gap"
    (NeurIPS 2024), which its released code replaces by a divergence, [`DistributionAlignment`]. Of pairs through one modality,
    "ImageBind: One Embedding Space To Bind Them All" (Girdhar et al., CVPR 2023).

    Args:
        temperature (`float` or `"learned"`, *optional*, defaults to 0.07): What the cosines are divided by, above 0; or
            the model's own `logit_scale` (one over the temperature).
        mask_same_class (`bool`, *optional*, defaults to `False`): Whether samples of the same class are no negatives of
            each other. A sample without a label is of nobody's class.
        direct (`bool`, *optional*, defaults to `False`): Whether to keep all logits of a batch, which takes memory
            quadratic in the batch and allows exact Hessian products (double backward).
        pairs (`Sequence[tuple[str, str]]`, *optional*): The pairs of modalities that have a loss; by default all.

    Raises:
        ValueError: If a pair is there twice or of one modality, or, when the trainer is built, of one that the model lacks.

    Example:

    ```python
    >>> import torch
    >>> from hf_colearn import ContrastiveAlignment
    >>> from hf_colearn.objectives.objective import CoLearningBatch

    >>> latents = {"image": torch.eye(2), "audio": torch.eye(2)}
    >>> ContrastiveAlignment(temperature=1.0)({"modality_latents": latents}, CoLearningBatch())
    {'contrastive': tensor(0.3133)}
    ```
    """

    terms: tuple[str, ...] = ("contrastive",)

    def __init__(
        self,
        temperature: float | str = 0.07,
        mask_same_class: bool = False,
        direct: bool = False,
        pairs: Sequence[tuple[str, str]] | None = None,
    ):
        is_learned = isinstance(temperature, str) and temperature == "learned"
        if not is_learned and not (is_number(temperature) and 0 < float(temperature) < math.inf):
            raise ValueError(
                f"temperature={temperature!r} cannot divide cosines: pass a finite number above 0, such as 0.07, or "
                "'learned'."
            )
        self.temperature, self.mask_same_class, self.direct = temperature, mask_same_class, direct
        self.pairs = checked_pairs("ContrastiveAlignment", pairs)

    def __call__(self, outputs: Mapping[str, Any], batch: CoLearningBatch) -> dict[str, torch.Tensor]:
        scale = outputs.get("logit_scale") if isinstance(self.temperature, str) else 1 / self.temperature
        if scale is None:
            raise ValueError(
                "temperature='learned' needs the model's output `logit_scale`, which is not there: build the model with "
                "`learned_temperature=True`, or give ContrastiveAlignment a number."
            )
        labels_B = batch.labels if self.mask_same_class else None
        if self.mask_same_class and labels_B is None:
            raise ValueError(
                "mask_same_class=True needs the `labels` of the batch, and it has none: give the data set a column "
                "`labels`, or leave mask_same_class out."
            )
        losses = []
        for x_BD, y_BD, both_B in modality_pairs("ContrastiveAlignment", outputs, "modality_latents", self.pairs):
            if len(x_BD) * world_size() == 1:
                logger.warning_once(
                    "ContrastiveAlignment got a batch of one sample, which has no negatives: its loss is 0 whatever the "
                    "latents. Use a larger per_device_train_batch_size; gradient accumulation adds no negatives."
                )
            losses.append(info_nce(x_BD, y_BD, scale, both_B, labels_B, direct=self.direct))
        return {"contrastive": torch.stack(losses).sum()}

    def check(self, model: Any, teachers: Mapping[str, Any]) -> None:
        """Refuses pairs of modalities that the model does not have."""
        check_known("ContrastiveAlignment", self.pairs, modalities_of(model))

    def __repr__(self) -> str:
        options = f"mask_same_class={self.mask_same_class}, direct={self.direct}"
        options += "" if self.pairs is None else f", pairs={list(self.pairs)}"
        return f"ContrastiveAlignment(temperature={self.temperature!r}, {options})"
