"""One vector an input from an encoder's output; the same for students and teachers.

Shapes: B inputs, T tokens, frames or patches, H hidden width; feature maps are [B, H, height, width].
"""

from typing import Any

import torch


POOLINGS = ("cls", "mean", "masked_mean", "pooler")


def pool(hidden: torch.Tensor, pooling: str, mask_BT: torch.Tensor | None = None) -> torch.Tensor:
    """Pools a last hidden state `[B, T, H]` or `[B, H, height, width]` to `[B, H]`.

    `"cls"` is the first token, `"mean"` that over all tokens or positions, `"masked_mean"` that over the tokens whose
    mask is 1.
    """
    is_feature_map = hidden.ndim == 4
    if pooling == "cls":
        if is_feature_map:
            raise ValueError(
                f"pooling='cls' needs a sequence of tokens, but the encoder gives a feature map of shape "
                f"{tuple(hidden.shape)}: use pooling='mean' or 'pooler'."
            )
        return hidden[:, 0]
    if pooling == "mean":
        return hidden.mean(dim=(2, 3) if is_feature_map else 1)
    if mask_BT is None or is_feature_map:
        raise ValueError(
            "pooling='masked_mean' needs an attention mask over the encoder's tokens, and there is none: pass "
            "`attention_mask`, or use pooling='mean'."
        )
    weights_BT = mask_BT / mask_BT.sum(dim=1, keepdim=True).clamp(min=1)  # first, or a sum overflows float16
    return (hidden * weights_BT.to(hidden.dtype).unsqueeze(-1)).sum(dim=1)


def token_mask(encoder: Any, mask_BL: torch.Tensor | None, length: int) -> torch.Tensor | None:
    """The attention mask of the inputs [B, L], brought to the encoder's output length [B, T = `length`]."""
    if mask_BL is None or mask_BL.shape[1] == length:
        return mask_BL
    if hasattr(encoder, "_get_feature_vector_attention_mask"):  # the wav2vec2 family, strided convolutions
        return encoder._get_feature_vector_attention_mask(length, mask_BL)
    if mask_BL.shape[1] != 2 * length:  # Whisper: one stride of 2
        raise ValueError(
            f"the attention mask marks {mask_BL.shape[1]} inputs, and {type(encoder).__name__} gives {length} tokens, "
            "so which of them are padding is unknown: leave the mask out, or use pooling='cls' or 'pooler'."
        )
    return mask_BL[:, ::2]


def pool_outputs(encoder: Any, outputs: Any, pooling: str, mask_BL: torch.Tensor | None = None) -> torch.Tensor:
    """Pools a `ModelOutput` of `encoder`: [B, H].

    `"pooler"` takes the encoder's own `pooler_output`; `"mean"` leaves padding out where there is a mask.
    """
    if pooling == "pooler":
        pooled = getattr(outputs, "pooler_output", None)
        if pooled is None:
            raise ValueError(
                f"pooling='pooler' needs `pooler_output`, which {type(encoder).__name__} does not give: "
                "use 'cls', 'mean' or 'masked_mean'."
            )
        return pooled.flatten(1)
    hidden = outputs.last_hidden_state
    if pooling == "cls" or mask_BL is None or hidden.ndim == 4:
        return pool(hidden, pooling)
    return pool(hidden, "masked_mean", token_mask(encoder, mask_BL, hidden.shape[1]))
