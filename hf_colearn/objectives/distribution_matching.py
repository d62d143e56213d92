"""The distribution of the student's latents is pulled to that of a teacher's, without pairs.

Shapes: B samples of this process, N of all processes, D dimensions of a latent, C classes.
"""

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F

from hf_colearn.objectives.distances import LEAST_SHARE
from hf_colearn.objectives.distribution_distances import (
    label_shares_divergence,
    mmd,
    sinkhorn_divergence,
    sliced_wasserstein,
)
from hf_colearn.objectives.latent_matching import widths_fit
from hf_colearn.objectives.objective import TEACHER, CoLearningBatch, have_target
from hf_colearn.teachers.drawn import Drawn
from hf_colearn.teachers.sequence_bank import SequenceBank
from hf_colearn.utils.checks import check_choice, check_integer, check_positive
from hf_colearn.utils.distributed import gather_with_gradient


DISTANCES = ("sliced_wasserstein", "sinkhorn", "mmd")
MATCHING, SHARES = "distribution_matching", "label_shares"


class DistributionMatching:
    r"""Pulls the distribution of the student's latents to that of a teacher's, and the shares of the classes that it predicts
    to the teacher's: the terms `distribution_matching` and `label_shares`. No sample has a partner.

    `distribution_matching` is a distance between two clouds: the latents of all samples of a batch, \\(\{g(x_i)\}\\), and its
    targets, \\(\{\hat z_j\}\\), which the pairing [`Drawn`] makes a sample of the bank. With `per_class` it is

    \\(\sum_c s_c\, d(\{g(x_i), w_{ic}\}, \{\hat z_j, q_{jc}\})\\)

    with weighted points: \\(w_{ic}\\) is 1 for the class of a label, and where there is none the student's probability, as a
    constant; \\(q_{jc}\\) is the teacher's. A class counts by its share \\(s_c\\) of the student's weights, so that every
    sample is pulled as much; one of which no row was drawn does not count. `label_shares` is \\(KL(\bar q \| \bar p)\\) in
    nats, of the teacher's and the student's mean class probabilities.

    A row without a target is no point of the teacher's cloud. Both are statistics of a micro-batch, over the samples of all
    processes: gradient accumulation averages those of its micro-batches, and makes no larger clouds. Where the student has a
    training head `distribution_matching`, that head's output is matched, so that a teacher's latents may have another width.

    Source: distribution-level distillation without pairs, after the abstract of Tran et al. (ICML 2026), whose losses were not
    read. See [`sliced_wasserstein`](~hf_colearn.objectives.distribution_distances.sliced_wasserstein),
    [`sinkhorn_divergence`](~hf_colearn.objectives.distribution_distances.sinkhorn_divergence),
    [`mmd`](~hf_colearn.objectives.distribution_distances.mmd) and
    [`label_shares_divergence`](~hf_colearn.objectives.distribution_distances.label_shares_divergence).

    Args:
        distance (`str`, *optional*, defaults to `"sliced_wasserstein"`): Squared sliced Wasserstein-2, in squared units of the
            targets a dimension, so that with standardised ones it is as large as a mean squared error; `"sinkhorn"`, of the
            same units, or `"mmd"`, squared, from 0 to 2.
        per_class (`bool`, *optional*, defaults to `False`): Whether clouds are compared class by class.
        shares (`bool`, *optional*, defaults to `True`): Whether there is the term `label_shares`.
        teacher (`str`, *optional*, defaults to `"teacher"`): Whose latents they are, among `CoLearningTrainer(teachers=...)`.
        classes (`str`, *optional*, defaults to `"classes"`): The teacher with the class probabilities `(C,)` of the same rows,
            for `per_class` and `shares`. Its bank is scaled by `"none"`, and its pairing is the same.
        projections (`int`, *optional*, defaults to 64): Directions of the sliced distance.
        regularization (`float`, *optional*, defaults to 0.1): Of the Sinkhorn divergence.

    Raises:
        ValueError: If an argument is none of these; when the trainer is built, if a teacher is missing, a width does not fit,
            or the classes are not those of the same rows.

    Example:

    ```python
    >>> import torch
    >>> from hf_colearn import DistributionMatching
    >>> from hf_colearn.objectives.objective import CoLearningBatch

    >>> latents, drawn = torch.tensor([[0.0], [1.0], [2.0]]), torch.tensor([[1.0], [4.0], [1.0]])
    >>> batch = CoLearningBatch(targets={"teacher": drawn})
    >>> DistributionMatching(shares=False)({"latents": latents}, batch)  # sorted: (1 + 0 + 4) / 3
    {'distribution_matching': tensor(1.6667)}
    ```
    """

    def __init__(
        self,
        distance: str = "sliced_wasserstein",
        per_class: bool = False,
        shares: bool = True,
        teacher: str = TEACHER,
        classes: str = "classes",
        projections: int = 64,
        regularization: float = 0.1,
    ):
        check_choice("distance", distance, DISTANCES)
        check_integer("projections", projections, least=1)
        check_positive("regularization", regularization)
        if teacher == classes:
            raise ValueError(
                f"teacher='{teacher}' and classes='{classes}' are one teacher: name a second one, whose bank holds the class "
                "probabilities of the same rows."
            )
        self.distance, self.per_class, self.shares = distance, per_class, shares
        self.teacher, self.classes = teacher, classes
        self.projections, self.regularization = projections, regularization
        self.terms: tuple[str, ...] = (MATCHING, SHARES) if shares else (MATCHING,)

    def __call__(self, outputs: Mapping[str, Any], batch: CoLearningBatch) -> dict[str, torch.Tensor]:
        z_BD = (outputs.get("training_outputs") or {}).get(MATCHING, outputs["latents"])
        columns = [z_BD, *_sample(batch.targets[self.teacher])]
        if self.per_class or self.shares:
            p_BC = outputs["logits"].float().softmax(dim=-1)
            columns += [p_BC, _classes(p_BC, batch), *_sample(batch.targets[self.classes])]
        widths = [column.shape[1] for column in columns]
        with torch.autocast(z_BD.device.type, enabled=False):
            gathered = gather_with_gradient(torch.cat([column.float() for column in columns], dim=1))
            z_ND, t_ND, has_N1, *of_classes = gathered.split(widths, dim=1)
            a_CN, b_CM = torch.ones_like(has_N1.T), has_N1.T
            if of_classes:
                p_NC, w_NC, q_NC, known_N1 = of_classes
            if self.per_class:
                a_CN, b_CM = w_NC.T, (q_NC * has_N1).T
            s_C = a_CN.sum(dim=1) * (b_CM.sum(dim=1) > 0)
            distance = (self._distances(z_ND, t_ND, a_CN, b_CM) * s_C).sum() / s_C.sum().clamp(min=LEAST_SHARE)
            losses = {MATCHING: distance * batch.weight(self.teacher)}
            if self.shares:
                divergence = label_shares_divergence(p_NC, q_NC, known_N1[:, 0])
                losses[SHARES] = divergence * batch.weight(self.classes)
        return losses

    def _distances(
        self, x_ND: torch.Tensor, y_MD: torch.Tensor, a_CN: torch.Tensor, b_CM: torch.Tensor
    ) -> torch.Tensor:
        if self.distance == "sliced_wasserstein":
            return sliced_wasserstein(x_ND, y_MD, a_CN, b_CM, self.projections)
        if self.distance == "sinkhorn":
            return sinkhorn_divergence(x_ND, y_MD, a_CN, b_CM, self.regularization)
        return mmd(x_ND, y_MD, a_CN, b_CM)

    def check(self, model: Any, teachers: Mapping[str, Any]) -> None:
        """Refuses teachers that are missing, of another width, or whose classes are not those of the same rows."""
        config, needed = getattr(model, "config", None), [self.teacher]
        needed += [self.classes] if self.per_class or self.shares else []
        for name in needed:
            if name not in teachers:
                way_out = f"`teachers={{'{name}': Teacher(bank, Drawn()), ...}}`"
                if name == self.classes:
                    way_out += (
                        " with a bank of class probabilities, or leave classes out, `shares=False, per_class=False`"
                    )
                raise ValueError(
                    f"DistributionMatching needs the teacher '{name}', and there is {list(teachers) or 'none'}: pass {way_out}."
                )
            if isinstance(teachers[name].bank, SequenceBank):
                raise ValueError(f"the bank of '{name}' holds sequences: pass a `TeacherBank`, one vector a row.")
        heads = getattr(config, "training_heads", None) or {}
        width = heads[MATCHING]["out_features"] if MATCHING in heads else getattr(config, "latent_dim", None)
        widths_fit(width, teachers[self.teacher].dim, MATCHING)
        if len(needed) > 1:
            _check_classes(config, self.classes, teachers[self.classes], self.teacher, teachers[self.teacher])

    def __repr__(self) -> str:
        options = f"projections={self.projections}, regularization={self.regularization}"
        return f"DistributionMatching('{self.distance}', per_class={self.per_class}, shares={self.shares}, {options})"


