"""Waveforms with noise in them, and as WAV files. Shapes: T samples of a waveform."""

import io
from collections.abc import Sequence

import numpy as np


def add_noise(
    wave_T: np.ndarray, snr_db: float, sources: Sequence[np.ndarray], rng: np.random.Generator
) -> np.ndarray:
    """The clip plus noise: half its power white, half from the sources, each looped from a random moment on.

    Args:
        wave_T (`np.ndarray` of shape `(T,)`): Not silent.
        snr_db (`float`): The ratio of the clip's mean power to the noise's, both over the whole clip, in dB.
        sources (`Sequence[np.ndarray]`): Waveforms of any lengths, at least one, equally loud in the mix.
        rng (`np.random.Generator`): Draws the moments and the white noise.

    Returns:
        `np.ndarray` of shape `(T,)`, float32; it may leave [-1, 1].
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
