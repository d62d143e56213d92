"""Pictures with a text as a recipe takes them: tokens once, pixels as a sample is read.

Shapes: S x S pixels of a picture.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
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

        Nothing is mirrored: pictures of tweets have words in them.

        Args:
            splits (`Mapping[str, Dataset]`): With `image`, the texts and `label`, which becomes `labels`.
            processor: Of the pictures.
            tokenizer: Of the texts.
            pair_column (`str`, *optional*): Of second texts, as [`~hf_colearn.data.text.with_input_ids`] takes it.
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
            picture = _Picture(processor, split == "train", self.min_crop)
            made[str(split)] = with_lazy_input(whole, "image", "image_pixel_values", picture)
        return made


class _Picture:
    """An encoded picture as `(3, S, S)` float32. It can be pickled for workers."""

    def __init__(self, processor: Any, train: bool, min_crop: float):
        self.transform = ImageTransform(
            processor, train, scale=(min_crop, 1.0), hflip=False, id_columns=("file",)
        )  # an error names the file; the row is not known here

    def __call__(self, cell: Mapping[str, Any]) -> torch.Tensor:
        return self.transform({"image": [cell], "label": [0], "file": [cell["path"]]})["pixel_values"][0]
