"""What the trainer refuses when it is built, each with the value at fault and the way out."""

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from transformers.debug_utils import DebugOption
from transformers.utils import logging

from hf_colearn.alpha.alpha import Alpha, check_weights
from hf_colearn.arguments import CoLearningArguments
from hf_colearn.balance.method import BalanceMethod
from hf_colearn.evaluation.compute_metrics import ComputeMetrics
from hf_colearn.models.checkpoint import CheckedModel
from hf_colearn.models.lora import base_model
from hf_colearn.models.multimodal import CoLearningForMultimodalClassification
from hf_colearn.objectives.latent_matching import LatentMatching
from hf_colearn.objectives.momentum import MomentumEncoder
from hf_colearn.objectives.objective import LABELLED, TEACHER, Objective
from hf_colearn.teachers.sequence_bank import SequenceBank
from hf_colearn.teachers.teacher import Teacher
from hf_colearn.training.counts import TASK
from hf_colearn.utils import distributed


logger = logging.get_logger(__name__)

MULTI_LABEL = "multi_label_classification"


def model_and_arguments_fit(model: Any, args: Any, compute_metrics: Any = None) -> None:
    """A text names a model, and Trainer does not load it; the arguments have our fields, and options that fit."""
    if isinstance(model, str):
        raise TypeError(
            f"model='{model}' is a text: load the model, such as "
            f"`CoLearningForImageClassification.from_backbone('{model}', latent_dim=bank.dim)`, and pass it."
        )
    if not isinstance(args, CoLearningArguments):
        raise TypeError(f"args is a {type(args).__name__}: pass CoLearningArguments, which take the same fields.")
    options_fit(model, args)
    if args.batch_eval_metrics and isinstance(compute_metrics, ComputeMetrics):
        raise ValueError(
            "batch_eval_metrics=True measures batches one by one, and metrics of ours are of whole evaluation sets: leave it "
            "out; `eval_accumulation_steps=1` takes the predictions off the device after every batch."
        )


def options_fit(model: Any, args: CoLearningArguments, smooths: bool = False) -> None:
    """Options of Trainer that a model of ours has no use for, where Trainer would stop in the first step.

    Args:
        model ([`~transformers.PreTrainedModel`], *optional*): None before `model_init` has made it.
        args ([`CoLearningArguments`]): Those of the run.
        smooths (`bool`, *optional*, defaults to `False`): Whether Trainer smooths labels, in whatever they are.
    """
    model = base_model(model)
    if not isinstance(model, CheckedModel):
        return
    problem = model.config.problem_type or ("regression" if model.config.num_labels == 1 else None)
    if args.label_smoothing_factor and (problem == "regression" or (smooths and problem == MULTI_LABEL)):
        raise ValueError(
            f"label_smoothing_factor={args.label_smoothing_factor} smooths classes, and the labels are "
            f"{'numbers' if problem == 'regression' else 'several'} (problem_type='{problem}'): leave it out."
        )
    if not isinstance(model, CoLearningForMultimodalClassification):
        return
    if args.neftune_noise_alpha is not None:
        raise ValueError(
            f"neftune_noise_alpha={args.neftune_noise_alpha} adds noise to the input embeddings of one model, and this one has "
            f"encoders of {', '.join(model.modalities)}: leave it out, or add noise by an `augment=` of your own."
        )
    if DebugOption.UNDERFLOW_OVERFLOW in args.debug:
        raise ValueError(
            "debug='underflow_overflow' measures every tensor that a module is given, and a multimodal model passes masks, "
            "which have no size: leave it out, or debug the encoders alone, `model.student('...')`."
        )


