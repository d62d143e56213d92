"""Videos of a dataset: their frames as the student's inputs, and their sound.

Shapes: T frames of a clip, C channels, H x W pixels.
"""

import os
import re
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from PIL import Image

from hf_colearn.data.audio import read_waveform
from hf_colearn.data.columns import name_of, with_lazy_input
from hf_colearn.data.images import UNDECODABLE, ImageTransform, is_grayscale
from hf_colearn.models.image_modes import to_rgb


VIDEO_SUFFIXES = (".mp4", ".flv", ".avi", ".mkv", ".webm", ".mov", ".m4v", ".mpg")
_IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp")


# ---- reading ----
def read_frames(
    cell: Any, count: int, position: int | str = "the video", generator: torch.Generator | None = None
) -> torch.Tensor:
    """Frames of a clip, evenly spread over it.

    The clip is cut into `count` segments of equal length, and the frame in the centre of each is taken; with a generator,
    a random frame of each ("temporal segments" of Wang et al., ECCV 2016). torchcodec decodes video files; it seeks, and so
    decodes little more than what is taken.

    Args:
        cell (`str`, `Path`, `bytes` or `dict`): A video file, a folder of its extracted frames (in natural order), an
            encoded video, or a cell of a `Video(decode=False)` column, `path` and `bytes`. Where the cell has `start` and
            `end`, the clip is frames `start` to `end - 1`, counted from 0.
        count (`int`): T.
        position (`int` or `str`, *optional*): The row, or what to call the clip in errors.
        generator (`torch.Generator`, *optional*): Draws the frames, for training.

    Returns:
        `torch.Tensor` of shape `(T, 3, H, W)`, uint8, in RGB.

    Raises:
        ValueError: If it cannot be decoded, its frames differ in size, or are fewer than `count`; it names the clip.
        ImportError: If a file is to be decoded without torchcodec, or without FFmpeg.
    """
    frames = VideoFrames(cell, position)
    return frames.read(spread(segment(cell, len(frames), frames.name), count, frames.name, generator))


def read_soundtrack(
    cell: Any, sampling_rate: int | None = None, position: int | str = "the video"
) -> tuple[np.ndarray, int]:
    """The sound of a clip, as [`~hf_colearn.data.audio.read_waveform`] gives it.

    A wav file beside it with the same name, `clip.wav` for `clip.mp4` or for the folder `clip`, is taken instead of the
    video's own sound.
    """
    source, _ = source_of(cell, position)
    if isinstance(source, Path):
        source = soundtrack_of(source)
        if source.is_dir():
            raise ValueError(f"'{source}' holds frames without sound, and there is no '{source}.wav' beside it.")
    return read_waveform(source, position, sampling_rate)


def soundtrack_of(video: Path) -> Path:
    """The file with a clip's sound: the wav beside it, or else the video itself."""
    wav = Path(f"{video}.wav") if video.is_dir() else video.with_suffix(".wav")
    return wav if wav.is_file() else video


def frame_files(folder: Path, prefix: str = "") -> list[Path]:
    """The images of a folder whose names begin so, in natural order: `2.jpg` comes before `10.jpg`."""
    files = [path for path in folder.iterdir() if path.suffix.lower() in _IMAGE_SUFFIXES]
    files = [path for path in files if path.name.startswith(prefix) and not path.name.startswith("._")]
    return sorted(files, key=lambda path: [int(x) if x.isdigit() else x for x in re.split(r"(\d+)", path.name)])


def video_files(folder: Path) -> dict[str, Path]:
    """The video files anywhere in a folder by their names without suffix; the first in order of path, where two agree."""
    found: dict[str, Path] = {}
    for parent, folders, names in os.walk(folder):
        folders.sort()
        for name in sorted(names):
            stem, suffix = os.path.splitext(name)
            if suffix.lower() in VIDEO_SUFFIXES:
                found.setdefault(stem, Path(parent, name))
    return found


def segment(cell: Any, length: int, name: str) -> range:
    """Which frames belong to the clip of a cell."""
    start, end = (cell.get("start"), cell.get("end")) if isinstance(cell, Mapping) else (None, None)
    start, end = 0 if start is None else start, length if end is None else end
    if not 0 <= start <= end <= length:
        raise ValueError(f"{name} has {length} frames, so there is no clip from {start} to {end}: mend its list.")
    return range(start, end)


