"""Few labels, many pairs: the arms that ask what a teacher adds where most samples have a pair and no label.

All arms make the same number of optimizer updates with the same student; those of two stages make half of them in each.
Shapes: N training samples, C classes, D dimensions of a latent, F features of the student's input.
"""

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from datasets import Dataset
from transformers import PreTrainedModel, PrinterCallback

from hf_colearn.alpha.schedules import ConstantAlpha
from hf_colearn.analysis.statistics.compare import Kind
from hf_colearn.analysis.teacher_check import TeacherCheck, teacher_check
from hf_colearn.arguments import CoLearningArguments
from hf_colearn.co_training.labels import labelled, labels_of, relabelled
from hf_colearn.co_training.selection import with_own_labels
from hf_colearn.data.sample_ids import NO_LABEL
from hf_colearn.data.splits import hide_labels
from hf_colearn.experiments.arms import ArmPlan, TunedArm
from hf_colearn.objectives.combined import Combined
from hf_colearn.objectives.consistency import Consistency
from hf_colearn.objectives.latent_matching import LatentMatching
from hf_colearn.objectives.soft_labels import SoftLabels
from hf_colearn.teachers.bank import TeacherBank
from hf_colearn.teachers.pairing import Paired, Shuffled
from hf_colearn.teachers.teacher import Teacher
from hf_colearn.teachers.where_paired import WherePaired
from hf_colearn.trainer import CoLearningTrainer
from hf_colearn.utils.extras import extra


BUDGET = "labels a class"  # what is swept
ORACLE = "label oracle"
# `rate` is relative to the recipe's learning rate, which is that of labels alone.
_RATES = ({"rate": 0.3}, {"rate": 1.0}, {"rate": 3.0})
_LATENTS = ({"alpha": 0.8, "rate": 1.0}, {"alpha": 0.9, "rate": 3.0}, {"alpha": 0.9, "rate": 10.0})
_OWN_LABELS = ({"share": 0.5, "rate": 0.3}, {"share": 0.5, "rate": 1.0}, {"share": 1.0, "rate": 1.0})
_TWO_VIEWS = ({"threshold": 0.8, "rate": 1.0}, {"threshold": 0.95, "rate": 1.0}, {"threshold": 0.8, "rate": 3.0})
_SOFT_LABELS = ({"alpha": 0.8, "rate": 1.0}, {"alpha": 0.9, "rate": 1.0}, {"alpha": 0.8, "rate": 3.0})
_LATENTS_AND_LABELS = ({"alpha": 0.8, "rate": 1.0}, {"alpha": 0.9, "rate": 1.0}, {"alpha": 0.8, "rate": 3.0})
_STAGES = ({"rate": 1.0}, {"rate": 3.0}, {"rate": 10.0})
_FINE_TUNING = 1 / 3  # the rate of the second of two stages, relative to the first


@dataclass(frozen=True)
class SemiSupervisedArm(TunedArm):
    """One arm with few labels; the level of its sweep is the number of labels a class, and without one it has all of them.

    `alpha` of its setting is that of [`CoLearningArguments`].

    Args:
        two_streams (`bool`, *optional*, defaults to `False`): Whether `labelled_per_batch` samples of a batch are labelled;
            else the arm has labels for whatever it is trained on, or pairs for all.
    """

    two_streams: bool = False

    def arguments(self, training: Mapping[str, Any], seed: int) -> CoLearningArguments:
        """Those of one run, with the arm's setting over the recipe's."""
        values = dict(training)
        if "alpha" in self.setting:
            values["alpha"] = self.setting["alpha"]
        if not self.two_streams:
            values["labelled_per_batch"] = None
        return super().arguments(values, seed)


class ShuffledOnce(Shuffled):
    """Every sample sees the row of another one, the same in all epochs: wrong pairs that can be learned as true ones can."""

    def rows(self, bank, sample_ids, epoch, seed):
        return super().rows(bank, sample_ids, 0, seed)


