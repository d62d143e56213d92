"""What the loaders of videos with sound share: files found in a folder, columns, splits, and mirrors on the Hub."""

import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from datasets import (
    Audio,
    ClassLabel,
    Dataset,
    DatasetDict,
    Features,
    Value,
    Video,
    concatenate_datasets,
    load_dataset,
)
from transformers.utils import logging

from hf_colearn.data.bad_samples import without_bad_samples
from hf_colearn.data.sample_ids import with_sample_ids
from hf_colearn.data.splits import cut_validation
from hf_colearn.data.video import VIDEO_SUFFIXES, read_frames, read_soundtrack, soundtrack_of
from hf_colearn.utils import distributed


logger = logging.get_logger(__name__)

_SPLITS = {"train": ("train",), "validation": ("validation", "val", "valid"), "test": ("test",)}


def video_files(folder: Path) -> dict[str, Path]:
    """The video files anywhere in a folder by their names without suffix; the first in order of path, where two agree."""
    found: dict[str, Path] = {}
    for parent, folders, names in os.walk(folder):
        folders.sort()
        for name in sorted(names):
            stem, suffix = os.path.splitext(name)
            if suffix.lower() in VIDEO_SUFFIXES:
                found.setdefault(stem, Path(parent, name))
    return found


def clips_of(rows: Sequence[Mapping[str, Any]], class_names: Sequence[str], **columns: Any) -> Dataset:
    """A dataset of videos with sound.

    Args:
        rows (`Sequence[Mapping]`): With `video`, a file or folder, `label`, a class's name, and the columns; `audio`, the
            file of the sound, is looked for where it is not given.
        class_names (`Sequence[str]`): In the order of their labels.
        **columns: The features of further columns.
    """
    features = Features(
        video=Value("string"), audio=Value("string"), label=ClassLabel(names=list(class_names)), **columns
    )
    cells: dict[str, list[Any]] = {name: [row[name] for row in rows] for name in features if name in rows[0]}
    cells["audio"] = [str(row["audio"] if "audio" in row else soundtrack_of(row["video"])) for row in rows]
    cells["video"] = [str(row["video"]) for row in rows]
    dataset = Dataset.from_dict({name: cells[name] for name in features}, features=features)
    # Paths become cells by a cast: encoding them would import torchcodec, which nothing needs before a clip is read.
    return dataset.cast_column("video", Video(decode=False)).cast_column("audio", Audio(decode=False))


def clips_of_hub(
    repo: str, class_names: Sequence[str] | None, aliases: Mapping[str, str] | None = None
) -> DatasetDict:
    """Videos with sound of a dataset of the Hub, or of a folder that `datasets` reads.

    Args:
        repo (`str`): With the columns `video` (videos, or paths), `label` (classes, or their names) and, where the sound is
            kept apart, `audio`, and with the splits `train`, `test` and, if it has one, `validation`.
        class_names (`Sequence[str]`, *optional*): In the order of their labels; those of the dataset by default.
        aliases (`Mapping[str, str]`, *optional*): Other names that it may have for classes, in lower case.
    """
    loaded = load_dataset(repo)
    splits = DatasetDict()
    for ours, theirs in _SPLITS.items():
        for name in theirs:
            if name in loaded:
                splits[ours] = loaded[name].with_format(None)
    if not {"train", "test"} <= set(splits):
        raise ValueError(f"'{repo}' has the splits {sorted(loaded)}: one with 'train' and 'test' is needed.")
    for name, split in splits.items():
        if missing := {"video", "label"} - set(split.column_names):
            raise ValueError(
                f"'{repo}' has no column '{min(missing)}' in '{name}' (it has {split.column_names}): rename its columns, or "
                "pass the dataset's own folder as data_dir."
            )
    if class_names is None:
        label = splits["train"].features["label"]
        class_names = label.names if isinstance(label, ClassLabel) else sorted(set(splits["train"]["label"][:]))
    for name, split in splits.items():
        video = split.select_columns("video").cast_column("video", Video(decode=False))
        sound = "audio" if "audio" in split.column_names else "video"
        audio = (split if sound == "audio" else video).select_columns(sound)
        audio = audio.rename_column(sound, "audio") if sound == "video" else audio
        labels = [
            _class_of(value, split.features["label"], class_names, aliases or {}, repo) for value in split["label"]
        ]
        label_feature = Features(label=ClassLabel(names=list(class_names)))
        columns = [video, audio.cast_column("audio", Audio(decode=False))]
        columns.append(Dataset.from_dict({"label": labels}, features=label_feature))
        if rest := [column for column in split.column_names if column not in ("video", "audio", "label")]:
            columns.append(split.select_columns(rest))
        splits[name] = concatenate_datasets(columns, axis=1)
    return splits


