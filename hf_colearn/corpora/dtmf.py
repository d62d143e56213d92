"""DTMF digits: the tones of a telephone's keys, synthesised, where no recordings of spoken digits are at hand."""

from collections.abc import Iterator
from itertools import product

import numpy as np


# The two tones of digits 0 to 9 in Hz, as ITU-T Recommendation Q.23 fixes them: of the key's row and of its column.
TONES_HZ = ((941.0, 1336.0), *product((697.0, 770.0, 852.0), (1209.0, 1336.0, 1477.0)))
NUM_PHONES = 6


def dtmf_digits(
    clips_per_digit: int = 120, seed: int = 0, sampling_rate: int = 8000
) -> Iterator[tuple[str, np.ndarray]]:
    """Makes **synthetic** telephone key tones, each a name `{digit}_phone{p}_{take}.wav`, as of FSDD, and its samples.

    Every key sounds two tones at once (DTMF, ITU-T Q.23). Six "phones" stand for speakers: each has tones that are off
    by up to 1.5 % (what Q.24 has a receiver accept) and a tilt ("twist") between them of up to 8 dB. Every take draws
    anew the tone's length (40 to 200 ms) and place in a clip of 0.25 to 0.5 s, its phases and level (24 dB of range), the
    crosstalk of another key, and the line: white noise and mains hum. The class is the only thing that these clips share
    with speech: they show that a recipe runs, not what it gains.

    Args:
        clips_per_digit (`int`, *optional*, defaults to 120): Dealt out to the six phones in turn.
        seed (`int`, *optional*, defaults to 0): Draws everything; the same seed gives the same samples.
        sampling_rate (`int`, *optional*, defaults to 8000): In Hz, at least 4000, above twice the highest tone.

    Returns:
        `Iterator[tuple[str, np.ndarray]]`: Names and samples `(T,)` int16, by digit and take.
    """
    if clips_per_digit < 1:
        raise ValueError(f"clips_per_digit={clips_per_digit} makes nothing: pass at least 1.")
    if sampling_rate < 4000:
        raise ValueError(f"sampling_rate={sampling_rate} Hz cannot hold tones up to 1500 Hz: pass at least 4000.")
    phones = np.random.default_rng([seed, 0])
    detuning_P2 = phones.uniform(0.985, 1.015, (NUM_PHONES, 2))
    twist_db_P = phones.uniform(-8, 8, NUM_PHONES)
    for digit in range(10):
        for clip in range(clips_per_digit):
            take, phone = divmod(clip, NUM_PHONES)
            rng = np.random.default_rng([seed, 1, digit, clip])
            wave_T = _press(digit, detuning_P2[phone], twist_db_P[phone], rng, sampling_rate)
            samples_T = np.rint(wave_T * 0x7FFFFFFF).astype(np.int32) >> 16  # as soundfile writes 16 bits
            yield f"{digit}_phone{phone}_{take}.wav", samples_T.astype(np.int16)


def _press(digit: int, detuning_2: np.ndarray, twist_db: float, rng: np.random.Generator, rate: int) -> np.ndarray:
    """One clip `(T,)` in [-1, 1]: a key's tones somewhere on a noisy line."""
    length = round(rng.uniform(0.25, 0.5) * rate)
    t_T = np.arange(length) / rate

    def key(of_digit: int, tilt_db: float) -> np.ndarray:
        """Both tones of a key with unit power, from a random moment on and with ramps of 5 ms."""
        low, high = (
            10 ** (sign * tilt_db / 40) * np.sin(2 * np.pi * (hz * t_T + rng.uniform()))
            for sign, hz in zip((1, -1), np.asarray(TONES_HZ[of_digit]) * detuning_2, strict=True)
        )
        seconds = rng.uniform(0.04, 0.2)
        start = rng.uniform(0, t_T[-1] - seconds)
        ramp_T = np.clip(np.minimum(t_T - start, start + seconds - t_T) / 0.005, 0, 1)
        return ramp_T * (low + high) / np.sqrt(np.mean((low + high) ** 2))

    other = (digit + int(rng.integers(1, 10))) % 10
    crosstalk_T = 10 ** (rng.uniform(-15, -3) / 20) * key(other, twist_db)
    mains_hz = rng.choice([50, 60])
    hum_T = sum(np.sin(2 * np.pi * (mains_hz * k * t_T + rng.uniform())) / k for k in (1, 2, 3))
    line_T = 0.1 * rng.standard_normal(length) + 0.1 * hum_T
    wave_T = key(digit, twist_db) + crosstalk_T + line_T
    return wave_T / np.abs(wave_T).max() * 10 ** (rng.uniform(-30, -6) / 20)
