"""A column of a dataset as a model's input: made once for all samples, or whenever one is read."""

import os
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import datasets
import numpy as np
from datasets import Array2D, Array3D, Dataset, DatasetDict, Features, IterableDataset, List, Value


AnyDataset = TypeVar("AnyDataset", Dataset, IterableDataset)

# How `datasets` stores a cell of audio or video; its own encoders would import torchcodec.
STORED_MEDIA = {"bytes": Value("binary"), "path": Value("string")}

NUMBER_A_STREAM = (
    "number the samples where they are stored (`hf-colearn encode` writes a column `sample_id`), or before it is a stream, "
    "`with_sample_ids(dataset).to_iterable_dataset(num_shards=n)`"
)


def check_dataset(dataset: Any) -> None:
    """Refuses what is no data set of one split that can be read in any order."""
    if isinstance(dataset, DatasetDict):
        raise TypeError(f"the dataset has the splits {', '.join(dataset)}: pass one, such as `data['train']`.")
    if isinstance(dataset, IterableDataset):
        raise TypeError(
            "the dataset is a stream, whose samples are not known beforehand: pass a datasets.Dataset. Of a stream, "
            f"{NUMBER_A_STREAM}."
        )
    if not isinstance(dataset, Dataset):
        raise TypeError(f"the dataset is a {type(dataset).__name__}: pass a datasets.Dataset.")


def check_columns(dataset: Dataset | IterableDataset, *columns: str) -> None:
    """Refuses a dataset that lacks one of the columns."""
    for column in columns:
        if column not in dataset.column_names:
            raise ValueError(f"the dataset has no column '{column}' (it has {dataset.column_names}): name it.")


def check_is_read(batch: Mapping[str, list], column: str, use: str) -> None:
    """Refuses samples from which Trainer took a column before a transform saw them."""
    if column not in batch:
        raise ValueError(
            f"the samples come without '{column}' (they have {list(batch)}), {use}: name or keep the column, and train "
            "with `remove_unused_columns=False`, or Trainer takes it away."
        )


def name_of(what: str, cell: Any, position: int | str) -> str:
    """What errors call a cell: its row, or as the caller says, with its file where it has one."""
    path = cell.get("path") if isinstance(cell, Mapping) else cell if isinstance(cell, (str, os.PathLike)) else None
    name = position if isinstance(position, str) else f"the {what} in row {position}"
    return f"{name} ('{os.fspath(path)}')" if path else name


def as_stored(dataset: AnyDataset, column: str) -> AnyDataset:
    """The dataset with a column of audio, images or videos as paths and bytes, to be decoded where the row is known."""
    feature = (dataset.features or {}).get(column)
    if isinstance(feature, (datasets.Audio, datasets.Image, datasets.Video)):
        return dataset.cast_column(column, type(feature)(decode=False))
    return dataset


def map_columns(
    dataset: Dataset,
    columns: list[str],
    label_column: str,
    make: Callable[..., dict[str, Any]],
    what: str,
    as_arrays: bool = True,
    batch_size: int = 1000,
) -> Dataset:
    """Makes a model's input of columns, once for all samples; `make` takes the cells of each and their rows.

    The columns are handed over as they are stored, and dropped; `labels` replaces `label_column`; the result is in torch
    format. With `as_arrays` the inputs are float32 arrays, those of 2 and 3 dimensions of one shape: stored flat, since
    nested lists would cost more than a training step to read. Else `datasets` infers the type.
    """
    check_columns(dataset, *columns, label_column)
    if not len(dataset):
        raise ValueError(f"the dataset is empty, so there is no {what}: look at its split, filter or selection.")
    for column in columns:
        dataset = as_stored(dataset, column)
    dataset = dataset.with_format(None)
    dataset = dataset if label_column == "labels" else dataset.rename_column(label_column, "labels")
    features = None
    if as_arrays:
        first = make(*([dataset[0][column]] for column in columns), [0])
        features = Features({name: feature for name, feature in dataset.features.items() if name not in columns})
        features |= {name: _array_feature(np.shape(values[0])) for name, values in first.items()}
    mapped = dataset.map(
        make,
        batched=True,
        batch_size=batch_size,
        writer_batch_size=batch_size,
        with_indices=True,
        input_columns=columns,
        remove_columns=columns,
        features=features,
        desc=f"Preprocessing {what}",
    )
    return mapped.with_format("torch")


def _array_feature(shape: tuple[int, ...]) -> Any:
    arrays = {2: Array2D, 3: Array3D}
    return arrays[len(shape)](shape, "float32") if len(shape) in arrays else List(Value("float32"))


def with_lazy_input(dataset: Dataset, column: str, out: str, make: Callable[[Any], Any]) -> Dataset:
    """Makes a model's input of a column whenever a sample is read, in the data loader's workers.

    Several inputs can be added one after the other, one a modality; `datasets` itself keeps one transform alone. A cell
    that is `None`, a missing modality, stays `None`. `label` becomes `labels`, what is read is dropped, every other column
    is passed on. The column names stay those of what is stored: train with `remove_unused_columns=False`, or Trainer takes
    the columns away before they are read.

    Args:
        dataset ([`datasets.Dataset`]): Images, audio and video are handed over as they are stored.
        column (`str`): What is read.
        out (`str`): The input's name, such as `video_pixel_values`; neither it nor the column is taken yet.
        make (`Callable`): From a cell to the input; it can be pickled.
    """
    check_columns(dataset, column)
    steps: tuple[tuple[str, str, Callable[[Any], Any]], ...] = ()
    if dataset.format["type"] == "custom":
        transform = dataset.format["format_kwargs"]["transform"]
        if not isinstance(transform, LazyInputs):
            raise ValueError(
                f"the dataset has a transform already, {type(transform).__name__}, that would be lost: add '{out}' to a "
                "dataset without one."
            )
        steps = transform.steps
    if taken := [step for step in steps if step[0] == column]:
        raise ValueError(f"'{taken[0][1]}' is made of column '{column}' already: copy the column to read it twice.")
    if out in dataset.column_names or out in [step[1] for step in steps]:
        raise ValueError(f"the dataset has '{out}' already: pass another name as `out`.")
    dataset = as_stored(dataset, column)
    if "label" in dataset.column_names and "labels" not in dataset.column_names:
        dataset = dataset.rename_column("label", "labels")
    return dataset.with_transform(LazyInputs((*steps, (column, out, make))))


class LazyInputs:
    """The transform of [`with_lazy_input`]; its steps are a column, the input's name and how it is made."""

    def __init__(self, steps: tuple[tuple[str, str, Callable[[Any], Any]], ...]):
        self.steps = steps

    def __call__(self, batch: Mapping[str, list]) -> dict[str, list]:
        made = dict(batch)
        for column, out, make in self.steps:
            check_is_read(batch, column, f"of which '{out}' is made")
            made[out] = [None if cell is None else make(cell) for cell in made.pop(column)]
        return made
