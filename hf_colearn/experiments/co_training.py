"""Self-training and co-training with few labels: the arms, their trainers, what is scored of them, and features of digits.

Shapes: N samples of a split, F features, C classes.
"""

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from datasets import Dataset
from PIL.Image import Resampling
from transformers import PreTrainedModel
from transformers.trainer_utils import TrainOutput

from hf_colearn.analysis.report.co_training import FACT
from hf_colearn.analysis.run import Run
from hf_colearn.analysis.statistics.compare import Kind
from hf_colearn.arguments import CoLearningArguments
from hf_colearn.co_training.co_train import co_train
from hf_colearn.co_training.fits import Fits, probabilities
from hf_colearn.co_training.frozen import FrozenView
from hf_colearn.co_training.labels import labels_of
from hf_colearn.co_training.result import CoTrainingResult
from hf_colearn.co_training.rounds import ENSEMBLE, ensemble
from hf_colearn.co_training.views import part_of
from hf_colearn.corpora.av_digits import load_av_digits
from hf_colearn.data.audio import read_waveform
from hf_colearn.data.sample_ids import NO_LABEL
from hf_colearn.data.splits import hide_labels
from hf_colearn.experiments.arms import ArmPlan, TunedArm, check_comparable, pick
from hf_colearn.experiments.late_ensemble import one_log
from hf_colearn.experiments.scoring import scored_run
from hf_colearn.experiments.semi_supervised import BUDGET, ORACLE
from hf_colearn.experiments.settings import with_chosen
from hf_colearn.experiments.stamps import StampOptions
from hf_colearn.models.spectrogram import SpectrogramFeatureExtractor
from hf_colearn.trainer import CoLearningTrainer


SELF, CO, PERMUTED = "self-training", "co-training", "permuted pairs"
WITH_TEXT, PERMUTED_TEXT = "co-training with prompts", "permuted sentences"
TRUE = "true_labels"
_RATES = ({"rate": 0.3}, {"rate": 1.0}, {"rate": 3.0})
_GAINED = ({"per_class": 5, "rate": 1.0}, {"per_class": 10, "rate": 1.0}, {"per_class": 20, "rate": 1.0})


def co_training_arms(with_prompts: bool = False) -> list[TunedArm]:
    """What the recipe trains, each with three settings.

    | arm | kind | what every student is fitted to |
    |---|---|---|
    | labels alone | baseline | the labelled samples, in one fit of all updates |
    | self-training | null | in rounds, these and the view's own most confident predictions |
    | permuted pairs | null | as co-training, the pool's partners drawn anew |
    | co-training | co-learned | in rounds, the labelled samples and the other view's most confident predictions |
    | co-training with prompts | co-learned | and those of a frozen language model of the sentences (`with_prompts`) |
    | permuted sentences | null | the same with other samples' sentences in the pool (`with_prompts`) |
    | label oracle | reference | all labels |
    """
    with_texts: list[tuple[str, Kind, Any]] = [
        (PERMUTED_TEXT, "null", _GAINED),
        (WITH_TEXT, "colearned", _GAINED),
    ]
    arms: list[tuple[str, Kind, Any]] = [
        ("labels alone", "baseline", _RATES),
        (SELF, "null", _GAINED),
        (PERMUTED, "null", _GAINED),
        (CO, "colearned", _GAINED),
        *(with_texts if with_prompts else []),
        (ORACLE, "reference", _RATES),
    ]
    return [TunedArm(name, kind, grid=grid) for name, kind, grid in arms]


