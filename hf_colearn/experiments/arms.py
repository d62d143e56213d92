"""The arms of a comparison: baseline, co-learned, null controls, references, and what each differs in."""

import copy
import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from hf_colearn.alpha.alpha import Alpha
from hf_colearn.analysis.runs import arm_at
from hf_colearn.analysis.statistics.compare import Arm, Kind, compare
from hf_colearn.arguments import CoLearningArguments
from hf_colearn.experiments.options import RecipeOptions
from hf_colearn.objectives.objective import Objective
from hf_colearn.teachers.null_controls import ConstantTarget, Permuted, RandomPrototypes
from hf_colearn.teachers.pairing import Pairing


@dataclass(frozen=True)
class ArmPlan:
    """One arm to train; a recipe's `make_trainer` reads from it what differs between the arms.

    Args:
        name (`str`): Unique, as it stands in tables.
        kind (`str`): Of [`~hf_colearn.analysis.statistics.arm.Arm`], such as `"baseline"`.
        pairing ([`Pairing`], *optional*): What its samples see of the teacher; none for the baseline.
        id_column (`str`, *optional*): What the pairing knows samples by, instead of `CoLearningArguments.id_column`: a copy
            of the labels, for a pairing by class in a stream.
        sweep (`tuple[str, float]`, *optional*): The variable and level of a sweep, `("share of mismatched pairs", 0.25)`.
            Where there is a baseline at every level ([`~ArmPlan.at`]), the arms of a level are compared among themselves.
        objective ([`Objective`], *optional*): Its auxiliary terms, where it has no teacher.
        make_alpha (`Callable[[int], Alpha]`, *optional*): Their weight, new for every run, from the seed.
        modality (`str`, *optional*): The one that the arm is trained and tested with.
        late_ensemble (`bool`, *optional*, defaults to `False`): Whether its modalities are trained one at a time, and the
            mean of their logits is tested ([`~hf_colearn.experiments.late_ensemble.LateEnsembleTrainer`]).
        ensemble_options (`Mapping`, *optional*): `mean` and `shares_steps` of that trainer.
        augment (`Callable`, *optional*): Of its training batches, as the trainer takes it.
    """

    name: str
    kind: Kind
    pairing: Pairing | None = None
    id_column: str | None = None
    sweep: tuple[str, float] | None = None
    objective: Objective | None = None
    make_alpha: Callable[[int], Alpha] | None = None
    modality: str | None = None
    late_ensemble: bool = False
    ensemble_options: Mapping[str, Any] = field(default_factory=dict)
    augment: Callable[[dict[str, Any]], dict[str, Any]] | None = None

    def at(self, variable: str, level: float) -> "ArmPlan":
        """The same arm at a level of a sweep, such as `("labels a class", 5)`, and named so: `baseline, 5 labels a class`."""
        return replace(self, name=arm_at(self.name, variable, level), sweep=(variable, level))

    def alpha(self, seed: int) -> Alpha | None:
        """The weight of its objective's terms, for a run of this seed."""
        return None if self.make_alpha is None else self.make_alpha(seed)

    def arguments(self, training: Mapping[str, Any], seed: int) -> CoLearningArguments:
        """Those of one run: a recipe's with the run's seed and folder, and without a teacher no alpha and no schedule."""
        values = copy.deepcopy(dict(training))
        folder = run_folder(training["output_dir"], self.name, seed)
        values |= {"seed": seed, "output_dir": str(folder), "disable_tqdm": True}
        if self.pairing is None:
            values |= {"alpha": None, "alpha_schedule": "constant"}
        if self.id_column is not None:
            values["id_column"] = self.id_column
        return CoLearningArguments(**values)


