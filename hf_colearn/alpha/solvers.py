"""Solvers of H v = g for a hypergradient, from the crudest to the most exact.

Shapes: P parameters, all flattened into one vector.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import torch
from scipy.linalg import eigvalsh_tridiagonal

from hf_colearn.utils import distributed
from hf_colearn.utils.checks import check_positive
from hf_colearn.utils.sharded import local_part


Product = Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class Solution:
    """What a solver that looks at its own error returns."""

    v_P: torch.Tensor
    is_solved: bool


class Solver(Protocol):
    """Finds or approximates v = H^-1 g.

    [`Identity`], [`AdamDiagonal`] and [`Neumann`] are approximations by design: the sign and the scale of v in the
    directions that training moves in is what they are for. They return v alone and never claim to have solved anything,
    whatever the residual is. None of them waits for the device.
    """

    def solve(self, product: Product, g_P: torch.Tensor) -> torch.Tensor | Solution:
        """v `(P,)` by the outer gradient g `(P,)` and `product`, which gives H p `(P,)` for a direction p `(P,)`;
        neither is changed in place.
        """


@dataclass(frozen=True)
class Identity:
    r"""\\(v = s g\\), as if H were 1/s in every direction: the sign is what it is good for (Luketina et al., ICML 2016).

    Args:
        scale (`float`, *optional*, defaults to 1.0): s, above 0; such as the learning rate.
    """

    scale: float = 1.0

    def __post_init__(self):
        check_positive("scale", self.scale)

    def solve(self, product: Product, g_P: torch.Tensor) -> torch.Tensor:
        return self.scale * g_P


@dataclass(frozen=True)
class AdamDiagonal:
    """v = diagonal * g, the step that Adam would take along g (SAMA; Choe et al., NeurIPS 2023).

    The diagonal is one tensor a parameter, of its shape, as [`adam_diagonal`] gives.
    """

    diagonal: Sequence[torch.Tensor]

    def solve(self, product: Product, g_P: torch.Tensor) -> torch.Tensor:
        return flat(self.diagonal) * g_P


@dataclass(frozen=True)
class Neumann:
    r"""\\(v = s \sum_{k=0}^{K} (I - s H)^k g\\) (Lorraine et al., AISTATS 2020).

    Converges where s is below 2 over the largest eigenvalue of H and H is positive definite; elsewhere it grows, and the
    residual tells.

    Args:
        scale (`float`): s, above 0; such as the learning rate.
        terms (`int`): K, the Hessian products to spend; 0 is [`Identity`].
    """

    scale: float
    terms: int

    def __post_init__(self):
        check_positive("scale", self.scale)
        if self.terms < 0:
            raise ValueError(f"terms={self.terms}: the series needs 0 or more Hessian products.")

    def solve(self, product: Product, g_P: torch.Tensor) -> torch.Tensor:
        power_P, sum_P = g_P, g_P
        for _ in range(self.terms):
            power_P = power_P - self.scale * product(power_P)
            sum_P = sum_P + power_P
        return self.scale * sum_P


@dataclass(frozen=True)
class ConjugateGradient:
    r"""Solves \\((H + \lambda M) v = g\\) within a budget of Hessian products, and says whether it did.

    M is the inverse of `diagonal`, the preconditioner (1 without it): the iteration is the plain one (Hestenes & Stiefel,
    1952) for \\(M^{-1/2} H M^{-1/2}\\), and every norm below is of that system. Weights whose diagonal is 0, which the
    optimizer never moved, stay out of it. For one product more the first step is made without the diagonal, too, and the
    iteration goes on from the one of more energy \\(v^T H v\\), of which the solution has most: Adam's moments know
    curvature by its noise, and not that of a weight decay in the loss, on which a perceptron of digits needs 360 products
    with the diagonal and 22 without.

    Solved means that the relative error of v is below `tolerance`, by the estimate \\(|r| / (\theta |v|)\\): r is the
    residual of v by a product of its own, not of the recursion, and \\(\theta\\) the smallest curvature that the iteration
    has met (the smallest Ritz value). The residual alone would not tell: where H has few small eigenvalues, most of
    \\(H^{-1} g\\) may be missing at a residual of 1 %. The hypergradient's error is about that of v, and more where its
    parts cancel.

    The iteration ends when v is solved or the products are spent; at the first direction p with
    \\(p^T (H + \lambda M) p \le 0\\), as the Hessian of a network is not positive definite away from a minimum; and
    where its own residual has lost touch with that of v: the products, such as differences in float32, are then too
    coarse, and more of them make v worse. v is the last iterate that was not, and the system is not solved. The residual
    of an iterate may be above 1 on the way; its error falls nevertheless.

    The largest relative error of the hypergradient, and the products (median and most), of 20 quadratics each with 200
    weights and random eigenvectors, in float64 with exact products (`python tests/benchmarks/solvers.py`):

    | eigenvalues, condition | budget | solved | products | error |
    |---|---|---|---|---|
    | log-spaced, 10 | 150 | 20 of 20 | 16, 16 | 0.12 % |
    | log-spaced, 1e3 | 150 | 20 of 20 | 126, 129 | 0.22 % |
    | log-spaced, 1e5 | 150 | 0 of 20 | 151, 151 | |
    | log-spaced, 1e5 | 1000 | 20 of 20 | 789, 831 | 0.44 % |
    | linearly spaced, 10 | 150 | 20 of 20 | 16, 16 | 0.58 % |
    | linearly spaced, 1e3 | 150 | 20 of 20 | 72, 76 | 0.005 % |
    | linearly spaced, 1e5 | 150 | 20 of 20 | 87, 90 | 0.00001 % |
    | scales of the weights, 1e5 | 150 | 0 of 20 | 151, 151 | |
    | the same, with a diagonal | 150 | 20 of 20 | 108, 111 | 0.19 % |

    All signs of what is solved are right. In float32 exact products solve the same but for a condition of 1e5. Differences
    solve none: they are off by up to 4 % at a condition of 10 and by 18 to 70 % at 1e3 when they end.

    Args:
        damping (`float`, *optional*, defaults to 0): \\(\lambda\\) as a share of the curvature
            \\(|p^T H p| / p^T M p\\) along the first direction, which is a mean over the spectrum. It bounds v and makes
            an indefinite Hessian solvable, and it changes the question: `solved` is then about the damped system, whose
            answer differs in directions of less curvature than that.
        iterations (`int`, *optional*, defaults to 150): The most Hessian products; one more serves the last check.
        tolerance (`float`, *optional*, defaults to 1e-3): Of the relative error of v. Differences in float32 met 0.1 on a
            perceptron of digits, where the hypergradient, which averages over the errors of v, was within 0.3 %.
        diagonal (`Sequence[torch.Tensor]`, *optional*): One tensor a parameter, of its shape and 0 or more, as
            [`adam_diagonal`] gives; [`LearnedAlpha`] fills in that of the run's Adam.
    """

    damping: float = 0.0
    iterations: int = 150
    tolerance: float = 1e-3
    diagonal: Sequence[torch.Tensor] | None = field(default=None, repr=False)

    def __post_init__(self):
        for name in ("damping", "tolerance"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name}={getattr(self, name)}: choose 0 or a positive number.")
        if self.iterations < 1:
            raise ValueError(f"iterations={self.iterations}: choose 1 or more, or the solver Identity.")

    def solve(self, product: Product, g_P: torch.Tensor) -> Solution:
        run, next_check = self._first_step(product, g_P), 8
        while not run.has_ended and run.products < self.iterations:
            is_near = (
                run.estimate <= self.tolerance / 2
            )  # a half, so that the residual that is looked at is below the whole
            if run.is_checked or not (is_near or run.products >= next_check):
                run.advance()
                continue
            next_check = 2 * run.products
            run.check()
            run.has_ended |= run.error <= self.tolerance
        if not run.is_checked:
            run.check()
        return Solution(run.solution_P, run.error <= self.tolerance)

    def _first_step(self, product: Product, g_P: torch.Tensor) -> "_Iteration":
        """The iteration after its first product, with the diagonal or without it."""
        if self.diagonal is None:
            roots = [torch.ones_like(g_P)]
        else:
            diagonal_P = flat(self.diagonal)
            roots = [diagonal_P.sqrt(), (diagonal_P > 0).to(g_P.dtype)]
        runs = [_Iteration(product, root_P, root_P * g_P, self.damping) for root_P in roots]
        for run in runs:
            run.advance()
        best = max(runs, key=lambda run: run.energy)  # the diagonal where they are equal
        best.products = len(runs)
        return best


class _Iteration:
    """Conjugate gradients for R (H + damping) R v = R g, R the roots of the diagonal, and what they know of their error.

    Two numbers a product are read from the device, the same on all processes.
    """

    def __init__(self, product: Product, root_P: torch.Tensor, goal_P: torch.Tensor, damping: float):
        self._product, self._root_P, self._goal_P = product, root_P, goal_P
        self._share, self._damping = damping, 0.0
        self._v_P, self._residual_P, self._direction_P = torch.zeros_like(goal_P), goal_P, goal_P
        self._curvature = _SmallestCurvature()
        (self._square,), self._size = _read(goal_P @ goal_P), 0.0
        self._sound_norm = self._square**0.5
        self.products = 0
        self.energy = 0.0  # v' (H + damping) v, of all iterates below that of the solution
        self.solution_P = self._v_P
        self.estimate = self.error = 0.0 if self._square == 0 else math.inf  # of v, by the recursion and by a product
        self.is_checked, self.has_ended = True, self._square == 0

    def advance(self) -> None:
        """The next iterate; the end, where there is no curvature along the direction."""
        if self.has_ended:
            return
        p_P = self._direction_P
        product_P = self._root_P * self._product(self._root_P * p_P)
        self.products += 1
        curvature, length = _read(p_P @ product_P, p_P @ p_P)
        if self.products == 1:
            self._damping = self._share * abs(curvature) / length
        curvature += self._damping * length
        if not math.isfinite(curvature):
            self.solution_P, self.is_checked = self._v_P * math.nan, True
        if not 0 < curvature < math.inf:
            self.has_ended = True
            return
        step = self._square / curvature
        self.energy += step * self._square
        self._v_P = self._v_P + step * p_P
        self._residual_P = self._residual_P - step * (product_P + self._damping * p_P)
        square, length = _read(self._residual_P @ self._residual_P, self._v_P @ self._v_P)
        ratio, self._square, self._size = square / self._square, square, length**0.5
        self._direction_P = self._residual_P + ratio * p_P
        self.estimate = self._error(square**0.5, self._curvature.after(step, ratio))
        self.is_checked = False

    def check(self) -> None:
        """Looks at the residual of v itself, and starts anew from it, or ends, where it is no longer the recursion's."""
        x_P = self._root_P * self._v_P
        residual_P = self._goal_P - self._root_P * self._product(x_P) - self._damping * self._v_P
        self.products += 1
        square, gap = _read(residual_P @ residual_P, (residual_P - self._residual_P).square().sum())
        norm, is_sound = square**0.5, gap <= self._square
        self.error, self.is_checked = self._error(norm, self._curvature.value), True
        is_better = norm <= self._sound_norm / 2
        if is_sound or norm < self._sound_norm or not math.isfinite(norm):
            self.solution_P, self._sound_norm = x_P, norm
        if not is_sound:
            self._residual_P, self._direction_P, self._square = residual_P, residual_P, square
            self._curvature.restart()
            self.has_ended |= not is_better

    def _error(self, norm: float, curvature: float) -> float:
        return norm / (curvature * self._size) if norm else 0.0


