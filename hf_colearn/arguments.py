"""Training arguments: transformers' own, and ours."""

import copy
import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

from transformers import TrainingArguments

from hf_colearn.alpha.alpha import Alpha, check_weights
from hf_colearn.alpha.learned import LearnedAlpha
from hf_colearn.alpha.outer_loss import OUTER_LOSSES
from hf_colearn.alpha.schedules import ConstantAlpha, FittedAlpha, HeuristicAlpha
from hf_colearn.objectives.distances import LATENT_LOSSES, REDUCTIONS
from hf_colearn.teachers.latent_scale import SCALINGS
from hf_colearn.utils.checks import as_number, check_choice, check_integer, check_positive
from hf_colearn.utils.extras import extra
from hf_colearn.utils.sharded import check_version


ALPHA_SCHEDULES = ("constant", "heuristic", "fitted", "learned")


_SHARES = {  # fields between 0 and 1
    "alpha_outer_split": "it is a share of the training samples.",
    "ema_decay": "it is what the average of the weights keeps of itself in an optimizer step, such as 0.9999. Leave it out "
    "for no average.",
    "layer_decay": "it is a layer's learning rate relative to the layer above it, such as 0.75. Leave it out for one "
    "learning rate.",
    "lr_step_gamma": "the default is 0.1.",
}


def _option(default: Any, help: str) -> Any:
    return field(default=default, metadata={"help": help})


