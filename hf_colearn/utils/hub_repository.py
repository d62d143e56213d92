"""A repository that is written to: requests that are repeated while the Hub is busy, and what its refusals mean.

`huggingface_hub` repeats uploads of large files itself; other requests, and uploads that arrived damaged, are repeated here.
"""

import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

from huggingface_hub import CommitOperationAdd, HfApi, get_session, get_token, is_offline_mode
from huggingface_hub.errors import HfHubHTTPError, HTTPError
from huggingface_hub.utils import parse_ratelimit_headers
from transformers.utils import logging


logger = logging.get_logger(__name__)

PASSING = (408, 412, 429, 500, 502, 503, 504)  # 412: somebody else has committed meanwhile
LONGEST_WAIT_S = 60.0

T = TypeVar("T")


class PublishError(RuntimeError):
    """The Hub did not take what was published: why, and what to do."""


class _Damaged(Exception):
    """A file did not arrive as it had been hashed."""


RETRIED = (HTTPError, _Damaged, json.JSONDecodeError)


def given_token(token: str | None) -> str:
    """The access token that is given, or the one of `hf auth login` or `HF_TOKEN`."""
    token = token or get_token()
    if token is None:
        raise PublishError("There is no access token: run `hf auth login`, or set HF_TOKEN to one that may write.")
    return token


def check_online() -> None:
    if is_offline_mode():
        raise PublishError("HF_HUB_OFFLINE is set, and publishing needs the Hub: unset it and repeat.")


@dataclass(frozen=True)
class HubRepository:
    """Where files go, and how often a request is tried.

    Args:
        api ([`~huggingface_hub.HfApi`]): With the access token.
        repo_id (`str`): `owner/name`.
        revision (`str`): The branch.
        attempts (`int`): How often a request is made that meets an error of the server or of the connection, with pauses of
            1, 2, 4, ... seconds.
        timeout_s (`float`): Seconds without an answer until a request counts as failed.
        repo_type (`str`, *optional*, defaults to `"model"`): Or `"dataset"`.
        repeat (`str`, *optional*): Ends an error: what is left of the work, and what a repeat does.
    """

    api: HfApi
    repo_id: str
    revision: str
    attempts: int
    timeout_s: float
    repo_type: str = "model"
    repeat: str = "The local folder is as it was; repeated, this goes on where it stopped."

    def with_retries(self, step: Callable[[], T], passing: Sequence[int] = PASSING, attempt: int = 1) -> T:
        """The step's result, after as many attempts as it needs and may have; `passing` are the statuses that pass."""
        session = get_session()  # another one after a failed connection; without a limit of its own
        session.timeout, unlimited = self.timeout_s, session.timeout
        try:
            return step()
        except RETRIED as error:
            if attempt == self.attempts or _status(error) not in (None, *passing):
                raise
            wait_s = _wait_s(error, attempt)
            logger.warning(f"{_event(error)}: attempt {attempt + 1} of {self.attempts} in {wait_s:g} s")
        finally:
            session.timeout = unlimited
        time.sleep(wait_s)
        return self.with_retries(step, passing, attempt + 1)

    @contextmanager
    def told(self) -> Iterator[None]:
        """What the Hub refuses for good as a [`PublishError`], with the reason and the way out."""
        try:
            yield
        except RETRIED as error:
            raise PublishError(f"{self.reason(error)} {self.repeat}") from error

    def make(self, private: bool | None) -> None:
        """Makes the repository and its branch where they are not there; refuses one of another visibility than asked for."""
        self.api.create_repo(self.repo_id, repo_type=self.repo_type, private=private, exist_ok=True)
        there = self.api.repo_info(self.repo_id, repo_type=self.repo_type, timeout=self.timeout_s)
        if private is not None and there.private != private:
            kinds = {True: "private", False: "public"}
            raise PublishError(
                f"'{self.repo_id}' exists and is {kinds[bool(there.private)]}, not {kinds[private]} as asked for; nothing was "
                "sent. Change that on its settings page, or choose another name."
            )
        if self.revision != "main":
            self.api.create_branch(self.repo_id, branch=self.revision, repo_type=self.repo_type, exist_ok=True)

    def send_large(self, additions: Sequence[CommitOperationAdd]) -> None:
        """Uploads the large files of a commit that is still to be made, without those that are there."""
        try:
            self.api.preupload_lfs_files(
                self.repo_id, additions, repo_type=self.repo_type, revision=self.revision, free_memory=False
            )
        except (HTTPError, OSError, RuntimeError, ValueError) as error:  # the client has made its own attempts
            if isinstance(error, RuntimeError) and _status(error) in (400, 403):
                raise _Damaged(
                    f"{error} It was refused with {_status(error)}: it changed while it was sent, or was damaged on the way."
                ) from error
            raise PublishError(f"{self.reason(error)} {self.repeat}") from error

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
