"""Handwritten and spoken digits as a recipe takes them: the processors, and the inputs of two image backbones."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from datasets import Dataset, DatasetDict

from hf_colearn.corpora.av_digits import IMAGE_SIZE, load_av_digits
from hf_colearn.data.audio import with_input_values
from hf_colearn.data.images import with_pixel_values
from hf_colearn.models.grayscale import GrayscaleImageProcessor
from hf_colearn.models.spectrogram import SpectrogramFeatureExtractor


@dataclass
class AVDigitsOptions:
    """What the recipes of handwritten and spoken digits take beside their other options; inherit from both."""

    audio_dir: str | None = field(default=None, metadata={"help": "Spoken digits: FSDD's files, or a folder a digit."})
    spectrogram_size: int = field(default=32, metadata={"help": "Mel bands and frames of a clip's picture."})

    def load(self, small: bool, skip_bad_samples: bool) -> DatasetDict:
        """The digits; ends the recipe where no spoken ones were given and it is no smoke test."""
        if self.audio_dir is None and not small:
            raise ValueError("no data: pass --audio_dir (spoken digits), or --small for a smoke test.")
        return load_av_digits(self.audio_dir, skip_bad_samples=skip_bad_samples)

    @property
    def sound(self) -> str:
        """What the clips are, in a word."""
        return "spoken" if self.audio_dir else "DTMF"


def av_processors(size: int = 64) -> dict[str, Any]:
    """Of an image and of a clip, as a spectrogram `[1, size, size]`; saved beside the model, in a folder a modality."""
    return {
        "image": GrayscaleImageProcessor(size={"height": IMAGE_SIZE, "width": IMAGE_SIZE}),
        "audio": SpectrogramFeatureExtractor(size=(size, size), sampling_rate=8000, n_fft=512),
    }


def with_av_inputs(raw: DatasetDict, processors: Mapping[str, Any]) -> dict[str, Dataset]:
    """The splits of `load_av_digits` with `image_pixel_values`, `audio_pixel_values` and `labels`, by [`av_processors`]."""
    inputs = {}
    for split, part in raw.items():
        part = part.select_columns([c for c in ("image", "audio", "label", "sample_id") if c in part.column_names])
        part = with_pixel_values(part, processors["image"]).rename_column("pixel_values", "image_pixel_values")
        part = with_input_values(part, processors["audio"], label_column="labels")
        inputs[str(split)] = part.rename_column("pixel_values", "audio_pixel_values")
    return inputs
