"""A dataset repository on the Hub as the output of an encoding: shards are kept in a folder until a commit has them.

The Hub limits the commits of an hour, so that one takes several shards. Whatever stops a run, what the repository has or the
folder still holds is not encoded again, and what a commit had is not sent again.
"""

import json
import os
import shutil
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import pyarrow.parquet as pq
from huggingface_hub import CommitOperationAdd, HfApi, HfFileSystem, constants
from huggingface_hub.hf_api import RepoFile
from tqdm.contrib.concurrent import thread_map

from hf_colearn.teachers.encoded.card import card
from hf_colearn.teachers.encoded.manifest import (
    CARD,
    JOB,
    MANIFEST,
    METADATA_KEY,
    Manifest,
    ShardFile,
    ShardRecord,
)
from hf_colearn.teachers.encoded.outputs import FolderOutput, check_same_job
from hf_colearn.utils.checks import check_integer
from hf_colearn.utils.hub_names import check_branch, check_repo_id
from hf_colearn.utils.hub_repository import PASSING, HubRepository, PublishError, check_online, given_token


T = TypeVar("T")

_BUSY = 409  # somebody else's commit is being made
_OF_THE_HUB = (".gitattributes", CARD)  # may lie in a repository that holds no data yet
_FOOTER_BYTES = 64 * 1024  # of a Parquet file's end, which are read at once
_READERS = 8


