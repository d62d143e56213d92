"""One task with few labels, and unpaired samples of another modality with the same classes, through one trunk: the data, the
arms, and their trainers and scores.

Shapes: N samples, F values of one.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from datasets import Dataset

from hf_colearn.analysis.run import Run
from hf_colearn.analysis.statistics.compare import Kind
from hf_colearn.arguments import CoLearningArguments
from hf_colearn.co_training.labels import relabelled
from hf_colearn.corpora.handwritten_digits import load_handwritten_digits
from hf_colearn.corpora.spoken_digits import Clip
from hf_colearn.data.splits import few_per_class, with_validation
from hf_colearn.data.unpaired import UnpairedBatches
from hf_colearn.experiments.arms import ArmPlan, TunedArm
from hf_colearn.experiments.scoring import scored_run
from hf_colearn.experiments.semi_supervised import rotated_components
from hf_colearn.models.many_tasks import CoLearningForManyTasks
from hf_colearn.models.spectrogram import SpectrogramFeatureExtractor
from hf_colearn.objectives.next_step_prediction import NextStepPrediction
from hf_colearn.teachers.bank import TeacherBank
from hf_colearn.teachers.pairing import Paired
from hf_colearn.trainer import CoLearningTrainer


ALONE, UNPAIRED, PAIRS = "alone", "unpaired", "true pairs"
NEXT_STEP, WRONG_CLASSES = "unpaired + next step", "unpaired, classes exchanged"
WRONG_LABELS, GAUSSIAN = "unpaired, labels permuted", "unpaired, Gaussian inputs"
STEP_ALONE, GAUSSIAN_STEP = "alone + next step", "unpaired + next step, Gaussian inputs"
BANDS, FRAMES = 40, 48  # of a spectrogram


# ---- data ----
@dataclass(frozen=True)
class Modality:
    """A modality's samples as torch tensors, `inputs` and `labels` by split, and the stem that reads them."""

    stem: Mapping[str, Any]
    splits: Mapping[str, Dataset]

    @classmethod
    def of(cls, stem: Mapping[str, Any], splits: Mapping[str, tuple[Any, Any]], scale: float = 1.0) -> "Modality":
        """Of inputs `(N, ...)`, which are standardised by the training part and multiplied by a scale, and labels `(N,)`."""
        train = np.asarray(splits["train"][0], dtype=np.float32)
        axes = (
            tuple(range(train.ndim)) if stem["kind"] != "features" else 0
        )  # of pictures and sound all values together
        mean, std = train.mean(axis=axes), np.maximum(train.std(axis=axes), 1e-6) / scale
        parts = {
            split: {"inputs": (np.asarray(inputs, dtype=np.float32) - mean) / std, "labels": np.asarray(labels)}
            for split, (inputs, labels) in splits.items()
        }
        return cls(stem, {split: Dataset.from_dict(part).with_format("torch") for split, part in parts.items()})

    @property
    def column(self) -> str:
        """What a student of the modality alone calls its input."""
        return "features" if self.stem["kind"] == "features" else "pixel_values"


def written_digits() -> Modality:
    """Scikit-learn's digits of 8 x 8 pixels as 16 patches; a third of the training part is for validation."""
    parts = with_validation(load_handwritten_digits(), 1 / 3)
    pixels = {
        split: np.stack([np.asarray(image) for image in part["image"]])[:, None] for split, part in parts.items()
    }
    stem = {"kind": "patches", "image_size": 8, "patch_size": 2, "num_channels": 1}
    return Modality.of(stem, {split: (pixels[split], part["label"][:]) for split, part in parts.items()})


def spoken_digits(clips: Mapping[str, Sequence[Clip]], rate: int) -> Modality:
    """Spectrograms of clips, of which 0.75 s are heard, as 12 tokens of 4 frames."""
    mel = SpectrogramFeatureExtractor(size=(BANDS, FRAMES), sampling_rate=rate, n_fft=512, seconds=0.75)
    stem = {"kind": "frames", "num_bands": BANDS, "max_length": FRAMES, "patch_length": 4}
    return Modality.of(
        stem,
        {
            split: (
                mel([clip.wave for clip in part], sampling_rate=rate)["pixel_values"],
                [clip.label for clip in part],
            )
            for split, part in clips.items()
        },
    )


