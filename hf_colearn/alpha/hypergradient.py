"""Implicit differentiation: how a loss that is not trained on changes with the weights of the losses that are.

Shapes: P parameters, all flattened into one vector; K losses, the task first and then every term.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

import torch

from hf_colearn.alpha.alpha import check_weights
from hf_colearn.alpha.solvers import AdamDiagonal, ConjugateGradient, Solution, Solver, shape_of
from hf_colearn.alpha.weights import Weights, WholeWeights
from hf_colearn.utils.checks import check_choice, check_positive


TASK = "task"
HESSIANS = ("finite_difference", "exact")
PRECISIONS = (torch.float32, torch.float64)


@dataclass(frozen=True)
class ImplicitGradient:
    """What [`implicit_gradient`] found; every tensor is a scalar on the parameters' device."""

    gradients: dict[str, torch.Tensor]  # dL_outer / d alpha of every term
    outer_loss: torch.Tensor
    residual: torch.Tensor  # |H v - g| / |g|, of the undamped H: 0 of an exact v, 1 of v = 0, above 1 of a worse one
    cost: float  # in forward passes; a backward pass is 2, one through the gradient's graph 6
    solved: bool | None = None  # whether v solves the solver's system; None of a solver that never claims it


def implicit_gradient(
    parameters: Sequence[torch.Tensor],
    outer_loss: Callable[[Sequence[torch.Tensor]], torch.Tensor],
    inner_losses: Callable[[Sequence[torch.Tensor]], Mapping[str, torch.Tensor]],
    alphas: Mapping[str, float],
    solver: Solver = ConjugateGradient(),  # noqa: B008  (frozen)
    hessian: str = "finite_difference",
    average: Callable[[torch.Tensor], torch.Tensor] | None = None,
    relative_step: float | None = None,
) -> ImplicitGradient:
    r"""The derivative of the outer loss by every alpha, through the parameters that the inner losses lead to.

    With \\(\theta^*(\alpha)\\) the minimum of \\(L = (1 - \sum_k \alpha_k) L_{task} + \sum_k \alpha_k L_k\\) and H its
    Hessian, \\(dL_{outer}/d\alpha_k = -v^T (\nabla L_k - \nabla L_{task})\\), where \\(v \approx H^{-1} \nabla
    L_{outer}\\) is the solver's. It is as true as \\(\theta\\) is near that minimum and v near the solution: `solved` says
    whether a solver that checks itself got there. `residual` is 1 for v = 0 and may be above it: a v that is too long along
    directions of much curvature is farther from solving H v = g than none, although its sign may be right.

    Finite differences take the losses at \\(\theta \pm e v\\) for \\(v^T (\nabla L_k - \nabla L_{task})\\) of all
    terms, and their gradients for H v. The step \\(e = \text{relative\_step} \cdot |\theta| / |v|\\) moves the weights by
    the same share of their norm whatever v is (by `relative_step` itself where all weights are 0).

    Nothing of the caller changes: the parameters are copied into one vector, no `.grad` is written, and autocast is off
    within. No step waits for the device but those of [`ConjugateGradient`], which decides after every product. A NaN or
    an infinity in any loss, of any process, makes every gradient NaN on all; nothing is raised for it.

    Args:
        parameters (`Sequence[torch.Tensor]`): The weights \\(\theta\\) of any shapes, all float32 or all float64, on one
            device; whether they require a gradient does not matter.
        outer_loss, inner_losses (`Callable`): Give the scalar outer loss of such a sequence, and the scalar inner losses,
            `"task"` and one a term. Both must be deterministic, as a model in evaluation mode is; they may use different
            batches, and not all parameters.
        alphas (`Mapping[str, float]`): The weight of every term; the task has the rest.
        solver (*optional*): [`ConjugateGradient`], [`Neumann`], [`AdamDiagonal`], [`Identity`] or another [`Solver`].
        hessian (`str`, *optional*, defaults to `"finite_difference"`): Or `"exact"`, by a backward pass through the
            gradient, which flash attention and some other fused kernels do not have; its graph is kept meanwhile.
        average (`Callable`, *optional*): Gives the mean of a tensor over the processes, in place if it likes. Every
            gradient, Hessian product, loss difference and outer loss goes through it; by default nothing does.
        relative_step (`float`, *optional*): By default a hundredth of the cube root of the dtype's epsilon (float32:
            4.9e-5, float64: 6.1e-8), as gradients lie in the few directions that bend most. Where v is spread over all
            weights, as by [`AdamDiagonal`], 5e-4 is better; so it is with ReLU and max-pooling, whose gradients jump where
            they switch: differences see that as noise that falls with the batch and the step.

    Raises:
        ValueError: If the parameters, terms, alphas and losses do not fit, or another argument is out of its range.
        RuntimeError: If `hessian="exact"` meets a kernel that has no second derivative.

    Example:

    ```python
    names, parameters = zip(*model.named_parameters())
    def loss(parameters, batch):
        return torch.func.functional_call(model, dict(zip(names, parameters)), kwargs=batch).loss
    found = implicit_gradient(
        parameters,
        outer_loss=lambda p: loss(p, outer_batch),
        inner_losses=lambda p: {"task": loss(p, batch), "decay": sum(x.square().sum() for x in p)},
        alphas={"decay": 0.01},
    )
    found.gradients["decay"]  # below 0: more decay would lower the outer loss
    ```
    """
    _check_arguments(parameters, alphas, solver, hessian, relative_step)
    average = average or (lambda tensor: tensor)
    weights = WholeWeights(parameters, average)
    return hypergradient(weights, outer_loss, inner_losses, alphas, solver, hessian, average, relative_step)


