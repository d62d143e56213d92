"""Students: an AutoModel backbone, a latent head and a classifier, as `PreTrainedModel`s.

This file travels with every checkpoint (`trust_remote_code=True` loads it where `hf_colearn` is not installed), so it
imports nothing of the package but its neighbours. Shapes: B inputs, H backbone width, D latent width, C classes.
"""

import copy
import os
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from transformers import (
    MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING,
    AutoModel,
    AutoModelForAudioClassification,
    AutoModelForImageClassification,
    AutoModelForSequenceClassification,
    PreTrainedConfig,
    PreTrainedModel,
)
from transformers.modeling_outputs import ModelOutput
from transformers.utils import can_return_tuple, logging

from .backbones import (
    backbone_width,
    class_names,
    drop_unused_pooler,
    encoder_of,
    headless,
    is_causal,
    is_convolutional,
    pools_without_weights,
    read_backbone_config,
    takes_video,
)
from .checkpoint import CheckedModel
from .configuration import CoLearningStudentConfig
from .folding import fold_bottleneck
from .heads import label_mask, make_head, task_loss, zero_gradient
from .loading import load_model, warn_of_random
from .outputs import CoLearningStudentOutput
from .pooling import pool_outputs
from .short_clips import fill_first_frame, masks_spans, takes_waveforms, without_impossible_spans
from .training_heads import make_training_heads, training_outputs


logger = logging.get_logger(__name__)


