"""What the trainer refuses in data sets before it starts, each with the value at fault and the way out."""

import difflib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from datasets import ClassLabel, Dataset, IterableDataset, List, Value
from datasets.iterable_dataset import MappedExamplesIterable
from transformers.utils import logging

from hf_colearn.alpha.alpha import Alpha
from hf_colearn.arguments import CoLearningArguments
from hf_colearn.data.columns import NUMBER_A_STREAM
from hf_colearn.data.labels import label_array, label_column, labelled_rows, problem_type_of
from hf_colearn.data.multimodal import check_modalities
from hf_colearn.data.sample_ids import LABELS
from hf_colearn.data.unpaired import UnpairedBatches
from hf_colearn.evaluation.compute_metrics import MADE_BY, ComputeMetrics
from hf_colearn.models.checkpoint import CheckedModel
from hf_colearn.models.lora import base_model
from hf_colearn.models.multimodal import CoLearningForMultimodalClassification
from hf_colearn.teachers.collator import missing_ids
from hf_colearn.teachers.latent_column import LatentColumn
from hf_colearn.teachers.teacher import Teacher
from hf_colearn.training.counts import counts_its_labels
from hf_colearn.training.share_loader import stages
from hf_colearn.utils import distributed
from hf_colearn.utils.metric_names import is_error
from hf_colearn.utils.rng import preserve_rng_state


logger = logging.get_logger(__name__)


Collate = Callable[[Dataset, int], Mapping[str, Any]]  # a sample as a batch of one


def training_data_fits(
    dataset: Any,
    args: CoLearningArguments,
    model: Any,
    teachers: dict[str, Teacher],
    alpha: Alpha | None = None,
    collate: Collate | None = None,
) -> None:
    """The training set must have samples, ids that the pairing can serve, and for a student of ours labels within its classes.

    What another model takes for labels is its own affair. `collate` is given where a collator of the user's may change them.
    """
    if hasattr(dataset, "__len__") and len(dataset) == 0:
        raise ValueError("the training set is empty: nothing to train on. Look at its split, filter or selection.")
    if isinstance(dataset, IterableDataset):
        stream_fits(dataset, args, model, teachers)
    if not isinstance(dataset, Dataset):
        return
    labels_fit(dataset, model, collate)
    _some_are_labelled(dataset, model, alpha)
    model = base_model(model)
    if isinstance(model, CoLearningForMultimodalClassification):
        check_modalities(dataset, model.modalities)
    else:
        inputs_are_there(dataset, model)
    for teacher in teachers.values():
        if isinstance(teacher.bank, LatentColumn):
            found = list(_sample(dataset, 0)) if has_transform(dataset) else dataset.column_names
            teacher.bank.check_features(found, dataset.features)
    if not any(teacher.needs_ids for teacher in teachers.values()):
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
    if isinstance(dataset, UnpairedBatches):
        return dataset.sample_ids
    if not isinstance(dataset, Dataset) or column not in dataset.column_names or not len(dataset):
        return None
    ids = _plain(dataset, column)
    return ids if np.issubdtype(ids.dtype, np.integer) else None


def inputs_are_there(dataset: Dataset, model: Any) -> None:
    """Trainer drops columns that the model does not read, so a misnamed one would be missing without a word."""
    wanted = (
        [name for name in model.input_names if name != "attention_mask"] if isinstance(model, CheckedModel) else []
    )
    found = list(_sample(dataset, 0)) if has_transform(dataset) else dataset.column_names
    if wanted and not set(wanted) & set(found):
        near = [f"'{match}'" for name in wanted for match in difflib.get_close_matches(name, found, n=1)]
        raise ValueError(
            f"the training set has no column {' or '.join(map(repr, wanted))}, which {type(model).__name__} reads (it has "
            f"{', '.join(map(repr, found))}): rename {near[0] if near else 'or make one'}."
        )


def stream_fits(stream: IterableDataset, args: CoLearningArguments, model: Any, teachers: dict[str, Teacher]) -> None:
    """Of a stream, what shows without reading it: the columns, the classes' names, and whether bank and pairing fit."""
    column = label_column(stream)
    if column is not None and stream.features is not None:
        _named_classes_fit(
            stream.features[column], column, getattr(getattr(model, "config", None), "num_labels", None)
        )
    for teacher in teachers.values():
        if isinstance(teacher.bank, LatentColumn):
            teacher.bank.check_features(stream.column_names, stream.features)
    needs_ids = any(teacher.needs_ids for teacher in teachers.values())
    if needs_ids and stream.column_names is not None and args.id_column not in stream.column_names:
        raise ValueError(
            f"the stream has no column '{args.id_column}' (it has {', '.join(map(repr, stream.column_names))}), so no "
            f"teacher target can be found for its samples: {NUMBER_A_STREAM}, or set `id_column`."
        )
    if needs_ids:
        _is_numbered_once(stream, args)
    for teacher in teachers.values():
        teacher.check(np.zeros(0, dtype=np.int64))


