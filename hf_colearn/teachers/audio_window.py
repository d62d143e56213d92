"""How long a clip an audio teacher hears, and Whisper's encoder with a shorter window. T samples a clip."""

import copy
from typing import Any

from torch import nn
from transformers import PreTrainedModel
from transformers.models.whisper.modeling_whisper import WhisperEncoder


def with_window(encoder: PreTrainedModel, processor: Any, seconds: float) -> tuple[PreTrainedModel, Any]:
    """The encoder and its feature extractor for clips of at most so many seconds; Whisper's become cheaper by it.

    Whisper's encoder fills its window of 30 s with silence, so that a word costs as much as a paragraph. With its first
    positions alone, of 20 ms each, it costs a part; its latents are then not those of the long window. Weights are shared
    with the encoder that is passed, which stays as it is. Other models, and a window that is short enough, are returned as
    they are.

    Raises:
        ValueError: If the seconds are not positive.
    """
    if not 0 < seconds < float("inf"):
        raise ValueError(
            f"max_length_s={seconds} leaves no audio: pass a positive number of seconds, or None for no limit."
        )
    if not isinstance(encoder, WhisperEncoder) or seconds >= processor.n_samples / processor.sampling_rate:
        return encoder, processor
    stride = encoder.conv1.stride[0] * encoder.conv2.stride[0]  # frames a position
    samples = stride * processor.hop_length
    positions = -(-round(seconds * processor.sampling_rate) // samples)
    short, processor = copy.copy(encoder), copy.deepcopy(processor)
    short._modules, short.config = dict(encoder._modules), copy.deepcopy(encoder.config)
    short.embed_positions = nn.Embedding.from_pretrained(
        encoder.embed_positions.weight[:positions].clone(), freeze=True
    )
    short.max_source_positions = short.config.max_source_positions = positions
    processor.n_samples, processor.nb_max_frames = positions * samples, positions * stride
    processor.chunk_length = processor.n_samples / processor.sampling_rate
    return short, processor
