"""What a teacher can read: texts, images and waveforms, in the forms that `datasets` and its users hold them."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
import xxhash
from PIL import Image

from hf_colearn.data.audio import as_stored_cell, is_audio_decoder, read_waveform
from hf_colearn.data.columns import name_of
from hf_colearn.data.images import UNDECODABLE, is_url, open_image
from hf_colearn.models.image_modes import WHITE, Colour, UnclearImage, to_rgb, upright


_AUDIO = (str, os.PathLike, bytes, Mapping, np.ndarray, torch.Tensor, list, tuple)


def _refuse(item: Any, position: int | str, wanted: str) -> ValueError:
    shown = f"of type {type(item).__name__}"
    if isinstance(item, (str, os.PathLike)):
        shown = f"'{os.fspath(item)[:60]}'"
    return ValueError(
        f"teacher input {position} is {shown}, where {wanted} is needed: mend the inputs, or take a teacher of that "
        "modality."
    )


def digest(item: Any, position: int | str, modality: str = "text") -> bytes:
    """128 bits that tell distinct inputs apart, of the content alone; a string is a path for a teacher of images or audio."""
    if isinstance(item, str) and modality == "text":
        return xxhash.xxh3_128_digest(item.encode())
    if isinstance(item, (str, os.PathLike)):
        if is_url(item):
            raise ValueError(
                f"teacher input {position} ('{item}') is a URL, and only files are opened: download it, and pass the path of "
                "the file."
            )
        if not os.path.isfile(item):
            raise _refuse(item, position, "the path of a file")
        item = {"path": item}
    if isinstance(item, bytes):
        return xxhash.xxh3_128_digest(item)
    item = as_stored_cell(item)
    if isinstance(item, Image.Image):
        return _of_pixels(item, position)
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
        if array.dtype == np.bool_ or np.issubdtype(array.dtype, np.number):
            return xxhash.xxh3_128_digest(f"{array.dtype}{array.shape}".encode() + array.tobytes())
    raise _refuse(item, position, "a text, an image or a waveform")


def text(item: Any, position: int | str) -> str:
    """The input as a text."""
    if not isinstance(item, str):
        raise _refuse(item, position, "a text")
    return item


def image(item: Any, position: int | str, background: Colour = WHITE) -> Image.Image:
    """The input in RGB, read and converted as a student's ([`~hf_colearn.data.images.as_rgb`])."""
    with _naming(item, position):
        if (opened := open_image(item)) is not None:
            return to_rgb(opened, background)
    raise _refuse(item, position, "an image")


@contextmanager
def _naming(item: Any, position: int | str) -> Iterator[None]:
    """Adds the input's position and file to what goes wrong while an image is decoded."""
    name = name_of("image", item, f"teacher input {position}")
    try:
        yield
    except UnclearImage as error:
        raise ValueError(f"{name} {error.problem}") from error
    except UNDECODABLE as error:
        raise ValueError(f"{name} is no image that can be decoded ({error}): remove or mend it.") from error


def _of_pixels(item: Image.Image, position: int | str) -> bytes:
    """The digest of an image in all that is seen of it: pixels of any depth, palette, transparency and orientation."""
    with _naming(item, position):
        item = upright(item)
        item = item.convert("RGBA") if item.mode in ("P", "PA") else item  # whose pixels are mere indices
        invisible = item.info.get("transparency", "")
        return xxhash.xxh3_128_digest(f"{item.mode}{item.size}{invisible}".encode() + item.tobytes())


def waveform(item: Any, position: int | str, sampling_rate: int | None) -> tuple[np.ndarray, int]:
    """The input as mono samples `(T,)` float32 and their rate in Hz, as [`~hf_colearn.data.audio.read_waveform`] does."""
    if not (isinstance(item, _AUDIO) or is_audio_decoder(item)):
        raise _refuse(item, position, "a waveform")
    return read_waveform(item, f"teacher input {position}", sampling_rate)