def spread(frames: range, count: int, name: str, generator: torch.Generator | None) -> list[int]:
    """`count` of the frames, the one in the centre of each of as many segments, or a random one of each."""
    length = len(frames)
    if count < 1:
        raise ValueError(f"count={count} takes no frame: pass at least 1.")
    if length < count:
        raise ValueError(f"{name} has {length} frames, fewer than the {count} to take: take fewer, or leave it out.")
    if generator is None:
        return [frames[(2 * number + 1) * length // (2 * count)] for number in range(count)]
    bounds = [number * length // count for number in range(count + 1)]
    drawn = torch.rand(count, generator=generator).tolist()
    return [frames[a + int(share * (b - a))] for share, a, b in zip(drawn, bounds, bounds[1:], strict=False)]


class VideoFrames:
    """The frames of a video by number, from 0: of a file, which torchcodec decodes, or of a folder of images.

    A cell is as in [`read_frames`], and so are the errors; its `start` and `end` are ignored.
    """

    def __init__(self, cell: Any, position: int | str):
        source, self.name = source_of(cell, position)
        folder = source if isinstance(source, Path) and source.is_dir() else None
        self.is_folder = folder is not None
        self.frames: Any = frame_files(folder) if folder else _open_video(source, self.name)

    def __len__(self) -> int:
        return len(self.frames)

    def read(self, indices: list[int]) -> torch.Tensor:
        """Those frames, `(T, 3, H, W)` uint8, in RGB."""
        if self.is_folder:
            return read_images([self.frames[index] for index in indices], self.name)
        try:
            return self.frames.get_frames_at(indices=indices).data
        except (RuntimeError, ValueError, IndexError) as error:
            raise _undecodable(self.name, error) from error


def _open_video(source: Path | bytes, name: str) -> Any:
    try:
        from torchcodec.decoders import VideoDecoder
    except (ImportError, OSError, RuntimeError) as error:  # a RuntimeError where FFmpeg's libraries are not found
        raise ImportError(
            "decoding videos needs torchcodec and FFmpeg: pip install 'hf-colearn[video]', and install FFmpeg with the "
            "system's package manager. Folders of extracted frames can be read without."
        ) from error
    if isinstance(source, Path) and not source.is_file():
        raise ValueError(f"{name} is neither a file nor a folder of frames: remove or mend it.")
    try:
        return VideoDecoder(source if isinstance(source, bytes) else str(source))
    except (RuntimeError, ValueError) as error:
        raise _undecodable(name, error) from error


def read_images(files: list[Path], name: str, mode: str = "RGB") -> torch.Tensor:
    """Image files of one size, `(T, 3, H, W)` uint8, or `(T, 1, H, W)` for mode "L"; transparency becomes white."""
    frames = []
    for file in files:
        try:
            with Image.open(file) as image:
                frames.append(np.array(to_rgb(image).convert(mode)))
        except UNDECODABLE as error:
            raise ValueError(f"{name} has a frame '{file.name}' that cannot be decoded ({error}): mend it.") from error
    if sizes := {frame.shape[:2] for frame in frames} - {frames[0].shape[:2]}:
        raise ValueError(f"{name} has frames of {frames[0].shape[:2]} and of {sizes.pop()} pixels: extract them anew.")
    frames_THWC = torch.from_numpy(np.stack(frames).reshape(len(frames), *frames[0].shape[:2], -1))
    return frames_THWC.permute(0, 3, 1, 2)


def _undecodable(name: str, error: Exception) -> ValueError:
    return ValueError(f"{name} is no video that can be decoded ({str(error).splitlines()[0]}): remove or mend it.")


def source_of(cell: Any, position: int | str) -> tuple[Path | bytes, str]:
    """The file, folder or bytes of a cell, and what to call it."""
    name, source = name_of("video", cell, position), cell
    if isinstance(cell, Mapping):
        source = cell.get("path") if cell.get("bytes") is None else cell["bytes"]
    if isinstance(source, bytes):
        return source, name
    if isinstance(source, (str, os.PathLike)):
        return Path(source), name
    raise ValueError(
        f"{name} is of type {type(source).__name__}, where a video is needed: cast the column with "
        "`dataset.cast_column(column, datasets.Video(decode=False))`, or mend the row."
    )


# ---- the student's inputs ----
def with_frames(
    dataset: Dataset,
    processor: Any,
    count: int,
    column: str = "video",
    out: str = "video_pixel_values",
    train: bool = False,
    *,
    scale: tuple[float, float] = (0.08, 1.0),
    hflip: bool = True,
) -> Dataset:
    """Decodes `count` frames of a clip whenever it is read, see [`~hf_colearn.data.columns.with_lazy_input`].

    For training, a random frame of each segment is taken, and all frames of a clip get *the same* random crop and flip
    (the released code of OGM-GE draws them for every frame). Several video columns of a sample are drawn apart.

    Args:
        dataset ([`datasets.Dataset`]): With a column that [`read_frames`] reads.
        processor: The student's image processor; one with a single mean is for grayscale frames.
        count (`int`): T.
        column (`str`, *optional*, defaults to `"video"`): The clips' column.
        out (`str`, *optional*, defaults to `"video_pixel_values"`): The input's name; `(T, C, H, W)` float32.
        train (`bool`, *optional*, defaults to `False`): Whether to take frames, crop and flip at random, drawn from
            torch's global generator.
        scale (`tuple[float, float]`, *optional*, defaults to `(0.08, 1.0)`): A training crop's share of the area.
        hflip (`bool`, *optional*, defaults to `True`): Off where a mirror makes another class, as of gestures.
    """
    if count < 1:
        raise ValueError(f"count={count} takes no frame: pass at least 1.")
    transform = ImageTransform(processor, train=True, scale=scale, hflip=hflip) if train else None
    make = partial(_frames_input, processor=processor, count=count, transform=transform)
    return with_lazy_input(dataset, column, out, make)


def _frames_input(cell: Any, processor: Any, count: int, transform: ImageTransform | None) -> torch.Tensor:
    frames_T3HW = read_frames(cell, count, generator=torch.default_generator if transform else None)
    images = [Image.fromarray(frame_3HW.permute(1, 2, 0).numpy()) for frame_3HW in frames_T3HW]
    if is_grayscale(processor):
        images = [image.convert("L") for image in images]
    if transform is None:
        pixels = processor(images=images, return_tensors="np")["pixel_values"]
        return torch.from_numpy(np.asarray(pixels, dtype=np.float32))
    state, frames = torch.get_rng_state(), []
    for image in images:
        torch.set_rng_state(state)  # the same draws, so the same crop and flip, for every frame
        frames.append(transform({"image": [image], "label": [0]})["pixel_values"][0])
    frames_TCHW = torch.stack(frames)
    return frames_TCHW[:, :1].contiguous() if is_grayscale(processor) else frames_TCHW