def named_teachers(teachers: Any, bank: Any, pairing: Any) -> dict[str, Teacher]:
    """The teachers by name; a single one, given by its bank and pairing, is `"teacher"`."""
    if teachers is None:
        if bank is None and pairing is not None:
            raise ValueError(f"pairing={type(pairing).__name__} needs a bank to draw from: pass `bank=` as well.")
        return {} if bank is None else {TEACHER: Teacher(bank, pairing)}
    if bank is not None or pairing is not None:
        raise ValueError("teachers= and bank= or pairing= both give teachers: put the bank among the teachers.")
    if not isinstance(teachers, Mapping) or not teachers:
        raise TypeError(
            f"teachers is {'empty' if teachers == {} else f'a {type(teachers).__name__}'}: pass them by name, "
            "`teachers={'text': Teacher(bank, pairing)}`, or a single one as `bank=` and `pairing=`."
        )
    for name, teacher in teachers.items():
        if not isinstance(teacher, Teacher):
            raise TypeError(
                f"teachers['{name}'] is a {type(teacher).__name__}: make a teacher of a bank and a pairing, "
                "`Teacher(bank, pairing)`."
            )
        if name in (LABELLED, TASK):
            raise ValueError(
                f"a teacher cannot be called '{name}', which stands for the labels of a batch: rename it."
            )
        if not isinstance(name, str) or not name.isidentifier():
            raise ValueError(f"a teacher cannot be called {name!r}: its name is part of logged names, such as 'text'.")
    return dict(teachers)


def objective_is_valid(objective: Any) -> None:
    """An objective names its terms, can be called, and has no weights of its own."""
    if objective is None:
        return
    _refuse_class("objective", objective, "")
    terms = getattr(objective, "terms", None)
    if not callable(objective) or not terms or isinstance(terms, str) or not all(isinstance(t, str) for t in terms):
        raise TypeError(
            f"objective is a {type(objective).__name__} with terms={terms!r}: an objective has `terms`, a tuple of names "
            "such as ('latent',), and a call `(outputs, batch) -> {term: loss}`; see `hf_colearn.Objective`."
        )
    if weights := next(_own_weights(objective, set()), None):
        raise ValueError(
            f"{type(objective).__name__} has weights of its own ({weights}), which would neither be trained nor saved: make "
            "them a training head of the student, such as `from_backbone(..., training_heads={'name': width})`, whose "
            "output an objective reads as `outputs['training_outputs']['name']`."
        )


def _refuse_class(name: str, value: Any, options: str) -> None:
    if isinstance(value, type):
        raise TypeError(f"{name}={value.__name__} is a class: pass an object of it, `{value.__name__}({options})`.")


def _own_weights(part: Any, seen: set[int]) -> Iterator[str]:
    """Where an objective, or one within it, holds parameters."""
    if id(part) in seen:
        return
    seen.add(id(part))
    if isinstance(part, torch.nn.Module) and next(part.parameters(), None) is not None:
        yield type(part).__name__
    elif isinstance(part, torch.nn.Parameter) or (isinstance(part, torch.Tensor) and part.requires_grad):
        yield f"a tensor of shape {tuple(part.shape)}"
    elif isinstance(part, (Mapping, list, tuple)):
        for value in part.values() if isinstance(part, Mapping) else part:
            yield from _own_weights(value, seen)
    elif hasattr(part, "terms"):  # an objective: its attributes, and the objectives that it wraps
        averaged = MomentumEncoder.of_student if isinstance(part, MomentumEncoder) else ()  # which no gradient trains
        yield from _own_weights({name: value for name, value in vars(part).items() if name not in averaged}, seen)


def alpha_is_valid(alpha: Any, args: CoLearningArguments, objective: Objective | None) -> None:
    """An alpha is an object; without a term it would do nothing, and two alphas would contradict each other.

    The fields of the arguments are no error without a term: a baseline may share them with the arms beside it.
    """
    _refuse_class("alpha", alpha, "...")
    if alpha is not None and not isinstance(alpha, Alpha):
        raise TypeError(
            f"alpha={alpha!r} is a {type(alpha).__name__}: pass a number as `CoLearningArguments(alpha=...)`, or an object "
            "such as `ConstantAlpha(0.3)`."
        )
    if objective is None and alpha is not None:
        raise ValueError(
            f"alpha={type(alpha).__name__} has no auxiliary term to weigh: pass `bank=` (or `objective=`), or leave alpha out."
        )
    if alpha is not None and (args.alpha is not None or args.alpha_schedule != "constant"):
        raise ValueError(
            f"alpha is given twice, as alpha={type(alpha).__name__} and in the arguments (alpha={args.alpha}, "
            f"alpha_schedule='{args.alpha_schedule}'): leave one out."
        )
    if objective is None and (idle := args.of_terms()):
        shown = ", ".join(f"{name}={value!r}" for name, value in idle.items())
        logger.info_once(f"There is no bank and no objective, so the task alone is trained, without {shown}.")


