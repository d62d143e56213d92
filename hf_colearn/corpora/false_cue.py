"""False cues: what says the class in one modality while training, and at test time is gone or says another class.

A model that takes the shortcut (Geirhos et al., "Shortcut Learning in Deep Neural Networks", 2020) is right for the wrong
reason, which an ordinary test split hides. On the test sets built here it shows, and so does whether the other modality,
which has no cue, corrects it. The coloured digits of Arjovsky et al. ("Invariant Risk Minimization", 2019) are of this kind.

Shapes: N samples, C classes.
"""

from collections.abc import Sequence
from typing import Any

import datasets
import numpy as np
from datasets import ClassLabel, Dataset, DatasetDict, Features

from hf_colearn.corpora.cues import Cue
from hf_colearn.corpora.base import STORED_MEDIA as STORED_AUDIO


MODES = ("aligned", "removed", "flipped", "random")
CUE_LABEL = "cue_label"  # the column that tells which class the cue says


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
        ValueError: If the mode is unknown, the strength is none, a column is missing, of another modality or planted before,
            a label is no class, or the cue cannot tell so many classes apart in a sample; it names the row.

    Example:

    ```python
    train = plant_cue(digits["train"], "image", PatchCue(size=4), strength=0.95)
    lying = plant_cue(digits["test"], "image", PatchCue(size=4), mode="flipped")
    ```
    """
    if mode not in MODES:
        raise ValueError(f"mode='{mode}' is unknown: choose one of {', '.join(MODES)}.")
    if not 0 < strength <= 1:
        raise ValueError(f"strength={strength} is no probability above 0: pass one up to 1.")
    for name in (column, label_column):
        if name not in dataset.column_names:
            raise ValueError(f"the dataset has no column '{name}' (it has {dataset.column_names}): name it.")
    if CUE_LABEL in dataset.column_names:
        raise ValueError(f"the dataset has a column '{CUE_LABEL}' already, of another cue: rename or remove it.")
    dataset, feature = dataset.with_format(None), dataset.features[column]
    labels_N, names = _labels(dataset, label_column)
    num_classes = len(names)
    cue.check(column, feature, num_classes)
    if mode == "removed":
        return dataset.add_column(CUE_LABEL, [None] * len(dataset), feature=ClassLabel(names=names))

    rng = np.random.default_rng(seed)
    said_N = (labels_N + rng.integers(1, num_classes, len(labels_N))) % num_classes  # another class
    if mode == "aligned":
        said_N = np.where(rng.random(len(labels_N)) < strength, labels_N, said_N)
    elif mode == "random":
        said_N = rng.integers(0, num_classes, len(labels_N))
    dataset = dataset.add_column(CUE_LABEL, said_N.tolist(), feature=ClassLabel(names=names))
    stored = feature
    if isinstance(feature, datasets.Image):
        dataset = dataset.cast_column(column, datasets.Image(decode=False))  # decoded where the row is known
    elif isinstance(feature, datasets.Audio):
        dataset = dataset.cast_column(column, datasets.Audio(decode=False))
        stored = STORED_AUDIO  # the encoder of `Audio` needs torchcodec

    def plant(cell: Any, said: int, row: int) -> dict[str, Any]:
        return {column: cue.plant(cell, row, said, num_classes)}

    planted = dataset.map(
        plant,
        with_indices=True,
        input_columns=[column, CUE_LABEL],
        features=Features({**dataset.features, column: stored}),
        desc="Planting cues",
    )
    return planted.cast_column(column, feature) if stored is STORED_AUDIO else planted


def spurious_splits(
    splits: DatasetDict,
    column: str,
    cue: Cue,
    strength: float = 0.95,
    label_column: str = "label",
    seed: int = 0,
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

    Raises:
        ValueError: If there is no test split, or as [`plant_cue`] does.

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
        {
            name: plant_cue(splits[split], column, cue, strength, mode, label_column, seed=(seed, number))
            for number, (name, (split, mode)) in enumerate(modes.items())
        }
    )


def _labels(dataset: Dataset, label_column: str) -> tuple[np.ndarray, list[str]]:
    """The labels `(N,)` and the classes' names."""
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
    return np.array(labels, dtype=np.int64), feature.names
