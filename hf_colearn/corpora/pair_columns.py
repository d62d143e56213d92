"""Which columns of a dataset are the input, the other modality and the label, told by their types, values and names."""

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import datasets
import numpy as np
from datasets import ClassLabel, Dataset, LargeList, List, Value


IMAGES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff")
SOUNDS = (".wav", ".flac", ".ogg", ".mp3", ".opus", ".m4a", ".aiff", ".aif")
# Modalities, what is harder to get words of first: where nothing else is said, it is the input.
MODALITIES = ("image", "audio", "features", "text")
ALL_NUMBERS = "features"  # `--input features` where no column has that name
NO_COLUMN = "none"  # `--label none`

# Names that settle what the values leave open, the surest first.
_LABELS = ("label", "labels", "class", "category", "target", "y", "emotion", "intent", "sentiment", "score", "rating")
_TEXTS = ("text", "caption", "captions", "transcript", "transcription", "sentence", "description", "normalized_text")
_IDS = (
    "id",
    "ids",
    "uid",
    "uuid",
    "guid",
    "index",
    "idx",
    "key",
    "file",
    "file_name",
    "filename",
    "path",
    "url",
    "hash",
)
_SEEN = 1000  # values that are looked at
_LONG = 3.0  # words: strings that repeat are names of classes below, texts above


@dataclass(frozen=True)
class PairColumns:
    """What the columns are for.

    Args:
        input (`tuple[str, ...]`): One column, or several of numbers, which together are features.
        input_kind (`str`): One of `"image"`, `"audio"`, `"features"` and `"text"`.
        other (`str`, *optional*): The column of the other modality.
        other_kind (`str`, *optional*): Its modality.
        label (`str`, *optional*): The column of labels.
    """

    input: tuple[str, ...]
    input_kind: str
    other: str | None
    other_kind: str | None
    label: str | None


def find_columns(
    dataset: Dataset, input: str | None = None, other: str | None = None, label: str | None = None
) -> PairColumns:
    """Finds out what is not said; where two columns would do, it asks.

    The label is the column of classes (`ClassLabel`, booleans, short strings that repeat), or that with the name of one;
    the input the column of pictures, else of sounds, of features, of texts; the other modality what remains of another
    kind. Columns named as ids and files are none of them. The numbers of a table, each a column, are one input of features
    where there are no pictures and sounds.

    Args:
        dataset ([`datasets.Dataset`]): The training split.
        input, other, label (`str`, *optional*): What is known; `label="none"` where there is none, and `input="features"` for
            all numbers of a table.

    Raises:
        ValueError: If a column is not there, or several could be meant; it names the candidates and the option.
    """
    kinds = {name: kind_of(dataset, name) for name in dataset.column_names}
    has_all_numbers = input == ALL_NUMBERS and ALL_NUMBERS not in kinds
    for option, name in (("--input", None if has_all_numbers else input), ("--other", other), ("--label", label)):
        if name is not None and name not in kinds and (option, name) != ("--label", NO_COLUMN):
            near = difflib.get_close_matches(name, kinds, n=1)
            meant = f"did you mean '{near[0]}'?" if near else f"it has {_listed(kinds, kinds)}."
            raise ValueError(f"there is no column '{name}' for {option} in the data: {meant}")
    if label is None:
        label = _label(kinds, {name for name in (input, other) if name})
    label = None if label == NO_COLUMN else label
    free = {
        name: kind
        for name, kind in kinds.items()
        if name != label and (kind in ("image", "audio") or not _is_id(name))
    }
    contents = {name: kind for name, kind in free.items() if kind in MODALITIES}
    numbers = tuple(
        name
        for name, kind in free.items()
        if kind in ("number", "integer")
        and name != other
        and name.lower() not in _LABELS  # which would tell the label
    )
    if input is not None and not has_all_numbers:
        chosen, kind = (input,), _content(kinds, input, "--input")
    elif has_all_numbers or (numbers and not {"image", "audio", "features"} & {*contents.values()}):
        if not numbers:
            raise ValueError(f"no column for --input features holds numbers: it has {_listed(kinds, kinds)}.")
        chosen, kind = numbers, "features"
    else:
        chosen, kind = _input(contents, kinds, other)
    if other is not None:
        if other in chosen:
            raise ValueError(f"--input and --other are both '{other}': the other modality is another column.")
        return PairColumns(chosen, kind, other, _content(kinds, other, "--other"), label)
    found = _other({name: of for name, of in contents.items() if name not in chosen and of != kind})
    return PairColumns(chosen, kind, found, None if found is None else contents[found], label)


