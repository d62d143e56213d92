"""Pretraining by masked latents with few labels: inputs of two modalities as patches, the small transformer that reads them,
the arms and their trainers.

Shapes: B samples of a batch, T positions, G patches of an input, D dimensions of a target.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np
import torch.nn.functional as F
from datasets import Array3D, ClassLabel, Dataset, Features
from transformers import PreTrainedModel
from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

from hf_colearn.arguments import CoLearningArguments
from hf_colearn.corpora.emoji import load_emoji
from hf_colearn.corpora.spoken_digits import Clip
from hf_colearn.data.images import with_pixel_values
from hf_colearn.data.sample_ids import with_sample_ids
from hf_colearn.data.splits import cut_validation
from hf_colearn.data.views import TwoViews
from hf_colearn.experiments.arms import ArmPlan, pick
from hf_colearn.experiments.dense_signal import BANDS, RATE, drawn, load_clips
from hf_colearn.experiments.semi_supervised import (
    BUDGET,
    SemiSupervised,
    SemiSupervisedArm,
    halves,
    labelled,
    semi_supervised_arms,
)
from hf_colearn.experiments.tiny_models import vit_tiny
from hf_colearn.models.spectrogram import SpectrogramFeatureExtractor
from hf_colearn.models.student import (
    CoLearningForAudioClassification,
    CoLearningForImageClassification,
    CoLearningStudent,
)
from hf_colearn.objectives.masked_latents import TERM, MaskedLatentPrediction, normalized
from hf_colearn.teachers.bank import TeacherBank
from hf_colearn.teachers.pairing import Paired
from hf_colearn.trainer import CoLearningTrainer


MASKED, BOTH, TRANSFER = "masked latents", "masked latents + latent transfer", "latent transfer"
OTHERS, RANDOM, INPUTS = "latents of other samples", "latents of random weights", "masked inputs"
LAYERS, HIDDEN = 2, 64  # of the student; all of its layers give targets


# ---- inputs ----
@dataclass(frozen=True)
class PatchedData:
    """Inputs of a modality that a ViT reads in patches.

    Args:
        splits (`dict[str, Dataset]`): `train`, `validation` and `test` with `pixel_values`, `labels` and `sample_id`.
        teacher_inputs (`list`): What the teacher reads of each training sample.
        processor: Makes `pixel_values`.
        patch (`tuple[int, int]`): Rows and columns of one.
        normalization (`str`): Of the targets, as published for the modality.
        student_class (`type`): The student of the modality.
    """

    splits: dict[str, Dataset]
    teacher_inputs: list[Any]
    processor: Any
    patch: tuple[int, int]
    normalization: str
    student_class: type[CoLearningStudent]

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, rows and columns of an input."""
        return tuple(self.splits["train"][0]["pixel_values"].shape)

    @property
    def patch_values(self) -> int:
        """How many values a patch has."""
        return self.shape[0] * self.patch[0] * self.patch[1]

    def make_student(self, latent_dim: int, target_dim: int | None) -> PreTrainedModel:
        """A ViT from random weights; with a head for targets of this width."""
        channels, *size = self.shape
        config = vit_tiny(
            image_size=tuple(size),
            patch_size=self.patch,
            num_channels=channels,
            num_hidden_layers=LAYERS,
            hidden_size=HIDDEN,
        )
        head = {TERM: {"out_features": target_dim, "reads": "dense_latents"}}
        return self.student_class.from_backbone(
            config,
            latent_dim,
            id2label=dict(enumerate(self.splits["train"].features["labels"].names)),
            pooling="mean",
            latent_norm="none",
            dense=True,
            training_heads=None if target_dim is None else head,
        )