def hypergradient(
    weights: Weights,
    outer_loss: Callable[[Any], torch.Tensor],
    inner_losses: Callable[[Any], Mapping[str, torch.Tensor]],
    alphas: Mapping[str, float],
    solver: Solver,
    hessian: str,
    average: Callable[[torch.Tensor], torch.Tensor],
    relative_step: float | None,
) -> ImplicitGradient:
    """[`implicit_gradient`] at weights that lie anywhere; the losses are functions of what `weights.at` gives.

    Weights that are in shards have no `"exact"` Hessian, and a solver is given this process's part of every vector.
    """
    with torch.autocast(weights.theta_P.device.type, enabled=False):
        losses = _Losses(weights, outer_loss, inner_losses, alphas)
        outer, g_P = losses.outer()
        outer, g_P = average(outer), weights.mean(g_P)
        products = _Products(
            _Exact(losses) if hessian == "exact" else _FiniteDifference(losses, relative_step), weights, average
        )
        found = solver.solve(lambda p_P: products(p_P)[0], g_P)
        v_P, solved = (found.v_P, found.is_solved) if isinstance(found, Solution) else (found, None)
        product_P, slopes_K = products(v_P)
        norm = weights.norm(g_P)
        residual = torch.where(norm == 0, 0.0, weights.norm(product_P - g_P) / norm)
        slopes_K = slopes_K + 0 * outer  # NaN where it is not finite
        gradients = dict(zip(alphas, (slopes_K[0] - slopes_K[1:]).unbind(), strict=True))
        return ImplicitGradient(gradients, outer, residual, losses.cost, solved)


