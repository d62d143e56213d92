"""What is compared on anybody's pairs, which depends on the labels: on all samples, on some, or on none."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, cast

import numpy as np
from transformers import TrainingArguments

from hf_colearn.corpora.pair_labels import MULTI, REGRESSION, SINGLE
from hf_colearn.corpora.pairs import CLASS_NAMES, Pairs
from hf_colearn.evaluation.metrics import classification_metrics
from hf_colearn.evaluation.multi_label import multi_label_metrics
from hf_colearn.evaluation.regression import regression_metrics
from hf_colearn.experiments.arms import ArmPlan, check_comparable, pick
from hf_colearn.experiments.pairs_retrieval import Untrained
from hf_colearn.experiments.pairs_students import PairStudent
from hf_colearn.experiments.pairs_teachers import true_pairs, where_paired
from hf_colearn.experiments.semi_supervised import (
    BUDGET,
    ORACLE,
    SemiSupervised,
    SemiSupervisedArm,
    ShuffledOnce,
    semi_supervised_arms,
)
from hf_colearn.teachers.null_controls import ConstantTarget, RandomPrototypes
from hf_colearn.utils import distributed
from hf_colearn.utils.hub_names import check_repo_id


# Of the arms with few labels, what is trained where nobody chooses, and what needs classes.
USUAL = ("labels alone", "FixMatch", "permuted pairs", "latent transfer", "teacher's soft labels")
NEEDS_CLASSES = ("self-training", "FixMatch", "teacher's soft labels", "latent + soft labels")
_LEAST_STEPS = 150
_TINY_RATE, _PRETRAINED_RATE = 3e-3, TrainingArguments.__dataclass_fields__["learning_rate"].default


def has_few_labels(pairs: Pairs, labels_per_class: Sequence[int] | None) -> bool:
    """Whether some training samples have a pair and no label, or shall have none."""
    if labels_per_class is not None and pairs.problem_type != SINGLE:
        what = "no labels" if pairs.problem_type is None else "no classes but " + pairs.problem_type.replace("_", " ")
        raise ValueError(
            f"--labels_per_class {' '.join(map(str, labels_per_class))}: the data have {what}, so there are no labels a class: "
            "leave it out."
        )
    if labels_per_class is not None and pairs.other_kind == CLASS_NAMES:
        raise ValueError(
            "--labels_per_class: the partner of a sample is a sentence about its class, and without a label it has none. "
            "Leave it out, or add a column of texts."
        )
    return labels_per_class is not None or (pairs.problem_type is not None and not pairs.labelled.all())


def pair_arms(
    pairs: Pairs,
    rows_N: np.ndarray,
    student: PairStudent,
    names: Sequence[str] | None,
    labels_per_class: Sequence[int] | None,
    alpha: float | None,
    seeds: int,
) -> list[ArmPlan]:
    """The arms to train, the usual ones or those of `--arms`.

    | labels | arms |
    |---|---|
    | of all samples | baseline, true pairs; as null controls permuted pairs, constant target and, of classes, class vectors |
    | of some | those of [`~hf_colearn.experiments.semi_supervised.semi_supervised_arms`] |
    | none | true pairs, permuted pairs, and no training |

    Args:
        pairs ([`Pairs`]), rows_N (`np.ndarray` of shape `(N,)`): And the bank row of every training sample.
        student ([`PairStudent`]): Which may have no augmentation for FixMatch.
        names (`Sequence[str]`, *optional*): Of the arms.
        labels_per_class (`Sequence[int]`, *optional*): Hides all other labels; several are a sweep.
        alpha (`float`, *optional*): Of the arms with a teacher; by default each has its usual one.
        seeds (`int`): How many runs of each there will be.

    Raises:
        ValueError: If a name is none of the arms', or the arms cannot be compared.
    """
    if not has_few_labels(pairs, labels_per_class):
        plans = pick(
            _without_labels(pairs, rows_N) if pairs.problem_type is None else _fully_labelled(pairs, rows_N), names
        )
    else:
        plans = _few_labels(pairs, rows_N, student, names, labels_per_class, alpha)
    check_comparable(plans, seeds)
    return plans


def _fully_labelled(pairs: Pairs, rows_N: np.ndarray) -> list[ArmPlan]:
    plans = [
        ArmPlan("baseline", "baseline"),
        ArmPlan("true pairs", "colearned", true_pairs(rows_N, pairs)),
        ArmPlan("permuted pairs", "null", where_paired(ShuffledOnce(rows_N), pairs)),
        ArmPlan("constant target", "null", where_paired(ConstantTarget(), pairs)),
    ]
    if pairs.problem_type == SINGLE:
        labels = np.asarray(pairs.train["labels"][:])
        plans.append(ArmPlan("class vectors", "null", where_paired(RandomPrototypes(labels), pairs)))
    return plans


def _without_labels(pairs: Pairs, rows_N: np.ndarray) -> list[ArmPlan]:
    return [
        Untrained("no training", "baseline", true_pairs(rows_N, pairs)),
        ArmPlan("true pairs", "colearned", true_pairs(rows_N, pairs)),
        ArmPlan("permuted pairs", "null", where_paired(ShuffledOnce(rows_N), pairs)),
    ]


def _few_labels(
    pairs: Pairs,
    rows_N: np.ndarray,
    student: PairStudent,
    names: Sequence[str] | None,
    levels: Sequence[int] | None,
    alpha: float | None,
) -> list[ArmPlan]:
    able = [
        replace(arm, pairing=arm.pairing and where_paired(arm.pairing, pairs)) for arm in semi_supervised_arms(rows_N)
    ]
    able = [arm for arm in able if levels is not None or arm.method != ORACLE]  # whose labels nobody has
    if pairs.problem_type != SINGLE:
        able = [arm for arm in able if arm.method not in NEEDS_CLASSES]
    if student.strong is None:
        able = [arm for arm in able if arm.method != "FixMatch"]
    chosen = cast(list[SemiSupervisedArm], pick(able, names))
    if names is None:
        chosen = [arm for arm in chosen if arm.method in USUAL]
    if alpha is not None:
        chosen = [
            replace(arm, setting={**arm.setting, "alpha": alpha}) if "alpha" in arm.setting else arm for arm in chosen
        ]
    if levels is None:
        return list(chosen)
    swept = [arm.at(BUDGET, level) for level in levels for arm in chosen if arm.method != ORACLE]
    return [*swept, *(arm for arm in chosen if arm.method == ORACLE)]


def settled(training: Mapping[str, Any], pairs: Pairs, plans: Sequence[ArmPlan], is_tiny: bool) -> dict[str, Any]:
    """The training arguments that follow from the data.

    `max_steps` are by default so many as `--num_train_epochs` takes, and 150 at least, for all arms alike; `labelled_per_batch`
    is for arms with few labels alone.

    Args:
        training (`Mapping`): As [`~hf_colearn.experiments.options.parse_recipe`] returns it.
        pairs ([`Pairs`]): Without labels the pairs are all that is learned from: alpha is 1.
        plans (`Sequence[ArmPlan]`): The arms.
        is_tiny (`bool`): Whether the student is small and from scratch: transformers' default of `learning_rate`, which is
            for pretrained models, then becomes 3e-3.

    Raises:
        ValueError: If a share of the loss is left for labels where there are none.
    """
    values = dict(training)
    if values.get("max_steps", -1) <= 0:
        batches = -(-len(pairs.train) // values["per_device_train_batch_size"])
        values["max_steps"] = max(_LEAST_STEPS, round(values["num_train_epochs"] * batches))
    if not any(isinstance(plan, SemiSupervisedArm) for plan in plans):
        values["labelled_per_batch"] = None
    if is_tiny and values["learning_rate"] == _PRETRAINED_RATE:
        values["learning_rate"] = _TINY_RATE
    if pairs.problem_type is None:
        if values.get("alpha") not in (None, 1):
            raise ValueError(
                f"--alpha {values['alpha']:g}: the data have no labels, so the pairs have the whole loss: leave it out."
            )
        values["alpha"] = 1.0
    return values


def without_pushing(training: Mapping[str, Any]) -> tuple[dict[str, Any], str | None]:
    """The training arguments without those that push every run, and the repository to publish the student to.

    Raises:
        ValueError: If the repository has no name, or one that the Hub refuses.
    """
    values = {**training, "push_to_hub": False}
    if not training.get("push_to_hub"):
        return values, None
    check_repo_id(training.get("hub_model_id"), "--hub_model_id")
    return values, training["hub_model_id"]


def metrics_of(pairs: Pairs) -> Any:
    """What arms are scored by, as the trainer takes it."""
    made = {
        SINGLE: lambda: classification_metrics(("accuracy", "macro_f1")),
        MULTI: multi_label_metrics,
        REGRESSION: regression_metrics,
    }
    return None if pairs.problem_type is None else made[pairs.problem_type]()


def checked(pairs: Pairs, semi: SemiSupervised, plans: Sequence[ArmPlan], rows_N: np.ndarray, seed: int) -> str | None:
    """What `teacher_check` says of the labels of the first seed, printed; it never stops a run."""
    if pairs.problem_type is None:
        return None
    swept = [arm for arm in plans if isinstance(arm, SemiSupervisedArm) and arm.pairing is not None]
    arm = swept[0] if swept else ArmPlan("true pairs", "colearned", true_pairs(rows_N, pairs))
    arm = replace(arm, pairing=true_pairs(rows_N, pairs))
    try:
        found = str(semi.check(arm, seed))
    except (ImportError, ValueError) as error:
        found = f"Whether this teacher will help could not be asked: {error}"
    if distributed.rank() == 0:
        print(f"\n{found}\n")
    return found
