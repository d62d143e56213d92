"""How exact conjugate gradients make a hypergradient, and at how many Hessian products: `python tests/benchmarks/solvers.py`.

The quadratics have an explicit Hessian of a known spectrum, so the hypergradient has a closed form.
"""

import itertools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from hf_colearn.alpha.hypergradient import ImplicitGradient, implicit_gradient
from hf_colearn.alpha.solvers import ConjugateGradient, Solver


SIZE = 200
CONDITIONS = (10, 1e3, 1e5)
SPECTRA = {
    "log": lambda condition: np.geomspace(1 / condition, 1, SIZE),
    "linear": lambda condition: np.linspace(1 / condition, 1, SIZE),
}
ALPHA = 0.5


@dataclass
class Quadratic:
    """L_task = th' H th and L_gap = c' th, so that H is the Hessian of their mean; th is the mean's minimum.

    L_outer = |th - goal|^2 / 2 with a random gradient g there. The gradient of the gap minus that of the task is
    d = c - 2 H th = 2 c, and the hypergradient -g' H^-1 d.
    """

    hessian: np.ndarray
    seed: int

    def __post_init__(self):
        self.g, self.c = np.random.default_rng([self.seed, 1]).normal(size=(2, SIZE))
        self.expected = -2 * self.g @ np.linalg.solve(self.hessian, self.c)

    def solve(self, solver: Solver, dtype: torch.dtype = torch.float64, hessian: str = "exact") -> ImplicitGradient:
        """The hypergradient of the gap's alpha."""
        minimum = -np.linalg.solve(self.hessian, self.c) / 2
        theta, goal, c, matrix = (
            torch.tensor(x, dtype=dtype) for x in (minimum, minimum - self.g, self.c, self.hessian)
        )
        return implicit_gradient(
            [theta],
            lambda p: (p[0] - goal).square().sum() / 2,
            lambda p: {"task": p[0] @ matrix @ p[0], "gap": c @ p[0]},
            {"gap": ALPHA},
            solver,
            hessian,
        )

    def error(self, found: ImplicitGradient) -> float:
        """Relative, of the hypergradient; above 1 where the sign is wrong."""
        return abs(found.gradients["gap"].item() / self.expected - 1)


def dense(spectrum: str, condition: float, seed: int) -> Quadratic:
    """A Hessian with random eigenvectors."""
    vectors = np.linalg.qr(np.random.default_rng(seed).normal(size=(SIZE, SIZE)))[0]
    matrix = vectors * SPECTRA[spectrum](condition) @ vectors.T
    return Quadratic((matrix + matrix.T) / 2, seed)


def scaled(condition: float, seed: int) -> Quadratic:
    """A Hessian of condition 10 but for the scales of its weights, whose curvatures span the condition."""
    scale = np.random.default_rng([seed, 2]).permutation(np.geomspace(condition**-0.5, 1, SIZE))
    return Quadratic(scale[:, None] * dense("log", 10, seed).hessian * scale, seed)


def diagonal_of(quadratic: Quadratic, dtype: torch.dtype = torch.float64) -> list[torch.Tensor]:
    """Adam's, where the gradients' noise has the Hessian for its covariance."""
    return [torch.tensor(1e-3 / np.sqrt(np.diag(quadratic.hessian)), dtype=dtype)]


def row(name: str, problems: list[Quadratic], solve: Callable[[Quadratic], ImplicitGradient], graph: int) -> str:
    """A line of the table; the graph of an exact Hessian costs 3."""
    found = [(one, solve(one)) for one in problems]
    solved = [one.error(result) for one, result in found if result.solved]
    left = [one.error(result) for one, result in found if not result.solved]
    products = [(result.cost - 3 - graph) / 6 for _, result in found]
    solved_error, left_error = (f"{100 * max(errors):.2g} %" if errors else "" for errors in (solved, left))
    wrong = sum(error > 1 for error in solved)
    count = f"{np.median(products):.0f} | {max(products):.0f}"
    return f"| {name} | {len(solved)} of {len(found)} | {count} | {solved_error} | {wrong} | {left_error} |"


def main(seeds: int = 20) -> None:
    torch.set_num_threads(1)
    print(
        "| Hessian | precision | budget | solved | products, median | most | error | wrong signs | error, not solved |"
    )
    print("|---|---|---|---|---|---|---|---|---|")
    budget = ConjugateGradient().iterations
    for precision, dtype, hessian, most in (
        ("float64, exact", torch.float64, "exact", budget),
        ("float64, exact", torch.float64, "exact", 1000),
        ("float32, exact", torch.float32, "exact", budget),
        ("float32, differences", torch.float32, "finite_difference", budget),
    ):
        for spectrum, condition in itertools.product(SPECTRA, CONDITIONS):
            problems = [dense(spectrum, condition, seed) for seed in range(seeds)]
            solver = ConjugateGradient(iterations=most)
            name = f"{spectrum}, condition {condition:g} | {precision} | {most}"
            graph = 3 if hessian == "exact" else 0
            print(row(name, problems, lambda one: one.solve(solver, dtype, hessian), graph), flush=True)  # noqa: B023
    for condition, is_plain in itertools.product(CONDITIONS, (True, False)):
        problems = [scaled(condition, seed) for seed in range(seeds)]
        name = f"scales, {condition:g}{'' if is_plain else ', by the diagonal'} | float64, exact | {budget}"
        solve = lambda one: one.solve(ConjugateGradient(diagonal=None if is_plain else diagonal_of(one)))  # noqa: B023, E731
        print(row(name, problems, solve, 3), flush=True)


if __name__ == "__main__":
    main()
