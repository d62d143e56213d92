"""Pictures (S x S pixels) with a text as a recipe takes them: tokens once, pixels as a sample is read."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from datasets import Dataset, concatenate_datasets

from hf_colearn.corpora.base import HubOptions
from hf_colearn.data.columns import with_lazy_input
from hf_colearn.data.images import ImageTransform
from hf_colearn.data.text import with_input_ids


MODALITIES = ("image", "text")


@dataclass
class ImageTextOptions(HubOptions):
    """What the recipes of pictures with a text take beside their other options; inherit from both."""

    text_backbone: str = field(
        default="google-bert/bert-base-uncased",
        metadata={"help": "Hub id or folder; or bert_tiny, with a tokenizer of the training texts, for a smoke test."},
    )
    image_backbone: str = field(
        default="microsoft/resnet-50", metadata={"help": "Hub id or folder; or resnet_tiny, for a smoke test."}
    )
    max_tokens: int = field(default=50, metadata={"help": "Of a text, with the special ones; it loses its end."})
    image_size: int = field(default=224, metadata={"help": "Pixels of a picture's side."})
    min_crop: float = field(default=0.5, metadata={"help": "Least share of a picture's area in a training crop."})

    def inputs(
        self, splits: Mapping[str, Dataset], processor: Any, tokenizer: Any, pair_column: str | None = None
    ) -> dict[str, Dataset]:
        """Tokenizes the splits and lets them read `image_pixel_values` `(3, S, S)`; crops are random in `train` alone.

        Nothing is mirrored: pictures of tweets have words in them. The splits have `image`, the texts (second ones in
        `pair_column`) and `label`, which becomes `labels`.
        """
        made = {}
        for split, part in splits.items():
            kept = [column for column in ("image", "sample_id") if column in part.column_names]
            texts = with_input_ids(
                part.remove_columns(kept), tokenizer, max_length=self.max_tokens, pair_column=pair_column
            ).with_format(None)
            names = [name for name in tokenizer.model_input_names if name in texts.column_names]
            texts = texts.select_columns([*names, "labels"]).rename_columns({name: f"text_{name}" for name in names})
            # Side by side, so that the pictures are not written a second time.
            whole = concatenate_datasets([part.select_columns(kept), texts], axis=1)
            # An error names the file; the row is not known here.
            transform = ImageTransform(
                processor, split == "train", scale=(self.min_crop, 1.0), hflip=False, id_columns=("file",)
            )
            read = partial(_pixels, transform=transform)
            made[str(split)] = with_lazy_input(whole, "image", "image_pixel_values", read)
        return made


def _pixels(cell: Mapping[str, Any], transform: ImageTransform) -> torch.Tensor:
    """An encoded picture as `(3, S, S)` float32."""
    return transform({"image": [cell], "label": [0], "file": [cell["path"]]})["pixel_values"][0]
