"""Masks on the inputs of a student of any modality: where its positions lie in what it reads, which of them are hidden, and the
inputs without those.

Shapes: B samples, T positions of a dense output, G of them on a grid: h x w patches of an image, or the steps of a sequence.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from hf_colearn.models.backbones import is_convolutional, takes_video
from hf_colearn.models.lora import base_model


_LARGEST = torch.iinfo(torch.int64).max
_NOISE, _OFFSETS = 1, 2  # streams of random bits; an axis of the grid has its own one from the second on
_COLUMNS = ("input_ids", "features", "input_values", "input_features", "pixel_values")


@dataclass(frozen=True)
class Positions:
    """Where the positions of a dense output lie in the input that they come from.

    Args:
        column (`str`): The input's name.
        grid (`tuple[int, ...]`): How many positions there are along each axis; their product is G.
        axes (`tuple[int, ...]`): The axes of the input that they lie along, in equal shares.
        first (`int`, *optional*, defaults to 0): Positions before them that show no part of the input, such as `[CLS]`.
    """

    column: str
    grid: tuple[int, ...]
    axes: tuple[int, ...]
    first: int = 0

    def hide(self, inputs: Mapping[str, Any], hidden_BG: torch.Tensor, value: float) -> dict[str, Any]:
        """The inputs with a value where positions are hidden."""
        whole = inputs[self.column]
        hidden = hidden_BG.view(-1, *self.grid)
        shape = [len(whole), *[1] * (whole.ndim - 1)]
        for along, (axis, count) in enumerate(zip(self.axes, self.grid, strict=True), start=1):
            shape[axis] = size = whole.shape[axis]
            hidden = hidden.index_select(along, torch.arange(size, device=whole.device) * count // size)
        return {**inputs, self.column: whole.masked_fill(hidden.view(shape), value)}


def positions_in(model: Any, inputs: Mapping[str, Any], length: int) -> Positions:
    """Where the T = `length` positions of a student's dense output lie in its inputs.

    Steps of `features` and tokens are positions themselves; those of waveforms and of Whisper's frames have equal shares of
    the time; of a video that an image backbone reads they are its frames. Of an image they are its patches, or the cells of a
    feature map, and of a spectrogram's feature map its columns.

    Raises:
        ValueError: If the student is no dense one of ours, or where its positions lie in its inputs is unknown.
    """
    column = next((name for name in _COLUMNS if inputs.get(name) is not None), None)
    if column is None:
        raise ValueError(
            f"none of the inputs {sorted(inputs)} can be masked: a student reads one of {', '.join(_COLUMNS)}."
        )
    shape = inputs[column].shape
    if column == "features" and len(shape) == 2:
        raise ValueError(
            f"the features are of shape {tuple(shape)}, one vector a sample, which leaves nothing to predict a hidden one by: "
            "pass [B, T, F]."
        )
    if column == "pixel_values":
        return _in_pixels(base_model(model), shape, length)
    if column == "input_values" and len(shape) == 3:
        raise ValueError(
            f"input_values of shape {tuple(shape)} are the spectrograms of AST, whose patches overlap: read them as the "
            "pixel_values of a ViT, or waveforms."
        )
    return Positions(column, (length,), (2 if column == "input_features" else 1,))


def _in_pixels(student: Any, shape: torch.Size, length: int) -> Positions:
    config = getattr(getattr(student, "config", None), "backbone_config", None)
    if config is None:
        raise ValueError(
            f"where the positions of a {type(student).__name__} lie in pixel_values is unknown: use a student, such as "
            "`CoLearningForImageClassification`."
        )
    if len(shape) == 5 and not takes_video(config):
        return Positions("pixel_values", (length,), (1,))
    if is_convolutional(config) and student._width_is_time:
        return Positions("pixel_values", (length,), (3,))
    height, width = shape[-2:]
    patch = getattr(config, "patch_size", None)
    if is_convolutional(config) or patch is None:
        columns = round(math.sqrt(length * width / height))
        grid = (length // max(columns, 1), columns)
    else:
        rows, columns = (patch, patch) if isinstance(patch, int) else patch
        grid = (height // rows, width // columns)
    first = length - grid[0] * grid[1]
    if len(shape) != 4 or first < 0 or (first and (is_convolutional(config) or patch is None)):
        raise ValueError(
            f"the {length} positions of the backbone '{config.model_type}' lie on no grid in pixel_values of shape "
            f"{tuple(shape)}: use a ViT or a convolutional backbone."
        )
    return Positions("pixel_values", grid, (2, 3), first)


# ---- which are hidden ----
def hidden_positions(
    sample_ids_B: torch.Tensor,
    eligible_BG: torch.Tensor,
    grid: tuple[int, ...],
    ratio: float,
    span: int = 1,
    step: int = 0,
    seed: int = 0,
) -> torch.Tensor:
    """Which positions are hidden, `(B, G)` booleans: a function of (sample id, step, seed), which advances no generator.

    A sample's grid is cut into blocks of `span` along every axis, from a random place on. Blocks are hidden in random order
    until it is `round(ratio n)` of the n eligible positions, the last block in part; one at least, and all but one at most,
    of a single one that one.

    Args:
        sample_ids_B (`torch.Tensor` of shape `(B,)`): Integers.
        eligible_BG (`torch.Tensor` of shape `(B, G)`): Booleans: which may be hidden, no padding for one.
        grid, ratio, span: As of [`Positions`] and [`~hf_colearn.objectives.masked_latents.MaskedLatentPrediction`].
        step, seed (`int`): Of the run.
    """
    blocks = torch.zeros(len(sample_ids_B), *grid, dtype=torch.int64, device=eligible_BG.device)
    for axis, count in enumerate(grid):
        offsets_B = random_bits(seed, _OFFSETS + axis, step, sample_ids_B) % span
        along_BC = (torch.arange(count, device=blocks.device) + offsets_B[:, None]) // span
        shape = [-1, *(count if other == axis else 1 for other in range(len(grid)))]
        blocks = blocks * (count // span + 2) + along_BC.view(shape)
    noise_BG = random_bits(seed, _NOISE, step, sample_ids_B[:, None], blocks.flatten(1))
    noise_BG = noise_BG.masked_fill(~eligible_BG, _LARGEST)
    rank_BG = noise_BG.argsort(dim=1, stable=True).argsort(dim=1)
    count_B = eligible_BG.sum(dim=1)
    hidden_B = (ratio * count_B).round().clamp(min=1).minimum((count_B - 1).clamp(min=1))
    return (rank_BG < hidden_B[:, None]) & eligible_BG


def random_bits(*words: int | torch.Tensor) -> torch.Tensor:
    """64 random bits, a hash of integers that broadcast, as [`~hf_colearn.utils.draws.draw_bits`] draws them, on the device."""
    bits: Any = 0
    for word in words:
        bits = torch.as_tensor(bits ^ word) + _signed(0x9E3779B97F4A7C15)
        for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
            bits = (bits ^ _shifted(bits, shift)) * _signed(factor)
        bits = bits ^ _shifted(bits, 31)
    return bits


def _signed(constant: int) -> int:
    return constant - 2**64 if constant >= 2**63 else constant


def _shifted(bits: torch.Tensor, by: int) -> torch.Tensor:
    """To the right, with zeros at the left."""
    return (bits >> by) & ((1 << (64 - by)) - 1)