@dataclass
class CoTrainingOptions(StampOptions):
    """What the recipe of co-training takes."""

    data: str = field(default="digits", metadata={"help": "digits (written and spoken) or stamps."})
    student: str = field(
        default="speech", metadata={"help": "The view that is scored: speech or image; of stamps text."}
    )
    teacher: str = field(default="image", metadata={"help": "The other view."})
    labels_per_class: list[int] = field(
        default_factory=lambda: [1, 2, 5],
        metadata={"help": "Pairs of every class that have a label; several are a sweep."},
    )
    latent_dim: int = field(default=64, metadata={"help": "Width of a student's latent."})
    rounds: int = field(default=4, metadata={"help": "After the first fits, which all updates are shared with."})
    max_samples: int | None = field(default=None, metadata={"help": "Digits of every split; all by default."})
    held_out: float | None = field(
        default=None,
        metadata={"help": "Share of the labelled pairs that each round is checked with; none by default."},
    )

    def __post_init__(self):
        super().__post_init__()
        if self.data not in ("digits", "stamps"):
            raise ValueError(f"data='{self.data}' is unknown: choose digits or stamps.")
        if self.data == "digits" and "text" in (self.student, self.teacher):
            raise ValueError("the digits have no text: choose speech and image as student and teacher.")

    @property
    def comparison(self) -> str:
        """The entry in the file of settings."""
        return f"{self.data}, {self.student} with {self.teacher}"

    def scale_of(self, view: str, scales: Mapping[str, float]) -> float:
        """That of a view's standardised features."""
        is_given = view == self.student and self.feature_scale is not None
        return cast(float, self.feature_scale) if is_given else scales[view]

    def plans(self, script: str, with_prompts: bool) -> list[TunedArm]:
        """The arms that `--arms` names at all levels of `--labels_per_class`, with their chosen settings; the oracle once."""
        arms = pick(co_training_arms(with_prompts), self.arms)
        swept = [arm.at(BUDGET, k) for k in self.labels_per_class for arm in arms if arm.method != ORACLE]
        plans = [cast(TunedArm, arm) for arm in [*swept, *(arm for arm in arms if arm.method == ORACLE)]]
        self.check_settings_file(script)
        if self.choose:
            if len(self.labels_per_class) > 1:
                raise ValueError(
                    f"--choose with --labels_per_class {self.labels_per_class}: choose at one number, such as 2."
                )
            return plans
        check_comparable(plans, self.seeds)
        return with_chosen(plans, self.settings_file(script), self.comparison)


# ---- the arms' trainers ----
class CoTrainings:
    """Builds the trainers of [`co_training_arms`].

    Args:
        train ([`datasets.Dataset`]): All training pairs with the columns of every view, `sample_id` and `labels` (classes), of
            which all but the arm's number of each class are hidden, drawn by the run's seed.
        test ([`datasets.Dataset`]): The same, to be scored after every round.
        students (`Mapping[str, Callable]`): By view that learns a function that makes its student, the scored one first.
        frozen (`Mapping[str, FrozenView]`): Those of the arms with prompts.
        rounds, held_out: As of [`co_train`].
        optimizer (`Callable`, *optional*): As of [`~hf_colearn.experiments.semi_supervised.SemiSupervised`].
        trainer_kwargs: For every trainer, such as `compute_metrics`.
    """

    def __init__(
        self,
        train: Dataset,
        test: Dataset,
        students: Mapping[str, Callable[[], PreTrainedModel]],
        frozen: Mapping[str, FrozenView],
        rounds: int,
        held_out: float | None = None,
        optimizer: Callable[[CoLearningArguments], Any] | None = None,
        **trainer_kwargs: Any,
    ):
        self.train = train.add_column(TRUE, labels_of(train)) if TRUE not in train.column_names else train
        self.test, self.students, self.frozen = test, dict(students), dict(frozen)
        self.rounds, self.held_out, self.optimizer, self.trainer_kwargs = rounds, held_out, optimizer, trainer_kwargs

    @property
    def main(self) -> str:
        """The view that is scored."""
        return next(iter(self.students))

    def make_trainer(self, arm: ArmPlan, args: CoLearningArguments) -> "CoTrainingTrainer":
        """The trainer of an arm, as `run_recipe` asks for it."""
        assert isinstance(arm, TunedArm)
        train = self.train if arm.sweep is None else hide_labels(self.train, int(arm.sweep[1]), args.seed, "labels")
        of_all, per_class = list(self.students), int(arm.setting.get("per_class", 0))
        groups: list[list[str]] = [of_all]  # the views that label for each other
        match arm.method:
            case "labels alone" | "label oracle":
                groups = []
            case "self-training":
                groups = [[view] for view in of_all]
            case "permuted pairs":
                train = permuted_pool(train, [view for view in of_all if view != self.main], args.seed)
            case "co-training with prompts" | "permuted sentences":
                groups = [[*of_all, *self.frozen]]
                if arm.method == PERMUTED_TEXT:
                    train = permuted_pool(train, list(self.frozen), args.seed)
            case method if method != CO:
                raise ValueError(f"there is no arm '{arm.name}' of co-training: take those of `co_training_arms`.")
        return CoTrainingTrainer(self, args, train, groups, per_class)

    def kwargs_of(self, args: CoLearningArguments) -> dict[str, Any]:
        """Those of every trainer."""
        optimizer = {} if self.optimizer is None else {"optimizer_cls_and_kwargs": self.optimizer(args)}
        return {**self.trainer_kwargs, **optimizer}


