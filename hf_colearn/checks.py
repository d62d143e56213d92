"""What the trainer refuses before it starts, each with the value at fault and the way out."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from datasets import ClassLabel, Dataset
from transformers.utils import logging

from hf_colearn.alpha import Alpha
from hf_colearn.arguments import CoLearningArguments
from hf_colearn.objectives import Objective
from hf_colearn.teachers.bank import TeacherBank
from hf_colearn.teachers.collator import missing_ids
from hf_colearn.teachers.pairing import Pairing


logger = logging.get_logger(__name__)


def alpha_has_its_terms(args: CoLearningArguments, objective: Objective | None, alpha: Alpha | None) -> None:
    """An alpha without a term would do nothing, and two alphas would contradict each other."""
    if objective is None and (alpha is not None or args.alpha):
        shown = f"alpha={args.alpha}" if alpha is None else f"alpha={type(alpha).__name__}"
        raise ValueError(f"{shown} has no auxiliary term to weigh: pass `bank=` (or `objective=`), or leave alpha out.")
    if alpha is not None and (args.alpha is not None or args.alpha_schedule != "constant"):
        raise ValueError(
            f"alpha is given twice, as alpha={type(alpha).__name__} and in the arguments (alpha={args.alpha}, "
            f"alpha_schedule='{args.alpha_schedule}'): leave one out."
        )


def weights_match_terms(alpha: Alpha, objective: Objective) -> None:
    """Every term needs exactly one weight."""
    weighed, terms = set(alpha.weights()), set(objective.terms)
    if weighed != terms:
        raise ValueError(
            f"{type(alpha).__name__} weighs the terms {sorted(weighed)}, but {type(objective).__name__} computes "
            f"{sorted(terms)}: give one weight a term, such as `ConstantAlpha({dict.fromkeys(sorted(terms), 0.5)})`."
        )


def latent_width(model: Any, bank: TeacherBank) -> None:
    """A student of ours tells its latent's width in its config."""
    width = getattr(getattr(model, "config", None), "latent_dim", None)
    if width is not None and width != bank.dim:
        raise ValueError(_wrong_width(width, bank.dim))


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


def training_data(
    dataset: Any, args: CoLearningArguments, model: Any, bank: TeacherBank | None, pairing: Pairing | None
) -> None:
    """The training set must have samples, labels within the student's classes, and ids that the pairing can serve."""
    if hasattr(dataset, "__len__") and len(dataset) == 0:
        raise ValueError("the training set is empty: nothing to train on. Look at its split, filter or selection.")
    if not isinstance(dataset, Dataset):
        return
    for column in ("labels", "label", "label_ids"):
        if column in dataset.column_names:
            _labels(dataset, column, model)
    if bank is None or pairing is None:
        return
    if args.id_column in dataset.column_names:
        ids = _plain(dataset, args.id_column)
        if not np.issubdtype(ids.dtype, np.integer):
            raise ValueError(
                f"the ids in column '{args.id_column}' are {ids.dtype}, such as {ids[0]!r}: a sample id is an integer, "
                "from 0. Number the samples with `with_sample_ids`."
            )
        pairing.check(bank, ids)
    elif args.id_column not in dataset[0]:  # a transform may pass it on
        raise ValueError(missing_ids(args.id_column, dataset.column_names))


def _plain(dataset: Dataset, column: str) -> np.ndarray:
    """A column's stored values, without the dataset's transform."""
    return np.asarray(dataset.select_columns(column).with_format("numpy")[column][:])


def _labels(dataset: Dataset, column: str, model: Any) -> None:
    config = getattr(model, "config", None)
    num_labels, problem = getattr(config, "num_labels", None), getattr(config, "problem_type", None)
    labels = _plain(dataset, column)
    if num_labels is None or problem not in (None, "single_label_classification") or labels.ndim != 1:
        return
    if not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(
            f"the labels in column '{column}' are {labels.dtype}, such as {labels[0]!r}: class labels are integers. "
            "Encode them with `dataset.class_encode_column`."
        )
    feature = dataset.features[column]
    if isinstance(feature, ClassLabel) and feature.num_classes > num_labels:
        raise ValueError(
            f"column '{column}' names {feature.num_classes} classes, but the student has num_labels={num_labels}: build "
            f"it with `num_labels={feature.num_classes}`."
        )
    outside = labels[(labels < 0) | (labels >= num_labels)]
    outside = outside[outside != -100]  # what cross-entropy ignores
    if len(outside):
        raise ValueError(
            f"{len(outside)} labels in column '{column}' are out of range, such as {outside[0]}: the student has "
            f"num_labels={num_labels} (0 to {num_labels - 1}). Mend the labels or `num_labels`."
        )
