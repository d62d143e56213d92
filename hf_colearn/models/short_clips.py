"""Clips too short for a backbone of raw waveforms (wav2vec2, HuBERT, WavLM, data2vec-audio, SEW, UniSpeech, ...).

transformers fails on them deep inside, and only where the clip is the longest of its batch. Here one rule holds in every
batch: a clip shorter than the first frame is filled up with zeros, which count as sound; and no span of frames is masked
in training (SpecAugment) where the longest clip is shorter than a span, as transformers itself does for a short clip in a
longer batch. This file travels with every checkpoint. Shapes: B clips, T samples, F frames.
"""

from typing import Any

import torch
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel


def takes_waveforms(config: PreTrainedConfig) -> bool:
    """Whether strided convolutions make the frames of raw samples."""
    return hasattr(config, "conv_kernel") and hasattr(config, "conv_stride")


def masks_spans(encoder: PreTrainedModel) -> bool:
    """Whether training masks spans of frames, those of wav2vec2-bert's filter banks among them."""
    return hasattr(encoder, "_mask_hidden_states")


def samples_of_first_frame(config: PreTrainedConfig) -> int:
    """How many samples give the first vector of the encoder: 400, that is 25 ms at 16 kHz, for wav2vec2's convolutions."""
    samples = getattr(config, "squeeze_factor", 1)  # SEW pools so many frames to one
    for kernel, stride in zip(reversed(config.conv_kernel), reversed(config.conv_stride), strict=True):
        samples = (samples - 1) * stride + kernel
    return samples


def number_of_frames(config: PreTrainedConfig, samples: int) -> int:
    """F of T samples."""
    for kernel, stride in zip(config.conv_kernel, config.conv_stride, strict=True):
        samples = (samples - kernel) // stride + 1
    return samples


def fill_first_frame(
    config: PreTrainedConfig, samples_BT: torch.Tensor, mask_BT: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """The batch and its attention mask with at least the samples of the first frame, which count in every clip."""
    needed = samples_of_first_frame(config)
    missing = max(0, needed - samples_BT.shape[1])
    samples_BT = nn.functional.pad(samples_BT, (0, missing))
    if mask_BT is not None:
        rest_BT = mask_BT[:, needed:]
        mask_BT = torch.cat([mask_BT.new_ones(mask_BT.shape[0], needed), rest_BT], dim=1)
    return samples_BT, mask_BT


def without_impossible_spans(encoder: PreTrainedModel, args: tuple, kwargs: dict[str, Any]) -> tuple[tuple, dict]:
    """A forward pre-hook: masks no frame of a training batch that is shorter than a span."""
    config, inputs_BT = encoder.config, args[0] if args else kwargs[encoder.main_input_name]
    if encoder.training and config.mask_time_prob > 0 and kwargs.get("mask_time_indices") is None:
        length = inputs_BT.shape[1]
        frames = number_of_frames(config, length) if takes_waveforms(config) else length
        if frames < config.mask_time_length:
            none_BF = torch.zeros(len(inputs_BT), frames, dtype=torch.bool, device=inputs_BT.device)
            kwargs = kwargs | {"mask_time_indices": none_BF}
    return args, kwargs
