"""Many small tasks through one trunk, or through one trunk each: the tasks' data, the arms, their trainers and scores.

Shapes: N samples, T tasks, C classes of a task, F features.
"""

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from datasets import Dataset, concatenate_datasets
from transformers import PrinterCallback, ProgressCallback
from transformers.trainer_utils import TrainOutput

from hf_colearn.analysis.run import Run, Samples
from hf_colearn.analysis.runs import means_table
from hf_colearn.arguments import CoLearningArguments
from hf_colearn.co_training.labels import relabelled
from hf_colearn.corpora.emoji import load_emoji
from hf_colearn.corpora.handwritten_digits import load_handwritten_digits
from hf_colearn.corpora.spoken_digits import read_spoken_digits
from hf_colearn.corpora.stamps import load_stamps
from hf_colearn.data.splits import cut_validation, few_per_class
from hf_colearn.data.unpaired import UnpairedBatches
from hf_colearn.experiments.arms import TunedArm
from hf_colearn.experiments.cost import Cost
from hf_colearn.experiments.late_ensemble import one_log
from hf_colearn.experiments.packaged_models import (
    PACKAGED_LANGUAGE,
    PACKAGED_VISION,
    language_teacher,
    vision_teacher,
)
from hf_colearn.experiments.scoring import own_run
from hf_colearn.models.lora import base_model
from hf_colearn.models.many_tasks import CoLearningForManyTasks
from hf_colearn.models.spectrogram import SpectrogramFeatureExtractor
from hf_colearn.models.standardization import Standardization
from hf_colearn.teachers.bank import TeacherBank
from hf_colearn.trainer import CoLearningTrainer
from hf_colearn.utils.extras import extra
from hf_colearn.utils.tables import text_table


APART, TOGETHER, THEN_ALONE = "one model a task", "one trunk", "one trunk, then each task alone"
SHUFFLED = "one trunk, other labels shuffled"


# ---- the tasks ----
@dataclass(frozen=True)
class Task:
    """A task's data: its samples as torch tensors, `{modality}_{input}` and `labels`, and the stems of its modalities."""

    stems: Mapping[str, Mapping[str, Any]]
    samples: Dataset
    id2label: dict[int, str]

    @classmethod
    def of(cls, stems: Mapping[str, Mapping[str, Any]], labels: Any, names: Any, **columns: Any) -> "Task":
        """Of columns `(N, ...)` and N classes. The columns lie in memory, and a sample is their row."""
        tensors = {name: torch.as_tensor(np.asarray(column, dtype=np.float32)) for name, column in columns.items()}

        def read(batch: dict[str, list[int]]) -> dict[str, Any]:
            values = {name: column[batch["row"]] for name, column in tensors.items()} if "row" in batch else {}
            return values | {name: torch.tensor(value) for name, value in batch.items() if name != "row"}

        samples = Dataset.from_dict({"row": np.arange(len(labels)), "labels": np.asarray(labels)})
        return cls(stems, samples.with_transform(read), {index: str(name) for index, name in enumerate(names)})


def digits_task() -> Task:
    """Handwritten digits of 8 x 8 pixels: 16 patches."""
    digits = _whole(load_handwritten_digits())
    stem = {"kind": "patches", "image_size": 8, "patch_size": 2, "num_channels": 1}
    pixels_N1HW = np.stack([np.asarray(image) for image in digits["image"]])[:, None] / 127.5 - 1
    return Task.of({"digit": stem}, digits["label"][:], range(10), digit_pixel_values=pixels_N1HW)


