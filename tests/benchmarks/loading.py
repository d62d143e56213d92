"""Decoding and transforming JPEGs on one core, beside what a training step takes."""

import io
from collections.abc import Callable
from time import process_time

import numpy as np
import torch
from PIL import Image

from hf_colearn.data.augmentation import ImageAugmentation
from hf_colearn.data.images import ImageTransform, as_rgb, make_image_processor
from tests.benchmarks.timing import Row, median_with_interval, paired, ratio_row


NOTE_JPEG = (
    "JPEGs of 500 x 375 pixels at quality 98 (ImageNet's usual size; {kilobytes:.0f} kB on average), cut from "
    "scikit-learn's two photographs, in memory. CPU time of one thread here and below, so that other programs do not count."
)
NOTE_TRAIN = (
    "`ImageTransform(train=True)`: decoding included; random crop, bicubic resize to 224, flip, normalisation."
)
NOTE_AUGMENT = (
    "`ImageAugmentation` as published (RandAugment, erasing, mixup or cutmix, smoothing), {batch} images of 224 pixels at "
    "a time, on one core; in training it runs on the GPU."
)
NOTE_CORES = (
    "Images/s that a GPU takes (`--images_per_second`; RESULTS_GPU.md measures it) over what a core delivers. Cores of "
    "data loader workers for every GPU; decoding ahead of time or at a smaller size is the way out where there are fewer."
)


def photographs(count: int, width: int = 500, height: int = 375) -> list[bytes]:
    """Encoded crops, no two alike."""
    from sklearn.datasets import load_sample_images

    generator = np.random.default_rng(0)
    photos, encoded = load_sample_images().images, []
    for _ in range(count):
        photo = photos[generator.integers(len(photos))]
        top, left = (generator.integers(photo.shape[axis] - side + 1) for axis, side in ((0, height), (1, width)))
        buffer = io.BytesIO()
        Image.fromarray(photo[top : top + height, left : left + width]).save(buffer, "JPEG", quality=98)
        encoded.append(buffer.getvalue())
    return encoded


def timed(call: Callable[[], object]) -> float:
    """The seconds of CPU that a call takes."""
    start = process_time()
    call()
    return process_time() - start


def per_second(what: str, sizes: str, seconds: np.ndarray, images: int, note: str) -> Row:
    """A row of images/s, of calls that take `images` each."""
    value, low, high = median_with_interval(images / seconds)
    return Row("loading", what, sizes, value, low, high, "images/s", f"{len(seconds)} times", note=note)


def rows(quick: bool, images_per_second: float) -> list[Row]:
    """On one thread, which is a core; workers take one each."""
    count, pairs, batch = (4, 3, 4) if quick else (64, 20, 64)
    encoded = photographs(count)
    cells = {"image": [{"bytes": data, "path": None} for data in encoded], "label": [0] * count}
    note = NOTE_JPEG.format(kilobytes=sum(map(len, encoded)) / count / 1000)
    processor = make_image_processor(224)
    train, test = ImageTransform(processor, train=True), ImageTransform(processor, train=False)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        torch.manual_seed(0)
        seconds = paired(
            lambda: timed(lambda: [as_rgb(cell, 0) for cell in cells["image"]]),
            lambda: timed(lambda: train(cells)),
            pairs,
        )
        evaluation = np.array([timed(lambda: test(cells)) for _ in range(pairs)])
        augment = ImageAugmentation(1000)
        images = {"pixel_values": torch.randn(batch, 3, 224, 224), "labels": torch.randint(1000, (batch,))}
        augment(images)
        augmentation = np.array([timed(lambda: augment(images)) for _ in range(pairs)])
    finally:
        torch.set_num_threads(threads)
    sizes = "JPEG 500 x 375, one core"
    result = [
        per_second("decoding alone", sizes, seconds[:, 0], count, note),
        per_second("training transform", sizes, seconds[:, 1], count, NOTE_TRAIN),
        ratio_row("loading", "training transform / decoding alone", sizes, seconds, note=note),
        per_second("evaluation transform", sizes, evaluation, count, "`ImageTransform(train=False)`: the processor."),
    ]
    needed = images_per_second * seconds[:, 1] / count
    sizes = f"{images_per_second:,.0f} images/s a GPU"
    result.append(
        Row("loading", "cores that a GPU needs", sizes, *median_with_interval(needed), "", f"{pairs} times", note=NOTE_CORES)
    )  # fmt: skip
    milliseconds = median_with_interval(1000 * augmentation / batch)
    sizes, note = f"batch {batch}, 224 px, one core", NOTE_AUGMENT.format(batch=batch)
    result.append(Row("loading", "augmentation of an image", sizes, *milliseconds, "ms", f"{pairs} times", note=note))
    return result
