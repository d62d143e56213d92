"""The trainer's part in learning alpha: the outer split, the batches, and one hypergradient when it is asked for."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from torch.func import functional_call
from transformers import Trainer

from hf_colearn.alpha.hypergradient import ImplicitGradient, implicit_gradient
from hf_colearn.alpha.learned import LearnedAlpha
from hf_colearn.data.sample_ids import TARGETS
from hf_colearn.data.splits import cut_validation
from hf_colearn.training.checks import LABELS
from hf_colearn.utils import distributed
from hf_colearn.utils.rng import preserve_rng_state


class BilevelTrainer(Trainer):
    """Trainer that can learn alpha; a base of [`CoLearningTrainer`], which has the objective and the collator."""

    auxiliary_objective: Any
    args: Any
    augment: Any

    def _learn_alpha(self, alpha: LearnedAlpha, train_dataset: Any) -> None:
        """Splits the training set and lets alpha measure.

        Raises:
            ValueError: If the weights are sharded, the training set is a stream, or the outer split is not apart.
        """
        shards = "DeepSpeed" if self.is_deepspeed_enabled else "FSDP" if self.is_fsdp_enabled else None
        if shards is not None:
            raise ValueError(
                f"LearnedAlpha perturbs whole weights, and {shards} shards or wraps them: train with plain data "
                "parallelism, or with a constant, heuristic or fitted alpha."
            )
        if train_dataset is None:
            return  # evaluation alone
        self.train_dataset, self.outer_dataset = split_outer(
            train_dataset, self.eval_dataset, alpha.outer_split, alpha.seed, self.args.id_column
        )
        num_labels = getattr(getattr(self.model, "config", None), "num_labels", None)
        if isinstance(alpha.outer_split, Dataset) and len(self.outer_dataset) < (num_labels or 1):
            raise ValueError(
                f"outer_split has {len(self.outer_dataset)} samples for {num_labels} classes: give it at least one of each."
            )
        alpha.measure = lambda optimizer: self._hypergradient(alpha, optimizer)

    def _hypergradient(self, alpha: LearnedAlpha, optimizer: torch.optim.Optimizer) -> ImplicitGradient:
        """d L_outer / d alpha at the current weights, from one inner and one outer batch; nothing is left changed."""
        model = self.model
        with preserve_rng_state(self.args.device), _evaluating(model), _full_precision(model, self.args.device):
            rng = np.random.default_rng([alpha.seed, alpha.updates])
            torch.manual_seed(int(rng.integers(2**31)))  # what an augmentation draws
            inner, outer = (self._draw(self.train_dataset, alpha, rng), self._draw(self.outer_dataset, alpha, rng))
            if self.augment is not None:
                inner = self._augmented(inner)
            targets = inner.pop(TARGETS, None)
            outer.pop(TARGETS, None)
            # A probe has a gradient but no part in the value of the loss, so it has none in alpha either.
            probes = {id(weight) for _, weight in getattr(model, "probe_parameters", tuple)()}
            owned = {
                name: weight
                for name, weight in model.named_parameters()
                if weight.requires_grad and id(weight) not in probes
            }
            fixed = {name: _whole(tensor) for name, tensor in _fixed(model)}

            def task(weights: Sequence[torch.Tensor], batch: Mapping[str, Any]) -> tuple[torch.Tensor, Any]:
                at = _At(model, {**fixed, **dict(zip(owned, weights, strict=True))})
                return Trainer.compute_loss(self, at, dict(batch), return_outputs=True)

            def inner_losses(weights: Sequence[torch.Tensor]) -> dict[str, torch.Tensor]:
                loss, outputs = task(weights, inner)
                return {"task": loss, **self.auxiliary_objective(outputs, targets)}

            return implicit_gradient(
                [_whole(weight) for weight in owned.values()],
                lambda weights: task(weights, outer)[0],
                inner_losses,
                alpha.weights(),
                alpha.solver_for(optimizer, list(owned.values())),
                alpha.hessian,
                distributed.mean_over_processes,
                alpha.relative_step,
            )

    def _draw(self, dataset: Any, alpha: LearnedAlpha, rng: np.random.Generator) -> dict[str, Any]:
        """This process's share of a batch that is the same however many processes share it."""
        processes = distributed.world_size()
        asked = self.args.train_batch_size * processes if alpha.batch_size is None else alpha.batch_size
        size = max(min(asked, len(dataset)) // processes, 1) * processes
        rows = rng.choice(len(dataset), size, replace=False)[distributed.rank() :: processes]
        collator = self._collator(with_targets=dataset is self.train_dataset)  # type: ignore[attr-defined]
        drawn = self._remove_unused_columns(dataset).select(rows)
        return self._prepare_input(collator([drawn[i] for i in range(len(drawn))]))

    def _augmented(self, batch: dict[str, Any]) -> dict[str, Any]:
        raise NotImplementedError  # CoLearningTrainer's


def split_outer(
    train: Any, evaluated: Any, split: float | int | Dataset, seed: int, id_column: str
) -> tuple[Dataset, Dataset]:
    """The training set without the outer split, and the outer split.

    Raises:
        ValueError: If the split is evaluated on, shares samples with the training set, or is too small for its classes.
        TypeError: If the training set is not a [`datasets.Dataset`].
    """
    if not isinstance(train, Dataset):
        raise TypeError(
            f"LearnedAlpha draws its own batches from the training set, which is a {type(train).__name__}: pass a "
            "datasets.Dataset, not a stream."
        )
    if isinstance(split, Dataset):
        inner, outer = train, split
        for name, other in (evaluated if isinstance(evaluated, dict) else {"eval_dataset": evaluated}).items():
            if other is not None and (other is split or getattr(other, "_fingerprint", None) == split._fingerprint):
                raise ValueError(
                    f"outer_split is '{name}', on which the run is evaluated: alpha would be fitted to it. Cut the outer "
                    "split from the training set, `outer_split=0.1`."
                )
        if len(split) == 0:
            raise ValueError("outer_split has no samples: pass some, or a share of the training set such as 0.1.")
    else:
        column = next((name for name in LABELS if name in train.column_names), None)
        if column is None:
            raise ValueError(
                f"outer_split={split} is cut class by class, and the training set has no column 'labels' (it has "
                f"{', '.join(train.column_names)}): name it so, or pass an outer split of your own."
            )
        try:
            inner, outer = cut_validation(train, split, seed, column)
        except ValueError as error:
            raise ValueError(
                f"outer_split={split} cannot be cut from {len(train)} training samples: {error}"
            ) from error
    if id_column in inner.column_names and id_column in outer.column_names:
        both = np.intersect1d(_ids(inner, id_column), _ids(outer, id_column))
        if len(both):
            raise ValueError(
                f"{len(both)} sample ids are in the training set and in the outer split, such as {both[0]}: alpha would be "
                "fitted to samples that the weights train on. Give every sample an id of its own, or pass an outer split "
                "without them."
            )
    return inner, outer


def _ids(dataset: Dataset, column: str) -> np.ndarray:
    return np.asarray(dataset.with_format("numpy").select_columns(column)[column][:])


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