def pictures_task(size: int = 32) -> Task:
    """Pictures of emoji and their 8 categories: 16 patches."""
    emoji = _whole(load_emoji(size=size))
    stem = {"kind": "patches", "image_size": size, "patch_size": size // 4, "num_channels": 3}
    pixels_N3HW = (
        np.stack([np.asarray(image.convert("RGB")) for image in emoji["image"]]).transpose(0, 3, 1, 2) / 127.5 - 1
    )
    return Task.of(
        {"picture": stem}, emoji["label"][:], emoji.features["label"].names, picture_pixel_values=pixels_N3HW
    )


def names_task() -> Task:
    """Names of emoji as MiniLM reads them, and their 8 categories: a vector that becomes 4 tokens."""
    emoji = _whole(load_emoji(size=16))
    features_NF = _encoded(language_teacher(PACKAGED_LANGUAGE, "mean"), emoji["text"][:])
    stem = {"kind": "features", "feature_dim": features_NF.shape[1], "num_tokens": 4, "standardized": True}
    return Task.of({"name": stem}, emoji["label"][:], emoji.features["label"].names, name_features=features_NF)


def table_task(name: str) -> Task:
    """A table of scikit-learn, `"wine"` or `"cancer"`: a token a column."""
    with extra("demo", "the tables come with scikit-learn"):
        from sklearn.datasets import load_breast_cancer, load_wine
    table = {"wine": load_wine, "cancer": load_breast_cancer}[name]()
    stem = {"kind": "table", "num_columns": table.data.shape[1]}
    return Task.of({name: stem}, table.target, table.target_names, **{f"{name}_features": table.data})


def speech_task(folder: str) -> Task:
    """Spoken digits of a folder as spectrograms of 40 bands and 48 frames: 12 tokens."""
    clips = read_spoken_digits(folder, 8000)
    mel = SpectrogramFeatureExtractor(size=(40, 48), sampling_rate=8000, n_fft=512, seconds=0.75)
    pixels_N1HW = mel([clip.wave for clip in clips], sampling_rate=8000)["pixel_values"]
    stem = {"kind": "frames", "num_bands": 40, "max_length": 48, "patch_length": 4}
    return Task.of({"speech": stem}, [clip.label for clip in clips], range(10), speech_pixel_values=pixels_N1HW)


def stamps_task(folder: str) -> Task:
    """Tux Paint's stamps, two modalities of a sample, as frozen networks see and read them: 4 tokens each."""
    stamps = _whole(load_stamps(folder, test_share=0.25))
    seen_NF = _encoded(vision_teacher(PACKAGED_VISION, "pooler"), stamps["image"][:])
    read_NF = _encoded(language_teacher(PACKAGED_LANGUAGE, "mean"), stamps["text"][:])
    stems = {
        name: {"kind": "features", "feature_dim": features_NF.shape[1], "num_tokens": 4, "standardized": True}
        for name, features_NF in (("stamp", seen_NF), ("sentence", read_NF))
    }
    labels, names = stamps["label"][:], stamps.features["label"].names
    return Task.of(stems, labels, names, stamp_features=seen_NF, sentence_features=read_NF)


def _whole(splits: Mapping[Any, Dataset]) -> Dataset:
    return concatenate_datasets([*splits.values()])


def _encoded(encoder: Any, inputs: Sequence[Any]) -> torch.Tensor:
    bank = TeacherBank.encode(encoder, inputs, show_progress=False)
    return bank.lookup(np.arange(len(bank)))


# Of scikit-learn and of packages; the others are of folders.
PACKAGED: dict[str, Callable[[], Task]] = {
    "digits": digits_task,
    "pictures": pictures_task,
    "names": names_task,
    "wine": lambda: table_task("wine"),
    "cancer": lambda: table_task("cancer"),
}
OF_FOLDERS: dict[str, Callable[[str], Task]] = {"speech": speech_task, "stamps": stamps_task}


# ---- arms ----
def many_tasks_arms() -> list[TunedArm]:
    """What the recipe trains, each at its usual setting, with as many updates a task.

    | arm | kind | what is trained |
    |---|---|---|
    | one model a task | baseline | a model of the same size for every task |
    | one trunk, other labels shuffled | null | for every task a model of all tasks, the labels of the others being permuted |
    | one trunk, then each task alone | co-learned | one model of all tasks for half of the steps, then a copy for every task |
    | one trunk | co-learned | one model of all tasks |
    """
    grid = tuple({"rate": rate} for rate in (0.3, 1.0, 3.0))
    return [
        TunedArm(APART, "baseline", grid=grid),
        TunedArm(SHUFFLED, "null", grid=grid),
        TunedArm(THEN_ALONE, "colearned", grid=grid),
        TunedArm(TOGETHER, "colearned", grid=grid),
    ]


@dataclass(frozen=True)
class Fit:
    """One model's training: on which data, for how many steps, for which tasks; perhaps from the first fit's weights."""

    data: Mapping[str, Dataset]
    steps: int
    scored: tuple[str, ...] = ()
    goes_on: bool = False


class ManyTasks:
    """Builds the trainers of [`many_tasks_arms`].

    Args:
        tasks (`dict[str, Task]`): By name.
        trunk (`dict`): Sizes of the layers.
        latent_dim (`int`): D.
        labels_per_class (`int`): How many samples of every class are trained on, drawn by the run's seed.
        split_seed (`int`): Draws validation (21 %) and test (30 %).
        trainer_kwargs: As of [`CoLearningTrainer`].
    """

    def __init__(
        self,
        tasks: Mapping[str, Task],
        trunk: Mapping[str, int],
        latent_dim: int,
        labels_per_class: int,
        split_seed: int,
        **trainer_kwargs: Any,
    ):
        self.tasks, self.trunk, self.latent_dim = tasks, trunk, latent_dim
        self.labels_per_class, self.trainer_kwargs = labels_per_class, trainer_kwargs
        self.train, self.validation, self.test = dict[str, Dataset](), dict[str, Dataset](), dict[str, Dataset]()
        for name, task in tasks.items():
            rest, self.test[name] = cut_validation(task.samples, 0.3, split_seed, "labels")
            self.train[name], self.validation[name] = cut_validation(rest, 0.3, split_seed, "labels")

    def make_model(self, names: Sequence[str]) -> CoLearningForManyTasks:
        """A new model of these tasks, which standardises by their training parts."""
        tasks = {name: self.tasks[name] for name in names}
        model = CoLearningForManyTasks.from_stems(
            {modality: stem for task in tasks.values() for modality, stem in task.stems.items()},
            {name: {"modalities": list(task.stems), "id2label": task.id2label} for name, task in tasks.items()},
            self.trunk,
            self.latent_dim,
        )
        for name, task in tasks.items():
            for modality in task.stems:
                standardization = getattr(model.stems[modality], "standardization", None)
                if isinstance(standardization, Standardization):
                    standardization.set_statistics(self.train[name][:][f"{modality}_features"])
        return model

    def make_trainer(self, arm: TunedArm, args: CoLearningArguments) -> "FitsTrainer":
        """The trainer of an arm, as `run_recipe` asks for it."""
        few = {
            name: few_per_class(part, self.labels_per_class, args.seed, "labels") for name, part in self.train.items()
        }
        fits = fits_of(arm.method, few, args.max_steps, args.seed)
        return FitsTrainer(fits, self.make_model, args, eval_dataset=self.validation, **self.trainer_kwargs)


def fits_of(method: str, few: Mapping[str, Dataset], steps: int, seed: int) -> list[Fit]:
    """What an arm trains, one after another; every task has `steps / T` updates of the model that is scored on it."""
    names, share = tuple(few), steps // len(few)
    if share < 2:
        raise ValueError(f"max_steps={steps} are shared by {len(few)} tasks: pass at least {2 * len(few)}.")
    match method:
        case "one model a task":
            return [Fit({name: few[name]}, share, (name,)) for name in names]
        case "one trunk":
            return [Fit(few, share * len(few), names)]
        case "one trunk, other labels shuffled":
            wrong = {name: shuffled(part, seed) for name, part in few.items()}
            return [Fit({**wrong, name: few[name]}, share * len(few), (name,)) for name in names]
        case "one trunk, then each task alone":
            first = share // 2
            alone = [Fit({name: few[name]}, share - first, (name,), goes_on=True) for name in names]
            return [Fit(few, first * len(few)), *alone]
    raise ValueError(f"there is no arm '{method}' of many tasks: take those of `many_tasks_arms`.")


def shuffled(samples: Dataset, seed: int) -> Dataset:
    """The same samples with their labels permuted."""
    labels_N = np.random.default_rng(seed).permutation(samples["labels"][:].numpy())
    return relabelled(samples, labels_N)


class FitsTrainer(CoLearningTrainer):
    """Trains one model after another, and predicts every task by the one that is for it.

    Args:
        fits (`Sequence[Fit]`): What is trained.
        make_model (`Callable`): From tasks to a new model; the first fit's is the trainer's own.
        args ([`CoLearningArguments`]): Of all fits, but for their steps and folders.
        eval_dataset (`dict[str, datasets.Dataset]`): By task.
        trainer_kwargs: As of [`CoLearningTrainer`], of all fits.
    """

    def __init__(
        self, fits: Sequence[Fit], make_model: Any, args: CoLearningArguments, eval_dataset: Any, **trainer_kwargs: Any
    ):
        self.fits, self.make_model, self.models = fits, make_model, dict[str, Any]()
        self.fit_kwargs, self._validation = trainer_kwargs, eval_dataset
        data = UnpairedBatches(fits[0].data, dict.fromkeys(fits[0].data, 1.0))
        super().__init__(make_model(list(fits[0].data)), args, train_dataset=data, **trainer_kwargs)

    def train(self, *args: Any, **kwargs: Any) -> TrainOutput:
        # One fit after another, each with a trainer of its own.
        logs = []
        for number, fit in enumerate(self.fits):
            model = (
                self.model
                if number == 0
                else copy.deepcopy(self.model)
                if fit.goes_on
                else self.make_model(list(fit.data))
            )
            own = copy.deepcopy(self.args)
            own.max_steps, own.output_dir = fit.steps, f"{own.output_dir}/fit-{number}"
            data = UnpairedBatches(fit.data, dict.fromkeys(fit.data, 1.0))
            trainer = CoLearningTrainer(model, own, train_dataset=data, **self.fit_kwargs)
            for callback in (PrinterCallback, ProgressCallback):
                trainer.remove_callback(callback)
            trainer.train()
            self.models |= dict.fromkeys(fit.scored, base_model(trainer.model).eval())
            logs.append(trainer.state.log_history)
        self.state.log_history, steps = one_log(logs), sum(fit.steps for fit in self.fits)
        self.state.global_step = steps
        return TrainOutput(steps, float("nan"), {})

    def evaluate(self, eval_dataset=None, *_, **__):
        # By every task's model; the mean over the tasks is what arms are compared on.
        datasets = self._validation if eval_dataset is None else eval_dataset
        means = {name: accuracy(logits_of(self.models[name], name, part), part) for name, part in datasets.items()}
        of_tasks = {f"eval_accuracy_on_{name}": mean for name, mean in means.items()}
        return {"eval_accuracy": float(np.mean(list(means.values()))), **of_tasks}


def logits_of(model: Any, task: str, samples: Dataset) -> torch.Tensor:
    """What a model of many tasks makes of a task's samples, `(N, C)`."""
    found = []
    with torch.no_grad():
        for batch in samples.remove_columns("labels").iter(256):
            inputs = {name: value.to(model.device) for name, value in batch.items()}
            found.append(model.eval()(task=task, **inputs).logits.float().cpu())
    return torch.cat(found)


def accuracy(logits_NC: torch.Tensor, samples: Dataset) -> float:
    """The share of the samples whose label has the highest logit."""
    return float((logits_NC.argmax(1) == samples["labels"][:]).float().mean())


def tasks_run(
    trainer: CoLearningTrainer, test: UnpairedBatches, arm: str, kind: Any, *, cost: Cost | None = None, **_: Any
) -> Run:
    """Scores a run by the mean of the tasks' accuracies, `accuracy`, and by each, as `run_recipe(score=...)` takes it.

    Its predictions are those of all tasks, whose classes are counted one task after another.
    """
    models = getattr(trainer, "models", None) or dict.fromkeys(test.datasets, base_model(trainer.model))
    labels, confidences, predictions, groups, names, means = [], [], [], [], list[str](), dict[str, float]()
    for task, samples in test.datasets.items():
        logits_NC = logits_of(models[task], task, samples)
        means[f"accuracy_on_{task}"] = accuracy(logits_NC, samples)
        probabilities_NC = logits_NC.softmax(1).numpy()
        labels.append(samples["labels"][:].numpy() + len(names))
        predictions.append(probabilities_NC.argmax(1) + len(names))
        confidences.append(probabilities_NC.max(1))
        groups += [task] * len(samples)
        names += [f"{task}: {name}" for name in models[task].config.tasks[task]["id2label"].values()]
    labels_N = np.concatenate(labels)
    return own_run(
        trainer,
        arm,
        kind,
        cost,
        labels_N,
        names,
        metrics={"accuracy": float(np.mean(list(means.values()))), **means},
        predictions=np.concatenate(predictions),
        confidences=np.concatenate(confidences),
        test=Samples(labels_N, None),
        groups={"task": np.asarray(groups)},
    )


def table_by_task(runs: Sequence[Run]) -> str:
    """The mean accuracy over the seeds by arm and task, in %."""
    names = [name for name in runs[0].metrics if name.startswith("accuracy_on_")]
    return text_table(means_table(runs, {name: name.removeprefix("accuracy_on_") for name in names}))