def of_features(
    features: Mapping[str, torch.Tensor], labels: Mapping[str, Sequence[int]], tokens: int = 4, scale: float = 1.0
) -> Modality:
    """Features `(N, F)` of a frozen encoder by split, standardised and scaled: one vector becomes some tokens."""
    stem = {"kind": "features", "feature_dim": features["train"].shape[1], "num_tokens": tokens}
    return Modality.of(stem, {split: (features[split].numpy(), labels[split]) for split in features}, scale)


def gaussian_like(samples: Dataset, seed: int) -> Dataset:
    """As many samples of a Gaussian with the mean and the covariance of the inputs, with their labels: mean + Z (X - mean) /
    sqrt(N), Z of standard normal numbers `(N, N)`."""
    inputs = samples["inputs"][:].numpy()
    mean, count = inputs.mean(axis=0), len(inputs)
    noise_NN = np.random.default_rng(seed).standard_normal((count, count), dtype=np.float32)
    drawn = (noise_NN @ (inputs - mean).reshape(count, -1) / np.sqrt(count)).reshape(inputs.shape) + mean
    return Dataset.from_dict({"inputs": drawn, "labels": samples["labels"][:].numpy()}).with_format("torch")


def exchanged_classes(labels_N: np.ndarray, seed: int) -> np.ndarray:
    """The labels with every class called by the name of another one, always the same: a cycle through all, drawn by a seed."""
    order = np.random.default_rng(seed).permutation(labels_N.max() + 1)
    renamed = np.empty_like(order)
    renamed[order] = np.roll(order, 1)
    return renamed[labels_N]


# ---- arms ----
_RATES = ({"rate": 0.3}, {"rate": 1.0}, {"rate": 3.0})
_WEIGHTS = ({"weight": 0.1, "rate": 1.0}, {"weight": 0.3, "rate": 1.0}, {"weight": 1.0, "rate": 1.0})
_TARGETS = ({"alpha": 0.9, "rate": 3.0}, {"alpha": 0.9, "rate": 10.0}, {"alpha": 0.95, "rate": 10.0})


@dataclass(frozen=True)
class UnpairedArm(TunedArm):
    """One arm; `weight` of its setting is a in L = CE(own) + a CE(other), `alpha` that of an objective.

    Args:
        is_alone (`bool`, *optional*, defaults to `False`): Whether the own task has all batches, one a step; else a step has
            one of each task.
        has_next_step (`bool`, *optional*, defaults to `False`): Whether a causal trunk predicts the next step of its inputs.
    """

    is_alone: bool = False
    has_next_step: bool = False

    def arguments(self, training: Mapping[str, Any], seed: int) -> CoLearningArguments:
        """Those of one run."""
        args = super().arguments({**training, "gradient_accumulation_steps": 1 if self.is_alone else 2}, seed)
        args.alpha = self.setting.get("alpha")
        return args


