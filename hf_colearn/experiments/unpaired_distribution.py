"""Another modality without pairs, few labels: the arms that ask whether pairs matter, and their trainers.

Shapes: N training samples, C classes, D dimensions of a latent.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np
from datasets import Dataset

from hf_colearn.alpha.schedules import ConstantAlpha
from hf_colearn.arguments import CoLearningArguments
from hf_colearn.data.views import TwoViews
from hf_colearn.experiments.semi_supervised import (
    SemiSupervised,
    SemiSupervisedArm,
    class_probabilities,
    labels_of,
    semi_supervised_arms,
)
from hf_colearn.objectives.distribution_matching import DistributionMatching
from hf_colearn.teachers.bank import TeacherBank
from hf_colearn.teachers.drawn import Drawn, gaussian_cloud
from hf_colearn.teachers.pairing import RandomPrompt
from hf_colearn.teachers.teacher import Teacher
from hf_colearn.trainer import CoLearningTrainer


MARGINAL, BY_CLASS = "distribution", "distribution by class"
GAUSSIAN, PERMUTED = "Gaussian cloud", "distribution by class, permuted"
PROMPTS, TRANSFER = "random prompts", "latent transfer"
LABELLED = "distribution by class, labelled teacher"
TEMPLATE = "This is about {name}."


def unpaired_arms(class_names: Sequence[str]) -> list[SemiSupervisedArm]:
    """What the recipe trains, each at its usual setting.

    | arm | kind | what it is trained on |
    |---|---|---|
    | labels alone, self-training | baseline, null | as of [`~hf_colearn.experiments.semi_supervised.semi_supervised_arms`] |
    | Gaussian cloud | null | labels, label shares, and the distribution of Gaussian vectors of the teacher's moments |
    | distribution by class, permuted | null | as the arm below, with the cloud of another class |
    | random prompts | co-learned | labels, and the prompt of a random class as the latent of every sample |
    | distribution | co-learned | labels, label shares, and the distribution of the teacher's latents |
    | distribution by class | co-learned | the same class by class |
    | distribution by class, labelled teacher | reference | the same, where all of the teacher's rows have their labels |
    | latent transfer | reference | labels, and the teacher's latent of every sample: true pairs |

    Args:
        class_names (`Sequence[str]`): Of the prompts.
    """
    weights = ({"weight": 0.1, "rate": 1.0}, {"weight": 1.0, "rate": 3.0}, {"weight": 5.0, "rate": 3.0})
    alphas = (
        {"alpha": 0.1, "rate": 1.0},
        {"alpha": 0.3, "rate": 1.0},
        {"alpha": 0.5, "rate": 1.0},
    )  # published are the last two
    drawn: dict[str, Any] = {"pairing": Drawn(), "grid": weights, "two_streams": True}
    known = {arm.name: arm for arm in semi_supervised_arms()}
    prompts = RandomPrompt(TEMPLATE, names=class_names)
    return [
        known["labels alone"],
        known["self-training"],
        SemiSupervisedArm(GAUSSIAN, "null", **drawn),
        SemiSupervisedArm(PERMUTED, "null", **drawn),
        SemiSupervisedArm(PROMPTS, "colearned", prompts, grid=alphas, two_streams=True),
        SemiSupervisedArm(MARGINAL, "colearned", **drawn),
        SemiSupervisedArm(BY_CLASS, "colearned", **drawn),
        SemiSupervisedArm(LABELLED, "reference", **drawn),
        replace(known[TRANSFER], kind="reference"),
    ]


class UnpairedDistributions(SemiSupervised):
    """Builds the trainers of [`unpaired_arms`] for one student, one teacher and one training set.

    The classes of the teacher's rows are those of a classifier of its latents that has as many labels as the student, but of
    a labelled teacher.

    Args:
        train, bank, make_student, inputs, options: As of [`~hf_colearn.experiments.semi_supervised.SemiSupervised`].
        prompts ([`TeacherBank`]): The teacher's latents of the prompts of [`unpaired_arms`].
        distance (`str`, *optional*, defaults to `"sliced_wasserstein"`): That of [`DistributionMatching`].
    """

    def __init__(
        self,
        train: Dataset,
        bank: TeacherBank,
        make_student: Callable[[], Any],
        inputs: np.ndarray,
        prompts: TeacherBank,
        distance: str = "sliced_wasserstein",
        **options: Any,
    ):
        super().__init__(train, bank, make_student, inputs, TwoViews(), **options)
        self.prompts, self.distance = prompts, distance

    @cached_property
    def gaussian(self) -> TeacherBank:
        """Vectors of the teacher's moments."""
        return gaussian_cloud(self.bank)

    def make_trainer(self, arm: Any, args: CoLearningArguments) -> CoLearningTrainer:
        """The trainer of an arm, as `run_recipe` asks for it."""
        if arm.method not in (GAUSSIAN, PERMUTED, PROMPTS, MARGINAL, BY_CLASS, LABELLED):
            return super().make_trainer(arm, args)
        train = self.few_labels(arm, args.seed)
        if arm.method == PROMPTS:
            return self._trainer(args, train, bank=self.prompts, pairing=arm.pairing)
        classes = self.class_bank(self.train if arm.method == LABELLED else train)
        bank = self.gaussian if arm.method == GAUSSIAN else self.bank
        if arm.method == PERMUTED:
            bank = with_permuted_classes(bank, classes, args.seed)
        by_class = arm.method not in (MARGINAL, GAUSSIAN)
        objective = DistributionMatching(self.distance, by_class, projections=16)  # many classes a step
        return self._trainer(
            args,
            train,
            teachers={"teacher": Teacher(bank, arm.pairing), "classes": Teacher(classes, arm.pairing)},
            objective=objective,
            alpha=ConstantAlpha.from_weights(dict.fromkeys(objective.terms, arm.setting["weight"])),
        )

    def class_bank(self, train: Dataset) -> TeacherBank:
        """The class probabilities `(N, C)` of the bank's rows."""
        latents_ND = self.bank.lookup(np.arange(len(self.bank))).numpy()
        probabilities_NC = class_probabilities(latents_ND, labels_of(train))
        return TeacherBank.from_latents(probabilities_NC, teacher="classifier of the teacher's latents").scaled("none")


def with_permuted_classes(bank: TeacherBank, classes: TeacherBank, seed: int) -> TeacherBank:
    """The null control of clouds by class: every row has the latent of a row of another class, the same one for all of a class.

    The classes are those of the largest probability, and in one cycle, so that none keeps its own cloud. The shares of the
    classes stay.

    Args:
        bank, classes ([`TeacherBank`]): The latents `(N, D)`, and the class probabilities `(N, C)` of the same rows.
        seed (`int`): Draws the cycle, and the rows.
    """
    rng, class_N = np.random.default_rng(seed), classes.lookup(np.arange(len(classes))).argmax(dim=1).numpy()
    cycle = rng.permutation(np.unique(class_N))
    rows_N = np.empty(len(bank), dtype=np.int64)
    for label, other in zip(cycle, np.roll(cycle, 1), strict=True):
        rows_N[class_N == label] = rng.choice(np.flatnonzero(class_N == other), size=(class_N == label).sum())
    return TeacherBank.from_latents(bank.lookup(rows_N), teacher="latents of another class")
