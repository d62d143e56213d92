"""False cues: what says the class in one modality while training, and at test time is gone or says another class.

A model that takes the shortcut (Geirhos et al., "Shortcut Learning in Deep Neural Networks", 2020) is right for the wrong
reason. The test sets built here show it, and whether the other modality, which has no cue, corrects it. The coloured digits
of Arjovsky et al. ("Invariant Risk Minimization", 2019) are of this kind.

Shapes: N samples, C classes, T samples of a waveform, H x W pixels, P the patch's side.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import datasets
import numpy as np
from datasets import ClassLabel, Dataset, DatasetDict, Features, List, Value
from PIL import Image

from hf_colearn.data.audio import read_waveform
from hf_colearn.data.columns import STORED_MEDIA, as_stored, check_columns
from hf_colearn.data.images import as_rgb, open_image
from hf_colearn.data.noise import wav_bytes
from hf_colearn.data.text import read_text
from hf_colearn.utils.checks import check_choice


MODES = ("aligned", "removed", "flipped", "random")
CUE_LABEL = "cue_label"  # the column of the classes that the cues say


# ---- the cues: `check` refuses a column of another modality and too many classes, `plant` gives a cell with the cue ----
@dataclass(frozen=True)
class PatchCue:
    """A square patch that says the class by its place or by its brightness; for a column of images.

    *By place*, half of the patch is white and half black, so that it shows on any background; the places are spread evenly
    over the image's border. *By brightness*, it lies in the top left corner, from black for the first class to white for the
    last. Images keep their size and stay grayscale or RGB; others become RGB. They are stored losslessly, as PNG.

    Args:
        size (`int`, *optional*, defaults to 4): The patch's side, in pixels of the stored image.
        by (`str`, *optional*, defaults to `"place"`): `"place"` or `"brightness"`.
    """

    size: int = 4
    by: str = "place"

    def __post_init__(self):
        if self.size < 2:
            raise ValueError(f"size={self.size} is no patch that shows: pass at least 2 pixels.")
        check_choice("by", self.by, ("place", "brightness"))

    def check(self, column: str, feature: Any, num_classes: int) -> None:
        if not isinstance(feature, datasets.Image):
            raise ValueError(
                f"column '{column}' holds {feature}, and a patch is for images: name their column, or cast it with "
                "`dataset.cast_column(column, datasets.Image())`."
            )
        if self.by == "brightness" and num_classes > 256:
            raise ValueError(f"a grayscale patch tells 256 classes apart, not {num_classes}: pass by='place'.")

    def plant(self, cell: Any, row: int, cue_class: int, num_classes: int) -> Image.Image:
        image_HWC = np.array(as_rgb(cell, row))
        opened = open_image(cell)
        is_grayscale = opened is not None and opened.mode == "L"
        height, width, _ = image_HWC.shape
        top, left = self._top_left(height, width, row, cue_class, num_classes)
        patch_PPC = image_HWC[top : top + self.size, left : left + self.size]
        if self.by == "brightness":
            patch_PPC[:] = round(255 * cue_class / (num_classes - 1))
        else:
            patch_PPC[: self.size // 2], patch_PPC[self.size // 2 :] = 255, 0
        planted = Image.fromarray(image_HWC)
        return planted.convert("L") if is_grayscale else planted

    def _top_left(self, height: int, width: int, row: int, cue_class: int, num_classes: int) -> tuple[int, int]:
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
        y, x = border[cue_class * len(border) // num_classes]
        return y * self.size, x * self.size


@dataclass(frozen=True)
class ToneCue:
    """A sine tone under the whole clip that says the class by its pitch; for a column of audio.

    The pitches are spaced geometrically from `low_hz`, the first class's, to `high_hz`, the last one's. Clips of an `Audio`
    column are stored as mono WAV files of 32-bit floats at their own rate, so that nothing is rounded or clipped.

    Args:
        low_hz, high_hz (`float`, *optional*, defaults to 500 and 3500): In Hz; `high_hz` below half of every clip's rate.
        snr_db (`float`, *optional*, defaults to 10): The ratio of the clip's mean power to the tone's, in dB.
        sampling_rate (`int`, *optional*): In Hz, of a column of bare arrays `(T,)`, whose rate is stored nowhere.
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
        is_array = isinstance(feature, List) and feature.feature in (Value("float32"), Value("float64"))
        if not is_array and not isinstance(feature, datasets.Audio):
            raise ValueError(
                f"column '{column}' holds {feature}, and a tone is for audio: name its column, or cast it with "
                "`dataset.cast_column(column, datasets.Audio(decode=False))`."
            )
        if is_array and not self.sampling_rate:
            raise ValueError(f"column '{column}' holds bare arrays, of an unknown rate: pass `sampling_rate`.")

    def plant(self, cell: Any, row: int, cue_class: int, num_classes: int) -> Any:
        """An array where it was one, else a WAV file."""
        is_array = isinstance(cell, (list, np.ndarray))
        wave_T, rate = read_waveform(cell, row, array_rate=self.sampling_rate)
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
        tone_T = np.sin(2 * np.pi * hz_C[cue_class] * np.arange(len(wave_T)) / rate)
        powers = [np.mean(np.square(x_T, dtype=np.float64)) for x_T in (wave_T, tone_T)]
        tone_T *= math.sqrt(powers[0] / powers[1] * 10 ** (-self.snr_db / 10))
        heard_T = (wave_T + tone_T).astype(np.float32)
        return heard_T if is_array else {"bytes": wav_bytes(heard_T, rate), "path": None}


