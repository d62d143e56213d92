"""Images of a dataset as the student's `pixel_values`: all at once, or decoded, cropped and flipped as they are read.

Every image passes through [`~hf_colearn.models.image_modes.to_rgb`]: 16 bits, floats, palettes and CMYK are scaled by
their mode's range, what the camera turned is upright, and transparency is composited on a background, white by default.

Shapes: B images of a batch, C channels (1 or 3), H x W pixels of the student's input.
"""

import copy
import io
import math
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import datasets
import numpy as np
import torch
from datasets import Dataset
from PIL import Image
from transformers.image_utils import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

from hf_colearn.data.columns import AnyDataset, as_stored, check_is_read, map_columns, name_of
from hf_colearn.models.grayscale import GrayscaleImageProcessor
from hf_colearn.models.image_modes import WHITE, Colour, UnclearImage, picture_of, rgb_of, to_rgb, upright


# What Pillow raises for a bad image.
UNDECODABLE = (OSError, SyntaxError, TypeError, ValueError, Image.DecompressionBombError)


def with_pixel_values(
    dataset: Dataset,
    processor: Any,
    column: str = "image",
    label_column: str = "label",
    background: Colour = WHITE,
) -> Dataset:
    """Decodes and preprocesses all images once; for data that fits in memory and is not augmented.

    Args:
        dataset ([`datasets.Dataset`]): With a column of images, of paths, or of arrays (`Array2D`, `Array3D`). Where
            `datasets` stores decoded images itself, it keeps the lower 8 bits of arrays of 16 with several channels, and
            loses a palette's transparency: give it files, or such arrays in an `Array3D` column.
        processor: The student's image processor; one with a single mean is for grayscale images.
        column, label_column (`str`, *optional*, defaults to `"image"` and `"label"`): Images and labels.
        background (`str` or `tuple[int, int, int]`, *optional*, defaults to `"white"`): What is behind transparent images.

    Returns:
        [`datasets.Dataset`]: With `pixel_values`, `labels` and every other column, in torch format.

    Raises:
        ValueError: If there are no samples, a column is missing, or a cell is no image; it names the row.
    """
    rgb_of(background)
    feature = dataset.features.get(column)
    mode = feature.mode if isinstance(feature, datasets.Image) else None
    is_array = isinstance(feature, (datasets.Array2D, datasets.Array3D))  # whose cells come as lists
    grayscale = is_grayscale(processor)

    def preprocess(cells: list[Any], rows: list[int]) -> dict[str, Any]:
        if is_array:
            cells = [None if cell is None else np.asarray(cell, feature.dtype) for cell in cells]
        images = [as_rgb(cell, row, mode, background) for cell, row in zip(cells, rows, strict=True)]
        images = [image.convert("L") for image in images] if grayscale else images
        pixels = processor(images=images, return_tensors="np")["pixel_values"]
        return {"pixel_values": np.asarray(pixels, dtype=np.float32)}

    return map_columns(dataset, [column], label_column, preprocess, "image")


def is_grayscale(processor: Any) -> bool:
    """Whether an image processor is for images of one channel."""
    return isinstance(processor, GrayscaleImageProcessor) or (
        processor.do_normalize and len(processor.image_mean) == 1
    )


def as_rgb(cell: Any, row: int | str, mode: str | None = None, background: Colour = WHITE) -> Image.Image:
    """An image in RGB of 8 bits, as [`~hf_colearn.models.image_modes.to_rgb`] makes it.

    Args:
        cell: A Pillow image, a cell of an `Image` column (`{"bytes", "path"}`), the path of a file, its bytes, or an array
            or tensor as of [`~hf_colearn.models.image_modes.picture_of`]. Of several frames or pages the first is read.
        row (`int` or `str`): Its row or id, for errors.
        mode (`str`, *optional*): Of the column's [`datasets.Image`], whose conversion follows ours.
        background (`str` or `tuple[int, int, int]`, *optional*, defaults to `"white"`): What is behind transparent images.

    Raises:
        ValueError: If it is no image, cannot be decoded, or its pixels have no clear meaning; it names the row, and the
            file where there is one.

    Example:

    ```python
    >>> import numpy as np
    >>> from hf_colearn.data.images import as_rgb

    >>> as_rgb(np.array([[0, 257, 65535]], dtype=np.uint16), 0).getpixel((1, 0))  # 16 bits: 257 / 257 = 1
    (1, 1, 1)
    >>> as_rgb(np.array([[[200, 0, 0, 51]]], dtype=np.uint8), 0).getpixel((0, 0))  # a fifth of the colour, on white
    (244, 204, 204)
    ```
    """
    with _naming(cell, row):
        if (image := open_image(cell)) is not None:
            return _in_mode(to_rgb(image, background), mode)
    raise _no_image(cell, row)


