"""Calls the hooks of a run's co-learning callbacks."""

import copy
from collections.abc import Callable, Mapping
from typing import Any

import torch
from transformers.trainer_callback import CallbackHandler

from hf_colearn.balance.method import BalanceMethod
from hf_colearn.data.unpaired import UnpairedBatches
from hf_colearn.models.lora import base_model
from hf_colearn.models.many_tasks import CoLearningForManyTasks
from hf_colearn.objectives.combined import callbacks_of
from hf_colearn.objectives.objective import CoLearningBatch
from hf_colearn.training.step_tasks import TasksOfStep
from hf_colearn.training.task_losses import TaskLosses
from hf_colearn.utils.callback import CoLearningCallback


def set_up(callback: Any, trainer: Any) -> None:
    """Gives a callback that has these hooks the trainer that it was added to; leaves one of transformers alone.

    The first time, the state is kept that every run of it begins with.
    """
    if isinstance(callback, CoLearningCallback):
        callback.setup(trainer)
        if callback.initial_state is None:
            callback.initial_state = copy.deepcopy(callback.state_dict())


def own_callbacks(trainer: Any, objective: Any, balance: BalanceMethod | None) -> list[CoLearningCallback]:
    """Those that a trainer adds by itself: of unpaired data and of a model of many tasks, the parts of the objective that are
    callbacks, and the balance method."""
    found: list[CoLearningCallback] = []
    if isinstance(trainer.train_dataset, UnpairedBatches):
        found.append(TaskLosses())
    if isinstance(base_model(trainer.model), CoLearningForManyTasks):
        found.append(TasksOfStep())
    found += callbacks_of(objective)
    return found if balance is None else [*found, balance]


class Hooks:
    """The hooks of [`CoLearningCallback`], called on all callbacks of a trainer that have them, in their order."""

    def __init__(self, handler: CallbackHandler):
        self._handler = handler

    @property
    def callbacks(self) -> list[CoLearningCallback]:
        """Those of the run's callbacks that have these hooks."""
        return [callback for callback in self._handler.callbacks if isinstance(callback, CoLearningCallback)]

    def begin(self, trainer: Any) -> None:
        """Before a run: the callbacks are its trainer's, whichever used them last, and their states are the initial ones."""
        for callback in self.callbacks:
            set_up(callback, trainer)
        self.reset()

    def reset(self) -> None:
        """Gives every callback the state that it had before its first run; the states of a checkpoint come after it."""
        for callback in self.callbacks:
            if callback.initial_state:
                callback.load_state_dict(copy.deepcopy(callback.initial_state))

    def on_inputs(
        self, inputs: dict[str, Any], batch: CoLearningBatch, model: Any
    ) -> tuple[dict[str, Any], CoLearningBatch]:
        """Before a forward of a training step: what the model is given and the objective told."""
        for callback in self.callbacks:
            inputs, batch = callback.on_inputs(inputs, batch, model)
        return inputs, batch

    def on_outputs(self, outputs: Any, batch: CoLearningBatch, model: Any) -> None:
        """After a forward of a training step or of an evaluation."""
        for callback in self.callbacks:
            callback.on_outputs(outputs, batch, model, model.training)

    def observing(self, model: Any) -> Callable[..., Any]:
        """A call of the model whose outputs the callbacks see, for evaluation without labels."""

        def call(**inputs: Any) -> Any:
            outputs = model(**inputs)
            self.on_outputs(outputs, CoLearningBatch(), model)
            return outputs

        return call

    def on_terms(self, losses: Mapping[str, torch.Tensor]) -> Mapping[str, torch.Tensor]:
        """The losses of a micro-batch after every callback has seen and perhaps replaced them."""
        for callback in self.callbacks:
            losses = callback.on_terms(losses) or losses
        return losses

    def on_gradients(self, model: Any) -> None:
        """Before an optimizer step and before its clipping."""
        for callback in self.callbacks:
            callback.on_gradients(model)

    def group_parameters(self, optimizer: Any, model: Any) -> None:
        """After Trainer has made its optimizer."""
        for callback in self.callbacks:
            callback.group_parameters(optimizer, model)

    def before_save(self) -> None:
        """Before a checkpoint is written; a collective."""
        for callback in self.callbacks:
            callback.before_save()

    @property
    def balance(self) -> BalanceMethod | None:
        """The balance method among the callbacks."""
        return next((callback for callback in self.callbacks if isinstance(callback, BalanceMethod)), None)

    def metrics(self, training: bool, prefix: str = "") -> dict[str, float]:
        """What all callbacks add to a log; a collective."""
        found = [callback.metrics(training) for callback in self.callbacks]
        return {f"{prefix}{name}": value for metrics in found for name, value in metrics.items()}