def semi_supervised_arms(rows: Sequence[int] | np.ndarray | None = None) -> list[SemiSupervisedArm]:
    """What every semi-supervised recipe trains, each at its usual setting.

    | arm | kind | what it is trained on |
    |---|---|---|
    | labels alone | baseline | the labelled samples |
    | self-training | null | half of the updates as that; then a new student, its confident predictions as labels, too |
    | FixMatch | null | labels, and agreement of two views of all samples ([`Consistency`]) |
    | permuted pairs | null | labels, and the latents of a fixed wrong partner |
    | own modality | null | labels, and the principal components of the student's own inputs as latents |
    | latent transfer | co-learned | labels, and the teacher's latents |
    | teacher's soft labels | co-learned | labels, and what a classifier of the teacher's latents, with the same labels, says |
    | latent + soft labels | co-learned | labels and both, in equal parts |
    | two-stage | co-learned | half of the updates on latents alone, then the labelled samples |
    | label oracle | reference | all labels |

    Self-training and FixMatch count as null controls: they see the same unlabelled inputs without their pairs.

    Args:
        rows (`Sequence[int]`, *optional*): The bank row of sample id 0, 1, ...; by default sample id i is paired with row i.
    """
    paired, both = Paired(rows), {"two_streams": True}

    def arm(name: str, kind: Kind, grid: tuple[Mapping[str, float], ...], **fields: Any) -> SemiSupervisedArm:
        return SemiSupervisedArm(name, kind, grid=grid, **fields)

    return [
        arm("labels alone", "baseline", _RATES),
        arm("self-training", "null", _OWN_LABELS),
        arm("FixMatch", "null", _TWO_VIEWS, **both),
        arm("permuted pairs", "null", _LATENTS, pairing=ShuffledOnce(rows), **both),
        arm("own modality", "null", _LATENTS, pairing=Paired(), **both),
        arm("latent transfer", "colearned", _LATENTS, pairing=paired, **both),
        arm("teacher's soft labels", "colearned", _SOFT_LABELS, pairing=paired, **both),
        arm("latent + soft labels", "colearned", _LATENTS_AND_LABELS, pairing=paired, **both),
        arm("two-stage", "colearned", _STAGES, pairing=paired),
        arm(ORACLE, "reference", _RATES),
    ]