def unpaired_arms(has_pairs: bool, is_sequence: bool) -> list[UnpairedArm]:
    """What the recipe trains: the own task with few labels, with as many updates in every arm; and in the same step, but for
    the first one, a batch of another modality, all of which has labels.

    | arm | kind | what else is trained on |
    |---|---|---|
    | alone | baseline | nothing: a = 0 |
    | unpaired | co-learned | the other modality, by the same trunk and head |
    | unpaired + next step | co-learned | and the next step of either input, in a causal trunk; where inputs are sequences |
    | unpaired, classes exchanged | reference | every class of the other modality is taken for another one |
    | unpaired, labels permuted | null | the other modality with wrong labels |
    | unpaired, Gaussian inputs | null | Gaussian inputs of the other modality's moments |
    | alone + next step | null | nothing, and the next step of the own inputs; where inputs are sequences |
    | unpaired + next step, Gaussian inputs | null | Gaussian inputs, and the next step of either; where inputs are sequences |
    | true pairs | reference | its latents of the same things as targets, of unlabelled samples, too; where there are pairs |
    """

    def arm(name: str, kind: Kind, grid: tuple[Mapping[str, float], ...] = _WEIGHTS, **fields: Any) -> UnpairedArm:
        return UnpairedArm(name, kind, grid=grid, **fields)

    def next_step(
        name: str, kind: Kind, grid: tuple[Mapping[str, float], ...] = _WEIGHTS, **fields: Any
    ) -> UnpairedArm:
        return arm(name, kind, tuple({**each, "alpha": 0.3} for each in grid), has_next_step=True, **fields)

    arms = [arm(ALONE, "baseline", _RATES, is_alone=True), arm(UNPAIRED, "colearned")]
    if is_sequence:
        arms.append(next_step(NEXT_STEP, "colearned"))
    arms += [arm(WRONG_CLASSES, "reference"), arm(WRONG_LABELS, "null"), arm(GAUSSIAN, "null")]
    if is_sequence:
        arms += [next_step(STEP_ALONE, "null", _RATES, is_alone=True), next_step(GAUSSIAN_STEP, "null")]
    return arms + ([arm(PAIRS, "reference", _TARGETS)] if has_pairs else [])