class CoTrainingTrainer(CoLearningTrainer):
    """Trains the students of all views, in rounds or in one fit each, and predicts with that of the scored view.

    The updates of a student are shared by its fits, so that all arms make as many.

    Args:
        of ([`CoTrainings`]): Views, data and rounds.
        args ([`CoLearningArguments`]): Those of one student in all its fits together.
        train ([`datasets.Dataset`]): With the labels that are not hidden.
        groups (`Sequence[Sequence[str]]`): The views that label for each other, by co-training; none for one fit to the labels.
        per_class (`int`): As of [`co_train`].
    """

    def __init__(
        self,
        of: CoTrainings,
        args: CoLearningArguments,
        train: Dataset,
        groups: Sequence[Sequence[str]],
        per_class: int,
    ):
        seen, _ = part_of(train, "training").view(of.main)
        super().__init__(of.students[of.main](), args, train_dataset=seen, **of.kwargs_of(args))
        self.of, self.train_pairs, self.groups, self.per_class = of, train, groups, per_class
        self.results: list[CoTrainingResult] = []
        self.trainers: dict[str, CoLearningTrainer] = {}
        if groups and args.max_steps < of.rounds + 1:
            raise ValueError(
                f"max_steps={args.max_steps} cannot be shared by {of.rounds + 1} fits of a student: train longer, or with "
                "fewer rounds."
            )

    def train(self, *args: Any, **kwargs: Any) -> TrainOutput:
        # The students are trained by trainers of their own; this one has the scored student's weights afterwards.
        resumes = bool(self.args.resume_from_checkpoint)
        for views in self.groups:
            result = self._co_trained(views, resumes)
            self.results.append(result)
            self.trainers |= result.trainers
        for view in self.of.students if not self.groups else ():
            self.trainers[view] = self._fitted(view)
        main: Any = self.trainers[self.of.main]
        self.model.load_state_dict(main.model.state_dict())
        self.predicted_labels = main.predicted_labels
        self.state.log_history, steps = self._history(), self.args.max_steps
        self.state.global_step = steps
        return TrainOutput(steps, float("nan"), {})

    def _co_trained(self, views: Sequence[str], resumes: bool) -> CoTrainingResult:
        args = copy.deepcopy(self.args)
        args.output_dir = str(Path(args.output_dir) / "-".join(views))
        args.max_steps //= self.of.rounds + 1
        learning = {view: make for view, make in self.of.students.items() if view in views}
        return co_train(
            {**learning, **{view: frozen for view, frozen in self.of.frozen.items() if view in views}},
            self.train_pairs,
            args,
            self.of.rounds,
            per_class=self.per_class,
            held_out=self.of.held_out,
            test_dataset=self.of.test,
            true_labels=TRUE,
            trainer_kwargs=dict.fromkeys(learning, self.of.kwargs_of(args)),
            resume=resumes,
            report=False,
        )

    def _fitted(self, view: str) -> CoLearningTrainer:
        """A student that was fitted once to the labels, with all updates."""
        part = part_of(self.train_pairs, "training")
        of_view = {view: self.of.students[view]}
        args, kwargs = {view: self.args}, {view: self.of.kwargs_of(self.args)}
        fits = Fits(of_view, args, kwargs, {"train": part}, Path(self.args.output_dir))
        trainer = fits.trainer(view, 0, part.labels)
        trainer.train()
        return trainer

    def _history(self) -> list[dict[str, Any]]:
        """The logs of the scored student's fits, one after another."""
        result = next((result for result in self.results if self.of.main in result.labels), None)
        if result is None:
            return self.trainers[self.of.main].state.log_history
        return one_log(fit["log"] for fit in result.fits[self.of.main])


def co_training_run(trainer: CoTrainingTrainer, test_dataset: Any, arm: str, kind: Kind, **options: Any) -> Run:
    """The run of an arm: the scored student's, with the accuracies of the other views and of the ensemble, and the rounds."""
    run = scored_run(trainer, test_dataset, arm, kind, **options)
    of = trainer.of
    part = part_of(of.test, "test")
    found = {view: probabilities(student, part, view) for view, student in trainer.trainers.items()}
    if any(set(of.frozen) & set(views) for views in trainer.groups):
        for view, frozen in of.frozen.items():
            found[view] = frozen.probabilities(part.view(view)[0])
    others = {view: values for view, values in found.items() if view != of.main}
    for name, values_NC in {**others, ENSEMBLE: ensemble(found)}.items():
        run.metrics[f"{name}_accuracy"] = cast(float, part.accuracy(values_NC))
    result = next((result for result in trainer.results if of.main in result.labels), None)
    if result is not None:
        rounds = {"rounds": result.rounds, "kept": result.kept, "stopped": result.stopped, "main": of.main}
        run.facts[FACT] = rounds
    return run


