"""One vector a position instead of one an input: the latents of frames, tokens or patches; travels with every checkpoint.

Shapes: B inputs, T positions of the encoder's output, H hidden width; feature maps are [B, H, height, width].
"""

from typing import Any

import torch

from .pooling import token_mask


def positions(
    encoder: Any, outputs: Any, mask_BL: torch.Tensor | None, is_time: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    """The positions of an encoder's output `[B, T, H]`, and which of them are no padding, `[B, T]` booleans.

    A sequence stays as it is, special tokens included. Of a feature map they are its columns, averaged over its rows, where
    the width is time (spectrograms); else its cells, row by row.
    """
    hidden = outputs.last_hidden_state
    if hidden.ndim == 4:
        hidden_BTH = hidden.mean(dim=2).transpose(1, 2) if is_time else hidden.flatten(2).transpose(1, 2)
        return hidden_BTH, torch.ones(hidden_BTH.shape[:2], dtype=torch.bool, device=hidden.device)
    mask_BT = token_mask(encoder, mask_BL, hidden.shape[1])
    if mask_BT is None:
        mask_BT = torch.ones(hidden.shape[:2], dtype=torch.bool, device=hidden.device)
    return hidden, mask_BT.bool()
