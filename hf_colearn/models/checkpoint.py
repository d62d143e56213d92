"""Loading a checkpoint reads no file outside of its folder; travels with every checkpoint."""

import json
import os
from pathlib import Path

from transformers import PreTrainedModel


class CheckedModel(PreTrainedModel):
    """Base of the models that look at a local index of weights before transformers follows it.

    transformers would read whatever file such an index names. From the Hub nothing but a repository's own files is
    loaded: its client refuses other names.
    """

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path, *args, **kwargs):
        # Raises a ValueError that names the index and the file.
        folder = Path(pretrained_model_name_or_path or "", kwargs.get("subfolder", ""))
        indices = [*folder.glob("*.safetensors.index*.json"), *folder.glob("*.bin.index*.json")]
        for index in indices if pretrained_model_name_or_path else ():
            for name in sorted(set(json.loads(index.read_text())["weight_map"].values())):
                if os.path.basename(name) != name:
                    raise ValueError(
                        f"'{index}' names '{name}' as a file of weights, and those lie beside it: it was altered, so "
                        "nothing is loaded. Get the checkpoint anew from whom you trust."
                    )
        return super().from_pretrained(pretrained_model_name_or_path, *args, **kwargs)
