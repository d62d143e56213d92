"""The arms of a comparison of balance methods: the label loss, every method, null controls, and references.

Each has four settings to choose from: four learning rates, or two of them and two strengths of the method.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from hf_colearn.balance import (
    AGM,
    ARL,
    OGM,
    PMR,
    AlternatingAdaptation,
    DisentangledGradients,
    DynamicFusion,
    EarlyStopPerModality,
    EvidentialFusion,
    GradientBlending,
    GreedyCuration,
    InfoReg,
    LearningRatePerModality,
    MMPareto,
    ReconBoost,
)
from hf_colearn.balance.method import BalanceMethod
from hf_colearn.experiments.arms import TunedArm
from hf_colearn.utils import distributed


SIX_FUSIONS = ("concat", "sum", "weighted", "film", "mmtm", "lstm")  # of Yang et al. (NeurIPS 2024)
LABEL_LOSS, LATE = "ce", "late ensemble"
SHORT = 50  # epochs
Setting = Mapping[str, float]

# Relative to the recipe's learning rate.
RATES: tuple[Setting, ...] = ({"rate": 0.1}, {"rate": 0.3}, {"rate": 1.0}, {"rate": 3.0})


def strengths(name: str, usual: float, other: float) -> tuple[Setting, ...]:
    """Two learning rates for each of two values of a method's argument."""
    return (
        {"rate": 0.3, name: other},
        {"rate": 0.3, name: usual},
        {"rate": 1.0, name: usual},
        {"rate": 1.0, name: other},
    )


@dataclass(frozen=True)
class BalanceArm(TunedArm):
    """An arm that trains all modalities together, with or without a method of balance, or one of its references.

    Args:
        make (`Callable[..., BalanceMethod]`, *optional*): The method of a run, from its setting without the rate.
        model (`Mapping`): What its model has beside what the recipe says: `fusion`, and other arguments of
            [`CoLearningForMultimodalClassification.from_backbones`].
    """

    make: Callable[..., BalanceMethod] | None = None
    model: Mapping[str, Any] = field(default_factory=lambda: {"fusion": "concat"})

    def balance(self) -> BalanceMethod | None:
        """A new method, for one run."""
        if self.make is None:
            return None
        return self.make(**{name: value for name, value in self.setting.items() if name != "rate"})

    @property
    def baseline(self) -> str:
        """The arm of the label loss alone with its fusion; of a fusion that is a method's own, that of the first of six."""
        return named(LABEL_LOSS, self.model["fusion"])


@dataclass(frozen=True)
class Method:
    """A published method as the arms have it.

    Args:
        name (`str`): In tables.
        kind (`type[BalanceMethod]`): Which says with what fusions it works, and with how many modalities.
        grid (`tuple[Mapping[str, float], ...]`): The settings to choose from, arguments of the method among them.
        fixed (`Mapping`): Other arguments of it.
        model (`Mapping`): What its model needs, such as `modality_loss_weight`; a `fusion` where it works with one alone.
        variants, nulls (`Mapping[str, Mapping]`): By name other forms of it, and its null controls and ablations: the arguments
            that make them of it. They have the same settings to choose from.
    """

    name: str
    kind: type[BalanceMethod]
    grid: tuple[Setting, ...] = RATES
    fixed: Mapping[str, Any] = field(default_factory=dict)
    model: Mapping[str, Any] = field(default_factory=dict)
    variants: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    nulls: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def fusions(self, asked: Sequence[str]) -> list[str]:
        """Those asked for that it works with, or else its own."""
        if "fusion" in self.model:
            return [self.model["fusion"]]
        able = [fusion for fusion in asked if self.kind.fusions is None or fusion in self.kind.fusions]
        return able or list(self.kind.fusions or asked)[:1]