class _SmallestCurvature:
    """The smallest Ritz value: of the tridiagonal matrix that conjugate gradients make of the system (Golub & Van Loan)."""

    def __init__(self):
        self.value = math.inf
        self.restart()

    def restart(self) -> None:
        """Forgets the directions and keeps the value."""
        self._steps: list[float] = []
        self._ratios: list[float] = []

    def after(self, step: float, ratio: float) -> float:
        """The value after an iteration of this step, which multiplied the squared residual by this ratio."""
        self._steps.append(step)
        self._ratios.append(ratio)
        steps, ratios = np.asarray(self._steps), np.asarray(self._ratios[:-1])
        diagonal = 1 / steps
        diagonal[1:] += ratios / steps[:-1]
        (smallest,) = eigvalsh_tridiagonal(diagonal, ratios**0.5 / steps[:-1], select="i", select_range=(0, 0))
        self.value = min(self.value, float(smallest))
        return self.value


def _read(*numbers: torch.Tensor) -> list[float]:
    """Numbers of the device on the host, exactly the same on all processes, which decide by them.

    Of shards the mean is the whole square but for one factor, of which all that conjugate gradients compute is free.
    """
    return distributed.mean_over_processes(torch.stack(numbers)).tolist()


def adam_diagonal(optimizer: torch.optim.Optimizer, parameters: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    r"""\\(lr / (\sqrt{\hat v} + \epsilon)\\) from the state of Adam or AdamW, with \\(\hat v\\) corrected for its start.

    Zero for weights whose gradients were zero or missing so far, such as the embeddings of words that were not seen:
    training does not move them, and \\(lr / \epsilon\\) would drown all others. The optimizer is torch's Adam or AdamW,
    AMSGrad too, after a step; the parameters are its own, and what is returned has their shapes, or those of their shards
    on this process.
    """
    name = type(optimizer).__name__
    group_of = {id(parameter): group for group in optimizer.param_groups for parameter in group["params"]}
    diagonal = []
    for index, parameter in enumerate(parameters):
        if id(parameter) not in group_of:
            raise ValueError(f"parameter {index} {shape_of(parameter)} is not one that this {name} optimizes.")
        group, state = group_of[id(parameter)], optimizer.state.get(parameter, {})
        if not state:
            diagonal.append(torch.zeros_like(local_part(parameter)))
            continue
        if not {"exp_avg_sq", "step"} <= state.keys() or not {"betas", "eps"} <= group.keys():
            raise ValueError(
                f"{name} has no second moments of the gradients for parameter {index} {shape_of(parameter)}, only "
                f"{sorted(state)}: use torch's Adam or AdamW, or another solver."
            )
        second = local_part(state["max_exp_avg_sq" if group["amsgrad"] else "exp_avg_sq"])
        unbiased = second / (1 - group["betas"][1] ** local_part(state["step"]))
        diagonal.append(torch.where(second > 0, group["lr"] / (unbiased.sqrt() + group["eps"]), 0.0))
    if not any(optimizer.state.get(parameter) for parameter in parameters):
        raise ValueError(
            f"{name} has no state for any of the {len(parameters)} parameters: Adam and AdamW have one after their first "
            "step; for an optimizer without second moments use another solver."
        )
    return diagonal


def flat(tensors: Sequence[torch.Tensor]) -> torch.Tensor:
    return torch.cat([tensor.detach().reshape(-1) for tensor in tensors])


def shape_of(tensor: torch.Tensor | None) -> str:
    return "missing" if tensor is None else f"of shape {tuple(tensor.shape)}"
