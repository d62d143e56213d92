"""The data of a co-training: its labels, the part that is held out, and what each view sees of it; what is refused in it.

Shapes: N samples, C classes.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from datasets import Dataset
from transformers import PreTrainedModel

from hf_colearn.co_training.frozen import FrozenView
from hf_colearn.data.columns import check_columns, check_dataset
from hf_colearn.data.labels import label_array, label_column
from hf_colearn.data.multimodal import complete_rows, only_modality
from hf_colearn.data.sample_ids import LABELS, NO_LABEL
from hf_colearn.data.splits import at_least_one_a_class, cut_validation
from hf_colearn.models.lora import base_model


TRAIN, HELD_OUT, TEST = "train", "held_out", "test"


@dataclass
class Part:
    """Samples of all views, and what is known of them.

    Args:
        dataset ([`datasets.Dataset`]): With `{view}_{input}` columns.
        labels (`np.ndarray` of shape `(N,)`): Classes, -100 where there is none.
        is_pool (`np.ndarray` of shape `(N,)`): Which samples may gain a label.
    """

    dataset: Dataset
    labels: np.ndarray
    is_pool: np.ndarray
    _views: dict[str, tuple[Dataset, np.ndarray]] = field(default_factory=dict)

    def view(self, name: str) -> tuple[Dataset, np.ndarray]:
        """What a view sees, without labels, and the rows of the samples that have it."""
        if name not in self._views:
            rows = complete_rows(self.dataset, [name])
            seen = only_modality(self.dataset, name)
            self._views[name] = seen, rows
        return self._views[name]

    def accuracy(self, probabilities_NC: np.ndarray) -> float | None:
        """The share of the labelled samples that are told right; None where there are none."""
        known_N = (self.labels != NO_LABEL) & np.isfinite(probabilities_NC).all(axis=1)
        if not known_N.any():
            return None
        return float(np.mean(probabilities_NC[known_N].argmax(axis=1) == self.labels[known_N]))


def part_of(dataset: Dataset, what: str) -> Part:
    """A data set's samples and labels; refuses what is no data set with classes."""
    check_dataset(dataset)
    column = label_column(dataset)
    if column is None:
        raise ValueError(
            f"the {what} set has no column 'labels' (it has {dataset.column_names}): add one, with None or -100 for the pool."
        )
    labels = label_array(dataset, column)
    if labels.dtype == object or (labels.dtype.kind == "f" and np.isnan(labels).all()):
        labels = np.full(len(dataset), NO_LABEL)  # nothing but None
    if labels.ndim != 1 or labels.dtype.kind not in "iu":
        raise ValueError(
            f"the labels of the {what} set are {labels.dtype} of shape {labels.shape}, and co-training is of classes: pass one "
            "integer a sample, None or -100 where there is none."
        )
    others = [name for name in LABELS if name in dataset.column_names and name != column]
    dataset = dataset.remove_columns(others)  # which a collator would take for labels, too
    dataset = dataset if column == "labels" else dataset.rename_column(column, "labels")
    labels = labels.astype(np.int64)  # a copy, as held-out samples lose theirs
    return Part(dataset, labels, labels == NO_LABEL)


def without_labels(dataset: Dataset) -> Dataset:
    """What is predicted, so that no loss is computed of it."""
    return dataset.remove_columns("labels") if "labels" in dataset.column_names else dataset


def held_out_rows(train: Part, share: float, seed: int) -> np.ndarray:
    """The labelled samples `(n,)` that a share of them is, at least one of each class.

    Raises:
        ValueError: If a class has one labelled sample alone.
    """
    if isinstance(share, bool) or not isinstance(share, float) or not 0 < share < 1:
        raise ValueError(
            f"held_out={share!r}: pass a data set, a share of the labelled samples such as 0.2, or None for no check."
        )
    classes, counts = np.unique(train.labels[train.labels != NO_LABEL], return_counts=True)
    if not len(classes) or counts.min() < 2:
        what = f"class {classes[counts.argmin()]} has one labelled sample" if len(classes) else "no sample has a label"
        raise ValueError(
            f"held_out={share} cuts a part of the labelled samples, and {what}: pass a data set, or held_out=None for no check "
            "of the rounds."
        )
    rows = Dataset.from_dict({"row": np.arange(len(train.labels)), "labels": train.labels})
    count = at_least_one_a_class(rows, share, "labels")
    _, cut = cut_validation(rows, count, seed, "labels")
    return np.asarray(cut["row"][:])


