"""`LearnedAlpha`: the weights of the terms, learned while training by implicit differentiation."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from accelerate.optimizer import AcceleratedOptimizer
from datasets import Dataset
from transformers.utils import logging

from hf_colearn.alpha.alpha import Alpha, check_weights
from hf_colearn.alpha.hypergradient import HESSIANS, ImplicitGradient
from hf_colearn.alpha.outer_loss import OuterLoss, check_outer
from hf_colearn.alpha.outer_split import split_outer
from hf_colearn.alpha.solvers import AdamDiagonal, ConjugateGradient, Identity, Neumann, Solver, adam_diagonal
from hf_colearn.alpha.training_hypergradient import (
    check_sharded,
    owned_weights,
    training_hypergradient,
    try_outer_loss,
)
from hf_colearn.utils import distributed
from hf_colearn.utils.checks import as_number, check_choice, check_integer, check_names, check_positive


logger = logging.get_logger(__name__)

SOLVERS = ("adam", "identity", "neumann", "cg")


class LearnedAlpha(Alpha):
    r"""Alphas that follow the gradient of a loss on an *outer split*, which the weights never train on.

    Every `interval` optimizer steps, with \\(v \approx H^{-1} \nabla L_{outer}\\) at the current weights,
    \\(dL_{outer}/d\alpha_k = -v^T (\nabla L_k - \nabla L_{task})\\), and
    \\(\alpha_k \leftarrow clip(\alpha_k - \eta \, dL_{outer}/d\alpha_k)\\), by `max_step` at most. Where the alphas sum
    to more than 1 after that, all are lowered by the same amount until they do not.

    The trainer cuts the outer split off its labelled training samples, class by class, and draws one inner and one outer
    batch for every update. The model is in evaluation mode and float32 meanwhile, and nothing of the run's state is touched:
    weights, gradients, random numbers. There is no gradient checkpointing in evaluation mode: where the activations of
    a batch do not fit, lower `batch_size`. The logs get `hypergradient`, `hypergradient_residual` (\\(|Hv - g|/|g|\\) on
    the inner batch; it may be above 1, v = 0 has 1) and `hypergradient_cost` (in forward passes of a batch, a backward
    pass being two).

    Conjugate gradients check what they found, and the logs get `hypergradient_solved`, 1 or 0. Where the system is not
    solved, alpha stays as it is: its gradient may be far off, and of the wrong sign. The other solvers are approximations
    by design, alpha moves by them whatever the residual is, and they log no `hypergradient_solved`. The Hessian of a
    network in training is seldom positive definite, so expect conjugate gradients to leave most of its updates out, and use
    them where the weights follow a minimum, as those of a head with weight decay do. In float32 they need
    `hessian="exact"`, as differences are too coarse for them.

    Under FSDP2 every process moves the shards that it holds, by the model's own forward and backward, and puts them back to
    the last bit; a solver of your own is given shards, too.

    The idea is the learned strategy of Yang et al. (NeurIPS 2024), section 3.3; the equations are those of implicit
    differentiation (Lorraine et al., AISTATS 2020), and the solver `"adam"` is SAMA's (Choe et al., NeurIPS 2023).

    Args:
        terms (`str`, `Sequence[str]` or `Mapping[str, float]`, *optional*, defaults to `"contrastive"`): The terms to
            weigh; a mapping gives each its initial alpha.
        initial (`float`, *optional*, defaults to 0.5): The first sum of the alphas, in equal parts, without a mapping.
        learning_rate (`float`, *optional*, defaults to 0.02): \\(\eta\\); as hypergradients do, it depends on the solver.
        interval (`int`, *optional*, defaults to 100): Optimizer steps between two updates.
        solver (`str` or one of [`~hf_colearn.alpha.solvers`], *optional*, defaults to `"adam"`): `"adam"` (the
            optimizer's own diagonal), `"identity"` or `"neumann"` (with 5 Hessian products), both scaled by the
            optimizer's learning rate at the time, or `"cg"`, a [`~hf_colearn.alpha.solvers.ConjugateGradient`] of up to
            150 Hessian products, each of 6 forward passes. Conjugate gradients are preconditioned by the optimizer's
            diagonal where it is torch's Adam or AdamW, unless they are given one.
        hessian (`str`, *optional*, defaults to `"finite_difference"`): Or `"exact"`, by double backward, which SDPA
            and flash attention do not have (build the model with `attn_implementation="eager"`).
        relative_step (`float`, *optional*): Of the finite differences, as [`~hf_colearn.alpha.hypergradient.implicit_gradient`]
            takes it; by default 5e-4 for the solver `"adam"`, whose v is spread over all weights, and its own for others.
        outer_split (`float`, `int` or [`datasets.Dataset`], *optional*, defaults to 0.1): The share or number of
            training samples to cut off; or samples of your own, which the training set must not hold.
        batch_size (`int`, *optional*): Samples over all processes in each batch; those of a micro-batch by default.
        bounds (`tuple[float, float]`, *optional*, defaults to `(0.0, 0.95)`): Every alpha is within, the first, too.
        max_step (`float`, *optional*, defaults to 0.1): The farthest that an update moves an alpha.
        seed (`int`, *optional*, defaults to 0): Draws the split and the batches.
        outer (`str` or `Callable`, *optional*, defaults to `"fused"`): The outer loss: `"fused"`, the task loss;
            `"modalities"`, the sum of the label losses of a multimodal model's heads, so that alpha serves the single
            modalities rather than a fused prediction that a strong one carries; or a function of the model's outputs and a
            [`CoLearningBatch`] that gives a scalar, a mean over the batch.

    Example:

    ```python
    trainer = CoLearningTrainer(
        model=multimodal, args=args, train_dataset=train, eval_dataset=validation,
        objective=ContrastiveAlignment(), alpha=LearnedAlpha("contrastive", interval=50),
    )
    ```
    """

    def __init__(
        self,
        terms: str | Sequence[str] | Mapping[str, float] = "contrastive",
        initial: float = 0.5,
        learning_rate: float = 0.02,
        interval: int = 100,
        solver: str | Solver = "adam",
        hessian: str = "finite_difference",
        relative_step: float | None = None,
        outer_split: float | int | Dataset = 0.1,
        batch_size: int | None = None,
        bounds: tuple[float, float] = (0.0, 0.95),
        max_step: float = 0.1,
        seed: int = 0,
        outer: OuterLoss = "fused",
    ):
        if isinstance(terms, Mapping):
            self._weights = {term: as_number("terms", alpha) for term, alpha in terms.items()}
        else:
            names = [terms] if isinstance(terms, str) else terms
            check_names("terms", names, "latent")
            self._weights = {term: as_number("initial", initial) / len(names) for term in names}
        if not self._weights:
            raise ValueError(f"terms={terms!r} names no term to weigh: pass `objective.terms`.")
        check_weights(self._weights)
        if not isinstance(bounds, Sequence) or len(bounds) != 2:
            raise ValueError(f"bounds={bounds!r} are not two numbers: pass (low, high), such as (0.0, 0.95).")
        low, high = (as_number("bounds", bound) for bound in bounds)
        if not 0 <= low < high <= 1 or low * len(self._weights) > 1:
            raise ValueError(
                f"bounds={bounds} hold no alphas of {len(self._weights)} terms: pass 0 <= low < high <= 1, with lows that "
                "sum to at most 1."
            )
        for term, alpha in self._weights.items():
            if not low <= alpha <= high:
                raise ValueError(f"initial alpha {alpha:g} of '{term}' is outside bounds={bounds}: move one of them.")
        check_positive("learning_rate", learning_rate)
        if not as_number("max_step", max_step) > 0:
            raise ValueError(f"max_step={max_step} moves no alpha: pass one above 0, such as 0.1.")
        check_integer("interval", interval, 1)
        check_integer("seed", seed)
        if isinstance(solver, str):
            check_choice("solver", solver, SOLVERS)
        check_choice("hessian", hessian, HESSIANS)
        if batch_size is not None:
            check_integer("batch_size", batch_size, 1)
        check_outer(outer)
        self.learning_rate, self.interval, self.bounds, self.seed = learning_rate, interval, (low, high), seed
        self.solver, self.hessian, self.max_step = solver, hessian, max_step
        is_spread = solver == "adam" and hessian == "finite_difference"
        self.relative_step = 5e-4 if relative_step is None and is_spread else relative_step
        self.outer_split, self.batch_size, self.outer = outer_split, batch_size, outer
        self.updates = 0
        self._initial, self._warned = dict(self._weights), False
        self._trainer: Any = None  # whose it is
        self._run: Any = None  # the state of the run that goes on
        self._cuts = WeakKeyDictionary[Any, tuple[Any, Any]]()  # by trainer: the training set, and what is left of it
        self._measured: dict[str, float] = {}

    def weights(self) -> dict[str, float]:
        return dict(self._weights)

    def setup(self, trainer: Any) -> None:
        """Cuts the outer split off the training set, unless it was done."""
        super().setup(trainer)
        check_sharded(trainer, self.hessian)
        self._trainer, whole = trainer, trainer.train_dataset
        if whole is None or (trainer in self._cuts and whole is self._cuts[trainer][1]):
            return  # evaluation alone, or a run after the first
        num_labels = getattr(getattr(trainer.model, "config", None), "num_labels", None)
        trainer.train_dataset, trainer.outer_dataset = split_outer(
            whole, trainer.eval_dataset, self.outer_split, self.seed, trainer.args.id_column, num_labels
        )
        self._cuts[trainer] = whole, trainer.train_dataset

    def release(self, trainer: Any) -> None:
        """Gives the outer split back to the training set."""
        whole, left = self._cuts.pop(trainer, (None, None))
        if left is not None and trainer.train_dataset is left:
            trainer.train_dataset, trainer.outer_dataset = whole, None

    def on_train_begin(self, args, state, control, optimizer=None, **kwargs):
        self._measured, self._warned = {}, False  # of an earlier run
        self._run, self._trainer = state, self._trainer_of(state)
        if self.solver == "adam" and not _is_adam(optimizer):
            raise ValueError(
                f"solver='adam' reads the second moments of torch's Adam or AdamW, and the optimizer is "
                f"{type(_unwrapped(optimizer)).__name__}: choose solver='neumann', 'identity' or 'cg', or one of these "
                "optimizers."
            )
        if self.outer != "fused":
            try_outer_loss(self._trainer, self.outer)

    def on_step_end(self, args, state, control, optimizer=None, **kwargs):
        if state.global_step % self.interval or optimizer is None:
            return
        if self._run is not state:
            raise ValueError(
                "this LearnedAlpha is used in another run that began while this one went on: give each an object of its own."
            )
        if self.solver in ("identity", "neumann") and not optimizer.param_groups[0]["lr"]:
            return  # what they scale by is 0 at the end of most schedules: no weight moves, whatever alpha is
        self._trainer = self._trainer_of(state)  # another one may have been given this object meanwhile
        self.update(self.measure(optimizer))

    def _trainer_of(self, state: Any) -> Any:
        for trainer in list(self._cuts):
            if trainer.state is state:
                return trainer
        raise ValueError("LearnedAlpha needs CoLearningTrainer, which gives it batches and gradients.")

    def measure(self, optimizer: torch.optim.Optimizer) -> ImplicitGradient:
        """The hypergradient at the run's current weights, on batches that are drawn for this update; a collective."""
        solver, rng = self._solver_for(optimizer), np.random.default_rng([self.seed, self.updates])
        options = (self.batch_size, self.hessian, self.relative_step, self.outer)
        return training_hypergradient(self._trainer, self.weights(), solver, rng, *options)

    def _solver_for(self, optimizer: torch.optim.Optimizer) -> Solver:
        """The solver by its name, with what it takes from the optimizer."""
        weights = list(owned_weights(self._trainer.model).values())
        solver = ConjugateGradient() if self.solver == "cg" else self.solver
        if isinstance(solver, ConjugateGradient) and solver.diagonal is None and _is_adam(optimizer):
            return replace(solver, diagonal=adam_diagonal(optimizer, weights))
        if not isinstance(solver, str):
            return solver
        if solver == "adam":
            return AdamDiagonal(adam_diagonal(optimizer, weights))
        scale = float(optimizer.param_groups[0]["lr"])
        return Identity(scale) if solver == "identity" else Neumann(scale, terms=5)

    def update(self, measured: ImplicitGradient) -> None:
        """Moves the alphas against their gradients; one that is not finite or not solved moves nothing, with a warning."""
        found = [measured.gradients[term] for term in self._weights]
        *values, residual = torch.stack([*found, measured.residual]).tolist()
        values, solved = distributed.from_main_process((values, measured.solved))
        gradients = dict(zip(self._weights, values, strict=True))
        self.updates += 1
        logged = {"": values[0]} if len(values) == 1 else {f"_{term}": gradients[term] for term in gradients}
        logged |= {"_residual": residual, "_cost": measured.cost}
        logged |= {} if solved is None else {"_solved": float(solved)}
        self._measured = {f"hypergradient{name}": value for name, value in logged.items()}
        if not all(map(math.isfinite, gradients.values())):
            logger.warning(
                f"Update {self.updates} of alpha is left out: the hypergradient is {gradients}. Look at the losses, or "
                "lower the learning rate."
            )
            return
        if solved is False:
            self._warn_of_unsolved(residual)
            return
        rate, most = self.learning_rate, self.max_step
        moved = {term: alpha - _clip(rate * gradients[term], -most, most) for term, alpha in self._weights.items()}
        self._weights = _within(moved, *self.bounds)

    def _warn_of_unsolved(self, residual: float) -> None:
        if not self._warned:
            logger.warning(
                f"Update {self.updates} of alpha is left out: the solver {self.solver!r} did not solve H v = g (|H v - g| / "
                f"|g| is {residual:.2g}), so the hypergradient may be far off. This is said once; hypergradient_solved is in "
                "the logs. Choose solver='adam' or 'neumann', which approximate; hessian='exact' in place of differences; or "
                "a ConjugateGradient with damping, a larger tolerance or more iterations."
            )
        self._warned = True

    def metrics(self, training: bool) -> dict[str, float]:
        # What the last update measured, once; nothing where there was none since.
        if not training:
            return {}
        measured, self._measured = self._measured, {}
        return measured

    def state_dict(self) -> dict[str, Any]:
        return {"weights": self.weights(), "updates": self.updates}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if set(state["weights"]) != set(self._weights):
            raise ValueError(
                f"the checkpoint weighs the terms {sorted(state['weights'])}, and this run {sorted(self._weights)}: "
                "resume with the same terms."
            )
        self._weights, self.updates = {name: float(state["weights"][name]) for name in self._weights}, state["updates"]

    def __repr__(self) -> str:
        split = len(self.outer_split) if isinstance(self.outer_split, Dataset) else self.outer_split
        return (
            f"LearnedAlpha({self._initial}, learning_rate={self.learning_rate}, interval={self.interval}, "
            f"solver={self.solver!r}, hessian='{self.hessian}', outer_split={split}, bounds={self.bounds}, "
            f"max_step={self.max_step}, outer={self.outer!r})"
        )


def _within(alphas: Mapping[str, float], low: float, high: float) -> dict[str, float]:
    """The nearest alphas within the bounds whose sum is at most 1 (Euclidean projection, the shift by bisection)."""

    def shifted(by: float) -> dict[str, float]:
        return {term: _clip(alpha - by, low, high) for term, alpha in alphas.items()}

    if sum(shifted(0.0).values()) <= 1.0:
        return shifted(0.0)
    enough, too_little = max(alphas.values()) - low, 0.0
    for _ in range(60):
        middle = (enough + too_little) / 2
        if sum(shifted(middle).values()) > 1.0:
            too_little = middle
        else:
            enough = middle
    return shifted(enough)


def _unwrapped(optimizer: Any) -> Any:
    return optimizer.optimizer if isinstance(optimizer, AcceleratedOptimizer) else optimizer


def _is_adam(optimizer: Any) -> bool:
    return isinstance(_unwrapped(optimizer), (torch.optim.Adam, torch.optim.AdamW))


def _clip(value: float, low: float, high: float) -> float:
    return min(max(value, low), high)
