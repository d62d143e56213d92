"""Solvers of H v = g for a hypergradient, from the crudest to the most exact.

Shapes: P parameters, all flattened into one vector.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch

from hf_colearn.utils.checks import check_positive


Product = Callable[[torch.Tensor], torch.Tensor]


class Solver(Protocol):
    """Approximates v = H^-1 g, without waiting for the device."""

    def solve(self, product: Product, g_P: torch.Tensor) -> torch.Tensor:
        """v `(P,)` by the outer gradient g `(P,)` and `product`, which gives H p `(P,)` for a direction p `(P,)`."""


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
    r"""Solves \\((H + \lambda I) v = g\\) in a fixed number of Hessian products (Rajeswaran et al., NeurIPS 2019).

    The Hessian of a network is not positive definite: at the first direction p with \\(p^T (H + \lambda I) p \le 0\\) the
    solution stays as it is, with v = 0 and a residual of 1 where that is the very first one. More damping goes further.

    Args:
        damping (`float`, *optional*, defaults to 1e-3): \\(\lambda\\), 0 or more, in units of H. It bounds v by
            \\(|g| / \lambda\\) where H is positive, and costs accuracy in directions of less curvature than that.
        iterations (`int`, *optional*, defaults to 10): The Hessian products; all are spent, whenever it converges,
            because asking would wait for the device.
        tolerance (`float`, *optional*, defaults to 1e-3): Relative to \\(|g|\\), the norm of the residual below which
            the solution stays as it is.
    """

    damping: float = 1e-3
    iterations: int = 10
    tolerance: float = 1e-3

    def __post_init__(self):
        for name in ("damping", "tolerance"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name}={getattr(self, name)}: choose 0 or a positive number.")
        if self.iterations < 1:
            raise ValueError(f"iterations={self.iterations}: choose 1 or more, or the solver Identity.")

    def solve(self, product: Product, g_P: torch.Tensor) -> torch.Tensor:
        v_P, residual_P, p_P = torch.zeros_like(g_P), g_P, g_P
        square = residual_P @ residual_P
        goal = self.tolerance**2 * square
        active = torch.ones_like(square, dtype=torch.bool)
        for _ in range(self.iterations):
            product_P = product(p_P) + self.damping * p_P
            curvature = p_P @ product_P
            active = active & ~(square < goal) & ~(curvature <= 0)  # NaN stays active, so that v tells of it
            step = torch.where(active, square / curvature, 0.0)
            v_P = v_P + step * p_P
            residual_P = residual_P - step * product_P
            new_square = residual_P @ residual_P
            p_P = torch.where(active, residual_P + new_square / square * p_P, p_P)
            square = new_square
        return v_P


def adam_diagonal(optimizer: torch.optim.Optimizer, parameters: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    r"""\\(lr / (\sqrt{\hat v} + \epsilon)\\) from the state of Adam or AdamW, with \\(\hat v\\) corrected for its start.

    Zero for weights whose gradients were zero or missing so far, such as the embeddings of words that were not seen:
    training does not move them, and \\(lr / \epsilon\\) would drown all others. The optimizer is torch's Adam or AdamW,
    AMSGrad too, after a step; the parameters are its own, and what is returned has their shapes.
    """
    name = type(optimizer).__name__
    group_of = {id(parameter): group for group in optimizer.param_groups for parameter in group["params"]}
    diagonal = []
    for index, parameter in enumerate(parameters):
        if id(parameter) not in group_of:
            raise ValueError(f"parameter {index} {shape_of(parameter)} is not one that this {name} optimizes.")
        group, state = group_of[id(parameter)], optimizer.state.get(parameter, {})
        if not state:
            diagonal.append(torch.zeros_like(parameter))
            continue
        if not {"exp_avg_sq", "step"} <= state.keys() or not {"betas", "eps"} <= group.keys():
            raise ValueError(
                f"{name} has no second moments of the gradients for parameter {index} {shape_of(parameter)}, only "
                f"{sorted(state)}: use torch's Adam or AdamW, or another solver."
            )
        second = state["max_exp_avg_sq" if group["amsgrad"] else "exp_avg_sq"]
        unbiased = second / (1 - group["betas"][1] ** state["step"])
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
