"""Smoke tests without a download: tiny backbones from configurations; a tokenizer and a speech teacher trained on the spot."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import (
    AutoModelForAudioClassification,
    BertConfig,
    BertTokenizer,
    DataCollatorWithPadding,
    PrinterCallback,
    ResNetConfig,
    Trainer,
    TrainingArguments,
    ViTConfig,
    Wav2Vec2Config,
    Wav2Vec2FeatureExtractor,
    Wav2Vec2Model,
)

from hf_colearn.corpora.audio_visual import resnet18
from hf_colearn.data.audio import with_input_values
from hf_colearn.experiments.packaged_models import pretrained_teacher
from hf_colearn.teachers.encoder import FrozenEncoder
from hf_colearn.utils import distributed
from hf_colearn.utils.rng import preserve_rng_state


TINY = "tiny"  # in the place of a model's name: one of random weights, with nothing to download
_TRANSFORMER = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 128}


def trunk_tiny(hidden_size: int = 64, num_layers: int = 2) -> dict[str, int]:
    """The layers of a small trunk, as [`~hf_colearn.CoLearningForManyTasks.from_stems`] takes them."""
    return {
        "hidden_size": hidden_size,
        "num_hidden_layers": num_layers,
        "num_attention_heads": 4,
        "intermediate_size": 2 * hidden_size,
    }


def resnet_tiny(**fields: Any) -> ResNetConfig:
    """A ResNet of two basic blocks, 0.03 M weights."""
    return ResNetConfig(embedding_size=16, hidden_sizes=[16, 32], depths=[1, 1], layer_type="basic", **fields)


# What recipes call by name, made with `num_channels`: 3 for pictures, 1 for spectrograms.
RESNETS = {"resnet18": resnet18, "resnet_tiny": resnet_tiny}


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

    Its pieces are all letters and, up to a vocabulary of `vocab_size`, the words that occur more than once, the commonest
    first. The texts alone decide the order, the same in every process and resumed run. (The trainer of `tokenizers` breaks
    ties by a hash that is another in every process.)
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


def untrained_speech_encoder() -> FrozenEncoder:
    """A frozen tiny wav2vec2 with random weights, always the same ones."""
    with preserve_rng_state(torch.device("cpu")):
        torch.manual_seed(0)
        model = Wav2Vec2Model(wav2vec2_tiny()).requires_grad_(False)
    return FrozenEncoder(model, Wav2Vec2FeatureExtractor(return_attention_mask=True))


def speech_teacher(
    name: str, pooling: str, folder: str | Path, train: Dataset, num_labels: int, max_steps: int
) -> FrozenEncoder:
    """A speech teacher from the Hub, from a folder, or (`train`) a tiny wav2vec2 trained on the spot, then frozen.

    Unlike a teacher that was pretrained elsewhere the latter knows the task's labels, so its gain is no evidence for such
    a one. (No package ships a speech model for transformers; for language and vision there is one.)

    Args:
        name (`str`): A Hub id, a folder, or `"train"`.
        pooling (`str`): How frames become one latent; the mean, where it is trained here.
        folder (`str` or `Path`): Where a trained one is written.
        train ([`datasets.Dataset`]): The clips `audio` with `label` of `num_labels` classes that it learns.
        max_steps (`int`): Of its training, in batches of 32.
    """
    if name != "train":
        return pretrained_teacher(name, pooling)
    processor = Wav2Vec2FeatureExtractor(return_attention_mask=True)
    config = wav2vec2_tiny(num_labels=num_labels, classifier_proj_size=64, mask_time_prob=0.0)
    model = AutoModelForAudioClassification.from_config(config)
    args = TrainingArguments(
        str(folder),
        max_steps=max_steps,
        per_device_train_batch_size=32,
        learning_rate=2e-3,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        ddp_find_unused_parameters=False,
    )
    inputs = with_input_values(train.select_columns(["audio", "label"]), processor)
    trainer = Trainer(model, args, train_dataset=inputs, data_collator=DataCollatorWithPadding(processor))
    trainer.remove_callback(PrinterCallback)
    trainer.train()
    if distributed.rank() == 0:
        model.save_pretrained(folder)
        processor.save_pretrained(folder)
    distributed.barrier()
    return FrozenEncoder.from_pretrained(str(folder), pooling="mean")