@dataclass
class CoLearningArguments(TrainingArguments):
    """All of [`~transformers.TrainingArguments`], and what co-learning adds.

    Objects given to [`CoLearningTrainer`] (`alpha=`, `objective=`) take the place of the fields here. Arms of a comparison may
    share their arguments: a baseline without a bank and an objective trains on the task alone, whatever `alpha`, `alpha_...`
    and `latent_...` are.

    Args:
        alpha (`float`, *optional*): The auxiliary term's share of the loss, in [0, 1]; 0.5 by default where there is one.
        alpha_schedule (`str`, *optional*, defaults to `"constant"`): `"constant"`; `"heuristic"` (1 - exp(-1/t) in
            epoch t) or `"fitted"` ([`FittedAlpha.released`]), which have no `alpha` of their own; or `"learned"`
            ([`LearnedAlpha`]), which starts from `alpha`.
        alpha_interval (`int`, *optional*, defaults to 100): Optimizer steps between two updates of a learned alpha.
        alpha_learning_rate (`float`, *optional*, defaults to 0.02): Of a learned alpha.
        alpha_batch_size (`int`, *optional*): Samples that it is measured on; those of a training step by default.
        alpha_solver (`str`, *optional*, defaults to `"adam"`): Its `"adam"`, `"identity"`, `"neumann"` or `"cg"`.
        alpha_outer_split (`float`, *optional*, defaults to 0.1): Share of the labelled training samples that only alpha is
            fitted to.
        alpha_outer (`str`, *optional*, defaults to `"fused"`): The loss that it lowers: `"fused"`, the task loss, or
            `"modalities"`, the sum over the heads of a multimodal model.
        latent_loss (`str`, *optional*, defaults to `"mse"`): `"mse"`, `"cosine"` or `"smooth_l1"`.
        latent_reduction (`str`, *optional*, defaults to `"mean"`): `"mean"` over the latent's dimensions (released
            code) or `"sum"` (the paper's squared norm).
        latent_scaling (`str`, *optional*, defaults to `"standardized"`): Of every teacher's latents, unless their bank was
            scaled before: `"standardized"` (mean 0 and standard deviation 1 in every dimension, over what the training
            samples are paired with), `"l2"` (length 1) or `"none"` (as the teacher gives them: the published form); see
            [`TeacherBank.scaled`].
        labelled_per_batch (`int`, *optional*): Labelled samples in every batch of a device; the rest of it are unlabelled ones.
            An epoch is then one pass over the longer of the two streams ([`~hf_colearn.training.sampler.LabelledSampler`]).
            By default batches are drawn from all samples alike.
        id_column (`str`, *optional*, defaults to `"sample_id"`): The training set's column of sample ids.
        ema_decay (`float`, *optional*): Decay per optimizer step, between 0 and 1, of an exponential moving average of
            the weights, with which the student is evaluated and saved
            ([`~hf_colearn.training.weight_average.WeightAverage`]). None by default.
        gradient_cache_chunk_size (`int`, *optional*): Samples that the model is run on at a time in training: the losses, and
            contrastive negatives, are of all `per_device_train_batch_size` of them, and the memory for activations is that of
            so few. Each runs twice, once without gradients ([`~hf_colearn.training.gradient_cache.GradientCache`]). By
            default the whole batch at once.
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

    alpha: float | None = _option(None, "Share of the auxiliary term, 0 to 1 (default 0.5).")
    alpha_schedule: str = _option(
        "constant", "How alpha moves: constant, heuristic (1 - exp(-1/epoch)), fitted or learned."
    )
    alpha_interval: int = _option(100, "Optimizer steps between updates of a learned alpha.")
    alpha_batch_size: int | None = _option(None, "Samples that a learned alpha is measured on (default: a step's).")
    alpha_learning_rate: float = _option(0.02, "Learning rate of a learned alpha.")
    alpha_solver: str = _option("adam", "Inverse Hessian of a learned alpha: adam, identity, neumann or cg.")
    alpha_outer_split: float = _option(0.1, "Share of the labelled training samples that alpha is fitted to.")
    alpha_outer: str = _option("fused", "Loss that a learned alpha lowers: fused or modalities.")
    latent_loss: str = _option("mse", "Distance of latents: mse, cosine or smooth_l1.")
    latent_reduction: str = _option("mean", "Over the latent's dimensions: mean or sum.")
    latent_scaling: str = _option("standardized", "Scale of the teachers' latents: standardized, l2 or none.")
    labelled_per_batch: int | None = _option(
        None, "Labelled samples in every batch of a device (default: as they come)."
    )
    id_column: str = _option("sample_id", "Column of the training set with sample ids.")
    ema_decay: float | None = _option(
        None, "Decay a step of an average of the weights, such as 0.9999 (default: none)."
    )
    gradient_cache_chunk_size: int | None = _option(
        None, "Samples that the model is run on at a time, the losses being of the whole batch (default: all)."
    )
    layer_decay: float | None = _option(None, "Learning rate of a layer relative to that above (default: the same).")
    lr_step_epochs: float | None = _option(None, "Multiply the learning rate with lr_step_gamma every so many epochs.")
    lr_step_gamma: float = _option(0.1, "What lr_step_epochs multiplies with.")
    channels_last: bool = _option(False, "Images and weights with the channels innermost.")

    def __post_init__(self):
        if self.deepspeed:
            with extra("deepspeed", "`deepspeed=` needs the package deepspeed"):
                import_module("deepspeed")
        super().__post_init__()
        self.check()

    def _process_fsdp_args(self):
        # Checkpoints of FSDP2 are in shards, which any number of processes reads; weights alone are gathered in one file.
        plugin_args = super()._process_fsdp_args()
        if plugin_args is not None:
            check_version(plugin_args["fsdp_version"])
            default = "FULL_STATE_DICT" if self.save_only_model else "SHARDED_STATE_DICT"
            plugin_args["state_dict_type"] = self.fsdp_config.get("state_dict_type", default)
        return plugin_args

    def check(self) -> None:
        """Refuses values of our fields that are out of range or exclude each other, also those that a search has set.

        Raises:
            ValueError: Naming the value that is out of range, or the two that exclude each other.
        """
        for name in ("alpha", *_SHARES, "alpha_learning_rate", "lr_step_epochs"):
            if getattr(self, name) is not None:
                setattr(self, name, as_number(name, getattr(self, name)))
        if self.alpha is not None:
            check_weights({"latent": self.alpha})
        check_choice("alpha_schedule", self.alpha_schedule, ALPHA_SCHEDULES)
        check_choice("alpha_outer", self.alpha_outer, OUTER_LOSSES)
        check_choice("latent_loss", self.latent_loss, LATENT_LOSSES)
        check_choice("latent_reduction", self.latent_reduction, REDUCTIONS)
        check_choice("latent_scaling", self.latent_scaling, SCALINGS)
        for name in ("alpha_interval", "alpha_learning_rate", "alpha_batch_size"):
            if getattr(self, name) is not None:
                check_positive(name, getattr(self, name))
        if self.gradient_cache_chunk_size is not None:
            check_integer("gradient_cache_chunk_size", self.gradient_cache_chunk_size, least=1)
        for name, meaning in _SHARES.items():
            value, may_be_1 = getattr(self, name), name == "layer_decay"
            if value is not None and not 0 < value < 1 and not (may_be_1 and value == 1):
                raise ValueError(f"{name}={value} is outside (0, 1{']' if may_be_1 else ')'}: {meaning}")
        if self.alpha_schedule in ("heuristic", "fitted") and self.alpha is not None:
            raise ValueError(
                f"alpha={self.alpha} has no place in alpha_schedule='{self.alpha_schedule}', which is a function of the "
                "epoch: leave alpha out, or set alpha_schedule='constant'."
            )
        if self.labelled_per_batch is not None:
            self._check_labelled_per_batch()
        if not self.id_column:
            raise ValueError("id_column='' names no column: the default is 'sample_id'.")
        if self.ema_decay is not None and "schedule_free" in self.optim.value:
            raise ValueError(
                f"ema_decay={self.ema_decay} with optim='{self.optim.value}', which averages the weights itself and moves "
                "them between training and evaluation: leave one of the two out."
            )
        self._check_step_schedule()

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
            how = (self.alpha_learning_rate, self.alpha_interval, self.alpha_solver)
            seed = self.seed if self.data_seed is None else self.data_seed
            samples = {"outer_split": self.alpha_outer_split, "batch_size": self.alpha_batch_size, "seed": seed}
            return LearnedAlpha(terms, alpha, *how, **samples, outer=self.alpha_outer)
        if len(terms) > 1:
            raise ValueError(
                f"alpha_schedule='{self.alpha_schedule}' weighs one term, and there are {list(terms)}: set 'constant' or "
                "'learned', or pass an `alpha=` of your own."
            )
        return HeuristicAlpha(terms[0]) if self.alpha_schedule == "heuristic" else FittedAlpha.released(terms[0])

    def of_terms(self) -> dict[str, Any]:
        """What is set of the fields that only the auxiliary terms read, those of alpha and of the latent loss."""
        ours = [f for f in dataclasses.fields(self) if f.name.startswith(("alpha", "latent_"))]
        return {f.name: getattr(self, f.name) for f in ours if getattr(self, f.name) != f.default}

    def _check_labelled_per_batch(self) -> None:
        count, size = self.labelled_per_batch, self.train_batch_size
        if type(count) is not int or not 0 < count < size:
            raise ValueError(
                f"labelled_per_batch={count!r} of {size} samples a device: pass a number from 1 to {size - 1}, so that a batch "
                "has labelled and unlabelled samples, or leave it out."
            )
        if self.auto_find_batch_size:
            raise ValueError(
                f"labelled_per_batch={count} is of {size} samples a device, and auto_find_batch_size=True takes fewer where "
                "these do not fit: leave one of the two out."
            )
        strategy = vars(self).get("train_sampling_strategy", "random")  # older versions have other fields
        if strategy != "random":
            raise ValueError(
                f"labelled_per_batch={count} draws the batches, and so does train_sampling_strategy='{strategy}': leave one "
                "of the two out."
            )

    def _check_step_schedule(self) -> None:
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
