"""What makes tokens of a modality for a shared trunk: patches, frames, words, features or columns; travels with every
checkpoint.

Shapes: B inputs, T tokens, F features or columns, H the trunk's width; N training samples.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from .standardization import Standardization
from .trunk_configuration import STEM_INPUTS


Tokens = tuple[torch.Tensor, torch.Tensor | None]  # [B, T, H], and which of them are no padding, [B, T]; None for all


class Stem(nn.Module):
    """A modality's way into the trunk: tokens, plus an embedding of every position, plus one of the modality.

    Args:
        options (`dict`): Checked ones, see [`TrunkBackboneConfig`].
        width (`int`): H.
        length (`int`): The most tokens that an input has.
    """

    def __init__(self, options: Mapping[str, Any], width: int, length: int):
        super().__init__()
        self.kind: str = options["kind"]
        self.input_names = STEM_INPUTS[self.kind]
        self.positions_TH = nn.Parameter(torch.empty(length, width))
        self.modality_H = nn.Parameter(torch.empty(width))

    def reset_parameters(self) -> None:
        """Embeddings are normal with a standard deviation of H^(-1/2), layers as torch has them."""
        std = self.modality_H.shape[0] ** -0.5
        for parameter in self.parameters(recurse=False):
            nn.init.normal_(parameter, std=std)
        for child in self.children():
            if isinstance(child, nn.Embedding):
                nn.init.normal_(child.weight, std=std)
            elif isinstance(child, (nn.Linear, nn.Conv2d)):
                child.reset_parameters()

    def placed(self, tokens_BTH: torch.Tensor) -> torch.Tensor:
        """Tokens with their positions and the modality."""
        return tokens_BTH + self.positions_TH[: tokens_BTH.shape[1]] + self.modality_H


class PatchStem(Stem):
    """An image `[B, channels, height, width]`: a token a patch, row by row."""

    def __init__(self, options: Mapping[str, Any], width: int):
        image, patch = options["image_size"], options["patch_size"]
        super().__init__(options, width, (image[0] // patch[0]) * (image[1] // patch[1]))
        self.shape = (options["num_channels"], *image)
        self.projection = nn.Conv2d(options["num_channels"], width, patch, stride=patch)

    def forward(self, pixel_values: torch.Tensor) -> Tokens:
        if pixel_values.shape[1:] != self.shape:
            raise ValueError(
                f"the images are of shape {tuple(pixel_values.shape)}: pass [B, {', '.join(map(str, self.shape))}], or build "
                "the stem with their image_size and num_channels."
            )
        return self.placed(self.projection(pixel_values.to(self.projection.weight.dtype)).flatten(2).mT), None


class FrameStem(Stem):
    """A spectrogram `[B, 1, bands, frames]`: a token for every `patch_length` frames."""

    def __init__(self, options: Mapping[str, Any], width: int):
        super().__init__(options, width, options["max_length"] // options["patch_length"])
        self.bands, self.max_length, self.patch_length = (
            options[name] for name in ("num_bands", "max_length", "patch_length")
        )
        patch = (self.bands, self.patch_length)
        self.projection = nn.Conv2d(1, width, patch, stride=patch)

    def forward(self, pixel_values: torch.Tensor) -> Tokens:
        _, *shape, frames = pixel_values.shape
        if shape != [1, self.bands] or frames > self.max_length or frames % self.patch_length:
            raise ValueError(
                f"the spectrograms are of shape {tuple(pixel_values.shape)}: pass [B, 1, {self.bands}, frames] of at most "
                f"{self.max_length} frames, a multiple of {self.patch_length}, or build the stem with their num_bands, "
                "max_length and patch_length."
            )
        return self.placed(self.projection(pixel_values.to(self.projection.weight.dtype)).flatten(2).mT), None


class TokenStem(Stem):
    """A text as its tokens' ids `[B, T]`. Of one text `token_type_ids` say nothing: they are taken and not read."""

    def __init__(self, options: Mapping[str, Any], width: int):
        super().__init__(options, width, options["max_length"])
        self.embedding = nn.Embedding(options["vocab_size"], width)

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        token_type_ids: torch.Tensor | None = None,
    ) -> Tokens:
        _check_length("texts", input_ids.shape[1], len(self.positions_TH), "tokens")
        return self.placed(self.embedding(input_ids)), attention_mask


class FeatureStem(Stem):
    """Features that were computed beforehand: one vector `[B, F]` as several tokens, or of vectors `[B, T, F]` each as one."""

    def __init__(self, options: Mapping[str, Any], width: int):
        num_tokens, features = options["num_tokens"], options["feature_dim"]
        super().__init__(options, width, num_tokens * options["max_length"])
        self.num_tokens, self.feature_dim = num_tokens, features
        self.standardization = Standardization(features) if options["standardized"] else nn.Identity()
        self.projection = nn.Linear(features, num_tokens * width)

    def forward(self, features: torch.Tensor, attention_mask: torch.Tensor | None = None) -> Tokens:
        is_sequence = features.ndim == 3
        if (
            features.ndim not in (2, 3)
            or features.shape[-1] != self.feature_dim
            or (is_sequence and self.num_tokens > 1)
        ):
            raise ValueError(
                f"the features are of shape {tuple(features.shape)}: pass [B, {self.feature_dim}], or with num_tokens=1 "
                f"[B, T, {self.feature_dim}], or build the stem with feature_dim={features.shape[-1]}."
            )
        if not is_sequence and attention_mask is not None:
            raise ValueError("an attention mask marks steps, and the features [B, F] have none: leave it out.")
        if is_sequence:
            _check_length("features", features.shape[1], len(self.positions_TH), "steps")
        projected = self.projection(self.standardization(features))
        return self.placed(projected if is_sequence else projected.unflatten(1, (self.num_tokens, -1))), attention_mask


class TableStem(Stem):
    r"""The columns of a table `[B, F]`, standardised: column j becomes the token \\(x_j w_j + b_j\\), as a numerical feature
    does in FT-Transformer (Gorishniy et al., NeurIPS 2021, section 3.3); \\(b_j\\) is its position's embedding."""

    def __init__(self, options: Mapping[str, Any], width: int):
        super().__init__(options, width, options["num_columns"])
        self.standardization = Standardization(options["num_columns"])
        self.columns_FH = nn.Parameter(torch.empty(options["num_columns"], width))

    def forward(self, features: torch.Tensor) -> Tokens:
        if features.shape[1:] != self.columns_FH.shape[:1]:
            raise ValueError(
                f"the rows of the table are of shape {tuple(features.shape)}: pass [B, {len(self.columns_FH)}], or build the "
                "stem with their num_columns."
            )
        return self.placed(self.standardization(features)[..., None] * self.columns_FH), None


def _check_length(what: str, length: int, most: int, of: str) -> None:
    if length > most:
        raise ValueError(
            f"the {what} have {length} {of}, and the stem has positions for max_length={most}: cut them, or build the stem "
            "with a larger max_length."
        )


STEMS: dict[str, Any] = {
    "patches": PatchStem,
    "frames": FrameStem,
    "tokens": TokenStem,
    "features": FeatureStem,
    "table": TableStem,
}


def make_stem(options: Mapping[str, Any], width: int) -> Stem:
    """The stem of a modality, by checked options."""
    return STEMS[options["kind"]](options, width)
