"""Spoken digits that predict a paired signal frame by frame: clips and features, targets, and the arms.

Shapes: T frames of a clip, M frames of all clips together, B clips of a batch, K mel bands, D dimensions of a target.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import numpy as np
import torch
from datasets import ClassLabel, Dataset, Features, List, Value
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedModel

from hf_colearn.analysis.statistics.compare import Kind
from hf_colearn.arguments import CoLearningArguments
from hf_colearn.corpora.dtmf import dtmf_digits
from hf_colearn.corpora.spoken_digits import Clip, read_spoken_digits
from hf_colearn.data.audio import read_waveform
from hf_colearn.data.views import TwoViews
from hf_colearn.experiments.arms import ArmPlan, pick
from hf_colearn.experiments.semi_supervised import (
    BUDGET,
    SemiSupervised,
    SemiSupervisedArm,
    ShuffledOnce,
    rotated_components,
)
from hf_colearn.models.spectrogram import SpectrogramFeatureExtractor
from hf_colearn.objectives.combined import Combined
from hf_colearn.objectives.dense_matching import DenseMatching
from hf_colearn.objectives.latent_matching import LatentMatching
from hf_colearn.teachers.bank import TeacherBank
from hf_colearn.teachers.encoder import FrozenEncoder
from hf_colearn.teachers.null_controls import gaussian_sequences
from hf_colearn.teachers.pairing import Paired, Pairing
from hf_colearn.teachers.sequence_bank import SequenceBank
from hf_colearn.teachers.teacher import Teacher
from hf_colearn.trainer import CoLearningTrainer


RATE, BANDS, FRAMES_A_SECOND = 8000, 40, 50  # of what the student hears; FSDD's rate, and Whisper's frames
SECONDS = 1  # of a clip; longer ones lose their end
TAKES = {"test": range(0, 5), "validation": range(5, 10)}  # FSDD's test set, and as many of the others

FRAMES, POOLED, BOTH = "frames", "pooled latents", "frames + pooled latents"
PERMUTED, RANDOM, OWN = "permuted pairs", "random frames", "own frames"


# ---- clips ----
def load_clips(folder: str | None, skip_bad_samples: bool = False) -> dict[str, list[Clip]]:
    """Spoken digits of FSDD's file names, cut into train, validation and test by their takes; DTMF tones without a folder."""
    if folder is not None:
        clips = read_spoken_digits(folder, RATE, skip_bad_samples)
    else:
        clips = []
        for name, samples_L in dtmf_digits(72):
            digit, phone, take = name.removesuffix(".wav").split("_")
            wave_L, _ = read_waveform(samples_L, name, array_rate=RATE)
            clips.append(Clip(name, int(digit), phone, int(take), wave_L))
    if unknown := [clip.clip_id for clip in clips if clip.take is None]:
        raise ValueError(
            f"'{unknown[0]}' tells no take: name files '{{digit}}_{{speaker}}_{{take}}.wav', as FSDD does."
        )
    splits: dict[str, list[Clip]] = {"train": [], "validation": [], "test": []}
    for clip in clips:
        splits[next((split for split, takes in TAKES.items() if clip.take in takes), "train")].append(clip)
    if empty := [split for split, of_split in splits.items() if not of_split]:
        raise ValueError(
            f"there are no clips for {empty[0]}: takes 0 to 4 are for test, 5 to 9 for validation, others train."
        )
    return splits


def drawn(clips: Sequence[Clip], number: int | None) -> list[Clip]:
    """So many of the clips, the same ones every time; all by default."""
    return [clips[i] for i in np.random.default_rng(0).permutation(len(clips))[:number]]


