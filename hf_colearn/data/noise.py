"""Waveforms with noise in them, and as WAV files. Shapes: T samples of a waveform."""

import io
from collections.abc import Sequence

import numpy as np


def add_noise(
    wave_T: np.ndarray, snr_db: float, sources: Sequence[np.ndarray], rng: np.random.Generator
) -> np.ndarray:
    """The clip plus noise: half its power white, half from the sources, each looped from a random moment on.

    `snr_db` is the ratio of mean powers over the whole clip, which is not silent; the sources, of any lengths, are equally
    loud. The result is float32 and may leave [-1, 1].
    """
    moments = [rng.integers(len(source)) for source in sources]
    looped = [
        np.take(source / _rms(source), np.arange(moment, moment + len(wave_T)), mode="wrap")
        for source, moment in zip(sources, moments, strict=True)
    ]
    noise_T = np.sum(looped, axis=0) / np.sqrt(len(sources)) + rng.standard_normal(len(wave_T))
    return (wave_T + noise_T * (_rms(wave_T) / _rms(noise_T) * 10 ** (-snr_db / 20))).astype(np.float32)


def _rms(wave_T: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(wave_T, dtype=np.float64))))


def wav_bytes(wave_T: np.ndarray, sampling_rate: int) -> bytes:
    """A WAV file of 32-bit floats: nothing is rounded, and nothing clipped where noise made it louder than 1."""
    from scipy.io import wavfile  # soundfile would write the time into it, and no two runs would have the same bytes

    file = io.BytesIO()
    wavfile.write(file, sampling_rate, wave_T)
    return file.getvalue()
