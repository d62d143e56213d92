"""What the two recipes of pictures with a text share: networks and their processors, pretrained or tiny."""

from collections.abc import Sequence
from typing import Any

from datasets import ClassLabel, Dataset
from transformers import AutoTokenizer

from hf_colearn.corpora.audio_visual import frame_processor
from hf_colearn.corpora.image_text import ImageTextOptions
from hf_colearn.experiments.tiny_models import bert_tiny, resnet_tiny


def image_text_processors(options: ImageTextOptions) -> dict[str, Any]:
    """The image processor and the tokenizer; None for a tiny network's tokenizer, which is trained later."""
    is_tiny = options.image_backbone == "resnet_tiny"
    return {
        "image": frame_processor(options.image_size, None if is_tiny else options.image_backbone),
        "text": None if options.text_backbone == "bert_tiny" else AutoTokenizer.from_pretrained(options.text_backbone),
    }


def image_text_backbones(options: ImageTextOptions, tokenizer: Any) -> dict[str, Any]:
    """Of picture and text, as [`CoLearningForMultimodalClassification.from_backbones`] takes them."""
    vocabulary = {"vocab_size": len(tokenizer), "pad_token_id": tokenizer.pad_token_id}
    return {
        "image": resnet_tiny() if options.image_backbone == "resnet_tiny" else options.image_backbone,
        "text": bert_tiny(**vocabulary) if options.text_backbone == "bert_tiny" else options.text_backbone,
    }


def class_names(train: Dataset, names: Sequence[str]) -> dict[int, str]:
    """The classes by label, as the data call them, or these."""
    label = train.features["label"]
    return dict(enumerate(label.names if isinstance(label, ClassLabel) else names))
