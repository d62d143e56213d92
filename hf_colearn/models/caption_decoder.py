"""A small recurrent decoder of captions, for training alone; travels with every checkpoint.

Shapes: B samples, T tokens of a caption, V tokens of the vocabulary, D width of what is read, E width of the decoder.
"""

import torch
from torch import nn


class CaptionDecoder(nn.Module):
    """A GRU that begins with a projection of the latent and predicts every token from those before it.

    The first token of a caption is given and never predicted, as a tokenizer's first special token is.
    """

    def __init__(self, in_features: int, vocab_size: int, hidden_size: int):
        super().__init__()
        self.first_state = nn.Linear(in_features, hidden_size)
        self.embedding = nn.Embedding(vocab_size, hidden_size)
        self.cells = nn.GRU(hidden_size, hidden_size, batch_first=True)
        self.logits = nn.Linear(hidden_size, vocab_size)

    def forward(self, z_BD: torch.Tensor, ids_BT: torch.Tensor) -> torch.Tensor:
        """The logits `[B, T - 1, V]` of tokens 2 to T, each from those before it; an id of -100 is padding."""
        tokens_BTE = self.embedding(ids_BT[:, :-1].clamp(min=0))
        states_BTE, _ = self.cells(tokens_BTE, self._begin(z_BD))
        return self.logits(states_BTE)

    @torch.no_grad()
    def generate(self, z_BD: torch.Tensor, first: int, last: int, max_length: int = 32) -> torch.Tensor:
        """The most likely next token again and again, `[B, max_length]` ids: `first`, then tokens up to `last`, then -100."""
        state_1BE, token_B = self._begin(z_BD), torch.full((len(z_BD),), first, device=z_BD.device)
        ids, is_done_B = [token_B], torch.zeros_like(token_B, dtype=torch.bool)
        for _ in range(max_length - 1):
            states_B1E, state_1BE = self.cells(self.embedding(token_B)[:, None], state_1BE)
            token_B = self.logits(states_B1E[:, 0]).argmax(dim=-1)
            ids.append(token_B.masked_fill(is_done_B, -100))
            is_done_B = is_done_B | (token_B == last)
        return torch.stack(ids, dim=1)

    def _begin(self, z_BD: torch.Tensor) -> torch.Tensor:
        return self.first_state(z_BD).tanh()[None]
