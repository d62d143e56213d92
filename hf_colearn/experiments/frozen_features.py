"""Students of frozen features: what encodes speech, what a training set of features holds, and the small network on top.

Shapes: N samples, V views of each, F features.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from datasets import Dataset, concatenate_datasets
from transformers import PreTrainedModel, ResNetModel
from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

from hf_colearn.data.audio import read_waveform
from hf_colearn.data.augmented_inputs import picture_copies, sentence_copies, waveform_copies
from hf_colearn.experiments.packaged_models import (
    PACKAGED_LANGUAGE,
    PACKAGED_VISION,
    language_teacher,
    vision_teacher,
)
from hf_colearn.experiments.tiny_models import TINY, resnet_tiny, untrained_speech_encoder
from hf_colearn.models.configuration import FeatureBackboneConfig
from hf_colearn.models.features import CoLearningForFeatureClassification
from hf_colearn.models.spectrogram import SpectrogramFeatureExtractor
from hf_colearn.teachers.bank import TeacherBank
from hf_colearn.teachers.bank_card import without_folders
from hf_colearn.teachers.encoder import FrozenEncoder
from hf_colearn.utils.rng import preserve_rng_state


def speech_encoder(name: str, seconds: float, pooling: str = "mean") -> FrozenEncoder:
    """A speech encoder from the Hub or a folder for clips of so many seconds (`max_length_s` of [`FrozenEncoder`]); or
    `"tiny"`, a small one with random weights."""
    if name == TINY:
        return untrained_speech_encoder()
    return FrozenEncoder.from_pretrained(name, pooling=pooling, max_length_s=seconds)


def picture_encoder(name: str) -> FrozenEncoder:
    """A frozen encoder of pictures, as [`~hf_colearn.experiments.packaged_models.vision_teacher`]; or `"tiny"`, with random
    weights, always the same ones."""
    if name != TINY:
        return vision_teacher(name, "pooler")
    with preserve_rng_state(torch.device("cpu")):
        torch.manual_seed(0)
        model = ResNetModel(resnet_tiny()).requires_grad_(False)
    return FrozenEncoder(model, ViTImageProcessorPil(size={"height": 32, "width": 32}), pooling="pooler")


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


def encoded_splits(
    splits: Mapping[str, Dataset], encoder: FrozenEncoder, column: str, id_column: str
) -> dict[str, torch.Tensor]:
    """The features `(N, F)` of every split. All are encoded in one order, so that another split finds them in the cache.

    Args:
        splits (`Mapping[str, Dataset]`): Parts of one data set.
        encoder ([`FrozenEncoder`]): Of what the column holds.
        column (`str`): Texts, pictures or recordings.
        id_column (`str`): What names a sample in every split.
    """
    whole = concatenate_datasets([part.select_columns([id_column, column]) for part in splits.values()])
    whole = whole.sort(id_column)
    bank = TeacherBank.encode(encoder, list(whole[column]))
    row_of = {name: row for row, name in enumerate(whole[id_column])}
    return {split: bank.lookup([row_of[name] for name in part[id_column]]) for split, part in splits.items()}


def stamp_features(raw: Mapping[str, Dataset], seconds: float = 3.0) -> dict[str, Dataset]:
    """The features of Tux Paint's stamps: `image_features` by EfficientNet-Lite0 and `text_features` by MiniLM, both frozen and
    of packages; `speech_features`, the mean and the deviation of every mel band; and `labels`. As torch tensors.

    Args:
        raw (`Mapping[str, Dataset]`): What [`~hf_colearn.corpora.stamps.load_stamps`] returns.
        seconds (`float`, *optional*, defaults to 3): Of speech; longer recordings lose their end.
    """
    encoders = {
        "image": vision_teacher(PACKAGED_VISION, "pooler"),
        "text": language_teacher(PACKAGED_LANGUAGE, "mean"),
    }
    mel = SpectrogramFeatureExtractor(size=(64, 96), seconds=seconds)

    def heard(cell: dict) -> np.ndarray:
        waveform, _ = read_waveform(cell, "a recording", mel.sampling_rate)
        bands_MT = np.asarray(mel(waveform, sampling_rate=mel.sampling_rate)["pixel_values"][0])[0]
        return np.concatenate([bands_MT.mean(axis=1), bands_MT.std(axis=1)])

    def features(part: Dataset) -> Dataset:
        columns = {"labels": part["label"][:], "speech_features": np.stack([heard(cell) for cell in part["audio"]])}
        for name, encoder in encoders.items():
            bank = TeacherBank.encode(encoder, part[name], show_progress=False)
            columns[f"{name}_features"] = bank.lookup(np.arange(len(part))).numpy()
        return Dataset.from_dict(columns).with_format("torch")

    return {str(split): features(part) for split, part in raw.items()}


def trained_and_tested(
    splits: Mapping[str, Dataset], features: Sequence[Mapping[str, torch.Tensor]], choosing: bool
) -> tuple[list[torch.Tensor], list[int], str]:
    """What a recipe trains on: the features of every encoder, `(N, F)` each, and N labels; and the split that it is tested on.

    Settings are chosen on the validation part, which is trained on afterwards.

    Args:
        splits (`Mapping[str, Dataset]`): `train`, `validation` and `test` with `label`.
        features (`Sequence[Mapping[str, torch.Tensor]]`): Of every encoder those of every split, as of [`encoded_splits`].
        choosing (`bool`): Whether settings are chosen now.
    """
    train, test = (["train"], "validation") if choosing else (["train", "validation"], "test")
    labels_N = [label for split in train for label in splits[split]["label"]]
    return [torch.cat([of[split] for split in train]) for of in features], labels_N, test


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
    training_heads: Mapping[str, Any] | None = None,
) -> PreTrainedModel:
    """An MLP of features as the encoder gives them, standardised by those of the training set and multiplied by a scale.

    The classes are named by `id2label`, or counted by `num_labels`; `training_heads` are those of
    [`~hf_colearn.models.configuration.CoLearningStudentConfig`].
    """
    width = features_NF.shape[1]
    config = FeatureBackboneConfig(feature_dim=width, hidden_dims=list(hidden_dims), standardized=True)
    student = CoLearningForFeatureClassification.from_backbone(
        config,
        latent_dim,
        num_labels,
        id2label=None if id2label is None else dict(id2label),
        problem_type=problem_type,
        training_heads=training_heads,
    )
    student.backbone.set_statistics(features_NF, scale)
    return student
