"""Images of a dataset as the student's `pixel_values`."""

from collections.abc import Mapping
from typing import Any

import datasets
import numpy as np
from datasets import Array3D, Dataset, Features
from PIL import Image


def with_pixel_values(dataset: Dataset, processor: Any, column: str = "image", label_column: str = "label") -> Dataset:
    """Decodes and preprocesses all images once; for data that fits in memory and is not augmented.

    Args:
        dataset ([`datasets.Dataset`]): With an `Image` column.
        processor: The student's image processor.
        column (`str`, *optional*, defaults to `"image"`): The images' column, which is dropped.
        label_column (`str`, *optional*, defaults to `"label"`): The labels' column, which becomes `labels`.

    Returns:
        [`datasets.Dataset`]: With `pixel_values`, `labels` and every other column, in torch format.

    Raises:
        ValueError: If there are no samples, a column is missing, or a cell is no image; it names the row.
    """
    for name in (column, label_column):
        if name not in dataset.column_names:
            raise ValueError(f"the dataset has no column '{name}' (it has {dataset.column_names}): name it.")
    if not len(dataset):
        raise ValueError("the dataset is empty, so no image tells a shape: look at its split, filter or selection.")
    mode = None
    if isinstance(dataset.features[column], datasets.Image):
        mode = dataset.features[column].mode
        dataset = dataset.cast_column(column, datasets.Image(decode=False))  # decoded below, where the row is known

    def preprocess(batch: dict[str, list], rows: list[int]) -> dict[str, Any]:
        images = [as_rgb(cell, row, mode) for cell, row in zip(batch[column], rows, strict=True)]
        pixels = processor(images=images, return_tensors="np")["pixel_values"]
        kept = {name: cells for name, cells in batch.items() if name not in (column, label_column)}
        return {**kept, "pixel_values": np.asarray(pixels, dtype=np.float32), "labels": batch[label_column]}

    shape = preprocess(dataset[:1], [0])["pixel_values"].shape[1:]
    features = Features(
        {name: feature for name, feature in dataset.features.items() if name not in (column, label_column)}
    )
    # A fixed shape is stored flat and read back at once; nested lists would cost more than the training step.
    features |= {"pixel_values": Array3D(shape, "float32"), "labels": dataset.features[label_column]}
    mapped = dataset.map(
        preprocess,
        batched=True,
        with_indices=True,
        remove_columns=dataset.column_names,
        features=features,
        desc="Preprocessing images",
    )
    return mapped.with_format("torch")


def as_rgb(cell: Any, row: int, mode: str | None = None) -> Image.Image:
    """A cell of an `Image` column in RGB.

    Args:
        cell (`PIL.Image.Image` or `dict`): Decoded, or its `bytes` and `path`.
        row (`int`): Its row, for the error.
        mode (`str`, *optional*): That of the column's `datasets.Image`.

    Raises:
        ValueError: If it is no image; it names the row.
    """
    try:
        image = datasets.Image(mode=mode).decode_example(cell) if isinstance(cell, Mapping) else cell
        if isinstance(image, Image.Image):
            return image.convert("RGB")
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ValueError(f"the image in row {row} cannot be decoded ({error}): remove or mend it.") from error
    shown = repr(cell[:60]) if isinstance(cell, (str, bytes)) else type(cell).__name__
    raise ValueError(
        f"row {row} holds {shown} where an image should be: cast the column with "
        "`dataset.cast_column(column, datasets.Image())`, or mend the row."
    )
