"""What the trainer refuses in unpaired data of several tasks before it starts, each with the value at fault and the way out."""

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from datasets import Dataset, List, Value

from hf_colearn.alpha.alpha import Alpha
from hf_colearn.arguments import CoLearningArguments
from hf_colearn.data.labels import label_column, labelled_rows, problem_type_of
from hf_colearn.data.multimodal import check_modalities, complete_rows
from hf_colearn.data.unpaired import TASK_NAME, UnpairedBatches
from hf_colearn.models.lora import base_model
from hf_colearn.teachers.teacher import Teacher
from hf_colearn.training.data_checks import Collate, has_transform, labels_are_of, task_has_no_weight


def takes_tasks(model: Any) -> bool:
    """Whether a model computes one of several tasks, which a batch names."""
    return TASK_NAME in inspect.signature(base_model(model).forward).parameters


def tasks_of(model: Any) -> Mapping[str, Mapping[str, Any]] | None:
    """A model's tasks by name, with their `modalities` and `num_labels`; None where its configuration does not tell."""
    return getattr(getattr(base_model(model), "config", None), "tasks", None)


def problem_of_task(model: Any, task: str) -> str | None:
    """What the labels of a task are for, as transformers calls it; None where the configuration does not tell."""
    return ((tasks_of(model) or {}).get(task) or {}).get("problem_type")


def data_are_of_tasks(dataset: Any, model: Any, what: str = "the training set") -> None:
    """A model of several tasks takes unpaired data alone, and other models do not."""
    name, is_unpaired = type(base_model(model)).__name__, isinstance(dataset, UnpairedBatches)
    if is_unpaired and not takes_tasks(model):
        raise ValueError(
            f"{what} is of the tasks {_named(dataset.datasets)}, and {name} has no task: pass the data set of one, "
            "`data.datasets[...]`, with the columns that the model reads, or train a `CoLearningForManyTasks`."
        )
    known = tasks_of(model)
    if takes_tasks(model) and known is not None and not is_unpaired:
        pass_it = "UnpairedBatches(" if what == "the training set" else "UnpairedBatches.evaluation("
        raise ValueError(
            f"{what} is a {type(dataset).__name__}, which does not say of which task its samples are, and {name} needs to know "
            f"(it has {_named(known)}): pass `{pass_it}{{'task': dataset}})`."
        )
    if is_unpaired and known is not None and (other := [task for task in dataset.datasets if task not in known]):
        raise ValueError(
            f"{what} has the task '{other[0]}', and the model has {_named(known)}: name the data as the model's tasks."
        )


def losses_are_the_models(model: Any, compute_loss_func: Any, args: CoLearningArguments) -> None:
    """A model of several tasks weighs their losses, which a function or smoothed labels would take from it."""
    asked = "" if compute_loss_func is None else "compute_loss_func"
    asked = f"label_smoothing_factor={args.label_smoothing_factor}" if args.label_smoothing_factor else asked
    if asked and tasks_of(model) is not None:
        raise ValueError(
            f"{asked} takes the labels away from {type(base_model(model)).__name__}, which weighs the losses of its tasks "
            f"({_named(tasks_of(model))}): leave it out."
        )


def unpaired_data_fit(
    data: UnpairedBatches,
    args: CoLearningArguments,
    model: Any,
    teachers: Mapping[str, Teacher],
    alpha: Alpha | None = None,
    collate: Collate | None = None,
) -> None:
    """Every task's samples must have its modalities and labels within its classes; ids that the pairings can serve."""
    batches_can_be_of_one_task(model, args)
    _problems_are_told(data, model)
    _tasks_fit(data, model, collate)
    without = [task for task, dataset in data.datasets.items() if not _has_labels(dataset)]
    if without and (alpha is None or (len(without) == len(data.datasets) and not task_has_no_weight(alpha))):
        raise ValueError(
            f"none of the samples of the task '{without[0]}' has a label, so nothing would be learned from them: add labels in "
            "a column 'labels', leave the task out, or train with an objective."
        )
    if not teachers:
        return
    if args.id_column != data.id_column:
        raise ValueError(
            f"id_column='{args.id_column}' in the arguments, and the unpaired data have their ids in '{data.id_column}': pass "
            f"`UnpairedBatches(..., id_column='{args.id_column}')`."
        )
    if (ids := data.sample_ids) is None:
        raise ValueError(
            f"the ids in column '{data.id_column}' are no integers: remove it, so that the samples are numbered here."
        )
    for teacher in teachers.values():
        teacher.check(ids)


