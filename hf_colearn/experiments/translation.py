"""Translation between modalities with few labels: the arms, their trainers, and how much of held-out targets is explained.

Shapes: N training samples, M test samples, D dimensions of a target.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from datasets import Dataset

from hf_colearn.alpha.schedules import ConstantAlpha
from hf_colearn.analysis.run import Run
from hf_colearn.arguments import CoLearningArguments
from hf_colearn.data.views import TwoViews
from hf_colearn.evaluation.retrieval import retrieval_scores
from hf_colearn.experiments.scoring import scored_run
from hf_colearn.experiments.semi_supervised import (
    SemiSupervised,
    SemiSupervisedArm,
    ShuffledOnce,
    semi_supervised_arms,
)
from hf_colearn.models.lora import base_model
from hf_colearn.objectives.cyclic_translation import CyclicTranslation
from hf_colearn.teachers.bank import TeacherBank
from hf_colearn.teachers.pairing import Paired
from hf_colearn.teachers.teacher import Teacher
from hf_colearn.trainer import CoLearningTrainer
from hf_colearn.utils.tables import text_table


PERMUTED, OWN, ALONE = "cyclic, permuted pairs", "cyclic, own components", "translation alone"
TRANSFER = "latent transfer"


def translation_arms() -> list[SemiSupervisedArm]:
    """What a recipe of translation trains, each at its usual setting.

    | arm | kind | what it is trained on |
    |---|---|---|
    | labels alone, self-training | baseline, null | as of [`~hf_colearn.experiments.semi_supervised.semi_supervised_arms`] |
    | cyclic, permuted pairs | null | labels, and translation into a fixed wrong partner and back |
    | cyclic, own components | null | labels, and translation into principal components of the own inputs and back |
    | cyclic translation | co-learned | labels, and translation into the partner and back |
    | translation alone | co-learned | the same without the way back |
    | latent transfer | reference | labels, and latents that are the teacher's |
    """
    weights = ({"weight": 0.1, "rate": 3.0}, {"weight": 2.0, "rate": 3.0}, {"weight": 10.0, "rate": 3.0})
    translated: dict[str, Any] = {"grid": weights, "two_streams": True}  # a weight of 0.1 is the published one
    alone, own_labels = semi_supervised_arms()[:2]
    transfer = next(arm for arm in semi_supervised_arms() if arm.name == TRANSFER)
    return [
        alone,
        own_labels,
        SemiSupervisedArm(PERMUTED, "null", ShuffledOnce(), **translated),
        SemiSupervisedArm(OWN, "null", Paired(), **translated),
        SemiSupervisedArm("cyclic translation", "colearned", Paired(), **translated),
        SemiSupervisedArm(ALONE, "colearned", Paired(), **translated),
        replace(transfer, kind="reference"),
    ]


class Translations(SemiSupervised):
    """Builds the trainers of [`translation_arms`] for one student, one teacher and one training set.

    Args:
        train ([`datasets.Dataset`]): As of [`~hf_colearn.experiments.semi_supervised.SemiSupervised`].
        bank ([`TeacherBank`]): The latents of the teacher.
        make_student (`Callable`): From the names of the training heads (`"translation"`, `"cycle"`) to a new student.
        inputs (`np.ndarray` of shape `(N, F)`): The student's inputs by sample id, which the cycle leads back to.
        options: As of [`~hf_colearn.experiments.semi_supervised.SemiSupervised`].
    """

    def __init__(
        self,
        train: Dataset,
        bank: TeacherBank,
        make_student: Callable[[Sequence[str]], Any],
        inputs: np.ndarray,
        **options: Any,
    ):
        super().__init__(train, bank, lambda: make_student(()), inputs, TwoViews(), **options)
        self.make_translator = make_student

    def make_trainer(self, arm: Any, args: CoLearningArguments) -> CoLearningTrainer:
        """The trainer of an arm, as `run_recipe` asks for it."""
        if arm.pairing is None or arm.method == TRANSFER:
            return super().make_trainer(arm, args)
        objective = CyclicTranslation("other", None if arm.method == ALONE else "own")
        teachers = {
            "other": Teacher(self.own_bank if arm.method == OWN else self.bank, arm.pairing),
            "own": Teacher(TeacherBank.from_latents(self.inputs)),
        }
        return self._trainer(
            args,
            self.few_labels(arm, args.seed),
            self.make_translator(objective.terms),
            teachers={name: teachers[name] for name in objective.teachers.values()},
            objective=objective,
            alpha=ConstantAlpha.from_weights(dict.fromkeys(objective.terms, arm.setting["weight"])),
        )


class HeldOutTargets:
    """Scores a run as usual, and its training heads by held-out targets, as `run_recipe(score=...)` takes it.

    Adds `{head}_explained`, 1 - sum |z - t|^2 / sum |t|^2 with targets that are standardised by the training ones: 0 for a head
    that knows their mean alone; and `{head}_recall_at_5`, of how many samples the own target is among the five nearest.

    Args:
        train, test (`Mapping[str, torch.Tensor]` of shapes `(N, D)` and `(M, D)`): The targets by the head's name.
    """

    def __init__(self, train: Mapping[str, torch.Tensor], test: Mapping[str, torch.Tensor]):
        self.targets = {head: standardized_by(train[head], test[head]) for head in train}

    def __call__(self, trainer: CoLearningTrainer, test_dataset: Any, arm: str, kind: Any, **options: Any) -> Run:
        run = scored_run(trainer, test_dataset, arm, kind, **options)
        model: Any = base_model(trainer.model)
        known = set(model.input_names) & set(test_dataset.column_names)
        with torch.no_grad():
            outputs = model.eval()(**{name: test_dataset[name][:].to(model.device) for name in known})
        found = outputs.training_outputs or {}
        for head, targets_MD in self.targets.items():
            if head in found:
                scores = retrieval_scores(found[head].cpu().numpy(), targets_MD.numpy())
                run.metrics[f"{head}_explained"] = scores["explained_variance"]
                run.metrics[f"{head}_recall_at_5"] = scores["recall_at_5"]
        return run

    def table(self, runs: Sequence[Run]) -> str:
        """The means over the seeds by arm, in %."""
        names = [f"{head}_{score}" for head in self.targets for score in ("explained", "recall_at_5")]
        rows = [["held out [%]", *(name.replace("_", " ") for name in names)]]
        for arm in dict.fromkeys(run.arm for run in runs):
            found = [run.metrics for run in runs if run.arm == arm]
            means = {name: np.mean([metrics[name] for metrics in found]) for name in names if name in found[0]}
            if means:
                rows.append([arm, *(f"{100 * means[name]:.1f}" if name in means else "" for name in names)])
        return text_table(rows)


def standardized_by(train_ND: torch.Tensor, test_MD: torch.Tensor) -> torch.Tensor:
    """The test targets `(M, D)` in the scale of training, by the moments of the training ones."""
    both = TeacherBank.from_latents(torch.cat([train_ND, test_MD])).scaled("standardized", range(len(train_ND)))
    return both.lookup(range(len(train_ND), len(both)))
