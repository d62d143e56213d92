"""Precomputed features of several modalities, of any data set: one file a split, `.npz` or Parquet.

Shapes: N samples of a split, F width of a modality's features.
"""

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from datasets import ClassLabel, Dataset, DatasetDict, Features, List, Value

from hf_colearn.corpora.base import SPLITS, finish
from hf_colearn.corpora.pair_labels import SINGLE, read_labels
from hf_colearn.utils.extras import extra


FORMS = (".npz", ".parquet")
LABEL, ID, GROUP = "label", "id", "group"
_OF_SAMPLES = (LABEL, ID, GROUP)  # what is no modality
_LAYOUT = (
    "a folder with train, test and (where there is one) validation as .npz or .parquet, each with `label` (N,) and an array "
    "(N, F) a modality"
)


def load_features(folder: str | Path, validation_share: float = 0.1, seed: int = 0) -> DatasetDict:
    """Features that were computed beforehand, by any encoder of any data set.

    One file a split, `train`, `validation` (or `valid`, `val`, `dev`) and `test`, `.npz` or `.parquet`. It has the arrays (in
    Parquet the columns of lists) `{modality}`, `(N, F)` numbers, of two or more modalities by any name, and `label`, `(N,)`
    classes by number or name. `id` and `group`, `(N,)`, may be there: an id is in one split alone, and a validation split
    that has to be cut has no group in common with what is left for training.

    A sample without a modality has a row of NaN there, or a null.

    Args:
        folder (`str` or `Path`): With these files.
        validation_share (`float`, *optional*, defaults to 0.1): Of the training samples, where there is no validation split.
        seed (`int`, *optional*, defaults to 0): Draws it.

    Returns:
        [`datasets.DatasetDict`]: `train`, `validation` and `test` with `{modality}_features` (float32, None where absent),
        `label`, where they were given `id` and `group`, and, in `train`, `sample_id`.

    Raises:
        FileNotFoundError, ValueError: If a file or array is missing or damaged, or the files do not fit each other.

    Example:

    ```python
    >>> import tempfile
    >>> import numpy as np
    >>> from hf_colearn.corpora.features import load_features

    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for split, count in (("train", 20), ("test", 4)):
    ...         label = np.arange(count) % 2
    ...         np.savez(f"{folder}/{split}.npz", image=np.zeros((count, 3)), text=np.ones((count, 5)), label=label)
    ...     data = load_features(folder)
    >>> {split: len(part) for split, part in data.items()}
    {'train': 18, 'validation': 2, 'test': 4}
    >>> data["test"].column_names
    ['image_features', 'text_features', 'label']
    ```
    """
    files = _files(Path(folder))
    tables = {split: _Table.read(file) for split, file in files.items()}
    _check_alike(tables)
    _check_ids(tables)
    raw = {split: Dataset.from_dict({LABEL: table.columns[LABEL].tolist()}) for split, table in tables.items()}
    labels = read_labels(raw, LABEL)
    if labels.problem_type != SINGLE or labels.names is None:
        raise ValueError(
            f"`label` of '{files['train']}' holds values such as {tables['train'].columns[LABEL][0]}, and features are of "
            "classes, one a sample: number the classes from 0, or name them."
        )
    names = list(labels.names.values())
    splits = {split: _dataset(table, labels.by_split[split], names) for split, table in tables.items()}
    if "validation" not in splits and GROUP in splits["train"].column_names:
        splits["train"], splits["validation"] = _cut_groups(splits["train"], validation_share, seed)
    return finish(splits, validation_share=validation_share, seed=seed)


def modalities_of(dataset: Dataset) -> tuple[str, ...]:
    """The names of the modalities, in the order of their columns."""
    ending = "_features"
    return tuple(name.removesuffix(ending) for name in dataset.column_names if name.endswith(ending))


# ---- files ----
def _files(folder: Path) -> dict[str, Path]:
    if not folder.is_dir():
        raise FileNotFoundError(f"there is no folder '{folder}': pass {_LAYOUT}.")
    found: dict[str, Path] = {}
    for split, names in SPLITS.items():
        here = [folder / f"{name}{form}" for name in names for form in FORMS if (folder / f"{name}{form}").is_file()]
        if len(here) > 1:
            raise ValueError(f"'{here[0]}' and '{here[1].name}' are both the {split} split: remove one.")
        if here:
            found[split] = here[0]
    for split in ("train", "test"):
        if split not in found:
            raise FileNotFoundError(
                f"'{folder}' has no {split}{FORMS[0]} and no {split}{FORMS[1]} (it has "
                f"{sorted(path.name for path in folder.iterdir())[:8]}): pass {_LAYOUT}."
            )
    return found


