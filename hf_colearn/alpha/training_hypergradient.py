"""One hypergradient of a run: the losses of a trainer's own model and batches, at weights that are put in for a moment."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch.func import functional_call

from hf_colearn.alpha.hypergradient import ImplicitGradient, implicit_gradient
from hf_colearn.alpha.outer_loss import OuterLoss, outer_loss
from hf_colearn.alpha.solvers import Solver, shape_of
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
    outer: OuterLoss = "fused",
) -> ImplicitGradient:
    """d L_outer / d alpha at the current weights, from one inner and one outer batch; nothing is left changed.

    `trainer` is a [`CoLearningTrainer`] with an `outer_dataset`; `rng` draws the batches, the same on all processes, of
    `batch_size` samples over all of them. The solver is for [`owned_weights`]; see [`implicit_gradient`] for the rest.
    """
    model, device = trainer.model, trainer.args.device
    with preserve_rng_state(device), _evaluating_in_float32(model):
        torch.manual_seed(int(rng.integers(2**31)))  # what an augmentation draws
        inner = trainer.batches.draw(trainer.train_dataset, rng, batch_size, augment=True)
        held_out = trainer.batches.draw(trainer.outer_dataset, rng, batch_size)
        owned = owned_weights(model)
        rest = (*model.named_parameters(), *model.named_buffers())
        fixed = {name: _whole(x) for name, x in rest if x.is_floating_point() and not x.requires_grad}

        def at(weights: Sequence[torch.Tensor]) -> torch.nn.Module:
            return _At(model, fixed | dict(zip(owned, weights, strict=True)))

        return implicit_gradient(
            [_whole(weight) for weight in owned.values()],
            lambda weights: outer_loss(trainer, outer, at(weights), dict(held_out)),
            lambda weights: trainer.losses(at(weights), dict(inner))[0],
            alphas,
            solver,
            hessian,
            distributed.mean_over_processes,
            relative_step,
        )


def try_outer_loss(trainer: Any, outer: OuterLoss) -> None:
    """The outer loss of a few outer samples, which raises what is wrong with it; nothing is left changed."""
    with preserve_rng_state(trainer.args.device), _evaluating_in_float32(trainer.model), torch.no_grad():
        few = trainer.batches.draw(trainer.outer_dataset, np.random.default_rng(0), 4 * distributed.world_size())
        loss = outer_loss(trainer, outer, trainer.model, few)
    if not isinstance(loss, torch.Tensor) or loss.ndim:
        found = shape_of(loss) if isinstance(loss, torch.Tensor) else f"a {type(loss).__name__}"
        raise ValueError(
            f"the outer loss is {found}, where a scalar tensor is expected: return a mean over the batch."
        )


def owned_weights(model: torch.nn.Module) -> dict[str, torch.nn.Parameter]:
    """The trained weights that the losses depend on in value; a probe has a gradient, but no part in any loss."""
    probes = {id(weight) for _, weight in getattr(model, "probe_parameters", tuple)()}
    return {
        name: weight for name, weight in model.named_parameters() if weight.requires_grad and id(weight) not in probes
    }


class _At(torch.nn.Module):
    """A model with other weights, for functions that call a model."""

    def __init__(self, model: torch.nn.Module, weights: dict[str, torch.Tensor]):
        super().__init__()
        self.forward = lambda **inputs: functional_call(model, weights, kwargs=inputs)


def _whole(tensor: torch.Tensor) -> torch.Tensor:
    """At least float32: half precision is too coarse for differences."""
    return tensor.detach().float() if tensor.dtype.itemsize < 4 else tensor.detach()


@contextmanager
def _evaluating_in_float32(model: torch.nn.Module) -> Iterator[None]:
    """Evaluation mode, without the autocast that accelerate puts around a model's forward; all is back afterwards."""
    modes = [(module, module.training) for module in model.modules()]
    wrapped, original = (model.__dict__.get(name) for name in ("forward", "_original_forward"))
    model.eval()
    if original is not None:
        model.forward = original
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode
        if original is not None:
            model.forward = wrapped  # type: ignore[assignment]