def _is_numbered_once(stream: IterableDataset, args: CoLearningArguments) -> None:
    """Refuses ids that a stage of the stream counts, where several readers would each begin at 0."""
    readers = distributed.world_size() * max(1, args.dataloader_num_workers)
    found = stages(stream._ex_iterable)
    counting = [stage for stage in found if isinstance(stage, MappedExamplesIterable) and stage.with_indices]
    if readers == 1 or not counting or stream.num_shards == 1:
        return
    with preserve_rng_state(args.device):
        _, before = next(iter(counting[-1].ex_iterable), (None, {args.id_column: 0}))
    if args.id_column not in before:
        raise ValueError(
            f"'{args.id_column}' of the stream is counted by `map(..., with_indices=True)`, and {readers} readers (processes "
            f"times workers) would each count their shards from 0, so that samples share ids: {NUMBER_A_STREAM}, or read it by "
            "one process and one worker."
        )


def _named_classes_fit(feature: Any, column: str, num_labels: int | None) -> None:
    if num_labels not in (None, 1) and isinstance(feature, ClassLabel) and feature.num_classes > num_labels:
        raise ValueError(
            f"column '{column}' names {feature.num_classes} classes, but the student has num_labels={num_labels}: build "
            f"it with `num_labels={feature.num_classes}`."
        )


def evaluation_labels_fit(evaluated: Any, model: Any, collate: Collate | None = None) -> None:
    """The labels of every evaluation set must be within the classes of a student of ours."""
    for dataset in evaluated.values() if isinstance(evaluated, dict) else [evaluated]:
        if isinstance(dataset, Dataset) and counts_its_labels(model):
            labels_fit(dataset, model, collate)
            column = label_column(dataset)
            if column and len(dataset) and not labelled_rows(dataset, column).any():
                raise ValueError(
                    f"none of the {len(dataset)} samples of the evaluation set has a label in column '{column}': there would "
                    "be nothing to measure. Add labels, or leave the evaluation set out."
                )


def metrics_fit(compute_metrics: Any, model: Any, args: CoLearningArguments) -> None:
    """Metrics of ours must be of the student's problem type, since they are computed after what they would stop; and the best
    checkpoint is not the one with the largest error."""
    problem = getattr(getattr(base_model(model), "config", None), "problem_type", None)
    if isinstance(compute_metrics, ComputeMetrics) and problem not in (None, compute_metrics.problem_type):
        raise ValueError(
            f"compute_metrics={MADE_BY[compute_metrics.problem_type]}(...) does not measure what the student is trained for, "
            f"problem_type='{problem}': pass {MADE_BY[problem]}()."
        )
    if args.greater_is_better and is_error(args.metric_for_best_model or ""):
        raise ValueError(
            f"metric_for_best_model='{args.metric_for_best_model}' is better the lower it is, and the checkpoint with the "
            "highest would be taken for the best: set greater_is_better=False."
        )


def labels_fit(dataset: Dataset, model: Any, collate: Collate | None = None) -> None:
    """The labels must be what the problem type of a student of ours takes, where they are there.

    A student without a problem type gets the one that its labels tell, as transformers does at the first batch: an
    augmentation may make soft labels of classes, which are then no several labels.
    """
    base = base_model(model)
    if not isinstance(base, CheckedModel):
        return
    num_labels = base.config.num_labels
    if base.config.problem_type is None and (found := problem_type_of(dataset, num_labels)) is not None:
        base.set_problem_type(found)
    labels_are_of(dataset, base.config.problem_type, num_labels, collate)


def labels_are_of(dataset: Dataset, problem: str | None, num_labels: int, collate: Collate | None = None) -> None:
    """The labels must be what a problem type takes, with so many classes or numbers; nothing is asked where there are none."""
    column = label_column(dataset)
    if column is None:
        return
    if problem in ("regression", "multi_label_classification"):
        if collate is None:
            _numbers_fit(dataset, column, problem, num_labels)
    elif num_labels > 1:
        _classes_fit(dataset, column, num_labels, collate)