# ---- what is refused ----
def num_classes(students: Mapping[str, Any], fresh: Mapping[str, PreTrainedModel]) -> int:
    """The number of classes, which all views must agree on.

    Args:
        students (`Mapping`): By view, as of [`co_train`].
        fresh (`Mapping`): A student of every view that learns.
    """
    numbers: dict[str, int] = {}
    for view, given in students.items():
        config = None if isinstance(given, FrozenView) else getattr(base_model(fresh[view]), "config", None)
        problem = getattr(config, "problem_type", None)
        if problem not in (None, "single_label_classification"):
            raise ValueError(
                f"the student of '{view}' is for problem_type='{problem}', and co-training is of classes: build it for "
                "'single_label_classification'."
            )
        numbers[view] = given.num_labels if isinstance(given, FrozenView) else getattr(config, "num_labels", 0)
    if len(set(numbers.values())) > 1 or min(numbers.values()) < 2:
        told = ", ".join(f"'{view}' {number}" for view, number in numbers.items())
        raise ValueError(f"the views tell unequal numbers of classes, or fewer than two ({told}): build all alike.")
    return next(iter(numbers.values()))


def check_students(students: Any) -> None:
    """Refuses what are no views by name, or none that learns."""
    if not isinstance(students, Mapping) or not students:
        raise TypeError(
            f"students={students!r} are no views by name: pass one at least, such as {{'image': image_student}}."
        )
    for view, given in students.items():
        if not isinstance(view, str) or not view.isidentifier():
            raise ValueError(f"the view {view!r} is no name that columns begin with: call it such as 'image'.")
        if clash := next((other for other in students if str(other).startswith(f"{view}_")), None):
            raise ValueError(f"columns of the view '{clash}' begin as those of '{view}' do: rename one of the two.")
        if not isinstance(given, FrozenView) and (isinstance(given, type) or not callable(given)):
            raise TypeError(
                f"the student of '{view}' is {given!r}: pass a model, a function that makes one, or a `FrozenView`."
            )
    if all(isinstance(given, FrozenView) for given in students.values()):
        raise ValueError(f"the views {', '.join(students)} are all frozen, so nothing learns: add a student.")


def check_data(students: Mapping[str, Any], train: Part, classes: int, others: Mapping[str, Part]) -> None:
    """Refuses a training set without a pool, labels that are no classes or lack one, and parts without a view's columns."""
    names = list(students)
    for what, part in {"training": train, **others}.items():
        for view in names:
            if not any(column.startswith(f"{view}_") for column in _columns(part.dataset)):
                raise ValueError(
                    f"the {what} set has no column of the view '{view}': they begin with its name, such as "
                    f"'{view}_pixel_values', and there are {', '.join(_columns(part.dataset))}."
                )
        known = part.labels[part.labels != NO_LABEL]
        if len(wrong := known[(known < 0) | (known >= classes)]):
            raise ValueError(
                f"the {what} set has the label {wrong[0]}, and the views tell {classes} classes: 0 to {classes - 1}."
            )
    if not train.is_pool.any():
        raise ValueError(
            f"all {len(train.labels)} training samples have a label, so there is no pool: leave None or -100 in 'labels' of "
            "those that are to gain one."
        )
    if any(isinstance(given, FrozenView) for given in students.values()):
        return  # it labels samples of classes that have none yet
    if absent := sorted(set(range(classes)) - set(train.labels.tolist())):
        raise ValueError(
            f"class {absent[0]} has no labelled sample to train with, so no student could ever tell it: label one of each "
            "class, or add a `FrozenView`, such as `PromptedTexts`."
        )


def _columns(dataset: Dataset) -> list[str]:
    """Those that are stored, or that a transform makes."""
    return list(dataset[0]) if dataset.format["type"] == "custom" and len(dataset) else dataset.column_names


def true_labels_of(dataset: Dataset, column: str | None) -> np.ndarray | None:
    """Hidden classes `(N,)`, with which labels that were gained are compared; None where they are not known."""
    if column is None:
        return None
    check_columns(dataset, column)
    return label_array(dataset, column)
