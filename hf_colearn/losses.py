"""Losses between latents, as pure functions of tensors.

Shapes: B samples of a batch, D dimensions of a latent.
"""

import torch
import torch.nn.functional as F


def latent_distance(
    z_BD: torch.Tensor, t_BD: torch.Tensor, loss: str = "mse", reduction: str = "mean"
) -> torch.Tensor:
    r"""How far the student's latents are from their targets, averaged over the batch.

    Equation 2 of Lee & Yoon (ICLR 2025) writes the squared norm, \\(\|g(x) - \hat z\|^2\\), which is
    `reduction="sum"`; their released code averages over the dimensions (`F.mse_loss`), which is `reduction="mean"`.
    The two differ by the factor D. Computed in float32, whatever the autocast dtype.

    Args:
        z_BD (`torch.Tensor` of shape `(B, D)`): The student's latents.
        t_BD (`torch.Tensor` of shape `(B, D)`): The targets; no gradient flows into them.
        loss (`str`, *optional*, defaults to `"mse"`): One of `"mse"`, `"cosine"` (one minus the cosine similarity),
            `"smooth_l1"` (Huber's with beta 1).
        reduction (`str`, *optional*, defaults to `"mean"`): `"mean"` or `"sum"` over the D dimensions. The cosine
            has no dimensions left to reduce and ignores it.

    Returns:
        `torch.Tensor`: A scalar, the mean over the batch.

    Raises:
        ValueError: If the shapes differ; nothing is broadcast.
    """
    if z_BD.shape != t_BD.shape:
        raise ValueError(f"latents of shape {tuple(z_BD.shape)} have no distance to targets of {tuple(t_BD.shape)}.")
    z_BD, t_BD = z_BD.float(), t_BD.detach().float()
    if loss == "cosine":
        return (1 - F.cosine_similarity(z_BD, t_BD, dim=-1)).mean()
    distances_BD = _ELEMENTWISE[loss](z_BD, t_BD, reduction="none")
    return distances_BD.mean() if reduction == "mean" else distances_BD.sum(dim=-1).mean()


_ELEMENTWISE = {"mse": F.mse_loss, "smooth_l1": F.smooth_l1_loss}
LATENT_LOSSES = (*_ELEMENTWISE, "cosine")
REDUCTIONS = ("mean", "sum")
