"""The hooks of co-learning beside those of transformers' callbacks."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from transformers import TrainerCallback


if TYPE_CHECKING:  # the rooms above
    from hf_colearn.objectives.objective import CoLearningBatch


class CoLearningCallback(TrainerCallback):
    """A [`~transformers.TrainerCallback`] that also sees outputs and terms, adds metrics to the logs and has a state.

    Pass it in the `callbacks` of [`CoLearningTrainer`]; every [`Alpha`] is one, too. Every hook has a default that does
    nothing. `outputs` and terms are on the device: a hook that reads their values makes the host wait in every step, so
    collect tensors in `on_outputs` and read them in `metrics`.

    An object may be used for several runs, of one trainer or of several in turn. Every run that does not resume begins with
    the state that the object had when it was first given to a trainer; what is not a part of it, such as sums for the next
    log, is set in `on_train_begin`, as in the example.

    Example:

    ```python
    >>> from hf_colearn import CoLearningCallback

    >>> class LatentNorm(CoLearningCallback):
    ...     def on_train_begin(self, args, state, control, **kwargs):
    ...         self.total, self.steps = 0.0, 0
    ...
    ...     def on_outputs(self, outputs, batch, model, training):
    ...         if training:
    ...             self.total, self.steps = self.total + outputs["latents"].detach().norm(dim=1).mean(), self.steps + 1
    ...
    ...     def metrics(self, training):
    ...         if not training or not self.steps:
    ...             return {}
    ...         found, self.total, self.steps = {"latent_norm": float(self.total / self.steps)}, 0.0, 0
    ...         return found
    ```
    """

    initial_state: dict[str, Any] | None = None  # set by the trainer: what every run that does not resume begins with

    def setup(self, trainer: Any) -> None:
        """Called when the callback is added to a trainer, and again before each of its runs, which may be of another model or
        training set: the place to refuse what does not fit."""

    def release(self, trainer: Any) -> None:
        """Called when another alpha takes its place in a trainer: undoes what `setup` changed there."""

    def on_inputs(
        self, inputs: dict[str, Any], batch: "CoLearningBatch", model: torch.nn.Module
    ) -> tuple[dict[str, Any], "CoLearningBatch"]:
        """Called in training before the forward of a micro-batch, with what the model is to be given, labels among it, and
        what the objective is to be told; where there is an objective, or a model of ours.

        Returns:
            `tuple[dict, CoLearningBatch]`: What to go on with: inputs may be masked, say, and the batch told more
            (`dataclasses.replace`).
        """
        return inputs, batch

    def on_outputs(
        self, outputs: Mapping[str, Any], batch: "CoLearningBatch", model: torch.nn.Module, training: bool
    ) -> None:
        """Called after the model's forward of every training micro-batch and of every evaluation batch.

        In training gradients are recorded: a method that changes the gradient of an output registers its hook here. The
        model is given as it is called, wrapped for several processes.
        """

    def on_terms(self, terms: Mapping[str, torch.Tensor]) -> Mapping[str, torch.Tensor] | None:
        """Called in training with the losses of a micro-batch, `"task"` and the objective's terms, before alpha weighs them;
        without an objective the task's alone.

        Returns:
            `Mapping[str, torch.Tensor]` or None: Scalars of the same names to go on with; None for those given.
        """

    def on_gradients(self, model: torch.nn.Module) -> None:
        """Called once an optimizer step, when the gradients of all its micro-batches are there, averaged over the processes,
        and before they are clipped; `model` is the one within wrappers."""

    def group_parameters(self, optimizer: torch.optim.Optimizer, model: torch.nn.Module) -> None:
        """Called when Trainer has made its optimizer: the place to split its parameter groups, each of which a schedule of
        learning rates then follows."""

    def before_save(self) -> None:
        """Called on all processes before a checkpoint is written, in which only the main process's state is kept: the place
        of a collective that brings together what the processes know."""

    def metrics(self, training: bool) -> dict[str, float]:
        """What to add to a log of training, or of an evaluation, whose prefix is put before the names; a collective."""
        return {}

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint must hold to go on from here: plain values and tensors."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores what `state_dict` returned, before a resumed run goes on."""
