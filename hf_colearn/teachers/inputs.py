"""What a teacher can read: texts, images and waveforms, in the forms that `datasets` and its users hold them."""

import io
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
import xxhash
from PIL import Image, ImageOps, UnidentifiedImageError

from hf_colearn.data.audio import is_audio_decoder, read_waveform


def _refuse(item: Any, position: int | str, wanted: str) -> ValueError:
    shown = f"'{item[:60]}'" if isinstance(item, str) else f"of type {type(item).__name__}"
    return ValueError(
        f"teacher input {position} is {shown}, where {wanted} is needed: mend the inputs, or take a teacher of that "
        "modality."
    )


def digest(item: Any, position: int | str) -> bytes:
    """128 bits that tell distinct inputs apart, of the content alone."""
    if isinstance(item, str):
        return xxhash.xxh3_128_digest(item.encode())
    if isinstance(item, Image.Image):
        item = item.convert("RGBA") if item.mode == "P" else item  # the pixels of a palette image are mere indices
        return xxhash.xxh3_128_digest(f"{item.mode}{item.size}".encode() + item.tobytes())
    if isinstance(item, Mapping) and item.get("bytes") is not None:
        return xxhash.xxh3_128_digest(item["bytes"])
    if isinstance(item, Mapping) and item.get("path") is not None:
        try:
            with open(item["path"], "rb") as file:
                return xxhash.xxh3_128_digest(file.read())
        except OSError as error:
            raise ValueError(f"teacher input {position} cannot be read ({error}): remove or mend it.") from error
    if is_audio_decoder(item) or (isinstance(item, Mapping) and "array" in item):
        wave, rate = waveform(item, position, None)
        return xxhash.xxh3_128_digest(f"{rate}{wave.shape}".encode() + wave.tobytes())
    if isinstance(item, (np.ndarray, torch.Tensor, list, tuple)):
        array = np.ascontiguousarray(item)
        if np.issubdtype(array.dtype, np.number):
            return xxhash.xxh3_128_digest(f"{array.dtype}{array.shape}".encode() + array.tobytes())
    raise _refuse(item, position, "a text, an image or a waveform")


def text(item: Any, position: int | str) -> str:
    """The input as a text."""
    if not isinstance(item, str):
        raise _refuse(item, position, "a text")
    return item


def image(item: Any, position: int | str) -> Image.Image:
    """The input as an RGB image: a PIL image, an array [height, width(, 3)] of uint8, or encoded bytes or a path."""
    try:
        if isinstance(item, Mapping) and (item.get("bytes") is not None or item.get("path") is not None):
            item = Image.open(io.BytesIO(item["bytes"]) if item.get("bytes") is not None else item["path"])
            item = ImageOps.exif_transpose(item)  # as `datasets` does when it decodes
        elif isinstance(item, np.ndarray) and item.dtype == np.uint8 and item.ndim in (2, 3):
            item = Image.fromarray(item)
        if not isinstance(item, Image.Image):
            raise _refuse(item, position, "an image")
        return item.convert("RGB")
    except (UnidentifiedImageError, OSError, Image.DecompressionBombError) as error:
        raise ValueError(
            f"teacher input {position} is no image that can be decoded ({error}): remove or mend it."
        ) from error


def waveform(item: Any, position: int | str, sampling_rate: int | None) -> tuple[np.ndarray, int]:
    """The input as mono samples `(T,)` float32 and their rate in Hz, as [`~hf_colearn.data.audio.read_waveform`] does.

    A recording that is silent or holds NaN is refused; a bare array is taken as it is, and to be at `sampling_rate`.
    """
    is_array = isinstance(item, (np.ndarray, torch.Tensor, list, tuple))
    if not (is_array or isinstance(item, Mapping) or is_audio_decoder(item)):
        raise _refuse(item, position, "a waveform")
    return read_waveform(item, f"teacher input {position}", sampling_rate, check=not is_array)