def _in_mode(image: Image.Image, mode: str | None) -> Image.Image:
    """What a column's mode makes of an RGB image, in RGB: those of one channel, of any depth, make it gray."""
    if mode in (None, "RGB", "RGBA"):
        return image
    is_gray = mode[0] in "LIF" and mode != "LAB"
    return image.convert("L" if is_gray else mode).convert("RGB")


def open_image(cell: Any) -> Image.Image | None:
    """An image that is decoded when needed, of all that [`as_rgb`] reads; None if the cell is none of it."""
    if isinstance(cell, Image.Image):
        return cell
    if isinstance(cell, (bytes, bytearray)):
        return Image.open(io.BytesIO(cell))
    if isinstance(cell, Mapping) and cell.get("bytes") is not None:
        return Image.open(io.BytesIO(cell["bytes"]))
    if isinstance(cell, Mapping) and (path := cell.get("path")) is not None:
        # What is no file is on the Hub, inside an archive, or missing.
        is_local = os.path.isfile(path)
        return Image.open(path) if is_local else datasets.Image().decode_example({"bytes": None, "path": str(path)})
    if isinstance(cell, (str, os.PathLike)):
        if is_url(cell):
            raise UnclearImage("is a URL, and only files are opened: download it, and pass the path of the file.")
        return Image.open(cell) if os.path.isfile(cell) else None
    if isinstance(cell, torch.Tensor):
        return picture_of(cell.detach().cpu().numpy())
    return picture_of(cell) if isinstance(cell, np.ndarray) else None


def is_url(path: str | os.PathLike) -> bool:
    """Whether a text begins as a URL does, such as `https://` or `file://`."""
    return re.match(r"[a-z][a-z0-9+.-]+://", os.fspath(path), re.IGNORECASE) is not None


@contextmanager
def _naming(cell: Any, row: int | str) -> Iterator[None]:
    """Adds the image's row and file to what goes wrong while it is decoded."""
    name = name_of("image", cell, f"the image in row {row}")  # an id may be a string
    try:
        yield
    except UnclearImage as error:
        raise ValueError(f"{name} {error.problem}") from error
    except UNDECODABLE as error:
        raise ValueError(f"{name} cannot be decoded ({error}): remove or mend it.") from error


def _no_image(cell: Any, row: int | str) -> ValueError:
    shown, why = type(cell).__name__, ""
    way_out = "cast the column with `dataset.cast_column(column, datasets.Image())`"
    if isinstance(cell, (str, os.PathLike)):
        shown, why = repr(os.fspath(cell)[:200]), ", and no file has that name"
    elif isinstance(cell, (list, tuple)):
        why, way_out = ", of numbers of no known type", "pass `np.asarray(cell, np.uint8)` or uint16"
    return ValueError(f"row {row} holds {shown} where an image should be{why}: {way_out}, or mend the row.")


def make_image_processor(
    size: int = 224,
    crop_pct: float = 0.875,
    mean: Sequence[float] = IMAGENET_DEFAULT_MEAN,
    std: Sequence[float] = IMAGENET_DEFAULT_STD,
) -> ViTImageProcessorPil:
    """The image processor of the usual evaluation on ImageNet; save it beside the student.

    The short side is resized to `size / crop_pct` (bicubic), and the centre is cropped. A pipeline of transformers converts
    images by Pillow before the processor sees them: it makes those of 16 bits white and floats black, and shows what lies
    behind transparency. Hand it [`as_rgb`] of such an image, and it classifies what the student was trained on.

    Args:
        size (`int`, *optional*, defaults to 224): Sides of the student's input, in pixels.
        crop_pct (`float`, *optional*, defaults to 0.875): The crop's share of the short side, up to 1.
        mean, std (`Sequence[float]`, *optional*, defaults to ImageNet's): What pixels in [0, 1] are normalised with.
    """
    if not 0 < crop_pct <= 1:
        raise ValueError(f"crop_pct={crop_pct} is no share of the short side: pass a number above 0, up to 1.")
    return ViTImageProcessorPil(
        size={"shortest_edge": math.floor(size / crop_pct)},
        crop_size={"height": size, "width": size},
        do_center_crop=True,
        resample=Image.Resampling.BICUBIC,
        image_mean=list(mean),
        image_std=list(std),
    )


