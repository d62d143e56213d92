"""A confident prediction of one view is the label of another. Shapes: B samples, 2B rows (two views each), C classes."""

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F

from hf_colearn.objectives.objective import CoLearningBatch
from hf_colearn.utils.checks import is_number


class Consistency:
    r"""The class that a weak view is confidently given is the label of the strong view: FixMatch's term `consistency`.

    \\(\frac{1}{B} \sum_b 1[\max_c p_{bc} \ge \tau] \, CE(s_b, \arg\max_c p_{bc})\\), where \\(p_b\\) are the probabilities
    of sample b's weak view, without a gradient, and \\(s_b\\) the logits of its strong one. The mean is over all samples of
    the micro-batch, labelled or not, those below the threshold counting 0. It needs no teacher: what a teacher is worth on
    unlabelled samples is what it adds to this.

    The batch holds every sample twice, the weak views first, as [`~hf_colearn.data.views.TwoViews`] makes it. For
    classification with one class a sample.

    Source: equation 4 of "FixMatch: Simplifying Semi-Supervised Learning with Consistency and Confidence" (NeurIPS 2020).

    Args:
        threshold (`float`, *optional*, defaults to 0.95): \\(\tau\\), the probability from which a prediction counts; from 0
            to below 1.

    Example:

    ```python
    >>> import torch
    >>> from hf_colearn import Consistency
    >>> from hf_colearn.objectives.objective import CoLearningBatch

    >>> logits = torch.tensor([[4.0, 0.0], [2.0, 0.0], [0.0, 0.0], [0.0, 0.0]])  # weak: p = .982 counts, .881 does not
    >>> Consistency()({"logits": logits}, CoLearningBatch(views=torch.tensor([0, 0, 1, 1])))  # log(2) / 2
    {'consistency': tensor(0.3466)}
    ```
    """

    terms: tuple[str, ...] = ("consistency",)

    def __init__(self, threshold: float = 0.95):
        if not is_number(threshold) or not 0 <= threshold < 1:
            raise ValueError(
                f"threshold={threshold!r} is no probability that a prediction can have to reach: pass one from 0 to below 1, "
                "such as 0.95."
            )
        self.threshold = threshold

    def __call__(self, outputs: Mapping[str, Any], batch: CoLearningBatch) -> dict[str, torch.Tensor]:
        logits, views = outputs["logits"], batch.views
        if views is None or len(views) != len(logits) or len(logits) % 2:
            found = "says nothing of views" if views is None else f"has {len(views)} views of {len(logits)} rows"
            raise ValueError(
                f"the batch {found}, and Consistency compares two views of every sample: train with "
                "`augment=TwoViews(weak, strong)`."
            )
        if logits.shape[-1] < 2:
            raise ValueError(
                f"logits of shape {tuple(logits.shape)} have no classes to agree on: this is no regression."
            )
        (weak_BC, strong_BC), (first_B, second_B) = logits.chunk(2), views.chunk(2)
        are_views_B = (first_B == 0) & (second_B == 1)
        return {"consistency": consistency(weak_BC, strong_BC, self.threshold, are_views_B)}

    def __repr__(self) -> str:
        return f"Consistency(threshold={self.threshold})"


def consistency(
    weak_BC: torch.Tensor, strong_BC: torch.Tensor, threshold: float, mask_B: torch.Tensor | None = None
) -> torch.Tensor:
    """FixMatch's loss of two views' logits, a scalar in float32.

    Args:
        weak_BC, strong_BC (`torch.Tensor` of shape `(B, C)`): Row by row of the same sample; no gradient flows to `weak_BC`.
        threshold (`float`): The probability from which the weak view's class counts.
        mask_B (`torch.Tensor` of shape `(B,)`, *optional*): Booleans, which samples the mean is over; 0 where none.
    """
    confidences_B, classes_B = weak_BC.detach().float().softmax(dim=-1).max(dim=-1)
    losses_B = F.cross_entropy(strong_BC.float(), classes_B, reduction="none")
    counts_B = torch.ones_like(confidences_B, dtype=torch.bool) if mask_B is None else mask_B
    return torch.where(counts_B & (confidences_B >= threshold), losses_B, 0.0).sum() / counts_B.sum().clamp(min=1)
