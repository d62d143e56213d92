"""Images to score a classifier on: opened, shared among processes and workers, decoded, corrupted, preprocessed.

Nothing is collected: a stream of any length passes through batch by batch. Shapes: B images of a batch.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from datasets import Dataset, Image, IterableDataset, load_dataset
from datasets.distributed import split_dataset_by_node
from PIL import Image as Pillow
from torch.utils import data

from hf_colearn.data.columns import as_stored
from hf_colearn.data.images import UNDECODABLE, open_image
from hf_colearn.evaluation.corruptions import CROP, Condition, centre_crop, corrupt_image
from hf_colearn.models.image_modes import WHITE, Colour, to_rgb
from hf_colearn.utils import distributed


LABEL_COLUMNS = ("wnid", "label", "labels", "cls")  # the first that is there; `cls` is WebDataset's


def open_dataset(
    source: str | Path, split: str | None = None, streaming: bool = False, config: str | None = None
) -> Dataset | IterableDataset:
    """A dataset of the Hub, or a local folder: of class folders, or of Parquet files as the Hub has them.

    Args:
        source (`str` or `Path`): A local folder where there is one of that name, else a dataset id.
        split (`str`, *optional*): Needed where there are several.
        streaming (`bool`, *optional*, defaults to `False`): Read it while it is used, without downloading it first.
        config (`str`, *optional*): Of a dataset of the Hub that has several.
    """
    folder = Path(source)
    if folder.is_dir() and not any(folder.rglob("*.parquet")):
        arguments = {"path": "imagefolder", "data_dir": str(folder), "drop_labels": False}
    else:
        arguments = {"path": str(source), "name": config}
    if split is None:
        splits = list(load_dataset(**arguments, streaming=True))
        if len(splits) > 1:
            raise ValueError(f"'{source}' has the splits {splits}: name one, or pass the folder of one.")
        [split] = splits
    return load_dataset(**arguments, split=split, streaming=streaming)


def columns_of(dataset: Dataset | IterableDataset, label: str | None = None) -> tuple[str, str]:
    """The dataset's one `Image` column, and `label` or the first there is of `LABEL_COLUMNS`."""
    if dataset.features is None:
        raise ValueError("the stream has no known features: pass them to `load_dataset(..., features=...)`.")
    names = list(dataset.features)
    images = [name for name in names if isinstance(dataset.features[name], Image)]
    if len(images) != 1:
        raise ValueError(f"the dataset has {len(images)} Image columns among {names}: keep, or cast, exactly one.")
    candidates = LABEL_COLUMNS if label is None else (label,)
    found = next((name for name in candidates if name in names), None)
    if found is None:
        raise ValueError(f"the dataset has no column {' or '.join(map(repr, candidates))} among {names}: name it.")
    return images[0], found


class Sample(NamedTuple):
    """An image to classify: in RGB, its ImageNet class, and which of the conditions it shows."""

    image: Pillow.Image
    target: int
    view: int


class UnreadImage(NamedTuple):
    """An image that could not be read: its file (or row) and why."""

    name: str
    reason: str


class Batch(NamedTuple):
    """Pixels `(B, channels, height, width)`, classes and views `(B,)`, and what could not be read."""

    pixel_values: torch.Tensor | None  # none where nothing of the batch could be read
    targets: torch.Tensor
    views: torch.Tensor
    bad: list[UnreadImage]


