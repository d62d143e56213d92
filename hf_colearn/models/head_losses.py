"""The losses of a multimodal model's own heads by another function than the model's, such as one with weights of classes.

Shapes: B samples, M modalities, C classes.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch

from hf_colearn.models.multimodal import CoLearningForMultimodalClassification
from hf_colearn.models.outputs import CoLearningStudentOutput


# Of what a student returns, labels, and how many of them count (a number), the mean over these.
LossFunction = Callable[[Any, torch.Tensor, torch.Tensor], torch.Tensor]


def own_function(trainer: Any) -> LossFunction | None:
    """What takes the place of the model's loss in a trainer: a function of the user's, or Trainer's label smoothing."""
    if trainer.compute_loss_func is not None:
        return lambda outputs, labels, count: trainer.compute_loss_func(outputs, labels, num_items_in_batch=count)
    return (
        None if trainer.label_smoother is None else lambda outputs, labels, _: trainer.label_smoother(outputs, labels)
    )


def head_losses(
    model: CoLearningForMultimodalClassification,
    outputs: Mapping[str, Any],
    labels: torch.Tensor,
    function: LossFunction,
    counts_M: torch.Tensor,
) -> torch.Tensor:
    """The heads' losses of a batch, `(M,)`, each over the samples that have its modality; 0 where no label counts.

    Args:
        model ([`CoLearningForMultimodalClassification`]): Whose outputs these are.
        outputs (`Mapping[str, Any]`): See [`~hf_colearn.models.outputs.CoLearningMultimodalOutput`].
        labels (`torch.Tensor` of shape `(B,)` or `(B, C)`): Of all samples.
        function (`Callable`): Is called with every head's outputs and the labels of the samples that have its modality.
        counts_M (`torch.Tensor` of shape `(M,)`): How many labels of each modality's samples count.
    """
    mask_BM, losses = outputs.get("modality_mask"), []
    for index, (name, encoder) in enumerate(model.encoders.items()):
        z_BD, logits_BC = outputs["modality_latents"][name], outputs["modality_logits"][name]
        if model.heads_are_probes and model.training:
            logits_BC = encoder.classifier(z_BD.detach().to(encoder.dtype))
        rows = slice(None) if mask_BM is None else mask_BM[:, index].nonzero().squeeze(1)
        if isinstance(rows, torch.Tensor) and not len(rows):
            losses.append(logits_BC.new_zeros((), dtype=torch.float32))
            continue
        head = CoLearningStudentOutput(logits=logits_BC[rows], latents=z_BD[rows])
        try:
            loss = function(head, labels[rows], counts_M[index].clamp(min=1)).mean()
        except (AttributeError, KeyError) as error:
            raise ValueError(
                f"the loss function failed for the head of '{name}' ({type(error).__name__}: {error}), for which it is given "
                "what a student returns, logits and latents: let it read these alone, it is called for every head."
            ) from error
        losses.append(torch.where(counts_M[index] > 0, loss, 0).float())
    return torch.stack(losses)


def share_of_heads(
    model: CoLearningForMultimodalClassification, losses_M: torch.Tensor, counts_M: torch.Tensor
) -> torch.Tensor:
    """What the heads add to the task's loss, as in the model's own: the mean over those that have a label, weighted; of probes
    the gradient alone."""
    mean = losses_M.sum() / (counts_M > 0).sum().clamp(min=1)
    return mean - mean.detach() if model.heads_are_probes else model.config.modality_loss_weight * mean


def heads_learn(model: CoLearningForMultimodalClassification) -> bool:
    """Whether the heads have a loss now; as probes they have none in evaluation mode."""
    return model.training if model.heads_are_probes else bool(model.config.modality_loss_weight)
