"""The task's loss as a mean over the labels of the whole optimizer step, whoever computes it: the model, label smoothing, or
a function of the user's."""

from collections.abc import Callable
from typing import Any

import torch

from hf_colearn.data.sample_ids import LABELS
from hf_colearn.models.heads import LEAST_COUNT
from hf_colearn.training.counts import counts_its_labels, label_counts
from hf_colearn.utils.distributed import mean_over_processes


def task_loss(
    trainer: Any,
    model: Any,
    inputs: dict[str, Any],
    of_trainer: Callable[[dict[str, Any]], tuple[torch.Tensor, Any]],
    mean_count: torch.Tensor | None = None,
) -> tuple[torch.Tensor, Any]:
    """The sum over this micro-batch's labels, divided by how many a micro-batch of the step has on average; and the outputs.

    The mean of it over micro-batches and processes is then the mean over all labels of the step. A loss that is computed as a
    mean over the micro-batch is multiplied by its share of the labels; where it has none it is 0, with a gradient of 0.

    Args:
        trainer ([`CoLearningTrainer`]): Whose model and losses these are.
        model: As it is called.
        inputs (`dict`): A batch, perhaps without labels: then the loss is the model's own, or of a student of ours 0.
        of_trainer (`Callable`): Gives Trainer's own loss of a batch, and the outputs.
        mean_count (`torch.Tensor` of shape `(K,)`, *optional*): See [`~hf_colearn.training.counts.label_counts`]; by default
            the mean over this micro-batch's processes.
    """
    labels = next((inputs[name] for name in LABELS if name in inputs), None)
    count = label_counts(trainer.model, labels, inputs)
    is_the_models = trainer.compute_loss_func is None and trainer.label_smoother is None
    is_ours = is_the_models and counts_its_labels(trainer.model)
    if count is None:
        if is_ours:
            outputs = model(**inputs)
            return 0 * outputs["logits"].float().flatten()[:1].sum(), outputs
        loss, outputs = of_trainer(inputs)
        return loss.mean(), outputs  # under DataParallel one a device
    mean_count = mean_over_processes(count.float()) if mean_count is None else mean_count
    if is_ours and trainer.args.n_gpu <= 1:
        return of_trainer({**inputs, "num_items_in_batch": mean_count})
    loss, outputs = of_trainer(inputs)
    share = count[0] / mean_count[0].clamp(min=LEAST_COUNT)
    return torch.where(count[0] > 0, loss.mean(), 0) * share, outputs  # a mean over no label is no number
