"""Inputs of several modalities, each computed as its sample is read, in the data loader's workers."""

from collections.abc import Callable, Mapping
from typing import Any

import datasets
from datasets import Dataset


def with_lazy_input(dataset: Dataset, column: str, out: str, make: Callable[[Any], Any]) -> Dataset:
    """Lets a dataset compute a model's input from a column whenever a sample is read.

    Several inputs can be added one after the other, one a modality; `datasets` itself keeps one transform alone. A cell
    that is `None`, a missing modality, stays `None`. `label` becomes `labels`, what is read is dropped, every other column
    is passed on. The dataset's column names stay those of what is stored, so train with `remove_unused_columns=False`, or
    Trainer takes the columns away before they are read.

    Args:
        dataset ([`datasets.Dataset`]): With the column; images, audio and video are handed over as they are stored.
        column (`str`): What is read.
        out (`str`): The input's name, such as `video_pixel_values`.
        make (`Callable`): Takes a cell, gives the input; it can be pickled.

    Raises:
        ValueError: If there is no such column, it is read already, the name is taken, or the dataset has a transform of
            another kind.
    """
    if column not in dataset.column_names:
        raise ValueError(f"the dataset has no column '{column}' (it has {dataset.column_names}): name it.")
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
    feature = dataset.features[column]
    if isinstance(feature, (datasets.Audio, datasets.Image, datasets.Video)) and feature.decode:
        dataset = dataset.cast_column(column, type(feature)(decode=False))  # decoded by `make`, which names the file
    if "label" in dataset.column_names and "labels" not in dataset.column_names:
        dataset = dataset.rename_column("label", "labels")
    return dataset.with_transform(LazyInputs((*steps, (column, out, make))))


class LazyInputs:
    """The transform of [`with_lazy_input`].

    Args:
        steps (`tuple`): A column, the input's name and how it is made, for every input.
    """

    def __init__(self, steps: tuple[tuple[str, str, Callable[[Any], Any]], ...]):
        self.steps = steps

    def __call__(self, batch: Mapping[str, list]) -> dict[str, list]:
        made = dict(batch)
        for column, out, make in self.steps:
            if column not in made:
                raise ValueError(
                    f"the samples come without '{column}' (they have {list(batch)}), of which '{out}' is made: keep the "
                    "column, and train with `remove_unused_columns=False`, or Trainer takes it away."
                )
            made[out] = [None if cell is None else make(cell) for cell in made.pop(column)]
        return made
