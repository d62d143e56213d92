"""The student of texts that predicts masked tokens.

This file travels with every checkpoint, see [`~hf_colearn.models.student_base`]. Shapes: B inputs, T tokens, V tokens of the
vocabulary, D latent width.
"""

import os
from typing import Any

import torch
from transformers import AutoModelForMaskedLM, PreTrainedConfig
from transformers.utils import can_return_tuple

from .configuration import CoLearningStudentConfig
from .heads import task_loss
from .outputs import CoLearningStudentOutput
from .student_base import CoLearningStudent


_CLASSES = "single_label_classification"  # of a token, which are the tokens of the vocabulary


class CoLearningForMaskedLM(CoLearningStudent):
    """A student of texts that predicts masked tokens; see [`CoLearningStudent.from_backbone`].

    It is the masked language model of transformers, with its own head and with tied weights where that has them, and beside it
    the latents of its encoder: `latents` `[B, D]`, and with `dense=True` those of all tokens. `to_transformers()` gives the
    masked language model without them.

    Raises:
        ValueError: If the head is another one than `"auxiliary"`, or classes are given.

    Example:

    ```python
    >>> from transformers import BertConfig
    >>> from hf_colearn import CoLearningForMaskedLM

    >>> sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}
    >>> student = CoLearningForMaskedLM.from_backbone(
    ...     BertConfig(vocab_size=100, **sizes),
    ...     latent_dim=16,
    ...     dense=True,
    ...     training_heads={"vokens": {"out_features": 50, "reads": "dense_latents"}},
    ... )
    >>> type(student.to_transformers()).__name__
    'BertForMaskedLM'

    ```
    """

    _stock_class = AutoModelForMaskedLM
    input_names = ("input_ids", "attention_mask", "token_type_ids", "inputs_embeds")

    def __init__(self, config: CoLearningStudentConfig):
        if config.head != "auxiliary":
            raise ValueError(
                f"head='{config.head}' of a masked language model: its logits come from the language model's own head, so "
                "leave `head` out, or pass 'auxiliary'."
            )
        if config.problem_type not in (None, _CLASSES):
            raise ValueError(
                f"problem_type='{config.problem_type}' of a masked language model, which tells tokens apart: leave it out."
            )
        config.problem_type = _CLASSES
        super().__init__(config)

    @classmethod
    def from_backbone(
        cls,
        backbone: str | os.PathLike | PreTrainedConfig,
        latent_dim: int | None = None,
        num_labels: int | None = None,
        *,
        head: str = "auxiliary",
        **kwargs: Any,
    ) -> "CoLearningForMaskedLM":
        """As of [`CoLearningStudent`], but the head is `"auxiliary"`, and the classes are the tokens of the vocabulary."""
        given = [name for name in ("id2label", "label2id", "class_vectors") if kwargs.get(name) is not None]
        if num_labels is not None or given:
            raise ValueError(
                f"{'num_labels' if num_labels is not None else given[0]} is given to a masked language model, whose classes "
                "are the tokens of its vocabulary: leave it out."
            )
        return super().from_backbone(backbone, latent_dim, head=head, **kwargs)

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.LongTensor | None = None,
        token_type_ids: torch.LongTensor | None = None,
        inputs_embeds: torch.FloatTensor | None = None,
        labels: torch.LongTensor | None = None,
        output_hidden_states: bool | None = None,
        output_attentions: bool | None = None,
        num_items_in_batch: torch.Tensor | None = None,
        training_inputs: dict[str, torch.Tensor] | None = None,
    ) -> CoLearningStudentOutput:
        """
        Args:
            input_ids (`torch.LongTensor` of shape `(B, T)`, *optional*): As the tokenizer gives them, some of them masked.
            attention_mask (`torch.LongTensor` of shape `(B, T)`, *optional*): 1 for tokens, 0 for padding.
            token_type_ids (`torch.LongTensor` of shape `(B, T)`, *optional*): Where the backbone takes them.
            inputs_embeds (`torch.FloatTensor` of shape `(B, T, H)`, *optional*): Instead of `input_ids`.
            labels (`torch.LongTensor` of shape `(B, T)`, *optional*): The tokens that were masked, -100 elsewhere, as
                [`~transformers.DataCollatorForLanguageModeling`] makes them. The loss is their mean cross-entropy.
            num_items_in_batch (`torch.Tensor` of shape `()` or `(1,)`, *optional*): What the sum of the losses is divided
                by; by default the labels that count.
            training_inputs (`dict[str, torch.LongTensor]`, *optional*): Token ids `(B, T)` for decoders among the training
                heads, by the head's name; the trainer passes them.
        """
        inputs = {"input_ids": input_ids, "token_type_ids": token_type_ids, "inputs_embeds": inputs_embeds}
        options = (output_hidden_states, output_attentions, num_items_in_batch, training_inputs)
        return self._forward(labels, attention_mask, *options, **inputs)

    def _task_loss(self, logits_BTV: torch.Tensor, labels: torch.Tensor, num_items: Any) -> torch.Tensor:
        if labels.shape != logits_BTV.shape[:2]:
            raise ValueError(
                f"labels of shape {tuple(labels.shape)} for {tuple(logits_BTV.shape[:2])} tokens: pass a token, or -100, for "
                "each, as `DataCollatorForLanguageModeling(tokenizer)` does. A column of classes, `label`, is removed first."
            )
        return task_loss(logits_BTV.flatten(0, 1), labels.flatten(), _CLASSES, num_items)

    def label_counts(self, labels: torch.Tensor, **inputs: Any) -> torch.Tensor:
        # Tokens count one by one.
        return super().label_counts(labels.flatten(), **inputs)

    def get_output_embeddings(self):
        return self.backbone.get_output_embeddings()


CoLearningForMaskedLM._stock_class.register(CoLearningStudentConfig, CoLearningForMaskedLM)
CoLearningForMaskedLM.register_for_auto_class(CoLearningForMaskedLM._stock_class.__name__)
