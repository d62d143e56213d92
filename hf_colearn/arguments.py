"""Training arguments: transformers' own, and ours."""

import math
from dataclasses import dataclass, field

from transformers import TrainingArguments

from hf_colearn.alpha import check_weights
from hf_colearn.losses import LATENT_LOSSES, REDUCTIONS


ALPHA_SCHEDULES = ("constant", "heuristic")


@dataclass
class CoLearningArguments(TrainingArguments):
    """All of [`~transformers.TrainingArguments`], and what co-learning adds.

    Objects given to [`CoLearningTrainer`] (`alpha=`, `objective=`) take the place of the fields here.

    Args:
        alpha (`float`, *optional*): The auxiliary term's share of the loss, in [0, 1]; 0.5 where there is a teacher
            and nothing else is said.
        alpha_schedule (`str`, *optional*, defaults to `"constant"`): `"constant"` or `"heuristic"` (1 - exp(-1/t) in
            epoch t, which has no `alpha` of its own).
        latent_loss (`str`, *optional*, defaults to `"mse"`): `"mse"`, `"cosine"` or `"smooth_l1"`.
        latent_reduction (`str`, *optional*, defaults to `"mean"`): `"mean"` over the latent's dimensions (released
            code) or `"sum"` (the paper's squared norm).
        id_column (`str`, *optional*, defaults to `"sample_id"`): The training set's column of sample ids.
        ema_decay (`float`, *optional*): Decay per optimizer step, between 0 and 1, of an exponential moving average of
            the weights, with which the student is evaluated and saved ([`~ema.WeightAverage`]). None by default.
        layer_decay (`float`, *optional*): A layer's learning rate is that of the layer above it times this, in (0, 1]
            ([`~optimization.decay_learning_rates`]). One learning rate for all by default.
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
        default="constant", metadata={"help": "How alpha moves: constant, or heuristic (1 - exp(-1/epoch))."}
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
        if self.alpha_schedule == "heuristic" and self.alpha is not None:
            raise ValueError(
                f"alpha={self.alpha} has no place in alpha_schedule='heuristic', which is 1 - exp(-1/epoch): leave "
                "alpha out, or set alpha_schedule='constant'."
            )
        if not self.id_column:
            raise ValueError("id_column='' names no column: the default is 'sample_id'.")
        for name in ("ema_decay", "layer_decay", "lr_step_epochs", "lr_step_gamma"):
            if getattr(self, name) is not None:
                setattr(self, name, float(getattr(self, name)))
        self._check_ema()
        self._check_learning_rates()

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
