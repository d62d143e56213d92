"""What the loaders share: where the data come from, lists of samples, columns, splits, and mirrors on the Hub."""

import csv
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from datasets import Audio, Dataset, DatasetDict, Features, Video, load_dataset
from transformers.utils import logging

from hf_colearn.data.bad_samples import without_bad_samples
from hf_colearn.data.columns import STORED_MEDIA
from hf_colearn.data.sample_ids import with_sample_ids
from hf_colearn.data.splits import at_least_one_a_class, cut_validation
from hf_colearn.utils import distributed


logger = logging.get_logger(__name__)

# Our splits in their order, and what mirrors call them.
SPLITS = {"train": ("train",), "validation": ("validation", "valid", "val", "dev"), "test": ("test",)}

Sample = Mapping[str, Any] | str  # a row, or a sentence on what it lacks


@dataclass
class HubOptions:
    """What a recipe takes whose data come from a folder or from a mirror on the Hub; inherit from it and from its other
    options."""

    hub_id: str | None = field(default=None, metadata={"help": "The data as a dataset of the Hub, not --data_dir."})

    def needs_data(self, data_dir: str | None, what: str) -> None:
        """Ends the recipe where neither a folder nor an id of the Hub is given; `what` describes the folder."""
        if data_dir is None and self.hub_id is None:
            raise ValueError(f"no data: pass --data_dir ({what}), or --hub_id (a dataset of the Hub).")


def warn(message: str) -> None:
    """Logs a warning once, in the main process."""
    if distributed.rank() == 0:
        logger.warning(message)


def source_of(data_dir: str | Path | None, repo: str | None) -> Path | str:
    """The folder, or the dataset of the Hub; refuses both, neither, and a folder that is missing."""
    if (data_dir is None) == (repo is None):
        raise ValueError(
            f"data_dir={str(data_dir) if data_dir is not None else None!r} and repo={repo!r}: pass the dataset's folder, "
            "or the id of a dataset of the Hub, one of the two."
        )
    if data_dir is None:
        return str(repo)
    if not Path(data_dir).is_dir():
        raise FileNotFoundError(f"there is no folder '{data_dir}': pass the dataset's folder as data_dir.")
    return Path(data_dir)


def table_rows(file: Path, way_out: str, **dialect: Any) -> Iterator[tuple[str, list[str]]]:
    """Of every row of a csv that is not blank where it stands, such as `line 3 of 'train.csv'`, and its cells."""
    if not file.is_file():
        raise FileNotFoundError(f"there is no '{file}': {way_out}.")
    with file.open(encoding="utf-8-sig", newline="") as lines:
        rows = csv.reader(lines, **dialect)
        for cells in rows:
            if cells:
                yield f"line {rows.line_num} of '{file}'", cells


# ---- samples to splits ----
def dataset_of(rows: Sequence[Mapping[str, Any]], features: Mapping[str, Any]) -> Dataset:
    """Rows as a dataset with these columns; a cell of `Audio` or `Video` is a path, or its `bytes` and `path`."""
    cells = {name: [row[name] for row in rows] for name in features}
    media = {name: feature for name, feature in features.items() if isinstance(feature, (Audio, Video))}
    for name in media:
        cells[name] = [cell if isinstance(cell, dict) else {"bytes": None, "path": str(cell)} for cell in cells[name]]
    dataset = Dataset.from_dict(cells, features=Features({**features, **dict.fromkeys(media, STORED_MEDIA)}))
    for name, feature in media.items():
        dataset = dataset.cast_column(name, feature)
    return dataset


def refuse_or_warn(samples: str, problems: Sequence[str], skip_bad_samples: bool) -> None:
    """One error for samples, such as "clips of CREMA-D", that lack a file; on request one warning that counts them."""
    if problems and not skip_bad_samples:
        raise ValueError(
            f"{len(problems):,} {samples} are incomplete; the first: {problems[0]}. Complete the data, or leave them out "
            "with skip_bad_samples=True (published numbers are of all of them)."
        )
    if problems:
        shown = "".join(f"\n  {problem}" for problem in problems[:3])
        warn(f"{len(problems):,} {samples} are incomplete and skipped:{shown}")


def complete_splits(
    name: str,
    kind: str,
    parts: str,
    splits: Mapping[str, Iterable[Sample]],
    features: Mapping[str, Any],
    skip_bad_samples: bool,
) -> dict[str, Dataset]:
    """The datasets of listed samples, of which some may lack a file; refuses these, or all of a split being so.

    `name` is the corpus, `kind` what a sample is ("clip"), and `parts` what it needs ("both picture and text");
    `skip_bad_samples` leaves out incomplete samples with a warning that counts them.
    """
    problems: list[str] = []
    complete: dict[str, list[Mapping[str, Any]]] = {}
    for split, listed in splits.items():
        samples = list(listed)
        complete[split] = [sample for sample in samples if not isinstance(sample, str)]
        incomplete = [sample for sample in samples if isinstance(sample, str)]
        if not complete[split]:
            first = f"; the first: {incomplete[0]}" if incomplete else ""
            raise ValueError(f"no {kind} of {name}'s {split} split has {parts}{first}.")
        problems += incomplete
    refuse_or_warn(f"{kind}s of {name}", problems, skip_bad_samples)
    return {split: dataset_of(rows, features) for split, rows in complete.items()}


def finish(
    splits: Mapping[str, Dataset],
    readers: Mapping[str, Callable[[Any, int], Any]] | None = None,
    validation_share: float = 0.0,
    seed: int = 0,
) -> DatasetDict:
    """Cuts a validation split off `train` where there is none and a share is given (at least one sample a class), and
    numbers `train`.

    `readers` raise a ValueError of a bad cell and its row, by column: bad samples are left out with a warning that counts.
    """
    done = dict(splits)
    for split in done:
        for column, read in (readers or {}).items():
            done[split], _ = without_bad_samples(done[split], read, column)
    if "validation" not in done and validation_share:
        number = at_least_one_a_class(done["train"], float(validation_share))
        done["train"], done["validation"] = cut_validation(done["train"], number, seed)
    done["train"] = with_sample_ids(done["train"])
    return DatasetDict({split: done[split] for split in SPLITS if split in done})


# ---- a mirror ----
def hub_splits(
    repo: str, columns: Sequence[str], config: str | None = None, needed: Sequence[str] = tuple(SPLITS)
) -> dict[str, Dataset]:
    """The splits of a dataset of the Hub, or of a folder that `datasets` reads, by our names; refuses one that lacks a
    needed split, or one of the columns in any."""
    loaded = load_dataset(repo, config)
    found = {split: [name for name in names if name in loaded] for split, names in SPLITS.items()}
    if missing := [split for split in needed if not found[split]]:
        raise ValueError(
            f"'{repo}' has no {missing[0]} split (it has {sorted(loaded)}): pass a mirror with {', '.join(needed)}, or the "
            "dataset's own folder as data_dir."
        )
    splits = {split: loaded[names[0]].with_format(None) for split, names in found.items() if names}
    for split, part in splits.items():
        if missing := [column for column in columns if column not in part.column_names]:
            raise ValueError(
                f"'{repo}' has no column {', '.join(missing)} in '{found[split][0]}' (it has {part.column_names}): rename "
                "its columns, or pass the dataset's own folder as data_dir."
            )
    return splits
