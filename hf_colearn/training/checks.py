"""What the trainer refuses before it starts, each with the value at fault and the way out."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from datasets import ClassLabel, Dataset, IterableDataset, Value
from peft import PeftModel
from transformers.utils import logging

from hf_colearn.alpha.schedules import Alpha, check_weights
from hf_colearn.arguments import CoLearningArguments
from hf_colearn.data.multimodal import check_modalities
from hf_colearn.models.multimodal import CoLearningForMultimodalClassification
from hf_colearn.objectives.objectives import Objective
from hf_colearn.teachers.bank import TeacherBank
from hf_colearn.teachers.collator import missing_ids
from hf_colearn.teachers.pairing import Pairing
from hf_colearn.utils import distributed
from hf_colearn.utils.rng import preserve_rng_state


logger = logging.get_logger(__name__)

LABELS = ("labels", "label", "label_ids")  # what Trainer's collators take for labels, the first one that is there


def alpha_has_its_terms(args: CoLearningArguments, objective: Objective | None, alpha: Alpha | None) -> None:
    """An alpha without a term would do nothing, and two alphas would contradict each other."""
    if objective is None and (alpha is not None or args.alpha or args.alpha_schedule != "constant"):
        shown = f"alpha={args.alpha}" if args.alpha else f"alpha_schedule='{args.alpha_schedule}'"
        shown = shown if alpha is None else f"alpha={type(alpha).__name__}"
        raise ValueError(
            f"{shown} has no auxiliary term to weigh: pass `bank=` (or `objective=`), or leave alpha out."
        )
    if alpha is not None and (args.alpha is not None or args.alpha_schedule != "constant"):
        raise ValueError(
            f"alpha is given twice, as alpha={type(alpha).__name__} and in the arguments (alpha={args.alpha}, "
            f"alpha_schedule='{args.alpha_schedule}'): leave one out."
        )


def weights_match_terms(alpha: Alpha, objective: Objective) -> None:
    """Every term needs exactly one weight, and the task's share is what they leave."""
    weighed, terms = set(alpha.weights()), set(objective.terms)
    if weighed != terms:
        raise ValueError(
            f"{type(alpha).__name__} weighs the terms {sorted(weighed)}, but {type(objective).__name__} computes "
            f"{sorted(terms)}: give one weight a term, such as `ConstantAlpha({dict.fromkeys(sorted(terms), 0.5)})`."
        )
    check_weights(alpha.weights())


def arguments_fit(args: CoLearningArguments, has_optimizer: bool, has_scheduler: bool, shards: str | None) -> None:
    """What the arguments ask for must be possible with the user's own optimizer and with sharded weights."""
    if args.layer_decay is not None and (has_optimizer or shards == "DeepSpeed"):
        whose = "an optimizer of your own" if has_optimizer else "DeepSpeed"
        raise ValueError(
            f"layer_decay={args.layer_decay} splits the optimizer that Trainer makes, and here it is {whose}: leave "
            "layer_decay out and set the learning rates there."
        )
    if args.lr_step_epochs is not None and has_scheduler:
        raise ValueError(
            f"lr_step_epochs={args.lr_step_epochs:g} is a schedule, and you pass one of your own: leave one of them out."
        )
    if args.ema_decay is not None and shards is not None:
        raise ValueError(
            f"ema_decay={args.ema_decay} needs whole weights on every process, and {shards} shards them: train with "
            "plain data parallelism, or leave ema_decay out."
        )


def augmented_labels_fit(batch: Mapping[str, Any], smooths: bool) -> None:
    """Trainer's label smoothing reads class indices, and mixing augmentations give distributions."""
    for name in LABELS:
        labels = batch.get(name)
        if smooths and isinstance(labels, torch.Tensor) and labels.is_floating_point():
            raise ValueError(
                f"the augmentation gives soft `{name}`, and label_smoothing_factor takes class indices: leave it out, and "
                "smooth the labels in the augmentation."
            )


def latent_width(model: Any, bank: TeacherBank) -> None:
    """A student of ours tells its latent's width in its config, and only a bank tells the teacher's."""
    if not hasattr(bank, "lookup"):
        raise TypeError(f"bank is a {type(bank).__name__}: make a bank of it, `TeacherBank.from_latents(latents)`.")
    width = getattr(getattr(model, "config", None), "latent_dim", None)
    if width is not None and width != bank.dim:
        raise ValueError(_wrong_width(width, bank.dim))


