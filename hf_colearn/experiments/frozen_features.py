"""Students of frozen features: what encodes speech, what a training set of features holds, and the small network on top.

Shapes: N samples, V views of each, F features.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from transformers import PreTrainedModel

from hf_colearn.data.audio import read_waveform
from hf_colearn.data.augmented_inputs import picture_copies, sentence_copies, waveform_copies
from hf_colearn.experiments.tiny_models import TINY, untrained_speech_encoder
from hf_colearn.models.configuration import FeatureBackboneConfig
from hf_colearn.models.features import CoLearningForFeatureClassification
from hf_colearn.teachers.bank import TeacherBank
from hf_colearn.teachers.bank_card import without_folders
from hf_colearn.teachers.encoder import FrozenEncoder


def speech_encoder(name: str, seconds: float, pooling: str = "mean") -> FrozenEncoder:
    """A speech encoder from the Hub or a folder for clips of so many seconds (`max_length_s` of [`FrozenEncoder`]); or
    `"tiny"`, a small one with random weights."""
    if name == TINY:
        return untrained_speech_encoder()
    return FrozenEncoder.from_pretrained(name, pooling=pooling, max_length_s=seconds)


def encoder_in_words(name: str) -> str:
    """What a card calls an encoder: its name, without a folder of this machine."""
    return "a tiny network with random weights, not trained" if name == TINY else without_folders(name)


def encoded_views(encoder: FrozenEncoder, inputs: Sequence[Any], views: int, mirror: bool = True) -> torch.Tensor:
    """The features `(N, 1 + V, F)` of inputs and of augmented copies of them ([`~hf_colearn.data.augmented_inputs`]).

    Each copy's features are cached as a bank's are.

    Args:
        encoder ([`FrozenEncoder`]): Of text, images or sound.
        inputs (`Sequence`): N texts, PIL images, or cells or waveforms of sound.
        views (`int`): V, how many copies; 0 for none.
        mirror (`bool`, *optional*, defaults to `True`): Whether copies of pictures are mirrored half of the time.
    """
    if encoder.modality == "audio":
        rate = encoder.processor.sampling_rate
        waves = [read_waveform(item, f"input {i}", rate)[0] for i, item in enumerate(inputs)]
        inputs = [{"array": wave_T, "sampling_rate": rate} for wave_T in waves]
    copies: Mapping[str, Callable[[int], Sequence[Any]]] = {
        "audio": lambda view: [
            {"array": wave_T, "sampling_rate": rate} for wave_T in waveform_copies(waves, rate, view)
        ],
        "vision": lambda view: picture_copies(inputs, view, mirror=mirror),
        "text": lambda view: sentence_copies(inputs, view),
    }
    banks = [
        TeacherBank.encode(encoder, copies[encoder.modality](view) if view else inputs) for view in range(1 + views)
    ]
    return torch.stack([bank.lookup(np.arange(len(bank))) for bank in banks], dim=1)


def feature_dataset(features_NF: torch.Tensor, labels: Sequence[int]) -> Dataset:
    """A dataset of `features`, `labels` and `sample_id` (the row), as torch tensors."""
    columns = {"features": features_NF.numpy(), "labels": np.asarray(labels), "sample_id": np.arange(len(labels))}
    return Dataset.from_dict(columns).with_format("torch")


def feature_student(
    features_NF: torch.Tensor,
    hidden_dims: Sequence[int],
    latent_dim: int,
    id2label: Mapping[int, str] | None = None,
    scale: float = 1.0,
    problem_type: str = "single_label_classification",
    num_labels: int | None = None,
) -> PreTrainedModel:
    """An MLP of features as the encoder gives them, standardised by those of the training set and multiplied by a scale.

    The classes are named by `id2label`, or counted by `num_labels`.
    """
    width = features_NF.shape[1]
    config = FeatureBackboneConfig(feature_dim=width, hidden_dims=list(hidden_dims), standardized=True)
    student = CoLearningForFeatureClassification.from_backbone(
        config,
        latent_dim,
        num_labels,
        id2label=None if id2label is None else dict(id2label),
        problem_type=problem_type,
    )
    student.backbone.set_statistics(features_NF, scale)
    return student
