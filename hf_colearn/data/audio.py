"""Audio of a dataset as waveforms, inputs of a model, and spectrograms; teachers and students read it alike.

Shapes: T samples of a clip, C channels.
"""

import io
import operator
import os
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from datasets import Dataset

from hf_colearn.data.columns import map_columns, name_of, with_lazy_input
from hf_colearn.utils.extras import extra


# ---- reading ----
def read_waveform(
    cell: Any, position: int | str, sampling_rate: int | None = None, check: bool = True
) -> tuple[np.ndarray, int]:
    """A clip as mono samples in [-1, 1] and their rate; channels are averaged.

    soundfile reads files; torchcodec, where installed, those that it does not know (m4a and other video containers).

    Args:
        cell: A path, encoded bytes, a cell of an `Audio` column (decoded or not), or an array `(T,)`, `(C, T)` or
            `(T, C)` of floats or signed integers, taken to be at `sampling_rate` already.
        position (`int` or `str`): The row, or what to call the clip in errors.
        sampling_rate (`int`, *optional*): In Hz, what to resample to; by default the clip's own.
        check (`bool`, *optional*, defaults to `True`): Refuse silence (all samples equal) and NaN or infinite samples.

    Returns:
        `tuple[np.ndarray, int]`: The samples `(T,)` in float32, and their rate in Hz.

    Raises:
        ValueError: If it cannot be decoded, is empty, or fails the check; it names the clip.
    """
    name = name_of("audio", cell, position)
    if isinstance(cell, (str, os.PathLike)):
        cell = {"path": os.fspath(cell)}
    elif isinstance(cell, bytes):
        cell = {"bytes": cell}
    wave, rate = _decode(cell, name, sampling_rate)
    if wave.ndim not in (1, 2) or not wave.size:
        raise ValueError(f"{name} is a waveform of shape {wave.shape}: pass at least one sample, mono or stereo.")
    invalid = np.count_nonzero(~np.isfinite(wave))
    if check and invalid:
        raise ValueError(f"{name} has {invalid} samples of {wave.size} that are NaN or infinite: remove or mend it.")
    wave = wave.mean(axis=int(np.argmin(wave.shape))) if wave.ndim == 2 else wave
    if check and np.ptp(wave) == 0:
        raise ValueError(f"{name} is silent (all its {len(wave)} samples are {wave[0]:g}): remove or mend it.")
    if sampling_rate and rate != sampling_rate:
        import torchaudio.functional  # slow to import

        wave = torchaudio.functional.resample(torch.from_numpy(wave), rate, sampling_rate).numpy()
    return np.ascontiguousarray(wave, dtype=np.float32), sampling_rate or rate


def is_audio_decoder(item: Any) -> bool:
    """Whether it is a decoded `datasets.Audio` cell, an AudioDecoder of torchcodec, which is optional."""
    return hasattr(item, "get_all_samples")


def _decode(cell: Any, name: str, sampling_rate: int | None) -> tuple[np.ndarray, int]:
    if is_audio_decoder(cell):
        samples = cell.get_all_samples()
        return samples.data.numpy(), samples.sample_rate
    if isinstance(cell, Mapping) and "array" in cell:
        rate = cell.get("sampling_rate")
        if not rate or rate < 0:
            raise ValueError(f"{name} has sampling_rate={rate}: pass its rate in Hz beside the array.")
        return _as_floats(cell["array"], name), int(rate)
    if isinstance(cell, Mapping) and (cell.get("bytes") is not None or cell.get("path") is not None):
        return _read_file(cell, name)
    if isinstance(cell, (np.ndarray, torch.Tensor, list, tuple)):
        if not sampling_rate:
            raise ValueError(f"{name} is a bare array of unknown rate: pass `sampling_rate`.")
        return _as_floats(cell, name), sampling_rate
    shown = f"of type {type(cell).__name__}" if not isinstance(cell, Mapping) else f"{dict(cell)}"[:80]
    raise ValueError(
        f"{name} is {shown}, where a waveform is needed: cast the column with "
        "`dataset.cast_column(column, datasets.Audio(decode=False))`, or mend the row."
    )


def _as_floats(array: Any, name: str) -> np.ndarray:
    """Samples in [-1, 1]: signed integers are scaled by their type's range."""
    array = np.asarray(array)
    if np.issubdtype(array.dtype, np.floating):
        return array.astype(np.float32)
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
        wave, rate = soundfile.read(source if is_path else io.BytesIO(source), dtype="float32")
        return wave if wave.ndim == 1 else wave.mean(axis=1), rate
    except (soundfile.LibsndfileError, OSError) as error:
        # Its own text would name the object that was read, too.
        reason = error.error_string if isinstance(error, soundfile.LibsndfileError) else str(error)
    try:
        from torchcodec.decoders import AudioDecoder

        samples = AudioDecoder(source).get_all_samples()
        return samples.data.mean(dim=0).numpy(), samples.sample_rate
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
) -> Dataset:
    """Reads, resamples and normalises all clips once, each at its own length.

    Batches are padded by `transformers.DataCollatorWithPadding(feature_extractor)`, Trainer's own choice where the
    extractor is its `processing_class`.

    Args:
        dataset ([`datasets.Dataset`]): With a column that [`read_waveform`] reads.
        feature_extractor: The student's. One of waveforms (wav2vec2, HuBERT) gives clips of variable length; one of
            windows (Whisper, AST, [`~hf_colearn.models.spectrogram.SpectrogramFeatureExtractor`]) arrays of one shape.
        column, label_column (`str`, *optional*, defaults to `"audio"` and `"label"`): Clips and labels.
        max_seconds (`float`, *optional*): What is longer loses its end.

    Returns:
        [`datasets.Dataset`]: In torch format, with the input of the extractor's model (`input_values`, ..., float32),
            `labels` and every other column.

    Raises:
        ValueError: If there are no samples, a column is missing, or a clip is bad; it names the row.
    """
    if max_seconds is not None and not max_seconds > 0:
        raise ValueError(f"max_seconds={max_seconds} leaves no audio: pass a positive number, or None for all of it.")
    rate, name = feature_extractor.sampling_rate, feature_extractor.model_input_names[0]

    def read_start(cell: Any, row: int) -> np.ndarray:
        wave, _ = read_waveform(cell, row, rate)
        if max_seconds is None:
            return wave
        start = wave[: max(1, round(max_seconds * rate))]
        if np.ptp(start) == 0:
            raise ValueError(
                f"the first {max_seconds} s of the audio in row {row} are silent: take more seconds, or remove or mend it."
            )
        return start

    def extract(cells: list[Any], rows: list[int]) -> dict[str, Any]:
        waves = [read_start(cell, row) for cell, row in zip(cells, rows, strict=True)]
        inputs = feature_extractor(waves, sampling_rate=rate)[name]
        return {name: [np.asarray(values, dtype=np.float32) for values in inputs]}

    return map_columns(dataset, [column], label_column, extract, "audio", batch_size=64)


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
