"""Where an encoded data set is written: what an output is, and a folder."""

import errno
import json
import os
import socket
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

import pyarrow.parquet as pq
from huggingface_hub.utils.sha import sha_fileobj

from hf_colearn.teachers.encoded.card import card
from hf_colearn.teachers.encoded.manifest import CARD, JOB, MANIFEST, Manifest, ShardFile, ShardRecord
from hf_colearn.utils.checks import check_path


_PARTIAL, _ABANDONED_S = ".partial", 24 * 3600
_DISK_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


class Output(Protocol):
    """A place for the files of an encoded data set. It can be pickled; every process has its own copy.

    A shard is done when its file is there. Files have the names of [`EncodingPlan.file`].

    Attributes:
        shards_a_commit (`int`): How many shards of a process appear together.
    """

    shards_a_commit: int

    def begin(self, job: Mapping[str, Any]) -> None:
        """Called by the main process before anything is encoded: refuses a place where another job's shards or anything
        else lies ([`check_same_job`]), else keeps the job there as `job.json`, and removes what killed runs have left.
        """

    def done(self) -> set[str]:
        """The names of the shards' files that are there. The main process asks once, before anything is encoded, and after
        its end."""

    def partial(self, name: str) -> Path:
        """Where this process writes a shard's file before it is put in place."""

    def put(self, name: str, path: Path) -> None:
        """Takes over the whole file of a shard from where it was written, in one step; its place may be taken already by the
        same bytes."""

    def close(self) -> None:
        """Called by every process that has put shards, when it has encoded its last one or has failed."""

    def manifest(self) -> Manifest | None:
        """The manifest, where there is one."""

    def files(self, names: Iterable[str]) -> list[ShardFile]:
        """What is known of the shards' files; called by the main process when all are there."""

    def finish(self, manifest: Manifest) -> None:
        """Called by the main process at the end: writes the card ([`~hf_colearn.teachers.encoded.card.card`]) and last
        `manifest.json`."""


def check_same_job(found: Mapping[str, Any], job: Mapping[str, Any], place: str) -> None:
    """Refuses another job than the one that was found, naming what differs."""
    if found.get("job") == job["job"]:
        return
    before, now = _flat(found), _flat(job)
    differ = [key for key in now | before if key != "job" and before.get(key) != now.get(key)]
    shown = "; ".join(f"{key} {_shown(before.get(key))} there, {_shown(now.get(key))} here" for key in differ[:3])
    raise ValueError(
        f"'{place}' holds the shards of another job ({shown}): pass another output, or remove it to encode anew."
    )


def _flat(job: Mapping[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in job.items():
        flat |= (
            {f"{key}.{name}": inner for name, inner in value.items()} if isinstance(value, Mapping) else {key: value}
        )
    return flat


def _shown(value: Any) -> str:
    return repr(value) if len(repr(value)) <= 60 else repr(value)[:60] + "..."


class FolderOutput:
    """A folder. Of several machines' processes, one that all of them see.

    A file is written beside its place and renamed. Files of killed processes are removed by the next run on their machine,
    and by one on another machine after a day.

    Args:
        folder (`str` or `Path`): Made if it is not there.

    Raises:
        ValueError: If it is a file.
    """

    shards_a_commit = 1

    def __init__(self, folder: str | os.PathLike):
        check_path("output", folder)
        self.folder = Path(folder)
        if self.folder.exists() and not self.folder.is_dir():
            raise ValueError(f"output='{folder}' is a file: pass a folder.")

    def begin(self, job: Mapping[str, Any]) -> None:
        with told(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            there = sorted(path.name for path in self.folder.iterdir() if not path.name.startswith("."))
            if JOB in there:
                check_same_job(json.loads((self.folder / JOB).read_text(encoding="utf-8")), job, str(self.folder))
            elif there:
                raise ValueError(
                    f"the folder '{self.folder}' holds '{there[0]}', which is of no encoding: pass a folder of its own."
                )
            else:
                self._write(JOB, json.dumps(job, indent=1, default=str))
        self._sweep()

    def _sweep(self) -> None:
        for path in self.folder.glob(f".*{_PARTIAL}"):
            with suppress(OSError):  # gone in the meantime
                *_, host, process, _ = path.name.rsplit("~", 3)
                is_here = host == _host()
                if (is_here and not _is_alive(int(process))) or time.time() - path.stat().st_mtime > _ABANDONED_S:
                    path.unlink()

    def done(self) -> set[str]:
        return {path.name for path in self.folder.glob("data-*.parquet")}

    def partial(self, name: str) -> Path:
        return self.folder / f".{name}~{_host()}~{os.getpid()}~{_PARTIAL}"

    def put(self, name: str, path: Path) -> None:
        with open(path, "rb+") as file:
            os.fsync(file.fileno())  # or a crash of the machine could leave the name without the bytes
        os.replace(path, self.folder / name)

    def close(self) -> None:
        pass

    def manifest(self) -> Manifest | None:
        return Manifest.read(self.folder) if (self.folder / MANIFEST).is_file() else None

    def files(self, names: Iterable[str]) -> list[ShardFile]:
        return [self._file(self.folder / name) for name in names]

    def _file(self, path: Path) -> ShardFile:
        record = ShardRecord.from_footer(pq.read_metadata(path).metadata, str(path))
        with open(path, "rb") as file:
            return ShardFile(record, path.name, path.stat().st_size, sha_fileobj(file).hex())

    def finish(self, manifest: Manifest) -> None:
        with told(self.folder):
            self._write(CARD, card(manifest))
            self._write(MANIFEST, manifest.as_json())
        self._sweep()  # of workers that a cluster has replaced

    def _write(self, name: str, text: str) -> None:
        partial = self.partial(name)
        partial.write_text(text, encoding="utf-8")
        self.put(name, partial)


class told:
    """A full disk, or a folder that cannot be written, in plain words."""

    def __init__(self, folder: Path):
        self.folder = folder

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if not isinstance(error, OSError):
            return
        if error.errno in _DISK_ERRORS:
            why = (
                f"the disk under '{self.folder}' is full ({error.strerror}): free some space, and repeat the command; "
            )
            raise OSError(error.errno, f"{why}shards that are done are not encoded again") from error
        if isinstance(error, (PermissionError, NotADirectoryError)) or error.errno == errno.EROFS:
            why = f"the folder '{self.folder}' cannot be written ({error.strerror}): pass another output"
            raise OSError(error.errno, why) from error


def _host() -> str:
    return socket.gethostname().replace("~", "-").replace("/", "-")


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # of another user
        pass
    return True
