"""What the methods of modality balance are made of: the base class, and the parameters of the modalities."""

from collections.abc import Callable, Iterable, Mapping
from inspect import signature
from typing import Any, ClassVar

import torch
from accelerate.utils import extract_model_from_parallel
from torch import nn

from hf_colearn.alpha.learned import LearnedAlpha
from hf_colearn.balance.batch import UNIMODAL, ModalityBatch, unimodal_logits
from hf_colearn.models.heads import zero_gradient
from hf_colearn.models.lora import base_model
from hf_colearn.models.multimodal import CoLearningForMultimodalClassification
from hf_colearn.utils.callback import CoLearningCallback
from hf_colearn.utils.checks import check_choice
from hf_colearn.utils.distributed import mean_over_processes


__all__ = ["UNIMODAL", "BalanceMethod", "ModalityBatch", "encoder_parameters", "no_gradient", "unimodal_logits"]


class BalanceMethod(CoLearningCallback):
    r"""Base of the published cures for modality imbalance; what `CoLearningTrainer(balance=...)` takes.

    A subclass is one file that says what the method does at one or more of these places of an optimizer step:

    - `observe`: after the forward of every micro-batch, to add to sums, or to register hooks on outputs;
    - `loss`: what takes the place of the task's loss of a micro-batch;
    - `on_gradients`: once a step, when all gradients are there, reduced over the processes and not clipped;
    - `training_step`: where the method needs more than one forward, backward or optimizer step of its own;
    - `observe_evaluation` and `on_evaluate`: what it measures on the validation split.

    Sums over samples are summed over micro-batches and processes before a ratio of them is taken, so that a step does not
    depend on how it was cut, where the rule allows it. What the method computes, it `record`s: the means since the last log
    are logged as `balance_{name}`.

    A method is refused by name, when the trainer is built, with what it does not work with; see the class attributes.

    Attributes:
        fusions (`tuple[str, ...]` or `None`): The fusions that it can use; None for any.
        most_modalities (`int` or `None`): The most modalities that it is defined for.
        problem_types (`tuple[str, ...]`): The tasks that it is defined for.
        replaces_loss (`bool`): Whether it changes what the task's loss is; a learned alpha, whose hypergradient is that of
            the task's own loss, and a loss function of the user's are then refused.
        takes_objective (`bool`): Whether auxiliary terms may stand beside it.
        accumulates (`bool`): Whether an optimizer step may have several micro-batches.
        needs_validation (`bool`): Whether it reads evaluations during training.
        needs_whole_weights (`bool`): Whether it cannot train with FSDP2, as it reads weights or their gradients beside the
            model's own forward and backward and not in shards; with DeepSpeed none can.

    Args:
        unimodal (`str`, *optional*, defaults to `"heads"`): Where a single modality's logits come from:
            [`~hf_colearn.balance.batch.unimodal_logits`].

    Example:

    ```python
    >>> from hf_colearn.balance.method import BalanceMethod, encoder_parameters

    >>> class Halved(BalanceMethod):
    ...     '''Halves the gradient of one encoder.'''
    ...
    ...     def __init__(self, modality):
    ...         super().__init__()
    ...         self.modality = modality
    ...
    ...     def on_gradients(self, model):
    ...         for parameter in encoder_parameters(model)[self.modality]:
    ...             if parameter.grad is not None:
    ...                 parameter.grad.mul_(0.5)
    ```
    """

    fusions: ClassVar[tuple[str, ...] | None] = None
    most_modalities: ClassVar[int | None] = None
    problem_types: ClassVar[tuple[str, ...]] = ("single_label_classification",)
    replaces_loss: ClassVar[bool] = False
    takes_objective: ClassVar[bool] = True
    accumulates: ClassVar[bool] = True
    needs_validation: ClassVar[bool] = False
    needs_whole_weights: ClassVar[bool] = True

    def __init__(self, unimodal: str = "heads"):
        check_choice("unimodal", unimodal, UNIMODAL)
        self.unimodal = unimodal
        self._seen: ModalityBatch | None = None
        self._curves: dict[str, tuple[torch.Tensor, int]] = {}

    # ---- what a method does ----
    def observe(self, seen: ModalityBatch) -> None:
        """Called after the forward of every training micro-batch, while gradients are recorded."""

    def loss(self, seen: ModalityBatch, task: torch.Tensor) -> torch.Tensor:
        """The loss of a micro-batch, a scalar; by default the task's own.

        It is the mean over the labels that count in the optimizer step, as [`~hf_colearn.balance.batch.ModalityBatch`] gives
        losses; auxiliary terms are added to it with their alpha.
        """
        return task

    def training_step(
        self, trainer: Any, model: nn.Module, inputs: dict[str, Any], step: Callable[..., torch.Tensor]
    ) -> torch.Tensor:
        """A training micro-batch: forwards and backwards that leave gradients behind; returns the loss to log.

        Args:
            trainer ([`CoLearningTrainer`]): Whose optimizer and clipping a method with several optimizer steps uses; the
                last step is left to it.
            model (`nn.Module`): As it is called, wrapped for several processes.
            inputs (`dict`): A batch; `trainer._prepare_inputs` makes of it what may be changed and passed on several times.
            step (`Callable`): `step(model, inputs)` is Trainer's own: forward, loss and backward; returns the loss.
        """
        return step(model, inputs)

    def observe_evaluation(self, seen: ModalityBatch) -> None:
        """Called after the forward of every labelled evaluation batch, without gradients."""

    def record(self, **values: torch.Tensor | float) -> None:
        """Adds a value to each curve, without waiting for the device; their means are in the next log of training."""
        for name, value in values.items():
            total, count = self._curves.get(name, (0.0, 0))
            self._curves[name] = (total + torch.as_tensor(value).detach().float(), count + 1)

    def __repr__(self) -> str:
        given = {name: getattr(self, name) for name in signature(type(self)).parameters if hasattr(self, name)}
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in given.items())})"

    # ---- how it is called ----
    def on_outputs(self, outputs, batch, model, training):
        inner = inner_model(model)
        if inner is None:
            raise TypeError(_no_model(self, model))
        seen = ModalityBatch(outputs, batch, inner, self.unimodal)
        if training:
            self._seen = seen
            self.observe(seen)
        elif isinstance(batch.labels, torch.Tensor):
            self.observe_evaluation(seen)

    def on_terms(self, terms: Mapping[str, torch.Tensor]) -> Mapping[str, torch.Tensor]:
        assert self._seen is not None
        seen, self._seen = self._seen, None
        if type(self).loss is BalanceMethod.loss:
            return terms
        # Plain DDP waits for a gradient of every parameter, and a method's loss may leave some out.
        return {**terms, "task": zero_gradient(self.loss(seen, terms["task"]), seen.all_logits)}

    def on_train_begin(self, args, state, control, **kwargs):
        self._curves, self._seen = {}, None

    def metrics(self, training: bool) -> dict[str, float]:
        if not training or not self._curves:
            return {}
        curves, self._curves = self._curves, {}
        means = torch.stack([(total / count).reshape(()).cpu() for total, count in curves.values()])
        return {
            f"balance_{name}": mean for name, mean in zip(curves, mean_over_processes(means).tolist(), strict=True)
        }

    # ---- what it works with ----
    def setup(self, trainer: Any) -> None:
        # Refuses what does not fit; a subclass calls this first, and adds its own.
        name = type(self).__name__
        others = [
            type(other).__name__
            for other in trainer.callback_handler.callbacks
            if isinstance(other, BalanceMethod) and other is not self
        ]
        if others:
            raise ValueError(
                f"{name} and {others[0]} would balance the same gradients twice: pass one balance method."
            )
        self._check_training(trainer, name)
        if trainer.model is not None:  # before `model_init` there is none
            model = inner_model(trainer.model)
            if model is None:
                raise TypeError(_no_model(self, trainer.model))
            self.check_model(model)

    def check_model(self, model: CoLearningForMultimodalClassification) -> None:
        """Refuses a model that the method cannot balance."""
        name, config = type(self).__name__, model.config
        if config.imputation is not None:
            raise ValueError(
                f"{name} balances the latents and logits of what is there, and with imputation='{config.imputation}' the "
                "fusion reads imputed ones, too: leave one of them out."
            )
        if self.fusions is not None and config.fusion not in self.fusions:
            raise ValueError(
                f"{name} works with fusion={' or '.join(map(repr, self.fusions))}, and the model has "
                f"fusion='{config.fusion}': build it with that."
            )
        if self.most_modalities is not None and len(model.modalities) > self.most_modalities:
            raise ValueError(
                f"{name} is defined for {self.most_modalities} modalities, and the model has {len(model.modalities)} "
                f"({', '.join(model.modalities)}): choose another method."
            )
        problem = config.problem_type or ("regression" if config.num_labels == 1 else self.problem_types[0])
        if problem not in self.problem_types:
            raise ValueError(
                f"{name} is defined for {' and '.join(self.problem_types)}, and the model has problem_type='{problem}': "
                "choose another method."
            )
        if self.unimodal == "fused" and config.fusion != "concat":
            raise ValueError(
                f"{name}(unimodal='fused') reads slices of the head of fusion='concat', and the model has "
                f"fusion='{config.fusion}': pass unimodal='heads'."
            )

    def _check_training(self, trainer: Any, name: str) -> None:
        args = trainer.args
        if trainer.sharded_by == "DeepSpeed" or (trainer.sharded_by is not None and self.needs_whole_weights):
            raise ValueError(
                f"{name} reads whole gradients and weights, and {trainer.sharded_by} shards them: train with plain data "
                "parallelism, or without `balance`."
            )
        if args.n_gpu > 1:
            raise ValueError(
                f"{name} reads the outputs of one model, and {args.n_gpu} GPUs share one process (DataParallel): start a "
                "process for each, `torchrun --nproc_per_node`."
            )
        if args.fp16:
            raise ValueError(f"{name} reads gradients, which fp16=True scales: pass bf16=True instead.")
        if not self.accumulates and args.gradient_accumulation_steps > 1:
            raise ValueError(
                f"{name} takes an optimizer step within every batch, so that gradient_accumulation_steps="
                f"{args.gradient_accumulation_steps} has no meaning: raise per_device_train_batch_size instead."
            )
        if not self.takes_objective and trainer.auxiliary_objective is not None:
            raise ValueError(
                f"{name} sees one modality at a time, so that {type(trainer.auxiliary_objective).__name__} has nothing to "
                "compare: leave `objective` out."
            )
        if self.replaces_loss and isinstance(trainer.alpha, LearnedAlpha):
            raise ValueError(
                f"{name} trains on another loss than the task's, whose minimum the hypergradient of LearnedAlpha assumes: "
                "use a constant alpha, such as CoLearningArguments(alpha=0.5)."
            )
        own = next(
            (name for name in ("compute_loss_func", "label_smoother") if getattr(trainer, name) is not None), None
        )
        if self.replaces_loss and own is not None:
            shown = "label_smoothing_factor" if own == "label_smoother" else own
            raise ValueError(f"{name} computes the loss itself, so that {shown} would do nothing: leave it out.")
        if self.needs_validation:
            _check_validation(trainer, name)