def with_image_transform(dataset: AnyDataset, transform: "ImageTransform") -> AnyDataset:
    """Decodes and transforms the images of a dataset or a stream as they are read, in the data loader's workers.

    They are handed over as they are stored, and an `Image` column's mode is applied after our conversion. Train on a
    dataset with `remove_unused_columns=False`, or Trainer takes away the images before they are read.
    """
    feature = (dataset.features or {}).get(transform.column)
    if isinstance(feature, datasets.Image) and feature.mode is not None:
        transform = copy.copy(transform)
        transform.mode = feature.mode
    dataset = as_stored(dataset, transform.column)
    if isinstance(dataset, Dataset):
        return dataset.with_transform(transform)
    return dataset.map(transform, batched=True, batch_size=32, remove_columns=dataset.column_names)


class ImageTransform:
    """Makes the student's inputs of encoded images: for training a random crop and flip, else what the processor does.

    A training crop covers a random share of the image at a random aspect ratio, is resized by the processor's filter
    ("RandomResizedCrop" of Szegedy et al., 2015, as timm and torchvision do it) and flipped half of the time. A JPEG is
    decoded at an eighth, a quarter or half of its size where that leaves enough pixels for the crop. Draws come from
    torch's global generator. Further augmentation is for whole batches, see
    [`~hf_colearn.data.augmentation.ImageAugmentation`].

    Args:
        processor: The student's image processor, which has the size, filter, mean and standard deviation.
        train (`bool`): Whether to crop and flip at random.
        scale (`tuple[float, float]`, *optional*, defaults to `(0.08, 1.0)`): A crop's share of the area.
        ratio (`tuple[float, float]`, *optional*, defaults to `(3 / 4, 4 / 3)`): Its width over its height.
        hflip (`bool`, *optional*, defaults to `True`): Off for images that a mirror makes another class of, as digits.
        id_columns (`Sequence[str]`, *optional*, defaults to `("sample_id",)`): Passed on where they are there: the
            trainer's `id_column`, and what else it reads, such as the column of a [`LatentColumn`].
        column, label_column (`str`, *optional*): The images' and the labels'.
        background (`str` or `tuple[int, int, int]`, *optional*, defaults to `"white"`): What is behind transparent images.

    Raises:
        ValueError: If a range is none, or the processor has no fixed size; when called, if a column is missing or an
            image cannot be decoded.

    Example:

    ```python
    processor = make_image_processor(224)
    train = with_image_transform(imagenet["train"], ImageTransform(processor, train=True))
    test = with_image_transform(imagenet["test"], ImageTransform(processor, train=False))
    ```
    """

    def __init__(
        self,
        processor: Any,
        train: bool,
        *,
        scale: tuple[float, float] = (0.08, 1.0),
        ratio: tuple[float, float] = (3 / 4, 4 / 3),
        hflip: bool = True,
        id_columns: Sequence[str] = ("sample_id",),
        column: str = "image",
        label_column: str = "label",
        background: Colour = WHITE,
    ):
        if not 0 < scale[0] <= scale[1] <= 1 or not 0 < ratio[0] <= ratio[1]:
            raise ValueError(
                f"scale={scale} and ratio={ratio} are no ranges of a crop: pass two shares of the area, from above 0 up to "
                "1, and two ratios above 0, the smaller ones first."
            )
        self.processor, self.train, self.scale, self.ratio, self.hflip = processor, train, scale, ratio, hflip
        self.id_columns, self.column, self.label_column = tuple(id_columns), column, label_column
        self.background, self.mode = rgb_of(background), None
        self.grayscale = is_grayscale(processor)
        self.height, self.width = _input_size(processor)
        # (factor * pixel - mean) / std
        mean, std = torch.tensor([0.0]), torch.tensor([1.0])
        if processor.do_normalize:
            mean, std = torch.tensor(processor.image_mean), torch.tensor(processor.image_std)
        factor = processor.rescale_factor if processor.do_rescale else 1.0
        self._slope_C11, self._offset_C11 = (factor / std).view(-1, 1, 1), (mean / std).view(-1, 1, 1)

    def __call__(self, batch: Mapping[str, list]) -> dict[str, Any]:
        """Of columns of B samples, `pixel_values` `(B, C, H, W)` float32, `labels` and the ids."""
        for name in (self.column, self.label_column):
            check_is_read(batch, name, "which ImageTransform reads")
        names = next((batch[name] for name in self.id_columns if name in batch), range(len(batch[self.column])))
        cells = list(zip(batch[self.column], names, strict=True))
        if self.train:
            pixels_BCHW = torch.empty(len(cells), 1 if self.grayscale else 3, self.height, self.width)
            for pixels_CHW, (cell, row) in zip(pixels_BCHW, cells, strict=True):
                pixels_CHW.copy_(torch.from_numpy(self._random_view(cell, row)).permute(2, 0, 1))
            pixels_BCHW.mul_(self._slope_C11).sub_(self._offset_C11)
        else:
            images = [as_rgb(cell, row, self.mode, self.background) for cell, row in cells]
            images = [image.convert("L") for image in images] if self.grayscale else images
            pixels_BCHW = self.processor(images=images, return_tensors="pt")["pixel_values"]
        ids = {name: batch[name] for name in self.id_columns if name in batch}
        return {**ids, "pixel_values": pixels_BCHW, "labels": batch[self.label_column]}

    def _random_view(self, cell: Any, row: int | str) -> np.ndarray:
        """`(H, W, C)` uint8."""
        with _naming(cell, row):
            if (image := open_image(cell)) is not None:
                image = self._random_crop(image)
                if self.hflip and torch.rand(()) < 0.5:
                    image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
                return np.array(image).reshape(self.height, self.width, -1)
        raise _no_image(cell, row)

    def _random_crop(self, image: Image.Image) -> Image.Image:
        image = upright(image)
        (width, height), (left, top, right, bottom) = image.size, self._draw_box(*image.size)
        # JPEG can be decoded at a fraction of its size, nearly for free; every other format ignores this.
        wanted = (width * self.width / (right - left), height * self.height / (bottom - top))
        image.draft(None, (math.ceil(wanted[0]), math.ceil(wanted[1])))
        x, y = image.size[0] / width, image.size[1] / height
        image = _in_mode(to_rgb(image, self.background), self.mode)
        image = image.convert("L") if self.grayscale else image
        box = (left * x, top * y, right * x, bottom * y)
        return image.resize((self.width, self.height), self.processor.resample, box=box)

    def _draw_box(self, width: int, height: int) -> tuple[int, int, int, int]:
        """Left, top, right, bottom; after ten crops that do not fit, the largest in the centre with a ratio allowed."""
        low, high = math.log(self.ratio[0]), math.log(self.ratio[1])
        for share, shape, x, y in torch.rand(10, 4).tolist():
            area = width * height * (self.scale[0] + share * (self.scale[1] - self.scale[0]))
            aspect = math.exp(low + shape * (high - low))
            w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
            if 0 < w <= width and 0 < h <= height:
                left, top = int(x * (width - w + 1)), int(y * (height - h + 1))
                return left, top, left + w, top + h
        w, h = min(width, round(height * self.ratio[1])), min(height, round(width / self.ratio[0]))
        w, h = max(w, 1), max(h, 1)
        return (width - w) // 2, (height - h) // 2, (width + w) // 2, (height + h) // 2


def _input_size(processor: Any) -> tuple[int, int]:
    """Height and width of what the processor makes of an image."""
    size = dict(processor.crop_size if processor.do_center_crop else processor.size)
    if "shortest_edge" in size:
        return size["shortest_edge"], size["shortest_edge"]
    if "height" not in size or "width" not in size:
        raise ValueError(f"the image processor makes images of {size}, which is no fixed size: set height and width.")
    return size["height"], size["width"]
