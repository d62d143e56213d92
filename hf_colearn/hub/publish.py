"""Publishing a finished run: files are uploaded first and appear in one atomic commit, however often it is tried.

`huggingface_hub` repeats uploads of large files itself; other requests, and uploads that arrived damaged, are repeated here.
"""

import json
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeVar

from huggingface_hub import (
    CommitInfo,
    CommitOperationAdd,
    CommitOperationDelete,
    HfApi,
    ModelCard,
    get_session,
    get_token,
    is_offline_mode,
)
from huggingface_hub.errors import HfHubHTTPError, HTTPError, RepositoryNotFoundError
from huggingface_hub.utils import parse_ratelimit_headers
from transformers.utils import logging

from hf_colearn.hub.upload_manifest import UNSAFE, Files, UploadManifest, holds_token, upload_manifest
from hf_colearn.utils.hub_names import check_branch, check_repo_id


logger = logging.get_logger(__name__)

PASSING = (408, 412, 429, 500, 502, 503, 504)  # 412: somebody else has committed meanwhile
LONGEST_WAIT_S = 60.0
# What a loader could read in the place of what is published now.
OUTDATED = (".jinja", ".json", ".model", ".py", ".safetensors", ".txt", *UNSAFE)
OUTDATED_FOLDERS = ("adapter", "base", "report")
_HOLDS_TOKEN = "'{name}' holds an access token: remove it, and revoke it if others can read the file."
REPEAT = "The local folder is as it was; repeated, this goes on where it stopped."

T = TypeVar("T")


class PublishError(RuntimeError):
    """The Hub did not take what was published: why, and what to do."""


class _Damaged(Exception):
    """A file did not arrive as it had been hashed."""


RETRIED = (HTTPError, _Damaged, json.JSONDecodeError)


@dataclass(frozen=True)
class Published:
    """What [`publish`] has made: the repository's page, the id of its commit, the paths of its files; what of the folder it
    left out, and what else differs from the folder.
    """

    url: str
    commit: str
    files: tuple[str, ...]
    left_out: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def publish(
    run: str | Path,
    repo_id: str,
    *,
    private: bool | None = None,
    token: str | None = None,
    revision: str | None = None,
    adapter: bool = False,
    base: str | None = None,
    attempts: int = 5,
    timeout_s: float = 60.0,
) -> Published:
    """Publishes a finished run's student with its card and report, a saved model or an adapter, in one atomic commit.

    The folder is checked first, and never written to; [`planned`] tells what would be sent. Of a folder that
    `trainer.save_model()` or a checkpoint left, what only training needs stays here: its heads, pickled arguments, states
    and checkpoints. A card that is missing is written of what the folder knows. Large files that the Hub has already are
    not sent again. The commit also deletes what an earlier one left and a loader could read instead (weights, code, JSON,
    vocabularies, the folders `adapter`, `base` and `report`); other files of the repository, such as a licence, stay.

    Args:
        run (`str` or `Path`): A run with `student` or `model` in it, or the folder of any saved model, or of an adapter.
        repo_id (`str`): `owner/name` of the model repository, which is made if it is not there.
        private (`bool`, *optional*): Whether it must be private; by default the owner's setting decides for a new one.
        token (`str`, *optional*): With the right to write; by default the one of `hf auth login` or `HF_TOKEN`.
        revision (`str`, *optional*, defaults to `"main"`): A branch, which is made if it is not there.
        adapter (`bool`, *optional*, defaults to `False`): Publish the LoRA adapter of a run alone, as a PEFT repository.
        base (`str`, *optional*): Of an adapter: the repository of its base model.
        attempts (`int`, *optional*, defaults to 5): How often a request is made that meets an error of the server or of
            the connection, with pauses of 1, 2, 4, ... seconds.
        timeout_s (`float`, *optional*, defaults to 60): Seconds without an answer until a request counts as failed.

    Raises:
        FileNotFoundError, ValueError: If the folder is incomplete or holds what must not be published; nothing was sent.
        PublishError: Saying what the Hub or the network refused, and the way out. It can be repeated.
    """
    if attempts < 1:
        raise ValueError(f"attempts={attempts} must be at least 1.")
    with planned(run, repo_id, revision=revision, adapter=adapter, base=base) as manifest:
        if manifest.refused:
            raise ValueError(f"'{run}' is not published as it is: {'; '.join(manifest.refused)}. Then repeat.")
        token = token or get_token()
        if token is None:
            raise PublishError("There is no access token: run `hf auth login`, or set HF_TOKEN to one that may write.")
        files = manifest.files | {"README.md": manifest.card.encode()}
        if (name := holds_token(files, token)) is not None:
            raise ValueError(_HOLDS_TOKEN.format(name=name))
        if is_offline_mode():
            raise PublishError("HF_HUB_OFFLINE is set, and publishing needs the Hub: unset it and repeat.")

        api = HfApi(token=token, library_name="hf_colearn")
        repository = _Repository(api, repo_id, revision or "main", attempts, timeout_s)
        try:
            repository.with_retries(lambda: repository.prepare(manifest, private))
            commit = repository.with_retries(lambda: repository.upload(files))
        except RETRIED as error:
            raise PublishError(f"{repository.reason(error)} {REPEAT}") from error
    others = (tuple(manifest.left_out), tuple(manifest.notes))
    return Published(f"{api.endpoint}/{repo_id}", commit.oid, tuple(sorted(files)), *others)