class _Table:
    """The arrays of a file: float32 features `(N, F)` by modality, with rows of NaN, and `(N,)` columns of the samples."""

    def __init__(self, file: Path, arrays: Mapping[str, np.ndarray]):
        self.file = file
        if LABEL not in arrays:
            raise ValueError(f"'{file}' has no `{LABEL}` (it has {', '.join(arrays)}): add the classes, (N,).")
        self.columns = {name: arrays[name] for name in _OF_SAMPLES if name in arrays}
        count = len(self.columns[LABEL]) if self.columns[LABEL].ndim else 0
        for name, column in self.columns.items():
            if column.ndim != 1:
                raise ValueError(f"`{name}` of '{file}' is of shape {column.shape}: pass one a sample, (N,).")
        self.features = {
            name: _checked(file, name, array) for name, array in arrays.items() if name not in _OF_SAMPLES
        }
        for name, array in {**self.columns, **self.features}.items():
            if len(array) != count:
                raise ValueError(
                    f"'{file}' has {count} rows of `{LABEL}` and {len(array)} of `{name}`: every array needs a row a sample."
                )
        if not count:
            raise ValueError(f"'{file}' holds no samples: compute the features anew.")
        if len(self.features) < 2:
            raise ValueError(
                f"'{file}' has {len(self.features)} modality ({', '.join(self.features) or 'none'}), and there is nothing to "
                "balance: pass the features of two or more."
            )
        alone_N = np.all([np.isnan(x_NF).all(axis=1) for x_NF in self.features.values()], axis=0)
        if alone_N.any():
            raise ValueError(
                f"row {int(alone_N.argmax())} of '{file}' has none of the modalities {', '.join(self.features)}: leave such "
                "samples out."
            )

    @classmethod
    def read(cls, file: Path) -> "_Table":
        return cls(file, _read_npz(file) if file.suffix == ".npz" else _read_parquet(file))


def _read_npz(file: Path) -> dict[str, np.ndarray]:
    if not zipfile.is_zipfile(file):
        raise ValueError(f"'{file}' is no npz file, or a part of one: write it with `np.savez`.")
    found = {}
    with np.load(file, allow_pickle=False) as arrays:
        for name in arrays.files:
            try:
                found[name] = arrays[name]
            except ValueError as error:  # numpy's is of pickles
                raise ValueError(
                    f"`{name}` of '{file}' is an array of Python objects, which is not read: save numbers, or text, such as "
                    "`np.array(values, dtype=np.float32)`."
                ) from error
    return found


def _read_parquet(file: Path) -> dict[str, np.ndarray]:
    try:
        table = pq.read_table(file)
    except (OSError, pa.ArrowException) as error:
        raise ValueError(f"'{file}' cannot be read as Parquet ({error}): write it anew.") from error
    return {name: _column(file, name, table.column(name).combine_chunks()) for name in table.column_names}


def _column(file: Path, name: str, column: pa.Array) -> np.ndarray:
    """A column of lists as `(N, F)` with rows of NaN for nulls, another one as it is."""
    if isinstance(column, pa.ExtensionArray):
        column = column.storage
    if not isinstance(column, (pa.ListArray, pa.LargeListArray, pa.FixedSizeListArray)):
        if column.null_count:
            row = column.is_null().to_pylist().index(True)
            raise ValueError(f"`{name}` of '{file}' is null in row {row}: complete it, or leave the sample out.")
        return np.asarray(column.to_pylist())
    widths = pc.list_value_length(column).drop_null().unique().to_pylist()
    if len(widths) != 1 or not widths[0]:
        raise ValueError(
            f"`{name}` of '{file}' has rows of {sorted(widths) or 'no'} numbers: a modality has as many in every row."
        )
    given = column.flatten().to_numpy(zero_copy_only=False)  # of the rows that are there; a null among numbers is NaN
    rows = np.full((len(column), widths[0]), np.nan, given.dtype if given.dtype.kind == "O" else np.float64)
    rows[column.is_valid().to_numpy(zero_copy_only=False)] = given.reshape(-1, widths[0])
    return rows


