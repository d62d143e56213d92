"""The student's latents are pulled to a teacher's frame by frame. Shapes: B samples, T positions, D dimensions."""

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F

from hf_colearn.models.training_heads import model_reading
from hf_colearn.objectives.alignment import LENGTHS, SameLengths, aligned, have_frame
from hf_colearn.objectives.distances import LATENT_LOSSES
from hf_colearn.objectives.objective import TEACHER, CoLearningBatch
from hf_colearn.teachers.sequence_bank import SequenceBank
from hf_colearn.utils.checks import check_choice


class DenseMatching:
    r"""Pulls the student's latent of every position to the teacher's: the term `dense`, or `dense_{teacher}`.

    \\(\frac{1}{B} \sum_i \frac{1}{n_i} \sum_{t \le n_i} d(z_{it}, \hat z_{it})\\): the mean over a sample's positions that have
    a target, then over the samples of the whole optimizer step that have one: long samples weigh no more than short ones.

    The student has `dense=True`. Where it has a training head of the term's name, which reads `"dense_latents"`, the head's
    output is compared instead. The targets are of a [`SequenceBank`], and where their frames are not the student's positions,
    `lengths` says how they come together: see [`~hf_colearn.objectives.alignment.aligned`].

    Source: a paired signal as dense supervision, after "Vokenization" (Tan & Bansal, EMNLP 2020), with latents instead of
    classes; with one position a sample it is equation 2 of "Can One Modality Model Synergize Training of Other Modality
    Models?" (ICLR 2025).

    Args:
        teacher (`str`, *optional*): The name among `CoLearningTrainer(teachers=...)`; by default there is a single teacher.
        loss (`str`, *optional*, defaults to `"mse"`): `"mse"`, `"cosine"` or `"smooth_l1"`, the mean over the dimensions.
        lengths (`str`, *optional*, defaults to `"exact"`): `"exact"` refuses a sample whose positions and frames are not the
            same; `"interpolate"` reads the targets at the student's positions, linearly; `"nearest"` takes the nearest frame.

    Example:

    ```python
    >>> import torch
    >>> from hf_colearn.objectives.dense_matching import DenseMatching
    >>> from hf_colearn.objectives.objective import CoLearningBatch

    >>> targets_BTD = torch.tensor([[[1.0], [3.0]], [[2.0], [torch.nan]]])  # the second sample has one frame
    >>> outputs = {"dense_latents": torch.zeros(2, 2, 1), "dense_mask": torch.tensor([[True, True], [True, False]])}
    >>> DenseMatching()(outputs, CoLearningBatch(targets={"teacher": targets_BTD}))  # ((1 + 9) / 2 + 4) / 2
    {'dense': tensor(4.5000)}
    ```
    """

    def __init__(self, teacher: str = TEACHER, loss: str = "mse", lengths: str = "exact"):
        if not isinstance(teacher, str):
            raise TypeError(f"teacher={teacher!r}: pass the name of one teacher, such as 'speech'.")
        check_choice("loss", loss, LATENT_LOSSES)
        check_choice("lengths", lengths, LENGTHS)
        self.teacher, self.loss, self.lengths = teacher, loss, lengths
        self.terms: tuple[str, ...] = (dense_term(teacher),)
        self._same_lengths = SameLengths()

    def __call__(self, outputs: Mapping[str, Any], batch: CoLearningBatch) -> dict[str, torch.Tensor]:
        term, name = self.terms[0], batch.only_teacher if self.teacher == TEACHER else self.teacher
        latents_BTD, mask_BT = dense_outputs(outputs, term)
        targets_BTD = batch.targets[name]
        if targets_BTD.ndim != 3 or not targets_BTD.is_floating_point():
            raise ValueError(
                f"the targets of '{name}' are {targets_BTD.dtype} of shape {tuple(targets_BTD.shape)}, where latents "
                "[B, T, D] are expected: make a `SequenceBank.from_sequences(...)` of them."
            )
        if self.lengths == "exact":
            self._same_lengths.check(targets_BTD, mask_BT)
        distance = dense_distance(latents_BTD, aligned(targets_BTD, mask_BT, self.lengths), self.loss)
        return {term: distance * batch.weight(name)}

    def check(self, model: Any, teachers: Mapping[str, Any]) -> None:
        """Refuses a student that is not dense, a teacher without sequences of latents, and widths that differ."""
        teacher = teachers.get(self.teacher)
        if teacher is None and self.teacher == TEACHER and len(teachers) == 1:
            teacher = next(iter(teachers.values()))
        dim = sequences_of(teacher, self.teacher, teachers).dim
        if dim is None:
            raise ValueError(
                f"the bank of '{self.teacher}' holds ids, and DenseMatching compares latents: use `VokenClassification`."
            )
        width = dense_width(model, self.terms[0])
        if width is not None and width != dim:
            raise ValueError(
                f"the student's dense latents are {width} wide, the teacher's {dim}: build the student with "
                f"`latent_dim={dim}`, or give it a training head, `training_heads={{'{self.terms[0]}': "
                f"{{'out_features': {dim}, 'reads': 'dense_latents'}}}}`."
            )

    def __repr__(self) -> str:
        teacher = "" if self.teacher == TEACHER else f"teacher='{self.teacher}', "
        return f"DenseMatching({teacher}loss='{self.loss}', lengths='{self.lengths}')"


