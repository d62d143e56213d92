"""CREMA-D (Cao et al., 2014): twelve sentences said by 91 actors in six emotions, as video and audio.

The folder is that of github.com/CheyneyComputerScience/CREMA-D; the lists `train.csv` and `test.csv`, on which published
numbers stand, are those of OGM-GE (Peng et al., CVPR 2022; github.com/GeWu-Lab/OGM-GE_CVPR2022, `data/CREMAD`).
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import numpy as np
from datasets import DatasetDict, Value

from hf_colearn.corpora.base import Sample, complete_splits, finish, source_of, table_rows, warn
from hf_colearn.corpora.video_clips import clip_features, clip_readers, clips_of_hub
from hf_colearn.data.video import VIDEO_SUFFIXES


# As labelled, and what mirrors call them.
CODES = {"NEU": "neutral", "HAP": "happy", "SAD": "sad", "FEA": "fear", "DIS": "disgust", "ANG": "anger"}
_ALIASES = {code.lower(): name for code, name in CODES.items()}
_ALIASES |= {"angry": "anger", "happiness": "happy", "sadness": "sad", "fearful": "fear"}
_CLIP = re.compile(r"(\d{4})_([A-Z]{3})_([A-Z]{3})_([A-Z]{1,2})")  # actor, sentence, emotion, intensity


def load_cremad(
    data_dir: str | Path | None = None,
    repo: str | None = None,
    split: Literal["auto", "lists", "actor"] = "auto",
    frames: str | None = None,
    test_share: float = 0.2,
    validation_share: float = 0.1,
    seed: int = 0,
    skip_bad_samples: bool = False,
    min_frames: int = 1,
) -> DatasetDict:
    """The clips of six emotions with their sound, 7,442 in all.

    Args:
        data_dir (`str` or `Path`, *optional*): With `AudioWAV/*.wav`, and `VideoFlash/*.flv` or extracted frames,
            `Image-01-FPS/<clip>/*.jpg`.
        repo (`str`, *optional*): A mirror on the Hub instead, see [`~hf_colearn.corpora.video_clips.clips_of_hub`].
        split (`str`, *optional*, defaults to `"auto"`): `"lists"` takes `train.csv` and `test.csv` of the folder (lines
            `1001_DFA_ANG_XX,ANG`): a random split in which *every test actor is in the training set too*. `"actor"` tests
            on actors unseen in training and validates on others. `"auto"` takes the lists where they are, else the actors.
        frames (`str`, *optional*): The folder of videos or frames, by default `VideoFlash`, or the one `Image-*-FPS`.
        test_share (`float`, *optional*, defaults to 0.2): Of the actors.
        validation_share (`float`, *optional*, defaults to 0.1): Of the listed training clips, or of all actors; 0: none.
        seed (`int`, *optional*, defaults to 0): Draws actors and the validation split.
        skip_bad_samples (`bool`, *optional*, defaults to `False`): Leaves out and counts clips that lack a file, cannot be
            decoded, are silent, or have fewer frames than `min_frames`; each is read for that.
        min_frames (`int`, *optional*, defaults to 1): What training takes of a clip.

    Returns:
        [`datasets.DatasetDict`]: `train`, `validation` (if any) and `test` with `video` (`Video(decode=False)`), `audio`
        (`Audio(decode=False)`), `label` (six classes), `actor` (1001 to 1091), `clip` and, in `train`, `sample_id`.

    Raises:
        FileNotFoundError, ValueError: If the folder is not CREMA-D's, a list or files are missing, or a clip is unknown.
    """
    if split not in ("auto", "lists", "actor"):
        raise ValueError(f"split='{split}' is unknown: choose 'auto', 'lists' or 'actor'.")
    source, class_names = source_of(data_dir, repo), list(CODES.values())
    if isinstance(source, str):
        built = clips_of_hub(source, class_names, _ALIASES)
    else:
        videos, sounds = _videos(source, frames), source / "AudioWAV"
        if not sounds.is_dir():
            raise FileNotFoundError(f"'{source}' has no folder AudioWAV: pass CREMA-D's folder as data_dir.")
        clips = _listed(source, needed=split == "lists") if split != "actor" else None
        if split == "auto":
            warn(f"CREMA-D in '{source}' is split by {'its lists' if clips else 'actor, as it has no lists'}.")
        if not clips:
            recorded = {path.stem for path in sounds.glob("*.wav") if not path.name.startswith("._")}
            clips = _by_actor(sorted(recorded | set(videos)), test_share, validation_share, seed, source)
        samples = {name: [_sample(clip, videos, sounds) for clip in of_split] for name, of_split in clips.items()}
        features = clip_features(class_names, actor=Value("int64"))
        built = complete_splits("CREMA-D", "clip", "both video and recording", samples, features, skip_bad_samples)
    return finish(built, clip_readers(skip_bad_samples, min_frames), validation_share, seed)


def _sample(clip: str, videos: Mapping[str, Path], sounds: Path) -> Sample:
    actor, emotion = _facts(clip)
    wav = sounds / f"{clip}.wav"
    if clip not in videos:
        return f"'{clip}' has no video in '{sounds.parent}'"
    if not wav.is_file():
        return f"'{clip}' has no recording '{wav}'"
    return {"video": videos[clip], "audio": wav, "label": emotion, "actor": actor, "clip": clip}


def _videos(folder: Path, frames: str | None) -> dict[str, Path]:
    """Files or folders of frames by the clip's name."""
    if frames is None:
        folders = sorted(path.name for path in folder.glob("Image-*-FPS"))
        found = ["VideoFlash"] if (folder / "VideoFlash").is_dir() else folders
        if len(found) != 1:
            has, way_out = "neither VideoFlash nor Image-*-FPS", "pass CREMA-D's folder as data_dir"
            if found:
                has, way_out = ", ".join(found), "name one as `frames`"
            raise FileNotFoundError(f"'{folder}' has {has}: {way_out}.")
        frames = found[0]
    if not (folder / frames).is_dir():
        raise FileNotFoundError(f"'{folder}' has no folder '{frames}': name one that it has as `frames`.")
    paths = sorted(path for path in (folder / frames).iterdir() if not path.name.startswith("."))
    clips = {path.name: path for path in paths if path.is_dir()}
    return clips | {path.stem: path for path in paths if path.suffix.lower() in VIDEO_SUFFIXES}