def _checked(file: Path, name: str, array: np.ndarray) -> np.ndarray:
    """The features of a modality in float32."""
    if array.ndim != 2 or not array.shape[1] or array.dtype.kind not in "fiub":
        raise ValueError(
            f"`{name}` of '{file}' is of shape {array.shape} and type {array.dtype}: a modality is (N, F) numbers (features of "
            f"many steps are pooled first), and what else is read is {', '.join(_OF_SAMPLES)}."
        )
    if not name.isidentifier():
        raise ValueError(f"'{name}' of '{file}' cannot name a modality: rename it to letters, digits and _.")
    features_NF = array.astype(np.float32)
    is_nan_NF = np.isnan(features_NF)
    in_part_N = is_nan_NF.any(axis=1) & ~is_nan_NF.all(axis=1)
    if in_part_N.any() or np.isinf(features_NF).any():
        row = int(in_part_N.argmax() if in_part_N.any() else np.isinf(features_NF).any(axis=1).argmax())
        what = "NaN in part" if in_part_N.any() else "infinite"
        raise ValueError(
            f"row {row} of `{name}` in '{file}' is {what}: compute it anew, or make the whole row NaN where the sample lacks "
            "the modality."
        )
    return features_NF


# ---- splits ----
def _check_alike(tables: Mapping[str, _Table]) -> None:
    """Refuses splits of other modalities or widths, and a modality that no training sample has."""
    train = tables["train"]
    widths = {name: x_NF.shape[1] for name, x_NF in train.features.items()}
    for table in tables.values():
        here = {name: x_NF.shape[1] for name, x_NF in table.features.items()}
        if here != widths:
            raise ValueError(
                f"'{train.file}' has the modalities {widths}, with their widths, and '{table.file}' {here}: compute all splits "
                "alike."
            )
        if set(table.columns) != set(train.columns):
            raise ValueError(
                f"'{train.file}' has {', '.join(train.columns)}, and '{table.file}' {', '.join(table.columns)}: compute all "
                "splits alike."
            )
    for name, x_NF in train.features.items():
        if np.isnan(x_NF).all():
            raise ValueError(f"no sample of '{train.file}' has the modality `{name}`: leave it out.")


def _check_ids(tables: Mapping[str, _Table]) -> None:
    if ID not in tables["train"].columns:
        return
    seen: dict[Any, Path] = {}
    for table in tables.values():
        for one in table.columns[ID].tolist():
            if one in seen:
                where = (
                    f"twice in '{table.file}'" if seen[one] == table.file else f"in '{seen[one]}' and '{table.file}'"
                )
                raise ValueError(f"the sample with `{ID}` {one!r} is {where}: a sample is in one split, once.")
            seen[one] = table.file


def _dataset(table: _Table, labels_N: np.ndarray, names: list[str]) -> Dataset:
    if (labels_N < 0).any():
        row = int((labels_N < 0).argmax())
        raise ValueError(f"row {row} of '{table.file}' has no label: complete it, or leave the sample out.")
    ends: dict[str, Any] = {LABEL: ClassLabel(names=names)}
    columns: dict[str, Any] = {LABEL: labels_N}
    for name in (ID, GROUP):
        if name in table.columns:
            columns[name] = [str(value) for value in table.columns[name].tolist()]
            ends[name] = Value("string")
    features: dict[str, Any] = {}
    for name, x_NF in table.features.items():
        absent_N = np.isnan(x_NF).all(axis=1)
        columns[f"{name}_features"] = [None if absent else row for absent, row in zip(absent_N, x_NF, strict=True)]
        features[f"{name}_features"] = List(Value("float32"), length=x_NF.shape[1])
    order = {**features, **ends}
    return Dataset.from_dict({name: columns[name] for name in order}, features=Features(order))


def _cut_groups(train: Dataset, share: float, seed: int) -> tuple[Dataset, Dataset]:
    """A validation split of about this share of every class, of groups of its own."""
    with extra("report", "a split by groups needs scikit-learn"):
        from sklearn.model_selection import StratifiedGroupKFold
    labels, groups = np.asarray(train[LABEL][:]), np.asarray(train[GROUP][:])
    folds = max(2, round(1 / share))
    if (count := len(np.unique(groups))) < folds:
        raise ValueError(
            f"the training samples are of {count} groups, which cannot be cut into {folds} parts for a validation split of "
            f"{share:.2g}: add a validation file."
        )
    splitter = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
    rest, fold = next(iter(splitter.split(labels, labels, groups)))
    return train.select(np.sort(rest)), train.select(np.sort(fold))
