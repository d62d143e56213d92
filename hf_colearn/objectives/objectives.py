"""Which auxiliary loss terms a run computes: objectives map (outputs, targets) to named scalars.

An objective names its terms in `terms` (the trainer matches them against alpha's weights), reads the student's outputs
and the targets of the batch, and returns a scalar tensor a term. The task loss is not its business.
Any object with these two members is an objective; there is no base class.

Shapes: B samples of a batch, M modalities, D dimensions of a latent, C classes.
"""

import math
from collections.abc import Iterator, Mapping
from itertools import combinations
from typing import Any, Protocol

import torch
from transformers.utils import logging

from hf_colearn.objectives.distances import (
    LATENT_LOSSES,
    LEAST_SHARE,
    REDUCTIONS,
    have_target,
    jensen_shannon,
    latent_distance,
    share_of,
)
from hf_colearn.objectives.info_nce import info_nce
from hf_colearn.utils.distributed import is_distributed, mean_over_processes, world_size


logger = logging.get_logger(__name__)


class Objective(Protocol):
    """What the trainer asks of an objective (contract 3 of the design)."""

    terms: tuple[str, ...]

    def __call__(self, outputs: Mapping[str, Any], targets: torch.Tensor | None) -> dict[str, torch.Tensor]: ...


class LatentMatching:
    r"""Pulls the student's latents to the teacher's: the term `latent`, \\(\|g(x) - \hat z\|^2\\).

    The mean over the samples that have a target, of all processes; without one in the batch the term is 0. See
    [`PairedFraction`].

    Source: equation 2 of "Can One Modality Model Synergize Training of Other Modality Models?" (ICLR 2025).

    Args:
        loss (`str`, *optional*, defaults to `"mse"`): `"mse"`, `"cosine"` or `"smooth_l1"`.
        reduction (`str`, *optional*, defaults to `"mean"`): `"mean"` over the latent's dimensions (the released code)
            or `"sum"` (the paper's squared norm, D times as large).

    Raises:
        ValueError: If `loss` or `reduction` is not one of the above.

    Example:

    ```python
    >>> import torch
    >>> from hf_colearn import LatentMatching

    >>> LatentMatching(reduction="sum")({"latents": torch.zeros(2, 3)}, torch.ones(2, 3))
    {'latent': tensor(3.)}
    ```
    """

    terms: tuple[str, ...] = ("latent",)

    def __init__(self, loss: str = "mse", reduction: str = "mean"):
        if loss not in LATENT_LOSSES:
            raise ValueError(f"loss='{loss}' is unknown to LatentMatching: choose one of {', '.join(LATENT_LOSSES)}.")
        if reduction not in REDUCTIONS:
            raise ValueError(f"reduction='{reduction}' is unknown to LatentMatching: choose 'mean' or 'sum'.")
        self.loss, self.reduction = loss, reduction

    def __call__(self, outputs: Mapping[str, Any], targets: Any) -> dict[str, torch.Tensor]:
        distance = latent_distance(outputs["latents"], targets, self.loss, self.reduction)
        if is_distributed():
            # The processes may have unequal shares of targets; so weighted, their mean is that of all samples with one.
            share = share_of(have_target(targets))
            distance = distance * share / mean_over_processes(share).clamp(min=LEAST_SHARE)
        return {"latent": distance}

    def __repr__(self) -> str:
        return f"LatentMatching(loss='{self.loss}', reduction='{self.reduction}')"


def _pairs(
    objective: str, outputs: Mapping[str, Any], key: str
) -> Iterator[tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]]:
    """Every pair of modalities: both tensors, and which samples have both, `(B,)` booleans or None where all do.

    Raises:
        ValueError: If there are no two modalities, or if they or the mask do not fit together.
    """
    values: dict[str, torch.Tensor] | None = outputs.get(key)
    if values is None or len(values) < 2:
        found = "nothing" if not values else f"only '{next(iter(values))}'"
        raise ValueError(
            f"{objective} compares modalities, but the model's output `{key}` holds {found}: train a model of at least "
            "two modalities, such as CoLearningForMultimodalClassification."
        )
    shapes = {name: tuple(z.shape) for name, z in values.items()}
    first = next(iter(shapes))
    for name, shape in shapes.items():
        if shape[0] != shapes[first][0]:
            raise ValueError(
                f"the batch has {shapes[first][0]} samples of '{first}' but {shape[0]} of '{name}': row i of every "
                "modality must be the same sample. Mark samples that lack a modality in `modality_mask`."
            )
        if shape != shapes[first]:
            raise ValueError(
                f"`{key}` of '{first}' are {shapes[first][-1]} wide and those of '{name}' {shape[-1]}: {objective} "
                "needs modalities of one width."
            )
    mask_BM: torch.Tensor | None = outputs.get("modality_mask")
    if mask_BM is not None and mask_BM.shape != (shapes[first][0], len(shapes)):
        raise ValueError(
            f"the model's output `modality_mask` has the shape {tuple(mask_BM.shape)}, but there are {shapes[first][0]} "
            f"samples of {len(shapes)} modalities: {', '.join(shapes)}."
        )
    for (i, a), (j, b) in combinations(enumerate(values.values()), 2):
        yield a, b, None if mask_BM is None else mask_BM[:, i] & mask_BM[:, j]