@dataclass(eq=False)
class ScoringSamples(data.IterableDataset):
    """This process's share of a dataset, which may be a stream, every image once in every condition.

    Conditions are applied to the 224 x 224 crop; with `is_cropped` the images are such crops already. Crops go into a
    model of 224 x 224 inputs as they are, as in the released evaluation of ImageNet-C; for other sizes the processor does
    what it does to any image. `max_samples` takes the first of a stream, else evenly spread ones. Images are converted as in
    training ([`~hf_colearn.models.image_modes.to_rgb`]), with the background behind transparent ones.
    """

    dataset: Any
    image_column: str
    label_column: str
    class_of: dict[Any, int]  # from a label to its ImageNet class
    processor: Any
    conditions: Sequence[Condition] = ()
    is_cropped: bool = False
    max_samples: int | None = None
    background: Colour = WHITE

    def __post_init__(self):
        keys = ["__key__"] if "__key__" in self.dataset.features else []  # WebDataset's name of a sample
        dataset = self.dataset.select_columns([self.image_column, self.label_column, *keys]).with_format(None)
        self.dataset = as_stored(dataset, self.image_column)  # decoded where its name is known
        self.processor_options: dict[str, bool] = {}
        if self.is_cropped or self.conditions:
            probe = self.processor(images=[Pillow.new("RGB", (CROP, CROP))], return_tensors="pt")["pixel_values"]
            if probe.shape[-2:] == (CROP, CROP):
                self.processor_options = {"do_resize": False, "do_center_crop": False}

    def loader(self, batch_size: int, num_workers: int) -> data.DataLoader:
        """Batches of this process's share."""
        if isinstance(self.dataset, IterableDataset):
            # Workers share a stream by its shards, so that "the first n" is not defined for several.
            num_workers = min(num_workers, self.dataset.num_shards if self.max_samples is None else 1)
        return data.DataLoader(self, batch_size, num_workers=num_workers, collate_fn=self.collate)

    def __iter__(self) -> Iterator[Sample | UnreadImage]:
        for name, row in self._share():
            target = self.class_of.get(row[self.label_column])
            if target is None:
                raise ValueError(
                    f"'{name}' has the label {row[self.label_column]!r} in column '{self.label_column}', which is no "
                    "ImageNet class: label by WordNet id (`n01440764`), ImageNet's name or index."
                )
            try:
                if (opened := open_image(row[self.image_column])) is None:
                    raise ValueError("there is no image")
                image = to_rgb(opened, self.background)
            except UNDECODABLE as error:
                yield UnreadImage(name, str(error))
                continue
            if self.is_cropped and image.size != (CROP, CROP):
                yield UnreadImage(name, f"{image.width} x {image.height} pixels; ImageNet-C has {CROP} x {CROP}")
                continue
            if not self.conditions:
                yield Sample(image, target, 0)
                continue
            crop = centre_crop(image)
            for view, (corruption, severity) in enumerate(self.conditions):
                yield Sample(corrupt_image(crop, corruption, severity), target, view)

    def _share(self) -> Iterator[tuple[str, dict[str, Any]]]:
        rank, processes = distributed.rank(), distributed.world_size()
        if isinstance(self.dataset, Dataset):
            worker = data.get_worker_info()
            step = processes * (worker.num_workers if worker else 1)
            rows = np.arange(len(self.dataset))
            if self.max_samples is not None and self.max_samples < len(rows):
                rows = np.arange(self.max_samples) * len(rows) // self.max_samples
            for index in rows[rank + processes * (worker.id if worker else 0) :: step].tolist():
                row = self.dataset[index]
                yield self._name(row, f"row {index}"), row
        elif self.max_samples is None:
            for row in split_dataset_by_node(self.dataset, rank, processes):
                yield self._name(row, "an image without a name"), row
        else:
            for index, row in enumerate(islice(self.dataset, self.max_samples)):
                if index % processes == rank:
                    yield self._name(row, f"sample {index}"), row

    def _name(self, row: dict[str, Any], otherwise: str) -> str:
        cell = row[self.image_column]
        return (cell and cell["path"]) or row.get("__key__") or otherwise

    def collate(self, samples: list[Sample | UnreadImage]) -> Batch:
        """A batch of samples, through the image processor."""
        good = [sample for sample in samples if isinstance(sample, Sample)]
        images, options = [sample.image for sample in good], self.processor_options
        return Batch(
            self.processor(images=images, return_tensors="pt", **options)["pixel_values"] if good else None,
            torch.tensor([sample.target for sample in good], dtype=torch.int64),
            torch.tensor([sample.view for sample in good], dtype=torch.int64),
            [sample for sample in samples if isinstance(sample, UnreadImage)],
        )
