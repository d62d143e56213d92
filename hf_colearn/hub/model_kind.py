"""What kind of model is published, and by what it is loaded: a student of ours, a stock model, one's own, an adapter."""

import json
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from peft import PeftModel
from torch import nn
from transformers import PreTrainedModel
from transformers.models.auto import modeling_auto

from hf_colearn.models.features import CoLearningForFeatureClassification
from hf_colearn.models.many_tasks import CoLearningForManyTasks
from hf_colearn.models.masked_lm import CoLearningForMaskedLM
from hf_colearn.models.multimodal import CoLearningForMultimodalClassification
from hf_colearn.models.student import (
    CoLearningForAudioClassification,
    CoLearningForImageClassification,
    CoLearningForSequenceClassification,
)
from hf_colearn.utils.sharded import plain_class


MANY_TASKS = "many-tasks"
# What the Hub's pipelines are called -> the class of ours, and the Auto class and stock classes of transformers.
AUTO_CLASSES = {
    "audio-classification": "AutoModelForAudioClassification",
    "image-classification": "AutoModelForImageClassification",
    "text-classification": "AutoModelForSequenceClassification",
    "fill-mask": "AutoModelForMaskedLM",
    "feature-classification": "AutoModel",  # of precomputed features, for which the Hub has no pipeline
    MANY_TASKS: "AutoModel",  # of a model of many tasks, for which it has none, either
}
_STOCK_CLASSES = {
    "audio-classification": modeling_auto.MODEL_FOR_AUDIO_CLASSIFICATION_MAPPING_NAMES,
    "image-classification": modeling_auto.MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES,
    "text-classification": modeling_auto.MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES,
    "fill-mask": modeling_auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES,
}
_OURS: dict[type, str | None] = {
    CoLearningForAudioClassification: "audio-classification",
    CoLearningForImageClassification: "image-classification",
    CoLearningForSequenceClassification: "text-classification",
    CoLearningForMaskedLM: "fill-mask",
    CoLearningForFeatureClassification: "feature-classification",
    CoLearningForManyTasks: MANY_TASKS,
    CoLearningForMultimodalClassification: None,
}
_WITHOUT_PIPELINE = (None, "feature-classification", MANY_TASKS)
CLASSES: dict[str, Any] = {cls.__name__: cls for cls in _OURS}
OUR_CLASSES = {tag: cls.__name__ for cls, tag in _OURS.items()}


@dataclass(frozen=True)
class ModelKind:
    """What is known of a model, from itself or from its folder."""

    class_name: str | None  # None where a folder does not tell it: weights of a plain torch module
    pipeline_tag: str | None  # of the Hub; or one of ours, "feature-classification" and "many-tasks"
    is_ours: bool = False
    is_stock: bool = False  # a class of transformers
    is_pretrained: bool = True  # loaded by `from_pretrained`
    is_adapter: bool = False  # PEFT's, of a base model of this kind
    is_encoder: bool = False  # a student without classes, whose latents are what it is for
    base: str | None = None  # of an adapter: where its base model lies, as its configuration says

    @property
    def is_multimodal(self) -> bool:
        return self.is_ours and self.pipeline_tag is None

    @property
    def hub_tag(self) -> str | None:
        """What the Hub calls its task, where it has a name for it."""
        if self.pipeline_tag in _WITHOUT_PIPELINE:
            return None
        of_encoder = (
            "image-feature-extraction" if self.pipeline_tag == "image-classification" else "feature-extraction"
        )
        return of_encoder if self.is_encoder else self.pipeline_tag

    @property
    def library(self) -> str | None:
        """As the Hub's metadata call it."""
        return "peft" if self.is_adapter else "transformers" if self.is_pretrained else None

    @classmethod
    def of_model(cls, model: nn.Module) -> "ModelKind":
        if isinstance(model, PeftModel):
            base = model.active_peft_config.base_model_name_or_path
            return replace(cls.of_model(model.get_base_model()), is_adapter=True, base=base or None)
        name = type(model).__name__
        for ours, tag in _OURS.items():
            if plain_class(model) is ours:  # one's own on top of it is loaded by its own code
                config: Any = model.config
                return cls(name, tag, is_ours=True, is_encoder=config.num_labels == 0)
        if not isinstance(model, PreTrainedModel):
            return cls(name, None, is_pretrained=False)
        is_stock = type(model).__module__.startswith("transformers.")
        return cls(name, _stock_tag(name) if is_stock else None, is_stock=is_stock)

    @classmethod
    def of_folder(cls, folder: str | os.PathLike) -> "ModelKind":
        folder = Path(folder)
        if (folder / "adapter_config.json").is_file() and not (folder / "config.json").is_file():
            config = json.loads((folder / "adapter_config.json").read_text())
            of_base = cls._named((config.get("auto_mapping") or {}).get("base_model_class"))
            return replace(of_base, is_adapter=True, base=config.get("base_model_name_or_path") or None)
        if not (folder / "config.json").is_file():
            return cls(None, None, is_pretrained=False)
        config = json.loads((folder / "config.json").read_text())
        known = cls._named(next(iter(config.get("architectures") or ()), None))
        return replace(known, is_encoder=known.is_ours and config.get("id2label") == {})

    @classmethod
    def _named(cls, class_name: str | None) -> "ModelKind":
        for ours, tag in _OURS.items():
            if class_name == ours.__name__:
                return cls(class_name, tag, is_ours=True)
        tag = None if class_name is None else _stock_tag(class_name)
        return cls(class_name, tag, is_stock=tag is not None)


def _stock_tag(class_name: str) -> str | None:
    for tag, mapping in _STOCK_CLASSES.items():
        for names in mapping.values():
            if class_name in ((names,) if isinstance(names, str) else names):
                return tag
    return None