@dataclass(frozen=True)
class WordCue:
    """A word in front of the text that says the class; for a column of texts.

    Args:
        words (`Sequence[str]`): One a class, no two alike but for case. Choose what does not occur in the texts, and what
            the student's tokenizer knows: unknown words would all be the same.
    """

    words: Sequence[str]

    def __post_init__(self):
        folded = [word.strip().casefold() for word in self.words]
        for word, plain in zip(self.words, folded, strict=True):
            if not plain or folded.count(plain) > 1:
                raise ValueError(f"{word!r} among the words is empty or there twice: pass another one a class.")

    def check(self, column: str, feature: Any, num_classes: int) -> None:
        if feature not in (Value("string"), Value("large_string")):
            raise ValueError(f"column '{column}' holds {feature}, and a word is for texts: name their column.")
        if len(self.words) < num_classes:
            raise ValueError(f"{len(self.words)} words cannot tell {num_classes} classes apart: pass one a class.")

    def plant(self, cell: Any, row: int, cue_class: int, num_classes: int) -> str:
        return f"{self.words[cue_class].strip()} {read_text(cell, row)}"


Cue = PatchCue | ToneCue | WordCue


# ---- datasets with cues ----
def plant_cue(
    dataset: Dataset,
    column: str,
    cue: Cue,
    strength: float = 0.95,
    mode: str = "aligned",
    label_column: str = "label",
    seed: int | Sequence[int] = 0,
) -> Dataset:
    """Plants a cue in one column of every sample; labels and all other columns stay as they are.

    Args:
        dataset ([`datasets.Dataset`]): With N samples and a `ClassLabel` of C classes.
        column (`str`): Of the cue's modality.
        cue ([`PatchCue`], [`ToneCue`] or [`WordCue`]): What says the class.
        strength (`float`, *optional*, defaults to 0.95): Of aligned cues, the probability that one says the sample's own
            class, above 0, up to 1. 1/C is no association, less a reversed one.
        mode (`str`, *optional*, defaults to `"aligned"`): What the cue says.

            - `"aligned"`: the sample's own class with probability `strength`, else a random other one.
            - `"removed"`: nothing. The samples are as they were, to the last bit.
            - `"flipped"`: a random other class, always.
            - `"random"`: a random class, whatever the sample's.
        label_column (`str`, *optional*, defaults to `"label"`): The labels' column.
        seed (`int` or `Sequence[int]`, *optional*, defaults to 0): Draws what the cues say, row by row.

    Returns:
        [`datasets.Dataset`]: With `cue_label`, the class that the cue says, a `ClassLabel` as the labels are; `None` where
        the cue is removed. The share of predictions that equal it is how often a model follows the cue.

    Raises:
        ValueError: If an argument is out of range, a column is missing, of another modality or planted before, a label is
            no class, or the cue cannot tell so many classes apart in a sample; it names the row.
    """
    check_choice("mode", mode, MODES)
    if not 0 < strength <= 1:
        raise ValueError(f"strength={strength} is no probability above 0: pass one up to 1.")
    check_columns(dataset, column, label_column)
    if CUE_LABEL in dataset.column_names:
        raise ValueError(f"the dataset has a column '{CUE_LABEL}' already, of another cue: rename or remove it.")
    dataset, feature = dataset.with_format(None), dataset.features[column]
    labels_N, num_classes = _labels(dataset, label_column), dataset.features[label_column].num_classes
    said = ClassLabel(names=dataset.features[label_column].names)
    cue.check(column, feature, num_classes)
    if mode == "removed":
        return dataset.add_column(CUE_LABEL, [None] * len(dataset), feature=said)
    rng = np.random.default_rng(seed)
    said_N = (labels_N + rng.integers(1, num_classes, len(labels_N))) % num_classes  # another class
    if mode == "aligned":
        said_N = np.where(rng.random(len(labels_N)) < strength, labels_N, said_N)
    elif mode == "random":
        said_N = rng.integers(0, num_classes, len(labels_N))
    dataset = dataset.add_column(CUE_LABEL, said_N.tolist(), feature=said)

    def plant(cell: Any, cue_class: int, row: int) -> dict[str, Any]:
        return {column: cue.plant(cell, row, cue_class, num_classes)}

    stored = STORED_MEDIA if isinstance(feature, datasets.Audio) else feature
    planted = as_stored(dataset, column).map(
        plant,
        with_indices=True,
        input_columns=[column, CUE_LABEL],
        features=Features({**dataset.features, column: stored}),
        desc="Planting cues",
    )
    return planted.cast_column(column, feature) if stored is STORED_MEDIA else planted