def methods(epochs: float = 200) -> dict[str, Method]:
    """By the name that `--methods` takes, as published; in runs of fewer than 50 epochs, what is counted in epochs is shorter.

    Args:
        epochs (`float`, *optional*, defaults to 200): Of a run.
    """
    is_short = epochs < SHORT
    stages = {"stage_epochs": 1, "joint_epochs": 1} if is_short else {}
    return {
        "ogm": Method("OGM-GE", OGM, strengths("alpha", 0.8, 0.1), nulls={"OGM-GE, shuffled": {"shuffled": True}}),
        "agm": Method("AGM", AGM, strengths("alpha", 1.0, 0.3)),
        "pmr": Method("PMR", PMR, strengths("alpha", 1.0, 0.3)),
        "mmpareto": Method("MMPareto", MMPareto),
        "g_blend": Method(
            "G-Blend",
            GradientBlending,
            variants={"G-Blend, online": {"super_epoch": max(1, round(epochs / 4))}},
        ),
        "etmc": Method(
            "ETMC",
            EvidentialFusion,
            strengths("annealing_epochs", 10, math.ceil(epochs / 5)),
            model={"fusion": "evidential"},
        ),
        "mses": Method("MSES", EarlyStopPerModality, strengths("patience", 5, 2)),
        "mslr": Method("MSLR", LearningRatePerModality, strengths("memory", 5, 2)),
        "greedy": Method(
            "Greedy",
            GreedyCuration,
            strengths("epsilon", 0.01, 0.1),
            model={"fusion": "mmtm"},
            nulls={"Greedy, random curation": {"random": True}},
        ),
        "domfn": Method(
            "DOMFN",
            DynamicFusion,
            strengths("eta", 0.5, 0.1),
            fixed={"pretraining_epochs": round(epochs / 5)},
            # With the published gamma .8 and tau 1 the gate of two modalities never closes: d is at most (1 - 1/M)^2.
            model={"fusion": "dynamic", "fusion_options": {"tau": 0.1}},
        ),
        "mla": Method(
            "MLA",
            AlternatingAdaptation,
            model={"fusion": "entropy", "shared_classifier": True},
            nulls={"MLA, no projection": {"projection": "off"}},
        ),
        "reconboost": Method(
            "ReconBoost", ReconBoost, strengths("agreement", 0.5, 0.1), fixed=stages, model={"fusion": "sum"}
        ),
        "arl": Method(
            "ARL",
            ARL,
            strengths("gamma", 4.0, 1.0),
            fixed={"start": 0} if is_short else {},
            nulls={"ARL, constant": {"weights": "constant"}},
        ),
        "dgl": Method("DGL", DisentangledGradients, strengths("alpha", 4.0, 1.0)),
        "info_reg": Method(
            "InfoReg", InfoReg, strengths("beta", 0.95, 0.3), nulls={"InfoReg, weaker": {"on": "weaker"}}
        ),
    }


def epochs_of(training: Mapping[str, Any], num_samples: int) -> float:
    """How many epochs a run of these arguments has."""
    if (steps := training.get("max_steps") or -1) < 0:
        return float(training["num_train_epochs"])
    batch = training["per_device_train_batch_size"] * (training.get("gradient_accumulation_steps") or 1)
    return steps * batch * distributed.world_size() / num_samples


def check_methods(names: Sequence[str] | None) -> list[str]:
    """The methods that `--methods` names, all where it does not or says `all`."""
    known = list(methods())
    if names is None or list(names) == ["all"]:
        return known
    if unknown := [name for name in names if name not in known]:
        raise ValueError(
            f"--methods {' '.join(unknown)}: there is no such method; choose among {', '.join(known)}, or all."
        )
    return list(dict.fromkeys(names))


def named(name: str, fusion: str) -> str:
    """The name of an arm with its fusion, where that is one of six and not `concat`: `OGM-GE, film`."""
    return f"{name}, {fusion}" if fusion in SIX_FUSIONS[1:] else name


