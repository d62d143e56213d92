"""Audio of a dataset as waveforms, `input_values` and spectrograms: the one path of teachers and students.

Shapes: T samples of a clip, B clips of a batch, H mel bands, W frames.
"""

import io
import operator
import os
from collections.abc import Mapping, Sequence
from typing import Any

import datasets
import numpy as np
import torch
from datasets import Array2D, Array3D, Dataset, Features, List, Value

from hf_colearn.models.spectrogram import SpectrogramFeatureExtractor


_BATCH = 64  # clips held in memory at once


# ---- reading ----
def read_waveform(
    cell: Any, position: int | str, sampling_rate: int | None = None, check: bool = True
) -> tuple[np.ndarray, int]:
    """A clip as mono samples in [-1, 1] and their rate, whatever a dataset holds it as.

    Files are read by soundfile and, in formats that it does not know (m4a and other video containers), by torchcodec
    where that is installed. Channels are averaged. Another rate is resampled by torchaudio.

    Args:
        cell: A path, encoded bytes, a cell of an `Audio` column (decoded or not), or an array `(T,)`, `(C, T)` or
            `(T, C)` of floats or signed integers, which is taken to be at `sampling_rate` already.
        position (`int` or `str`): The row, or what to call the clip in errors.
        sampling_rate (`int`, *optional*): In Hz, what to resample to; the clip's own by default.
        check (`bool`, *optional*, defaults to `True`): Whether silence (all samples are equal) and samples that are NaN or
            infinite are refused.

    Returns:
        `tuple[np.ndarray, int]`: The samples `(T,)` in float32, and their rate in Hz.

    Raises:
        ValueError: If it cannot be decoded, has no samples, only silence, or one that is no number; it names the clip.
    """
    name = position if isinstance(position, str) else f"the audio in row {position}"
    cell = _as_cell(cell)
    if isinstance(cell, Mapping) and cell.get("path"):
        name = f"{name} ('{cell['path']}')"
    wave, rate = _decode(cell, name, sampling_rate)
    if wave.ndim not in (1, 2) or not wave.size:
        raise ValueError(f"{name} is a waveform of shape {wave.shape}: pass at least one sample, mono or stereo.")
    strange = np.count_nonzero(~np.isfinite(wave))
    if check and strange:
        raise ValueError(f"{name} has {strange} samples of {wave.size} that are NaN or infinite: remove or mend it.")
    wave = wave.mean(axis=int(np.argmin(wave.shape))) if wave.ndim == 2 else wave
    if check and np.ptp(wave) == 0:
        raise ValueError(f"{name} is silent (all its {len(wave)} samples are {wave[0]:g}): remove or mend it.")
    if sampling_rate and rate != sampling_rate:
        import torchaudio.functional  # slow to import, and only audio needs it

        wave = torchaudio.functional.resample(torch.from_numpy(wave), rate, sampling_rate).numpy()
    return np.ascontiguousarray(wave, dtype=np.float32), sampling_rate or rate


def is_audio_decoder(item: Any) -> bool:
    """Whether it is a decoded `datasets.Audio` cell, an AudioDecoder of torchcodec, which is optional."""
    return hasattr(item, "get_all_samples")


def _as_cell(cell: Any) -> Any:
    if isinstance(cell, (str, os.PathLike)):
        return {"path": os.fspath(cell)}
    return {"bytes": cell} if isinstance(cell, bytes) else cell


def _decode(cell: Any, name: str, sampling_rate: int | None) -> tuple[np.ndarray, int]:
    if is_audio_decoder(cell):
        samples = cell.get_all_samples()
        return samples.data.numpy(), samples.sample_rate
    if isinstance(cell, Mapping) and "array" in cell:
        rate = cell.get("sampling_rate")
        if not rate or rate < 0:
            raise ValueError(f"{name} has sampling_rate={rate}: pass its rate in Hz beside the array.")
        return _as_samples(cell["array"], name), int(rate)
    if isinstance(cell, Mapping) and (cell.get("bytes") is not None or cell.get("path") is not None):
        return _read_file(cell, name)
    if isinstance(cell, (np.ndarray, torch.Tensor, list, tuple)):
        if not sampling_rate:
            raise ValueError(f"{name} is a bare array of unknown rate: pass `sampling_rate`.")
        return _as_samples(cell, name), sampling_rate
    shown = f"of type {type(cell).__name__}" if not isinstance(cell, Mapping) else f"{dict(cell)}"[:80]
    raise ValueError(
        f"{name} is {shown}, where a waveform is needed: cast the column with "
        "`dataset.cast_column(column, datasets.Audio(decode=False))`, or mend the row."
    )


