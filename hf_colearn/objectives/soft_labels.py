"""The student's predictions are pulled to class probabilities of a teacher. Shapes: B samples, C classes."""

from collections.abc import Mapping
from typing import Any

import torch

from hf_colearn.objectives.objective import CoLearningBatch


class SoftLabels:
    r"""Pulls the student's class probabilities to those of a teacher's classifier: the term `soft_labels`.

    Cross-entropy \\(-\sum_c q_c \log p_c\\), the mean over the samples of the optimizer step that have a target; 0 where none
    has. The teacher's bank holds probabilities `(N, C)`, such as a classifier's of the teacher's latents, and is scaled by
    `"none"`: they are no latents.

    Source: "Distilling the Knowledge in a Neural Network" (Hinton et al., 2015), across modalities as in "Cross Modal
    Distillation for Supervision Transfer" (Gupta et al., CVPR 2016), at temperature 1.

    Args:
        teacher (`str`): Its name among `CoLearningTrainer(teachers=...)`.

    Example:

    ```python
    >>> import torch
    >>> from hf_colearn import SoftLabels
    >>> from hf_colearn.objectives.objective import CoLearningBatch

    >>> batch = CoLearningBatch(targets={"classes": torch.tensor([[0.25, 0.75], [torch.nan, torch.nan]])})
    >>> SoftLabels("classes")({"logits": torch.zeros(2, 2)}, batch)  # log 2, whatever the probabilities
    {'soft_labels': tensor(0.6931)}
    ```
    """

    terms: tuple[str, ...] = ("soft_labels",)

    def __init__(self, teacher: str):
        if not isinstance(teacher, str) or not teacher:
            raise TypeError(
                f"teacher={teacher!r} is no name of a teacher: pass the one that `teachers=` has, such as 'text'."
            )
        self.teacher = teacher

    def __call__(self, outputs: Mapping[str, Any], batch: CoLearningBatch) -> dict[str, torch.Tensor]:
        q_BC, logits_BC = batch.targets[self.teacher].float(), outputs["logits"].float()
        if q_BC.shape != logits_BC.shape:
            raise ValueError(
                f"teacher '{self.teacher}' has targets of shape {tuple(q_BC.shape)}, and the student logits of "
                f"{tuple(logits_BC.shape)}: its bank must hold a probability for each of the {logits_BC.shape[1]} classes."
            )
        has_B = batch.paired[self.teacher]
        q_BC = torch.where(has_B[:, None], q_BC, 0)  # no target: no loss, no gradient
        total = -(q_BC * logits_BC.log_softmax(dim=-1)).sum()
        return {"soft_labels": total / has_B.sum().clamp(min=1) * batch.weight(self.teacher)}

    def __repr__(self) -> str:
        return f"SoftLabels('{self.teacher}')"
