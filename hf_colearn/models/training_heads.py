"""Heads that only training needs, such as projectors, probes and decoders; travels with every checkpoint."""

import keyword
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from .heads import check_width, make_head


def check_training_heads(heads: Mapping[str, Any] | None, readable: tuple[str, ...]) -> dict[str, dict[str, Any]]:
    """Every field of every head, sorted by name as transformers sorts what it writes to `config.json`.

    A width is short for `{"out_features": width}`; `readable` is what a head of the model may read, the default first.
    """
    if not isinstance(heads, Mapping | None):
        raise ValueError(f"training_heads={heads!r}: pass a dict, such as {{'projector': {{'out_features': 256}}}}.")
    checked = {}
    for name, given in sorted((heads or {}).items(), key=lambda item: str(item[0])):
        if not isinstance(name, str) or not name.isidentifier() or keyword.iskeyword(name):
            raise ValueError(f"'{name}' cannot name a training head: it must be an identifier, such as 'projector'.")
        if hasattr(nn.ModuleDict(), name):
            raise ValueError(f"'{name}' cannot name a training head: nn.ModuleDict has that attribute. Rename it.")
        head = {"hidden_features": None, "reads": readable[0]}
        head |= given if isinstance(given, Mapping) else {"out_features": given}
        if head.keys() != {"out_features", "hidden_features", "reads"}:
            raise ValueError(
                f"training head '{name}' has the fields {list(given)}: pass out_features, and where they differ from the "
                "defaults hidden_features and reads."
            )
        for field in ("out_features", "hidden_features"):
            if (field, head[field]) != ("hidden_features", None):
                check_width(field, head[field], of=f" of training head '{name}'")
        if head["reads"] not in readable:
            raise ValueError(
                f"training head '{name}' reads '{head['reads']}': a head of this model reads {' or '.join(readable)}."
            )
        checked[name] = head
    return checked


def make_training_heads(heads: Mapping[str, dict[str, Any]], **widths: int) -> nn.ModuleDict:
    """The modules, by the widths of what they read."""
    return nn.ModuleDict(
        {
            name: make_head(widths[head["reads"]], head["hidden_features"], head["out_features"])
            for name, head in heads.items()
        }
    )


def training_outputs(model: Any, **readings: torch.Tensor) -> dict[str, torch.Tensor] | None:
    """What the heads of a model give, by name; None where it has none."""
    heads = model.config.training_heads
    return {name: model.training_heads[name](readings[head["reads"]]) for name, head in heads.items()} or None


def remove_training_heads(model: Any) -> Any:
    """Removes the heads from the model and its configuration in place, and returns it."""
    model.training_heads, model.config.training_heads = nn.ModuleDict(), {}
    return model
