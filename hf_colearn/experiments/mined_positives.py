"""Few labels and mined positives: the arms, their trainers, and a second view of features.

Shapes: N training samples, B samples of a batch, F features, D dimensions of a teacher's latent.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from torch import nn

from hf_colearn.arguments import CoLearningArguments
from hf_colearn.experiments.semi_supervised import (
    SemiSupervised,
    SemiSupervisedArm,
    ShuffledOnce,
    semi_supervised_arms,
)
from hf_colearn.objectives.cross_modal_mining import CrossModalMining
from hf_colearn.teachers.bank import TeacherBank
from hf_colearn.teachers.pairing import Paired
from hf_colearn.teachers.teacher import Teacher
from hf_colearn.trainer import CoLearningTrainer


OWN_KEYS, RANDOM, OWN = "own keys alone", "random neighbours", "own modality's neighbours"
PERMUTED, MINED, TRANSFER = "neighbours of permuted pairs", "mined positives", "latent transfer"
_SETTINGS = ({"alpha": 0.8, "rate": 3.0}, {"alpha": 0.9, "rate": 3.0}, {"alpha": 0.95, "rate": 10.0})


def mining_arms() -> list[SemiSupervisedArm]:
    """What the recipe of mined positives trains, each at its usual setting.

    | arm | kind | what it is trained on |
    |---|---|---|
    | labels alone, self-training | baseline, null | as of [`~hf_colearn.experiments.semi_supervised.semi_supervised_arms`] |
    | own keys alone | null | labels, and the contrastive loss of two views of all samples, without neighbours |
    | random neighbours | null | the same with neighbours by a random vector of every sample |
    | own modality's neighbours | null | with neighbours by principal components of the student's own inputs |
    | neighbours of permuted pairs | null | with those of a fixed wrong partner in the teacher's space |
    | mined positives | co-learned | with neighbours in the teacher's space |
    | latent transfer | reference | labels, and latents that are the teacher's |
    """

    def contrastive(name: str, kind: Any, pairing: Any) -> SemiSupervisedArm:
        return SemiSupervisedArm(name, kind, pairing, grid=_SETTINGS, two_streams=True)

    alone, own_labels, *others = semi_supervised_arms()
    return [
        alone,
        own_labels,
        *(contrastive(name, "null", Paired()) for name in (OWN_KEYS, RANDOM, OWN)),
        contrastive(PERMUTED, "null", ShuffledOnce()),
        contrastive(MINED, "colearned", Paired()),
        *(replace(arm, kind="reference") for arm in others if arm.name == TRANSFER),
    ]


class MinedPositives(SemiSupervised):
    """Builds the trainers of [`mining_arms`] for one student, one teacher and one training set.

    Args:
        train, bank, make_student, inputs: As of [`~hf_colearn.experiments.semi_supervised.SemiSupervised`]; where the student's
            latents have another width, the options hold `make_matching_student`.
        views (`Callable`): Makes two views of every sample, the weak one of which is the key.
        mining (`Mapping`): Keywords of [`CrossModalMining`].
        options: As of [`~hf_colearn.experiments.semi_supervised.SemiSupervised`].
    """

    def __init__(
        self,
        train: Dataset,
        bank: TeacherBank,
        make_student: Callable[[], Any],
        inputs: np.ndarray,
        views: Callable[[dict[str, Any]], dict[str, Any]],
        mining: Mapping[str, Any],
        **options: Any,
    ):
        super().__init__(train, bank, make_student, inputs, views, **options)
        self.mining = mining

    def make_trainer(self, arm: Any, args: CoLearningArguments) -> CoLearningTrainer:
        """The trainer of an arm, as `run_recipe` asks for it."""
        if arm.pairing is None or arm.method == TRANSFER:
            return super().make_trainer(arm, args)
        mining = {**self.mining, "neighbours": 0} if arm.method == OWN_KEYS else self.mining
        return self._trainer(
            args,
            self.few_labels(arm, args.seed),
            teachers={"other": Teacher(self._bank_of(arm.method, args.seed), arm.pairing)},
            objective=CrossModalMining("other", **mining),
            augment=self.views,
        )

    def _bank_of(self, method: str, seed: int) -> TeacherBank:
        """The vectors by which an arm looks for neighbours."""
        if method == RANDOM:
            drawn_ND = np.random.default_rng(seed).standard_normal((len(self.bank), self.bank.dim))
            return TeacherBank.from_latents(drawn_ND.astype(np.float32), teacher="random vectors")
        return self.own_bank if method == OWN else self.bank


class FeatureDropout(nn.Module):
    """A view of a batch: a share of every sample's features is replaced by their means. Draws from torch's generators.

    Args:
        features_NF (`torch.Tensor` of shape `(N, F)`): Whose means they are.
        probability (`float`): The share, from 0 to below 1.
        entry (`str`, *optional*, defaults to `"features"`): The entry of the batch, `(B, F)`.
    """

    means_F: torch.Tensor

    def __init__(self, features_NF: torch.Tensor, probability: float, entry: str = "features"):
        super().__init__()
        if not 0 <= probability < 1:
            raise ValueError(f"probability={probability} leaves no features: pass one from 0 to below 1.")
        self.probability, self.entry = probability, entry
        self.register_buffer("means_F", features_NF.mean(dim=0), persistent=False)

    @torch.no_grad()
    def forward(self, batch: dict[str, Any]) -> dict[str, Any]:
        features_BF = batch[self.entry]
        is_replaced_BF = torch.rand_like(features_BF) < self.probability
        return {**batch, self.entry: torch.where(is_replaced_BF, self.means_F.to(features_BF.dtype), features_BF)}