def spurious_splits(
    splits: DatasetDict, column: str, cue: Cue, strength: float = 0.95, label_column: str = "label", seed: int = 0
) -> DatasetDict:
    """All splits with the cue aligned, and two more test sets: of the same test samples, the cue removed and flipped.

    Validation is aligned as training is, as for a practitioner who does not know of the cue: a checkpoint that is chosen on
    it is chosen for following the cue.

    Args:
        splits ([`datasets.DatasetDict`]): With `test`, and whatever else there is.
        column, cue, strength, label_column: As [`plant_cue`] takes them.
        seed (`int`, *optional*, defaults to 0): Draws what the cues say, in every split anew.

    Returns:
        [`datasets.DatasetDict`]: The same splits and `cue_removed` and `cue_flipped`, all with `cue_label`.

    Example:

    ```python
    splits = spurious_splits(load_av_digits("FSDD"), "image", PatchCue(size=4))
    follows = accuracy(predictions, np.array(splits["cue_flipped"]["cue_label"]))  # where it should be right
    ```
    """
    if "test" not in splits:
        raise ValueError(f"the data have no split 'test' (they have {', '.join(splits)}): cut it from another one.")
    modes = {name: (name, "aligned") for name in splits}
    modes |= {"cue_removed": ("test", "removed"), "cue_flipped": ("test", "flipped")}
    return DatasetDict(
        (name, plant_cue(splits[split], column, cue, strength, mode, label_column, seed=(seed, number)))
        for number, (name, (split, mode)) in enumerate(modes.items())
    )


def _labels(dataset: Dataset, label_column: str) -> np.ndarray:
    """The labels `(N,)`, int64."""
    feature = dataset.features[label_column]
    if not isinstance(feature, ClassLabel):
        raise ValueError(
            f"column '{label_column}' holds {feature}, which does not tell how many classes there are: "
            "`dataset.class_encode_column(column)` makes classes of its values."
        )
    if feature.num_classes < 2:
        raise ValueError(f"column '{label_column}' has {feature.num_classes} class: no other one is there to say.")
    labels = dataset[label_column][:]
    for row, label in enumerate(labels):
        if label not in range(feature.num_classes):
            raise ValueError(f"row {row} has label {label}, which is none of {feature.num_classes} classes: mend it.")
    return np.array(labels, dtype=np.int64)
