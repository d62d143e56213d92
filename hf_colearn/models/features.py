"""Precomputed features as a modality: a backbone that passes them on or sends them through an MLP, and its student.

This file travels with the checkpoints that need it. Shapes: B inputs, T steps, F features, H = the last hidden width,
or F; N training samples.
"""

import torch
from torch import nn
from transformers import AutoModel, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutput
from transformers.utils import can_return_tuple

from .configuration import CoLearningStudentConfig, FeatureBackboneConfig
from .outputs import CoLearningStudentOutput
from .student_base import CoLearningStudent
from .trunk_configuration import TrunkBackboneConfig


class FeatureBackbone(PreTrainedModel):
    """Takes features that were computed beforehand, one vector an input or one a step."""

    config_class = FeatureBackboneConfig
    config: FeatureBackboneConfig
    mean_F: torch.Tensor
    std_F: torch.Tensor
    base_model_prefix = "features"
    main_input_name = "features"

    def __init__(self, config: FeatureBackboneConfig):
        super().__init__(config)
        widths = [config.feature_dim, *config.hidden_dims]
        pairs = zip(widths[:-1], widths[1:], strict=True)
        self.layers = nn.Sequential(*(layer for pair in pairs for layer in (nn.Linear(*pair), nn.GELU())))
        if config.standardized:
            self.register_buffer("mean_F", torch.zeros(config.feature_dim))
            self.register_buffer("std_F", torch.ones(config.feature_dim))
        self.post_init()

    def set_statistics(self, features_NF: torch.Tensor, scale: float = 1.0) -> None:
        """Standardises by these N features from now on, such as the training set's; one in which they are equal becomes 0.

        `scale` multiplies the result: below 1 an MLP stays closer to a linear classifier, which few labels may need.
        """
        if not self.config.standardized or features_NF.shape[1:] != self.mean_F.shape or len(features_NF) < 2:
            raise ValueError(
                f"features of shape {tuple(features_NF.shape)} give no statistics for a backbone with "
                f"standardized={self.config.standardized} of width {self.config.feature_dim}: pass [N, F] with N > 1 to one "
                "with standardized=True."
            )
        std_F = features_NF.std(dim=0, correction=0)
        self.mean_F.copy_(features_NF.mean(dim=0))
        self.std_F.copy_(torch.where(std_F > 0, std_F, 1.0) / scale)

    def _init_weights(self, module):
        # In torch's own scheme, as our heads.
        if isinstance(module, nn.Linear):
            module.reset_parameters()

    @can_return_tuple
    def forward(
        self,
        features: torch.Tensor,  # [B, F] or [B, T, F]
        attention_mask: torch.Tensor | None = None,  # [B, T], read by the pooling
        output_hidden_states: bool | None = None,
        output_attentions: bool | None = None,
    ) -> BaseModelOutput:
        if features.ndim not in (2, 3) or features.shape[-1] != self.config.feature_dim:
            raise ValueError(
                f"the features are of shape {tuple(features.shape)}: pass [B, {self.config.feature_dim}] or "
                f"[B, T, {self.config.feature_dim}], or build the backbone with feature_dim={features.shape[-1]}."
            )
        if features.ndim == 2 and attention_mask is not None:
            raise ValueError("an attention mask marks steps, and the features [B, F] have none: leave it out.")
        if self.config.standardized:
            features = (features - self.mean_F) / self.std_F
        hidden_BTH = self.layers(features if features.ndim == 3 else features[:, None])
        return BaseModelOutput(last_hidden_state=hidden_BTH)


class CoLearningForFeatureClassification(CoLearningStudent):
    """A student of precomputed features; see [`CoLearningStudent.from_backbone`], with a [`FeatureBackboneConfig`].

    It loads by its own class: `AutoModel` has no task of this kind.
    """

    _stock_class = None
    input_names = ("features", "attention_mask")

    def __init__(self, config: CoLearningStudentConfig):
        if config.head == "auxiliary":
            raise ValueError("head='auxiliary': a student of features has head='bottleneck' or 'prototypes'.")
        is_trunk = config.backbone_config.model_type == TrunkBackboneConfig.model_type
        if not is_trunk and not isinstance(config.backbone_config, FeatureBackboneConfig):
            # With trust_remote_code the configuration's code is loaded apart from the model's, as other classes.
            config.backbone_config = FeatureBackboneConfig.from_dict(config.backbone_config.to_dict())
        super().__init__(config)

    def _default_pooling(self) -> str:
        return "mean"

    @can_return_tuple
    def forward(
        self,
        features: torch.FloatTensor,
        attention_mask: torch.LongTensor | None = None,
        labels: torch.LongTensor | None = None,
        output_hidden_states: bool | None = None,
        output_attentions: bool | None = None,
        num_items_in_batch: torch.Tensor | None = None,
        training_inputs: dict[str, torch.Tensor] | None = None,
    ) -> CoLearningStudentOutput:
        """
        Args:
            features (`torch.FloatTensor` of shape `(B, F)` or `(B, T, F)`): One vector an input, or one a step.
            attention_mask (`torch.LongTensor` of shape `(B, T)`, *optional*): 1 for steps that count, 0 for padding.
            labels (`torch.Tensor` of shape `(B,)` or `(B, C)`, *optional*): See [`~hf_colearn.models.heads.task_loss`].
            num_items_in_batch (`torch.Tensor` of shape `()` or `(1,)`, *optional*): What the sum of the losses is divided
                by; by default the labels that count.
            training_inputs (`dict[str, torch.LongTensor]`, *optional*): As of other students.
        """
        options = (output_hidden_states, output_attentions, num_items_in_batch, training_inputs)
        return self._forward(labels, attention_mask, *options, features=features)

    def to_transformers(self) -> PreTrainedModel:
        # There is nothing to export to.
        raise ValueError("transformers has no classification model of precomputed features to export to.")


AutoModel.register(FeatureBackboneConfig, FeatureBackbone)
CoLearningForFeatureClassification.register_for_auto_class("AutoModel")