def pictures(folder: str | None, seed: int, max_samples: int | None = None) -> PatchedData:
    """Emoji of 8 categories in 16 patches of 8 x 8; the teacher reads their names. 40 % are for the test, 12 for validation."""
    processor = ViTImageProcessorPil(size={"height": 32, "width": 32})
    raw = load_emoji(folder, size=32, seed=seed)
    train, validation = cut_validation(raw["train"].remove_columns("sample_id"), 0.2, seed)
    parts = {"train": train, "validation": validation, "test": raw["test"]}
    parts = {split: part.select(range(min(max_samples or len(part), len(part)))) for split, part in parts.items()}
    splits = {
        split: with_sample_ids(with_pixel_values(part.select_columns(["image", "label"]), processor))
        for split, part in parts.items()
    }
    names = list(parts["train"]["text"])
    return PatchedData(splits, names, processor, (8, 8), "layer", CoLearningForImageClassification)


def spoken_digits(folder: str | None, skip_bad_samples: bool = False, max_samples: int | None = None) -> PatchedData:
    """Log-mel spectrograms of a second in 12 patches of all bands and 85 ms; the teacher hears the same clips."""
    clips = {split: drawn(of, max_samples) for split, of in load_clips(folder, skip_bad_samples).items()}
    frames, patch = 48, (BANDS, 4)
    mel = SpectrogramFeatureExtractor(size=(BANDS, frames), sampling_rate=RATE)
    digits = ClassLabel(names=[str(digit) for digit in range(10)])
    kinds = Features({"pixel_values": Array3D((1, BANDS, frames), "float32"), "labels": digits})

    def heard(of_split: Sequence[Clip]) -> Dataset:
        pixels = mel([clip.wave for clip in of_split], sampling_rate=RATE)["pixel_values"]
        columns = {"pixel_values": list(pixels), "labels": [clip.label for clip in of_split]}
        return with_sample_ids(Dataset.from_dict(columns, features=kinds)).with_format("torch")

    splits = {split: heard(of_split) for split, of_split in clips.items()}
    waves = [{"array": clip.wave, "sampling_rate": RATE} for clip in clips["train"]]
    return PatchedData(splits, waves, mel, patch, "instance", CoLearningForAudioClassification)


# ---- arms ----
_PRETRAINED = ({"ratio": 0.5, "rate": 1.0}, {"ratio": 0.5, "rate": 3.0}, {"ratio": 0.75, "rate": 3.0})


def masked_latents_arms(labels_per_class: int, names: Sequence[str] | None = None) -> list[SemiSupervisedArm]:
    """What the recipe trains at a number of labels a class, all with the same student and as many updates; of these names.

    Those of two stages make half of their updates on all samples without labels, and the other half as said.

    | arm | kind | first half | second half |
    |---|---|---|---|
    | labels alone | baseline | labelled samples | the same |
    | masked latents | co-learned | at hidden patches what the student's average makes of the whole | labelled samples |
    | masked latents + latent transfer | co-learned | the same | labels, and latents that are the teacher's |
    | latent transfer | reference | labels, and latents that are the teacher's | the same |
    | masked inputs | reference | the hidden patches themselves (as a masked autoencoder) | labelled samples |
    | latents of other samples | null | what the average makes of another sample of the batch | labelled samples |
    | latents of random weights | null | what the first weights make of the whole | labelled samples |
    """
    alone, transfer = (arm for arm in semi_supervised_arms() if arm.name in ("labels alone", TRANSFER))
    both = tuple({**setting, "ratio": 0.5} for setting in transfer.grid)
    arms = [
        alone,
        SemiSupervisedArm(MASKED, "colearned", grid=_PRETRAINED),
        SemiSupervisedArm(BOTH, "colearned", Paired(), grid=both, two_streams=True),
        replace(transfer, kind="reference"),
        SemiSupervisedArm(INPUTS, "reference", grid=_PRETRAINED),
        SemiSupervisedArm(OTHERS, "null", grid=_PRETRAINED),
        SemiSupervisedArm(RANDOM, "null", grid=_PRETRAINED),
    ]
    return [cast(SemiSupervisedArm, arm.at(BUDGET, labels_per_class)) for arm in pick(arms, names)]


