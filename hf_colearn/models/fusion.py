"""How the modalities' latents and logits become one prediction; absent modalities count for nothing in any of them.

| fusion | the prediction | `fusion_options` |
|---|---|---|
| `concat` | a classifier on the concatenated latents | |
| `sum` | the mean of the heads' logits | |
| `weighted` | their mean with learned weights | |
| `film` | a classifier on the first latent, scaled and shifted by the others | |
| `lstm` | a classifier on the last state of an LSTM over the latents | |
| `mmtm` | as `sum`, after an exchange of channels between the encoders | `ratio` (4), `stages` (none: pooled features) |
| `entropy` | the heads' logits, weighted by each head's certainty of the sample | `weights` (`"entropy"`, or `"fixed"`) |
| `evidential` | the heads' and a pseudo view's evidence, combined by Dempster's rule | |
| `dynamic` | as `concat` where the heads agree, else the logits of the most confident head | `gamma` (0.8), `tau` (1.0) |

This file travels with every multimodal checkpoint. Shapes: B samples, M modalities, D latent width, F width of what the
fusion's classifier reads, C classes.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from .dynamic_fusion import DynamicFusion
from .entropy_fusion import EntropyFusion
from .evidential_fusion import EvidentialFusion
from .fusion_base import Fusion, masked
from .mmtm_fusion import MMTMFusion
from .sum_fusion import SumFusion, WeightedFusion


class ConcatFusion(Fusion):
    """A linear classifier on the concatenated latents, F = M * D wide; zeros where a modality is absent."""

    def __init__(self, widths: list[int], latent_dim: int, num_labels: int):
        super().__init__(widths, len(widths) * latent_dim, num_labels)
        self.classifier = nn.Linear(self.width, num_labels)

    def forward(self, latents, logits, mask_BM):
        fused_BF = torch.cat(masked(latents, mask_BM), dim=1)
        return fused_BF, self.classifier(fused_BF)


class FilmFusion(Fusion):
    r"""Feature-wise affine modulation (FiLM, Perez et al., AAAI 2018) of the first modality by the others.

    \\(f = (1 + \sum_m \gamma_m(z_m)) \, z_1 + \sum_m \beta_m(z_m)\\), with one linear layer for each other modality; a
    linear classifier reads f. An absent modality adds neither scale nor shift; where the first is absent, f is the shift.
    """

    def __init__(self, widths: list[int], latent_dim: int, num_labels: int):
        super().__init__(widths, latent_dim, num_labels)
        self.modulations = nn.ModuleList(nn.Linear(latent_dim, 2 * latent_dim) for _ in widths[1:])
        self.classifier = nn.Linear(latent_dim, num_labels)

    def forward(self, latents, logits, mask_BM):
        first_BD, *others = masked(latents, mask_BM)
        affine = [layer(other) for layer, other in zip(self.modulations, others, strict=True)]
        affine_B2D = torch.stack(masked(affine, mask_BM[:, 1:])).sum(0)
        scale_BD, shift_BD = affine_B2D.chunk(2, dim=1)
        fused_BD = (1 + scale_BD) * first_BD + shift_BD
        return fused_BD, self.classifier(fused_BD)


class LSTMFusion(Fusion):
    """An LSTM reads the latents in the modalities' order and skips absent ones; a linear classifier on its last state."""

    def __init__(self, widths: list[int], latent_dim: int, num_labels: int):
        super().__init__(widths, latent_dim, num_labels)
        self.cell = nn.LSTMCell(latent_dim, latent_dim)
        self.classifier = nn.Linear(latent_dim, num_labels)

    def forward(self, latents, logits, mask_BM):
        hidden_BD = memory_BD = torch.zeros_like(latents[0])
        for step, latent_BD in enumerate(masked(latents, mask_BM)):
            is_here_B1 = mask_BM[:, step, None]
            next_hidden_BD, next_memory_BD = self.cell(latent_BD, (hidden_BD, memory_BD))
            hidden_BD = torch.where(is_here_B1, next_hidden_BD, hidden_BD)
            memory_BD = torch.where(is_here_B1, next_memory_BD, memory_BD)
        return hidden_BD, self.classifier(hidden_BD)


FUSIONS: dict[str, type[Fusion]] = {
    "concat": ConcatFusion,
    "sum": SumFusion,
    "weighted": WeightedFusion,
    "film": FilmFusion,
    "mmtm": MMTMFusion,
    "lstm": LSTMFusion,
    "entropy": EntropyFusion,
    "evidential": EvidentialFusion,
    "dynamic": DynamicFusion,
}
# They predict by the modalities' own heads (the last two by a classifier beside them), the others by one classifier.
HEAD_FUSIONS = ("sum", "weighted", "mmtm", "entropy", "evidential", "dynamic")


def check_fusion_options(fusion: str, options: Any) -> dict[str, Any]:
    """The options of a fusion by name; an error that names those that it has."""
    if options is not None and not isinstance(options, Mapping):
        raise TypeError(
            f"fusion_options={options!r} is a {type(options).__name__}: pass a dict by the options' names."
        )
    known = FUSIONS[fusion].options
    if unknown := [name for name in options or {} if name not in known]:
        way_out = f"its options are {', '.join(known)}" if known else "it has no options"
        raise ValueError(f"fusion_options names {unknown}, and fusion='{fusion}' knows none of that name: {way_out}.")
    FUSIONS[fusion].check_options(options or {})
    return dict(options or {})


def check_problem_type(fusion: str, problem_type: str | None) -> None:
    """A ValueError where a fusion reads probabilities of classes, and the outputs are none."""
    if FUSIONS[fusion].is_of_classes and problem_type not in (None, "single_label_classification"):
        raise ValueError(
            f"problem_type='{problem_type}' with fusion='{fusion}', which reads the probabilities of classes of which a sample "
            "has one: choose another fusion, such as 'sum' or 'concat'."
        )