def balance_arms(
    names: Sequence[str] | None,
    modalities: Sequence[str],
    fusions: Sequence[str] = ("concat",),
    epochs: float = 200,
) -> tuple[list[BalanceArm], list[str]]:
    """The label loss (`ce`), the methods, their null controls and the references, and notes on what is different with them.

    The first of the fusions is the baseline's, and the other fusions' label losses are references, as are those of a fusion
    that a method needs. A null control of all methods is `ce + heads`: the losses of the heads, each with a weight of 1.
    Every modality alone has as many optimizer steps as a joint model. The late ensembles share them, or have all of them
    for each modality (`as long`), which costs as much computation as a joint model.

    Args:
        names (`Sequence[str]`, *optional*): As of [`check_methods`].
        modalities (`Sequence[str]`): Those of the data.
        fusions (`Sequence[str]`, *optional*, defaults to `("concat",)`): Some of the six.
        epochs (`float`, *optional*, defaults to 200): As of [`methods`].

    Raises:
        ValueError: If a name is unknown, or a method that was asked for is not defined for so many modalities.
    """
    chosen = {name: methods(epochs)[name] for name in check_methods(names)}
    asked_by_name = names is not None and list(names) != ["all"]
    if unknown := [fusion for fusion in fusions if fusion not in SIX_FUSIONS]:
        raise ValueError(f"--fusions {' '.join(unknown)}: choose among {', '.join(SIX_FUSIONS)}.")
    of_methods: list[BalanceArm] = []
    notes: list[str] = []
    for name, method in chosen.items():
        most = method.kind.most_modalities
        if most is not None and len(modalities) > most:
            says = f"{method.name} is defined for {most} modalities, and there are {len(modalities)}"
            if asked_by_name:
                raise ValueError(f"--methods {name}: {says} ({', '.join(modalities)}): leave it out.")
            notes.append(f"{says}: it is left out.")
            continue
        own = method.fusions(fusions)
        if not set(own) & set(fusions):
            notes.append(f"{method.name} works with fusion='{own[0]}' alone, and has it.")
        of_methods += [arm for fusion in own for arm in _of_method(method, fusion)]
    used = dict.fromkeys([*fusions, *(arm.model["fusion"] for arm in of_methods)])
    losses = [
        BalanceArm(
            named(LABEL_LOSS, fusion), "reference" if place else "baseline", grid=RATES, model={"fusion": fusion}
        )
        for place, fusion in enumerate(fusion for fusion in used if fusion in SIX_FUSIONS)
    ]
    heads = BalanceArm(
        named(f"{LABEL_LOSS} + heads", fusions[0]),
        "null",
        grid=RATES,
        model={"fusion": fusions[0], "modality_loss_weight": float(len(modalities))},  # of their mean
    )
    by_kind = [arm for kind in ("colearned", "null") for arm in of_methods if arm.kind == kind]
    return [losses[0], *by_kind, heads, *losses[1:], *_references(modalities)], notes


def _of_method(method: Method, fusion: str) -> list[BalanceArm]:
    """Its arm and its null controls, with one fusion."""
    model, variants = {**method.model, "fusion": fusion}, {method.name: {}, **method.variants, **method.nulls}
    return [
        BalanceArm(
            named(name, fusion),
            "null" if name in method.nulls else "colearned",
            grid=method.grid,
            make=partial(method.kind, **{**method.fixed, **changed}),
            model=model,
        )
        for name, changed in variants.items()
    ]


def _references(modalities: Sequence[str]) -> list[BalanceArm]:
    alone = [BalanceArm(f"{modality} alone", "reference", grid=RATES, modality=modality) for modality in modalities]
    late: dict[str, dict[str, Any]] = {
        LATE: {},
        f"{LATE}, probabilities": {"mean": "probabilities"},
        f"{LATE}, as long": {"shares_steps": False},
    }
    return [
        *alone,
        *(
            BalanceArm(name, "reference", grid=RATES, late_ensemble=True, ensemble_options=options)
            for name, options in late.items()
        ),
    ]