class CoLearningStudent(CheckedModel):
    """Base of the students; use one of its subclasses, which know their task's inputs."""

    config_class = CoLearningStudentConfig
    config: CoLearningStudentConfig
    base_model_prefix = "backbone"
    _stock_class: Any  # transformers' Auto class of the task
    input_names: tuple[str, ...] = ()  # what `forward` takes besides labels and options

    def __init__(self, config: CoLearningStudentConfig):
        super().__init__(config)
        if config.latent_dim is None:
            raise ValueError("latent_dim is missing: pass the teacher's width, `latent_dim=bank.dim`.")
        if config.head == "auxiliary":
            config.backbone_config.num_labels = config.num_labels
            config.backbone_config.id2label, config.backbone_config.label2id = config.id2label, config.label2id
            config.backbone_config.problem_type = config.problem_type
            self.backbone = self._stock_class_of_backbone.from_config(config.backbone_config)
            self._encoder.register_forward_hook(_keep_outputs)
        else:
            self.backbone = headless(AutoModel.from_config(config.backbone_config))
        if masks_spans(self._encoder):
            self._encoder.register_forward_pre_hook(without_impossible_spans, with_kwargs=True)
        if config.pooling is None:
            config.pooling = self._default_pooling()
        if config.head == "bottleneck":
            drop_unused_pooler(self.backbone, config.pooling)
        width = backbone_width(config.backbone_config)
        self.latent_head = nn.Linear(width, config.latent_dim)
        layernorm = config.latent_norm == "layernorm"
        self.latent_norm = nn.LayerNorm(config.latent_dim) if layernorm else nn.Identity()
        if config.head == "bottleneck":
            self.classifier = make_head(config.latent_dim, config.classifier_dim, config.num_labels)
        self.main_input_name = self.backbone.main_input_name
        self.supports_gradient_checkpointing = self.backbone.supports_gradient_checkpointing
        self._no_split_modules = list(self.backbone._no_split_modules or [])
        self.post_init()
        # Last, so that a seed gives the other weights the same values without them.
        self.training_heads = make_training_heads(config.training_heads, latents=config.latent_dim, features=width)

    def _init_weights(self, module):
        # Only the heads are ours, in torch's own scheme: the backbone draws its weights by its own, when it is built.
        heads = [child for name, child in self.named_children() if name != "backbone"]
        if isinstance(module, (nn.Linear, nn.LayerNorm)) and any(module in head.modules() for head in heads):
            module.reset_parameters()

    @property
    def _encoder(self) -> PreTrainedModel:
        """The backbone without a classification head."""
        return encoder_of(self.backbone) if self.config.head == "auxiliary" else self.backbone

    @property
    def _stock_class_of_backbone(self) -> Any:
        return self._stock_class

    def _default_pooling(self) -> str:
        if is_convolutional(self.config.backbone_config) or pools_without_weights(self._encoder):
            return "pooler"
        has_cls = not is_causal(self.backbone) and self.config.backbone_config.model_type != "videomae"
        return "cls" if has_cls else "mean"

    @classmethod
    def from_backbone(
        cls,
        backbone: str | os.PathLike | PreTrainedConfig,
        latent_dim: int,
        num_labels: int | None = None,
        *,
        head: str = "bottleneck",
        latent_norm: str = "layernorm",
        pooling: str | None = None,
        classifier_dim: int | None = None,
        training_heads: Mapping[str, Any] | None = None,
        id2label: dict[int, str] | None = None,
        label2id: dict[str, int] | None = None,
        problem_type: str | None = None,
        dtype: str | torch.dtype = "float32",
        **backbone_kwargs,
    ) -> "CoLearningStudent":
        """Makes a student of a backbone.

        Args:
            backbone (`str` or [`PreTrainedConfig`]): A Hub id or a folder, whose pretrained weights are kept (with
                `head="auxiliary"` its classifier, too); or a configuration (which is copied), for random ones.
            latent_dim (`int`): D; `bank.dim` for latent matching.
            num_labels (`int`, *optional*): C; by default that of `id2label` or of the backbone's configuration.
            head, latent_norm, pooling, classifier_dim, training_heads (*optional*): See [`CoLearningStudentConfig`].
            id2label, label2id (`dict`, *optional*): The classes' names; one of them gives the other. By default those
                of the backbone's configuration, where the number of classes is the same.
            problem_type (`str`, *optional*): `"single_label_classification"` (with class indices or soft labels),
                `"multi_label_classification"` or `"regression"`; by default what the labels tell, as in transformers:
                one output is a regression, floats are several labels.
            dtype (*optional*, defaults to `"float32"`): Of the weights; `"auto"` is the checkpoint's own.
            backbone_kwargs: For the backbone's `from_pretrained`, such as `revision`, or for its configuration, such as
                `hidden_dropout_prob`.

        Returns:
            [`CoLearningStudent`]: In evaluation mode where built from a checkpoint, as in transformers.

        Example:

        ```python
        student = CoLearningForImageClassification.from_backbone(
            "microsoft/resnet-50", latent_dim=bank.dim, num_labels=1000, latent_norm="none"
        )
        ```
        """
        backbone_config = read_backbone_config(backbone, backbone_kwargs)
        if num_labels in (None, backbone_config.num_labels) and id2label is None and label2id is None:
            labels = {"id2label": backbone_config.id2label, "label2id": backbone_config.label2id}
            problem_type = problem_type or backbone_config.problem_type
        else:
            labels = class_names(num_labels, id2label, label2id)
        config = CoLearningStudentConfig(
            backbone_config=backbone_config,
            latent_dim=latent_dim,
            head=head,
            latent_norm=latent_norm,
            pooling=pooling,
            classifier_dim=classifier_dim,
            training_heads=training_heads,
            problem_type=problem_type,
            **labels,
        )
        dtype = (backbone_config.dtype or "float32") if dtype == "auto" else dtype
        attention = {name: backbone_kwargs[name] for name in ("attn_implementation",) if name in backbone_kwargs}
        student = cls._from_config(config, dtype=dtype, **attention)
        if not isinstance(backbone, PreTrainedConfig):
            student.eval()._load_backbone(backbone, backbone_kwargs)
        return student

    def _load_backbone(self, checkpoint: str | os.PathLike, backbone_kwargs: dict) -> None:
        options = {"dtype": self.dtype, **backbone_kwargs}
        if self.config.head == "auxiliary":
            labels = {"id2label": self.config.id2label, "label2id": self.config.label2id}
            options |= labels | {"ignore_mismatched_sizes": True}  # another number of classes: a fresh classifier
            stock, random = load_model(self._stock_class_of_backbone, checkpoint, **options)
            encoder = encoder_of(stock)
        else:
            stock, random = load_model(AutoModel, checkpoint, **options)
            stock = encoder = headless(stock)
            drop_unused_pooler(stock, self.config.pooling)
        warn_of_random(checkpoint, encoder, random)
        self.backbone.load_state_dict(stock.state_dict())

    def encode(
        self, attention_mask: torch.Tensor | None = None, **inputs: Any
    ) -> tuple[torch.Tensor, Any, ModelOutput]:
        """The first half of `forward`: inputs -> backbone -> pool; the mean over a video's frames where the backbone takes
        single images.

        Returns:
            `tuple`: The pooled features `[B, H]`, the logits `[B, C]` of an auxiliary head (None for a bottleneck), and
            the backbone's outputs.
        """
        pixels: Any = inputs.get("pixel_values")
        folded = pixels is not None and pixels.ndim == 5 and not takes_video(self.config.backbone_config)
        if folded:
            inputs["pixel_values"] = pixels.flatten(0, 1)
        if takes_waveforms(self.config.backbone_config) and "input_values" in inputs:
            filled = fill_first_frame(self.config.backbone_config, inputs["input_values"], attention_mask)
            inputs["input_values"], attention_mask = filled
        if attention_mask is not None:
            inputs["attention_mask"] = attention_mask
        outputs = self.backbone(**inputs, return_dict=True)
        encoder, features, logits = self._encoder, outputs, None
        if self.config.head == "auxiliary":
            features, encoder.kept_outputs = encoder.kept_outputs, None
            logits = outputs.logits
        pooled = pool_outputs(encoder, features, self.config.pooling, attention_mask)
        if folded:
            pooled = pooled.unflatten(0, pixels.shape[:2]).mean(1)
            logits = None if logits is None else logits.unflatten(0, pixels.shape[:2]).mean(1)
        return pooled, logits, outputs

    def classify(self, pooled_BH: torch.Tensor) -> tuple[Any, Any]:
        """The second half of `forward`: latents `[B, D]`, and a bottleneck's logits `[B, C]`."""
        latents_BD = self.latent_norm(self.latent_head(pooled_BH))
        return latents_BD, self.classifier(latents_BD) if self.config.head == "bottleneck" else None

    def _forward(
        self, labels, attention_mask, output_hidden_states, output_attentions, num_items, **inputs
    ) -> CoLearningStudentOutput:
        options = inputs | {"output_attentions": output_attentions}
        given = {name: value for name, value in options.items() if value is not None}
        pooled_BH, logits_BC, outputs = self.encode(attention_mask, output_hidden_states=output_hidden_states, **given)
        latents_BD, bottleneck_logits_BC = self.classify(pooled_BH)
        logits_BC = bottleneck_logits_BC if logits_BC is None else logits_BC
        if self.training and torch.is_grad_enabled():
            logits_BC = zero_gradient(logits_BC, self.training_heads.parameters())
        return CoLearningStudentOutput(
            loss=None if labels is None else task_loss(logits_BC, labels, self.config.problem_type, num_items),
            logits=logits_BC,
            latents=latents_BD,
            hidden_states=outputs.get("hidden_states"),
            attentions=outputs.get("attentions"),
            training_outputs=training_outputs(self, latents=latents_BD, features=pooled_BH),
        )

    def label_counts(self, labels: torch.Tensor, **inputs: Any) -> torch.Tensor:
        """How many labels of a batch count, `(1,)`: what `num_items_in_batch` is by default."""
        return label_mask(labels, self.config.problem_type).sum().view(1)

    def set_problem_type(self, problem_type: str) -> None:
        """Writes the problem type to the configuration, and to that of a stock model within."""
        self.config.problem_type = problem_type
        if self.config.head == "auxiliary":
            self.config.backbone_config.problem_type = self.backbone.config.problem_type = problem_type

    def get_input_embeddings(self):
        return self.backbone.get_input_embeddings()

    def resize_token_embeddings(self, *args, **kwargs):
        # The vocabulary's size stands in the backbone's configuration.
        return self.backbone.resize_token_embeddings(*args, **kwargs)

    def freeze_feature_encoder(self) -> None:
        """Freezes the convolutions of a wav2vec2-like backbone, as its own classification model does."""
        self._encoder.feature_extractor._freeze_parameters()

    def to_transformers(self) -> PreTrainedModel:
        """The student as a stock transformers classification model, for users without `hf_colearn`.

        Exact for an auxiliary head (without the latent branch) and for a bottleneck without a norm whose stock counterpart
        pools the same way (two Linear layers fold into one), which is checked. Whisper's stock model takes no attention
        mask.

        Returns:
            [`PreTrainedModel`]: Such as a `ResNetForImageClassification`, in evaluation mode.

        Raises:
            ValueError: With the reason, where no stock model computes the same logits.
        """
        if self.config.num_labels == 0:
            raise ValueError(
                "the student has no classes (num_labels=0): take its latents, or its `backbone`, which is stock."
            )
        if self.config.head == "auxiliary":
            stock = self._stock_class_of_backbone.from_config(copy.deepcopy(self.backbone.config))
            stock.load_state_dict(self.backbone.state_dict())
            return stock.to(self.device, self.dtype).eval()
        return fold_bottleneck(self, self._stock_class_of_backbone)


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
    ) -> CoLearningStudentOutput:
        """
        Args:
            pixel_values (`torch.FloatTensor` of shape `(B, channels, height, width)` or `(B, T, channels, height, width)`):
                Images, or the T frames of videos.
            labels (`torch.Tensor` of shape `(B,)` or `(B, C)`, *optional*): See [`~hf_colearn.models.heads.task_loss`].
            num_items_in_batch (`torch.Tensor` of shape `()` or `(1,)`, *optional*): What the sum of the losses is divided
                by; by default the labels that count.
        """
        options = (output_hidden_states, output_attentions, num_items_in_batch)
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
        """
        inputs = {"input_values": input_values, "input_features": input_features, "pixel_values": pixel_values}
        options = (output_hidden_states, output_attentions, num_items_in_batch)
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
        """
        inputs = {"input_ids": input_ids, "token_type_ids": token_type_ids, "inputs_embeds": inputs_embeds}
        options = (output_hidden_states, output_attentions, num_items_in_batch)
        return self._forward(labels, attention_mask, *options, **inputs)


def _keep_outputs(encoder: nn.Module, inputs: tuple, outputs: ModelOutput) -> None:
    # A forward hook: the stock model returns its logits, and the latent needs the features that they came from.
    encoder.kept_outputs = outputs


for _student in (
    CoLearningForImageClassification,
    CoLearningForAudioClassification,
    CoLearningForSequenceClassification,
):
    _student._stock_class.register(CoLearningStudentConfig, _student)
    _student.register_for_auto_class(_student._stock_class.__name__)
