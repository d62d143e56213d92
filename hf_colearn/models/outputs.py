"""What the models return; travels with every checkpoint.

Shapes: B samples, M modalities, D latent width, F width of the fused latent, C classes.
"""

from dataclasses import dataclass

import torch
from transformers.modeling_outputs import ModelOutput


@dataclass
class CoLearningStudentOutput(ModelOutput):
    """What a student returns.

    Args:
        loss (`torch.FloatTensor` of shape `(1,)`, *optional*): The task loss, where labels were given.
        logits (`torch.FloatTensor` of shape `(B, C)`): Before the softmax.
        latents (`torch.FloatTensor` of shape `(B, D)`): Where student and teacher meet.
        dense_latents (`torch.FloatTensor` of shape `(B, T, D)`, *optional*): Those of every position, of a dense student.
        dense_mask (`torch.BoolTensor` of shape `(B, T)`, *optional*): Which positions are no padding.
        hidden_states, attentions (`tuple[torch.FloatTensor]`, *optional*): The backbone's, where they are asked for.
        training_outputs (`dict[str, torch.FloatTensor]`, *optional*): Of every training head, `(B, out_features)`, or
            `(B, T, out_features)` where it reads the dense latents; of a decoder its tokens' logits `(B, T - 1, V)`.
    """

    loss: torch.Tensor | None = None
    logits: torch.FloatTensor | None = None
    latents: torch.FloatTensor | None = None
    dense_latents: torch.FloatTensor | None = None
    dense_mask: torch.Tensor | None = None
    hidden_states: tuple[torch.FloatTensor, ...] | None = None
    attentions: tuple[torch.FloatTensor, ...] | None = None
    training_outputs: dict[str, torch.Tensor] | None = None


@dataclass
class CoLearningMultimodalOutput(ModelOutput):
    """What a multimodal model returns.

    Args:
        loss (`torch.FloatTensor` of shape `(1,)`, *optional*): The task loss, where labels were given.
        logits (`torch.FloatTensor` of shape `(B, C)`): The fused prediction, before the softmax.
        latents (`torch.FloatTensor` of shape `(B, F)`): What the fusion gives its classifier; of `sum`, `weighted`,
            `entropy` and `mmtm` the mean latent, with the weights of the logits.
        modality_logits (`dict[str, torch.FloatTensor]`): Of every modality's own head, `(B, C)`; 0 where it is absent.
        modality_latents (`dict[str, torch.FloatTensor]`): Of every modality, `(B, D)`; 0 where it is absent.
        modality_mask (`torch.BoolTensor` of shape `(B, M)`, *optional*): What was there; None in training on all modalities.
        imputed_latents (`dict[str, torch.FloatTensor]`, *optional*): Of a model with an imputation, what every modality's
            latents `(B, D)` are imputed as from the others, without noise, be they there or not.
        joint_latents (`torch.FloatTensor` of shape `(B, H)`, *optional*): In evaluation mode, of a model with
            `imputation="autoencoder"`, the joint latents of what is there.
        subset_logits (`dict[str, torch.FloatTensor]`, *optional*): In evaluation mode the fused prediction `(B, C)` from
            every proper subset, such as `"image_audio"` of three; of more than 5 modalities from each and all but one.
        logit_scale (`torch.FloatTensor` of shape `()`, *optional*): 1 / the learned temperature, at most 100.
        labels (`torch.Tensor`, *optional*): As they were given.
        training_outputs (`dict[str, torch.FloatTensor]`, *optional*): Of every training head, `(B, out_features)`.
    """

    loss: torch.Tensor | None = None
    logits: torch.Tensor | None = None
    latents: torch.Tensor | None = None
    modality_logits: dict[str, torch.Tensor] | None = None
    modality_latents: dict[str, torch.Tensor] | None = None
    modality_mask: torch.Tensor | None = None
    imputed_latents: dict[str, torch.Tensor] | None = None
    joint_latents: torch.Tensor | None = None
    subset_logits: dict[str, torch.Tensor] | None = None
    logit_scale: torch.Tensor | None = None
    labels: torch.Tensor | None = None
    training_outputs: dict[str, torch.Tensor] | None = None


@dataclass
class CoLearningManyTasksOutput(ModelOutput):
    """What a model of many tasks returns for a batch of one of them.

    Args:
        loss (`torch.FloatTensor` of shape `()`, *optional*): The task's loss times its weight, where labels were given.
        logits (`torch.FloatTensor` of shape `(B, C)`): Before softmax or sigmoid, C being the task's number of labels.
        latents (`torch.FloatTensor` of shape `(B, D)`): What the classifier reads.
        dense_latents (`torch.FloatTensor` of shape `(B, T, D)`, *optional*): Those of every token, of a dense model.
        dense_mask (`torch.BoolTensor` of shape `(B, T)`, *optional*): Which tokens are no padding.
        task (`str`): Which task the batch is of.
        training_outputs (`dict[str, torch.FloatTensor]`, *optional*): Of every training head, as of students.
    """

    loss: torch.Tensor | None = None
    logits: torch.Tensor | None = None
    latents: torch.Tensor | None = None
    dense_latents: torch.Tensor | None = None
    dense_mask: torch.Tensor | None = None
    task: str | None = None
    training_outputs: dict[str, torch.Tensor] | None = None
