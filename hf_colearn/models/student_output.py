"""What a student returns; travels with every checkpoint. Shapes: as in `student.py`."""

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
        hidden_states, attentions (`tuple[torch.FloatTensor]`, *optional*): The backbone's, where they are asked for.
        training_outputs (`dict[str, torch.FloatTensor]`, *optional*): Of every training head, `(B, out_features)`.
    """

    loss: torch.Tensor | None = None
    logits: torch.FloatTensor | None = None
    latents: torch.FloatTensor | None = None
    hidden_states: tuple[torch.FloatTensor, ...] | None = None
    attentions: tuple[torch.FloatTensor, ...] | None = None
    training_outputs: dict[str, torch.Tensor] | None = None
