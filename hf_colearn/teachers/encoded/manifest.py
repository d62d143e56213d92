"""What an encoded data set consists of: `manifest.json`, put together from what its Parquet files say in their footers.

Shapes: D dimensions.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import reduce
from operator import add
from pathlib import Path
from typing import Any

import numpy as np
from huggingface_hub import hf_hub_download
from huggingface_hub.errors import EntryNotFoundError, RepositoryNotFoundError

from hf_colearn.teachers.encoded.moments import Moments
from hf_colearn.utils.checks import check_path


FORMAT = 1
MANIFEST, JOB, CARD = "manifest.json", "job.json", "README.md"
METADATA_KEY = "hf_colearn"  # in the footer of a Parquet file
UNFINISHED = "the encoding is not finished: repeat its `hf-colearn encode`, which goes on where it stopped"


def file_name(shard: int, num_shards: int) -> str:
    """The name of a shard's Parquet file, as `datasets` numbers them."""
    return f"data-{shard:05d}-of-{num_shards:05d}.parquet"


@dataclass(frozen=True, eq=False)
class ShardRecord:
    """What a shard's file says of itself, in the JSON text under `hf_colearn` in its footer.

    Args:
        shard (`int`): Its number, from 0.
        job (`str`): The fingerprint of what was encoded, by what and how.
        rows (`int`): All of them.
        paired (`int`): Those that have a latent.
        distinct (`int`): How many distinct inputs the shard has, each of which was encoded once.
        moments ([`Moments`]): Of the latents as they are read, over the rows that have one.
    """

    shard: int
    job: str
    rows: int
    paired: int
    distinct: int
    moments: Moments

    def as_json(self, **facts: Any) -> str:
        """The text for the footer, with further facts for readers of the file alone."""
        counts = {"shard": self.shard, "rows": self.rows, "paired": self.paired, "distinct": self.distinct}
        return json.dumps({"format": FORMAT, "job": self.job, **counts, **facts, "moments": self.moments.as_json()})

    @classmethod
    def from_footer(cls, metadata: Mapping[bytes, bytes] | None, name: str) -> "ShardRecord":
        """Of a Parquet file's metadata (`pq.read_metadata(file).metadata`); refuses a file without it, by its name."""
        text = (metadata or {}).get(METADATA_KEY.encode())
        values = {} if text is None else json.loads(text)
        if values.get("format") != FORMAT:
            raise ValueError(f"'{name}' is no shard of `hf-colearn encode` (format {FORMAT}): remove the file.")
        counts = {key: values[key] for key in ("shard", "job", "rows", "paired", "distinct")}
        return cls(**counts, moments=Moments.from_json(values["moments"]))


@dataclass(frozen=True)
class ShardFile:
    """A shard's file as it lies in the folder or repository.

    Args:
        record ([`ShardRecord`]): What it says of itself.
        file (`str`): Its name.
        bytes (`int`): Its size.
        sha256 (`str`): Of its bytes, in hexadecimal.
    """

    record: ShardRecord
    file: str
    bytes: int
    sha256: str


