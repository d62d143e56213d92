"""Training arguments: transformers' own, and ours."""

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from transformers import TrainingArguments

from hf_colearn.alpha.alpha import Alpha, check_weights
from hf_colearn.alpha.learned import LearnedAlpha
from hf_colearn.alpha.schedules import ConstantAlpha, FittedAlpha, HeuristicAlpha
from hf_colearn.objectives.distances import LATENT_LOSSES, REDUCTIONS


ALPHA_SCHEDULES = ("constant", "heuristic", "fitted", "learned")


@dataclass
class CoLearningArguments(TrainingArguments):
    """All of [`~transformers.TrainingArguments`], and what co-learning adds.

    Objects given to [`CoLearningTrainer`] (`alpha=`, `objective=`) take the place of the fields here.

    Args:
        alpha (`float`, *optional*): The auxiliary term's share of the loss, in [0, 1]; 0.5 where there is a teacher
            and nothing else is said.
        alpha_schedule (`str`, *optional*, defaults to `"constant"`): `"constant"`; `"heuristic"` (1 - exp(-1/t) in
            epoch t) or `"fitted"` ([`FittedAlpha.released`]), which have no `alpha` of their own; or `"learned"`
            ([`LearnedAlpha`]), which starts from `alpha`.
        alpha_interval (`int`, *optional*, defaults to 100): Optimizer steps between two updates of a learned alpha.
        alpha_learning_rate (`float`, *optional*, defaults to 0.02): Of a learned alpha.
        alpha_batch_size (`int`, *optional*): Samples over all processes of the batches that a learned alpha is measured
            on; those of a training step by default.
        alpha_solver (`str`, *optional*, defaults to `"adam"`): Of a learned alpha: `"adam"`, `"identity"`, `"neumann"`
            or `"cg"`.
        alpha_outer_split (`float`, *optional*, defaults to 0.1): Share of the training samples that a learned alpha is
            fitted to, and the weights are not.
        latent_loss (`str`, *optional*, defaults to `"mse"`): `"mse"`, `"cosine"` or `"smooth_l1"`.
        latent_reduction (`str`, *optional*, defaults to `"mean"`): `"mean"` over the latent's dimensions (released
            code) or `"sum"` (the paper's squared norm).
        id_column (`str`, *optional*, defaults to `"sample_id"`): The training set's column of sample ids.
        ema_decay (`float`, *optional*): Decay per optimizer step, between 0 and 1, of an exponential moving average of
            the weights, with which the student is evaluated and saved ([`~hf_colearn.training.weight_average.WeightAverage`]). None by default.
        layer_decay (`float`, *optional*): A layer's learning rate is that of the layer above it times this, in (0, 1]
            ([`~hf_colearn.training.learning_rates.decay_learning_rates`]). One learning rate for all by default.
        lr_step_epochs (`float`, *optional*): Multiply the learning rate with `lr_step_gamma` after every so many epochs,
            instead of `lr_scheduler_type`'s schedule.
        lr_step_gamma (`float`, *optional*, defaults to 0.1): See `lr_step_epochs`; between 0 and 1.
        channels_last (`bool`, *optional*, defaults to `False`): Lay out the weights and the images `[B, channels, height,
            width]` with the channels innermost, which convolutions on tensor cores are faster with.

    Raises:
        ValueError: Naming the value that is out of range, or the two that exclude each other.
    """

    alpha: float | None = field(default=None, metadata={"help": "Share of the auxiliary term, 0 to 1 (default 0.5)."})
    alpha_schedule: str = field(
        default="constant",
        metadata={"help": "How alpha moves: constant, heuristic (1 - exp(-1/epoch)), fitted or learned."},
    )
    alpha_interval: int = field(default=100, metadata={"help": "Optimizer steps between updates of a learned alpha."})
    alpha_batch_size: int | None = field(
        default=None, metadata={"help": "Samples that a learned alpha is measured on (default: a step's)."}
    )
    alpha_learning_rate: float = field(default=0.02, metadata={"help": "Learning rate of a learned alpha."})
    alpha_solver: str = field(
        default="adam", metadata={"help": "Inverse Hessian of a learned alpha: adam, identity, neumann or cg."}
    )
    alpha_outer_split: float = field(
        default=0.1, metadata={"help": "Share of the training samples that alpha is fitted to."}
    )
    latent_loss: str = field(default="mse", metadata={"help": "Distance of latents: mse, cosine or smooth_l1."})
    latent_reduction: str = field(default="mean", metadata={"help": "Over the latent's dimensions: mean or sum."})
    id_column: str = field(default="sample_id", metadata={"help": "Column of the training set with sample ids."})
    ema_decay: float | None = field(
        default=None, metadata={"help": "Decay per step of an average of the weights, such as 0.9999 (default: none)."}
    )
    layer_decay: float | None = field(
        default=None, metadata={"help": "Learning rate of a layer relative to the one above it (default: the same)."}
    )
    lr_step_epochs: float | None = field(
        default=None, metadata={"help": "Multiply the learning rate with lr_step_gamma every so many epochs."}
    )
    lr_step_gamma: float = field(default=0.1, metadata={"help": "What lr_step_epochs multiplies with."})
    channels_last: bool = field(default=False, metadata={"help": "Images and weights with the channels innermost."})

    def __post_init__(self):
        super().__post_init__()
        if self.alpha is not None:
            self.alpha = float(self.alpha)  # YAML reads 5e-1 as text
            check_weights({"latent": self.alpha})
        for name, choices in (
            ("alpha_schedule", ALPHA_SCHEDULES),
            ("latent_loss", LATENT_LOSSES),
            ("latent_reduction", REDUCTIONS),
        ):
            if getattr(self, name) not in choices:
                raise ValueError(f"{name}='{getattr(self, name)}' is unknown: choose one of {', '.join(choices)}.")
        if self.alpha_schedule in ("heuristic", "fitted") and self.alpha is not None:
            raise ValueError(
                f"alpha={self.alpha} has no place in alpha_schedule='{self.alpha_schedule}', which is a function of the "
                "epoch: leave alpha out, or set alpha_schedule='constant'."
            )
        self._check_learned_alpha()
        if not self.id_column:
            raise ValueError("id_column='' names no column: the default is 'sample_id'.")
        for name in ("ema_decay", "layer_decay", "lr_step_epochs", "lr_step_gamma"):
            if getattr(self, name) is not None:
                setattr(self, name, float(getattr(self, name)))
        self._check_ema()
        self._check_learning_rates()

    def __getstate__(self):
        # Trainer pickles the arguments into `training_args.bin` and pushes it: a token has no place there.
        return {**self.__dict__, "hub_token": None}

    def __deepcopy__(self, memo):
        # A copy within the process keeps the token, which would get lost on the way through the state.
        copied = memo[id(self)] = object.__new__(type(self))
        copied.__dict__.update(copy.deepcopy(self.__dict__, memo))
        return copied

    def make_alpha(self, terms: Sequence[str]) -> Alpha:
        """The alpha that these arguments describe; several terms share a constant or learned one in equal parts.

        Raises:
            ValueError: If several terms are to follow a schedule, which is of one.
        """
        alpha = 0.5 if self.alpha is None else self.alpha
        if self.alpha_schedule == "constant":
            return ConstantAlpha({term: alpha / len(terms) for term in terms})
        if self.alpha_schedule == "learned":
            return LearnedAlpha(
                terms,
                alpha,
                self.alpha_learning_rate,
                self.alpha_interval,
                self.alpha_solver,
                outer_split=self.alpha_outer_split,
                batch_size=self.alpha_batch_size,
                seed=self.data_seed if self.data_seed is not None else self.seed,
            )
        if len(terms) > 1:
            raise ValueError(
                f"alpha_schedule='{self.alpha_schedule}' weighs one term, and there are {list(terms)}: set 'constant' or "
                "'learned', or pass an `alpha=` of your own."
            )
        return HeuristicAlpha(terms[0]) if self.alpha_schedule == "heuristic" else FittedAlpha.released(terms[0])

    def _check_learned_alpha(self) -> None:
        self.alpha_learning_rate, self.alpha_outer_split = (
            float(self.alpha_learning_rate),
            float(self.alpha_outer_split),
        )
        if not 0 < self.alpha_outer_split < 1:
            raise ValueError(
                f"alpha_outer_split={self.alpha_outer_split} is outside (0, 1): it is a share of the training samples."
            )
        for name in ("alpha_interval", "alpha_learning_rate", "alpha_batch_size"):
            if getattr(self, name) is not None and not (
                getattr(self, name) > 0 and math.isfinite(getattr(self, name))
            ):
                raise ValueError(f"{name}={getattr(self, name)} must be above 0.")

    def _check_ema(self) -> None:
        if self.ema_decay is None:
            return
        if not 0 < self.ema_decay < 1:
            raise ValueError(
                f"ema_decay={self.ema_decay} is outside (0, 1): it is what the average of the weights keeps of itself in "
                "an optimizer step, such as 0.9999. Leave it out for no average."
            )
        if "schedule_free" in self.optim.value:
            raise ValueError(
                f"ema_decay={self.ema_decay} with optim='{self.optim.value}', which averages the weights itself and moves them "
                "between training and evaluation: leave one of the two out."
            )

    def _check_learning_rates(self) -> None:
        if self.layer_decay is not None and not 0 < self.layer_decay <= 1:
            raise ValueError(
                f"layer_decay={self.layer_decay} is outside (0, 1]: it is a layer's learning rate relative to the layer "
                "above it, such as 0.75. Leave it out for one learning rate."
            )
        if not 0 < self.lr_step_gamma < 1:
            raise ValueError(f"lr_step_gamma={self.lr_step_gamma} is outside (0, 1): the default is 0.1.")
        if self.lr_step_epochs is None:
            if self.lr_step_gamma != 0.1:
                raise ValueError(f"lr_step_gamma={self.lr_step_gamma} does nothing without lr_step_epochs: set both.")
            return
        if not (self.lr_step_epochs > 0 and math.isfinite(self.lr_step_epochs)):
            raise ValueError(f"lr_step_epochs={self.lr_step_epochs} is no number of epochs: pass one above 0.")
        for name, value, default in (
            ("lr_scheduler_type", str(self.lr_scheduler_type.value), "linear"),
            ("warmup_steps", self.warmup_steps, 0),
            ("lr_scheduler_kwargs", self.lr_scheduler_kwargs, None),
        ):
            if value and value != default:
                raise ValueError(
                    f"lr_step_epochs={self.lr_step_epochs:g} is a schedule of its own, and so is {name}={value!r}: leave "
                    "one of the two out."
                )
