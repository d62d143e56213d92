"""The outer loss: what a learned alpha lowers, of a batch of the outer split. Shapes: B samples, M modalities, C classes."""

from collections.abc import Callable, Mapping
from typing import Any

import torch

from hf_colearn.models.head_losses import LossFunction, own_function
from hf_colearn.models.heads import task_loss
from hf_colearn.models.outputs import CoLearningStudentOutput
from hf_colearn.objectives.objective import CoLearningBatch


OUTER_LOSSES = ("fused", "modalities")
OuterLoss = str | Callable[[Mapping[str, Any], CoLearningBatch], torch.Tensor]


def check_outer(outer: OuterLoss) -> None:
    """Refuses what is neither a name of an outer loss nor a function."""
    if outer not in OUTER_LOSSES and not callable(outer):
        raise ValueError(
            f"outer={outer!r} is no outer loss: choose one of {', '.join(OUTER_LOSSES)}, or pass a function of "
            "(outputs, batch) that gives a scalar."
        )


def outer_loss(trainer: Any, outer: OuterLoss, model: Any, inputs: dict[str, Any]) -> torch.Tensor:
    """The outer loss of a batch, a scalar; `model` is called as the trainer's own."""
    batch = CoLearningBatch.taken_from(inputs, trainer.batches.clock.number)
    task, outputs = trainer.task_loss(model, inputs)
    if outer == "fused":
        return task
    if outer == "modalities":
        return modality_loss(outputs, batch, trainer.model, own_function(trainer))
    return outer(outputs, batch)  # type: ignore[operator]


def modality_loss(
    outputs: Mapping[str, Any], batch: CoLearningBatch, model: Any, function: LossFunction | None = None
) -> torch.Tensor:
    """The sum of the label losses of the modalities' own heads, each a mean over the labelled samples that have the modality.

    The gradient reaches every encoder through its head. Heads that are probes (`modality_loss_weight=0` and a fusion of
    latents) have no part in the inner losses and stay as they are: each is near the minimum of its label loss, where its
    own move would change that loss little. A function of the user's takes the place of the label loss.
    """
    logits = outputs.get("modality_logits")
    if not logits:
        raise ValueError(
            f"outer='modalities' is the loss of the heads of single modalities, and {type(model).__name__} has none "
            "(no 'modality_logits' in its outputs): use outer='fused', or a CoLearningForMultimodalClassification."
        )
    labels, labelled_B, mask_BM = batch.labels, batch.labelled, outputs.get("modality_mask")
    if labels is None or labelled_B is None:
        raise ValueError("outer='modalities' needs labels, and the outer batch has none.")
    losses = []
    for index, logits_BC in enumerate(logits.values()):
        counts_B = labelled_B if mask_BM is None else labelled_B & mask_BM[:, index]
        if function is None:
            loss = task_loss(logits_BC[counts_B], labels[counts_B], model.config.problem_type)
        else:
            loss = function(CoLearningStudentOutput(logits=logits_BC[counts_B]), labels[counts_B], counts_B.sum())
        losses.append(loss * batch.weight(counts_B))
    return torch.stack(losses).sum()