def latent_head_learns(model: Any) -> None:
    """Warns of a frozen latent head, which LoRA leaves behind unless it is told to train it."""
    heads = [weight for name, weight in model.named_parameters() if "latent_head" in name]
    if heads and not any(weight.requires_grad for weight in heads):
        logger.warning(
            "The student's latent head is frozen: it stays as it is, which is random in a new student. With LoRA, "
            'train it with `modules_to_save=["latent_head", "latent_norm", "classifier"]`.'
        )


def _wrong_width(student: int, teacher: int) -> str:
    return (
        f"the student's latents are {student} wide, the teacher's {teacher}: build the student with "
        f"`latent_dim={teacher}` (`latent_dim=bank.dim`)."
    )


def outputs_fit(outputs: Any, targets: torch.Tensor | None, model_name: str) -> None:
    """The student must return latents, of the targets' shape."""
    if targets is None:
        return
    latents = outputs.get("latents") if isinstance(outputs, Mapping) else None
    if latents is None:
        found = list(outputs) if isinstance(outputs, Mapping) else type(outputs).__name__
        raise ValueError(
            f"{model_name} returns no `latents` (it returns {found}), and the teacher's targets need them. Two ways "
            "out: let `forward` return a `ModelOutput` with `loss`, `logits` and `latents` [B, D]; or make a student "
            'of it with `CoLearningFor...Classification.from_backbone(checkpoint, latent_dim=bank.dim, head="auxiliary")`.'
        )
    if latents.ndim != 2:
        raise ValueError(f"{model_name} returns latents of shape {tuple(latents.shape)}: pool them to [B, D].")
    if latents.shape[1] != targets.shape[1]:
        raise ValueError(_wrong_width(latents.shape[1], targets.shape[1]))


def has_task_loss(outputs: Any, given: list[str], model_name: str) -> None:
    """The student must return its task loss, for which it needs labels."""
    if isinstance(outputs, Mapping) and outputs.get("loss") is None:
        raise ValueError(
            f"{model_name} returns no `loss` for a training batch of {given}: give the training set a column `labels`, "
            "or pass a `compute_loss_func`."
        )


def training_data(
    dataset: Any, args: CoLearningArguments, model: Any, bank: TeacherBank | None, pairing: Pairing | None
) -> None:
    """The training set must have samples, labels within the student's classes, and ids that the pairing can serve."""
    if hasattr(dataset, "__len__") and len(dataset) == 0:
        raise ValueError("the training set is empty: nothing to train on. Look at its split, filter or selection.")
    if isinstance(dataset, IterableDataset):
        stream(dataset, args, model, bank, pairing)
    if not isinstance(dataset, Dataset):
        return
    labels_fit(dataset, model)
    model = model.get_base_model() if isinstance(model, PeftModel) else model
    if isinstance(model, CoLearningForMultimodalClassification):
        check_modalities(dataset, model.modalities)
        if args.label_smoothing_factor:
            raise ValueError(
                f"label_smoothing_factor={args.label_smoothing_factor} takes the labels away from the model, whose heads "
                "need them: pass `augment=SmoothedLabels(num_classes, share)` of data.soft_labels instead."
            )
    if bank is None or pairing is None:
        return
    if args.id_column in dataset.column_names:
        ids = _plain(dataset, args.id_column)
        if not np.issubdtype(ids.dtype, np.integer):
            raise ValueError(
                f"the ids in column '{args.id_column}' are {ids.dtype}, such as {_odd(ids)!r}: a sample id is an "
                "integer, from 0. Number the samples with `with_sample_ids`."
            )
        pairing.check(bank, ids)
    elif args.id_column not in _sample(dataset, 0):  # a transform may pass it on
        raise ValueError(missing_ids(args.id_column, dataset.column_names))


