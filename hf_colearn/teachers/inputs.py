"""What a teacher can read: texts, images and waveforms, in the forms that `datasets` and its users hold them."""

import io
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
import xxhash
from PIL import Image, ImageOps, UnidentifiedImageError


# A decoded `datasets.Audio` cell is a torchcodec AudioDecoder; torchcodec itself is optional.
def _is_audio_decoder(item: Any) -> bool:
    return hasattr(item, "get_all_samples")


def _refuse(item: Any, position: int | str, wanted: str) -> ValueError:
    shown = f"'{item[:60]}'" if isinstance(item, str) else f"of type {type(item).__name__}"
    return ValueError(
        f"teacher input {position} is {shown}, where {wanted} is needed: mend the inputs, or take a teacher of that "
        "modality."
    )


def digest(item: Any, position: int | str) -> bytes:
    """128 bits that tell distinct inputs apart, of the content alone.

    Raises:
        ValueError: If the input is nothing that a teacher can read.
    """
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
    if _is_audio_decoder(item) or (isinstance(item, Mapping) and "array" in item):
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
    """The input as mono samples `(T,)` float32 and their rate in Hz, resampled where `sampling_rate` is given.

    A bare array is taken to be at `sampling_rate` already.
    """
    if _is_audio_decoder(item):
        samples = item.get_all_samples()
        wave, rate = samples.data.numpy(), samples.sample_rate
    elif isinstance(item, Mapping) and "array" in item:
        wave, rate = _as_samples(item["array"], position), int(item["sampling_rate"])
    elif isinstance(item, Mapping) and (item.get("bytes") is not None or item.get("path") is not None):
        wave, rate = _read_audio(item, position)
    elif isinstance(item, (np.ndarray, torch.Tensor, list, tuple)):
        wave, rate = _as_samples(item, position), sampling_rate or 0
    else:
        raise _refuse(item, position, "a waveform")
    if wave.ndim not in (1, 2) or not wave.size:
        raise ValueError(
            f"teacher input {position} is a waveform of shape {wave.shape}: pass at least one sample, mono or stereo."
        )
    wave = wave.mean(axis=int(np.argmin(wave.shape))) if wave.ndim == 2 else wave
    if sampling_rate and rate != sampling_rate:
        import torchaudio.functional  # slow to import, and only audio needs it

        wave = torchaudio.functional.resample(torch.from_numpy(wave), rate, sampling_rate).numpy()
    return np.ascontiguousarray(wave, dtype=np.float32), sampling_rate or rate


def _as_samples(array: Any, position: int | str) -> np.ndarray:
    """Samples in [-1, 1]: signed integers are scaled by their type's range."""
    array = np.asarray(array)
    if np.issubdtype(array.dtype, np.floating):
        return array.astype(np.float32)
    if array.dtype not in (np.int8, np.int16, np.int32):
        raise ValueError(
            f"teacher input {position} has samples of {array.dtype}, whose full scale is unknown: pass floats in "
            "[-1, 1], int16 or int32."
        )
    return array.astype(np.float32) / (np.iinfo(array.dtype).max + 1)


def _read_audio(item: Mapping, position: int | str) -> tuple[np.ndarray, int]:
    try:
        import soundfile
    except ImportError as error:
        raise ImportError("reading audio files needs soundfile: pip install 'hf-colearn[audio]'") from error
    try:
        source = io.BytesIO(item["bytes"]) if item.get("bytes") is not None else item["path"]
        return soundfile.read(source, dtype="float32")
    except (soundfile.LibsndfileError, OSError) as error:
        raise ValueError(
            f"teacher input {position} is no audio that can be decoded ({error}): remove or mend it."
        ) from error
