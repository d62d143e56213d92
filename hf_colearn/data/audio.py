"""Audio of a dataset as waveforms, inputs of a model, and spectrograms; teachers and students read it alike.

Shapes: T samples of a clip, C channels.
"""

import io
import operator
import os
from collections.abc import Mapping, Sequence
from fractions import Fraction
from functools import partial
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from transformers import ASTFeatureExtractor, SeamlessM4TFeatureExtractor, WhisperFeatureExtractor
from transformers.utils import logging

from hf_colearn.data.columns import map_columns, name_of, with_lazy_input
from hf_colearn.models.spectrogram import SpectrogramFeatureExtractor
from hf_colearn.utils.extras import extra


logger = logging.get_logger(__name__)

_FRAME_S, _HOP_S = 0.025, 0.01  # of Kaldi's filter banks
_LOUDEST = 32.0  # 30 dB above full scale: beyond it floats are integers that nobody has scaled
_CANCELLED = 0.01
_FRACTIONS = 1000  # of a sample; odd rates are off by 1/2000 at most, usual ones exact


# ---- reading ----
def read_waveform(
    cell: Any, position: int | str, sampling_rate: int | None = None, array_rate: int | None = None
) -> tuple[np.ndarray, int]:
    """A clip as mono samples and their rate, where full scale is 1.

    Channels are averaged; where they cancel, as two of opposite phase do, the first of the loudest is taken instead (where
    the mean has less than 1 % of the power that it would have of the loudest channel alone). Integers are scaled by their
    type's range. soundfile reads files; torchcodec, where installed, those that it does not know (m4a and other video
    containers).

    Args:
        cell: A path, encoded bytes, a cell of an `Audio` column (decoded or not), `{"array": ..., "sampling_rate": ...}`, or a
            bare array; arrays are `(T,)`, `(C, T)` or `(T, C)` with C < T, of floats, int8, int16, int32 or uint8.
        position (`int` or `str`): The row, or what to call the clip in errors.
        sampling_rate (`int`, *optional*): In Hz, what to resample to; by default the clip's own.
        array_rate (`int`, *optional*): In Hz, that of bare arrays, which do not tell theirs.

    Returns:
        `tuple[np.ndarray, int]`: The samples `(T,)` in float32, and their rate in Hz.

    Raises:
        ValueError: If it cannot be decoded, its rate is unknown, it is empty or silent (all samples equal), has NaN or infinite
            samples, or none of full scale 1; it names the clip.
    """
    cell = as_stored_cell(cell)
    name = name_of("audio", cell, position)
    if isinstance(cell, (str, os.PathLike)):
        cell = {"path": os.fspath(cell)}
    elif isinstance(cell, bytes):
        cell = {"bytes": cell}
    wave_CT, rate = _decode(cell, name, array_rate)
    if not wave_CT.size:
        raise ValueError(f"{name} has no samples: remove or mend it.")
    invalid = np.count_nonzero(~np.isfinite(wave_CT))
    if invalid:
        raise ValueError(
            f"{name} has {invalid} samples of {wave_CT.size} that are NaN or infinite: remove or mend it."
        )
    if (peak := np.abs(wave_CT).max()) > _LOUDEST:
        raise ValueError(
            f"{name} has samples of up to {peak:g}, where full scale is 1: divide by the full scale, which is 32768 for 16 "
            "bits, or pass the array as int16."
        )
    wave = _downmix(wave_CT)
    if np.ptp(wave) == 0:
        raise ValueError(f"{name} is silent (all its {len(wave)} samples are {wave[0]:g}): remove or mend it.")
    if sampling_rate and rate != sampling_rate:
        import torchaudio.functional  # slow to import

        # A filter for every fraction of a sample would be gigabytes for odd rates; usual ones have a small denominator.
        ratio = Fraction(rate, sampling_rate).limit_denominator(max(_FRACTIONS, sampling_rate // rate))
        wave = torchaudio.functional.resample(torch.from_numpy(wave), ratio.numerator, ratio.denominator).numpy()
    return np.ascontiguousarray(wave, dtype=np.float32), sampling_rate or rate


def is_audio_decoder(item: Any) -> bool:
    """Whether it is a decoded `datasets.Audio` cell, an AudioDecoder of torchcodec, which is optional."""
    return hasattr(item, "get_all_samples")


def as_stored_cell(item: Any) -> Any:
    """Path and bytes of what `datasets` has decoded, where they are at hand, so that a clip is the same decoded or not."""
    stored = getattr(item, "_hf_encoded", None) if is_audio_decoder(item) else None
    at_hand = stored and (stored.get("bytes") is not None or os.path.isfile(stored.get("path") or ""))
    return stored if at_hand else item


def _downmix(wave_CT: np.ndarray) -> np.ndarray:
    """The mean of the channels, or the first of the loudest where they cancel; loudness without the mean over time."""
    mean_T, power_C = wave_CT.mean(axis=0), wave_CT.var(axis=1, dtype=np.float64)
    alone = power_C.max() / len(wave_CT) ** 2  # the mean's power, were the other channels silent
    if mean_T.var(dtype=np.float64) >= _CANCELLED * alone:
        return mean_T
    return wave_CT[(power_C >= (1 - _CANCELLED) * power_C.max()).argmax()]


def _decode(cell: Any, name: str, array_rate: int | None) -> tuple[np.ndarray, int]:
    """The samples `(C, T)` in float32, and their rate."""
    if is_audio_decoder(cell):
        samples = cell.get_all_samples()
        return samples.data.numpy(), _checked_rate(samples.sample_rate, name)
    if isinstance(cell, Mapping) and "array" in cell:
        return _as_floats(cell["array"], name), _checked_rate(cell.get("sampling_rate"), name)
    if isinstance(cell, Mapping) and (cell.get("bytes") is not None or cell.get("path") is not None):
        return _read_file(cell, name)
    if isinstance(cell, (np.ndarray, torch.Tensor, list, tuple)):
        if array_rate is None:
            raise ValueError(
                f"{name} is a bare array, whose rate is unknown: pass {{'array': samples, 'sampling_rate': rate in Hz}}."
            )
        return _as_floats(cell, name), _checked_rate(array_rate, name)
    shown = f"of type {type(cell).__name__}" if not isinstance(cell, Mapping) else f"{dict(cell)}"[:80]
    raise ValueError(
        f"{name} is {shown}, where a waveform is needed: cast the column with "
        "`dataset.cast_column(column, datasets.Audio(decode=False))`, or mend the row."
    )


def _checked_rate(rate: Any, name: str) -> int:
    is_number = isinstance(rate, (int, float, np.number, torch.Tensor)) and not isinstance(rate, bool)
    if not is_number or not float(rate).is_integer() or rate <= 0:
        raise ValueError(f"{name} has sampling_rate={rate!r}: pass its rate in Hz, a whole number, beside the array.")
    return int(rate)


def _as_floats(array: Any, name: str) -> np.ndarray:
    """An array's samples `(C, T)`, full scale being 1: integers are scaled by their type's range."""
    if isinstance(array, torch.Tensor):
        array = array.detach().cpu()
        array = array.float() if array.is_floating_point() else array
    try:
        array = np.asarray(array)
    except ValueError as error:  # lists of several lengths
        raise ValueError(
            f"{name} is no array of samples ({error}): pass one of shape (T,), (C, T) or (T, C)."
        ) from None
    if array.ndim not in (1, 2) or (array.ndim == 2 and array.shape[0] == array.shape[1] > 1):
        raise ValueError(
            f"{name} is a waveform of shape {array.shape}: pass `(T,)`, or `(C, T)` or `(T, C)` of fewer channels than samples."
        )
    if array.ndim == 1:
        array = array[None]
    elif array.shape[0] > array.shape[1] > 0:
        array = array.T
    if np.issubdtype(array.dtype, np.floating):
        return array.astype(np.float32)
    if array.dtype == np.uint8:  # as in WAV files of 8 bits: 128 is zero
        return array.astype(np.float32) / 128 - 1
    if array.dtype not in (np.int8, np.int16, np.int32):
        raise ValueError(
            f"{name} has samples of {array.dtype}, whose full scale is unknown: pass floats in [-1, 1], int16 or int32."
        )
    return array.astype(np.float32) / (np.iinfo(array.dtype).max + 1)


def _read_file(cell: Mapping, name: str) -> tuple[np.ndarray, int]:
    with extra("audio", "reading audio files needs soundfile"):
        import soundfile
    is_path = cell.get("bytes") is None
    source = cell["path"] if is_path else cell["bytes"]
    if is_path and not os.path.isfile(source):
        raise ValueError(f"{name} is no audio that can be decoded (there is no such file): remove or mend it.")
    try:
        wave_TC, rate = soundfile.read(source if is_path else io.BytesIO(source), dtype="float32", always_2d=True)
        return wave_TC.T, rate
    except (soundfile.LibsndfileError, OSError) as error:
        # Its own text would name the object that was read, too.
        reason = error.error_string if isinstance(error, soundfile.LibsndfileError) else str(error)
    try:
        from torchcodec.decoders import AudioDecoder

        samples = AudioDecoder(source).get_all_samples()
        return samples.data.numpy(), samples.sample_rate
    except (ImportError, OSError, RuntimeError, ValueError) as error:
        raise ValueError(
            f"{name} is no audio that can be decoded (soundfile: {reason} torchcodec: {str(error).splitlines()[0]}): "
            "remove or mend it; what soundfile does not know, such as m4a, needs torchcodec."
        ) from error


# ---- the student's inputs ----
def with_input_values(
    dataset: Dataset,
    feature_extractor: Any,
    column: str = "audio",
    label_column: str = "label",
    max_seconds: float | None = None,
    array_rate: int | None = None,
) -> Dataset:
    """Reads, resamples and normalises all clips once, each at its own length.

    Batches are padded by `transformers.DataCollatorWithPadding(feature_extractor)`, Trainer's own choice where the
    extractor is its `processing_class`. Clips may be shorter than the student's first frame, see
    [`~hf_colearn.models.short_clips`].

    Args:
        dataset ([`datasets.Dataset`]): With a column that [`read_waveform`] reads.
        feature_extractor: The student's. One of waveforms (wav2vec2, HuBERT) gives clips of variable length; one of
            windows (Whisper, AST, [`~hf_colearn.models.spectrogram.SpectrogramFeatureExtractor`]) arrays of one shape; a
            warning names the first clip that is longer than the window and loses its end.
        column, label_column (`str`, *optional*, defaults to `"audio"` and `"label"`): Clips and labels.
        max_seconds (`float`, *optional*): What is longer loses its end.
        array_rate (`int`, *optional*): In Hz, of a column of bare arrays, whose rate is stored nowhere.

    Returns:
        [`datasets.Dataset`]: In torch format, with the input of the extractor's model (`input_values`, ..., float32),
            `labels` and every other column.

    Raises:
        ValueError: If there are no samples, a column is missing, or a clip is bad; it names the row.
    """
    if max_seconds is not None and not max_seconds > 0:
        raise ValueError(f"max_seconds={max_seconds} leaves no audio: pass a positive number, or None for all of it.")
    rate, name = feature_extractor.sampling_rate, feature_extractor.model_input_names[0]
    window_s = window_seconds(feature_extractor)
    cut: list[int] = []

    def read_start(cell: Any, row: int) -> np.ndarray:
        wave, _ = read_waveform(cell, row, rate, array_rate)
        if max_seconds is not None:
            wave = first_seconds(wave, rate, max_seconds, name_of("audio", cell, row))
        if not cut and window_s and len(wave) > window_s * rate:
            cut.append(row)
            logger.warning(
                f"the audio in row {row} lasts {len(wave) / rate:.4g} s, longer than the window of {window_s:g} s of "
                f"{type(feature_extractor).__name__}: it loses its end, as do others. Pass `max_seconds` to say so."
            )
        return with_a_frame(wave, feature_extractor)

    def extract(cells: list[Any], rows: list[int]) -> dict[str, Any]:
        waves = [read_start(cell, row) for cell, row in zip(cells, rows, strict=True)]
        inputs = feature_extractor(waves, sampling_rate=rate)[name]
        return {name: [np.asarray(values, dtype=np.float32) for values in inputs]}

    return map_columns(dataset, [column], label_column, extract, "audio", batch_size=64)


def first_seconds(wave_T: np.ndarray, rate: int, seconds: float, name: str) -> np.ndarray:
    """The beginning of a clip, at least one sample; a ValueError with the clip's name if it is silent."""
    start_T = wave_T[: max(1, round(seconds * rate))]
    if np.ptp(start_T) == 0:
        raise ValueError(f"the first {seconds} s of {name} are silent: take more seconds, or remove or mend it.")
    return start_T


def window_seconds(feature_extractor: Any) -> float | None:
    """The time that every input spans, whatever the clip's length; None of an extractor that takes clips whole."""
    if isinstance(feature_extractor, WhisperFeatureExtractor):
        return feature_extractor.n_samples / feature_extractor.sampling_rate
    if isinstance(feature_extractor, ASTFeatureExtractor):
        return _FRAME_S + (feature_extractor.max_length - 1) * _HOP_S
    return feature_extractor.seconds if isinstance(feature_extractor, SpectrogramFeatureExtractor) else None


def with_a_frame(wave_T: np.ndarray, feature_extractor: Any) -> np.ndarray:
    """The clip with zeros at its end where it is shorter than the frames that filter banks of Kaldi's kind need."""
    if not isinstance(feature_extractor, (ASTFeatureExtractor, SeamlessM4TFeatureExtractor)):
        return wave_T
    frames = 2 if isinstance(feature_extractor, SeamlessM4TFeatureExtractor) else 1  # two have a variance
    needed = round((_FRAME_S + (frames - 1) * _HOP_S) * feature_extractor.sampling_rate)
    return np.pad(wave_T, (0, max(0, needed - len(wave_T))))


def log_magnitude(wave_T: torch.Tensor, n_fft: int = 512, hop_length: int = 353) -> torch.Tensor:
    """`log(|STFT| + 1e-7)`, `(1, n_fft // 2 + 1, T // hop_length + 1)`, with a periodic Hann window of `n_fft` samples.

    Samples are clipped to [-1, 1] as published; low frequencies are in the first row. The frames are centred, with zeros
    beyond both ends, as librosa does it from 0.10 on (it mirrored the ends before).
    Source: the released code of OGM-GE (Peng et al., CVPR 2022; github.com/GeWu-Lab/OGM-GE_CVPR2022,
    `dataset/CramedDataset.py` and `dataset/VGGSoundDataset.py`) and of its successors, by way of `librosa.stft`.
    """
    window = torch.hann_window(n_fft)
    samples_1T = wave_T.clamp(-1, 1)[None]
    spectrum_1FW = torch.stft(samples_1T, n_fft, hop_length, window=window, pad_mode="constant", return_complex=True)
    return (spectrum_1FW.abs() + 1e-7).log()


def with_log_magnitude(
    dataset: Dataset,
    seconds: float = 3.0,
    sampling_rate: int = 22_050,
    n_fft: int = 512,
    hop_length: int = 353,
    column: str = "audio",
    out: str = "audio_pixel_values",
    random_start: bool = False,
) -> Dataset:
    """Computes the spectrogram of a clip whenever it is read, see [`~hf_colearn.data.columns.with_lazy_input`].

    A clip is repeated until it fills the time, and cut. The defaults are those of CREMA-D and give `(1, 257, 188)`;
    VGGSound takes `seconds=5, sampling_rate=16_000, n_fft=256, hop_length=128`, which gives `(1, 129, 626)`, with a random
    start for training (the released code draws one for testing as well).

    Args:
        dataset ([`datasets.Dataset`]): With a column that [`read_waveform`] reads; of video files the sound is read.
        seconds (`float`, *optional*, defaults to 3.0): The time that a spectrogram spans.
        sampling_rate (`int`, *optional*, defaults to 22050): In Hz, what clips are resampled to.
        n_fft, hop_length (`int`, *optional*, defaults to 512 and 353): In samples.
        column, out (`str`, *optional*, defaults to `"audio"` and `"audio_pixel_values"`): The clips and the input.
        random_start (`bool`, *optional*, defaults to `False`): Cut longer clips at a random place (torch's global
            generator) instead of their start.
    """
    length = round(seconds * sampling_rate)
    if not (n_fft > 1 and hop_length > 0 and length >= n_fft):
        raise ValueError(
            f"seconds={seconds} at sampling_rate={sampling_rate} with n_fft={n_fft} and hop_length={hop_length} give no "
            "spectrogram: pass a hop of at least 1 sample, and a time that holds n_fft samples."
        )
    make = partial(_spectrogram_of, length, sampling_rate, random_start, n_fft, hop_length)
    return with_lazy_input(dataset, column, out, make)


def _spectrogram_of(
    length: int, sampling_rate: int, random_start: bool, n_fft: int, hop_length: int, cell: Any
) -> torch.Tensor:
    wave_T = torch.from_numpy(read_waveform(cell, "the audio", sampling_rate)[0])
    wave_T = wave_T.repeat(-(-length // len(wave_T)))
    start = int(torch.randint(len(wave_T) - length + 1, ())) if random_start else 0
    return log_magnitude(wave_T[start : start + length], n_fft, hop_length)


# ---- noise ----
class WaveformNoise:
    """Adds Gaussian noise to the student's audio, as the released code of Lee & Yoon (ICLR 2025); a trainer's `augment`.

    It is drawn anew for every batch. An `attention_mask` of the inputs' shape keeps the padding as it is.

    Args:
        std (`float`, *optional*, defaults to 1e-3): The standard deviation in the batch's units; an extractor that
            normalises gives each clip one of 1.
    """

    names = ("input_values", "input_features", "pixel_values")  # what an audio student takes

    def __init__(self, std: float = 1e-3):
        _check_std(std)
        self.std = std

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        name = next((name for name in self.names if name in batch), None)
        if name is None:
            raise ValueError(
                f"the batch has none of {', '.join(self.names)} (it has {sorted(batch)}): it holds no audio."
            )
        noise = self.std * torch.randn_like(batch[name])
        mask = batch.get("attention_mask")
        if mask is not None and mask.shape == noise.shape:
            noise = noise * mask
        return {**batch, name: batch[name] + noise}


class NoisyWaveforms(Sequence[Any]):
    """The teacher's recordings with Gaussian noise, read when they are asked for.

    A bank is exact only for inputs that stay the same, so the noise is a function of the seed and the row alone; the
    released code of Lee & Yoon (ICLR 2025) draws it anew at every step.

    Args:
        recordings (`Sequence`): Cells that [`read_waveform`] reads, such as `dataset["audio"]`.
        std (`float`): The noise's standard deviation, where full scale is 1.
        sampling_rate (`int`): In Hz, the teacher's; the noise is added at this rate.
        seed (`int`, *optional*, defaults to 0): Draws the noise.
    """

    def __init__(self, recordings: Sequence[Any], std: float, sampling_rate: int, seed: int = 0):
        _check_std(std)
        self.recordings, self.std, self.sampling_rate, self.seed = recordings, std, sampling_rate, seed

    def __len__(self) -> int:
        return len(self.recordings)

    def __getitem__(self, row: Any) -> Any:  # a single row
        row = operator.index(row)
        if not -len(self) <= row < len(self):
            raise IndexError(f"row {row} is out of range: there are {len(self)} recordings.")
        row %= len(self)
        wave, rate = read_waveform(self.recordings[row], row, self.sampling_rate)
        noise = np.random.default_rng([self.seed, row]).standard_normal(len(wave), dtype=np.float32)
        return {"array": wave + np.float32(self.std) * noise, "sampling_rate": rate}


def _check_std(std: float) -> None:
    if not 0 <= std < float("inf"):
        raise ValueError(f"std={std} is no standard deviation: pass a finite number that is not negative.")
