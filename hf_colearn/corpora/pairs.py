"""Anybody's pairs: an input, a column of another modality, and labels or not, from any source that `datasets` reads."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset, List, Value

from hf_colearn.corpora.pair_cells import MEDIA, content, digests, features, has_cell, readable, some
from hf_colearn.corpora.pair_columns import PairColumns, find_columns
from hf_colearn.corpora.pair_labels import REGRESSION, SINGLE, PairLabels, read_labels
from hf_colearn.corpora.pair_sources import read_source
from hf_colearn.data.content_split import content_groups, cut_groups
from hf_colearn.data.labels import is_labelled
from hf_colearn.data.sample_ids import NO_LABEL, with_sample_ids
from hf_colearn.utils.checks import check_positive


CLASS_NAMES = "class names"  # the other modality where no column is one: a sentence about every class
_WORDS = {"image": "images", "audio": "sounds", "text": "texts", "features": "features", CLASS_NAMES: CLASS_NAMES}
_PROBLEMS = {SINGLE: "classes", REGRESSION: "values", "multi_label_classification": "several classes a sample"}


@dataclass(frozen=True)
class Pairs:
    """Pairs as a recipe takes them; printed as what was found in the data.

    Args:
        splits (`dict[str, Dataset]`): `train`, `test` and, where the source has one, `validation`, with the columns `input`,
            `other` (None where a sample has no partner), `labels` where there is a task (-100, or NaN, where a sample has none)
            and, in `train`, `sample_id`.
        columns ([`PairColumns`]): What was found.
        input_kind, other_kind (`str`): `"image"`, `"audio"`, `"features"` or `"text"`; of the other one also
            `"class names"`, where the partner of a sample is a sentence about its class.
        problem_type (`str`, *optional*): As transformers calls it; None where there are no labels.
        names (`dict[int, str]`, *optional*): Of the classes.
        source (`str`): A Hub id, or the name of the file or folder.
        split (`str`): How the test part came to be.
        notes (`tuple[str, ...]`): What else a reader must know of the data.
    """

    splits: dict[str, Dataset]
    columns: PairColumns
    input_kind: str
    other_kind: str
    problem_type: str | None
    names: dict[int, str] | None
    source: str
    split: str
    notes: tuple[str, ...] = field(default=())

    @property
    def train(self) -> Dataset:
        return self.splits["train"]

    @property
    def test(self) -> Dataset:
        return self.splits["test"]

    @property
    def labelled(self) -> np.ndarray:
        """Which training samples have a label, `(N,)` booleans."""
        if self.problem_type is None:
            return np.zeros(len(self.train), dtype=bool)
        return is_labelled(np.asarray(self.train["labels"][:]))

    @property
    def paired(self) -> np.ndarray:
        """Which training samples have a partner, `(N,)` booleans."""
        if self.other_kind == CLASS_NAMES:
            return self.labelled
        return has_cell(self.train, "other")

    @property
    def title(self) -> str:
        """What is done with the data, in a few words."""
        return f"{self.source}: {_WORDS[self.input_kind]} learn from {_WORDS[self.other_kind]}"

    @property
    def partner(self) -> str:
        """Of a sample, in words."""
        return f"its own '{self.columns.other}'" if self.columns.other else "a sentence about its class"

    @property
    def description(self) -> str:
        """What the data are: name, modalities, number of classes, how the test part came to be, and what else to know."""
        of = "" if self.names is None else f", {len(self.names)} classes"
        data = f"{self.source} ({self.input_kind} with {self.other_kind}{of})"
        return " ".join([f"{data}, {self.split}{'.' if self.notes else ''}", *self.notes]).removesuffix(".")

    def __str__(self) -> str:
        first, *_, last = [self.columns.input[0], *self.columns.input]
        count = len(self.columns.input)
        read = f"column '{first}'" if count == 1 else f"{count} columns, '{first}' to '{last}'"
        shown = f"column '{self.columns.other}'" if self.columns.other else "a sentence about the class of a sample"
        task = "none: the student learns from pairs alone, and is tested by retrieval"
        if self.problem_type is not None:
            of = "" if self.names is None else f": {some([*self.names.values()])}"
            task = f"{_PROBLEMS[self.problem_type]} (column '{self.columns.label}'), of "
            task += f"{int(self.labelled.sum()):,} training samples{of}"
        sizes = ", ".join(f"{len(part):,} in {split}" for split, part in self.splits.items())
        rows = {
            "data": f"{self.source}: {sizes}; {self.split}",
            "input": f"{self.input_kind} ({read})",
            "partner": f"{self.other_kind} ({shown}), of {int(self.paired.sum()):,} training samples",
            "labels": task,
        }
        return "\n".join(
            [*(f"{name + ':':<9} {text}" for name, text in rows.items()), *(f"note:     {n}" for n in self.notes)]
        )


def load_pairs(
    source: str | Path,
    input: str | None = None,
    other: str | None = None,
    label: str | None = None,
    *,
    problem_type: str | None = None,
    test_share: float | None = None,
    max_samples: int | None = None,
    seed: int = 0,
    skip_bad_samples: bool = False,
) -> Pairs:
    """Loads pairs from wherever they are, and finds out what is not said.

    Without a split `test`, the one for validation is it; without either, or with a `test_share`, a test part is cut off the
    training split, class by class, such that a picture or text is never on both sides: a model that has learned a description
    by heart would be tested on it. Where whole classes share one text, only inputs are kept apart.

    Args:
        source (`str` or `Path`): As of [`~hf_colearn.corpora.pair_sources.read_source`].
        input, other, label (`str`, *optional*): Columns, as of [`~hf_colearn.corpora.pair_columns.find_columns`].
        problem_type (`str`, *optional*): As of [`~hf_colearn.corpora.pair_labels.read_labels`].
        test_share (`float`, *optional*): Of every class, to be cut off for testing; 0.25 where nothing is there to test on.
        max_samples (`int`, *optional*): Keeps so many random training samples at most, and a third as many of the others.
        seed (`int`, *optional*, defaults to 0): Draws the test part.
        skip_bad_samples (`bool`, *optional*, defaults to `False`): Whether to leave out, and count, what cannot be read.

    Raises:
        FileNotFoundError: If there is no such source, or a file that it names is missing.
        ValueError: Naming the value, if the columns are unclear, no other modality is there, cells cannot be used, or the
            labels are none that can be learned and tested.

    Example:

    ```python
    pairs = load_pairs("pictures/")  # or "owner/dataset", "table.parquet", ...
    print(pairs)
    ```
    """
    raw = read_source(source)
    columns = find_columns(raw["train"], input, other, label)
    if columns.label is None and label is None and columns.input_kind in MEDIA and Path(source).is_dir():
        raw, columns = _with_subfolders(raw, columns)
    labels = None if columns.label is None else read_labels(raw, columns.label, problem_type)
    other_kind = columns.other_kind or _class_names(labels, columns, raw["train"])
    folder = Path(source) if Path(source).is_dir() else Path(source).parent
    parts = {split: _part(part, split, columns, labels, folder, skip_bad_samples) for split, part in raw.items()}
    parts, words, notes = _tested(parts, labels, test_share, seed)
    if max_samples is not None:
        check_positive("max_samples", max_samples)
        most = {"train": max_samples, **dict.fromkeys(("validation", "test"), max(1, max_samples // 3))}
        if any(len(part) > most[split] for split, part in parts.items()):
            notes.append(
                f"Of {len(parts['train']):,} training samples at most {max_samples:,} are taken (--max_samples)."
            )
        parts = {split: _few(part, most[split], seed) for split, part in parts.items()}
    if labels is not None and labels.problem_type == REGRESSION:
        parts = _standardized(parts, notes)
    parts["train"] = with_sample_ids(parts["train"])
    name = str(source) if not Path(source).exists() else Path(source).resolve().name
    problem = None if labels is None else labels.problem_type
    names = None if labels is None else labels.names
    found = Pairs(parts, columns, columns.input_kind, other_kind, problem, names, name, words, tuple(notes))
    if not found.paired.any():
        raise ValueError(
            f"none of the {len(found.train)} training samples has a partner in column '{columns.other}': name another one with "
            "--other."
        )
    return found


# ---- columns ----
def _with_subfolders(raw: dict[str, Dataset], columns: PairColumns) -> tuple[dict[str, Dataset], PairColumns]:
    """Subfolders as classes, where a metadata file names the partners and no class."""
    folders = {
        split: [Path(cell["path"]).parent.name for cell in part[columns.input[0]]] for split, part in raw.items()
    }
    if len(set(folders["train"])) < 2 or any(set(of) - set(folders["train"]) for of in folders.values()):
        return raw, columns
    raw = {split: part.add_column("subfolder", folders[split]) for split, part in raw.items()}
    return raw, replace(columns, label="subfolder")


def _class_names(labels: PairLabels | None, columns: PairColumns, train: Dataset) -> str:
    """Sentences about the classes as the other modality, where the data have names of classes and nothing else."""
    names = [] if labels is None or labels.names is None else list(labels.names.values())
    if names and labels is not None and labels.problem_type == SINGLE and not all(_is_number(name) for name in names):
        return CLASS_NAMES
    raise ValueError(
        f"the data have no column of another modality beside '{columns.input[0]}' ({columns.input_kind}); they have "
        f"{', '.join(map(repr, train.column_names))}. Add one, such as texts in metadata.csv, or name it with --other."
    )


def _is_number(name: str) -> bool:
    return name.removeprefix("LABEL_").replace(".", "", 1).replace("-", "", 1).isdigit()


def _part(
    part: Dataset, split: str, columns: PairColumns, labels: PairLabels | None, folder: Path, skip_bad_samples: bool
) -> Dataset:
    """One split with the columns of [`Pairs`]."""
    chosen = part.select_columns(list(dict.fromkeys([*columns.input, *([columns.other] if columns.other else [])])))
    if columns.input_kind == "features":
        made = chosen.add_column("made_input", features(chosen, columns.input, split))
    else:
        made = content(chosen, columns.input[0], columns.input_kind, folder, "made_input")
    if columns.other is not None:
        if columns.other_kind == "features":
            made = made.add_column("made_other", features(chosen, (columns.other,), split, may_miss=True))
        else:
            made = content(made, columns.other, str(columns.other_kind), folder, "made_other")
    names = [name for name in ("made_input", "made_other") if name in made.column_names]
    made = made.select_columns(names).rename_columns({name: name.removeprefix("made_") for name in names})
    if labels is not None:
        made = _with_labels(made, labels, split)
    return readable(made, columns, split, skip_bad_samples)


def _with_labels(part: Dataset, labels: PairLabels, split: str) -> Dataset:
    values = labels.by_split[split]
    is_class = labels.problem_type == SINGLE
    feature: Any = List(Value("float32")) if values.ndim == 2 else Value("int64" if is_class else "float32")
    return part.add_column("labels", list(values) if values.ndim == 2 else values, feature=feature)


# ---- splits ----
def _tested(
    parts: dict[str, Dataset], labels: PairLabels | None, test_share: float | None, seed: int
) -> tuple[dict[str, Dataset], str, list[str]]:
    """The splits with one to test on, how that came to be, and what else to know."""
    if test_share is None and ("test" in parts or "validation" in parts):
        words = "splits of the data"
        if "test" not in parts:
            parts["test"], words = (
                parts.pop("validation"),
                "the split for validation is the test part, as there is no other",
            )
        if labels is not None and not is_labelled(np.asarray(parts["test"]["labels"][:])).any():
            raise ValueError(
                f"none of the {len(parts['test'])} samples of the test split has a label, while 'train' has some: pass "
                "--test_share 0.25 to cut a test part off 'train' instead, or --label none to train on pairs alone."
            )
        return parts, words, _shared(parts)
    share = 0.25 if test_share is None else test_share
    train = parts["train"]
    classes = np.asarray(train["labels"][:]) if labels is not None else None
    if classes is not None and labels is not None and labels.problem_type != SINGLE:
        classes = np.where(is_labelled(classes), 0, NO_LABEL)
    inputs = digests(train, "input")
    others = digests(train, "other") if "other" in train.column_names else [None] * len(train)
    groups, kept_apart = content_groups(inputs, others), "no input or partner on both sides"
    if not _is_divisible(groups, classes):
        groups, kept_apart = (
            content_groups(inputs),
            "no input on both sides, while partners repeat too much to be kept apart",
        )
    in_test = cut_groups(groups, classes, share, seed)
    cut = {"train": train.select(np.flatnonzero(~in_test)), "test": train.select(np.flatnonzero(in_test))}
    of = "every class" if labels is not None and labels.problem_type == SINGLE else "the samples"
    words = f"{share:.0%} of {of} cut off as test part with seed {seed}, {kept_apart}"
    return {**({"validation": parts["validation"]} if "validation" in parts else {}), **cut}, words, []


def _is_divisible(groups: np.ndarray, classes: np.ndarray | None) -> bool:
    """Whether every class has groups enough to be on both sides."""
    if classes is None:
        return len(np.unique(groups)) >= 10
    return all(len(np.unique(groups[classes == label])) >= 2 for label in np.unique(classes[classes != NO_LABEL]))


def _shared(parts: dict[str, Dataset]) -> list[str]:
    """A note on test samples whose input or partner is in the training split."""
    notes = []
    for column, what in (("input", "input"), ("other", "partner")):
        if column in parts["train"].column_names:
            known = set(digests(parts["train"], column)) - {None}
            count = sum(value in known for value in digests(parts["test"], column))
            if count:
                notes.append(
                    f"{count:,} of {len(parts['test']):,} test samples have an {what} that is in 'train', too."
                )
    return [note.replace("an partner", "a partner") for note in notes]


def _standardized(parts: dict[str, Dataset], notes: list[str]) -> dict[str, Dataset]:
    """Values in units of the training split's spread, so that a loss of any values weighs as much as that of a teacher."""
    values = np.asarray(parts["train"]["labels"][:], dtype=np.float64)
    mean, std = float(np.nanmean(values)), float(np.nanstd(values))
    if not std > 0:
        raise ValueError(f"all labels of the training split are {mean:g}: there is nothing to learn.")
    notes.append(
        f"The student learns and predicts (value - {mean:.6g}) / {std:.6g}, by mean and spread of the training split."
    )
    made = {}
    for split, part in parts.items():
        scaled = (np.asarray(part["labels"][:], dtype=np.float64) - mean) / std
        made[split] = part.remove_columns("labels").add_column("labels", scaled, feature=Value("float32"))
    return made


def _few(part: Dataset, most: int, seed: int) -> Dataset:
    """A random choice of samples, one of every class first."""
    if len(part) <= most:
        return part
    order = np.random.default_rng(seed).permutation(len(part))
    if "labels" in part.column_names and (labels := np.asarray(part["labels"][:])[order]).ndim == 1:
        _, first = np.unique(labels, return_index=True)
        if labels.dtype.kind == "i":
            order = np.concatenate([order[first], np.delete(order, first)])
    return part.select(np.sort(order[:most]))
