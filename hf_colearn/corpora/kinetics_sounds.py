"""Kinetics-Sounds: the clips of Kinetics-400 whose action can be seen and heard.

Arandjelovic & Zisserman, "Look, Listen and Learn" (ICCV 2017), chose 34 classes of an early Kinetics. Kinetics-400 as
released (Kay et al., 2017) has the 31 of later work: four under new names ("blowing out candles", "dribbling basketball",
"mowing lawn", "stomping grapes"), without "fingerpicking", "patting" and "typing". (Audiovisual SlowFast and CrissCross
count 32, with "strumming guitar"; OGM-GE's lists of clips have numbers for classes, without their names.)
"""

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from datasets import DatasetDict

from hf_colearn.corpora.base import finish, source_of
from hf_colearn.corpora.video_clips import clip_readers, clips_of_hub, clips_with_files


CLASSES = (
    "blowing nose",
    "blowing out candles",
    "bowling",
    "chopping wood",
    "dribbling basketball",
    "laughing",
    "mowing lawn",
    "playing accordion",
    "playing bagpipes",
    "playing bass guitar",
    "playing clarinet",
    "playing drums",
    "playing guitar",
    "playing harmonica",
    "playing keyboard",
    "playing organ",
    "playing piano",
    "playing saxophone",
    "playing trombone",
    "playing trumpet",
    "playing violin",
    "playing xylophone",
    "ripping paper",
    "shoveling snow",
    "shuffling cards",
    "singing",
    "stomping grapes",
    "tap dancing",
    "tapping guitar",
    "tapping pen",
    "tickling",
)
_COLUMNS = ("label", "youtube_id", "time_start", "time_end", "split")
_SPLITS = {"train": "train", "val": "validation", "validate": "validation", "validation": "validation", "test": "test"}


def load_kinetics_sounds(
    data_dir: str | Path | None = None,
    repo: str | None = None,
    test_split: Literal["test", "validation"] = "test",
    validation_share: float = 0.0,
    seed: int = 0,
    skip_bad_samples: bool = False,
    min_frames: int = 1,
) -> DatasetDict:
    """The clips of 31 classes, about 19,000 where all are there; many left the web, so every copy has its own.

    Args:
        data_dir (`str` or `Path`, *optional*): A folder of Kinetics-400 as github.com/cvdfoundation/kinetics-dataset
            unpacks it: the annotations (any `*.csv` in it or in `annotations/` with the columns `label`, `youtube_id`,
            `time_start`, `time_end` and `split`) and, anywhere below, `<youtube_id>_000010_000020.mp4`.
        repo (`str`, *optional*): A mirror on the Hub instead, see [`~hf_colearn.corpora.video_clips.clips_of_hub`].
        test_split (`str`, *optional*, defaults to `"test"`): Kinetics' split that becomes `test`. With `"validation"`,
            for copies without labelled test clips, there is none left to be `validation`.
        validation_share (`float`, *optional*, defaults to 0): Of the training clips by class, where there is no other.
        seed (`int`, *optional*, defaults to 0): Draws that split.
        skip_bad_samples (`bool`, *optional*, defaults to `False`): Reads each clip, leaves out and counts those that
            cannot be decoded, have no sound, or have fewer frames than `min_frames`.
        min_frames (`int`, *optional*, defaults to 1): What training takes of a clip.

    Returns:
        [`datasets.DatasetDict`]: `train`, `validation` (if any) and `test` with `video` (`Video(decode=False)`), `audio`
        (`Audio(decode=False)`, a wav beside the video or the video itself), `label` (31 classes), `clip` and, in `train`,
        `sample_id`. Clips without a file are counted in one warning.

    Raises:
        FileNotFoundError, ValueError: If the annotations are missing or not Kinetics', or a needed split has no clip.
    """
    if test_split not in ("test", "validation"):
        raise ValueError(f"test_split='{test_split}' is unknown: choose 'test' or 'validation'.")
    source = source_of(data_dir, repo)
    if isinstance(source, str):
        splits = clips_of_hub(source, CLASSES)
    else:
        splits = clips_with_files("Kinetics-Sounds", _entries(source), source, CLASSES, ("train", test_split))
        if test_split == "validation":
            splits = {"train": splits["train"], "test": splits["validation"]}
    return finish(splits, clip_readers(skip_bad_samples, min_frames), validation_share, seed)


def _entries(folder: Path) -> Iterator[tuple[str, str, str]]:
    """Clip, class and split of every annotated clip of the 31 classes."""
    tables = sorted([*folder.glob("*.csv"), *folder.glob("annotations/*.csv")])
    seen: dict[str, str] = {}
    is_kinetics = False
    for table in tables:
        with table.open(encoding="utf-8-sig", newline="") as lines:
            reader = csv.DictReader(lines)
            if not set(_COLUMNS) <= set(reader.fieldnames or ()):
                continue  # another table, or Kinetics' test split without labels
            is_kinetics = True
            for row in reader:
                label = (row["label"] or "").replace("_", " ").strip('" ')
                if label not in CLASSES:
                    continue
                try:
                    clip = f"{row['youtube_id']}_{int(row['time_start']):06d}_{int(row['time_end']):06d}"
                    split = _SPLITS[row["split"]]
                except (KeyError, TypeError, ValueError) as error:
                    raise ValueError(
                        f"line {reader.line_num} of '{table}' has the times '{row['time_start']}' to '{row['time_end']}' and "
                        f"the split '{row['split']}': whole seconds, and one of {', '.join(_SPLITS)}, were expected."
                    ) from error
                if clip not in seen:
                    seen[clip] = split
                    yield clip, label, split
                elif seen[clip] != split:  # the same table may be there twice
                    where = f"line {reader.line_num} of '{table}'"
                    raise ValueError(f"'{clip}' is in {seen[clip]} and in {split} ({where}).")
    if not is_kinetics:
        raise FileNotFoundError(
            f"'{folder}' and its folder annotations have no table with the columns {', '.join(_COLUMNS)} "
            f"({len(tables)} other *.csv): put Kinetics-400's annotations there."
        )
    if not seen:
        raise ValueError(f"the tables in '{folder}' name none of the 31 classes ('{CLASSES[0]}'): is it Kinetics-400?")
