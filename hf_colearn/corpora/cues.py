"""What a false cue looks and sounds like: a patch, a tone, a word.

Every cue has two methods: `check` refuses a column of another modality and more classes than the cue tells apart, and
`plant` gives a sample's cell with the cue that says a class. [`~hf_colearn.corpora.false_cue.plant_cue`] calls them.

Shapes: T samples of a waveform, H x W pixels, P the patch's side, C classes.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import datasets
import numpy as np
from datasets import List, Value
from PIL import Image

from hf_colearn.data.noise import wav_bytes
from hf_colearn.data.audio import read_waveform
from hf_colearn.data.images import as_rgb
from hf_colearn.data.text import read_text


@dataclass(frozen=True)
class PatchCue:
    """A square patch that says the class by its place or by its brightness; for a column of images.

    *By place*, half of the patch is white and half black, so that it shows on any background; the places are spread evenly
    over the image's border. *By brightness*, it lies in the top left corner, from black for the first class to white for the
    last. Images keep their size and stay grey or RGB; others become RGB. They are stored as PNG, so that pixels outside the
    patch are what they were.

    Args:
        size (`int`, *optional*, defaults to 4): The patch's side, in pixels of the stored image.
        by (`str`, *optional*, defaults to `"place"`): `"place"` or `"brightness"`.

    Raises:
        ValueError: If there is no such patch.
    """

    size: int = 4
    by: str = "place"

    def __post_init__(self):
        if self.size < 2:
            raise ValueError(f"size={self.size} is no patch that shows: pass at least 2 pixels.")
        if self.by not in ("place", "brightness"):
            raise ValueError(f"by='{self.by}' is unknown: choose 'place' or 'brightness'.")

    def check(self, column: str, feature: Any, num_classes: int) -> None:
        """Refuses columns that hold no images, and more classes than there are grey levels."""
        if not isinstance(feature, datasets.Image):
            raise ValueError(
                f"column '{column}' holds {feature}, and a patch is for images: name their column, or cast it with "
                "`dataset.cast_column(column, datasets.Image())`."
            )
        if self.by == "brightness" and num_classes > 256:
            raise ValueError(f"a grey patch tells 256 classes apart, not {num_classes}: pass by='place'.")

    def plant(self, cell: Any, row: int, said: int, num_classes: int) -> Image.Image:
        """The image of a cell with the patch of class `said`."""
        rgb = as_rgb(cell, row)
        is_grey = datasets.Image().decode_example(cell).mode == "L"  # it can be decoded: `as_rgb` did
        image_HWC = np.array(rgb)
        height, width, _ = image_HWC.shape
        top, left = self._corner(height, width, row, said, num_classes)
        patch_PPC = image_HWC[top : top + self.size, left : left + self.size]
        if self.by == "brightness":
            patch_PPC[:] = round(255 * said / (num_classes - 1))
        else:
            patch_PPC[: self.size // 2], patch_PPC[self.size // 2 :] = 255, 0
        planted = Image.fromarray(image_HWC)
        return planted.convert("L") if is_grey else planted

    def _corner(self, height: int, width: int, row: int, said: int, num_classes: int) -> tuple[int, int]:
        """Top and left of the patch."""
        if self.size > min(height, width):
            raise ValueError(
                f"size={self.size} is larger than the image in row {row} ({width} x {height} pixels): pass a smaller one."
            )
        if self.by == "brightness":
            return 0, 0
        rows, columns = height // self.size, width // self.size
        border = [(y, x) for y in range(rows) for x in range(columns) if y in (0, rows - 1) or x in (0, columns - 1)]
        if len(border) < num_classes:
            raise ValueError(
                f"the border of the image in row {row} ({width} x {height} pixels) has {len(border)} places for a patch of "
                f"{self.size} pixels, and there are {num_classes} classes: pass a smaller size, or by='brightness'."
            )
        y, x = border[said * len(border) // num_classes]
        return y * self.size, x * self.size


@dataclass(frozen=True)
class ToneCue:
    """A sine tone under the whole clip that says the class by its pitch; for a column of audio.

    The pitches are spaced geometrically from `low_hz`, the first class's, to `high_hz`, the last one's. Clips of an `Audio`
    column are stored as mono WAV files of 32-bit floats at their own rate, so that nothing is rounded or clipped.

    Args:
        low_hz, high_hz (`float`, *optional*, defaults to 500 and 3500): In Hz; `high_hz` below half of every clip's rate.
        snr_db (`float`, *optional*, defaults to 10): The ratio of the clip's mean power to the tone's, in dB.
        sampling_rate (`int`, *optional*): In Hz, of a column of bare arrays `(T,)`, which do not tell it.

    Raises:
        ValueError: If there are no such tones.
    """

    low_hz: float = 500.0
    high_hz: float = 3500.0
    snr_db: float = 10.0
    sampling_rate: int | None = None

    def __post_init__(self):
        if not 0 < self.low_hz < self.high_hz < math.inf:
            raise ValueError(
                f"low_hz={self.low_hz} and high_hz={self.high_hz} are no range of pitches: pass two numbers above 0, the "
                "lower one first."
            )
        if not math.isfinite(self.snr_db):
            raise ValueError(f"snr_db={self.snr_db} is no ratio: pass a finite number of dB.")

    def check(self, column: str, feature: Any, num_classes: int) -> None:
        """Refuses columns that hold no audio, and bare arrays of an unknown rate."""
        is_array = isinstance(feature, List) and feature.feature in (Value("float32"), Value("float64"))
        if not is_array and not isinstance(feature, datasets.Audio):
            raise ValueError(
                f"column '{column}' holds {feature}, and a tone is for audio: name its column, or cast it with "
                "`dataset.cast_column(column, datasets.Audio(decode=False))`."
            )
        if is_array and not self.sampling_rate:
            raise ValueError(f"column '{column}' holds bare arrays, of an unknown rate: pass `sampling_rate`.")

    def plant(self, cell: Any, row: int, said: int, num_classes: int) -> Any:
        """The clip of a cell with the tone of class `said`: an array where it was one, else a WAV file."""
        is_array = isinstance(cell, (list, np.ndarray))
        wave_T, rate = read_waveform(cell, row, self.sampling_rate if is_array else None)
        hz_C = np.geomspace(self.low_hz, self.high_hz, num_classes)
        if self.high_hz >= rate / 2:
            raise ValueError(
                f"high_hz={self.high_hz} cannot sound in row {row}, whose rate is {rate} Hz: pass less than {rate / 2:g}."
            )
        if hz_C[1] - hz_C[0] < rate / len(wave_T):  # less than a period over the clip
            raise ValueError(
                f"the clip in row {row} lasts {len(wave_T) / rate:.3g} s, too short to tell {hz_C[0]:.1f} Hz from "
                f"{hz_C[1]:.1f} Hz, as {num_classes} classes need: pass a wider range of pitches, or leave it out."
            )
        tone_T = np.sin(2 * np.pi * hz_C[said] * np.arange(len(wave_T)) / rate)
        powers = [np.mean(np.square(x_T, dtype=np.float64)) for x_T in (wave_T, tone_T)]
        tone_T *= math.sqrt(powers[0] / powers[1] * 10 ** (-self.snr_db / 10))
        heard_T = (wave_T + tone_T).astype(np.float32)
        return heard_T if is_array else {"bytes": wav_bytes(heard_T, rate), "path": None}


@dataclass(frozen=True)
class WordCue:
    """A word in front of the text that says the class; for a column of texts.

    Args:
        words (`Sequence[str]`): One a class. Choose what does not occur in the texts, and what the student's tokenizer
            knows: unknown words would all be the same.

    Raises:
        ValueError: If one is empty, or two differ in nothing but case.
    """

    words: Sequence[str]

    def __post_init__(self):
        folded = [word.strip().casefold() for word in self.words]
        for word, plain in zip(self.words, folded, strict=True):
            if not plain or folded.count(plain) > 1:
                raise ValueError(
                    f"{word!r} among the words is empty or there twice: pass another word for every class."
                )

    def check(self, column: str, feature: Any, num_classes: int) -> None:
        """Refuses columns that hold no texts, and more classes than words."""
        if feature not in (Value("string"), Value("large_string")):
            raise ValueError(f"column '{column}' holds {feature}, and a word is for texts: name their column.")
        if len(self.words) < num_classes:
            raise ValueError(f"{len(self.words)} words cannot tell {num_classes} classes apart: pass one a class.")

    def plant(self, cell: Any, row: int, said: int, num_classes: int) -> str:
        """The text of a cell behind the word of class `said`."""
        return f"{self.words[said].strip()} {read_text(cell, row)}"


Cue = PatchCue | ToneCue | WordCue
