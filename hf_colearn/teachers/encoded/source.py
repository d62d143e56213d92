"""The source of an encoding: a stream whose shards are files, or rows in ranges, read block by block as Arrow tables."""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
from datasets import Dataset, DatasetDict, Features, IterableDataset, load_dataset_builder, load_from_disk
from datasets.table import embed_table_storage, table_cast

from hf_colearn.teachers import fingerprint
from hf_colearn.teachers.bank_card import without_folders
from hf_colearn.utils.checks import check_integer


TABLES = {".parquet": "parquet", ".json": "json", ".jsonl": "json", ".csv": "csv", ".tsv": "csv"}
ID_STRIDE = (
    2**32
)  # row r of a stream's shard s has the id s * 2**32 + r: how many rows the shards before have is unknown


@dataclass(frozen=True, eq=False)
class Source:
    """A data set in shards. It can be pickled, so that other processes read it too.

    Args:
        data (`IterableDataset` or `Dataset`): A stream, whose own shards are put together into `num_shards` at most; or rows
            that are cut into `num_shards` contiguous ranges.
        num_shards (`int`): How many there are.
        features (`Features`): Of the columns.
        description (`dict`): What it is, for the fingerprint: its name without folders, split, configuration, revision, and
            a fingerprint of its files' names and sizes or of its rows. Samples that a Python generator makes have none.
    """

    data: IterableDataset | Dataset
    num_shards: int
    features: Features
    description: dict[str, Any]

    @classmethod
    def open(
        cls,
        source: str | os.PathLike | IterableDataset | Dataset,
        split: str = "train",
        name: str | None = None,
        revision: str | None = None,
        num_shards: int | None = None,
        token: str | None = None,
    ) -> "Source":
        """Opens a data set without reading it.

        Args:
            source: A dataset of the Hub; a folder of Parquet, JSON or CSV files, of images or sounds, or of `save_to_disk`; a
                file (`"data/*.parquet"`: files) of such a table; or a `datasets.IterableDataset` or `Dataset`.
            split, name, revision: As `load_dataset` takes them; not of an opened data set.
            num_shards (`int`, *optional*): By default a file is a shard. Fewer shards hold several files each; for more than
                there are files, the data set is loaded into the cache of `datasets` and cut into ranges of rows.
            token (`str`, *optional*): For the Hub.

        Raises:
            FileNotFoundError: If there is no such data set.
            ValueError: If it has no such split or configuration, or fewer rows than `num_shards`.
        """
        if num_shards is not None:
            check_integer("num_shards", num_shards, least=1)
        if isinstance(source, (IterableDataset, Dataset)):
            named = {"source": source.info.dataset_name, "split": None if source.split is None else str(source.split)}
            return cls._of(source, named, num_shards)
        named = {"source": without_folders(os.fspath(source)), "config": name, "split": split}
        path = Path(source)
        if (path / "state.json").is_file() or (path / "dataset_dict.json").is_file():
            loaded = load_from_disk(str(path))
            if isinstance(loaded, DatasetDict):
                if split not in loaded:
                    raise ValueError(f"'{source}' has no split '{split}': choose one of {', '.join(loaded)}.")
                loaded = loaded[split]
            return cls._of(loaded, named, num_shards)
        builder = load_dataset_builder(**_what(source), name=name, revision=revision, token=token)
        named["files"] = _of_files(builder.config.data_files, split, path if path.is_dir() else path.parent)
        stream = builder.as_streaming_dataset(split=split)
        if num_shards is None or num_shards <= stream.num_shards:
            return cls._of(stream, named, num_shards)
        builder.download_and_prepare()
        return cls._of(builder.as_dataset(split=split), named, num_shards, is_named=True)

    @classmethod
    def _of(
        cls, data: IterableDataset | Dataset, named: dict[str, Any], num_shards: int | None, is_named: bool = False
    ) -> "Source":
        if isinstance(data, Dataset):
            if num_shards is not None and num_shards > max(1, len(data)):
                raise ValueError(f"num_shards={num_shards}, and the source has {len(data)} rows: choose fewer.")
            if not is_named:
                named = named | {"rows": data._fingerprint}
            return cls(data.with_format("arrow"), num_shards or 1, data.features, named)
        if num_shards is not None and num_shards > data.num_shards:
            raise ValueError(
                f"num_shards={num_shards}, and the stream has {data.num_shards} shards, which cannot be cut: choose "
                f"{data.num_shards} at most, or pass the data set without streaming."
            )
        stream = data.with_format("arrow")
        if (features := data.features) is None:  # of JSON and CSV: what the first rows say
            first = next(iter(stream.iter(1000)), None)
            if first is None:
                raise ValueError("the source has no rows: look at its files, split or filter.")
            features = Features.from_arrow_schema(first.schema)
        return cls(stream, num_shards or data.num_shards, features, named)

    def blocks(self, shard: int, rows: int, columns: list[str]) -> Iterator[pa.Table]:
        """Some columns of a shard's rows in their order, at most `rows` at once, with images and sounds as bytes.

        Raises:
            ValueError: If rows cannot be read in the types of the source's first ones.
        """
        if isinstance(self.data, Dataset):
            start, end = (len(self.data) * i // self.num_shards for i in (shard, shard + 1))
            blocks = (self.data[i : min(i + rows, end)] for i in range(start, end, rows))
        else:
            blocks = self.data.shard(self.num_shards, shard).iter(rows)
        schema = Features({name: self.features[name] for name in columns}).arrow_schema
        try:
            for block in blocks:
                block = block.select([name for name in columns if name in block.column_names])
                yield embed_table_storage(table_cast(block, schema))
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError, TypeError, ValueError) as error:
            raise ValueError(f"its rows cannot be read in the types of the first rows ({error})") from error

    def first_id(self, shard: int) -> int:
        """The id of a shard's first row, where the source has no ids; those of the others follow.

        Rows in ranges are numbered through, as [`~hf_colearn.with_sample_ids`] does.
        """
        return len(self.data) * shard // self.num_shards if isinstance(self.data, Dataset) else shard * ID_STRIDE


def _what(source: str | os.PathLike) -> dict[str, Any]:
    """What `datasets` is asked for: a table's reader and its files, else the folder or name itself."""
    text = os.fspath(source)
    kind = TABLES.get(Path(text).suffix.lower())
    is_pattern = bool(re.search(r"[*?\[]", text))
    if kind is None or not (is_pattern or Path(text).is_file()):
        return {"path": text}
    separator = {"sep": "\t"} if text.lower().endswith(".tsv") else {}
    return {"path": kind, "data_files": {"train": text}, **separator}


def _of_files(data_files: Any, split: str, folder: Path) -> str | None:
    """A fingerprint of the names, revisions and sizes of a split's files; a local folder may move."""
    if not data_files or split not in data_files:
        return None
    root = folder.resolve().as_posix() + "/"
    return fingerprint.of_json(
        [
            [str(file).removeprefix(root), os.path.getsize(file) if os.path.isfile(file) else None]
            for file in data_files[split]
        ]
    )
