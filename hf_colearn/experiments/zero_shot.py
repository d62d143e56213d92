"""Classes without a training sample: their draw, the arms, small networks on frozen features, and how runs are scored.

Shapes: N training samples, F features, D dimensions of a latent, C classes, seen and unseen.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from datasets import Dataset
from scipy.special import softmax

from hf_colearn.analysis.report.zero_shot import FACT, curve_as_fact
from hf_colearn.analysis.run import Run, Samples, kept_rows
from hf_colearn.arguments import CoLearningArguments
from hf_colearn.evaluation.zero_shot import GeneralisedZeroShot, generalised_zero_shot, novelty
from hf_colearn.experiments.arms import TunedArm
from hf_colearn.experiments.cost import Cost
from hf_colearn.experiments.frozen_features import feature_dataset
from hf_colearn.experiments.predicting import predicted
from hf_colearn.experiments.scoring import own_run
from hf_colearn.experiments.semi_supervised import ShuffledOnce
from hf_colearn.models.configuration import FeatureBackboneConfig
from hf_colearn.models.features import CoLearningForFeatureClassification
from hf_colearn.teachers.bank import TeacherBank
from hf_colearn.teachers.class_vectors import centred
from hf_colearn.teachers.graph_vectors import permuted_classes
from hf_colearn.teachers.pairing import Paired
from hf_colearn.trainer import CoLearningTrainer
from hf_colearn.utils.extras import extra


NAMES, MEMBERS, RANDOM, LEARNED = "names", "members", "random", "learned"  # what class vectors are made of
_RATES = ({"rate": 0.3}, {"rate": 1.0}, {"rate": 3.0})
_PAIRS = ({"alpha": 0.5, "rate": 1.0}, {"alpha": 0.8, "rate": 1.0}, {"alpha": 0.8, "rate": 3.0})
_PENALTIES = ({"penalty": 300.0}, {"penalty": 1000.0}, {"penalty": 3000.0})


@dataclass(frozen=True)
class ZeroShotArm(TunedArm):
    """One arm. `alpha` of its setting is the weight of the pairs, `penalty` that of a ridge regression.

    Args:
        vectors (`str`): What its class vectors are made of: `"names"`, `"members"`, `"random"` or `"learned"`.
        permuted (`bool`): Whether those of the unseen classes change places.
    """

    vectors: str = NAMES
    permuted: bool = False

    def arguments(self, training: Mapping[str, Any], seed: int) -> CoLearningArguments:
        """Those of one run; of a ridge regression, which is solved before, such that no weight changes."""
        values = dict(training)
        if "alpha" in self.setting:
            values["alpha"] = self.setting["alpha"]
        if "penalty" in self.setting:
            values |= {"learning_rate": 0.0, "max_steps": 1, "warmup_steps": 0}
        return super().arguments(values, seed)


def zero_shot_arms() -> list[ZeroShotArm]:
    """What is compared, each at its usual setting.

    | arm | kind | its class vectors |
    |---|---|---|
    | learned vectors | baseline | learned with the labels; those of unseen classes are random |
    | class names + pairs | co-learned | as below; and the latent of every training sample learns from that of its own name |
    | class names | co-learned | the teacher's of prompts with the classes' names |
    | members' names + pairs | co-learned | as below; and pairs |
    | members' names | co-learned | the mean of the teacher's latents of the members' names |
    | permuted vectors | null | as the first with pairs, those of the unseen classes permuted |
    | random vectors | null | random directions |
    | class names + permuted pairs | reference | as the first with pairs, every sample with another one's name |
    | ridge, class names; ridge, members' names | reference | a ridge regression from features to class vectors |

    Null controls are those without a class's own vector; their settings are those of the arms that they belong to, since unseen
    accuracy by chance chooses none. Permuted pairs have the true vectors, and say what the content of the pairs is worth.
    """
    pairs: dict[str, Any] = {"pairing": Paired(), "grid": _PAIRS}
    return [
        ZeroShotArm("learned vectors", "baseline", grid=_RATES, vectors=LEARNED),
        ZeroShotArm("class names + pairs", "colearned", **pairs),
        ZeroShotArm("class names", "colearned", grid=_RATES),
        ZeroShotArm("members' names + pairs", "colearned", vectors=MEMBERS, **pairs),
        ZeroShotArm("members' names", "colearned", grid=_RATES, vectors=MEMBERS),
        ZeroShotArm("permuted vectors", "null", method="class names + pairs", permuted=True, **pairs),
        ZeroShotArm("random vectors", "null", method="class names", grid=_RATES, vectors=RANDOM),
        ZeroShotArm("class names + permuted pairs", "reference", pairing=ShuffledOnce(), grid=_PAIRS),
        ZeroShotArm("ridge, class names", "reference", grid=_PENALTIES),
        ZeroShotArm("ridge, members' names", "reference", grid=_PENALTIES, vectors=MEMBERS),
    ]


@dataclass(frozen=True)
class Classes:
    """Which of the C classes a run trains on, and which it is asked for without: arrays of class numbers, ascending."""

    seen: np.ndarray
    unseen: np.ndarray

    @classmethod
    def drawn(cls, num_classes: int, share: float, seed: int, for_choice: bool = False) -> "Classes":
        """A share of the classes is unseen. For the choice of settings these are left out, and as many others unseen.

        Raises:
            ValueError: If the share leaves fewer than 2 unseen classes, or fewer than 2 to train on.
        """
        count = round(share * num_classes)
        order = np.random.default_rng(seed).permutation(num_classes)
        parts = order[:count], order[count : 2 * count], order[2 * count :]
        seen, unseen = (parts[2], parts[1]) if for_choice else (np.r_[parts[1], parts[2]], parts[0])
        if min(len(seen), len(unseen)) < 2:
            raise ValueError(
                f"unseen_share={share} of {num_classes} classes leaves {len(seen)} to train on and {len(unseen)} unseen: both "
                "must be at least 2, so choose another share, or data with more classes."
            )
        return cls(np.sort(seen), np.sort(unseen))


class ZeroShot:
    """Builds the trainers of the arms and scores their students, as `run_recipe` takes both.

    Args:
        features_NF (`torch.Tensor`), labels_N (`np.ndarray`): Of all N training samples.
        names (`Sequence[str]`): Of the C classes.
        bank ([`TeacherBank`]): The latent of every training sample's name.
        teacher (`str`): What encoded it, in words.
        vectors (`Mapping[str, Mapping[str, torch.Tensor]]`): `names` and `members`, each a vector `(D,)` a class.
        unseen_share (`float`): Of the classes.
        hidden_dims (`Sequence[int]`), scale (`float`): As of [`~hf_colearn.experiments.frozen_features.feature_student`].
        logit_scale (`float`): Of the head.
        plans (`Sequence[ZeroShotArm]`): By whose names a run is scored; the first co-learned one is that of the student.
        for_choice (`bool`): Whether settings are chosen, for which the test's unseen classes are put aside.
    """

    def __init__(
        self,
        features_NF: torch.Tensor,
        labels_N: np.ndarray,
        names: Sequence[str],
        bank: TeacherBank,
        teacher: str,
        vectors: Mapping[str, Mapping[str, torch.Tensor]],
        plans: Sequence[ZeroShotArm],
        *,
        unseen_share: float,
        hidden_dims: Sequence[int],
        scale: float,
        logit_scale: float,
        for_choice: bool = False,
    ):
        self.features_NF, self.labels_N, self.names = features_NF, np.asarray(labels_N), list(names)
        self.latents_ND = F.normalize(bank.lookup(np.arange(len(bank))), dim=1)
        self.teacher = teacher
        self.vectors = vectors
        self.plans = {plan.name: plan for plan in plans}
        self.kept = next((plan for plan in plans if plan.kind == "colearned"), plans[0])
        self.unseen_share, self.hidden_dims, self.scale, self.logit_scale = (
            unseen_share,
            hidden_dims,
            scale,
            logit_scale,
        )
        self.for_choice = for_choice
        self.classes(0)  # which refuses a share

    def classes(self, seed: int) -> Classes:
        """The seen and unseen ones of a run."""
        return Classes.drawn(len(self.names), self.unseen_share, seed, self.for_choice)

    def class_vectors(self, arm: ZeroShotArm, seed: int) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
        """Of the seen and of the unseen classes, about the mean of the seen ones."""
        classes = self.classes(seed)
        seen, unseen = ([self.names[c] for c in part] for part in (classes.seen, classes.unseen))
        if arm.vectors in self.vectors:
            unit = {name: F.normalize(self.vectors[arm.vectors][name], dim=0) for name in [*seen, *unseen]}
            all_of_them = centred(unit, seen)
        else:
            drawn_CD = torch.randn(
                len(self.names),
                self.latents_ND.shape[1],
                generator=torch.Generator().manual_seed(2 * seed + (arm.vectors == LEARNED)),
            )
            all_of_them = dict(zip(self.names, drawn_CD, strict=True))
        of_unseen = {name: all_of_them[name] for name in unseen}
        return {name: all_of_them[name] for name in seen}, permuted_classes(
            of_unseen, seed
        ) if arm.permuted else of_unseen

    def source_of(self, arm: ZeroShotArm) -> str | None:
        """Where an arm's class vectors come from, in words; None where the labels make them."""
        words = {
            NAMES: f"{self.teacher}, of prompts with the classes' names",
            MEMBERS: f"{self.teacher}, the mean over the members' names",
            RANDOM: "random directions",
        }
        centre = "" if arm.vectors == RANDOM else ", minus the mean over the student's classes"
        return None if arm.vectors == LEARNED else words[arm.vectors] + centre

    def training_set(self, seed: int) -> tuple[np.ndarray, Dataset]:
        """The rows of the seen classes' samples, and these with their labels among the seen classes."""
        seen = self.classes(seed).seen
        rows = np.flatnonzero(np.isin(self.labels_N, seen))
        return rows, feature_dataset(self.features_NF[rows], np.searchsorted(seen, self.labels_N[rows]).tolist())

    def make_trainer(self, arm: ZeroShotArm, args: CoLearningArguments) -> CoLearningTrainer:
        """The trainer of an arm, of whose evaluation see [`ZeroShotTrainer`]."""
        rows, train = self.training_set(args.seed)
        vectors, _ = self.class_vectors(arm, args.seed)
        ridge = "penalty" in arm.setting
        config = FeatureBackboneConfig(
            feature_dim=self.features_NF.shape[1],
            hidden_dims=[] if ridge else list(self.hidden_dims),
            standardized=True,
        )
        student = CoLearningForFeatureClassification.from_backbone(
            config,
            head="prototypes",
            class_vectors=vectors,
            learned_class_vectors=arm.vectors == LEARNED,
            logit_scale=self.logit_scale,
            class_vectors_from=self.source_of(arm),
            latent_norm="none" if ridge else "layernorm",
        )
        student.backbone.set_statistics(self.features_NF[rows], 1.0 if ridge else self.scale)
        if ridge:
            set_ridge(student, train, torch.stack([*vectors.values()]), arm.setting["penalty"])
        teacher: dict[str, Any] = {}
        if arm.pairing is not None:
            own_ND = self.latents_ND[rows]
            bank = TeacherBank.from_latents(own_ND - own_ND.mean(dim=0), teacher=self.teacher).scaled("none")
            teacher = {"bank": bank, "pairing": arm.pairing}
        return ZeroShotTrainer(self, arm, student, args, train_dataset=train, **teacher)

    def scores(
        self, trainer: CoLearningTrainer, test: Dataset, arm: ZeroShotArm
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Of every test sample the scores of all C classes, the novelty and the latents; a class that is neither has -1e9."""
        seed = trainer.args.seed
        classes, (_, unseen) = self.classes(seed), self.class_vectors(arm, seed)
        _, train = self.training_set(seed)
        known, found = predicted(trainer, train, arm.name), predicted(trainer, test.remove_columns("labels"), arm.name)
        assert known.latents is not None and found.latents is not None
        student: Any = trainer.model
        with torch.no_grad():
            head = student.with_classes(unseen, keep=False).classifier
            of_unseen = head(torch.from_numpy(found.latents).to(student.device)).cpu().numpy()
        scores_NC = np.full((len(test), len(self.names)), -1e9)
        scores_NC[:, classes.seen], scores_NC[:, classes.unseen] = found.logits, of_unseen
        return scores_NC, novelty(found.latents, known.latents, train["labels"][:].numpy()), found.latents

    def __call__(
        self,
        trainer: CoLearningTrainer,
        test_dataset: Dataset,
        arm: str,
        kind: Any,
        *,
        cost: Cost | None = None,
        **_: Any,
    ) -> Run:
        """The run of a trained student; every test sample is classified among the classes of its own side."""
        plan = self.plans.get(arm, self.kept)
        classes = self.classes(trainer.args.seed)
        scores_NC, novelty_N, latents_ND = self.scores(trainer, test_dataset, plan)
        labels_N = test_dataset["labels"][:].numpy()
        unseen = classes.unseen.tolist()
        is_unseen_N = np.isin(labels_N, classes.unseen)
        own_NC = np.where(is_unseen_N[:, None] == np.isin(np.arange(len(self.names)), unseen), scores_NC, -np.inf)
        kept = kept_rows(len(labels_N))
        metrics = GeneralisedZeroShot(unseen, keep_in_memory=True).compute(
            predictions=np.c_[scores_NC, novelty_N], references=labels_N
        )
        facts = {
            "unseen_classes": [self.names[c] for c in unseen],
            FACT: curve_as_fact(generalised_zero_shot(scores_NC, labels_N, unseen, novelty_N)),
        }
        return own_run(
            trainer,
            arm,
            kind,
            cost,
            labels_N,
            self.names,
            facts=facts,
            metrics=metrics or {},
            predictions=own_NC.argmax(axis=1),
            confidences=softmax(own_NC, axis=1).max(axis=1),
            test=Samples(labels_N[kept], latents_ND[kept]),
        )


class ZeroShotTrainer(CoLearningTrainer):
    """Its evaluation is of the unseen classes: of their samples in the training split, none of which is trained on."""

    def __init__(self, zero_shot: ZeroShot, arm: ZeroShotArm, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.zero_shot, self.arm = zero_shot, arm

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        # The student does not know the classes that are asked for.
        unseen = self.zero_shot.classes(self.args.seed).unseen
        rows = np.flatnonzero(np.isin(self.zero_shot.labels_N, unseen))
        labels_n = self.zero_shot.labels_N[rows]
        scores_nC, *_ = self.zero_shot.scores(
            self, feature_dataset(self.zero_shot.features_NF[rows], labels_n.tolist()), self.arm
        )
        right_n = unseen[scores_nC[:, unseen].argmax(axis=1)] == labels_n
        return {"eval_unseen_accuracy": float(np.mean([right_n[labels_n == c].mean() for c in np.unique(labels_n)]))}


def set_ridge(student: Any, train: Dataset, vectors_SD: torch.Tensor, penalty: float) -> None:
    """Makes the student's latent head the ridge regression from its standardised features to the vectors of their classes."""
    with extra("report", "ridge regressions are scikit-learn's"):
        from sklearn.linear_model import Ridge
    backbone = student.backbone
    features_NF = (train["features"][:] - backbone.mean_F) / backbone.std_F
    targets_ND = F.normalize(vectors_SD, dim=1)[train["labels"][:]]
    solved = Ridge(alpha=penalty).fit(features_NF.numpy(), targets_ND.numpy())
    with torch.no_grad():
        student.latent_head.weight.copy_(torch.from_numpy(solved.coef_))
        student.latent_head.bias.copy_(torch.from_numpy(solved.intercept_))
