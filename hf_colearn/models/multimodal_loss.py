"""The loss of a multimodal model, and what may have no part in it; travels with every multimodal checkpoint.

Shapes: B samples, M modalities, D latent width, C classes.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from .heads import label_mask, task_loss
from .modality_mask import Rows, mask_of_batch


def multimodal_loss(
    model: Any,
    logits_BC: torch.Tensor,
    latents: list[torch.Tensor],
    logits: list[torch.Tensor],
    rows: list[Rows],
    labels: torch.Tensor,
    num_items: torch.Tensor,
) -> torch.Tensor:
    """The fused prediction's task loss, and the share of the heads' that the configuration has.

    Args:
        model ([`~hf_colearn.models.multimodal.CoLearningForMultimodalClassification`]): Whose outputs these are.
        logits_BC (`torch.Tensor` of shape `(B, C)`): Of the fusion.
        latents, logits (`list[torch.Tensor]`): Of every modality, `(B, D)` and `(B, C)`.
        rows (`list`): Which samples have each modality, None for all.
        num_items (`torch.Tensor` of shape `(1 + M,)`): What the sums are divided by.
    """
    kind, is_probing = model.config.problem_type, model.heads_are_probes
    loss = task_loss(logits_BC, labels, kind, num_items[0])
    if is_probing and model.training:
        parts = zip(model.encoders.values(), latents, strict=True)
        logits = [encoder.classifier(x.detach()) for encoder, x in parts]
    elif not model.config.modality_loss_weight:
        return loss
    present = [
        task_loss(x, labels, kind, count) if index is None else task_loss(x[index], labels[index], kind, count)
        for x, index, count in zip(logits, rows, num_items[1:], strict=True)
        if index is None or len(index)
    ]
    mean = torch.stack(present).sum() / (num_items[1:] > 0).sum().clamp(min=1)  # of the heads that have a label
    if is_probing:
        return loss + (mean - mean.detach())  # 0 in value, the heads' gradient
    return loss + model.config.modality_loss_weight * mean


def label_counts(model: Any, labels: torch.Tensor, inputs: Mapping[str, Any]) -> torch.Tensor:
    """How many labels of a batch count, `(1 + M,)`: all, and those of every modality's samples."""
    mask_BM = mask_of_batch(model.modalities, inputs, len(labels), labels.device)
    counted_B = label_mask(labels, model.config.problem_type).reshape(len(labels), -1).sum(1).float()
    return torch.cat([counted_B.sum().view(1), counted_B @ mask_BM.float()])


def perhaps_unused(model: Any, rows: list[Rows], labels: Any) -> list[nn.Parameter]:
    """The parameters that this batch, or an objective that reads no training head, may have no use for."""
    unused = [*model.training_heads.parameters()]
    unused += [model.log_scale] if model.config.learned_temperature else []
    # A modality that is absent, or curated, has no use for its gates; without those of the last there is no exchange.
    unused += model.fusion.parameters() if model.config.fusion == "mmtm" else []
    for name, index in zip(model.modalities, rows, strict=True):
        encoder = model.encoders[name]
        if index is not None and not len(index):
            unused += encoder.parameters()
        elif model.heads_are_probes and labels is None:
            unused += encoder.classifier.parameters()
    return unused
