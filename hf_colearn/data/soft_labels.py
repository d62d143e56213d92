"""Labels between one-hot and uniform, for experiments on how a model fits them."""

from typing import Any

import torch

from hf_colearn.data.sample_ids import NO_LABEL


def smoothed(labels_B: torch.Tensor, num_classes: int, share: float) -> torch.Tensor:
    """Class indices as soft labels `(B, C)` float32, of which a share is spread over all classes.

    No label, -100, becomes a row of NaN: no soft label, and whatever is mixed with it is none either.
    """
    rest = share / num_classes
    soft_BC = labels_B.new_full((len(labels_B), num_classes), rest, dtype=torch.float32)
    soft_BC.scatter_(1, labels_B.clamp(min=0)[:, None], 1 - share + rest)
    return soft_BC.masked_fill_((labels_B == NO_LABEL)[:, None], torch.nan)


class SmoothedLabels:
    r"""Replaces a batch's labels with \\((1 - s) \, onehot + s / C\\), as the trainer's `augment`.

    s = 0 is one-hot, s = 1 uniform: nothing of the class is left. A sample without a label (-100) gets a row of NaN, which no
    loss counts. Evaluation keeps the class indices.

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