class OtherSamples(MaskedLatentPrediction):
    """A null control: the targets of another sample of the batch."""

    def targets(self, inputs, of_average, positions, eligible_BT):
        return super().targets(inputs, of_average, positions, eligible_BT).roll(1, dims=0)


class RandomWeights(MaskedLatentPrediction):
    """A null control: an average that stays what the student begins with."""

    def update(self, step):
        pass


class MaskedInputs(MaskedLatentPrediction):
    """A reference: the values of the hidden patches, each patch normalised, as in "Masked Autoencoders Are Scalable Vision
    Learners" (He et al., CVPR 2022), with a linear head in the place of a decoder."""

    def targets(self, inputs, of_average, positions, eligible_BT):
        pixels = inputs["pixel_values"]
        size = tuple(whole // count for whole, count in zip(pixels.shape[2:], positions.grid, strict=True))
        patches_BGD = F.unfold(pixels, size, stride=size).transpose(1, 2)
        return normalized(F.pad(patches_BGD, (0, 0, positions.first, 0)), eligible_BT, "layer")

    def check(self, model, teachers):
        """The width of a patch stands in the student's inputs alone."""


_OBJECTIVES = {
    MASKED: MaskedLatentPrediction,
    BOTH: MaskedLatentPrediction,
    INPUTS: MaskedInputs,
    OTHERS: OtherSamples,
    RANDOM: RandomWeights,
}


class MaskedPretraining(SemiSupervised):
    """Builds the trainers of [`masked_latents_arms`].

    Args:
        data ([`PatchedData`]): The inputs.
        bank ([`TeacherBank`]): The teacher's latents of the training samples.
        adapted (`Callable`): Takes a new student and returns what is to be trained, such as itself.
        decay (`float`): Of the average.
        options: As of [`~hf_colearn.experiments.semi_supervised.SemiSupervised`].
    """

    def __init__(
        self,
        data: PatchedData,
        bank: TeacherBank,
        adapted: Callable[[PreTrainedModel], Any] = lambda student: student,
        decay: float = 0.99,
        **options: Any,
    ):
        train = data.splits["train"]
        inputs_NF = np.stack([np.asarray(pixels).ravel() for pixels in train["pixel_values"]])

        def make_student(target_dim: int | None = None) -> Any:
            return adapted(data.make_student(bank.dim, target_dim))

        super().__init__(train, bank, make_student, inputs_NF, TwoViews(), **options)
        self.data, self.decay, self.make_student_for = data, decay, make_student

    def make_trainer(self, arm: ArmPlan, args: CoLearningArguments) -> CoLearningTrainer:
        """The trainer of an arm, as `run_recipe` asks for it; the first of two stages is trained here."""
        assert isinstance(arm, SemiSupervisedArm)
        if arm.method not in _OBJECTIVES:
            return super().make_trainer(arm, args)
        pretrained, (_, second) = self.pretrained(arm, args).model, halves(args)
        train = self.few_labels(arm, args.seed)
        if arm.method == BOTH:
            return self._trainer(second, train, pretrained, bank=self.bank, pairing=arm.pairing)
        return self._trainer(second, labelled(train), pretrained)

    def pretrained(self, arm: SemiSupervisedArm, args: CoLearningArguments) -> CoLearningTrainer:
        """The trainer of the first stage after its training, which has seen no label."""
        first, _ = halves(args)
        first.alpha, first.labelled_per_batch = 1.0, None
        objective = _OBJECTIVES[arm.method](
            arm.setting["ratio"], layers=LAYERS, normalization=self.data.normalization, decay=self.decay
        )
        student = self.make_student_for(self.data.patch_values if arm.method == INPUTS else HIDDEN)
        unlabelled = self.train.remove_columns("labels")
        return self._trained(first, unlabelled, student=student, objective=objective)