def _check_validation(trainer: Any, name: str) -> None:
    if trainer.eval_dataset is None:
        raise ValueError(f"{name} needs a validation split: pass `eval_dataset`.")
    if isinstance(trainer.eval_dataset, dict):
        raise ValueError(
            f"{name} reads one validation split, and eval_dataset has {', '.join(map(str, trainer.eval_dataset))}: pass one."
        )
    if trainer.args.eval_strategy == "no":
        raise ValueError(f"{name} reads the validation split during training: set eval_strategy='epoch' (or 'steps').")


def _no_model(method: BalanceMethod, model: Any) -> str:
    return (
        f"{type(method).__name__} balances the modalities of a CoLearningForMultimodalClassification, and the model is a "
        f"{type(model).__name__}, of one modality as far as it can see: leave `balance` out, or build a multimodal model with "
        "`from_backbones`."
    )


def inner_model(model: Any) -> CoLearningForMultimodalClassification | None:
    """The multimodal model within wrappers of processes and adapters; None where there is none."""
    model = base_model(extract_model_from_parallel(model, keep_torch_compile=False))
    return model if isinstance(model, CoLearningForMultimodalClassification) else None


def balanced_model(model: Any) -> CoLearningForMultimodalClassification:
    """The multimodal model within wrappers and adapters, which `setup` has made sure of."""
    inner = inner_model(model)
    assert inner is not None
    return inner


def task_share(trainer: Any) -> float:
    """What the trainer multiplies the task's loss with, beside auxiliary terms."""
    if trainer.auxiliary_objective is None:
        return 1.0
    return 1.0 - sum(trainer.alpha.weights().values())


def encoder_parameters(model: nn.Module) -> dict[str, list[nn.Parameter]]:
    r"""The trainable parameters of every modality's encoder, \\(\theta_m\\): backbone and latent head, adapters among them,
    and not its classifier."""
    inner = balanced_model(model)
    return {
        name: [
            parameter
            for key, parameter in encoder.named_parameters()
            if parameter.requires_grad and not key.startswith("classifier")
        ]
        for name, encoder in inner.encoders.items()
    }


def no_gradient(parameters: Iterable[nn.Parameter]) -> None:
    """Takes the gradients away: an optimizer then leaves the parameters as they are, whatever its momentum and decay."""
    for parameter in parameters:
        parameter.grad = None
