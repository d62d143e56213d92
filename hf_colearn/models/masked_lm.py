"""The student of texts that predicts masked tokens.

This file travels with every checkpoint, see [`~hf_colearn.models.student_base`]. Shapes: B inputs, T tokens, V tokens of the
vocabulary, D latent width.
"""

import os
from typing import Any

import torch
from transformers import AutoModelForMaskedLM, PreTrainedConfig

from .configuration import CoLearningStudentConfig
from .heads import task_loss
from .student import CoLearningForSequenceClassification


_CLASSES = "single_label_classification"  # of a token, which are the tokens of the vocabulary


class CoLearningForMaskedLM(CoLearningForSequenceClassification):
    """A student of texts that predicts masked tokens; see [`CoLearningStudent.from_backbone`].

    It is the masked language model of transformers, with its own head and with tied weights where that has them, and beside it
    the latents of its encoder: `latents` `[B, D]`, and with `dense=True` those of all tokens. `to_transformers()` gives the
    masked language model without them.

    `forward` takes what that of a [`CoLearningForSequenceClassification`] does, with `labels` `(B, T)`: the tokens that were
    masked, -100 elsewhere, as [`~transformers.DataCollatorForLanguageModeling`] makes them. The loss is their mean
    cross-entropy.

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
