"""The mean loss of every task between two logs of a run on unpaired data."""

import torch

from hf_colearn.models.lora import base_model
from hf_colearn.training.counts import TASK
from hf_colearn.utils.callback import CoLearningCallback
from hf_colearn.utils.distributed import mean_over_processes


class TaskLosses(CoLearningCallback):
    """Adds `loss_{task}` to the logs of training, of every task that had labels since the last log: the mean over them, of all
    processes, times the task's weight in the model. The trainer adds it to runs on [`UnpairedBatches`].

    The sums stay on the device until they are logged.
    """

    def setup(self, trainer):
        self._tasks = getattr(base_model(trainer.model), "tasks", ())
        self._sums_2K: torch.Tensor | None = None  # of the losses of all labels, and of the labels

    def on_train_begin(self, args, state, control, **kwargs):
        self._sums_2K = None

    def on_outputs(self, outputs, batch, model, training):
        loss, mean_counts_K = outputs.get("loss"), batch.step_counts.get(TASK)
        if not training or loss is None or mean_counts_K is None or batch.labelled is None or not self._tasks:
            return
        place = self._tasks.index(outputs["task"])
        if self._sums_2K is None:
            self._sums_2K = torch.zeros(2, len(self._tasks), device=loss.device)
        self._sums_2K[0, place] += loss.detach().float().reshape(()) * mean_counts_K[place]
        self._sums_2K[1, place] += batch.labelled.sum()

    def metrics(self, training):
        if not training or self._sums_2K is None:
            return {}
        losses_K, counts_K = mean_over_processes(self._sums_2K)
        self._sums_2K = None
        means = zip(self._tasks, (losses_K / counts_K).tolist(), strict=True)  # NaN of no label
        return {f"loss_{task}": mean for task, mean in means if mean == mean}
