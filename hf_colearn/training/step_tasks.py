"""What an optimizer step's tasks have no use for stays as it is, on several processes, too."""

from typing import Any

from hf_colearn.models.lora import base_model
from hf_colearn.utils.callback import CoLearningCallback


class TasksOfStep(CoLearningCallback):
    """Takes the gradients away from stems and heads that no task of an optimizer step has a use for; the trainer adds it for a
    [`CoLearningForManyTasks`].

    On one process they have none. Plain DDP waits for every parameter's, so there the model gives them a gradient of 0, and an
    optimizer would move them by their momentum and decay. Batches of unpaired data are of the same task on all processes,
    so that all take away the same.
    """

    def setup(self, trainer: Any) -> None:
        self._tasks: set[str] = set()

    def on_outputs(self, outputs, batch, model, training):
        if training:
            self._tasks.add(outputs["task"])

    def on_gradients(self, model):
        for parameter in base_model(model).parameters_beside(self._tasks):
            parameter.grad = None
        self._tasks.clear()