class SemiSupervised:
    """Builds the trainers of [`semi_supervised_arms`] for one student, one teacher and one training set.

    Args:
        train ([`datasets.Dataset`]): All N training samples in the student's inputs, with their `labels` (classes) and
            `sample_id`. All but the arm's number of labels of each class are hidden, drawn by the run's seed.
        bank ([`TeacherBank`]): The latents of the teacher, which has seen no label.
        make_student (`Callable`): A new student, whose latents are as wide as the bank's.
        inputs (`np.ndarray` of shape `(N, F)`): The student's inputs by sample id, flattened.
        views (`Callable`): FixMatch's augmentation, [`~hf_colearn.data.views.TwoViews`].
        augment (`Callable`, *optional*): That of all other arms.
        optimizer (`Callable`, *optional*): From a run's arguments to what Trainer takes as `optimizer_cls_and_kwargs`, such as
            [`RecipeOptions.optimizer_for`].
        make_matching_student (`Callable`, *optional*): That of latent transfer, where the latents of other arms are not as wide
            as the bank's.
        trainer_kwargs: For every trainer, such as `compute_metrics`.
    """

    def __init__(
        self,
        train: Dataset,
        bank: TeacherBank,
        make_student: Callable[[], PreTrainedModel],
        inputs: np.ndarray,
        views: Callable[[dict[str, Any]], dict[str, Any]],
        augment: Callable[[dict[str, Any]], dict[str, Any]] | None = None,
        optimizer: Callable[[CoLearningArguments], Any] | None = None,
        make_matching_student: Callable[[], PreTrainedModel] | None = None,
        **trainer_kwargs: Any,
    ):
        self.optimizer, self.make_matching_student = optimizer, make_matching_student or make_student
        self.train, self.bank, self.inputs = train, bank, inputs
        self.make_student, self.views, self.augment, self.trainer_kwargs = make_student, views, augment, trainer_kwargs

    @cached_property
    def own_bank(self) -> TeacherBank:
        """The principal components of the student's own inputs, as wide as the teacher's latents."""
        return own_modality(self.inputs, self.bank.dim)

    def few_labels(self, arm: ArmPlan, seed: int) -> Dataset:
        """The training set with the arm's number of labels of each class, drawn by a seed; with all where it has no level."""
        return self.train if arm.sweep is None else hide_labels(self.train, int(arm.sweep[1]), seed, "labels")

    def make_trainer(self, arm: ArmPlan, args: CoLearningArguments) -> CoLearningTrainer:
        """The trainer of an arm, as `run_recipe` asks for it; the first of two stages is trained here."""
        assert isinstance(arm, SemiSupervisedArm)
        train = self.few_labels(arm, args.seed)
        teacher: dict[str, Any] = {"bank": self.bank, "pairing": arm.pairing}
        match arm.method:
            case "labels alone":
                return self._trainer(args, labelled(train))
            case "label oracle":  # which has no level
                return self._trainer(args, train)
            case "self-training":
                return self._self_training(args, train, arm.setting["share"])
            case "FixMatch":
                objective, alpha = Consistency(arm.setting["threshold"]), ConstantAlpha({"consistency": 0.5})
                return self._trainer(args, train, objective=objective, alpha=alpha, augment=self.views)
            case "permuted pairs" | "latent transfer":
                return self._trainer(args, train, self.make_matching_student(), **teacher)
            case "own modality":
                return self._trainer(args, train, **(teacher | {"bank": self.own_bank}))
            case "teacher's soft labels":
                teachers = {"classes": self._classifier(train, arm.pairing)}
                return self._trainer(args, train, teachers=teachers, objective=SoftLabels("classes"))
            case "latent + soft labels":
                teachers = {"pairs": Teacher(**teacher), "classes": self._classifier(train, arm.pairing)}
                latents = LatentMatching(args.latent_loss, args.latent_reduction, ("pairs",))
                both = Combined(latents, SoftLabels("classes"))
                return self._trainer(args, train, teachers=teachers, objective=both)
            case "two-stage":
                return self._two_stages(args, train, teacher)
        raise ValueError(f"there is no arm '{arm.name}' with few labels: take those of `semi_supervised_arms`.")

    def check(self, arm: ArmPlan, seed: int) -> TeacherCheck:
        """What [`teacher_check`] says of the arm's labels of a seed, before anything is trained."""
        assert arm.pairing is not None
        train = self.few_labels(arm, seed)
        ids = np.asarray(train.with_format("numpy")["sample_id"][:])
        latents_ND = arm.pairing.targets(self.bank, ids, 0, seed).numpy()
        return teacher_check(self.inputs[ids], latents_ND, labels_of(train))

    def _trainer(
        self, args: CoLearningArguments, train: Dataset, student: Any = None, **kwargs: Any
    ) -> CoLearningTrainer:
        kwargs = {"augment": self.augment, **self.trainer_kwargs, **kwargs}
        if self.optimizer is not None:
            kwargs["optimizer_cls_and_kwargs"] = self.optimizer(args)
        return CoLearningTrainer(student or self.make_student(), args, train_dataset=train, **kwargs)

    def _self_training(self, args: CoLearningArguments, train: Dataset, share: float) -> CoLearningTrainer:
        """A new student in the second half, with predictions of the first one as further labels.

        A fresh fit, as in Blum & Mitchell (1998): to go on with the first student gave the weaker rival.
        """
        first, second = halves(args)
        trainer = self._trained(first, labelled(train))
        logits_NC = trainer.predict(train.remove_columns("labels")).predictions
        classes = with_own_labels(logits_NC, labels_of(train), share)
        return self._trainer(second, labelled(relabelled(train, classes)))

    def _two_stages(self, args: CoLearningArguments, train: Dataset, teacher: dict[str, Any]) -> CoLearningTrainer:
        first, second = halves(args)
        first.alpha, second.alpha = 1.0, None
        second.learning_rate *= _FINE_TUNING
        trainer = self._trained(first, train, **teacher)
        return self._trainer(second, labelled(train), trainer.model)

    def _trained(self, args: CoLearningArguments, train: Dataset, **kwargs: Any) -> CoLearningTrainer:
        trainer = self._trainer(args, train, compute_metrics=None, **kwargs)
        trainer.remove_callback(PrinterCallback)
        trainer.train()
        return trainer

    def _classifier(self, train: Dataset, pairing: Any) -> Teacher:
        """The class probabilities of all samples by the teacher's latents, for [`SoftLabels`]."""
        ids = np.asarray(train.with_format("numpy")["sample_id"][:])
        latents_ND = pairing.targets(self.bank, ids, 0, 0).numpy()
        probabilities_NC = class_probabilities(latents_ND, labels_of(train))
        known_N = np.isfinite(probabilities_NC).all(axis=1)
        by_id_NC = np.zeros((ids.max() + 1, probabilities_NC.shape[1]), dtype=np.float32)
        by_id_NC[ids[known_N]] = probabilities_NC[known_N]
        bank = TeacherBank.from_latents(by_id_NC, teacher="classifier of the teacher's latents").scaled("none")
        return Teacher(bank, WherePaired(Paired(), np.isin(np.arange(len(by_id_NC)), ids[known_N])))