def _sample(targets_BD: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Targets with 0 in place of none, and which there are, `(B, 1)`: 1 or 0."""
    has_B1 = have_target(targets_BD)[:, None]
    return torch.where(has_B1, targets_BD, 0), has_B1


def _classes(p_BC: torch.Tensor, batch: CoLearningBatch) -> torch.Tensor:
    """How much every sample is of every class, `(B, C)`: by its label, or without one by the student's probabilities."""
    if batch.labels is None or batch.labelled is None:
        return p_BC.detach()
    labels = batch.labels
    label_BC = F.one_hot(labels.clamp(min=0), p_BC.shape[1]) if labels.ndim == 1 else labels
    return torch.where(batch.labelled[:, None], label_BC.to(p_BC), p_BC.detach())


def _check_classes(config: Any, name: str, classes: Any, of: str, latents: Any) -> None:
    problem, count = getattr(config, "problem_type", None), getattr(config, "num_labels", None)
    if problem not in (None, "single_label_classification"):
        raise ValueError(f"the student's problem is {problem}, which has no shares of classes: leave classes out.")
    if count is not None and classes.dim != count:
        raise ValueError(
            f"the bank of '{name}' is {classes.dim} wide, and the student has {count} classes: it must hold a probability for "
            "each."
        )
    if "scaling" not in classes.bank.description or classes.bank.scaling != "none":
        raise ValueError(f"the bank of '{name}' holds probabilities, not to be scaled: pass `bank.scaled('none')`.")
    of_one_kind = isinstance(classes.pairing, Drawn) and isinstance(latents.pairing, Drawn)
    if len(classes.bank) != len(latents.bank) or not (of_one_kind or classes.pairing is latents.pairing):
        raise ValueError(
            f"the {len(classes.bank)} rows of '{name}' ({type(classes.pairing).__name__}) are not the {len(latents.bank)} of "
            f"'{of}' ({type(latents.pairing).__name__}): give both banks the same rows, and both teachers one pairing."
        )