class Unpaired:
    """Builds the trainers of [`unpaired_arms`], and scores the students that they come to.

    Args:
        own, other (`tuple[str, Modality]`): Names and data; of the other modality only the training part is seen.
        labels_per_class (`int`): Labelled samples of the own modality, drawn by the run's seed; it has no others.
        id2label (`dict[int, str]`): Of both.
        trunk (`dict`): Sizes of the layers.
        latent_dim (`int`): D.
        trainer_kwargs: Of every trainer, such as `compute_metrics`.
    """

    def __init__(
        self,
        own: tuple[str, Modality],
        other: tuple[str, Modality],
        labels_per_class: int,
        id2label: Mapping[int, str],
        trunk: Mapping[str, Any],
        latent_dim: int,
        optimizer: Callable[[CoLearningArguments], Any] | None = None,
        **trainer_kwargs: Any,
    ):
        (self.own, self.own_data), (self.other, self.other_data) = own, other
        self.labels_per_class, self.id2label = labels_per_class, dict(id2label)
        self.trunk, self.latent_dim = trunk, latent_dim
        self.optimizer, self.trainer_kwargs = optimizer, trainer_kwargs

    def own_part(self, split: str) -> Dataset:
        """A split of the own modality, as a student of it alone takes it."""
        return self.own_data.splits[split].rename_column("inputs", self.own_data.column)

    def evaluation(self, split: str) -> UnpairedBatches:
        """The same for the model of both tasks."""
        return UnpairedBatches({self.own: self._named(self.own, self.own_data, self.own_data.splits[split])})

    def few(self, seed: int) -> Dataset:
        """The labelled samples of the own modality, with their `row` in the training part."""
        train = self.own_data.splits["train"]
        return few_per_class(train.add_column("row", np.arange(len(train))), self.labels_per_class, seed, "labels")

    def make_model(self, weight: float = 0.0, second: str | None = None, **options: Any) -> CoLearningForManyTasks:
        """A model of both modalities with one head, the same for a seed in every arm; `second` is the modality of the second
        task, by default the other one."""
        own = {"modalities": [self.own], "id2label": self.id2label, "head": "classes"}
        tasks: dict[str, Mapping[str, Any]] = {
            self.own: own,
            self.other: {**own, "modalities": [self.other], "weight": weight},
        }
        if second == self.own:
            tasks["pairs"] = own
        stems = {self.own: self.own_data.stem, self.other: self.other_data.stem}
        return CoLearningForManyTasks.from_stems(stems, tasks, self.trunk, self.latent_dim, **options)

    def make_trainer(self, arm: ArmPlan, args: CoLearningArguments) -> CoLearningTrainer:
        """The trainer of an arm, as `run_recipe` asks for it."""
        assert isinstance(arm, UnpairedArm)
        own = {self.own: self._named(self.own, self.own_data, self.few(args.seed))}
        if arm.method == PAIRS:
            return self._of_pairs(args, own)
        data, weight = own if arm.is_alone else own | self._of_other(arm, args.seed), arm.setting.get("weight", 0.0)
        if not arm.has_next_step:
            return self._trainer(args, self.make_model(weight), data)
        heads = {f"next_step_{name}": _step_head(of.stem) for name, of in self._both.items()}
        model = self.make_model(weight, causal=True, training_heads=heads)
        return self._trainer(args, model, data, objective=NextStepPrediction())

    def scored(self, trainer: Any, test: Dataset, arm: str, kind: Kind, **kwargs: Any) -> Run:
        """Tests what is deployed, the student of the own modality alone, as `run_recipe(score=...)` asks for it."""
        own = self.few(trainer.args.seed).rename_column("inputs", self.own_data.column)
        args = replace(trainer.args, gradient_accumulation_steps=1)
        deployed = CoLearningTrainer(trainer.model.student(self.own), args, train_dataset=own, **self.trainer_kwargs)
        deployed.state = trainer.state
        return scored_run(deployed, test, arm, kind, **kwargs)

    # ---- parts of arms ----
    @property
    def _both(self) -> dict[str, Modality]:
        return {self.own: self.own_data, self.other: self.other_data}

    def _named(self, name: str, data: Modality, samples: Dataset) -> Dataset:
        return samples.rename_column("inputs", f"{name}_{data.column}")

    def _of_other(self, arm: UnpairedArm, seed: int) -> dict[str, Dataset]:
        samples = self.other_data.splits["train"]
        labels_N = samples["labels"][:].numpy()
        match arm.method:
            case "unpaired, labels permuted":
                samples = relabelled(samples, np.random.default_rng(seed).permutation(labels_N))
            case "unpaired, classes exchanged":
                samples = relabelled(samples, exchanged_classes(labels_N, seed))
            case "unpaired, Gaussian inputs" | "unpaired + next step, Gaussian inputs":
                samples = gaussian_like(samples, seed)
        return {self.other: self._named(self.other, self.other_data, samples)}

    @cached_property
    def _bank(self) -> TeacherBank:
        """Principal components of what the other modality shows of the same things, as wide as the latents."""
        inputs_NF = self.other_data.splits["train"]["inputs"][:].flatten(1).numpy()
        return TeacherBank.from_latents(rotated_components(inputs_NF, self.latent_dim), teacher="principal components")

    def _of_pairs(self, args: CoLearningArguments, own: dict[str, Dataset]) -> CoLearningTrainer:
        """Batches of labelled samples, and of all samples without labels; the other modality's latents are targets of both."""
        pairs = self._named(self.own, self.own_data, self.own_data.splits["train"]).remove_columns("labels")
        rows = np.concatenate([own[self.own]["row"][:].numpy(), np.arange(len(pairs))])
        model = self.make_model(second=self.own)
        return self._trainer(args, model, own | {"pairs": pairs}, bank=self._bank, pairing=Paired(rows))

    def _trainer(
        self, args: CoLearningArguments, model: CoLearningForManyTasks, data: Mapping[str, Dataset], **kwargs: Any
    ) -> CoLearningTrainer:
        batches = UnpairedBatches(data, dict.fromkeys(data, 1.0), every="micro_batch")
        if self.optimizer is not None:
            kwargs["optimizer_cls_and_kwargs"] = self.optimizer(args)
        return CoLearningTrainer(model, args, train_dataset=batches, **self.trainer_kwargs, **kwargs)


def _step_head(stem: Mapping[str, Any]) -> dict[str, Any]:
    """The training head that predicts the next token of pictures, or frames of a spectrogram."""
    if stem["kind"] == "patches":
        size = stem["patch_size"] ** 2 * stem["num_channels"]
    else:
        size = stem["num_bands"] * stem["patch_length"]
    return {"out_features": size, "reads": "dense_latents"}