# ---- one column ----
def kind_of(dataset: Dataset, column: str) -> str:
    """A modality, or `"classes"`, `"integer"`, `"number"`, `"several"` (labels a sample) or `"unknown"`."""
    feature = dataset.features[column]
    if isinstance(feature, (datasets.Image, datasets.Audio)):
        return "image" if isinstance(feature, datasets.Image) else "audio"
    if isinstance(feature, ClassLabel):
        return "classes"
    if isinstance(feature, (List, LargeList)):
        of = feature.feature
        is_number = isinstance(of, Value) and ("float" in of.dtype or "int" in of.dtype)
        if is_number and column not in _LABELS:
            return "features"
        return "several" if is_number or isinstance(of, ClassLabel) or _is_string(of) else "unknown"
    if not isinstance(feature, Value):
        return "unknown"
    if feature.dtype == "bool":
        return "classes"
    if "int" in feature.dtype:
        return "integer"
    if "float" in feature.dtype or "decimal" in feature.dtype:
        return "number"
    return _kind_of_strings(dataset, column) if _is_string(feature) else "unknown"


def _is_string(feature: Any) -> bool:
    return isinstance(feature, Value) and "string" in feature.dtype


def _kind_of_strings(dataset: Dataset, column: str) -> str:
    rows = np.linspace(0, len(dataset) - 1, min(_SEEN, len(dataset))).astype(int)
    cells = [cell for cell in dataset.select(rows)[column] if cell is not None and cell.strip()]
    if not cells:
        return "text"
    for kind, endings in (("image", IMAGES), ("audio", SOUNDS)):
        if all(cell.lower().endswith(endings) for cell in cells):
            return kind
    words = np.mean([len(cell.split()) for cell in cells])
    repeats = 2 * len(set(cells)) <= len(cells) and len(set(cells)) < len(cells)
    return "classes" if repeats and words <= _LONG and column not in _TEXTS else "text"


def _is_id(name: str) -> bool:
    lower = name.lower()
    return lower in _IDS or lower.endswith(("_id", "_path", "_url", "_file", "_hash")) or lower.startswith("__index")


# ---- the choice ----
def _label(kinds: dict[str, str], taken: set[str]) -> str | None:
    able = {
        name: kind for name, kind in kinds.items() if name not in taken and kind not in ("image", "audio", "unknown")
    }
    lower = {name.lower(): name for name in able}
    for name in _LABELS:
        if name in lower and able[lower[name]] != "features":
            return lower[name]
    classes = [name for name, kind in able.items() if kind == "classes" and not _is_id(name)]
    if len(classes) > 1:
        raise ValueError(
            f"{_and(classes)} could each be the label: choose with --label, such as --label {classes[0]} (or --label none)."
        )
    return classes[0] if classes else None


def _content(kinds: dict[str, str], column: str, option: str) -> str:
    """The modality of a column that was named for it."""
    kind = kinds[column]
    kind = "text" if kind == "classes" else "features" if kind in ("number", "integer") else kind
    if kind not in MODALITIES:
        raise ValueError(
            f"column '{column}' for {option} is of no modality that a model reads: it needs pictures, sounds, texts, or lists "
            "of numbers."
        )
    return kind


def _input(contents: dict[str, str], kinds: dict[str, str], other: str | None) -> tuple[tuple[str], str]:
    able = {name: kind for name, kind in contents.items() if name != other}
    if not able:
        raise ValueError(
            f"no column holds pictures, sounds, texts or lists of numbers (they are {_listed(kinds, kinds)}): name the one "
            "that the student reads with --input."
        )
    raw = [name for name, kind in able.items() if kind in ("image", "audio")]
    best = raw or [name for name, kind in able.items() if kind == min(able.values(), key=MODALITIES.index)]
    if len(best) > 1:
        example = f"--input {best[0]}" + ("" if other else f" --other {best[1]}")
        raise ValueError(
            f"{_listed(best, kinds)} could each be the input: choose what the student reads with --input and, where it is not "
            f"clear either, the other modality with --other, such as {example}."
        )
    return (best[0],), able[best[0]]


def _other(able: dict[str, str]) -> str | None:
    if len(able) < 2:
        return next(iter(able), None)
    lower = {name.lower(): name for name, kind in able.items() if kind == "text"}
    named = [lower[name] for name in _TEXTS if name in lower]
    if named and set(able.values()) == {"text"}:
        return named[0]
    raise ValueError(
        f"{_listed(able, able)} could each be the other modality: choose with --other, such as --other {next(iter(able))}."
    )


def _listed(names: Sequence[str] | dict[str, str], kinds: dict[str, str]) -> str:
    return ", ".join(f"'{name}' ({kinds[name]})" for name in names)


def _and(names: Sequence[str]) -> str:
    return f"{', '.join(map(repr, names[:-1]))} and {names[-1]!r}"
