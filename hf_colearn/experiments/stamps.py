"""Recipes on frozen features of speech, texts and pictures, most of them of Tux Paint's stamps: their options and encoders.

Shapes: N samples of a split, F features.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from datasets import Dataset

from hf_colearn.experiments.frozen_features import encoded_splits, encoder_in_words, picture_encoder, speech_encoder
from hf_colearn.experiments.packaged_models import PACKAGED_LANGUAGE, PACKAGED_VISION, language_teacher
from hf_colearn.experiments.settings import SettingsOptions
from hf_colearn.teachers.encoder import FrozenEncoder


COLUMNS = {"speech": "audio", "text": "text", "image": "image"}
LANGUAGES = {"speech": "fr", "text": "en"}
# Of the standardised features: with these, labels alone are worth as much as to a linear classifier of the same features.
SCALES = {"speech": 1.0, "text": 0.1, "image": 0.1}


@dataclass
class EncoderOptions(SettingsOptions):
    """What every recipe takes that reads frozen features of speech, texts and pictures."""

    speech_model: str = field(
        default="openai/whisper-tiny.en", metadata={"help": "Encoder of speech; tiny: random weights."}
    )
    text_model: str = field(default=PACKAGED_LANGUAGE, metadata={"help": "Encoder of texts, a package's."})
    image_model: str = field(
        default=PACKAGED_VISION, metadata={"help": "Encoder of pictures, a package's; tiny: random weights."}
    )
    seconds: int = field(default=4, metadata={"help": "Of speech; longer recordings lose their end."})

    def encoder(self, modality: str) -> FrozenEncoder:
        """A modality's frozen encoder."""
        if modality == "speech":
            return speech_encoder(self.speech_model, self.seconds)
        if modality == "text":
            return language_teacher(self.text_model, pooling="mean")
        return picture_encoder(self.image_model)


@dataclass
class StampOptions(EncoderOptions):
    """What every recipe takes in which one modality of the stamps learns from another."""

    student: str = field(default="speech", metadata={"help": "What learns: speech, text or image."})
    teacher: str = field(default="text", metadata={"help": "What it learns from: another of the three."})
    min_per_class: int = field(default=16, metadata={"help": "Categories with fewer stamps are left out."})
    feature_scale: float | None = field(
        default=None, metadata={"help": "Of the standardised features; by default 1 (speech) or 0.1."}
    )
    hidden_dim: int = field(default=128, metadata={"help": "Width of the student's hidden layer."})

    def __post_init__(self):
        super().__post_init__()
        if self.student == self.teacher or not {self.student, self.teacher} <= set(COLUMNS):
            raise ValueError(f"{self.student} from {self.teacher} is no pair: choose two of {', '.join(COLUMNS)}.")

    @property
    def scale(self) -> float:
        """That of the student's features."""
        return SCALES[self.student] if self.feature_scale is None else self.feature_scale

    @property
    def teacher_in_words(self) -> str:
        """Both encoders, as a card calls them."""
        names = {"speech": self.speech_model, "text": self.text_model, "image": self.image_model}
        teacher, student = (encoder_in_words(names[modality]) for modality in (self.teacher, self.student))
        return f"{teacher} ({self.teacher}), frozen; the student reads features of {student}"


def encoded_stamps(splits: Mapping[str, Dataset], encoder: FrozenEncoder, modality: str) -> dict[str, torch.Tensor]:
    """The features `(N, F)` of every split of [`~hf_colearn.corpora.stamps.load_stamps`], see [`encoded_splits`]."""
    return encoded_splits(splits, encoder, COLUMNS[modality], "stamp_id")