class ContrastiveAlignment:
    r"""Pulls the latents of one sample together and those of different samples apart: the term `contrastive`.

    Symmetric InfoNCE, summed over all pairs of modalities; a pair counts the samples that have both. Over several
    processes all samples of all processes are negatives; gradient accumulation adds none. See
    [`~hf_colearn.objectives.info_nce.info_nce`].

    Source: the matching loss of "Facilitating Multimodal Classification via Dynamically Learning Modality Gap"
    (NeurIPS 2024), which its released code replaces by a divergence, [`DistributionAlignment`].

    Args:
        temperature (`float` or `"learned"`, *optional*, defaults to 0.07): What the cosines are divided by, or the
            model's own `logit_scale` (one over the temperature).
        mask_same_class (`bool`, *optional*, defaults to `False`): Whether samples of the same class are no negatives of
            each other.
        direct (`bool`, *optional*, defaults to `False`): Whether to keep all logits of a batch, which takes memory
            quadratic in the batch and allows exact Hessian products (double backward).

    Raises:
        ValueError: If `temperature` is not above 0; when called, if the outputs lack what is needed or do not fit.

    Example:

    ```python
    >>> import torch
    >>> from hf_colearn.objectives.objectives import ContrastiveAlignment

    >>> latents = {"image": torch.eye(2), "audio": torch.eye(2)}
    >>> ContrastiveAlignment(temperature=1.0)({"modality_latents": latents}, None)
    {'contrastive': tensor(0.3133)}
    ```
    """

    terms: tuple[str, ...] = ("contrastive",)

    def __init__(self, temperature: float | str = 0.07, mask_same_class: bool = False, direct: bool = False):
        if temperature != "learned" and (isinstance(temperature, str) or not 0 < temperature < math.inf):
            raise ValueError(
                f"temperature={temperature!r} cannot divide cosines: pass a finite number above 0, such as 0.07, or "
                "'learned'."
            )
        self.temperature, self.mask_same_class, self.direct = temperature, mask_same_class, direct

    def __call__(self, outputs: Mapping[str, Any], targets: Any) -> dict[str, torch.Tensor]:
        scale, labels_B = self._scale(outputs), self._labels(outputs)
        losses = []
        for x_BD, y_BD, both_B in _pairs("ContrastiveAlignment", outputs, "modality_latents"):
            if len(x_BD) * world_size() == 1:
                logger.warning_once(
                    "ContrastiveAlignment got a batch of one sample, which has no negatives: its loss is 0 whatever the "
                    "latents. Use a larger per_device_train_batch_size; gradient accumulation adds no negatives."
                )
            losses.append(info_nce(x_BD, y_BD, scale, both_B, labels_B, direct=self.direct))
        return {"contrastive": torch.stack(losses).sum()}

    def _scale(self, outputs: Mapping[str, Any]) -> float | torch.Tensor:
        if not isinstance(self.temperature, str):
            return 1 / self.temperature
        scale = outputs.get("logit_scale")
        if scale is None:
            raise ValueError(
                "temperature='learned' needs the model's output `logit_scale`, which is not there: build the model with "
                "`learned_temperature=True`, or give ContrastiveAlignment a number."
            )
        return scale

    def _labels(self, outputs: Mapping[str, Any]) -> torch.Tensor | None:
        if not self.mask_same_class:
            return None
        labels = outputs.get("labels")
        if labels is None:
            raise ValueError(
                "mask_same_class=True needs the `labels` of the batch in the model's outputs, which are not there: "
                "give the data set a column `labels`, or leave mask_same_class out."
            )
        return labels

    def __repr__(self) -> str:
        options = f"mask_same_class={self.mask_same_class}, direct={self.direct}"
        return f"ContrastiveAlignment(temperature={self.temperature!r}, {options})"


