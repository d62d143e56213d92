"""What all students are: an AutoModel backbone, a latent head and a classifier, as a `PreTrainedModel`.

This file travels with every checkpoint (`trust_remote_code=True` loads it where `hf_colearn` is not installed), so it
imports nothing of the package but its neighbours. Shapes: B inputs, H backbone width, D latent width, C classes.
"""

import copy
import os
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import nn
from transformers import AutoModel, PreTrainedConfig, PreTrainedModel
from transformers.modeling_outputs import ModelOutput
from transformers.utils import logging

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
from .dense import positions
from .folding import fold_bottleneck
from .heads import label_mask, make_head, task_loss, zero_gradient
from .loading import load_model, warn_of_random
from .outputs import CoLearningStudentOutput
from .pooling import pool_outputs
from .prototypes import PrototypeHead, as_class_vectors, check_vectors_are_there, with_classes
from .short_clips import fill_first_frame, masks_spans, takes_waveforms, without_impossible_spans
from .training_heads import make_training_heads, training_outputs
from .trunk import as_own_config


logger = logging.get_logger(__name__)


class Encoded(NamedTuple):
    """What a backbone makes of inputs."""

    pooled_BH: torch.Tensor
    logits_BC: torch.Tensor | None  # of an auxiliary head
    outputs: ModelOutput  # the backbone's
    dense: tuple[torch.Tensor, torch.Tensor] | None  # positions [B, T, H] and their mask [B, T], of a dense student