_DENSE_STUDENT = "build the student with `dense=True`, as `from_backbone(..., dense=True)`."


def dense_term(teacher: str) -> str:
    """The name of a teacher's term, and of the training head for it."""
    return "dense" if teacher == TEACHER else f"dense_{teacher}"


def dense_outputs(outputs: Mapping[str, Any], term: str) -> tuple[torch.Tensor, torch.Tensor]:
    """The training head of the term's name, or else the dense latents, `(B, T, D)`; and which positions are no padding,
    `(B, T)` booleans."""
    latents_BTD = outputs.get("dense_latents")
    if latents_BTD is None:
        raise ValueError(f"the model gives no dense_latents, which the term '{term}' reads: {_DENSE_STUDENT}")
    mask_BT = outputs.get("dense_mask")
    if mask_BT is None:
        mask_BT = torch.ones(latents_BTD.shape[:2], dtype=torch.bool, device=latents_BTD.device)
    return (outputs.get("training_outputs") or {}).get(term, latents_BTD), mask_BT.bool()


def dense_distance(z_BTD: torch.Tensor, t_BTD: torch.Tensor, loss: str = "mse") -> torch.Tensor:
    """The mean over a sample's positions with a target, then over the samples that have one; 0 where none has.

    In float32, whatever the autocast dtype, and without a gradient into the targets.

    Args:
        z_BTD, t_BTD (`torch.Tensor` of shape `(B, T, D)`): Latents, and targets that are NaN where there is none.
        loss (`str`): As of [`DenseMatching`].
    """
    if z_BTD.shape != t_BTD.shape:
        raise ValueError(
            f"dense latents of shape {tuple(z_BTD.shape)} have no distance to targets of {tuple(t_BTD.shape)}."
        )
    z_BTD, t_BTD = z_BTD.float(), t_BTD.detach().float()
    counts_BT = have_frame(t_BTD)
    z_BTD, t_BTD = (torch.where(counts_BT[..., None], x_BTD, 0) for x_BTD in (z_BTD, t_BTD))  # no distance, no slope
    if loss == "cosine":
        distances_BT = torch.where(counts_BT, 1 - F.cosine_similarity(z_BTD, t_BTD, dim=-1), 0)
    else:
        distance = F.mse_loss if loss == "mse" else F.smooth_l1_loss
        distances_BT = distance(z_BTD, t_BTD, reduction="none").mean(dim=-1)
    return mean_of_samples(distances_BT, counts_BT)


def mean_of_samples(losses_BT: torch.Tensor, counts_BT: torch.Tensor) -> torch.Tensor:
    """Losses that are 0 where nothing counts: the mean over each sample's positions that count, then over the samples."""
    per_sample_B = losses_BT.sum(dim=1) / counts_BT.sum(dim=1).clamp(min=1)
    return per_sample_B.sum() / counts_BT.any(dim=1).sum().clamp(min=1)


def sequences_of(teacher: Any, name: str, teachers: Mapping[str, Any]) -> SequenceBank:
    """The bank of sequences of a term's teacher; refuses a teacher that is missing or has none."""
    if teacher is None:
        raise ValueError(
            f"there is no teacher '{name}' among {list(teachers)}: pass it to the trainer, or name another."
        )
    if not isinstance(teacher.bank, SequenceBank):
        raise ValueError(
            f"the bank of '{name}' is a {type(teacher.bank).__name__} with one vector a row, and this term compares sequences: "
            "make a `SequenceBank`, or use `LatentMatching`."
        )
    return teacher.bank


def dense_width(model: Any, term: str) -> int | None:
    """The width of what a term of dense targets reads, a training head or the dense latents; None of a model without a
    configuration of ours. Refuses a student that is not dense, or a head that reads one vector a sample."""
    config: Any = getattr(model, "config", None)
    if not hasattr(config, "latent_dim"):
        return None
    if not getattr(config, "dense", False):
        raise ValueError(
            f"the student gives one latent a sample, and the term '{term}' reads one a position: {_DENSE_STUDENT}"
        )
    heads = getattr(config, "training_heads", None) or {}
    if term not in heads:
        return config.latent_dim
    read = model_reading(heads, term)
    if read != "dense_latents":
        raise ValueError(
            f"the training head '{term}' reads '{read}', one vector a sample: let it read 'dense_latents'."
        )
    return heads[term]["out_features"]