def _class_of(value: Any, feature: Any, class_names: Sequence[str], aliases: Mapping[str, str], repo: str) -> str:
    name = feature.int2str(value) if isinstance(feature, ClassLabel) else str(value)
    plain = name.strip().lower().replace("_", " ")
    for known in class_names:
        if known.lower().replace("_", " ") == aliases.get(plain, plain):
            return known
    raise ValueError(f"'{repo}' has the class '{name}', which is none of {', '.join(class_names)}.")


def finish(
    splits: Mapping[str, Dataset], validation_share: float, seed: int, skip_bad_samples: bool, min_frames: int
) -> DatasetDict:
    """Leaves out bad samples on request, cuts a validation split where there is none, and numbers `train`.

    Raises:
        ValueError: If no validation split can be cut.
    """
    done = DatasetDict({name: splits[name] for name in _SPLITS if name in splits})
    if skip_bad_samples:
        for name, split in done.items():
            split, _ = without_bad_samples(split, lambda cell, row: read_frames(cell, min_frames, row), "video")
            done[name], _ = without_bad_samples(split, _hear, "audio")
    if "validation" not in done and validation_share:
        train, validation = cut_validation(done["train"], float(validation_share), seed)
        done = DatasetDict(train=train, validation=validation, test=done["test"])
    done["train"] = with_sample_ids(done["train"])
    return done


def _hear(cell: Any, row: int) -> None:
    read_soundtrack(cell, None, row)


def one_source(data_dir: str | Path | None, repo: str | None) -> Path | str:
    """The folder, or the dataset of the Hub: refuses both, neither, and a folder that is none."""
    if data_dir is not None and repo is None:
        if not Path(data_dir).is_dir():
            raise FileNotFoundError(f"there is no folder '{data_dir}': pass the dataset's folder as data_dir.")
        return Path(data_dir)
    if data_dir is None and repo is not None:
        return repo
    raise ValueError(
        f"data_dir={str(data_dir) if data_dir is not None else None!r} and repo={repo!r}: pass the dataset's folder, or "
        "the id of a dataset of the Hub, one of the two."
    )


@dataclass
class HubOptions:
    """What a recipe takes whose data come from a folder or from a mirror on the Hub."""

    hub_id: str | None = field(default=None, metadata={"help": "The data as a dataset of the Hub, not --data_dir."})

    def needs_data(self, data_dir: str | None, what: str) -> None:
        """Ends the recipe where neither a folder nor an id of the Hub is given; `what` describes the folder."""
        if data_dir is None and self.hub_id is None:
            raise SystemExit(f"no data: pass --data_dir ({what}), or --hub_id (a dataset of the Hub).")


def refuse_or_warn(name: str, problems: Sequence[str], skip_bad_samples: bool) -> None:
    """One error for clips that a list names and that lack a file, or on request one warning that counts them."""
    if problems and not skip_bad_samples:
        raise ValueError(
            f"{len(problems):,} clips of {name} are incomplete; the first: {problems[0]}. Complete the folder, or leave "
            "them out with skip_bad_samples=True."
        )
    if problems and distributed.rank() == 0:
        shown = "".join(f"\n  {problem}" for problem in problems[:3])
        logger.warning(f"{len(problems):,} clips of {name} are incomplete and skipped:{shown}")


def with_files(
    name: str, entries: Iterable[tuple[str, str, str]], folder: Path, needed: Sequence[str]
) -> dict[str, list[dict[str, Any]]]:
    """The entries of a list that have a video file anywhere in a folder; such lists name videos that left the web since.

    Args:
        name (`str`): The dataset's, for the one warning that counts, by split, what is missing.
        entries (`Iterable[tuple[str, str, str]]`): Clip (the file's name without suffix), class and split.
        folder (`Path`): Is searched.
        needed (`Sequence[str]`): Splits that must not be empty.

    Returns:
        `dict`: `video`, `label` and `clip` of every clip with a file, by split.

    Raises:
        FileNotFoundError: If a split that is needed has no file.
    """
    files = video_files(folder)
    rows: dict[str, list[dict[str, Any]]] = {}
    missing: Counter[str] = Counter()
    listed: Counter[str] = Counter()
    example = ""
    for clip, label, split in entries:
        listed[split] += 1
        if clip in files:
            rows.setdefault(split, []).append({"video": files[clip], "label": label, "clip": clip})
        else:
            missing[split] += 1
            example = example or f"{clip}.mp4"
    if lacking := [split for split in needed if split not in rows]:
        counts = ", ".join(f"{len(rows.get(split, [])):,} of {listed[split]:,} in {split}" for split in listed)
        raise FileNotFoundError(
            f"'{folder}' has no video of {name}'s split '{lacking[0]}' (videos of the listed clips: {counts}): put the "
            f"videos there, named as '{example}', or choose other splits."
        )
    if missing and distributed.rank() == 0:
        shown = ", ".join(f"{missing[split]:,} of {listed[split]:,} in {split}" for split in listed if missing[split])
        logger.warning(
            f"{missing.total():,} of {listed.total():,} clips of {name} have no file in '{folder}' and are left out "
            f"({shown}), such as '{example}'."
        )
    return rows
