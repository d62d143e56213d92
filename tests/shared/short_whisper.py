"""Whisper's encoder with a shorter window: 2 s instead of 30 take a fifteenth of the time, and spoken digits fit.

python tests/shared/short_whisper.py ../shared/models/whisper-tiny-en-encoder runs/whisper-2s
"""

import sys

import hf_colearn  # noqa: F401  (before transformers: the torchaudio guard)


# isort: split

import torch
from transformers import AutoFeatureExtractor, AutoModelForAudioClassification


FRAMES = 50  # of the encoder, a second


def write_short_whisper(source: str, folder: str, seconds: int = 2, layers: int = 4) -> str:
    """Writes the model with its first positions and layers, and the feature extractor that fits it; returns the folder."""
    model = AutoModelForAudioClassification.from_pretrained(source, dtype="float32")
    positions = model.encoder.embed_positions
    positions.weight = torch.nn.Parameter(positions.weight[: seconds * FRAMES].clone(), requires_grad=False)
    positions.num_embeddings = model.config.max_source_positions = seconds * FRAMES
    model.encoder.layers, model.config.encoder_layers = model.encoder.layers[:layers], layers
    model.save_pretrained(folder)
    AutoFeatureExtractor.from_pretrained(source, chunk_length=seconds).save_pretrained(folder)
    return folder


if __name__ == "__main__":
    print(write_short_whisper(*sys.argv[1:3]))