def balance_is_valid(balance: Any) -> None:
    """A balance method is an object of one."""
    _refuse_class("balance", balance, "")
    if balance is not None and not isinstance(balance, BalanceMethod):
        raise TypeError(
            f"balance={balance!r} is a {type(balance).__name__}: pass a balance method, such as `hf_colearn.balance.OGM()`."
        )


def search_is_read(
    before: dict[str, Any], args: CoLearningArguments, terms: Any, alpha: Alpha | None, objective: Objective | None
) -> None:
    """What a hyperparameter search sets must reach the losses, or its trials would be one and the same.

    Args:
        before (`dict[str, Any]`): `args.of_terms()` before the search has set the trial's values.
        args ([`CoLearningArguments`]): The trial's.
        terms ([`Objective`], *optional*): What computes the terms of the run; None where there are none.
        alpha ([`Alpha`], *optional*): The object that was given, which takes the place of the fields.
        objective ([`Objective`], *optional*): The object that was given.
    """
    after = args.of_terms()
    for name in sorted(name for name in before | after if before.get(name) != after.get(name)):
        set_here = f"the search sets {name}={getattr(args, name)!r}, which does nothing here: "
        if terms is None:
            raise ValueError(
                f"{set_here}there is no bank and no objective. Pass `bank=`, or leave it out of the search."
            )
        kind, given = ("alpha", alpha) if name.startswith("alpha") else ("objective", objective)
        if given is not None and name != "latent_scaling":
            raise ValueError(
                f"{set_here}{kind}={type(given).__name__} is an object that does not read it. Leave `{kind}=` out, so that the "
                f"arguments make it, or `{name}` out of the search."
            )


def weights_match_terms(alpha: Alpha, objective: Objective) -> None:
    """Every term needs exactly one weight, and the task's share is what they leave."""
    weighed, terms = set(alpha.weights()), set(objective.terms)
    if weighed != terms:
        raise ValueError(
            f"{type(alpha).__name__} weighs the terms {sorted(weighed)}, but {type(objective).__name__} computes "
            f"{sorted(terms)}: give one weight a term, such as `ConstantAlpha({dict.fromkeys(sorted(terms), 0.5)})`."
        )
    check_weights(alpha.weights())


def arguments_fit(args: CoLearningArguments, has_optimizer: bool, has_scheduler: bool, sharded_by: str | None) -> None:
    """What the arguments ask for must be possible with the processes, the user's own optimizer and sharded weights."""
    if (started := distributed.world_size()) != args.world_size:
        raise ValueError(
            f"{started} processes were started, and transformers counts {args.world_size}, as there is no accelerator: each "
            "would train a model of its own. Pass `use_cpu=True`, with which it counts processes of a CPU."
        )
    if args.layer_decay is not None and (has_optimizer or sharded_by == "DeepSpeed"):
        whose = "an optimizer of your own" if has_optimizer else "DeepSpeed"
        raise ValueError(
            f"layer_decay={args.layer_decay} splits the optimizer that Trainer makes, and here it is {whose}: leave "
            "layer_decay out and set the learning rates there."
        )
    if args.lr_step_epochs is not None and has_scheduler:
        raise ValueError(
            f"lr_step_epochs={args.lr_step_epochs:g} is a schedule, and you pass one of your own: leave one out."
        )
    if args.ema_decay is not None and sharded_by == "DeepSpeed":
        raise ValueError(
            f"ema_decay={args.ema_decay} needs whole weights on every process, and {sharded_by} shards them: train with "
            "plain data parallelism, or leave ema_decay out."
        )


def objective_fits(model: Any, teachers: Mapping[str, Teacher], objective: Any) -> None:
    """An objective says what does not fit it; of one that does not, a single teacher's latents are as wide as the student's."""
    if hasattr(objective, "check"):
        objective.check(model, teachers)
    elif TEACHER in teachers and not isinstance(teachers[TEACHER].bank, SequenceBank):
        LatentMatching().check(model, teachers)


def latent_head_learns(model: Any) -> None:
    """Warns of a frozen latent head, which LoRA leaves behind unless it is told to train it."""
    trains = [weight.requires_grad for name, weight in model.named_parameters() if "latent_head" in name]
    if trains and not any(trains):
        logger.warning(
            "The student's latent head is frozen: it stays as it is, which is random in a new student. With LoRA, "
            'train it with `modules_to_save=["latent_head", "latent_norm", "classifier"]`.'
        )