def evaluation_data_fit(evaluated: Any, model: Any, collate: Collate | None = None) -> None:
    """Every evaluation set must be of the model's kind, of one task, and its labels within the task's classes."""
    for dataset in evaluated.values() if isinstance(evaluated, Mapping) else [evaluated]:
        if dataset is None:
            continue
        data_are_of_tasks(dataset, model, "the evaluation set")
        if not isinstance(dataset, UnpairedBatches):
            continue
        if len(dataset.datasets) > 1:
            raise ValueError(
                f"the evaluation set is of the tasks {_named(dataset.datasets)}, which are measured one by one: pass "
                "`eval_dataset=UnpairedBatches.evaluation({...})`."
            )
        _tasks_fit(dataset, model, collate)
        for task, part in dataset.datasets.items():
            if not _has_labels(part):
                raise ValueError(
                    f"none of the {len(part)} samples of the evaluation set of '{task}' has a label, so there would be nothing "
                    "to measure: add labels, or leave it out."
                )


def _problems_are_told(data: UnpairedBatches, model: Any) -> None:
    """A task without a problem type gets the one that its labels tell, as a student does."""
    for task, spec in (tasks_of(model) or {}).items():
        found = problem_type_of(data.datasets.get(task), spec["num_labels"])
        if spec.get("problem_type") is None and found is not None:
            base_model(model).set_problem_type(found, task)


def _tasks_fit(data: UnpairedBatches, model: Any, collate: Collate | None) -> None:
    known = tasks_of(model)
    if known is None:
        return
    for task, dataset in data.datasets.items():
        try:
            check_modalities(dataset, known[task]["modalities"])
            _samples_are_whole(dataset, known[task]["modalities"])
            labels_are_of(dataset, known[task].get("problem_type"), known[task]["num_labels"], collate)
        except ValueError as error:
            raise ValueError(f"of the task '{task}': {error}") from error


def _samples_are_whole(dataset: Dataset, modalities: Sequence[str]) -> None:
    if lacking := len(dataset) - len(complete_rows(dataset, list(modalities))):
        raise ValueError(
            f"{lacking} of {len(dataset)} samples lack one of {', '.join(modalities)}, and the task has all of them: leave "
            "such samples out, or make a task of one modality of them, with the same `head`."
        )


def _has_labels(dataset: Dataset) -> bool:
    """Whether a sample has a label; True where a transform or a collator alone knows."""
    column = label_column(dataset)
    if has_transform(dataset):
        return True
    if column is None:
        return False
    is_known = isinstance(dataset.features[column], (Value, List)) or hasattr(dataset.features[column], "num_classes")
    return not is_known or bool(np.any(labelled_rows(dataset, column)))


def batches_can_be_of_one_task(model: Any, args: CoLearningArguments) -> None:
    """What would draw or hand out the batches in another way."""
    data_are_of_one = "the batches of unpaired data are of one task each"
    if not takes_tasks(model):
        raise ValueError(
            f"{data_are_of_one}, which they name, and {type(base_model(model)).__name__} has no task: pass the data set of one "
            "task, or train a `CoLearningForManyTasks`."
        )
    if args.labelled_per_batch is not None:
        raise ValueError(
            f"labelled_per_batch={args.labelled_per_batch} draws the batches, and {data_are_of_one}: leave it out, or make a "
            "task of the labelled samples and another one of the rest."
        )
    if args.train_sampling_strategy != "random":
        raise ValueError(
            f"train_sampling_strategy='{args.train_sampling_strategy}' draws the batches, and {data_are_of_one}: leave it out."
        )
    if args.accelerator_config.dispatch_batches:
        raise ValueError(
            f"dispatch_batches=True lets the main process put batches of several together, and {data_are_of_one}: leave it out."
        )


def _named(tasks: Any) -> str:
    return ", ".join(f"'{task}'" for task in tasks)
