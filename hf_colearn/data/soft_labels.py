"""Labels between one-hot and uniform, for experiments on how a model fits them."""

from typing import Any

import torch


def smoothed(labels_B: torch.Tensor, num_classes: int, share: float) -> torch.Tensor:
    """Class indices as soft labels `(B, C)` float32, of which a share is spread over all classes."""
    rest = share / num_classes
    soft_BC = labels_B.new_full((len(labels_B), num_classes), rest, dtype=torch.float32)
    return soft_BC.scatter_(1, labels_B[:, None], 1 - share + rest)


class SmoothedLabels:
    r"""Replaces a batch's labels with \\((1 - s) \, onehot + s / C\\), as the trainer's `augment`.

    s = 0 is one-hot, s = 1 uniform: nothing of the class is left. Evaluation keeps the class indices.

    Args:
        num_classes (`int`): C.
        share (`float`): s, from 0 to 1.
    """

    def __init__(self, num_classes: int, share: float):
        if not 0 <= share <= 1:
            raise ValueError(f"share={share} is outside [0, 1]: 0 is one-hot, 1 is uniform.")
        self.num_classes, self.share = num_classes, share

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        return {**batch, "labels": smoothed(batch["labels"], self.num_classes, self.share)}