@dataclass(frozen=True)
class TunedArm(ArmPlan):
    """An arm with settings to choose from, see [`~hf_colearn.experiments.settings.choose_settings`].

    Args:
        method (`str`): What a file of settings knows it by, whatever its name is; its name by default.
        grid (`tuple[Mapping[str, float], ...]`): The settings to choose from, as many in every arm.
        setting (`Mapping[str, float]`, *optional*): The one to train with, by default the middle one of the grid. `rate` is
            relative to the recipe's `learning_rate`, others are of the method.
    """

    method: str = ""
    grid: tuple[Mapping[str, float], ...] = ({},)
    setting: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self):
        object.__setattr__(self, "method", self.method or self.name)
        object.__setattr__(self, "setting", self.setting or self.grid[len(self.grid) // 2])

    def arguments(self, training: Mapping[str, Any], seed: int) -> CoLearningArguments:
        """Those of one run, with the arm's learning rate over the recipe's."""
        rate = training["learning_rate"] * self.setting.get("rate", 1.0)
        return super().arguments({**training, "learning_rate": rate}, seed)


Plan = TypeVar("Plan", bound=ArmPlan)


def run_folder(folder: str | Path, arm: str, seed: int) -> Path:
    """Where one run keeps its checkpoints and, once it is finished, what [`~hf_colearn.analysis.run.Run`] holds."""
    words = re.sub(r"[\W_]+", "-", arm.lower()).strip("-")  # letters of any script, since arms must not share a folder
    return Path(folder) / (words or f"arm-{hashlib.sha256(arm.encode()).hexdigest()[:8]}") / f"seed-{seed}"


def pick(plans: Sequence[Plan], names: Sequence[str] | None) -> list[Plan]:
    """The arms of these names, or all of them; a name that is none of theirs is refused."""
    known = [plan.name for plan in plans]
    for name in names or []:
        if name not in known:
            raise ValueError(f"there is no arm '{name}': choose among {', '.join(map(repr, known))}.")
    return [plan for plan in plans if names is None or plan.name in names]


def chosen_arms(options: RecipeOptions, plans: Sequence[ArmPlan]) -> list[ArmPlan]:
    """The arms that `--arms` names; call it before the teacher is asked, so that a wrong name shows at once.

    Raises:
        ValueError: If a name is none of theirs, or the arms could not be compared.
    """
    plans = pick(plans, options.arms)
    check_comparable(plans, options.seeds)
    return plans


def check_comparable(plans: Sequence[ArmPlan], num_seeds: int) -> None:
    """Refuses before training what the comparison would refuse after it, such as arms without a baseline."""
    baselines = {plan.sweep for plan in plans if plan.kind == "baseline" and plan.sweep is not None}
    if len({plan.name for plan in plans}) < len(plans) or len(baselines) < 2:
        levels = [list(plans)]
    else:
        levels = [[plan for plan in plans if plan.sweep in (None, sweep)] for sweep in baselines]
    for of_level in levels:
        compare([Arm(plan.name, plan.kind, [0.0] * num_seeds) for plan in of_level])


def transfer_arms(
    colearned: Mapping[str, Pairing],
    labels: Sequence[int] | np.ndarray,
    num_classes: int,
    id_column: str | None = None,
) -> list[ArmPlan]:
    """What the recipes of Lee & Yoon (ICLR 2025) train: a baseline, arms with a teacher, and null controls
    ([`~hf_colearn.teachers.null_controls`]).

    Args:
        colearned (`Mapping[str, Pairing]`): By name, the true pairing last.
        labels (`Sequence[int]`): The class of sample id 0, 1, ...
        num_classes (`int`): The number of random vectors.
        id_column (`str`, *optional*): Of the arms that depend on the class, see [`ArmPlan`].
    """
    *others, (name, true_pairing) = colearned.items()
    return [
        ArmPlan("baseline", "baseline"),
        *(ArmPlan(other, "colearned", pairing) for other, pairing in others),
        ArmPlan(name, "colearned", true_pairing, id_column),
        ArmPlan("constant target", "null", ConstantTarget()),
        ArmPlan("random vectors", "null", RandomPrototypes(num_prototypes=num_classes)),
        ArmPlan("class vectors", "null", RandomPrototypes(labels), id_column),
        ArmPlan("permuted pairing", "null", Permuted(true_pairing, labels), id_column),
    ]
