"""Tiny backbones of every family that students are tested with: the student's class, a configuration, inputs."""

import numpy as np
import torch
from transformers import DistilBertConfig, HubertConfig

import tiny
from hf_colearn import (
    CoLearningForAudioClassification,
    CoLearningForImageClassification,
    CoLearningForSequenceClassification,
)


IMAGE = CoLearningForImageClassification
TEXT = CoLearningForSequenceClassification
AUDIO = CoLearningForAudioClassification

# Speech backbones drop layers at random while they train, which would make two runs of a test differ.
_SPEECH = {"layerdrop": 0.0, "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}


def distilbert():
    return DistilBertConfig(dim=32, n_layers=1, n_heads=2, hidden_dim=64, vocab_size=100)


def hubert(**kwargs):
    sizes = {"intermediate_size": 64, "conv_dim": [16] * 7, "num_conv_pos_embeddings": 16}
    return HubertConfig(**_SPEECH, **sizes, **kwargs)


def pixels(generator):
    return {"pixel_values": torch.randn(2, 1, 8, 8, generator=generator)}


def tokens(generator):
    ids = torch.randint(3, 100, (2, 12), generator=generator)
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


def waves(generator):
    return {"input_values": torch.randn(2, 4000, generator=generator)}


FAMILIES = {
    "vit": (IMAGE, tiny.vit, pixels),
    "resnet": (IMAGE, tiny.resnet, pixels),
    "convnext": (IMAGE, tiny.convnext, pixels),
    "bert": (TEXT, tiny.bert, tokens),
    "roberta": (TEXT, tiny.roberta, tokens),
    "distilbert": (TEXT, distilbert, tokens),
    "wav2vec2": (AUDIO, lambda: tiny.wav2vec2(layerdrop=0.0), waves),
    "hubert": (AUDIO, hubert, waves),
    "whisper": (AUDIO, tiny.whisper, lambda g: {"input_features": torch.randn(2, 80, 100, generator=g)}),
    "ast": (AUDIO, tiny.ast, lambda g: {"input_values": torch.randn(2, 64, 128, generator=g)}),
}


def config(family: str):
    return FAMILIES[family][1]()


def inputs(family: str, seed: int = 0) -> dict[str, torch.Tensor]:
    return FAMILIES[family][2](torch.Generator().manual_seed(seed))


def seed(value: int = 0) -> None:
    """Fixes what a training forward draws from: torch for dropout, numpy for SpecAugment."""
    torch.manual_seed(value)
    np.random.seed(value)


def student(family: str, backbone=None, latent_dim: int = 24, num_labels: int | None = 3, **kwargs):
    """A student in evaluation mode whose every weight and statistic is random, none as it was initialised."""
    seed()
    backbone = config(family) if backbone is None else backbone
    model = FAMILIES[family][0].from_backbone(backbone, latent_dim=latent_dim, num_labels=num_labels, **kwargs)
    return model.eval()


def stir(model):
    """Moves every weight and running statistic off its initial value, so that a lost one shows."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for value in model.state_dict().values():
            if value.is_floating_point():
                value.add_(0.1 * torch.rand(value.shape, generator=generator).to(value.dtype))
    return model


def stock(family: str):
    """The stock classification model of the family, in evaluation mode, with the weights that `stir` left."""
    seed(2)
    backbone = config(family)
    backbone.num_labels = 3
    return stir(FAMILIES[family][0]._stock_class.from_config(backbone)).eval()
