"""Micro-batches in which nothing counts: with them a process whose share of a stream has ended goes on with the others."""

from collections.abc import Mapping
from typing import Any

import torch
from torch.nn.modules.batchnorm import _BatchNorm

from hf_colearn.data.sample_ids import LABELS, NO_LABEL, is_target
from hf_colearn.models.head_losses import own_function
from hf_colearn.models.lora import base_model
from hf_colearn.models.many_tasks import CoLearningForManyTasks
from hf_colearn.models.mmtm_fusion import MMTMFusion
from hf_colearn.models.multimodal import CoLearningForMultimodalClassification
from hf_colearn.objectives.combined import Combined
from hf_colearn.objectives.dense_matching import DenseMatching
from hf_colearn.objectives.latent_matching import LatentMatching
from hf_colearn.training.counts import counts_its_labels
from hf_colearn.utils.callback import CoLearningCallback


BLANK = "hf_colearn.blank"  # the entry of a batch of which nothing is to count; no column is called so
_MEANS_OF_STEP = (LatentMatching, DenseMatching)  # whose terms are sums over what counts, divided by the step's number
_LOOKS_AT_BATCHES = ("on_inputs", "on_outputs", "on_terms")


def add_nothing(trainer: Any) -> bool:
    """Whether a micro-batch without labels and targets leaves a run as it is: gradients, statistics and states of callbacks.

    So it is where every loss is a mean over what counts in the optimizer step, of a model of ours without imputation, and no
    callback or balance method looks at batches. A contrastive term is a mean over micro-batches, and a function of the
    user's may be any.
    """
    model = base_model(trainer.model)
    if not counts_its_labels(trainer.model) or own_function(trainer) is not None:
        return False
    if isinstance(model, CoLearningForManyTasks) or trainer.balance is not None:
        return False
    if isinstance(model, CoLearningForMultimodalClassification) and model.imputation is not None:
        return False
    if any(isinstance(layer, (torch.nn.SyncBatchNorm, MMTMFusion)) for layer in model.modules()):
        return False  # statistics that processes share, or that are of all samples
    callbacks = trainer.hooks.callbacks
    if any(
        getattr(type(each), name) is not getattr(CoLearningCallback, name)
        for each in callbacks
        for name in _LOOKS_AT_BATCHES
    ):
        return False
    return _is_mean_of_step(trainer.auxiliary_objective)


def _is_mean_of_step(objective: Any) -> bool:
    if isinstance(objective, Combined):
        return all(map(_is_mean_of_step, objective.objectives))
    return objective is None or type(objective) in _MEANS_OF_STEP


def blank(batch: Mapping[str, Any], problem_type: str | None) -> dict[str, Any]:
    """A batch after its augmentation with no label and no target.

    Args:
        batch (`Mapping`): On the device, with labels `(B,)` or `(B, C)` and targets.
        problem_type (`str`, *optional*): The student's; the only integer labels with a number for none are classes.
    """
    return {name: _without(entry, problem_type) if _counts(name) else entry for name, entry in batch.items()}


def _counts(name: str) -> bool:
    return name in LABELS or is_target(name)


def _without(entry: Any, problem_type: str | None) -> Any:
    if not isinstance(entry, torch.Tensor):
        return entry
    is_class = not entry.is_floating_point() and problem_type in (None, "single_label_classification")
    none = NO_LABEL if is_class else torch.nan
    return torch.full_like(entry, none, dtype=None if is_class or entry.is_floating_point() else torch.float32)


def keep_statistics(model: torch.nn.Module) -> None:
    """Keeps batch statistics as they are in the next forward; every training step sets them to learn again."""
    for layer in model.modules():
        if isinstance(layer, _BatchNorm):
            layer.eval()
