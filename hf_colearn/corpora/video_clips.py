"""What the loaders of videos with sound share: columns, files found in a folder, and mirrors on the Hub."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from datasets import Audio, ClassLabel, Dataset, Features, Value, Video, concatenate_datasets

from hf_colearn.corpora.base import dataset_of, hub_splits, warn
from hf_colearn.data.video import read_frames, read_soundtrack, soundtrack_of, video_files


def clip_features(class_names: Sequence[str], **columns: Any) -> dict[str, Any]:
    """The columns of videos with sound: files of both, classes in the order of their labels, the clip's name."""
    media = {"video": Video(decode=False), "audio": Audio(decode=False)}
    return {**media, "label": ClassLabel(names=list(class_names)), **columns, "clip": Value("string")}


def clip_readers(skip_bad_samples: bool, min_frames: int) -> dict[str, Callable[[Any, int], Any]]:
    """What finds bad samples, if they are to be skipped: a video has at least so many frames, and a sound."""
    if not skip_bad_samples:
        return {}
    return {
        "video": lambda cell, row: read_frames(cell, min_frames, row),
        "audio": lambda cell, row: read_soundtrack(cell, None, row),
    }


def clips_of_hub(
    repo: str, class_names: Sequence[str] | None, aliases: Mapping[str, str] | None = None
) -> dict[str, Dataset]:
    """Videos with sound of a dataset of the Hub, or of a folder that `datasets` reads.

    It has the columns `video` (videos, or paths), `label` (classes, or their names) and, where the sound is kept apart,
    `audio`, and the splits `train`, `test` and, maybe, `validation`. `class_names` are in the order of their labels, by
    default the dataset's own; `aliases` are other names that it may have for them, in lower case.
    """
    splits = hub_splits(repo, ("video", "label"), needed=("train", "test"))
    if class_names is None:
        label = splits["train"].features["label"]
        class_names = label.names if isinstance(label, ClassLabel) else sorted(set(splits["train"]["label"][:]))
    features = Features(label=ClassLabel(names=list(class_names)))
    for name, split in splits.items():
        video = split.select_columns("video").cast_column("video", Video(decode=False))
        has_audio = "audio" in split.column_names
        audio = split.select_columns("audio") if has_audio else video.rename_column("video", "audio")
        label = split.features["label"]
        names = map(label.int2str if isinstance(label, ClassLabel) else str, split["label"])
        labels = [_class_of(found, class_names, aliases or {}, repo) for found in names]
        columns = [video, audio.cast_column("audio", Audio(decode=False))]
        columns.append(Dataset.from_dict({"label": labels}, features=features))
        if rest := [column for column in split.column_names if column not in ("video", "audio", "label")]:
            columns.append(split.select_columns(rest))
        splits[name] = concatenate_datasets(columns, axis=1)
    return splits


def _class_of(name: str, class_names: Sequence[str], aliases: Mapping[str, str], repo: str) -> str:
    plain = name.strip().lower().replace("_", " ")
    for known in class_names:
        if known.lower().replace("_", " ") == aliases.get(plain, plain):
            return known
    raise ValueError(f"'{repo}' has the class '{name}', which is none of {', '.join(class_names)}.")


def clips_with_files(
    name: str,
    entries: Iterable[tuple[str, str, str]],
    folder: Path,
    class_names: Sequence[str],
    needed: Sequence[str],
) -> dict[str, Dataset]:
    """The clips of a list that have a video file anywhere in a folder; such lists name videos that left the web since.

    `entries` are clip (the file's name without suffix), class and split. One warning counts, by split, what is missing; a
    split that is needed must not be empty.
    """
    files = video_files(folder)
    rows: dict[str, list[dict[str, Any]]] = {}
    listed, missing = Counter[str](), Counter[str]()
    example = ""
    for clip, label, split in entries:
        listed[split] += 1
        if clip in files:
            row = {"video": files[clip], "audio": soundtrack_of(files[clip]), "label": label, "clip": clip}
            rows.setdefault(split, []).append(row)
        else:
            missing[split] += 1
            example = example or f"{clip}.mp4"
    if lacking := [split for split in needed if split not in rows]:
        counts = ", ".join(f"{listed[split] - missing[split]:,} of {listed[split]:,} in {split}" for split in listed)
        raise FileNotFoundError(
            f"'{folder}' has no video of {name}'s split '{lacking[0]}' (videos of the listed clips: {counts}): put the "
            f"videos there, named as '{example}', or choose other splits."
        )
    if missing:
        shown = ", ".join(f"{missing[split]:,} of {listed[split]:,} in {split}" for split in listed if missing[split])
        warn(
            f"{missing.total():,} of {listed.total():,} clips of {name} have no file in '{folder}' and are left out "
            f"({shown}), such as '{example}'."
        )
    return {split: dataset_of(of_split, clip_features(class_names)) for split, of_split in rows.items()}