def _listed(folder: Path, needed: bool) -> dict[str, list[str]] | None:
    """The clips of `train.csv` and `test.csv`, `None` where there is neither and none is needed."""
    files = {name: folder / f"{name}.csv" for name in ("train", "test")}
    found = [file.name for file in files.values() if file.is_file()]
    if not found and not needed:
        return None
    if len(found) < 2:
        has = f"only {found[0]}" if found else "no train.csv and test.csv"
        raise FileNotFoundError(f"'{folder}' has {has}: put OGM-GE's two lists there, or pass split='actor'.")
    clips = {name: _read_list(file) for name, file in files.items()}
    if shared := set(clips["train"]) & set(clips["test"]):
        raise ValueError(f"'{min(shared)}' is in both train.csv and test.csv of '{folder}': mend the lists.")
    return clips


def _read_list(file: Path) -> list[str]:
    """The clips of a list, whose second column repeats the emotion."""
    clips = []
    for where, cells in table_rows(file, "put OGM-GE's two lists there"):
        if len(cells) != 2 or cells[1].strip() not in CODES or f"_{cells[1].strip()}_" not in cells[0]:
            raise ValueError(
                f"{where} is '{','.join(cells)}', where a clip and its emotion, such as '1001_DFA_ANG_XX,ANG', were "
                f"expected; emotions are {', '.join(CODES)}."
            )
        clips.append(cells[0].strip())
    if len(set(clips)) < len(clips):
        raise ValueError(f"'{file}' names {len(clips) - len(set(clips))} clips twice: mend it.")
    return clips


def _facts(clip: str) -> tuple[int, str]:
    """Actor and emotion of a clip's name."""
    found = _CLIP.fullmatch(clip)
    if not found or found[3] not in CODES:
        raise ValueError(f"'{clip}' is no clip of CREMA-D, as '1001_DFA_ANG_XX', of {', '.join(CODES)}: rename it.")
    return int(found[1]), CODES[found[3]]


def _by_actor(
    clips: list[str], test_share: float, validation_share: float, seed: int, folder: Path
) -> dict[str, list[str]]:
    """Clips by split, every actor's in one split alone."""
    actors = sorted({_facts(clip)[0] for clip in clips})
    num_test = max(1, round(test_share * len(actors)))
    num_validation = max(1, round(validation_share * len(actors))) if validation_share else 0
    if not (0 < test_share < 1 and 0 <= validation_share < 1 and num_test + num_validation < len(actors)):
        raise ValueError(
            f"test_share={test_share} and validation_share={validation_share} leave no training actor of the "
            f"{len(actors)} in '{folder}': pass shares between 0 and 1 with a sum below 1."
        )
    drawn = np.random.default_rng(seed).permutation(actors)
    test, validation, train = np.split(drawn, [num_test, num_test + num_validation])
    splits = {"train": train, "validation": validation, "test": test}
    return {name: [clip for clip in clips if _facts(clip)[0] in part] for name, part in splits.items() if len(part)}