def stream(
    dataset: IterableDataset, args: CoLearningArguments, model: Any, bank: TeacherBank | None, pairing: Pairing | None
) -> None:
    """Of a stream, what shows without reading it: the columns, the classes' names, and whether bank and pairing fit."""
    column = next((name for name in LABELS if name in (dataset.column_names or [])), None)
    if column is not None and dataset.features is not None:
        _named_classes_fit(dataset.features[column], column, model)
    if bank is None or pairing is None:
        return
    if dataset.column_names is not None and args.id_column not in dataset.column_names:
        raise ValueError(
            f"the stream has no column '{args.id_column}' (it has {', '.join(map(repr, dataset.column_names))}), so no "
            "teacher target can be found for its samples: number them where it is made, in an order that never changes, "
            f"such as `stream.map(lambda row, i: {{**row, '{args.id_column}': i}}, with_indices=True)`, or set `id_column`."
        )
    pairing.check(bank, np.zeros(0, dtype=np.int64))


def evaluated_stream(dataset: IterableDataset, dispatch_batches: bool | None) -> None:
    """accelerate reads a stream for evaluation on the main process and hands the batches out."""
    if distributed.is_distributed() and dispatch_batches is not False and dataset._distributed is not None:
        raise ValueError(
            f"the evaluation stream is split for process {dataset._distributed.rank} of "
            f"{dataset._distributed.world_size}, but the main process reads it for all, so the other shares would be "
            "left out: pass it whole."
        )


def _named_classes_fit(feature: Any, column: str, model: Any) -> None:
    num_labels = getattr(getattr(model, "config", None), "num_labels", None)
    if num_labels not in (None, 1) and isinstance(feature, ClassLabel) and feature.num_classes > num_labels:
        raise ValueError(
            f"column '{column}' names {feature.num_classes} classes, but the student has num_labels={num_labels}: build "
            f"it with `num_labels={feature.num_classes}`."
        )


def labels_fit(dataset: Dataset, model: Any) -> None:
    """The labels of a classification must be integers within the student's classes."""
    config = getattr(model, "config", None)
    num_labels, problem = getattr(config, "num_labels", None), getattr(config, "problem_type", None)
    if num_labels in (None, 1) or problem not in (None, "single_label_classification"):
        return
    column = next((name for name in LABELS if name in dataset.column_names), None)
    if column is None or not isinstance(dataset.features[column], (Value, ClassLabel)):
        return  # no labels, one a token, or soft ones
    labels, feature = _plain(dataset, column), dataset.features[column]
    if not np.issubdtype(labels.dtype, np.integer):
        if _reaches_the_student(dataset, column, 0):
            raise ValueError(
                f"the labels in column '{column}' are {labels.dtype}, such as {_odd(labels)!r}: class labels are "
                "integers. Encode them with `dataset.class_encode_column`, and drop samples without one."
            )
        return
    if not _has_transform(dataset):
        _named_classes_fit(feature, column, model)
    is_outside = ((labels < 0) | (labels >= num_labels)) & (labels != -100)  # -100 is what cross-entropy ignores
    if is_outside.any() and _reaches_the_student(dataset, column, int(is_outside.argmax())):
        raise ValueError(
            f"{is_outside.sum()} labels in column '{column}' are out of range, such as {labels[is_outside][0]}: the "
            f"student has num_labels={num_labels} (0 to {num_labels - 1}). Mend the labels or `num_labels`."
        )


def _has_transform(dataset: Dataset) -> bool:
    return dataset.format["type"] == "custom"


def _reaches_the_student(dataset: Dataset, column: str, row: int) -> bool:
    """Whether a stored label is the one that the student gets: a transform may encode it in another way."""
    if not _has_transform(dataset):
        return True
    stored, sample = _plain(dataset.select([row]), column)[0], _sample(dataset, row)
    given = [sample[name] for name in LABELS if name in sample]
    return bool(given) and np.array_equal(given[0], stored)


def _sample(dataset: Dataset, row: int) -> dict[str, Any]:
    """A sample as training sees it, without moving the random numbers that a transform draws."""
    with preserve_rng_state(torch.device("cpu")):
        return dataset[row]


def _plain(dataset: Dataset, column: str) -> np.ndarray:
    """A column's stored values, without the dataset's transform."""
    return np.asarray(dataset.select_columns(column).with_format("numpy")[column][:])


def _odd(values: np.ndarray) -> Any:
    """The value that shows best what is wrong: an empty cell, or else the first."""
    plain = values.tolist()
    return next((value for value in plain if value is None or value != value), plain[0])