class CoLearningStudent(CheckedModel):
    """Base of the students; use one of its subclasses, which know their task's inputs."""

    config_class = CoLearningStudentConfig
    config: CoLearningStudentConfig
    base_model_prefix = "backbone"
    _stock_class: Any  # transformers' Auto class of the task
    input_names: tuple[str, ...] = ()  # what `forward` takes besides labels and options

    def __init__(self, config: CoLearningStudentConfig):
        config.backbone_config = as_own_config(config.backbone_config)
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
        if config.head != "auxiliary":
            drop_unused_pooler(self.backbone, config.pooling)
        width = backbone_width(config.backbone_config)
        self.latent_head = nn.Linear(width, config.latent_dim)
        layernorm = config.latent_norm == "layernorm"
        self.latent_norm = nn.LayerNorm(config.latent_dim) if layernorm else nn.Identity()
        if config.head == "bottleneck":
            self.classifier = make_head(config.latent_dim, config.classifier_dim, config.num_labels)
        elif config.head == "prototypes":
            self.classifier = PrototypeHead(config.latent_dim, config.num_labels, **config.prototypes)
        self.main_input_name = self.backbone.main_input_name
        self.supports_gradient_checkpointing = self.backbone.supports_gradient_checkpointing
        self._no_split_modules = list(self.backbone._no_split_modules or [])
        self.post_init()
        # Last, so that a seed gives the other weights the same values without them.
        widths = {"latents": config.latent_dim, "features": width, "dense_latents": config.latent_dim}
        self.training_heads = make_training_heads(config.training_heads, **widths)

    def _init_weights(self, module):
        # Only the heads are ours, in torch's own scheme: the backbone draws its weights by its own, when it is built.
        heads = [child for name, child in self.named_children() if name != "backbone"]
        if hasattr(module, "reset_parameters") and any(module in head.modules() for head in heads):
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
        without_cls = self.config.backbone_config.model_type in ("videomae", "colearning_trunk")
        has_cls = not is_causal(self.backbone) and not without_cls
        return "cls" if has_cls else "mean"

    @classmethod
    def from_backbone(
        cls,
        backbone: str | os.PathLike | PreTrainedConfig,
        latent_dim: int | None = None,
        num_labels: int | None = None,
        *,
        head: str = "bottleneck",
        class_vectors: Mapping[str, Any] | torch.Tensor | None = None,
        learned_class_vectors: bool = False,
        logit_scale: float = 10.0,
        learned_logit_scale: bool = False,
        class_vectors_from: str | None = None,
        latent_norm: str = "layernorm",
        pooling: str | None = None,
        classifier_dim: int | None = None,
        dense: bool = False,
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
            latent_dim (`int`): D; `bank.dim` for latent matching. By default the width of the class vectors.
            num_labels (`int`, *optional*): C; by default that of `id2label`, the class vectors or the backbone's
                configuration.
            head, learned_class_vectors, logit_scale, learned_logit_scale, class_vectors_from, latent_norm, pooling,
                classifier_dim, dense, training_heads (*optional*): See [`CoLearningStudentConfig`].
            class_vectors (`dict[str, torch.Tensor]` or `torch.Tensor` of shape `(C, D)`, *optional*): With
                `head="prototypes"` a vector a class, by name or in the classes' order; where they are learned, what learning
                begins with, random by default. Without `id2label` a dict's names are the classes, in its order.
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
        if isinstance(class_vectors, Mapping) and id2label is None and label2id is None:
            id2label = dict(enumerate(class_vectors))
        elif class_vectors is not None and num_labels is None and id2label is None and label2id is None:
            num_labels = len(class_vectors)
        if num_labels in (None, backbone_config.num_labels) and id2label is None and label2id is None:
            labels = {"id2label": backbone_config.id2label, "label2id": backbone_config.label2id}
            problem_type = problem_type or backbone_config.problem_type
        else:
            labels = class_names(num_labels, id2label, label2id)
        vectors_CD = None
        if class_vectors is not None:
            names = labels.get("id2label")
            vectors_CD = as_class_vectors(class_vectors, latent_dim, names and [names[i] for i in sorted(names)])
            latent_dim = vectors_CD.shape[1]
        config = CoLearningStudentConfig(
            backbone_config=backbone_config,
            latent_dim=latent_dim,
            head=head,
            learned_class_vectors=learned_class_vectors,
            logit_scale=logit_scale,
            learned_logit_scale=learned_logit_scale,
            class_vectors_from=class_vectors_from,
            dense=dense,
            latent_norm=latent_norm,
            pooling=pooling,
            classifier_dim=classifier_dim,
            training_heads=training_heads,
            problem_type=problem_type,
            **labels,
        )
        dtype = (backbone_config.dtype or "float32") if dtype == "auto" else dtype
        attention = {name: backbone_kwargs[name] for name in ("attn_implementation",) if name in backbone_kwargs}
        check_vectors_are_there(config, vectors_CD)
        student = cls._from_config(config, dtype=dtype, **attention)
        if vectors_CD is not None:
            student.classifier.set_vectors(vectors_CD)
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

    def encode(self, attention_mask: torch.Tensor | None = None, **inputs: Any) -> Encoded:
        """The first half of `forward`: inputs -> backbone -> pool; the mean over a video's frames where the backbone takes
        single images."""
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
        pooled, dense = pool_outputs(encoder, features, self.config.pooling, attention_mask), None
        if folded:
            frames_BTH = pooled.unflatten(0, pixels.shape[:2])
            pooled, dense = frames_BTH.mean(1), (frames_BTH, torch.ones_like(frames_BTH[..., 0], dtype=torch.bool))
            logits = None if logits is None else logits.unflatten(0, pixels.shape[:2]).mean(1)
        elif self.config.dense:
            dense = positions(encoder, features, attention_mask, self._width_is_time)
        return Encoded(pooled, logits, outputs, dense if self.config.dense else None)

    @property
    def _width_is_time(self) -> bool:
        """Whether the columns of a feature map are moments, as a spectrogram's."""
        return False

    def classify(self, pooled_BH: torch.Tensor) -> tuple[Any, Any]:
        """The second half of `forward`: latents `[B, D]`, and the logits `[B, C]` where the head reads them."""
        latents_BD = self.latent_norm(self.latent_head(pooled_BH))
        return latents_BD, None if self.config.head == "auxiliary" else self.classifier(latents_BD)

    def _forward(
        self,
        labels,
        attention_mask,
        output_hidden_states,
        output_attentions,
        num_items,
        training_inputs,
        **inputs,
    ) -> CoLearningStudentOutput:
        options = inputs | {"output_attentions": output_attentions}
        given = {name: value for name, value in options.items() if value is not None}
        encoded = self.encode(attention_mask, output_hidden_states=output_hidden_states, **given)
        latents_BD, logits_BC = self.classify(encoded.pooled_BH)
        logits_BC = logits_BC if encoded.logits_BC is None else encoded.logits_BC
        readings = {"latents": latents_BD, "features": encoded.pooled_BH}
        if encoded.dense is not None:
            readings["dense_latents"] = self.latent_norm(self.latent_head(encoded.dense[0]))
        if self.training and torch.is_grad_enabled():
            logits_BC = zero_gradient(logits_BC, self.training_heads.parameters())
        return CoLearningStudentOutput(
            loss=None if labels is None else self._task_loss(logits_BC, labels, num_items),
            logits=logits_BC,
            latents=latents_BD,
            dense_latents=readings.get("dense_latents"),
            dense_mask=None if encoded.dense is None else encoded.dense[1],
            hidden_states=encoded.outputs.get("hidden_states"),
            attentions=encoded.outputs.get("attentions"),
            training_outputs=training_outputs(self, training_inputs, **readings),
        )

    def _task_loss(self, logits_BC: torch.Tensor, labels: torch.Tensor, num_items: Any) -> torch.Tensor:
        return task_loss(logits_BC, labels, self.config.problem_type, num_items)

    def with_classes(self, class_vectors: Mapping[str, Any], keep: bool = True) -> "CoLearningStudent":
        """A copy that knows further classes, without training; of a student with `head="prototypes"`.

        Args:
            class_vectors (`dict[str, torch.Tensor]`): A vector of width D a new class, from where those of the other classes
                come.
            keep (`bool`, *optional*, defaults to `True`): Whether the student's own classes stay, before the new ones.

        Raises:
            ValueError: If the head is another one, a vector does not fit, or a class is known already.

        Example:

        ```python
        >>> import torch
        >>> from hf_colearn import CoLearningForFeatureClassification, FeatureBackboneConfig

        >>> student = CoLearningForFeatureClassification.from_backbone(
        ...     FeatureBackboneConfig(feature_dim=4),
        ...     head="prototypes",
        ...     class_vectors={"cat": torch.tensor([1.0, 0.0]), "dog": torch.tensor([0.0, 1.0])},
        ... )
        >>> student.with_classes({"lynx": torch.tensor([1.0, 0.2])}).config.id2label
        {0: 'cat', 1: 'dog', 2: 'lynx'}

        ```
        """
        return with_classes(self, class_vectors, keep)

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
        if self.config.head == "prototypes":
            raise ValueError(
                "a student with head='prototypes' cannot become a stock checkpoint: its logits are cosines, and a stock head "
                "is linear. Load it with hf_colearn or with trust_remote_code=True, or export a program."
            )
        if self.config.head == "auxiliary":
            stock = self._stock_class_of_backbone.from_config(copy.deepcopy(self.backbone.config))
            stock.load_state_dict(self.backbone.state_dict())
            return stock.to(self.device, self.dtype).eval()
        return fold_bottleneck(self, self._stock_class_of_backbone)


def _keep_outputs(encoder: nn.Module, inputs: tuple, outputs: ModelOutput) -> None:
    # A forward hook: the stock model returns its logits, and the latent needs the features that they came from.
    encoder.kept_outputs = outputs
