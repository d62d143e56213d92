"""What all models share, above all loading: no file outside of a checkpoint's folder is read, and weights may have former
names. This file travels with every checkpoint.
"""

import copy
import json
import os
import re
import warnings
from collections.abc import Container, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel

from .training_heads import remove_training_heads


class CheckedModel(PreTrainedModel):
    """Base of the models: checks a local index of weights, and reads weights by their former names.

    transformers would read whatever file an index names. From the Hub nothing but a repository's own files is loaded:
    its client refuses other names.
    """

    accepts_loss_kwargs = False  # the loss is a mean over the batch; Trainer divides it for gradient accumulation
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    _supports_attention_backend = True
    # Former beginnings of the names of weights, as regular expressions, to current ones. PEFT reads it by this name.
    _checkpoint_conversion_mapping: dict[str, str] = {}

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path, *args, **kwargs):
        # Raises a ValueError that names the index and the file.
        folder = Path(pretrained_model_name_or_path or "", kwargs.get("subfolder", ""))
        indices = [*folder.glob("*.safetensors.index*.json"), *folder.glob("*.bin.index*.json")]
        for index in indices if pretrained_model_name_or_path else ():
            indexed_files(index)
        former = cls._checkpoint_conversion_mapping
        kwargs["key_mapping"] = {**former, **(kwargs.get("key_mapping") or {})}
        with _heads_may_be_empty():
            loaded = super().from_pretrained(pretrained_model_name_or_path, *args, **kwargs)
        model = loaded[0] if isinstance(loaded, tuple) else loaded
        # transformers saves a model under the names that it was loaded by, and ours are saved under the current ones.
        model._weight_conversions = [
            conversion for conversion in model._weight_conversions if not former.keys() & {*conversion.source_patterns}
        ]
        return loaded

    @classmethod
    def _from_config(cls, config, **kwargs):
        with _heads_may_be_empty():
            return super()._from_config(config, **kwargs)

    def without_training_heads(self):
        """A copy without the heads that only training needs, and with a configuration that names none."""
        return remove_training_heads(copy.deepcopy(self))


@contextmanager
def _heads_may_be_empty() -> Iterator[None]:
    """Within, torch does not warn of the heads of a model without classes, which have no weights to initialise."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Initializing zero-element tensors")
        yield


def indexed_files(index: Path) -> list[str]:
    """The files of weights that an index names, which lie beside it; a ValueError where it names another."""
    names = sorted(set(json.loads(index.read_text())["weight_map"].values()))
    for name in names:
        if os.path.basename(name) != name:
            raise ValueError(
                f"'{index}' names '{name}' as a file of weights, and those lie beside it: it was altered, so nothing is "
                "loaded. Get the checkpoint anew from whom you trust."
            )
    return names


def current_names(state_dict: Mapping[str, Any], known: Container[str]) -> dict[str, Any]:
    """A state dict that any version has saved of a multimodal model, or of its adapters, under the names `known` to the
    model. What is not among them under its current name stays as it is.
    """
    current = {name: re.sub(r"^(base_model\.model\.)?branches\.", r"\1encoders.", name) for name in state_dict}
    return {current[name] if current[name] in known else name: value for name, value in state_dict.items()}
