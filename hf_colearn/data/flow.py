"""Optical flow of a video as a modality: read from extracted images, or computed from consecutive frames.

Shapes: T flow fields of a clip, 2 channels (x and y), H x W pixels. Field i leads from frame i to frame i + 1.

Extracted flow is a folder of `flow_x_00001.jpg`, `flow_y_00001.jpg`, ... as `dense_flow` and MMAction2 write it (Wang et
al., "Temporal Segment Networks", ECCV 2016): the first pair is field 0, a displacement of -20 to 20 pixels is 0 to 255.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from PIL import Image

from hf_colearn.data.columns import with_lazy_input
from hf_colearn.data.video import VideoFrames, frame_files, read_images, segment, source_of, spread


BOUND = 20.0  # pixels from one frame to the next, what the images of extracted flow reach up to
_PREFIXES = ("flow_x_", "flow_y_")


def read_flow(
    cell: Any, count: int, position: int | str = "the video", generator: torch.Generator | None = None
) -> torch.Tensor:
    """Flow fields of a clip, evenly spread over it as in [`~hf_colearn.data.video.read_frames`].

    A folder of extracted flow is read. Otherwise each field is computed from two consecutive frames in grayscale by DIS
    (Kroeger et al., ECCV 2016; OpenCV's medium preset), which costs 7 to 15 ms of one CPU core for 320 x 240 pixels, far
    more than decoding, *every time a sample is read*: to train on it, write it once by [`write_flow`].

    Args:
        cell: As in [`~hf_colearn.data.video.read_frames`], or a folder of extracted flow. `start` and `end` count frames.
        count (`int`): T.
        position (`int` or `str`, *optional*): The row, or what to call the clip in errors.
        generator (`torch.Generator`, *optional*): Draws the fields, for training.

    Returns:
        `torch.Tensor` of shape `(T, 2, H, W)`, float32, in pixels from one frame to the next, clipped to -20 to 20.

    Raises:
        ValueError: If it cannot be decoded, or has fewer than `count + 1` frames; it names the clip.
        ImportError: If flow is to be computed without OpenCV, or a file decoded without torchcodec.
    """
    source, name = source_of(cell, position)
    folder = source if isinstance(source, Path) and source.is_dir() else None
    extracted = [frame_files(folder, prefix) if folder else [] for prefix in _PREFIXES]
    if len(extracted[0]) != len(extracted[1]):
        raise ValueError(
            f"{name} has {len(extracted[0])} images flow_x_* and {len(extracted[1])} flow_y_*: extract the flow anew."
        )
    frames = None if extracted[0] else VideoFrames(cell, position)
    length = len(extracted[0]) + 1 if frames is None else len(frames)
    indices = spread(segment(cell, length, name)[:-1], count, f"the flow of {name}", generator)
    if frames is None:
        encoded_NHW = read_images([images[index] for index in indices for images in extracted], name, mode="L")[:, 0]
        return encoded_NHW.unflatten(0, (count, 2)).float() * (2 * BOUND / 255) - BOUND
    images = [_grayscale(frame) for frame in frames.read([index + step for index in indices for step in (0, 1)])]
    compute = _dis()
    return torch.stack([compute(first, second) for first, second in zip(images[::2], images[1::2], strict=True)])


def write_flow(cell: Any, folder: str | Path, position: int | str = "the video") -> Path:
    """Computes the flow of a whole video once and writes it as extracted flow, over what is there; returns the folder.

    `start` and `end` of the cell are ignored, so that frames keep their numbers.

    Example:

    ```python
    for clip in Path("nvGesture/Video_data").glob("class_*/subject*"):
        write_flow(clip / "sk_color.avi", clip / "sk_flow")  # where `load_nvgesture` finds it
    ```
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    frames = VideoFrames(cell, position)
    compute, previous = _dis(), _grayscale(frames.read([0])[0])
    for number in range(1, len(frames)):
        current = _grayscale(frames.read([number])[0])  # one at a time: a long video need not fit in memory
        encoded_2HW = ((compute(previous, current) + BOUND) * (255 / (2 * BOUND))).round().byte().numpy()
        for prefix, image in zip(_PREFIXES, encoded_2HW, strict=True):
            Image.fromarray(image).save(folder / f"{prefix}{number:05d}.jpg", quality=95)
        previous = current
    return folder


def _dis() -> Callable[[np.ndarray, np.ndarray], torch.Tensor]:
    """OpenCV's DIS flow `(2, H, W)` of two grayscale frames `(H, W)` uint8."""
    try:
        import cv2
    except ImportError as error:
        raise ImportError(
            "computing optical flow needs OpenCV: pip install 'hf-colearn[video]', or extract the flow before."
        ) from error
    dis: Any = cv2.DISOpticalFlow.create(cv2.DISOpticalFlow_PRESET_MEDIUM)
    return lambda first, second: torch.from_numpy(dis.calc(first, second, None)).permute(2, 0, 1).clamp(-BOUND, BOUND)


def _grayscale(frame_3HW: torch.Tensor) -> np.ndarray:
    return np.array(Image.fromarray(frame_3HW.permute(1, 2, 0).numpy()).convert("L"))


# ---- the student's inputs ----
def with_flow(
    dataset: Dataset,
    size: int,
    count: int,
    column: str = "flow",
    out: str = "flow_pixel_values",
    train: bool = False,
    *,
    crop_pct: float = 0.875,
) -> Dataset:
    """Reads `count` flow fields of a clip whenever it is read, see [`~hf_colearn.data.columns.with_lazy_input`].

    Fields are resized so that the crop covers `crop_pct` of the short side, and a square is cropped: the centre, or, for
    training, a random place, the same for all fields of a clip. Values are in units of 20 pixels of the original frames,
    so in [-1, 1]. Fields are never mirrored.

    Args:
        dataset ([`datasets.Dataset`]): With a column that [`read_flow`] reads.
        size (`int`): Sides of the student's input, in pixels; its backbone has `num_channels=2`.
        count (`int`): T.
        column (`str`, *optional*, defaults to `"flow"`): The clips' column.
        out (`str`, *optional*, defaults to `"flow_pixel_values"`): The input's name; `(T, 2, size, size)` float32.
        train (`bool`, *optional*, defaults to `False`): Whether to take fields and crop at random, drawn from torch's
            global generator.
        crop_pct (`float`, *optional*, defaults to 0.875): The crop's share of the short side, up to 1.
    """
    if not (size >= 1 and count >= 1 and 0 < crop_pct <= 1):
        raise ValueError(
            f"size={size}, count={count} and crop_pct={crop_pct} make no input: pass a size and a count of at least 1, and "
            "a share above 0, up to 1."
        )
    make = partial(_flow_input, size=size, count=count, train=train, crop_pct=crop_pct)
    return with_lazy_input(dataset, column, out, make)


def _flow_input(cell: Any, size: int, count: int, train: bool, crop_pct: float) -> torch.Tensor:
    flow_T2HW = read_flow(cell, count, generator=torch.default_generator if train else None) / BOUND
    scale = size / crop_pct / min(flow_T2HW.shape[2:])
    height, width = (max(size, round(length * scale)) for length in flow_T2HW.shape[2:])
    flow_T2HW = torch.nn.functional.interpolate(flow_T2HW, (height, width), mode="bilinear", antialias=True)
    top, left = (int(torch.randint(n + 1, ())) if train else n // 2 for n in (height - size, width - size))
    return flow_T2HW[..., top : top + size, left : left + size].contiguous()
