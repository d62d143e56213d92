"""Which auxiliary loss terms a run computes: objectives map (outputs, targets) to named scalars.

An objective names its terms in `terms` (the trainer matches them against alpha's weights), reads the student's outputs
and the targets of the batch, and returns a scalar tensor a term. The task loss is not its business.
Any object with these two members is an objective; there is no base class.
"""

from collections.abc import Mapping
from typing import Protocol

import torch

from hf_colearn.losses import LATENT_LOSSES, REDUCTIONS, latent_distance


class Objective(Protocol):
    """What the trainer asks of an objective (contract 3 of the design)."""

    terms: tuple[str, ...]

    def __call__(self, outputs: Mapping[str, torch.Tensor], targets: torch.Tensor) -> dict[str, torch.Tensor]: ...


class LatentMatching:
    r"""Pulls the student's latents to the teacher's: the term `latent`, \\(\|g(x) - \hat z\|^2\\).

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

    def __call__(self, outputs: Mapping[str, torch.Tensor], targets: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"latent": latent_distance(outputs["latents"], targets, self.loss, self.reduction)}

    def __repr__(self) -> str:
        return f"LatentMatching(loss='{self.loss}', reduction='{self.reduction}')"