class HubOutput:
    """A dataset repository, which several processes may write to: each commits the shards that it has encoded, and repeats a
    commit that another one was in the way of.

    Args:
        repo_id (`str`): `owner/name`, which is made if it is not there.
        folder (`str`, *optional*): Where shards wait, of this repository alone; below `HF_HOME/colearn/encoded` by default.
        private (`bool`, *optional*): Whether it must be private; by default the owner's setting decides for a new one.
        token (`str`, *optional*): With the right to write; by default the one of `hf auth login` or `HF_TOKEN`.
        revision (`str`, *optional*, defaults to `"main"`): A branch, which is made if it is not there.
        licence (`str`, *optional*): Of the data with their latents, for the card.
        shards_a_commit (`int`, *optional*, defaults to 16): How many shards wait for one another.
        attempts (`int`, *optional*, defaults to 8): How often a request is made that meets an error of the server, of the
            connection or another commit, with pauses of 1, 2, 4, ... seconds, 60 at most.
        timeout_s (`float`, *optional*, defaults to 60): Seconds without an answer until a request counts as failed.

    Raises:
        ValueError: If a name is none.
        PublishError: Saying what the Hub or the network refuses, and the way out. It can be repeated.
    """

    def __init__(
        self,
        repo_id: str,
        folder: str | os.PathLike | None = None,
        private: bool | None = None,
        token: str | None = None,
        revision: str = "main",
        licence: str | None = None,
        shards_a_commit: int = 16,
        attempts: int = 8,
        timeout_s: float = 60.0,
    ):
        check_repo_id(repo_id, "output")
        check_branch(revision)
        check_integer("shards_a_commit", shards_a_commit, least=1)
        token = given_token(token)
        check_online()
        self.private, self.token, self.licence, self.shards_a_commit = private, token, licence, shards_a_commit
        of_repository = f"{repo_id}@{revision}".replace("/", "--")
        self.waiting = FolderOutput(folder or Path(constants.HF_HOME, "colearn", "encoded", of_repository))
        self._mine: list[str] = []  # put by this process, not yet committed
        self.repository = HubRepository(
            HfApi(token=token, library_name="hf_colearn"),
            repo_id,
            revision,
            attempts,
            timeout_s,
            repo_type="dataset",
            repeat=f"Encoded shards stay in '{self.waiting.folder}'; repeated, this goes on where it stopped.",
        )

    # ---- before anything is encoded ----
    def begin(self, job: Mapping[str, Any]) -> None:
        self._ask(lambda: self.repository.make(self.private))
        there = self._listed()
        if JOB in there:
            check_same_job(json.loads(self._ask(lambda: self._download(JOB))), job, self.repository.repo_id)
        elif other := sorted(set(there) - set(_OF_THE_HUB)):
            raise ValueError(
                f"the repository '{self.repository.repo_id}' holds '{other[0]}', which is of no encoding: pass one of its own."
            )
        self._begin_waiting(job)
        if JOB not in there:
            self._commit({JOB: json.dumps(job, indent=1, default=str).encode()}, "What is encoded")
        left = sorted(self.waiting.done())  # by a run that was stopped
        for start in range(0, len(left), self.shards_a_commit):
            self._commit_shards(left[start : start + self.shards_a_commit])

    def _begin_waiting(self, job: Mapping[str, Any]) -> None:
        """Makes the folder of waiting shards, or empties that of another job, whose repository is gone."""
        kept = self.waiting.folder / JOB
        if kept.is_file() and json.loads(kept.read_text(encoding="utf-8")).get("job") != job["job"]:
            shutil.rmtree(self.waiting.folder)
        self.waiting.begin(job)

    def done(self) -> set[str]:
        return {name for name in self._listed() if name.startswith("data-")}

    # ---- shards ----
    def partial(self, name: str) -> Path:
        return self.waiting.partial(name)

    def put(self, name: str, path: Path) -> None:
        self.waiting.put(name, path)
        self._mine.append(name)
        if len(self._mine) == self.shards_a_commit:
            self.close()

    def close(self) -> None:
        if self._mine:
            self._commit_shards(self._mine)
            self._mine = []

    def _commit_shards(self, names: list[str]) -> None:
        """Commits shards that wait, and keeps what their footers say."""
        waiting = {name: self.waiting.folder / name for name in names}
        self._commit(waiting, f"Shards {names[0]}" + (f" to {names[-1]}" if len(names) > 1 else ""))
        for name, path in waiting.items():
            text = pq.read_metadata(path).metadata[METADATA_KEY.encode()]
            self._kept_footer(name).write_bytes(text)
            path.unlink()

    def _kept_footer(self, name: str) -> Path:
        return self.waiting.folder / f".{name}.json"

    # ---- the end ----
    def manifest(self) -> Manifest | None:
        repository = self.repository
        if MANIFEST not in self._listed():
            return None
        return self._ask(lambda: Manifest.read(repository.repo_id, repository.revision, self.token))

    def files(self, names: Iterable[str]) -> list[ShardFile]:
        there = self._listed()

        def of(name: str) -> ShardFile:
            file, kept = there[name], self._kept_footer(name)
            if not kept.is_file():  # encoded on another machine, or before the cache was emptied
                kept.write_bytes(self._ask(lambda: self._footer(name, file.size)))
            record = ShardRecord.from_footer({METADATA_KEY.encode(): kept.read_bytes()}, name)
            return ShardFile(record, name, file.size, file.lfs.sha256)

        return thread_map(of, list(names), max_workers=_READERS, desc="Reading footers", disable=None, leave=False)

    def finish(self, manifest: Manifest) -> None:
        texts = {CARD: card(manifest, self.repository.repo_id, self.licence), MANIFEST: manifest.as_json()}
        self._commit({name: text.encode() for name, text in texts.items()}, "Card and manifest")
        shutil.rmtree(self.waiting.folder)

    # ---- the repository ----
    def _ask(self, request: Callable[[], T]) -> T:
        with self.repository.told():
            return self.repository.with_retries(request, passing=(*PASSING, _BUSY))

    @property
    def _where(self) -> dict[str, Any]:
        return {"repo_id": self.repository.repo_id, "repo_type": "dataset", "revision": self.repository.revision}

    def _listed(self) -> dict[str, RepoFile]:
        api = self.repository.api
        entries = self._ask(lambda: list(api.list_repo_tree(**self._where)))
        return {entry.path: entry for entry in entries if isinstance(entry, RepoFile)}

    def _commit(self, files: Mapping[str, Path | bytes], message: str) -> None:
        """Commits files; the client leaves out those that are there, as after a commit whose answer was lost."""
        api = self.repository.api

        def step() -> None:
            additions = [CommitOperationAdd(name, content) for name, content in files.items()]
            self.repository.send_large(additions)
            api.create_commit(operations=additions, commit_message=message, **self._where)

        self._ask(step)

    def _download(self, name: str) -> str:
        path = self.repository.api.hf_hub_download(filename=name, **self._where)
        return Path(path).read_text(encoding="utf-8")

    def _footer(self, name: str, size: int) -> bytes:
        """What a shard says of itself; the end of its file is all that is read."""
        path = f"datasets/{self.repository.repo_id}@{self.repository.revision}/{name}"
        with HfFileSystem(token=self.token).open(path, block_size=_FOOTER_BYTES, size=size) as file:
            metadata = pq.read_metadata(file).metadata
        if METADATA_KEY.encode() not in metadata:
            raise PublishError(
                f"'{name}' in '{self.repository.repo_id}' is no shard of `hf-colearn encode`: remove it."
            )
        return metadata[METADATA_KEY.encode()]
