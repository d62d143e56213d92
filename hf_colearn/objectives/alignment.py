"""Targets of another length brought to the student's positions.

Shapes: B samples, T positions of the student and n_i of them that are no padding, T' frames of the targets and m_i of them,
D dimensions.
"""

from typing import Any

import torch
import torch.nn.functional as F

from hf_colearn.data.sample_ids import NO_LABEL
from hf_colearn.objectives.objective import have_target


LENGTHS = ("exact", "interpolate", "nearest")


def have_frame(targets: torch.Tensor) -> torch.Tensor:
    """Which positions have a target, `(B, T')` booleans: of latents `(B, T', D)` a NaN is none, of ids `(B, T')` a -100."""
    return ~targets.isnan().any(dim=-1) if targets.is_floating_point() else targets != NO_LABEL


def aligned(targets: torch.Tensor, mask_BT: torch.Tensor, lengths: str) -> torch.Tensor:
    r"""Targets at the student's positions, `(B, T, D)` or `(B, T)`: NaN, of ids -100, where there is none.

    The n positions of a sample that are no padding, and the m frames of its target, are taken to cover the same span in equal
    steps: the middle of position j of n is at \\(x = (j + 1/2) m / n - 1/2\\) in frames.

    Args:
        targets (`torch.Tensor` of shape `(B, T', D)` or `(B, T')`): Their frames come before their padding.
        mask_BT (`torch.Tensor` of shape `(B, T)`): Booleans, which positions of the student are no padding.
        lengths (`str`): `"exact"`: position j has frame j. `"interpolate"`: x between its two neighbours, linearly, and no
            further than the first and the last frame. `"nearest"`: the frame that is nearest to x (the later of two), which
            is how ids are brought to another length.
    """
    num_frames = targets.shape[1]
    if lengths == "exact":
        none = torch.nan if targets.is_floating_point() else NO_LABEL
        missing = max(mask_BT.shape[1] - num_frames, 0)
        padding = (0, missing) if targets.ndim == 2 else (0, 0, 0, missing)
        return _where(mask_BT, F.pad(targets, padding, value=none)[:, : mask_BT.shape[1]])
    m_B1 = have_frame(targets).sum(dim=1, keepdim=True)
    n_B1 = mask_BT.sum(dim=1, keepdim=True)
    j_BT = mask_BT.cumsum(dim=1) - 1
    if lengths == "nearest":
        nearest_BT = (2 * j_BT + 1) * m_B1 // (2 * n_B1).clamp(min=1)  # floor(x + 1/2) in whole numbers
        return _where(mask_BT, _frames(targets, nearest_BT, m_B1))
    x_BT = (j_BT + 0.5) * m_B1 / n_B1.clamp(min=1) - 0.5
    x_BT = torch.minimum(x_BT.clamp(min=0), (m_B1 - 1).clamp(min=0))
    share_BT1 = x_BT.frac()[..., None].to(targets.dtype)
    before, after = (_frames(targets, x_BT.long() + step, m_B1) for step in (0, 1))
    return _where(mask_BT, (1 - share_BT1) * before + share_BT1 * after)


def _frames(targets: torch.Tensor, at_BT: torch.Tensor, m_B1: torch.Tensor) -> torch.Tensor:
    """The frames at some indices, the first or the last one beyond them."""
    at_BT = torch.minimum(at_BT.clamp(min=0), (m_B1 - 1).clamp(min=0))
    rows_B1 = torch.arange(len(targets), device=targets.device)[:, None]
    return targets[rows_B1, at_BT]


def _where(mask_BT: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    if targets.is_floating_point():
        return torch.where(mask_BT[..., None], targets, torch.nan)
    return torch.where(mask_BT, targets, NO_LABEL)


class SameLengths:
    """Refuses, with the first sample's lengths, latents and targets that `lengths="exact"` cannot compare.

    On a CPU in every batch, elsewhere in the first one alone, since reading a value would make every step wait for the device.
    """

    def __init__(self) -> None:
        self._seen = False

    def __call__(self, targets: torch.Tensor, mask_BT: torch.Tensor, holes: bool, other: str) -> None:
        """`holes` says whether a position of the student may have none; `other` is how to go on."""
        if self._seen and targets.device.type != "cpu":
            return
        self._seen = True
        is_frame = have_frame(targets)
        width = max(is_frame.shape[1], mask_BT.shape[1])
        is_frame, mask_BT = (F.pad(mask, (0, width - mask.shape[1])) for mask in (is_frame, mask_BT))
        wrong = is_frame & ~mask_BT if holes else is_frame ^ mask_BT
        wrong_B = wrong.any(dim=1) & have_target(targets)
        if wrong_B.any():
            first = int(wrong_B.float().argmax())
            positions, frames = int(mask_BT[first].sum()), int(is_frame[first].sum())
            raise ValueError(
                f"lengths='exact', and sample {first} of the batch has {positions} positions in the student and {frames} in its "
                f"target{'' if positions != frames else ', which are not the same ones'}: {other}"
            )


def dense_of(outputs: Any, term: str) -> tuple[torch.Tensor, torch.Tensor]:
    """What a term of dense targets reads: the training head of its name, or else the dense latents, `(B, T, ...)`; and which
    positions are no padding, `(B, T)` booleans."""
    latents = outputs.get("dense_latents")
    if latents is None:
        raise ValueError(f"the model gives no dense_latents, which the term '{term}' reads: {DENSE_STUDENT}")
    mask_BT = outputs.get("dense_mask")
    if mask_BT is None:
        mask_BT = torch.ones(latents.shape[:2], dtype=torch.bool, device=latents.device)
    return (outputs.get("training_outputs") or {}).get(term, latents), mask_BT.bool()


DENSE_STUDENT = "build the student with `dense=True`, as `from_backbone(..., dense=True)`."