def _classes_fit(dataset: Dataset, column: str, num_labels: int, collate: Collate | None) -> None:
    feature = dataset.features[column]
    if not isinstance(feature, (Value, ClassLabel)):
        return  # one a token, or soft ones
    labels = label_array(dataset, column)
    if not np.issubdtype(labels.dtype, np.integer):
        if _reaches_the_student(dataset, column, 0, collate):
            way_out = (
                "class labels are integers. Encode them with `dataset.class_encode_column`; None or -100 is no label."
            )
            raise ValueError(_not_integers("labels", column, labels) + way_out)
        return
    if not has_transform(dataset) and collate is None:
        _named_classes_fit(feature, column, num_labels)
    is_outside = ((labels < 0) | (labels >= num_labels)) & (labels != -100)  # -100 is no label
    if is_outside.any() and _reaches_the_student(dataset, column, int(is_outside.argmax()), collate):
        raise ValueError(
            f"{is_outside.sum()} labels in column '{column}' are out of range, such as {labels[is_outside][0]}: the "
            f"student has num_labels={num_labels} (0 to {num_labels - 1}). Mend the labels or `num_labels`."
        )


def _numbers_fit(dataset: Dataset, column: str, problem: str, num_labels: int) -> None:
    """Of several labels 0, 1 and what is missing, of a regression numbers; as many a sample as the student has outputs."""
    if has_transform(dataset):
        return
    labels = label_array(dataset, column)
    if labels.dtype.kind not in "fiub":
        raise ValueError(
            f"the labels in column '{column}' are {labels.dtype}, such as {labels.ravel()[0]!r}, and "
            f"problem_type='{problem}' takes numbers: encode them."
        )
    width = labels.shape[1] if labels.ndim > 1 else 1
    if width != num_labels:
        raise ValueError(
            f"the labels in column '{column}' are {width} a sample, and the student has num_labels={num_labels} with "
            f"problem_type='{problem}': build it with `num_labels={width}`, or set another `problem_type`."
        )
    is_several = np.isnan(labels) | np.isin(labels, (0, 1, -100))
    is_bad = np.isinf(labels) if problem == "regression" else ~is_several
    if is_bad.any():
        allowed = "finite numbers, and NaN for none" if problem == "regression" else "0, 1, and -100 or NaN for none"
        raise ValueError(
            f"{is_bad.sum()} labels in column '{column}' are none that problem_type='{problem}' takes, such as "
            f"{labels[is_bad][0]:g}: it takes {allowed}."
        )


def _some_are_labelled(dataset: Dataset, model: Any, alpha: Alpha | None) -> None:
    """Where the task has a weight, it needs labels."""
    column = label_column(dataset)
    if column is None or has_transform(dataset) or task_has_no_weight(alpha) or not counts_its_labels(model):
        return  # the first batch tells whether a model needs labels that are not there
    if not isinstance(dataset.features[column], (Value, ClassLabel, List)):
        return
    if not labelled_rows(dataset, column).any():
        raise ValueError(
            f"none of the {len(dataset)} samples has a label in column '{column}', and the task's loss has a weight of "
            f"{1 - sum(alpha.weights().values()) if alpha else 1:g}: add labels, or train on the pairs alone with alpha=1."
        )


def task_has_no_weight(alpha: Alpha | None) -> bool:
    """Whether the terms have the whole loss, so that no label is needed."""
    return alpha is not None and sum(alpha.weights().values()) >= 1


def labelled_part(dataset: Any, model: Any) -> Any:
    """The samples of an evaluation set that have a label; the data set itself where all have, or its columns do not tell."""
    if isinstance(dataset, UnpairedBatches):
        parts = {task: labelled_part(part, model) for task, part in dataset.datasets.items()}
        unchanged = all(parts[task] is part for task, part in dataset.datasets.items())
        return dataset if unchanged else UnpairedBatches(parts, id_column=dataset.id_column)
    column = label_column(dataset)
    if not isinstance(dataset, Dataset) or column is None or not counts_its_labels(model):
        return dataset
    is_labelled = labelled_rows(dataset, column)
    if is_labelled.all() or not is_labelled.any():
        return dataset
    left_out = len(dataset) - int(is_labelled.sum())
    logger.warning_once(f"{left_out} of {len(dataset)} samples have no label, and evaluation leaves them out.")
    return dataset.select(np.flatnonzero(is_labelled))


def has_transform(dataset: Dataset) -> bool:
    """Whether columns are made when a sample is read."""
    return dataset.format["type"] == "custom"


def _reaches_the_student(dataset: Dataset, column: str, row: int, collate: Collate | None) -> bool:
    """Whether a stored label is the one that the student gets: a transform or a collator may encode it in another way."""
    if not has_transform(dataset) and collate is None:
        return True
    sample = _sample(dataset, row) if collate is None else collate(dataset, row)
    given = [np.ravel(sample[name])[:1] for name in LABELS if name in sample]
    return bool(given) and np.array_equal(given[0], _plain(dataset.select([row]), column)[:1])


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