class _Products:
    """Means over the processes of H v and of v's slopes; the last are kept, which a solver may have checked v by."""

    def __init__(self, products: Callable, weights: Weights, average: Callable):
        self._products, self._weights, self._average = products, weights, average
        self._last: tuple[Any, Any] = (None, None)

    def __call__(self, v_P: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        if self._last[0] is not v_P:
            product_P, slopes_K = self._products(v_P)
            self._last = v_P, (self._weights.mean(product_P), self._average(slopes_K))
        return self._last[1]


class _Losses:
    """This process's losses and their gradients by one flat vector of weights, and what they have cost."""

    def __init__(self, weights, outer_loss, inner_losses, alphas):
        self.weights, self.theta_P = weights, weights.theta_P
        self.cost = 0.0
        self.names = (TASK, *alphas)
        shares = (1 - math.fsum(alphas.values()), *alphas.values())
        self.weights_K = torch.stack([self.theta_P.new_full((), share) for share in shares])  # no copy to wait for
        self._outer_loss, self._inner_losses = outer_loss, inner_losses

    def outer(self) -> tuple[torch.Tensor, torch.Tensor]:
        """The outer loss at the parameters, and its gradient `(P,)`."""
        self.cost += 3
        with torch.enable_grad():
            point_P = self.theta_P.clone()
            loss = self._outer_loss(self.weights.at(point_P))
            _check_loss("outer_loss", loss)
            return loss.detach().clone(), self._gradient("outer_loss", loss, point_P)

    def inner(self, point_P: torch.Tensor, weights_K: torch.Tensor, create_graph: bool = False):
        """The inner losses `(K,)` at a point, and the gradient `(P,)` of their weighted sum."""
        self.cost += 3
        with torch.enable_grad():
            losses = self._inner_losses(self.weights.at(point_P))
            if set(losses) != set(self.names):
                raise ValueError(
                    f"inner_losses gives {sorted(losses)}, and the alphas are of {list(self.names[1:])}: it must give "
                    f"'{TASK}' and a loss for each alpha, no other."
                )
            for name in self.names:
                _check_loss(f"inner_losses['{name}']", losses[name])
            losses_K = torch.stack([losses[name] for name in self.names])
            weighted = losses_K @ weights_K.to(losses_K.dtype)
            name = "the weighted sum of inner_losses"
            return losses_K.detach(), self._gradient(name, weighted, point_P, create_graph)

    def _gradient(self, name: str, loss: torch.Tensor, point_P: torch.Tensor, create_graph: bool = False):
        found_P = self.weights.gradient(loss, point_P, create_graph) if loss.requires_grad else None
        if found_P is None:
            raise ValueError(
                f"{name} does not depend on the parameters that it is given: compute it with those, as "
                "`torch.func.functional_call(model, dict(zip(names, parameters)), ...)` does, and detach nothing."
            )
        return found_P


class _FiniteDifference:
    """Directional derivatives by the losses and gradients at two points around the parameters."""

    def __init__(self, losses: _Losses, relative_step: float | None):
        self._losses = losses
        self._is_default = relative_step is None
        norm = losses.weights.norm(losses.theta_P)
        share = _default_step(norm.dtype) if relative_step is None else relative_step
        self._distance = share * torch.where(norm == 0, 1.0, norm)

    def __call__(self, v_P: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """H v `(P,)`, and v's product `(K,)` with the gradient of every inner loss."""
        theta_P, weights_K = self._losses.theta_P, self._losses.weights_K
        norm = self._losses.weights.norm(v_P)
        move_P = v_P * (self._distance / norm.clamp(min=torch.finfo(norm.dtype).tiny))  # v = 0 moves nothing
        ahead_K, ahead_P = self._losses.inner(theta_P + move_P, weights_K)
        if self._is_default and torch.finfo(ahead_K.dtype).eps > torch.finfo(theta_P.dtype).eps:
            raise ValueError(
                f"the inner losses are {ahead_K.dtype} and the parameters {theta_P.dtype}, whose default step would drown "
                f"in the losses' rounding: compute them in {theta_P.dtype}, or pass "
                f"relative_step={_default_step(ahead_K.dtype):.1e}."
            )
        behind_K, behind_P = self._losses.inner(theta_P - move_P, weights_K)
        per_v = norm / (2 * self._distance)
        nan_if_any = 0 * (ahead_K + behind_K).sum()  # in all losses, where one is not finite
        return (ahead_P - behind_P) * per_v, (ahead_K - behind_K) * per_v + nan_if_any


class _Exact:
    """The same derivatives by a backward pass through the gradient, whose graph is built once."""

    def __init__(self, losses: _Losses):
        self._losses = losses
        self._point_P = losses.theta_P.clone()
        self._weights_K = losses.weights_K.clone().requires_grad_()
        self._losses_K, self._gradient_P = losses.inner(self._point_P, self._weights_K, create_graph=True)

    def __call__(self, v_P: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """H v `(P,)`, and v's product `(K,)` with the gradient of every inner loss: sum_k w_k (v^T grad L_k) by w."""
        self._losses.cost += 6
        inputs, options = (self._point_P, self._weights_K), {"retain_graph": True, "materialize_grads": True}
        try:
            product_P, slopes_K = torch.autograd.grad(self._gradient_P, inputs, v_P, **options)
        except RuntimeError as error:
            raise RuntimeError(
                f"hessian='exact' could not go back through the gradient ({error}). Fused attention kernels have no second "
                "derivative: use attn_implementation='eager', or hessian='finite_difference'."
            ) from error
        return product_P, slopes_K + 0 * self._losses_K.sum()  # NaN in all where one is not finite


def _default_step(dtype: torch.dtype) -> float:
    return 0.01 * torch.finfo(dtype).eps ** (1 / 3)


def _check_loss(name: str, loss: torch.Tensor) -> None:
    if loss.ndim != 0 or loss.dtype not in PRECISIONS:
        raise ValueError(
            f"{name} gives {loss.dtype} {shape_of(loss)}: it must be a scalar, such as a mean over the batch, in float32 or "
            "float64, as half precision is too coarse for differences."
        )


def _check_arguments(parameters, alphas, solver, hessian, relative_step) -> None:
    kinds = sorted({f"{parameter.dtype} on {parameter.device}" for parameter in parameters})
    if len(kinds) != 1 or parameters[0].dtype not in PRECISIONS:
        raise ValueError(
            f"the {len(parameters)} parameters are of {kinds}: pass at least one, all float32 or all float64 and on one "
            "device; half precision is too coarse for differences."
        )
    if not alphas or TASK in alphas:
        raise ValueError(f"alphas={dict(alphas)}: give one weight for every term, and none for '{TASK}', the rest.")
    check_weights(alphas)
    if isinstance(solver, (AdamDiagonal, ConjugateGradient)) and solver.diagonal is not None:
        for index, (diagonal, parameter) in enumerate(zip_longest(solver.diagonal, parameters)):
            if diagonal is None or parameter is None or diagonal.shape != parameter.shape:
                raise ValueError(
                    f"diagonal {index} is {shape_of(diagonal)}, and parameter {index} {shape_of(parameter)}: pass "
                    "adam_diagonal(optimizer, parameters) of the same parameters."
                )
    check_choice("hessian", hessian, HESSIANS)
    if relative_step is not None:
        check_positive("relative_step", relative_step)
        if hessian == "exact":
            raise ValueError(f"relative_step={relative_step} is for finite differences: hessian='exact' takes none.")
