"""Where pairs are read from: a dataset of the Hub, a folder in any of the usual layouts, or one table."""

from collections.abc import Mapping
from pathlib import Path

from datasets import Dataset, DatasetDict, load_dataset, load_from_disk
from datasets.exceptions import DatasetNotFoundError
from huggingface_hub.errors import HfHubHTTPError

from hf_colearn.corpora.base import SPLITS
from hf_colearn.data.columns import as_stored


TABLES = {".parquet": "parquet", ".json": "json", ".jsonl": "json", ".csv": "csv", ".tsv": "csv"}
_FORMS = (
    "a dataset of the Hub (owner/name, or owner/name:configuration), a folder of pictures or clips (subfolders named after "
    "classes, or metadata.csv with file_name and their texts), of tables or of save_to_disk, or one "
    + ", ".join(TABLES)
)


def read_source(source: str | Path) -> dict[str, Dataset]:
    """The splits of a source by our names, with pictures and sounds as they are stored.

    Args:
        source (`str` or `Path`): A file, a folder, or else the id of a dataset of the Hub, with `:` before the name of a
            configuration.

    Returns:
        `dict`: `train`, and `validation` and `test` where there are any. A source of a single split has it as `train`.

    Raises:
        FileNotFoundError: If there is neither such a file or folder, nor such a dataset.
        ValueError: If it cannot be read, holds no samples, or has splits of which none is for training.
    """
    path = Path(source)
    is_local = path.exists()
    if not is_local and (str(source).count("/") != 1 or str(source).startswith((".", "/", "~"))):
        raise FileNotFoundError(f"there is no file or folder '{source}': pass {_FORMS}.")
    try:
        loaded = _local(path) if is_local else _of_hub(str(source))
    except (DatasetNotFoundError, ConnectionError, HfHubHTTPError) as error:
        raise FileNotFoundError(
            f"'{source}' is no file or folder here, and the Hub gave no such dataset ({_first_line(error)}): pass {_FORMS}."
        ) from error
    except Exception as error:  # `datasets` wraps what its readers raise
        if not type(error).__module__.startswith(("datasets", "pyarrow", "pandas", "builtins", "json")):
            raise
        cause = error.__cause__ or error
        raise ValueError(f"'{source}' cannot be read ({_first_line(cause)}): pass {_FORMS}.") from error
    splits = _named({"train": loaded} if isinstance(loaded, Dataset) else loaded, source)
    for split, part in splits.items():
        part = part.with_format(None)
        for column in part.column_names:
            part = as_stored(part, column)
        splits[split] = part
    if not len(splits["train"]):
        raise ValueError(f"'{source}' holds no samples to train on: pass {_FORMS}.")
    return splits


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def _local(path: Path) -> Dataset | DatasetDict:
    if path.is_file():
        if path.suffix.lower() not in TABLES:
            raise ValueError(f"it ends in '{path.suffix}'")
        separator = {"sep": "\t"} if path.suffix.lower() == ".tsv" else {}
        return load_dataset(TABLES[path.suffix.lower()], data_files=str(path), split="train", **separator)
    if not any(path.iterdir()):
        raise ValueError("the folder is empty")
    if (path / "dataset_dict.json").is_file() or (path / "state.json").is_file():
        return load_from_disk(str(path))
    return load_dataset(str(path))


def _of_hub(source: str) -> DatasetDict:
    repo, _, config = source.partition(":")
    return load_dataset(repo, config or None)


def _named(loaded: Mapping[str, Dataset], source: str | Path) -> dict[str, Dataset]:
    """The splits by our names; the only one of a source is for training, whatever it is called."""
    if len(loaded) == 1:
        return {"train": next(iter(loaded.values()))}
    found = {split: [name for name in names if name in loaded] for split, names in SPLITS.items()}
    if not found["train"]:
        raise ValueError(
            f"'{source}' has the splits {', '.join(map(repr, loaded))}, of which none is 'train': rename the one to train on."
        )
    return {split: loaded[names[0]] for split, names in found.items() if names}