def _as_samples(array: Any, name: str) -> np.ndarray:
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
    try:
        import soundfile
    except ImportError as error:
        raise ImportError("reading audio files needs soundfile: pip install 'hf-colearn[audio]'") from error
    content = cell.get("bytes")
    if content is None and not os.path.isfile(cell["path"]):
        raise ValueError(f"{name} is no audio that can be decoded (there is no such file): remove or mend it.")
    try:
        wave, rate = soundfile.read(io.BytesIO(content) if content is not None else cell["path"], dtype="float32")
        return wave if wave.ndim == 1 else wave.mean(axis=1), rate
    except (soundfile.LibsndfileError, OSError) as error:
        # A LibsndfileError tells its cause apart from the name of the object that it read.
        reason = error.error_string if isinstance(error, soundfile.LibsndfileError) else str(error)
    try:
        from torchcodec.decoders import AudioDecoder

        samples = AudioDecoder(content if content is not None else cell["path"]).get_all_samples()
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

    Batches are padded by `transformers.DataCollatorWithPadding(feature_extractor)`, which Trainer takes by itself
    where its `processing_class` is the extractor; it makes an `attention_mask` where the extractor returns one.

    Args:
        dataset ([`datasets.Dataset`]): With a column that [`read_waveform`] reads.
        feature_extractor: The student's. One of waveforms (wav2vec2, HuBERT) gives clips of variable length; one of
            windows (Whisper, AST, [`~hf_colearn.models.spectrogram.SpectrogramFeatureExtractor`]) gives arrays of one
            shape, in a column of the name that its model takes.
        column (`str`, *optional*, defaults to `"audio"`): The clips' column, which is dropped.
        label_column (`str`, *optional*, defaults to `"label"`): The labels' column, which becomes `labels`.
        max_seconds (`float`, *optional*): What is longer loses its end.

    Returns:
        [`datasets.Dataset`]: With `input_values` (float32), `labels` and every other column, in torch format.

    Raises:
        ValueError: If there are no samples, a column is missing, or a clip is bad; it names the row.
    """
    if max_seconds is not None and not max_seconds > 0:
        raise ValueError(f"max_seconds={max_seconds} leaves no audio: pass a positive number, or None for all of it.")
    dataset = _undecoded(dataset, column, label_column)
    rate, name = feature_extractor.sampling_rate, feature_extractor.model_input_names[0]

    def preprocess(cells: list[Any], rows: list[int]) -> dict[str, Any]:
        waves = [_read_start(cell, row, rate, max_seconds) for cell, row in zip(cells, rows, strict=True)]
        inputs = feature_extractor(waves, sampling_rate=rate)[name]
        return {name: [np.asarray(values, dtype=np.float32) for values in inputs]}

    shape = preprocess([dataset[0][column]], [0])[name][0].shape
    arrays = {2: Array2D, 3: Array3D}
    feature = arrays[len(shape)](shape, "float32") if len(shape) in arrays else List(Value("float32"))
    return _map(dataset, preprocess, column, name, feature)


def with_spectrograms(
    dataset: Dataset,
    size: tuple[int, int] = (112, 112),
    sampling_rate: int = 16_000,
    seconds: float = 1.0,
    n_fft: int = 1024,
    window_seconds: float = 0.025,
    column: str = "audio",
    label_column: str = "label",
) -> Dataset:
    """Log-mel spectrograms of all clips as images `[1, H, W]`: [`with_input_values`] with a
    [`~hf_colearn.models.spectrogram.SpectrogramFeatureExtractor`], which says how; to publish the student, make the
    extractor yourself and save it beside the student.

    Args:
        dataset ([`datasets.Dataset`]): With a column that [`read_waveform`] reads.
        size, sampling_rate, seconds, n_fft, window_seconds (*optional*): As of the extractor.
        column (`str`, *optional*, defaults to `"audio"`): The clips' column, which is dropped.
        label_column (`str`, *optional*, defaults to `"label"`): The labels' column, which becomes `labels`.

    Returns:
        [`datasets.Dataset`]: With `pixel_values` (float32), `labels` and every other column, in torch format.

    Raises:
        ValueError: If there are no samples, a column is missing, a clip is bad (it names the row), or the numbers do not
            give such an image.
    """
    extractor = SpectrogramFeatureExtractor(size, sampling_rate, seconds, n_fft, window_seconds)
    return with_input_values(dataset, extractor, column, label_column, max_seconds=seconds)


def _undecoded(dataset: Dataset, column: str, label_column: str) -> Dataset:
    """The dataset with cells as they are stored, decoded later, where the row is known, and its labels as `labels`."""
    for name in (column, label_column):
        if name not in dataset.column_names:
            raise ValueError(f"the dataset has no column '{name}' (it has {dataset.column_names}): name it.")
    if not len(dataset):
        raise ValueError("the dataset is empty, so there is no audio: look at its split, filter or selection.")
    if isinstance(dataset.features[column], datasets.Audio):
        dataset = dataset.cast_column(column, datasets.Audio(decode=False))
    dataset = dataset.with_format(None)
    return dataset if label_column == "labels" else dataset.rename_column(label_column, "labels")


def _read_start(cell: Any, row: int, sampling_rate: int, seconds: float | None) -> np.ndarray:
    wave, _ = read_waveform(cell, row, sampling_rate)
    if seconds is None:
        return wave
    start = wave[: max(1, round(seconds * sampling_rate))]
    if np.ptp(start) == 0:
        raise ValueError(
            f"the first {seconds} s of the audio in row {row} are silent: take more seconds, or remove or mend it."
        )
    return start


def _map(dataset: Dataset, preprocess: Any, column: str, name: str, feature: Any) -> Dataset:
    kept = {key: value for key, value in dataset.features.items() if key != column}
    mapped = dataset.map(
        preprocess,
        batched=True,
        batch_size=_BATCH,
        writer_batch_size=_BATCH,
        with_indices=True,
        input_columns=[column],
        remove_columns=[column],
        features=Features({**kept, name: feature}),
        desc="Preprocessing audio",
    )
    return mapped.with_format("torch")


# ---- noise ----
class WaveformNoise:
    """Adds Gaussian noise to the student's audio, drawn anew for every batch; a trainer's `augment`.

    The released code of Lee & Yoon (ICLR 2025) adds `1e-3 * torch.randn` to the student's audio as well. Where the
    batch has an `attention_mask` of the inputs' shape, the padding stays as it is.

    Args:
        std (`float`, *optional*, defaults to 1e-3): The noise's standard deviation in the units of the batch: an extractor
            that normalises gives each clip a standard deviation of 1.
    """

    names = ("input_values", "input_features", "pixel_values")  # what an audio student takes

    def __init__(self, std: float = 1e-3):
        _check_std(std)
        self.std = std

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        for name in self.names:
            if name in batch:
                noise = self.std * torch.randn_like(batch[name])
                mask = batch.get("attention_mask")
                if mask is not None and mask.shape == noise.shape:
                    noise = noise * mask
                return {**batch, name: batch[name] + noise}
        raise ValueError(f"the batch has none of {', '.join(self.names)} (it has {sorted(batch)}): it holds no audio.")


class NoisyWaveforms(Sequence[Any]):
    """The teacher's recordings with Gaussian noise, drawn once for every row, read when they are asked for.

    A bank is exact only for inputs that stay the same, so the noise is a function of the seed and the row alone.
    The released code of Lee & Yoon (ICLR 2025) draws it anew at every step.

    Args:
        recordings (`Sequence`): Cells that [`read_waveform`] reads, such as `dataset["audio"]`.
        std (`float`): The noise's standard deviation, where full scale is 1.
        sampling_rate (`int`): In Hz, the teacher's; the noise is added at this rate.
        seed (`int`, *optional*, defaults to 0): Draws the noise.

    Example:

    ```python
    bank = TeacherBank.encode(teacher, NoisyWaveforms(train["audio"], std=1e-3, sampling_rate=16_000))
    ```
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
