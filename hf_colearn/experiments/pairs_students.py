"""Students of anybody's pairs, by what they read: processor, inputs, network, augmentation.

Shapes: N samples, F what a sample's input is told by to linear probes.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from torch.nn.functional import adaptive_avg_pool2d
from transformers import (
    AutoFeatureExtractor,
    AutoImageProcessor,
    AutoTokenizer,
    DataCollatorWithPadding,
    PreTrainedModel,
)
from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

from hf_colearn.corpora.pairs import Pairs
from hf_colearn.data.audio import read_waveform, with_input_values
from hf_colearn.data.images import with_pixel_values
from hf_colearn.data.input_noise import InputNoise, MaskedTokens
from hf_colearn.data.sample_ids import NO_LABEL
from hf_colearn.data.text import with_input_ids
from hf_colearn.data.views import FlipAndShift, TwoViews
from hf_colearn.experiments.frozen_features import feature_student
from hf_colearn.experiments.tiny_models import TINY, bert_tiny, resnet_tiny, trained_tokenizer
from hf_colearn.models.spectrogram import SpectrogramFeatureExtractor
from hf_colearn.models.student import (
    CoLearningForAudioClassification,
    CoLearningForImageClassification,
    CoLearningForSequenceClassification,
)
from hf_colearn.teachers.bank import TeacherBank
from hf_colearn.teachers.encoder import FrozenEncoder
from hf_colearn.utils.extras import extra


_CLASSES: dict[str, Any] = {
    "image": CoLearningForImageClassification,
    "audio": CoLearningForAudioClassification,
    "text": CoLearningForSequenceClassification,
}
# Of the tiny students: sides, longest clip, vocabulary, width.
_PIXELS, _SECONDS, _WORDS, _HIDDEN = 32, 10.0, 4096, 128
_CLIPS = 2000  # whose lengths are looked at


@dataclass(frozen=True)
class PairStudent:
    """A kind of student, of which every arm gets a new one.

    Args:
        words (`str`): What it is, for card and terminal.
        pipeline_tag (`str`): Of its card.
        inputs (`Callable[[Dataset], Dataset]`): From columns `input`, `labels` (and `sample_id`) to the model's.
        make (`Callable[..., PreTrainedModel]`): From `latent_dim`, `id2label` and `problem_type` to the model.
        processor (*optional*): Saved beside it.
        collator (*optional*): Of batches of inputs of several lengths.
        pooled (`Callable[[Dataset, Dataset], np.ndarray]`): From pairs and their inputs to what linear probes see, `(N, F)`:
            frozen features of a pretrained backbone, pooled inputs of a tiny one.
        weak, strong (`Callable`, *optional*): Augmentations of a batch.
        is_tiny (`bool`): Whether it is a small network from scratch.
    """

    words: str
    pipeline_tag: str
    inputs: Callable[[Dataset], Dataset]
    make: Callable[..., PreTrainedModel]
    pooled: Callable[[Dataset, Dataset], np.ndarray]
    processor: Any = None
    collator: Any = None
    weak: Any = None
    strong: Any = None
    is_tiny: bool = field(default=True)

    @property
    def views(self) -> TwoViews:
        """FixMatch's."""
        return TwoViews(self.weak, self.strong)


def pair_student(pairs: Pairs, name: str | None = None, max_length: int | None = None) -> PairStudent:
    """The student that reads the input of these pairs.

    Args:
        pairs ([`Pairs`]): With their training split, from which a tiny text student has its vocabulary, a tiny audio student
            its length, and one of features its scale.
        name (`str`, *optional*): A Hub id or folder of a pretrained backbone; `"tiny"` (the default) is a small network from
            scratch.
        max_length (`int`, *optional*): Of texts, in tokens.

    Raises:
        ValueError: If a backbone is named for features, which have a small network of their own.
    """
    is_tiny = name in (None, TINY)
    kind = pairs.input_kind
    if kind == "features":
        if not is_tiny:
            raise ValueError(
                f"--student {name}: the input is features, and no pretrained model reads them. Leave --student out: it is a "
                "small network of its own."
            )
        return _of_features(pairs)
    made = {"image": _of_images, "audio": _of_sounds, "text": _of_texts}[kind]
    return made(pairs, None if is_tiny else name, max_length)


def called(model: str) -> str:
    """A model's Hub id, or the name of its folder without the way to it."""
    return Path(model).name if Path(model).is_dir() else model


def _frozen(name: str, pairs: Dataset, _: Dataset) -> np.ndarray:
    """The features of a pretrained backbone before training."""
    bank = TeacherBank.encode(FrozenEncoder.from_pretrained(name), pairs["input"], show_progress=False)
    return bank.lookup(np.arange(len(bank))).numpy()


def _from(kind: str, backbone: Any, latent_dim: int, **labels: Any) -> PreTrainedModel:
    return _CLASSES[kind].from_backbone(backbone, latent_dim, latent_norm="none", **labels)