@contextmanager
def planned(
    run: str | Path, repo_id: str, *, revision: str | None = None, adapter: bool = False, base: str | None = None
) -> Iterator[UploadManifest]:
    """What [`publish`] would send, without a token and the network; within, the files that it has to write exist.

    The arguments are those of [`publish`], which are checked.
    """
    check_repo_id(repo_id)
    check_branch("main" if revision is None else revision)
    if base is not None:
        check_repo_id(base, "base", with_owner=False)
        if not adapter and not (Path(run) / "adapter_config.json").is_file():
            raise ValueError(f"base='{base}' names an adapter's base model: set adapter=True (--adapter), or drop it.")
    with TemporaryDirectory() as scratch:
        manifest = upload_manifest(Path(run), repo_id, Path(scratch), adapter, base)
        if not manifest.refused and (name := holds_token(manifest.files, None)) is not None:
            manifest.refused.append(_HOLDS_TOKEN.format(name=name).rstrip("."))
        yield manifest


def dry_run(manifest: UploadManifest, repo_id: str, private: bool | None = None, revision: str | None = None) -> str:
    """A manifest in words: repository, visibility, branch, every file with its size, what is left out and refused."""
    files: Files = manifest.files | ({"README.md": manifest.card.encode()} if manifest.card else {})
    sizes = {
        name: len(source) if isinstance(source, bytes) else source.stat().st_size for name, source in files.items()
    }
    visibility = "private" if private else "as the owner's settings say, or as it is where it exists"
    lines = [
        "Nothing is sent: this is what `hf-colearn publish` would do.",
        f"Repository: {repo_id}, of a model",
        f"Visibility: {visibility}",
        f"Revision:   {revision or 'main'}",
        f"Files:      {len(files)}, {sum(sizes.values()):,} bytes together",
        *(f"  {sizes[name]:>15,}  {name}" for name in sorted(files)),
    ]
    for title, told in (("Left out, of the training:", manifest.left_out), ("Note:", manifest.notes)):
        lines += [title, *(f"  {text}" for text in told)] if told else []
    if manifest.refused:
        lines += ["Refused, so that nothing would be sent:", *(f"  {text}" for text in manifest.refused)]
    return "\n".join(lines)


