"""Labels as probabilities of classes, and means over those of a step. Shapes: B samples, C classes."""

import torch
import torch.nn.functional as F

from hf_colearn.balance.batch import ModalityBatch
from hf_colearn.models.heads import LEAST_COUNT, label_mask


def class_targets(seen: ModalityBatch, name: str | None = None) -> torch.Tensor:
    """The labels of a batch as probabilities `(B, C)` in float32; a row of 0 for a sample without a label or, where a modality
    is named, without that."""
    labels = seen.labels
    counted_B = label_mask(labels, "single_label_classification")
    if name is not None:
        counted_B = counted_B & seen.present_BM[:, seen.modalities.index(name)]
    if labels.ndim == 1:
        labels = F.one_hot(labels.clamp(min=0), seen.outputs["logits"].shape[1])
    return torch.where(counted_B[:, None], labels, 0).float()


def step_mean(values_B: torch.Tensor, count: torch.Tensor) -> torch.Tensor:
    """The sum of a micro-batch's values over `count`, how many samples of a micro-batch count on average: the mean of it over
    micro-batches and processes is that over the step."""
    return values_B.sum() / count.clamp(min=LEAST_COUNT)
