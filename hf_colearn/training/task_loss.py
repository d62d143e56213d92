"""The task's loss as a mean over the labels of the whole optimizer step, whoever computes it: the model, label smoothing, or
a function of the user's."""

from collections.abc import Callable
from typing import Any

import torch

from hf_colearn.data.sample_ids import LABELS
from hf_colearn.models.head_losses import head_losses, heads_learn, own_function, share_of_heads
from hf_colearn.models.heads import LEAST_COUNT
from hf_colearn.models.lora import base_model
from hf_colearn.models.multimodal import CoLearningForMultimodalClassification
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
    function = own_function(trainer)
    is_ours = function is None and counts_its_labels(trainer.model)
    if count is None or labels is None:
        if is_ours:
            outputs = model(**inputs)
            return 0 * outputs["logits"].float().flatten()[:1].sum(), outputs
        loss, outputs = of_trainer(inputs)
        return loss.mean(), outputs  # under DataParallel one a device
    mean_count = mean_over_processes(count.float()) if mean_count is None else mean_count
    if is_ours and trainer.args.n_gpu <= 1:
        return of_trainer({**inputs, "num_items_in_batch": mean_count})
    if function is not None and trainer.compute_loss_func is not None and "labels" in inputs:
        # As Trainer does, but with the number of this micro-batch's labels: the function gives a mean over them.
        outputs = model(**{name: value for name, value in inputs.items() if name != "labels"})
        loss = function(outputs, labels, count[0].clamp(min=1))
    else:
        loss, outputs = of_trainer(inputs)
    share = count / mean_count.clamp(min=LEAST_COUNT)
    loss = torch.where(count[0] > 0, loss.mean(), 0) * share[0]  # a mean over no label is no number
    return loss + loss_of_heads(trainer, outputs, labels, count, mean_count), outputs


def heads_need_function(trainer: Any) -> bool:
    """Whether a multimodal model's heads learn by a function of the user's, which takes the labels away from the model."""
    is_multimodal = isinstance(base_model(trainer.model), CoLearningForMultimodalClassification)
    return is_multimodal and own_function(trainer) is not None


def probes_are_whole(trainer: Any) -> None:
    """Refuses probes that learn by a function of the user's where their weights are sharded, as it calls them by itself."""
    model: Any = base_model(trainer.model)
    if trainer.sharded_by is not None and heads_need_function(trainer) and model.heads_are_probes:
        raise ValueError(
            "a loss function of your own reaches the heads of this model outside of its forward, where "
            f"{trainer.sharded_by} shards their weights: set `modality_loss_weight` above 0, or train with plain data "
            "parallelism."
        )


def loss_of_heads(
    trainer: Any, outputs: Any, labels: Any, count: torch.Tensor, mean_count: torch.Tensor | None = None
) -> torch.Tensor | float:
    """What a multimodal model's heads add to a loss by the user's function, which the model's own would hold; or else 0.

    Args:
        trainer ([`CoLearningTrainer`]): Whose model and function these are.
        outputs, labels: The model's outputs for a batch, and its labels.
        count (`torch.Tensor` of shape `(1 + M,)`): See [`~hf_colearn.training.counts.label_counts`].
        mean_count (`torch.Tensor` of shape `(1 + M,)`, *optional*): Of a micro-batch on average; by default `count`.
    """
    model, function = base_model(trainer.model), own_function(trainer)
    if function is None or not heads_need_function(trainer) or not heads_learn(model):
        return 0.0
    probes_are_whole(trainer)
    mean_count = count if mean_count is None else mean_count
    losses_M = head_losses(model, outputs, labels, function, count[1:])
    shares_M = count[1:] / mean_count[1:].clamp(min=LEAST_COUNT)
    return share_of_heads(model, losses_M * shares_M, mean_count[1:])


def evaluation_loss(
    trainer: Any, inputs: dict[str, Any], of_trainer: Callable[[dict[str, Any]], tuple[torch.Tensor, Any]]
) -> tuple[torch.Tensor, Any]:
    """The loss of an evaluation batch, Trainer's own where no head needs the user's function; and the outputs."""
    labels = next((inputs[name] for name in LABELS if name in inputs), None)
    count, function = label_counts(trainer.model, labels, inputs), own_function(trainer)
    loss, outputs = of_trainer(inputs)
    if count is None or labels is None or function is None or not heads_need_function(trainer):
        return loss, outputs
    # Trainer multiplies the loss by the number of processes, for functions that divide by the labels of all of them.
    loss = function(outputs, labels, count[0].clamp(min=1)).mean()
    return loss + loss_of_heads(trainer, outputs, labels, count), outputs
