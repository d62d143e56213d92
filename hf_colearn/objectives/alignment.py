"""Targets of another length brought to the student's positions.

Shapes: B samples, T positions of the student and n_i of them that are no padding, M frames of the targets and m_i of them, D
dimensions.
"""

import torch
import torch.nn.functional as F


LENGTHS = ("exact", "interpolate", "nearest")


def have_frame(targets_BMD: torch.Tensor) -> torch.Tensor:
    """Which positions have a target, `(B, M)` booleans: NaN is none."""
    return ~targets_BMD.isnan().any(dim=-1)


def aligned(targets_BMD: torch.Tensor, mask_BT: torch.Tensor, lengths: str) -> torch.Tensor:
    r"""Targets at the student's positions, `(B, T, D)`; NaN where there is none.

    The n positions of a sample that are no padding, and the m frames of its target, are taken to cover the same span in equal
    steps: the middle of position j of n is at \\(x = (j + 1/2) m / n - 1/2\\) in frames.

    Args:
        targets_BMD (`torch.Tensor` of shape `(B, M, D)`): The frames of a sample come before its padding.
        mask_BT (`torch.Tensor` of shape `(B, T)`): Booleans, which positions of the student are no padding.
        lengths (`str`): `"exact"`: position t has frame t. `"interpolate"`: x between its two neighbours, linearly, and no
            further than the first and the last frame. `"nearest"`: the frame that is nearest to x, the later one of two.
    """
    if lengths == "exact":
        missing = max(mask_BT.shape[1] - targets_BMD.shape[1], 0)
        found_BTD = F.pad(targets_BMD, (0, 0, 0, missing), value=torch.nan)[:, : mask_BT.shape[1]]
        return torch.where(mask_BT[..., None], found_BTD, torch.nan)
    j_BT = mask_BT.cumsum(dim=1) - 1
    n_B1, m_B1 = (mask.sum(dim=1, keepdim=True) for mask in (mask_BT, have_frame(targets_BMD)))
    last_B1 = (m_B1 - 1).clamp(min=0)

    def frames(at_BT: torch.Tensor) -> torch.Tensor:
        at_BT = torch.minimum(at_BT.clamp(min=0), last_B1)
        return targets_BMD.gather(1, at_BT[..., None].expand(-1, -1, targets_BMD.shape[2]))

    if lengths == "nearest":
        found_BTD = frames((2 * j_BT + 1) * m_B1 // (2 * n_B1).clamp(min=1))  # floor(x + 1/2) in whole numbers
    else:
        x_BT = torch.minimum(((j_BT + 0.5) * m_B1 / n_B1.clamp(min=1) - 0.5).clamp(min=0), last_B1)
        share_BT1 = x_BT.frac()[..., None]
        found_BTD = (1 - share_BT1) * frames(x_BT.long()) + share_BT1 * frames(x_BT.long() + 1)
    return torch.where(mask_BT[..., None], found_BTD, torch.nan)


class SameLengths:
    """Refuses, with a sample's lengths, latents and targets that `lengths="exact"` cannot compare.

    On a CPU in every batch, elsewhere in the first one alone, since reading a value would make every step wait for the device.
    """

    def __init__(self) -> None:
        self._seen = False

    def check(self, targets_BMD: torch.Tensor, mask_BT: torch.Tensor) -> None:
        """Of a batch."""
        if self._seen and targets_BMD.device.type != "cpu":
            return
        self._seen = True
        frame_BM = have_frame(targets_BMD)
        width = max(frame_BM.shape[1], mask_BT.shape[1])
        frame_BW, mask_BW = (F.pad(mask, (0, width - mask.shape[1])) for mask in (frame_BM, mask_BT))
        differ_B = (frame_BW ^ mask_BW).any(dim=1) & frame_BM.any(dim=1)
        if differ_B.any():
            first = int(differ_B.int().argmax())
            positions, frames = int(mask_BW[first].sum()), int(frame_BW[first].sum())
            raise ValueError(
                f"lengths='exact', and sample {first} of the batch has {positions} positions in the student and {frames} "
                "frames in its target, which are not the same ones: pass lengths='interpolate' or 'nearest', or give the "
                "teacher the student's positions."
            )
