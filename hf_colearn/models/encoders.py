"""Which student a modality's encoder is, and CLIP's two; travels with every multimodal checkpoint."""

import os
from typing import Any

import torch
from transformers import MODEL_MAPPING, AutoConfig, CLIPConfig, CLIPModel, PreTrainedConfig

from .configuration import FeatureBackboneConfig
from .features import CoLearningForFeatureClassification
from .loading import lacking, load_model
from .student import (
    CoLearningForAudioClassification,
    CoLearningForImageClassification,
    CoLearningForSequenceClassification,
    CoLearningStudent,
)
from .trunk_configuration import TrunkBackboneConfig


# By what the backbone calls its input.
STUDENTS: dict[str, type[CoLearningStudent]] = {
    "pixel_values": CoLearningForImageClassification,
    "input_values": CoLearningForAudioClassification,
    "input_features": CoLearningForAudioClassification,
    "input_ids": CoLearningForSequenceClassification,
}
# By the kind of a trunk's stem.
STUDENTS_OF_STEMS: dict[str, type[CoLearningStudent]] = {
    "patches": CoLearningForImageClassification,
    "frames": CoLearningForAudioClassification,
    "tokens": CoLearningForSequenceClassification,
    "features": CoLearningForFeatureClassification,
    "table": CoLearningForFeatureClassification,
}


def student_class_for(config: PreTrainedConfig) -> type[CoLearningStudent]:
    """The class of students that takes what the backbone takes; a ValueError if there is none."""
    if config.model_type == FeatureBackboneConfig.model_type:
        return CoLearningForFeatureClassification
    if config.model_type == TrunkBackboneConfig.model_type:
        return STUDENTS_OF_STEMS[config.stem["kind"]]
    if type(config) not in MODEL_MAPPING:
        raise ValueError(f"'{config.model_type}' is no backbone of AutoModel: choose another.")
    backbone_class = MODEL_MAPPING[type(config)]
    backbone_class = backbone_class[0] if isinstance(backbone_class, tuple) else backbone_class
    if backbone_class.main_input_name not in STUDENTS:
        raise ValueError(
            f"the backbone '{config.model_type}' takes `{backbone_class.main_input_name}`, and a modality is one of "
            f"{', '.join(STUDENTS)}: choose another backbone."
        )
    return STUDENTS[backbone_class.main_input_name]


def read_clip(
    clip: str | os.PathLike | CLIPConfig, dtype: str | torch.dtype, clip_kwargs: dict[str, Any]
) -> tuple[CLIPConfig, float, dict[str, dict[str, Any]]]:
    """A CLIP's configuration, the logarithm of its scale, and, of a checkpoint, its weights as encoders hold them."""
    if isinstance(clip, CLIPConfig):
        return clip, clip.logit_scale_init_value, {}
    found = AutoConfig.from_pretrained(clip, trust_remote_code=False, **clip_kwargs)
    if not isinstance(found, CLIPConfig):
        raise ValueError(f"'{clip}' is no CLIP, its model_type is '{found.model_type}': use `from_backbones`.")
    model, random = load_model(CLIPModel, clip, dtype=dtype, **clip_kwargs)
    if missing := lacking(model.state_dict(keep_vars=True), random):
        raise ValueError(
            f"'{clip}' lacks {len(missing)} weights of CLIPModel ('{missing[0]}', ...): they would be random. Use a whole "
            "CLIP, or `from_backbones` with what there is."
        )
    images, texts = (model.vision_model, model.visual_projection), (model.text_model, model.text_projection)
    weights = {
        name: {f"backbone.{key}": value for key, value in encoder.state_dict().items()}
        | {"latent_head.weight": projection.weight, "latent_head.bias": torch.zeros_like(projection.weight[:, 0])}
        for name, (encoder, projection) in (("image", images), ("text", texts))
    }
    return model.config, model.logit_scale.item(), weights
