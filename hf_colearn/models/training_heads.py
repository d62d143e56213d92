"""Heads that only training needs, such as projectors, probes and decoders; travels with every checkpoint.

Shapes: B samples, T positions or tokens, V tokens of a vocabulary.
"""

import keyword
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from .caption_decoder import CaptionDecoder
from .heads import check_width, make_head


_FIELDS = {"out_features", "hidden_features", "reads"}
_OF_DECODER = {"vocab_size", "hidden_size", "teacher", "reads"}


def check_training_heads(
    heads: Mapping[str, Any] | None, readable: tuple[str, ...], decoders: bool = False
) -> dict[str, dict[str, Any]]:
    """Every field of every head, sorted by name as transformers sorts what it writes to `config.json`.

    A width is short for `{"out_features": width}`. `readable` is what a head of the model may read beside other heads, the
    default first; `decoders` says whether the model gives a head the tokens of captions.
    """
    if not isinstance(heads, Mapping | None):
        raise ValueError(f"training_heads={heads!r}: pass a dict, such as {{'projector': {{'out_features': 256}}}}.")
    checked: dict[str, dict[str, Any]] = {}
    for name, given in sorted((heads or {}).items(), key=lambda item: str(item[0])):
        if not isinstance(name, str) or not name.isidentifier() or keyword.iskeyword(name):
            raise ValueError(f"'{name}' cannot name a training head: it must be an identifier, such as 'projector'.")
        if hasattr(nn.ModuleDict(), name):
            raise ValueError(f"'{name}' cannot name a training head: nn.ModuleDict has that attribute. Rename it.")
        if name in readable:
            raise ValueError(f"'{name}' cannot name a training head: heads read what the model calls so. Rename it.")
        checked[name] = _checked_head(name, given, readable, decoders)
    for name, head in checked.items():
        _check_reads(name, head, checked, readable)
    return checked


def _checked_head(name: str, given: Any, readable: tuple[str, ...], decoders: bool) -> dict[str, Any]:
    if isinstance(given, Mapping) and "vocab_size" in given:
        if not decoders:
            raise ValueError(
                f"training head '{name}' is a decoder of captions, which a student has and this model does not: leave "
                "vocab_size out."
            )
        head = {"hidden_size": 128, "teacher": name, "reads": readable[0], **given}
        fields, widths = _OF_DECODER, ("vocab_size", "hidden_size")
    else:
        head = {"hidden_features": None, "reads": readable[0]}
        head |= given if isinstance(given, Mapping) else {"out_features": given}
        fields, widths = _FIELDS, ("out_features", "hidden_features")
    if head.keys() != fields:
        raise ValueError(
            f"training head '{name}' has the fields {list(given)}: pass out_features, and where they differ from the "
            "defaults hidden_features and reads; or, of a decoder, vocab_size, hidden_size, teacher and reads."
        )
    if "vocab_size" in head and (not isinstance(head["teacher"], str) or not head["teacher"]):
        raise ValueError(
            f"teacher={head['teacher']!r} of training head '{name}': pass the name of the captions' teacher."
        )
    for field in widths:
        if (field, head[field]) != ("hidden_features", None):
            check_width(field, head[field], of=f" of training head '{name}'")
    return head


def _check_reads(name: str, head: dict[str, Any], heads: dict[str, dict[str, Any]], readable: tuple[str, ...]) -> None:
    read = head["reads"]
    linear = [other for other, of_other in heads.items() if "out_features" in of_other and other != name]
    if read not in (*readable, *linear):
        others = f", or another head ({', '.join(linear)})" if linear else ""
        raise ValueError(
            f"training head '{name}' reads '{read}': a head of this model reads {' or '.join(readable)}{others}."
        )
    if "vocab_size" in head and read == "dense_latents":
        raise ValueError(f"training head '{name}' is a decoder, which begins with one vector: let it read latents.")
    passed = [name]
    while read in heads:
        if read in passed:
            raise ValueError(
                f"the training heads {' -> '.join([*passed, read])} read each other: begin with the model."
            )
        passed.append(read)
        read = heads[read]["reads"]


def model_reading(heads: Mapping[str, dict[str, Any]], name: str) -> str:
    """What of the model a head reads in the end, such as `"latents"`, itself or through other heads."""
    read = heads[name]["reads"]
    while read in heads:
        read = heads[read]["reads"]
    return read


def make_training_heads(heads: Mapping[str, dict[str, Any]], **widths: int) -> nn.ModuleDict:
    """The modules, by the widths of what they read."""
    widths |= {name: head["out_features"] for name, head in heads.items() if "out_features" in head}

    def made(head: dict[str, Any]) -> nn.Module:
        width = widths[head["reads"]]
        if "vocab_size" in head:
            return CaptionDecoder(width, head["vocab_size"], head["hidden_size"])
        return make_head(width, head["hidden_features"], head["out_features"])

    return nn.ModuleDict({name: made(head) for name, head in heads.items()})


def training_outputs(
    model: Any, training_inputs: Mapping[str, torch.Tensor] | None = None, **readings: torch.Tensor
) -> dict[str, torch.Tensor] | None:
    """What the heads of a model give, by name; None where it has none.

    A decoder is called where it is given the token ids `[B, T]` of its captions, which is in training alone.
    """
    heads: dict[str, dict[str, Any]] = model.config.training_heads
    found, given = dict(readings), training_inputs or {}

    def output(name: str) -> torch.Tensor:
        if name not in found:
            read, module = output(heads[name]["reads"]), model.training_heads[name]
            found[name] = module(read, given[name]) if "vocab_size" in heads[name] else module(read)
        return found[name]

    called = [name for name, head in heads.items() if "vocab_size" not in head or name in given]
    return {name: output(name) for name in called} or None


def decoder_teachers(model: Any) -> dict[str, str]:
    """Which teacher has the captions of each decoder among a model's training heads, by the head's name."""
    heads = getattr(getattr(model, "config", None), "training_heads", None) or {}
    return {name: head["teacher"] for name, head in heads.items() if "vocab_size" in head}


def remove_training_heads(model: Any) -> Any:
    """Removes the heads from the model and its configuration in place, and returns it."""
    model.training_heads, model.config.training_heads = nn.ModuleDict(), {}
    return model