@dataclass(frozen=True, eq=False)
class Manifest:
    """What an encoded data set consists of.

    Attributes:
        job (`str`): The fingerprint of teacher, source and options.
        teacher (`dict`): [`~hf_colearn.FrozenEncoder`]'s description.
        source (`dict`): What was encoded.
        input_column (`str`): The source's column that the teacher saw.
        column (`str`): The latents' column; for int8 the scales are in `{column}_scale`.
        id_column (`str`): The column of the sample ids.
        keep (`str`): `"all"` columns of the source, or `"ids"` alone.
        dim (`int`): D, the width of the latents.
        dtype (`str`): They are stored as `"float32"`, `"float16"` or `"int8"`.
        rows, paired, distinct (`int`): Over all shards; an input that two shards have counts twice as distinct.
        mean, std (`np.ndarray` of shape `(D,)`): Of the latents as they are read, over the rows that have one, float64.
        shards (`list[dict]`): `file`, `rows`, `paired`, `bytes` and `sha256` of each.
    """

    job: str
    teacher: dict[str, Any]
    source: dict[str, Any]
    input_column: str
    column: str
    id_column: str
    keep: str
    dim: int
    dtype: str
    rows: int
    paired: int
    distinct: int
    mean: np.ndarray
    std: np.ndarray
    shards: list[dict[str, Any]]

    @classmethod
    def of(cls, job: Mapping[str, Any], files: Iterable[ShardFile]) -> "Manifest":
        """Puts it together.

        Args:
            job (`Mapping`): What `job.json` holds ([`~hf_colearn.teachers.encoded.plan.EncodingPlan.job`]).
            files (`Iterable[ShardFile]`): All shards, in their order.

        Raises:
            ValueError: If a file is of another job, or no row has a latent.
        """
        files = list(files)
        for each in files:
            if each.record.job != job["job"]:
                raise ValueError(
                    f"'{each.file}' was encoded by another job than the one that '{JOB}' tells of: remove it, and repeat the "
                    "command."
                )
        moments = reduce(add, (each.record.moments for each in files), Moments.none(job["dim"]))
        if not moments.number:
            raise ValueError(
                f"no row has a latent, since the column '{job['input_column']}' holds nothing: name the column of the "
                "teacher's inputs."
            )
        counts = {name: sum(getattr(each.record, name) for each in files) for name in ("rows", "paired", "distinct")}
        shards = [
            {"file": x.file, "rows": x.record.rows, "paired": x.record.paired, "bytes": x.bytes, "sha256": x.sha256}
            for x in files
        ]
        facts = {name: job[name] for name in cls.__dataclass_fields__ if name in job}
        return cls(**facts, **counts, mean=moments.mean_D, std=moments.std_D, shards=shards)

    def as_json(self) -> str:
        values = {name: getattr(self, name) for name in self.__dataclass_fields__}
        moments = {"mean": self.mean.tolist(), "std": self.std.tolist()}
        return json.dumps({"format": FORMAT, **values, **moments}, indent=1)

    @classmethod
    def read(cls, folder_or_repo_id: str | Path, revision: str | None = None, token: str | None = None) -> "Manifest":
        """Reads it of a folder, or of a dataset repository on the Hub.

        Raises:
            ValueError: If there is none, or of another version.
        """
        check_path("folder_or_repo_id", folder_or_repo_id)
        if Path(folder_or_repo_id).is_dir():
            path = Path(folder_or_repo_id) / MANIFEST
            if not path.is_file():
                why = UNFINISHED if (path.parent / JOB).is_file() else "name one that `hf-colearn encode` has written"
                raise ValueError(f"the folder '{folder_or_repo_id}' has no '{MANIFEST}': {why}.")
        else:
            path = _fetched(str(folder_or_repo_id), revision, token)
        values = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(values, dict) or values.pop("format", None) != FORMAT:
            raise ValueError(
                f"'{MANIFEST}' of '{folder_or_repo_id}' is not of this version (format {FORMAT}): encode the data anew, or "
                "install the version of hf-colearn that has written it."
            )
        values |= {name: np.array(values[name], dtype=np.float64) for name in ("mean", "std")}
        return cls(**values)


def _fetched(repo_id: str, revision: str | None, token: str | None) -> Path:
    try:
        return Path(hf_hub_download(repo_id, MANIFEST, repo_type="dataset", revision=revision, token=token))
    except (RepositoryNotFoundError, EntryNotFoundError) as error:
        raise ValueError(
            f"'{repo_id}' is no folder, and no dataset repository on the Hub with a '{MANIFEST}' that can be read "
            f"({type(error).__name__}): name the output of `hf-colearn encode`; if that one was stopped, repeat it."
        ) from error