@dataclass(frozen=True)
class _Repository:
    """Where the files go, and how often a request is tried."""

    api: HfApi
    repo_id: str
    revision: str
    attempts: int
    timeout_s: float

    def with_retries(self, step: Callable[[], T], attempt: int = 1) -> T:
        """The step's result, after as many attempts as it needs and may have."""
        session = get_session()  # another one after a failed connection; without a limit of its own
        session.timeout, unlimited = self.timeout_s, session.timeout
        try:
            return step()
        except RETRIED as error:
            if attempt == self.attempts or _status(error) not in (None, *PASSING):
                raise
            wait_s = _wait_s(error, attempt)
            logger.warning(f"{_event(error)}: attempt {attempt + 1} of {self.attempts} in {wait_s:g} s")
        finally:
            session.timeout = unlimited
        time.sleep(wait_s)
        return self.with_retries(step, attempt + 1)

    def prepare(self, manifest: UploadManifest, private: bool | None) -> None:
        """Has the card validated, and the repository and its branch made."""
        try:
            ModelCard(manifest.card).validate()
        except json.JSONDecodeError:
            raise
        except ValueError as error:
            raise PublishError(f"The Hub does not take the card's metadata: {error}. Mend README.md.") from error
        self.api.create_repo(self.repo_id, private=private, exist_ok=True)
        if manifest.base is not None:
            try:
                self.api.model_info(manifest.base, timeout=self.timeout_s)
            except RepositoryNotFoundError as error:
                raise PublishError(
                    f"The base model '{manifest.base}' is not on the Hub: publish it first, or name another base."
                ) from error
        there = self.api.model_info(self.repo_id, timeout=self.timeout_s)
        if private is not None and there.private != private:
            kinds = {True: "private", False: "public"}
            raise PublishError(
                f"'{self.repo_id}' exists and is {kinds[bool(there.private)]}, not {kinds[private]} as asked for; nothing was "
                "sent. Change that on its settings page, or choose another name."
            )
        if self.revision != "main":
            self.api.create_branch(self.repo_id, branch=self.revision, exist_ok=True)

    def upload(self, files: dict[str, Path | bytes]) -> CommitInfo:
        """Uploads what the Hub lacks, and commits it on the state that it was compared with."""
        head = self.api.model_info(self.repo_id, revision=self.revision, timeout=self.timeout_s)
        there = [file.rfilename for file in head.siblings]
        additions = [CommitOperationAdd(path, source) for path, source in files.items()]
        try:
            self.api.preupload_lfs_files(self.repo_id, additions, revision=self.revision, free_memory=False)
        except (HTTPError, OSError, RuntimeError, ValueError) as error:  # the client has made its own attempts
            if isinstance(error, RuntimeError) and _status(error) in (400, 403):
                raise _Damaged(
                    f"{error} It was refused with {_status(error)}: it changed while it was sent, or was damaged on the way."
                ) from error
            raise PublishError(f"{self.reason(error)} {REPEAT}") from error
        return self.api.create_commit(
            self.repo_id,
            [*additions, *(CommitOperationDelete(path) for path in _outdated(there, files))],
            commit_message="Publish with hf_colearn",
            revision=self.revision,
            parent_commit=head.sha,
        )

    def reason(self, error: Exception) -> str:
        """What an error means, and the way out."""
        status, owner = _status(error), self.repo_id.split("/")[0]
        if status == 401:
            return "The Hub refused the access token (401): run `hf auth login` again, or set HF_TOKEN to a valid one."
        if status == 403 or isinstance(error, PermissionError):
            return (
                f"The access token may not write to '{self.repo_id}' ({_event(error)}): use a token of '{owner}' that has the "
                "right to write."
            )
        if status in (404, 409):
            return f"'{self.repo_id}' is taken, and this access token cannot see it ({status}): choose another name."
        if isinstance(error, _Damaged):
            return str(error)
        if status in PASSING or isinstance(error, json.JSONDecodeError):
            return f"The Hub does not manage it now ({_event(error)}): wait a while."
        cause = _cause(error)
        if isinstance(cause, HfHubHTTPError):
            return f"The Hub refused it ({_event(error)}: {' '.join((cause.server_message or 'no reason given').split())})."
        if isinstance(cause, HTTPError):
            return (
                f"There is no connection to {self.api.endpoint} ({_event(error)}): check the network and HF_ENDPOINT."
            )
        # Xet reports a refusal and a lost connection by the same exception.
        return f"The upload failed ({_event(error)}): check the network, and that the access token may write."


def _outdated(there: Iterable[str], files: Iterable[str]) -> list[str]:
    """What an earlier commit left that a loader could read in place of these files."""
    folders = {*OUTDATED_FOLDERS, *(path.split("/")[0] for path in files if "/" in path)}
    gone = sorted(set(there) - set(files))
    return [path for path in gone if (path.split("/")[0] in folders if "/" in path else path.endswith(OUTDATED))]


def _cause(error: BaseException) -> BaseException:
    """What happened to a file; the client wraps that in a RuntimeError with the file's name."""
    return error.__cause__ if isinstance(error, RuntimeError) and error.__cause__ is not None else error


def _status(error: BaseException) -> int | None:
    cause = _cause(error)
    return cause.response.status_code if isinstance(cause, HfHubHTTPError) else None


def _event(error: BaseException) -> str:
    """An error in a few words, without the query of a presigned URL."""
    if isinstance(error, json.JSONDecodeError):
        return "an answer that is not JSON"
    if isinstance(error, HfHubHTTPError):
        return f"{error.response.status_code} to {error.response.request.method} {error.response.request.url.path}"
    if _cause(error) is not error:
        return f"{error} {_event(_cause(error))}"
    return f"{type(error).__name__}: {error}"


def _wait_s(error: Exception, attempt: int) -> float:
    """Twice as long from attempt to attempt, or what the Hub asks for, in seconds."""
    wait_s = 2.0 ** (attempt - 1)
    if isinstance(error, HfHubHTTPError):
        limit, after = parse_ratelimit_headers(error.response.headers), error.response.headers.get("Retry-After", "")
        if limit is not None and limit.remaining == 0:
            wait_s = limit.reset_in_seconds + 1.0
        elif after.isdigit():
            wait_s = float(after)
    return min(wait_s, LONGEST_WAIT_S)
