"""Losses between latents, and between predictions, as pure functions of tensors.

Shapes: B samples of a batch, D dimensions of a latent, C classes.
"""

import math

import torch
import torch.nn.functional as F

from hf_colearn.objectives.objective import have_target


def latent_distance(
    z_BD: torch.Tensor, t_BD: torch.Tensor, loss: str = "mse", reduction: str = "mean"
) -> torch.Tensor:
    r"""How far the student's latents are from their targets, averaged over the samples of the batch that have one.

    Equation 2 of Lee & Yoon (ICLR 2025) is the squared norm, \\(\|g(x) - \hat z\|^2\\), `reduction="sum"`; their released
    code averages over the D dimensions, `reduction="mean"`. Computed in float32, whatever the autocast dtype. In the squared
    units of the targets (`"smooth_l1"`: in their units beyond a distance of 1); the cosine, from 0 to 2, has none.

    Args:
        z_BD, t_BD (`torch.Tensor` of shape `(B, D)`): The student's latents and their targets, into which no gradient
            flows. A row of NaN is no target; where none has one, the distance is 0 without a slope.
        loss (`str`, *optional*, defaults to `"mse"`): One of `"mse"`, `"cosine"` (one minus the cosine similarity),
            `"smooth_l1"` (Huber's with beta 1).
        reduction (`str`, *optional*, defaults to `"mean"`): `"mean"` or `"sum"` over the D dimensions, of which the cosine
            has none left.
    """
    if z_BD.shape != t_BD.shape:
        raise ValueError(f"latents of shape {tuple(z_BD.shape)} have no distance to targets of {tuple(t_BD.shape)}.")
    z_BD, t_BD = z_BD.float(), t_BD.detach().float()
    has_B = have_target(t_BD)
    z_BD, t_BD = (torch.where(has_B[:, None], x_BD, 0) for x_BD in (z_BD, t_BD))  # no target: no distance, no slope
    if loss == "cosine":
        distance = torch.where(has_B, 1 - F.cosine_similarity(z_BD, t_BD, dim=-1), 0).mean()
    else:
        distances_BD = _ELEMENTWISE[loss](z_BD, t_BD, reduction="none")
        distance = distances_BD.mean() if reduction == "mean" else distances_BD.sum(dim=-1).mean()
    return distance / share_of(has_B).clamp(min=LEAST_SHARE)  # the mean over all becomes that over those that count


def share_of(has_B: torch.Tensor) -> torch.Tensor:
    """The share of True among booleans, a float32 scalar: exactly 1 where all are."""
    # One tensor over another is rounded once; a mean, or a tensor over a number, may be a product with its inverse.
    return has_B.sum() / torch.ones_like(has_B).sum()


LEAST_SHARE = 1e-9  # less than one sample of any batch, and large enough to divide a scaled gradient by
_ELEMENTWISE = {"mse": F.mse_loss, "smooth_l1": F.smooth_l1_loss}
LATENT_LOSSES = (*_ELEMENTWISE, "cosine")
REDUCTIONS = ("mean", "sum")


def jensen_shannon(a_BC: torch.Tensor, b_BC: torch.Tensor, mask_B: torch.Tensor | None = None) -> torch.Tensor:
    r"""The Jensen-Shannon divergence between the class distributions of two sets of logits, averaged over the batch.

    \\(\frac{1}{2} KL(p \| m) + \frac{1}{2} KL(q \| m)\\) with \\(p, q\\) the softmaxes and \\(m\\) their mean (Lin, 1991). In
    nats, from 0 to log 2. Computed in float32 (float64 for float64 logits), whatever the autocast dtype.

    Args:
        a_BC, b_BC (`torch.Tensor` of shape `(B, C)`): Logits; a gradient flows into both.
        mask_B (`torch.Tensor` of shape `(B,)`, *optional*): Booleans; rows with False do not count, whatever they hold.
            Where no row counts, the divergence and its gradient are 0.
    """
    if a_BC.ndim != 2 or a_BC.shape != b_BC.shape:
        raise ValueError(
            f"logits of shape {tuple(a_BC.shape)} have no divergence from those of {tuple(b_BC.shape)}: give (B, C) both."
        )
    check_entries("mask_B", mask_B, a_BC)
    a_BC, b_BC = what_counts(a_BC, b_BC, mask_B)
    count = len(a_BC) if mask_B is None else mask_B.sum().clamp(min=1)
    p_BC, q_BC = F.log_softmax(a_BC, dim=-1), F.log_softmax(b_BC, dim=-1)
    m_BC = torch.logaddexp(p_BC, q_BC) - math.log(2)
    from_p, from_q = (F.kl_div(m_BC, log_BC, reduction="sum", log_target=True) for log_BC in (p_BC, q_BC))
    return (from_p + from_q) / (2 * count)


def check_entries(name: str, values_B: torch.Tensor | None, rows_BD: torch.Tensor) -> None:
    """Refuses a mask, or labels, that have not one entry a row."""
    if values_B is not None and values_B.shape != rows_BD.shape[:1]:
        raise ValueError(
            f"{name} of shape {tuple(values_B.shape)} does not fit {len(rows_BD)} rows: give one entry each."
        )


def what_counts(
    x_BD: torch.Tensor, y_BD: torch.Tensor, mask_B: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Both in float32 or float64, and 0 in the rows that do not count, whatever these hold."""
    dtype = torch.promote_types(torch.promote_types(x_BD.dtype, y_BD.dtype), torch.float32)
    x_BD, y_BD = x_BD.to(dtype), y_BD.to(dtype)
    if mask_B is None:
        return x_BD, y_BD
    return x_BD.masked_fill(~mask_B[:, None], 0), y_BD.masked_fill(~mask_B[:, None], 0)
