"""What the trainer refuses in data sets before it starts, each with the value at fault and the way out."""

import difflib
from typing import Any

import numpy as np
import torch
from datasets import ClassLabel, Dataset, IterableDataset, Value
from peft import PeftModel

from hf_colearn.arguments import CoLearningArguments
from hf_colearn.data.multimodal import check_modalities
from hf_colearn.data.sample_ids import LABELS
from hf_colearn.models.multimodal import CoLearningForMultimodalClassification
from hf_colearn.teachers.collator import missing_ids
from hf_colearn.teachers.teacher import Teacher
from hf_colearn.utils.rng import preserve_rng_state


def training_data_fits(dataset: Any, args: CoLearningArguments, model: Any, teachers: dict[str, Teacher]) -> None:
    """The training set must have samples, labels within the student's classes, and ids that the pairing can serve."""
    if hasattr(dataset, "__len__") and len(dataset) == 0:
        raise ValueError("the training set is empty: nothing to train on. Look at its split, filter or selection.")
    if isinstance(dataset, IterableDataset):
        stream_fits(dataset, args, model, teachers)
    if not isinstance(dataset, Dataset):
        return
    labels_fit(dataset, model)
    model = model.get_base_model() if isinstance(model, PeftModel) else model
    if isinstance(model, CoLearningForMultimodalClassification):
        check_modalities(dataset, model.modalities)
        if args.label_smoothing_factor:
            raise ValueError(
                f"label_smoothing_factor={args.label_smoothing_factor} takes the labels away from the model, whose heads "
                "need them: pass `augment=SmoothedLabels(num_classes, share)` of data.soft_labels instead."
            )
    else:
        inputs_are_there(dataset, model)
    if not teachers:
        return
    if args.id_column in dataset.column_names:
        ids = _plain(dataset, args.id_column)
        if not np.issubdtype(ids.dtype, np.integer):
            way_out = "a sample id is an integer, from 0. Number the samples with `with_sample_ids`."
            raise ValueError(_not_integers("ids", args.id_column, ids) + way_out)
        for teacher in teachers.values():
            teacher.check(ids)
    elif args.id_column not in _sample(dataset, 0):  # a transform may pass it on
        raise ValueError(missing_ids(args.id_column, dataset.column_names))


def sample_ids(dataset: Any, column: str) -> np.ndarray | None:
    """The ids of a training set's samples, `(N,)` integers; None of a stream, or where they are no column of integers."""
    if not isinstance(dataset, Dataset) or column not in dataset.column_names or not len(dataset):
        return None
    ids = _plain(dataset, column)
    return ids if np.issubdtype(ids.dtype, np.integer) else None


def inputs_are_there(dataset: Dataset, model: Any) -> None:
    """Trainer drops columns that the model does not read, so a misnamed one would be missing without a word."""
    wanted = [name for name in getattr(model, "input_names", ()) if name != "attention_mask"]
    found = list(_sample(dataset, 0)) if _has_transform(dataset) else dataset.column_names
    if wanted and not set(wanted) & set(found):
        near = [f"'{match}'" for name in wanted for match in difflib.get_close_matches(name, found, n=1)]
        raise ValueError(
            f"the training set has no column {' or '.join(map(repr, wanted))}, which {type(model).__name__} reads (it has "
            f"{', '.join(map(repr, found))}): rename {near[0] if near else 'or make one'}."
        )


def stream_fits(stream: IterableDataset, args: CoLearningArguments, model: Any, teachers: dict[str, Teacher]) -> None:
    """Of a stream, what shows without reading it: the columns, the classes' names, and whether bank and pairing fit."""
    column = next((name for name in LABELS if name in (stream.column_names or [])), None)
    if column is not None and stream.features is not None:
        _named_classes_fit(stream.features[column], column, model)
    if not teachers:
        return
    if stream.column_names is not None and args.id_column not in stream.column_names:
        raise ValueError(
            f"the stream has no column '{args.id_column}' (it has {', '.join(map(repr, stream.column_names))}), so no "
            "teacher target can be found for its samples: number them where it is made, in an order that never changes, "
            f"such as `stream.map(lambda row, i: {{**row, '{args.id_column}': i}}, with_indices=True)`, or set `id_column`."
        )
    for teacher in teachers.values():
        teacher.check(np.zeros(0, dtype=np.int64))