def _of_images(pairs: Pairs, name: str | None, _: int | None) -> PairStudent:
    with extra("vision", "FixMatch's augmentation of pictures needs kornia"):
        from hf_colearn.data.augmentation import ImageAugmentation
    if name is None:
        processor: Any = ViTImageProcessorPil(size={"height": _PIXELS, "width": _PIXELS})
    else:
        processor = AutoImageProcessor.from_pretrained(name)
    strong = ImageAugmentation(
        mean=processor.image_mean, std=processor.image_std, mixup=0, cutmix=0, label_smoothing=0
    )
    return PairStudent(
        words=f"a ResNet of two blocks from scratch, {_PIXELS} x {_PIXELS} pixels" if name is None else called(name),
        pipeline_tag="image-classification",
        inputs=lambda part: with_pixel_values(part, processor, "input", "labels"),
        make=partial(_from, "image", resnet_tiny() if name is None else name),
        pooled=_pooled_pixels if name is None else partial(_frozen, name),
        processor=processor,
        weak=FlipAndShift(flip=False),
        strong=strong,
        is_tiny=name is None,
    )


def _pooled_pixels(_: Dataset, inputs: Dataset) -> np.ndarray:
    pixels_NCHW = torch.stack(list(inputs.with_format("torch")["pixel_values"][:]))
    return adaptive_avg_pool2d(pixels_NCHW, 8).flatten(1).numpy()


def _of_sounds(pairs: Pairs, name: str | None, _: int | None) -> PairStudent:
    pooled: Callable[[Dataset, Dataset], np.ndarray] = _pooled_pixels
    longest = 30.0
    if name is not None:
        processor: Any = AutoFeatureExtractor.from_pretrained(name)
        entry, collator = processor.model_input_names[0], DataCollatorWithPadding(processor)
        words, backbone, pooled = called(name), name, partial(_frozen, name)
    else:
        clips = pairs.train.select(range(min(_CLIPS, len(pairs.train))))["input"]
        seconds = [len(wave) / rate for wave, rate in (read_waveform(cell, row) for row, cell in enumerate(clips))]
        longest = round(min(_SECONDS, max(0.5, *seconds)) + 0.005, 2)
        processor = SpectrogramFeatureExtractor(size=(40, 64), seconds=longest, n_fft=512)
        entry, collator = "pixel_values", None
        words = f"a ResNet of two blocks from scratch, on spectrograms of {longest:.3g} s"
        backbone = resnet_tiny(num_channels=1)
    return PairStudent(
        words=words,
        pipeline_tag="audio-classification",
        inputs=lambda part: with_input_values(part, processor, "input", "labels", max_seconds=longest),
        make=partial(_from, "audio", backbone),
        pooled=pooled,
        processor=processor,
        collator=collator,
        strong=InputNoise(entry, 0.5),
        is_tiny=name is None,
    )


def _of_texts(pairs: Pairs, name: str | None, max_length: int | None) -> PairStudent:
    if name is None:
        tokenizer: Any = trained_tokenizer(pairs.train["input"][:], _WORDS)
        backbone: Any = bert_tiny(vocab_size=len(tokenizer), pad_token_id=tokenizer.pad_token_id)
    else:
        tokenizer, backbone = AutoTokenizer.from_pretrained(name), name
    return PairStudent(
        words="a BERT of two layers from scratch, with a vocabulary of the training texts"
        if name is None
        else called(name),
        pipeline_tag="text-classification",
        inputs=lambda part: with_input_ids(part, tokenizer, "input", "labels", max_length=max_length),
        make=partial(_from, "text", backbone),
        pooled=_word_counts if name is None else partial(_frozen, name),
        processor=tokenizer,
        collator=DataCollatorWithPadding(tokenizer),
        strong=MaskedTokens(tokenizer) if tokenizer.mask_token_id is not None else None,
        is_tiny=name is None,
    )


def _word_counts(pairs: Dataset, _: Dataset) -> np.ndarray:
    with extra("report", "the check before training needs scikit-learn"):
        from sklearn.feature_extraction.text import TfidfVectorizer
    return TfidfVectorizer(max_features=512).fit_transform(pairs["input"][:]).toarray()


def _of_features(pairs: Pairs) -> PairStudent:
    features_NF = torch.tensor(np.asarray(pairs.train["input"][:], dtype=np.float32))

    def inputs(part: Dataset) -> Dataset:
        return part.rename_column("input", "features").with_format("torch")

    def make(latent_dim: int, **labels: Any) -> PreTrainedModel:
        return feature_student(features_NF, [_HIDDEN], latent_dim, **labels)

    return PairStudent(
        words=f"a network of {_HIDDEN} hidden units from scratch, on {features_NF.shape[1]} features",
        pipeline_tag="feature-classification",
        inputs=inputs,
        make=make,
        pooled=lambda part, _: np.asarray(part["input"][:], dtype=np.float32),
        strong=InputNoise("features", 0.5 * features_NF.std(dim=0)),
    )


def outputs_of(pairs: Pairs) -> dict[str, Any]:
    """What a student is told of its outputs: the classes, the one value of a regression, or that there are none."""
    if pairs.problem_type is None:
        return {"id2label": {}}  # its latents are what it is for
    if pairs.names is None:
        return {"num_labels": 1, "problem_type": pairs.problem_type}
    return {"id2label": dict(pairs.names), "problem_type": pairs.problem_type}


def pair_inputs(pairs: Pairs, student: PairStudent) -> dict[str, Dataset]:
    """The splits in the student's inputs, with `labels` where there is a task, and `sample_id` in training."""
    made = {}
    for split, part in pairs.splits.items():
        kept = [name for name in ("input", "labels", "sample_id") if name in part.column_names]
        part = part.select_columns(kept)
        if "labels" in kept:
            made[split] = student.inputs(part)
        else:
            made[split] = student.inputs(part.add_column("labels", [NO_LABEL] * len(part))).remove_columns("labels")
    return made