def permuted_pool(train: Dataset, views: Sequence[str], seed: int) -> Dataset:
    """The training pairs, where samples without a label have the views of another one of them, drawn once."""
    rows = np.arange(len(train))
    pool = np.flatnonzero(labels_of(train) == NO_LABEL)
    rows[pool] = np.random.default_rng(seed).permutation(pool)
    moved = [name for name in train.column_names if any(name.startswith(f"{view}_") for view in views)]
    if not moved:
        raise ValueError(f"no column is of {', '.join(views)}, so there are no pairs to permute.")
    columns = train.with_format("numpy")
    values = {name: (columns[name][:][rows] if name in moved else columns[name][:]) for name in train.column_names}
    permuted = Dataset.from_dict(values, features=train.features)
    return permuted.with_format(train.format["type"], **train.format["format_kwargs"])


def pair_dataset(
    features: Mapping[str, torch.Tensor], labels: Sequence[int], texts: Sequence[str] | None = None
) -> Dataset:
    """A dataset of `{view}_features` `(N, F)`, `labels` and `sample_id`, as torch tensors, and the texts `sentence_text`."""
    columns: dict[str, Any] = {f"{view}_features": values_NF.numpy() for view, values_NF in features.items()}
    columns |= {"labels": np.asarray(labels), "sample_id": np.arange(len(labels))}
    return Dataset.from_dict(columns | ({} if texts is None else {"sentence_text": list(texts)})).with_format("torch")


# ---- digits ----
RATE, SECONDS, BANDS, SEGMENTS, SIDE = 8000, 2, 40, 8, 8


def load_digit_pairs(
    data_dir: str | None, student: str, seed: int, most: int | None = None, skip_bad_samples: bool = False
) -> dict[str, tuple[dict[str, torch.Tensor], list[int]]]:
    """Written and spoken digits paired by class, which makes the views independent given the class: by split the features of
    both views and the labels.

    In training no picture and no clip is in two pairs; of the test set every picture or clip of the student is in one.

    Args:
        data_dir (`str`, *optional*): Recordings; DTMF tones by default, as of
            [`~hf_colearn.corpora.av_digits.load_av_digits`], without noise and with whole pictures.
        student (`str`): The view that is scored.
        seed (`int`): Draws validation part and pairs.
        most (`int`, *optional*): Pairs of every split; all by default.
    """
    raw = load_av_digits(
        data_dir,
        image_energy=1.0,
        noise_snr_db=None,
        seed=seed,
        validation_share=0.2,
        skip_bad_samples=skip_bad_samples,
    )
    of_student = {"speech": "clip_id", "image": "image_id"}[student]
    pairs = {}
    for split, part in raw.items():
        _, first = np.unique(np.asarray(part[of_student if split == "test" else "image_id"][:]), return_index=True)
        once = part.select(np.sort(first)[:most])
        pairs[str(split)] = ({"speech": _segments(once), "image": _pixels(once)}, once["label"][:])
    return pairs


def _pixels(part: Dataset) -> torch.Tensor:
    """The pictures in 8 x 8 pixels, `(N, 64)`."""
    small = [np.asarray(image.resize((SIDE, SIDE), Resampling.BOX)).ravel() for image in part["image"]]
    return torch.from_numpy(np.stack(small)).float() / 255


def _segments(part: Dataset) -> torch.Tensor:
    """The log-mel bands of clips in eight segments of equal length, relative to the loudest cell, `(N, 8 * 40)`."""
    mel = SpectrogramFeatureExtractor(size=(BANDS, 50 * SECONDS + 1), sampling_rate=RATE, seconds=SECONDS)

    def heard(cell: Any) -> np.ndarray:
        wave_T = read_waveform(cell, "a clip", RATE)[0][: SECONDS * RATE]
        bands_KT = np.asarray(mel(wave_T, sampling_rate=RATE)["pixel_values"][0])[0]
        frames = max(SEGMENTS, -(-len(wave_T) * 50 // RATE))
        parts = np.array_split(bands_KT[:, :frames] - bands_KT.max(), SEGMENTS, axis=1)
        return np.concatenate([each.mean(axis=1) for each in parts])

    return torch.from_numpy(np.stack([heard(cell) for cell in part["audio"]])).float()
