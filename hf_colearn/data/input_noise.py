"""Strong views of inputs that have no usual augmentation: noise on numbers, masks on words.

Shapes: B inputs of a batch, L tokens.
"""

from typing import Any

import torch
from torch import nn


class InputNoise(nn.Module):
    """Adds Gaussian noise to an entry of the batch, drawn anew every time.

    Args:
        entry (`str`): Such as `"features"` or `"pixel_values"`.
        std (`float` or `torch.Tensor`): Its standard deviation, in the entry's units; of features one for each.
    """

    std: torch.Tensor

    def __init__(self, entry: str, std: float | torch.Tensor):
        super().__init__()
        self.entry = entry
        self.register_buffer("std", torch.as_tensor(std, dtype=torch.float32), persistent=False)

    @torch.no_grad()
    def forward(self, batch: dict[str, Any]) -> dict[str, Any]:
        values = batch[self.entry]
        return {**batch, self.entry: values + self.std * torch.randn_like(values)}


class MaskedTokens(nn.Module):
    """Replaces a random share of the words by the mask token; padding and special tokens stay.

    Args:
        tokenizer: Which has a mask token.
        share (`float`, *optional*, defaults to 0.15): As BERT was trained with.
    """

    def __init__(self, tokenizer: Any, share: float = 0.15):
        super().__init__()
        if tokenizer.mask_token_id is None:
            raise ValueError(
                "the tokenizer has no mask token, so no words can be masked: choose arms without FixMatch."
            )
        self.mask, self.share, self.special = tokenizer.mask_token_id, share, list(tokenizer.all_special_ids)

    @torch.no_grad()
    def forward(self, batch: dict[str, Any]) -> dict[str, Any]:
        ids_BL = batch["input_ids"]
        drawn_BL = torch.rand(ids_BL.shape, device=ids_BL.device) < self.share
        is_word_BL = ~torch.isin(ids_BL, torch.tensor(self.special, device=ids_BL.device))
        return {**batch, "input_ids": torch.where(drawn_BL & is_word_BL, self.mask, ids_BL)}
