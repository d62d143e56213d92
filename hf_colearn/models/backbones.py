"""What a backbone of transformers is like: where its encoder is, how wide its features are, how it pools them.

This file travels with every checkpoint.
"""

import copy
import os
from collections.abc import Mapping
from numbers import Integral
from typing import Any

from transformers import AutoConfig, PreTrainedConfig, PreTrainedModel


VIDEO_BACKBONES = ("timesformer", "videomae", "vivit")  # they take [B, T, channels, height, width]


def takes_video(config: PreTrainedConfig) -> bool:
    """Whether the backbone takes a video whole, so that its frames are not sent through it one by one."""
    return config.model_type in VIDEO_BACKBONES


def headless(model: PreTrainedModel) -> PreTrainedModel:
    """The encoder of an encoder-decoder model, any other model as it is; the configuration of a T5EncoderModel denies it."""
    stacks = [getattr(model, name, None) for name in ("encoder", "decoder")]
    has_both = model.config.is_encoder_decoder or all(isinstance(stack, PreTrainedModel) for stack in stacks)
    return model.get_encoder() if has_both else model


def encoder_of(model: PreTrainedModel) -> PreTrainedModel:
    """The encoder inside a stock classification model; Whisper's has another name than `base_model` looks for."""
    if model.base_model is model:
        return getattr(model, "encoder", model)
    return model.base_model


def is_convolutional(config: PreTrainedConfig) -> bool:
    """Whether the backbone gives feature maps (ResNet, ConvNext, ...), whose stages have widths of their own."""
    return getattr(config, "hidden_sizes", None) is not None


def pools_without_weights(encoder: PreTrainedModel) -> bool:
    """Whether the backbone comes with a pooler that has nothing to learn, such as Swin's mean over its patches."""
    pooler = getattr(encoder, "pooler", None)
    return pooler is not None and not any(True for _ in pooler.parameters())


def is_causal(backbone: PreTrainedModel) -> bool:
    """Whether a token sees only those before it (GPT-2, Llama, ...), so that the first depends on no other."""
    return any(getattr(module, "is_causal", False) for module in backbone.modules())


def backbone_width(config: PreTrainedConfig) -> int:
    """H, the width of the backbone's last hidden state; a ValueError if its configuration does not give it."""
    if is_convolutional(config):
        return config.hidden_sizes[-1]
    for name in ("hidden_size", "hidden_dim", "d_model"):
        if getattr(config, name, None) is not None:
            return getattr(config, name)
    raise ValueError(
        f"the configuration of '{config.model_type}' gives no width of its features (hidden_size, hidden_sizes, "
        "hidden_dim or d_model): choose another backbone. Of a model of two modalities, such as CLIP, save one part to a "
        "folder (`CLIPVisionModel.from_pretrained(name).save_pretrained(folder)`), and pass that."
    )


def drop_unused_pooler(backbone: PreTrainedModel, pooling: str) -> None:
    """Removes a pooler with weights that nothing would read: they would get no gradient, which stops plain DDP."""
    if pooling != "pooler" and getattr(backbone, "pooler", None) is not None and not pools_without_weights(backbone):
        backbone.pooler = None


def read_backbone_config(
    backbone: str | os.PathLike | PreTrainedConfig, backbone_kwargs: dict[str, Any]
) -> PreTrainedConfig:
    """The configuration of a checkpoint, or a copy of the one that is given; takes `trust_remote_code` out of the options."""
    if not isinstance(backbone, (str, os.PathLike, PreTrainedConfig)):
        shown = f"the class {backbone.__name__}" if isinstance(backbone, type) else f"a {type(backbone).__name__}"
        raise TypeError(
            f"backbone is {shown}: pass a Hub id or the folder of a checkpoint, or a configuration (`model.config`) for random "
            "weights."
        )
    if isinstance(backbone, PreTrainedConfig) and backbone_kwargs.keys() - {"attn_implementation"}:
        raise ValueError(
            f"{sorted(backbone_kwargs)} are options of a checkpoint, and the backbone is a configuration: "
            "set them in the configuration."
        )
    if backbone_kwargs.pop("trust_remote_code", False):
        raise ValueError(
            f"trust_remote_code=True for '{backbone}': a student loads without the code of another repository, so its "
            "backbone must be one that transformers knows."
        )
    if isinstance(backbone, PreTrainedConfig):
        return copy.deepcopy(backbone)
    # False, or transformers would ask at the terminal whether the code may run
    return AutoConfig.from_pretrained(backbone, trust_remote_code=False, **backbone_kwargs)


def class_names(
    num_labels: int | None, id2label: dict[int, str] | None, label2id: dict[str, int] | None
) -> dict[str, Any]:
    """What a configuration needs to know of the classes, where one of `id2label` and `label2id` gives the other."""
    if num_labels is not None and (
        isinstance(num_labels, bool) or not isinstance(num_labels, Integral) or num_labels < 1
    ):
        raise ValueError(f"num_labels={num_labels!r} is no number of classes: pass a whole number, at least 1.")
    for name, names in (("id2label", id2label), ("label2id", label2id)):
        if names is not None and not isinstance(names, Mapping):
            raise TypeError(
                f"{name} is a {type(names).__name__}: pass a dict, such as `id2label=dict(enumerate(names))`."
            )
    if id2label is None and label2id is not None:
        id2label = {index: label for label, index in label2id.items()}
    if id2label is None:
        return {"num_labels": num_labels}
    if num_labels not in (None, len(id2label)):
        raise ValueError(f"num_labels={num_labels}, but id2label names {len(id2label)} classes.")
    if label2id is None:
        label2id = {label: int(index) for index, label in id2label.items()}
    return {"id2label": id2label, "label2id": label2id}
