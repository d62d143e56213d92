"""What the trainer refuses in a batch: outputs, labels and terms that do not fit."""

from collections.abc import Container, Mapping
from typing import Any

import torch

from hf_colearn.data.sample_ids import LABELS
from hf_colearn.objectives.latent_matching import widths_fit
from hf_colearn.objectives.objective import TEACHER, Objective


def augmented_labels_fit(batch: Mapping[str, Any], smooths: bool) -> None:
    """Trainer's label smoothing reads class indices, and mixing augmentations give distributions."""
    for name in LABELS:
        if smooths and isinstance(labels := batch.get(name), torch.Tensor) and labels.is_floating_point():
            raise ValueError(
                f"the augmentation gives soft `{name}`, and label_smoothing_factor takes class indices: leave it out, and "
                "smooth the labels in the augmentation."
            )


def outputs_fit(outputs: Any, targets: Mapping[str, torch.Tensor], model_name: str, terms: Container[str]) -> None:
    """The student must return latents, of a single teacher's width where a term compares the two."""
    if not targets:
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
    if list(targets) == [TEACHER] and "latent" in terms and "latent" not in (outputs.get("training_outputs") or {}):
        widths_fit(latents.shape[1], targets[TEACHER].shape[-1], "latent")


def has_task_loss(outputs: Any, given: list[str], model_name: str) -> None:
    """The student must return its task loss, for which it needs labels."""
    if isinstance(outputs, Mapping) and outputs.get("loss") is None:
        raise ValueError(
            f"{model_name} returns no `loss` for a training batch of {given}: give the training set a column `labels`, "
            "or pass a `compute_loss_func`."
        )


def terms_fit(terms: Any, objective: Objective) -> None:
    """An objective must return the terms that it names, a scalar each."""
    name = type(objective).__name__
    if not isinstance(terms, Mapping):
        raise TypeError(f"{name} returned a {type(terms).__name__}: return a dictionary, {{term: loss}}.")
    if terms.keys() != set(objective.terms):
        named = sorted(objective.terms)
        raise ValueError(
            f"{name} returned the terms {sorted(terms)}, and its `terms` are {named}: return those alone."
        )
    for term, loss in terms.items():
        if not isinstance(loss, torch.Tensor) or loss.ndim:
            found = f"shape {tuple(loss.shape)}" if isinstance(loss, torch.Tensor) else type(loss).__name__
            raise ValueError(f"{name} returned {found} for the term '{term}': return a scalar tensor, such as a mean.")