def heard(clips: Sequence[Clip]) -> list[np.ndarray]:
    """The log-mel frames of clips, `(T, K)` float32 each, a frame every 20 ms."""
    steps = SECONDS * FRAMES_A_SECOND
    mel = SpectrogramFeatureExtractor(size=(BANDS, steps + 1), sampling_rate=RATE, seconds=SECONDS)

    def frames(wave_L: np.ndarray) -> np.ndarray:
        bands_KT = np.asarray(mel(wave_L, sampling_rate=RATE)["pixel_values"][0])[0]
        return bands_KT.T[: -(-len(wave_L) * FRAMES_A_SECOND // RATE)].astype(np.float32)

    return [frames(clip.wave) for clip in clips]


def frame_dataset(frames: Sequence[np.ndarray], clips: Sequence[Clip]) -> Dataset:
    """A dataset of `features`, the frames one after another, `labels` and `sample_id`, for [`StackedFrames`]."""
    columns = {
        "features": [frames_TK.reshape(-1) for frames_TK in frames],
        "labels": [clip.label for clip in clips],
        "sample_id": np.arange(len(clips)),
    }
    digits = ClassLabel(names=[str(digit) for digit in range(10)])
    kinds = Features({"features": List(Value("float32")), "labels": digits, "sample_id": Value("int64")})
    return Dataset.from_dict(columns, features=kinds).with_format("torch")


class StackedFrames:
    """A collator: every frame with its neighbours, `features` `(B, T, (2 context + 1) K)`, and their `attention_mask` `(B, T)`.

    Args:
        context (`int`): How many frames before and after a frame its features hold.
    """

    def __init__(self, context: int):
        self.context = context

    def __call__(self, samples: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        stacked = [self.stacked(sample["features"].view(-1, BANDS)) for sample in samples]
        mask_BT = pad_sequence([torch.ones(len(x), dtype=torch.int64) for x in stacked], batch_first=True)
        batch: dict[str, Any] = {"features": pad_sequence(stacked, batch_first=True), "attention_mask": mask_BT}
        if "labels" in samples[0]:
            batch["labels"] = torch.stack([torch.as_tensor(sample["labels"]) for sample in samples])
        return batch

    def stacked(self, frames_TK: torch.Tensor) -> torch.Tensor:
        """One clip's, `(T, (2 context + 1) K)`; beyond its ends are its first and its last frame."""
        first, last = (frame.expand(self.context, -1) for frame in (frames_TK[:1], frames_TK[-1:]))
        return torch.cat([first, frames_TK, last]).unfold(0, 2 * self.context + 1, 1).flatten(1)


# ---- targets ----
def encoded_frames(encoder: FrozenEncoder, clips: Sequence[Clip]) -> list[np.ndarray]:
    """The teacher's latents of every frame of the clips, `(T, H)` each."""
    bank = SequenceBank.encode(encoder, [{"array": clip.wave, "sampling_rate": RATE} for clip in clips])
    return [bank.lookup([row])[0].numpy() for row in range(len(bank))]


def principal_frames(frames: Sequence[np.ndarray], dim: int, what: str) -> SequenceBank:
    """A bank of the frames' own principal components, see [`~hf_colearn.experiments.semi_supervised.rotated_components`]."""
    ends = np.cumsum([len(each) for each in frames])[:-1]
    return SequenceBank.from_sequences(np.split(rotated_components(np.concatenate(frames), dim), ends), teacher=what)


# ---- arms ----
_RATES = ({"rate": 0.3}, {"rate": 1.0}, {"rate": 3.0})
_OWN_LABELS = ({"share": 0.5, "rate": 1.0}, {"share": 0.5, "rate": 3.0}, {"share": 1.0, "rate": 1.0})
_TARGETS = ({"alpha": 0.8, "rate": 1.0}, {"alpha": 0.9, "rate": 3.0}, {"alpha": 0.95, "rate": 3.0})


def dense_signal_arms(labels_per_class: int, names: Sequence[str] | None = None) -> list[SemiSupervisedArm]:
    """What the recipe trains at a number of labels a class, all with the same student and as many updates; of these names.

    | arm | kind | what it is trained on |
    |---|---|---|
    | labels alone | baseline | the labelled clips |
    | frames | co-learned | labels, and the teacher's latents frame by frame ([`DenseMatching`]) |
    | frames + pooled latents | co-learned | labels and both, in equal parts |
    | pooled latents | reference | labels, and the mean of the teacher's frames ([`LatentMatching`]): what frames add to it |
    | self-training | null | half of the updates as labels alone; then a new student, its predictions as labels, too |
    | permuted pairs | null | labels, and the frames of a fixed wrong clip |
    | random frames | null | labels, and Gaussian frames of the same moments |
    | own frames | null | labels, and the principal components of what the student hears |
    """

    def arm(
        name: str, kind: Kind, pairing: Pairing | None = None, grid: tuple[Mapping[str, float], ...] = _TARGETS
    ) -> SemiSupervisedArm:
        return SemiSupervisedArm(name, kind, pairing=pairing, grid=grid, two_streams=pairing is not None)

    arms = [
        arm("labels alone", "baseline", grid=_RATES),
        arm(FRAMES, "colearned", Paired()),
        arm(BOTH, "colearned", Paired()),
        arm(POOLED, "reference", Paired()),
        arm("self-training", "null", grid=_OWN_LABELS),
        arm(PERMUTED, "null", ShuffledOnce()),
        arm(RANDOM, "null", Paired()),
        arm(OWN, "null", Paired()),
    ]
    return [cast(SemiSupervisedArm, each.at(BUDGET, labels_per_class)) for each in pick(arms, names)]


class DenseSignal(SemiSupervised):
    """Builds the trainers of [`dense_signal_arms`].

    Args:
        train ([`datasets.Dataset`]): [`frame_dataset`] of the training clips.
        signal ([`SequenceBank`]): The paired signal of every clip, row i of sample id i.
        own ([`SequenceBank`]): The same of what the student hears.
        make_student (`Callable`): A new dense student, whose latents are as wide as the banks'.
        trainer_kwargs: For every trainer, such as `compute_metrics`.
    """

    def __init__(
        self,
        train: Dataset,
        signal: SequenceBank,
        own: SequenceBank,
        make_student: Callable[[], PreTrainedModel],
        **trainer_kwargs: Any,
    ):
        self.signal, self.own = signal, own
        pooled, own_pooled = (mean_of_frames(bank) for bank in (signal, own))
        super().__init__(
            train, pooled, make_student, own_pooled.lookup(range(len(own))).numpy(), TwoViews(), **trainer_kwargs
        )

    def make_trainer(self, arm: ArmPlan, args: CoLearningArguments) -> CoLearningTrainer:
        """The trainer of an arm, as `run_recipe` asks for it."""
        assert isinstance(arm, SemiSupervisedArm)
        if arm.pairing is None:  # labels alone, self-training
            return super().make_trainer(arm, args)
        train = self.few_labels(arm, args.seed)
        if arm.method == POOLED:
            return self._trainer(args, train, bank=self.bank, pairing=arm.pairing)
        if arm.method == BOTH:
            teachers = {"frames": Teacher(self.signal, arm.pairing), "pooled": Teacher(self.bank, arm.pairing)}
            both = Combined(DenseMatching("frames", lengths="interpolate"), LatentMatching(teachers=("pooled",)))
            return self._trainer(args, train, teachers=teachers, objective=both)
        bank = {RANDOM: lambda: gaussian_sequences(self.signal, args.seed), OWN: lambda: self.own}
        of_arm = bank.get(arm.method, lambda: self.signal)()
        return self._trainer(
            args, train, bank=of_arm, pairing=arm.pairing, objective=DenseMatching(lengths="interpolate")
        )


def mean_of_frames(bank: SequenceBank) -> TeacherBank:
    """One vector a row: the mean over its frames."""
    means_ND = np.stack([bank.lookup([row])[0].mean(dim=0).numpy() for row in range(len(bank))])
    return TeacherBank.from_latents(means_ND, teacher="the mean of a sequence's frames", of=bank.fingerprint)