# ---- labels ----
def class_probabilities(latents_ND: np.ndarray, labels_N: np.ndarray) -> np.ndarray:
    """What a logistic regression on the labelled samples' latents says of all, `(N, C)` float32; 0 and 1 of the labelled.

    The latents are standardised over all samples; the L2 regularisation is scikit-learn's default.

    Args:
        latents_ND (`np.ndarray` of shape `(N, D)`): The teacher's; rows of NaN where there is none give rows of NaN.
        labels_N (`np.ndarray` of shape `(N,)`): Classes from 0, each at least once; -100 where there is none.
    """
    with extra("report", "the teacher's classifier is scikit-learn's"):
        from sklearn.linear_model import LogisticRegression
        from sklearn.preprocessing import StandardScaler
    scaled_ND = StandardScaler().fit_transform(latents_ND)
    has_N, paired_N = labels_N != NO_LABEL, np.isfinite(latents_ND).all(axis=1)
    both_N = has_N & paired_N
    if missing := set(labels_N[has_N]) - set(labels_N[both_N]):
        raise ValueError(
            f"no labelled sample of class {min(missing)} has a pair, so a classifier of the teacher's latents cannot know it: "
            "pair one, or leave out the arms with the teacher's soft labels."
        )
    classifier = LogisticRegression(max_iter=1000).fit(scaled_ND[both_N], labels_N[both_N])
    probabilities_NC = np.full((len(labels_N), len(classifier.classes_)), np.nan, dtype=np.float32)
    probabilities_NC[paired_N] = classifier.predict_proba(scaled_ND[paired_N])
    probabilities_NC[has_N] = np.eye(probabilities_NC.shape[1], dtype=np.float32)[labels_N[has_N]]
    return probabilities_NC


# ---- targets and stages ----
def own_modality(inputs_NF: np.ndarray, dim: int) -> TeacherBank:
    """A bank of the inputs' own principal components, `dim` wide: targets that no other modality knows anything of.

    At most `dim` components are kept and rotated at random, which spreads their variance evenly over all `dim` dimensions:
    a teacher's latents have no order, either, and standardised components would be mostly noise.
    """
    return TeacherBank.from_latents(
        rotated_components(inputs_NF, dim), teacher="principal components of the student's inputs"
    )


def rotated_components(inputs_NF: np.ndarray, dim: int) -> np.ndarray:
    """The first `dim` principal components, or as many as there are, rotated at random into `(N, dim)`."""
    with extra("report", "the principal components are scikit-learn's"):
        from sklearn.decomposition import PCA
    count = min(dim, *inputs_NF.shape)
    components_NK = PCA(count, random_state=0).fit_transform(np.asarray(inputs_NF, dtype=np.float64))
    rotation_DK, _ = np.linalg.qr(np.random.default_rng(0).standard_normal((dim, count)))
    return components_NK @ rotation_DK.T


def halves(args: CoLearningArguments) -> tuple[CoLearningArguments, CoLearningArguments]:
    """The arguments of two stages that share out `max_steps`."""
    if args.max_steps < 2:
        raise ValueError(
            f"max_steps={args.max_steps} makes no two stages: pass at least 2, as all arms share the updates."
        )
    first, second = copy.deepcopy(args), copy.deepcopy(args)
    first.max_steps = args.max_steps // 2
    second.max_steps = args.max_steps - first.max_steps
    return first, second
