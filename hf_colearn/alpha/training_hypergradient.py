"""One hypergradient of a run: the losses of a trainer's own model and batches, at weights that are put in for a moment."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch.distributed.fsdp import CPUOffloadPolicy
from torch.func import functional_call

from hf_colearn.alpha.hypergradient import ImplicitGradient, hypergradient
from hf_colearn.alpha.outer_loss import OuterLoss, outer_loss
from hf_colearn.alpha.solvers import Solver, shape_of
from hf_colearn.alpha.weights import ShardedWeights, Weights, WholeWeights
from hf_colearn.utils import distributed
from hf_colearn.utils.rng import preserve_rng_state
from hf_colearn.utils.sharded import reshard


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
        with _weights_of(trainer) as (weights, model_at):
            return hypergradient(
                weights,
                lambda point: outer_loss(trainer, outer, model_at(point), dict(held_out)),
                lambda point: trainer.losses(model_at(point), dict(inner))[0],
                alphas,
                solver,
                hessian,
                distributed.mean_over_processes,
                relative_step,
            )


@contextmanager
def _weights_of(trainer: Any) -> Iterator[tuple[Weights, Callable[[Any], torch.nn.Module]]]:
    """The owned weights, and the model of a point of them; what is written into shards is put back at the end."""
    model = trainer.model
    owned = owned_weights(model)
    if trainer.sharded_by is not None:
        with ShardedWeights(model, [*owned.values()]) as shards:
            yield shards, lambda model: model
        return
    rest = (*model.named_parameters(), *model.named_buffers())
    fixed = {name: _whole(x) for name, x in rest if x.is_floating_point() and not x.requires_grad}

    def model_at(values: Sequence[torch.Tensor]) -> torch.nn.Module:
        return _At(model, fixed | dict(zip(owned, values, strict=True)))

    yield WholeWeights([_whole(weight) for weight in owned.values()], distributed.mean_over_processes), model_at


def check_sharded(trainer: Any, hessian: str) -> None:
    """Refuses what has no hypergradient where weights are sharded; anything else passes."""
    if trainer.sharded_by is None:
        return
    if trainer.sharded_by != "FSDP":
        raise ValueError(
            f"LearnedAlpha perturbs whole weights, and {trainer.sharded_by} shards or wraps them: train with plain data "
            "parallelism or FSDP, or with a constant, heuristic or fitted alpha."
        )
    if hessian == "exact":
        raise ValueError(
            "hessian='exact' goes back through the gradient, whose graph ends where FSDP averages it into shards: use "
            "hessian='finite_difference', or train with plain data parallelism."
        )
    plugin = trainer.accelerator.state.fsdp_plugin
    tensors = [] if trainer.model is None else [*trainer.model.parameters(), *trainer.model.buffers()]
    found = {tensor.dtype for tensor in tensors if tensor.is_floating_point()}
    found.add(getattr(plugin.mixed_precision_policy, "param_dtype", None) or torch.float32)
    if coarse := sorted(str(dtype) for dtype in found if dtype.itemsize < 4):
        raise ValueError(
            f"LearnedAlpha takes differences of losses, for which {coarse[0]}, in which FSDP gathers weights, is too coarse: "
            "leave bf16=True out (or the weights in float32), or train with plain data parallelism."
        )
    if isinstance(plugin.cpu_offload, CPUOffloadPolicy):
        raise ValueError(
            "LearnedAlpha moves weights where the losses are computed, and FSDP's cpu_offload keeps them in the main memory: "
            "leave it out of fsdp_config, or choose a constant, heuristic or fitted alpha."
        )


def try_outer_loss(trainer: Any, outer: OuterLoss) -> None:
    """The outer loss of a few outer samples, which raises what is wrong with it; nothing is left changed."""
    with preserve_rng_state(trainer.args.device), _evaluating_in_float32(trainer.model), torch.no_grad():
        few = trainer.batches.draw(trainer.outer_dataset, np.random.default_rng(0), 4 * distributed.world_size())
        loss = outer_loss(trainer, outer, trainer.model, few)
        reshard(trainer.model)
    if not isinstance(loss, torch.Tensor) or loss.ndim:
        found = shape_of(loss) if isinstance(loss, torch.Tensor) else f"a {type(loss).__name__}"
        raise ValueError(
            f"the outer loss is {found}, where a scalar tensor is expected: return a mean over the batch."
        )


def owned_weights(model: torch.nn.Module) -> dict[str, torch.nn.Parameter]:
    """The trained weights that the losses depend on in value, in shards where FSDP shards them; a probe has a gradient, but
    no part in any loss."""
    reshard(model)
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
