"""One hypergradient of a run: the losses of a trainer's own model and batches, at weights that are put in for a moment."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch.func import functional_call

from hf_colearn.alpha.hypergradient import ImplicitGradient, implicit_gradient
from hf_colearn.alpha.solvers import Solver
from hf_colearn.utils import distributed
from hf_colearn.utils.rng import preserve_rng_state


def training_hypergradient(
    trainer: Any,
    alphas: Mapping[str, float],
    solver: Solver,
    rng: np.random.Generator,
    batch_size: int | None = None,
    hessian: str = "finite_difference",
    relative_step: float | None = None,
) -> ImplicitGradient:
    """d L_outer / d alpha at the current weights, from one inner and one outer batch; nothing is left changed.

    Args:
        trainer ([`CoLearningTrainer`]): With an `outer_dataset`.
        alphas (`Mapping[str, float]`): The weight of every term.
        solver (`Solver`): Of the inverse Hessian, for the weights of [`owned_weights`].
        rng (`np.random.Generator`): Draws the batches; the same on all processes.
        batch_size (`int`, *optional*): Samples over all processes; those of a training step by default.
        hessian, relative_step (*optional*): As in [`~hf_colearn.alpha.hypergradient.implicit_gradient`].
    """
    model, device = trainer.model, trainer.args.device
    with preserve_rng_state(device), _evaluating(model), _full_precision(model, device):
        torch.manual_seed(int(rng.integers(2**31)))  # what an augmentation draws
        inner = trainer.batches.draw(trainer.train_dataset, rng, batch_size, augment=True)
        outer = trainer.batches.draw(trainer.outer_dataset, rng, batch_size)
        owned = owned_weights(model)
        fixed = {name: _whole(tensor) for name, tensor in _fixed(model)}

        def at(weights: Sequence[torch.Tensor]) -> "_At":
            return _At(model, {**fixed, **dict(zip(owned, weights, strict=True))})

        return implicit_gradient(
            [_whole(weight) for weight in owned.values()],
            lambda weights: trainer.task_loss(at(weights), dict(outer))[0],
            lambda weights: trainer.losses(at(weights), dict(inner))[0],
            alphas,
            solver,
            hessian,
            distributed.mean_over_processes,
            relative_step,
        )


def owned_weights(model: torch.nn.Module) -> dict[str, torch.nn.Parameter]:
    """The trained weights that the losses depend on in value; a probe has a gradient, but no part in any loss."""
    probes = {id(weight) for _, weight in getattr(model, "probe_parameters", tuple)()}
    return {
        name: weight for name, weight in model.named_parameters() if weight.requires_grad and id(weight) not in probes
    }


class _At(torch.nn.Module):
    """A model with other weights, for functions that call a model."""

    def __init__(self, model: torch.nn.Module, weights: Mapping[str, torch.Tensor]):
        super().__init__()
        self.__dict__["call"] = lambda inputs: functional_call(model, dict(weights), (), inputs)  # no submodule

    def forward(self, **inputs: Any) -> Any:
        return self.__dict__["call"](inputs)


def _fixed(model: torch.nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    """What does not train: frozen weights and floating buffers."""
    yield from ((name, weight) for name, weight in model.named_parameters() if not weight.requires_grad)
    yield from ((name, buffer) for name, buffer in model.named_buffers() if buffer.is_floating_point())


def _whole(tensor: torch.Tensor) -> torch.Tensor:
    """At least float32: half precision is too coarse for differences."""
    return tensor.detach().float() if tensor.dtype.itemsize < 4 else tensor.detach()


@contextmanager
def _evaluating(model: torch.nn.Module) -> Iterator[None]:
    """Evaluation mode, and every module back in its own afterwards."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode


@contextmanager
def _full_precision(model: torch.nn.Module, device: torch.device) -> Iterator[None]:
    """Without the autocast that accelerate puts around a model's forward: differences of losses need float32."""
    wrapped = model.__dict__.get("forward")
    original = model.__dict__.get("_original_forward")
    if original is not None:
        model.forward = original
    try:
        with torch.autocast(device.type, enabled=False):
            yield
    finally:
        if original is not None:
            model.forward = wrapped  # type: ignore[assignment]