class DistributionAlignment:
    """Pulls the class distributions of the modalities' own heads together: the term `distribution`.

    Jensen-Shannon divergence of the softmaxes, in nats, summed over all pairs of modalities; a pair counts the samples
    that have both. This is the form of matching in the released code of Yang et al. (NeurIPS 2024).

    Example:

    ```python
    >>> import torch
    >>> from hf_colearn.objectives.objectives import DistributionAlignment

    >>> logits = {"image": torch.tensor([[99.0, 0.0]]), "audio": torch.tensor([[0.0, 99.0]])}
    >>> DistributionAlignment()({"modality_logits": logits}, None)  # log 2, the most there is
    {'distribution': tensor(0.6931)}
    ```
    """

    terms: tuple[str, ...] = ("distribution",)

    def __call__(self, outputs: Mapping[str, Any], targets: Any) -> dict[str, torch.Tensor]:
        divergences = []
        for a_BC, b_BC, both_B in _pairs("DistributionAlignment", outputs, "modality_logits"):
            # The processes may have unequal numbers of samples that count; weighted so, their mean is that of all samples.
            count = a_BC.new_tensor(len(a_BC), dtype=torch.float32) if both_B is None else both_B.sum().float()
            weight = count / mean_over_processes(count).clamp(min=1 / world_size())
            divergences.append(jensen_shannon(a_BC, b_BC, both_B) * weight)
        return {"distribution": torch.stack(divergences).sum()}

    def __repr__(self) -> str:
        return "DistributionAlignment()"


class MisalignedPairs:
    """Null control: another objective, whose pairs are never of the same sample.

    The second modality's rows are rotated by one within the batch, the third's by two, and so on, latents, logits and
    presence alike. What remains of a gain then comes from the loss's shape (spread latents, smoothed heads), not from
    the pairing. Labels stay in the order of the first modality: under `mask_same_class` as many negatives are left out
    as without the control, but by the classes that the rows had before they were rotated.

    Args:
        objective ([`ContrastiveAlignment`] or [`DistributionAlignment`]): Whose terms are computed.

    A batch of fewer samples than modalities, such as the last one of an epoch, cannot be misaligned: its terms are 0, and
    a warning says so once.

    Example:

    ```python
    >>> import torch
    >>> from hf_colearn.objectives.objectives import ContrastiveAlignment, MisalignedPairs

    >>> latents = {"image": torch.eye(2), "audio": torch.eye(2)}
    >>> MisalignedPairs(ContrastiveAlignment(temperature=1.0))({"modality_latents": latents}, None)  # log(1 + e)
    {'contrastive': tensor(1.3133)}
    ```
    """

    def __init__(self, objective: Objective):
        self.objective = objective
        self.terms = objective.terms

    def __call__(self, outputs: Mapping[str, Any], targets: Any) -> dict[str, torch.Tensor]:
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
        return self.objective(rotated, targets)

    def __repr__(self) -> str:
        return f"MisalignedPairs({self.objective!r})"


class Combined:
    """Several objectives at once, with the terms of all: each term has an alpha of its own.

    Args:
        objectives (`Objective`): Two or more, of different terms.

    Raises:
        ValueError: If a term is computed by two of them.

    Example:

    ```python
    trainer = CoLearningTrainer(
        model=multimodal, args=args, train_dataset=train, alpha=LearnedAlpha(("contrastive", "distribution")),
        objective=Combined(ContrastiveAlignment(), DistributionAlignment()),
    )
    ```
    """

    def __init__(self, *objectives: Objective):
        self.objectives = objectives
        self.terms = tuple(term for objective in objectives for term in objective.terms)
        if doubled := sorted({term for term in self.terms if self.terms.count(term) > 1}):
            raise ValueError(f"the term '{doubled[0]}' is computed by two objectives: leave one of them out.")

    def __call__(self, outputs: Mapping[str, Any], targets: Any) -> dict[str, torch.Tensor]:
        return {term: loss for each in self.objectives for term, loss in each(outputs, targets).items()}

    def __repr__(self) -> str:
        return f"Combined({', '.join(map(repr, self.objectives))})"
