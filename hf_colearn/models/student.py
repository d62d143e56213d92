"""The students of images, sound and texts.

This file travels with every checkpoint, see [`~hf_colearn.models.student_base`]. Shapes: B inputs, D latent width, C
classes.
"""

from typing import Any

import torch
from transformers import (
    MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING,
    AutoModelForAudioClassification,
    AutoModelForImageClassification,
    AutoModelForSequenceClassification,
)
from transformers.utils import can_return_tuple

from .configuration import CoLearningStudentConfig
from .outputs import CoLearningStudentOutput
from .student_base import CoLearningStudent


class CoLearningForImageClassification(CoLearningStudent):
    """A student of images or videos; see [`CoLearningStudent.from_backbone`].

    With an image backbone a video's pooled features are averaged over its frames; VideoMAE, TimeSformer and ViViT take it
    whole.
    """

    _stock_class = AutoModelForImageClassification
    input_names = ("pixel_values",)

    @can_return_tuple
    def forward(
        self,
        pixel_values: torch.FloatTensor,
        labels: torch.LongTensor | None = None,
        output_hidden_states: bool | None = None,
        output_attentions: bool | None = None,
        num_items_in_batch: torch.Tensor | None = None,
        training_inputs: dict[str, torch.Tensor] | None = None,
    ) -> CoLearningStudentOutput:
        """
        Args:
            pixel_values (`torch.FloatTensor` of shape `(B, channels, height, width)` or `(B, T, channels, height, width)`):
                Images, or the T frames of videos.
            labels (`torch.Tensor` of shape `(B,)` or `(B, C)`, *optional*): See [`~hf_colearn.models.heads.task_loss`].
            num_items_in_batch (`torch.Tensor` of shape `()` or `(1,)`, *optional*): What the sum of the losses is divided
                by; by default the labels that count.
            training_inputs (`dict[str, torch.LongTensor]`, *optional*): Token ids `(B, T)` for decoders among the training
                heads, by the head's name; the trainer passes them.
        """
        options = (output_hidden_states, output_attentions, num_items_in_batch, training_inputs)
        return self._forward(labels, None, *options, pixel_values=pixel_values)


class CoLearningForAudioClassification(CoLearningStudent):
    """An audio student, of waveforms or spectrograms; see [`CoLearningStudent.from_backbone`].

    With an image backbone it takes spectrograms, the `pixel_values` of a
    [`~hf_colearn.models.spectrogram.SpectrogramFeatureExtractor`], and exports to a stock image classifier.
    """

    _stock_class = AutoModelForAudioClassification
    input_names = ("input_values", "input_features", "pixel_values", "attention_mask")

    @property
    def _takes_images(self) -> bool:
        return type(self.config.backbone_config) in MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING

    @property
    def _stock_class_of_backbone(self) -> Any:
        return AutoModelForImageClassification if self._takes_images else self._stock_class

    @property
    def _width_is_time(self) -> bool:
        return True

    def _default_pooling(self) -> str:
        return super()._default_pooling() if self._takes_images else "mean"

    @can_return_tuple
    def forward(
        self,
        input_values: torch.FloatTensor | None = None,
        input_features: torch.FloatTensor | None = None,
        pixel_values: torch.FloatTensor | None = None,
        attention_mask: torch.LongTensor | None = None,
        labels: torch.LongTensor | None = None,
        output_hidden_states: bool | None = None,
        output_attentions: bool | None = None,
        num_items_in_batch: torch.Tensor | None = None,
        training_inputs: dict[str, torch.Tensor] | None = None,
    ) -> CoLearningStudentOutput:
        """
        Args:
            input_values (`torch.FloatTensor` of shape `(B, samples)` or `(B, frames, mels)`, *optional*): For
                wav2vec2-like backbones and AST.
            input_features (`torch.FloatTensor` of shape `(B, mels, frames)`, *optional*): For Whisper.
            pixel_values (`torch.FloatTensor` of shape `(B, channels, mels, frames)`, *optional*): For image backbones.
            attention_mask (`torch.LongTensor` of shape `(B, samples)`, *optional*): 1 for samples, 0 for padding.
            labels (`torch.Tensor` of shape `(B,)` or `(B, C)`, *optional*): See [`~hf_colearn.models.heads.task_loss`].
            num_items_in_batch (`torch.Tensor` of shape `()` or `(1,)`, *optional*): What the sum of the losses is divided
                by; by default the labels that count.
            training_inputs (`dict[str, torch.LongTensor]`, *optional*): Token ids `(B, T)` for decoders among the training
                heads, by the head's name; the trainer passes them.
        """
        inputs = {"input_values": input_values, "input_features": input_features, "pixel_values": pixel_values}
        options = (output_hidden_states, output_attentions, num_items_in_batch, training_inputs)
        return self._forward(labels, attention_mask, *options, **inputs)


class CoLearningForSequenceClassification(CoLearningStudent):
    """A text student; see [`CoLearningStudent.from_backbone`]."""

    _stock_class = AutoModelForSequenceClassification
    input_names = ("input_ids", "attention_mask", "token_type_ids", "inputs_embeds")

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
            input_ids (`torch.LongTensor` of shape `(B, tokens)`, *optional*): As the tokenizer gives them.
            attention_mask (`torch.LongTensor` of shape `(B, tokens)`, *optional*): 1 for tokens, 0 for padding.
            token_type_ids (`torch.LongTensor` of shape `(B, tokens)`, *optional*): Where the backbone takes them.
            inputs_embeds (`torch.FloatTensor` of shape `(B, tokens, H)`, *optional*): Instead of `input_ids`.
            labels (`torch.Tensor` of shape `(B,)` or `(B, C)`, *optional*): See [`~hf_colearn.models.heads.task_loss`].
            num_items_in_batch (`torch.Tensor` of shape `()` or `(1,)`, *optional*): What the sum of the losses is divided
                by; by default the labels that count.
            training_inputs (`dict[str, torch.LongTensor]`, *optional*): Token ids `(B, T)` for decoders among the training
                heads, by the head's name; the trainer passes them.
        """
        inputs = {"input_ids": input_ids, "token_type_ids": token_type_ids, "inputs_embeds": inputs_embeds}
        options = (output_hidden_states, output_attentions, num_items_in_batch, training_inputs)
        return self._forward(labels, attention_mask, *options, **inputs)


for _student in (
    CoLearningForImageClassification,
    CoLearningForAudioClassification,
    CoLearningForSequenceClassification,
):
    _student._stock_class.register(CoLearningStudentConfig, _student)
    _student.register_for_auto_class(_student._stock_class.__name__)