def _named_classes_fit(feature: Any, column: str, model: Any) -> None:
    num_labels = getattr(getattr(model, "config", None), "num_labels", None)
    if num_labels not in (None, 1) and isinstance(feature, ClassLabel) and feature.num_classes > num_labels:
        raise ValueError(
            f"column '{column}' names {feature.num_classes} classes, but the student has num_labels={num_labels}: build "
            f"it with `num_labels={feature.num_classes}`."
        )


def evaluation_labels_fit(evaluated: Any, model: Any) -> None:
    """The labels of every evaluation set must be within the student's classes."""
    for dataset in evaluated.values() if isinstance(evaluated, dict) else [evaluated]:
        if isinstance(dataset, Dataset):
            labels_fit(dataset, model)


def labels_fit(dataset: Dataset, model: Any) -> None:
    """The labels of a classification must be integers within the student's classes."""
    config = getattr(model, "config", None)
    num_labels, problem = getattr(config, "num_labels", None), getattr(config, "problem_type", None)
    if num_labels in (None, 1) or problem not in (None, "single_label_classification"):
        return
    column = next((name for name in LABELS if name in dataset.column_names), None)
    if column is None or not isinstance(dataset.features[column], (Value, ClassLabel)):
        return  # no labels, one a token, or soft ones
    labels, feature = _plain(dataset, column), dataset.features[column]
    if not np.issubdtype(labels.dtype, np.integer):
        if _reaches_the_student(dataset, column, 0):
            way_out = "class labels are integers. Encode them with `dataset.class_encode_column`, and drop samples without one."
            raise ValueError(_not_integers("labels", column, labels) + way_out)
        return
    if not _has_transform(dataset):
        _named_classes_fit(feature, column, model)
    is_outside = ((labels < 0) | (labels >= num_labels)) & (labels != -100)  # -100 is what cross-entropy ignores
    if is_outside.any() and _reaches_the_student(dataset, column, int(is_outside.argmax())):
        raise ValueError(
            f"{is_outside.sum()} labels in column '{column}' are out of range, such as {labels[is_outside][0]}: the "
            f"student has num_labels={num_labels} (0 to {num_labels - 1}). Mend the labels or `num_labels`."
        )


def _has_transform(dataset: Dataset) -> bool:
    return dataset.format["type"] == "custom"


def _reaches_the_student(dataset: Dataset, column: str, row: int) -> bool:
    """Whether a stored label is the one that the student gets: a transform may encode it in another way."""
    if not _has_transform(dataset):
        return True
    stored, sample = _plain(dataset.select([row]), column)[0], _sample(dataset, row)
    given = [sample[name] for name in LABELS if name in sample]
    return bool(given) and np.array_equal(given[0], stored)


def _sample(dataset: Dataset, row: int) -> dict[str, Any]:
    """A sample as training sees it, without moving the random numbers that a transform draws."""
    with preserve_rng_state(torch.device("cpu")):
        return dataset[row]


def _plain(dataset: Dataset, column: str) -> np.ndarray:
    """A column's stored values, without the dataset's transform."""
    return np.asarray(dataset.select_columns(column).with_format("numpy")[column][:])


def _not_integers(what: str, column: str, values: np.ndarray) -> str:
    """What is wrong with a column, with the value that shows it best: an empty cell, or else the first."""
    plain = values.tolist()
    odd = next((value for value in plain if value is None or value != value), plain[0])
    return f"the {what} in column '{column}' are {values.dtype}, such as {odd!r}: "
