"""The student's latents are pulled to its teachers'. Shapes: B samples, D dimensions."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from hf_colearn.objectives.distances import LATENT_LOSSES, REDUCTIONS, latent_distance
from hf_colearn.objectives.objective import TEACHER, CoLearningBatch
from hf_colearn.teachers.sequence_bank import SequenceBank
from hf_colearn.utils.checks import check_choice, check_names


class LatentMatching:
    r"""Pulls the student's latents to the teacher's: the term `latent`, \\(\|g(x) - \hat z\|^2\\).

    The mean over the samples of all processes that have a target (see [`PairedFraction`]); 0 where none has.

    With several `teachers` there is a term for each, such as `latent_text`. Where the student has a training head of that
    name, the head's output is pulled instead, so that a teacher's latents may have another width than the student's.

    The scale of the terms is the targets'. With `CoLearningArguments.latent_scaling="standardized"`, the trainer's default, a
    mean squared error is in units of the targets' variance, whatever the teacher: 1 for a student that predicts their mean.

    Source: equation 2 of "Can One Modality Model Synergize Training of Other Modality Models?" (ICLR 2025).

    Args:
        loss (`str`, *optional*, defaults to `"mse"`): `"mse"`, `"cosine"` or `"smooth_l1"`.
        reduction (`str`, *optional*, defaults to `"mean"`): `"mean"` over the latent's dimensions (the released code)
            or `"sum"` (the paper's squared norm, D times as large). The cosine's is the same with both.
        teachers (`Sequence[str]`, *optional*): The names of `CoLearningTrainer(teachers=...)`. By default there is one
            teacher, and its term is `latent`.

    Example:

    ```python
    >>> import torch
    >>> from hf_colearn import LatentMatching
    >>> from hf_colearn.objectives.objective import TEACHER, CoLearningBatch

    >>> batch = CoLearningBatch(targets={"teacher": torch.ones(2, 3)})
    >>> LatentMatching(reduction="sum")({"latents": torch.zeros(2, 3)}, batch)
    {'latent': tensor(3.)}
    ```
    """

    def __init__(self, loss: str = "mse", reduction: str = "mean", teachers: Sequence[str] = ()):
        check_choice("loss", loss, LATENT_LOSSES)
        check_choice("reduction", reduction, REDUCTIONS)
        check_names("teachers", teachers, "text")
        self.loss, self.reduction, self.teachers = loss, reduction, tuple(teachers)
        self.terms = tuple(map(latent_term, self.teachers)) or ("latent",)

    def __call__(self, outputs: Mapping[str, Any], batch: CoLearningBatch) -> dict[str, torch.Tensor]:
        teachers = self.teachers or (batch.only_teacher,)
        heads, losses = outputs.get("training_outputs") or {}, {}
        for term, name in zip(self.terms, teachers, strict=True):
            latents_BD = heads.get(term, outputs["latents"])
            losses[term] = latent_distance(latents_BD, batch.targets[name], self.loss, self.reduction) * batch.weight(
                name
            )
        return losses

    def check(self, model: Any, teachers: Mapping[str, Any]) -> None:
        """Refuses a teacher whose latents are as wide as neither the student's nor a training head of the term's name."""
        config = getattr(model, "config", None)
        heads = getattr(config, "training_heads", None) or {}
        names = self.teachers or (tuple(teachers) if len(teachers) == 1 else ())
        for term, name in zip(self.terms, names, strict=False):
            if name in teachers:
                if isinstance(teachers[name].bank, SequenceBank):
                    raise ValueError(
                        f"the bank of '{name}' holds sequences, and LatentMatching compares one vector a sample: pass "
                        "`objective=DenseMatching()`, or of ids `VokenClassification()`."
                    )
                width = heads[term]["out_features"] if term in heads else getattr(config, "latent_dim", None)
                widths_fit(width, teachers[name].dim, term)

    def __repr__(self) -> str:
        teachers = f", teachers={self.teachers}" if self.teachers else ""
        return f"LatentMatching(loss='{self.loss}', reduction='{self.reduction}'{teachers})"


def widths_fit(student: int | None, teacher: int, term: str) -> None:
    """Latents and targets of a term must be of one width; None is not known yet."""
    if student is not None and student != teacher:
        raise ValueError(
            f"the student's latents are {student} wide, the teacher's {teacher}: build the student with "
            f"`latent_dim={teacher}` (`latent_dim=bank.dim`), or give it a training head for the term '{term}', "
            f"`training_heads={{'{term}': {teacher}}}`."
        )


def latent_term(teacher: str) -> str:
    """The name of a teacher's term, and of the training head for it."""
    return "latent" if teacher == TEACHER else f"latent_{teacher}"
