"""Spoken digits, and noise to hear them in, from folders of audio files. Shapes: T samples of a waveform."""

import re
from pathlib import Path
from typing import NamedTuple

import numpy as np
from datasets import Audio, Dataset, Value, concatenate_datasets

from hf_colearn.corpora.base import dataset_of, warn
from hf_colearn.data.audio import read_waveform


_WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
_DIGITS = {name: digit for digit, word in enumerate(_WORDS) for name in (word, str(digit))}
_SUFFIXES = (".wav", ".flac", ".ogg", ".mp3")


class Clip(NamedTuple):
    """A recording of one digit; `speaker` and `take` are `None` where the file's name is not FSDD's."""

    clip_id: str
    label: int
    speaker: str | None
    take: int | None
    wave: np.ndarray


def with_spoken_digits(
    dataset: Dataset, audio_dir: str | Path, seed: int = 0, skip_bad_samples: bool = False
) -> Dataset:
    """Gives every handwritten digit a recording of its class, such as AVMNIST's, whose release holds no waveforms.

    Args:
        dataset ([`datasets.Dataset`]): With digits as `label`; it gets `audio` (`Audio(decode=False)`: paths) and `clip_id`.
        audio_dir, skip_bad_samples: As of [`read_spoken_digits`]; every clip is read once, so that bad ones show now.
        seed (`int`, *optional*, defaults to 0): Draws the clips: at random within a class, each equally often.

    Raises:
        ValueError: If a class has no clip, or the clips are bad.
    """
    clips = read_spoken_digits(audio_dir, None, skip_bad_samples)
    rng, labels = np.random.default_rng(seed), np.asarray(dataset.with_format(None)["label"][:])
    drawn = np.empty(len(labels), dtype=np.int64)
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label)
        of_class = np.flatnonzero([clip.label == label for clip in clips])
        if not len(of_class):
            raise ValueError(f"digit {label} has {len(rows)} images and no clip in '{audio_dir}': add some.")
        drawn[rows] = drawn_evenly(of_class, len(rows), rng)
    cells = [{"audio": Path(audio_dir) / clips[i].clip_id, "clip_id": clips[i].clip_id} for i in drawn]
    heard = dataset_of(cells, {"audio": Audio(decode=False), "clip_id": Value("string")})
    return concatenate_datasets([dataset, heard], axis=1)


def drawn_evenly(items: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """`count` of the items in random order, one permutation after another: each as often as any other, give or take one."""
    permutations = [rng.permutation(items) for _ in range(-(-count // len(items)))]
    return np.concatenate(permutations)[:count]


def read_spoken_digits(folder: str | Path, sampling_rate: int | None, skip_bad_samples: bool = False) -> list[Clip]:
    """All clips below a folder, in the order of their paths, which are their ids.

    Args:
        folder (`str` or `Path`): Searched with its subfolders for `{digit}_{speaker}_{take}.wav` (FSDD, AudioMNIST) or files
            in folders `0` to `9` or `zero` to `nine`; flac, ogg and mp3 do as well.
        sampling_rate (`int` or `None`): In Hz, what the clips are resampled to; `None` leaves each at its own.
        skip_bad_samples (`bool`, *optional*, defaults to `False`): Leaves out and counts what is silent or unreadable.
    """
    facts = {path: _facts_of(path.relative_to(folder)) for path in _audio_files(folder)}
    waves = _read(list(facts), sampling_rate, skip_bad_samples)
    return [Clip(path.relative_to(folder).as_posix(), *facts[path], wave_T) for path, wave_T in waves.items()]


def read_noises(folder: str | Path, sampling_rate: int, skip_bad_samples: bool = False) -> list[np.ndarray]:
    """The waveforms `(T,)` of all audio files below a folder, in the order of their paths; as [`read_spoken_digits`]."""
    return list(_read(_audio_files(folder), sampling_rate, skip_bad_samples).values())


def _audio_files(folder: str | Path) -> list[Path]:
    if not Path(folder).is_dir():
        raise FileNotFoundError(f"there is no folder '{folder}': name one that holds audio files.")
    files = sorted(path for path in Path(folder).rglob("*") if path.suffix.lower() in _SUFFIXES)
    files = [path for path in files if not path.name.startswith(".")]  # macOS leaves "._*" beside real files
    if not files:
        raise FileNotFoundError(f"'{folder}' and its subfolders hold no audio ({', '.join(_SUFFIXES)}): name another.")
    return files


def _facts_of(name: Path) -> tuple[int, str | None, int | None]:
    """Label, speaker and take of a file, by its path in the folder."""
    parts = re.fullmatch(r"([^_]+)_(.+)_(\d+)", name.stem)
    by_name = _DIGITS.get(parts[1].lower()) if parts else None
    by_folder = _DIGITS.get(name.parent.name.lower())
    if by_name is not None and by_folder is not None and by_name != by_folder:
        raise ValueError(f"'{name}' tells two digits, {by_folder} by its folder and {by_name} by its name: rename it.")
    if parts and by_name is not None:
        return by_name, parts[2], int(parts[3])
    if by_folder is not None:
        return by_folder, None, None
    raise ValueError(
        f"'{name}' tells no digit: name files '{{digit}}_{{speaker}}_{{take}}.wav' as FSDD does, or put them into folders "
        "'0' to '9' or 'zero' to 'nine' (and others elsewhere)."
    )


def _read(paths: list[Path], sampling_rate: int | None, skip_bad_samples: bool) -> dict[Path, np.ndarray]:
    waves, errors = {}, []
    for path in paths:
        try:
            waves[path], _ = read_waveform(path, "the clip", sampling_rate)
        except ValueError as error:
            if not skip_bad_samples:
                raise ValueError(f"{error} Or leave such files out: `skip_bad_samples=True`.") from error
            errors.append(error)
    if not waves:
        raise ValueError(f"all {len(errors):,} audio files are bad; the first: {errors[0]}")
    if errors:
        warn(f"{len(errors):,} of {len(paths):,} audio files are skipped; the first: {errors[0]}")
    return waves
