"""A Hub on 127.0.0.1 for tests: the real `huggingface_hub` client talks to it, so nothing of ours has to be mocked.

```python
with HubDouble() as hub:
    run_child("import hf_colearn; ...; model.push_to_hub('tester/student')", hub, home=tmp_path)
    assert "config.json" in hub.files("tester/student")
    assert hub.unhandled == []
```

`HF_ENDPOINT` and its kin are read when a Hugging Face library is imported, so the client runs in a child process that
has them from its first line: `hub_env` gives that environment, `run_child` runs a script in it.

Routes, with `{repo}` = `{models|datasets|spaces}/{owner}/{name}` and `{files}` = `[datasets/|spaces/]{owner}/{name}`:

| method | path | answers |
|---|---|---|
| GET | `/api/whoami-v2` | the one user; 401 without a token |
| POST | `/api/validate-yaml` | 400 for a README whose YAML header does not parse |
| POST, DELETE | `/api/repos/create`, `/api/repos/delete` | 409 if it exists, 404 if it does not; 403 for another owner |
| GET | `/api/{repo}`, `/api/{repo}/revision/{revision}` | repo info: commit, files, private |
| GET | `/api/{repo}/refs` | branches |
| POST | `/api/{repo}/branch/{branch}` | a new branch at `startingPoint` |
| GET | `/api/{repo}/tree/{revision}[/{path}]` | files and folders, `?recursive=true` for all levels |
| POST | `/api/{repo}/paths-info/{revision}` | the same entries for given paths, unknown ones left out |
| POST | `/api/{repo}/preupload/{revision}` | git or LFS for each file, and the id of what is there already |
| POST | `/{files}.git/info/lfs/objects/batch` | where to PUT each LFS object, nothing for one that is there |
| PUT | `/lfs/{sha256}?repo={repo}` | stores the bytes; 400 if they do not hash to that |
| POST | `/api/{repo}/commit/{revision}` | adds and deletes; 412 if `parentCommit` is no longer the head |
| GET, HEAD | `/{files}/resolve/{revision}/{path}` | the bytes, with `Range` |

Whatever else is asked answers 404 and is kept in `HubDouble.unhandled`. Without a token, a private repo answers 401 as
a missing one does; a wrong token is refused everywhere. Unlike the real Hub, a new repo holds no `.gitattributes`, LFS
files are served directly and not by a redirect to a CDN, listings have one page, the only check of a card is that its
YAML parses, and there are no tags, pull requests or Xet storage. The one user writes to repos of its own name alone.
"""

import base64
import hashlib
import itertools
import json
import math
import os
import re
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import yaml

import child_python


LFS_SUFFIXES = (".arrow", ".bin", ".npy", ".parquet", ".png", ".pt", ".pth", ".safetensors", ".tar", ".wav", ".zip")
LFS_ABOVE_BYTES = 10 * 1024 * 1024
DATE = "2026-01-01T00:00:00.000Z"


@dataclass(frozen=True)
class Response:
    """What the server sends. With a `Content-Length` header larger than the body, the connection is cut after it."""

    status: int
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)

    @classmethod
    def json(cls, content: Any, status: int = 200) -> "Response":
        return cls(status, json.dumps(content).encode(), {"Content-Type": "application/json"})

    @classmethod
    def error(cls, status: int, code: str, message: str) -> "Response":
        """An error as the Hub words it: the client picks its exception from the status and `X-Error-Code`."""
        in_header = " ".join(message.encode("ascii", "replace").decode().split())
        headers = {"X-Error-Code": code, "X-Error-Message": in_header, "Content-Type": "application/json"}
        return cls(status, json.dumps({"error": message}).encode(), headers)


DROP = Response(status=0)
"""A fault that closes the connection as soon as the request's headers are there: an upload is cut in its middle."""

LOSE = Response(status=-1)
"""A fault that does what the request asks for, and then closes the connection without an answer."""

Fault = Callable[[str, str], Response | None]
"""Asked with (method, decoded path) before every request, by the request's own thread: a `Response` is sent instead of
the real one, `DROP` and `LOSE` close the connection, `None` lets the request through."""


def fault_on(
    route: str, response: Response | None, first: int = 1, last: float = math.inf, wait_s: float = 0
) -> Fault:
    """A fault that meets some of the requests of a route.

    Args:
        route (`str`): Regular expression that is searched in `"METHOD /path"`.
        response ([`Response`], *optional*): What they get; `None` for the real answer.
        first, last (`int`): The first and the last of the route's requests that it meets, counted from 1.
        wait_s (`float`): Seconds before they get it, for a slow Hub.
    """
    count = itertools.count(1)

    def fault(method: str, path: str) -> Response | None:
        if not re.search(route, f"{method} {path}") or not first <= next(count) <= last:
            return None
        time.sleep(wait_s)
        return response

    return fault


class Refusal(Exception):
    """Ends the handling of a request with `Response.error(status, code, message)`."""

    def __init__(self, status: int, code: str, message: str):
        super().__init__(message)
        self.response = Response.error(status, code, message)


@dataclass(frozen=True)
class Request:
    method: str
    path: str  # still percent-encoded: a revision such as refs%2Fpr%2F1 is one segment
    query: dict[str, str]
    headers: Any
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(frozen=True)
class Blob:
    """A file's bytes. `lfs` decides how the Hub names them: sha256 of the content, or git's sha1."""

    data: bytes
    lfs: bool

    @property
    def content_id(self) -> str:
        """The ETag, and what the client compares with its own file to see whether anything has changed."""
        return sha256(self.data) if self.lfs else git_sha1(self.data)

    def entry(self, path: str) -> dict[str, Any]:
        """The file as `tree` and `paths-info` show it."""
        entry = {"type": "file", "path": path, "size": len(self.data), "oid": git_sha1(self.data)}
        if self.lfs:
            oid, size = self.content_id, len(self.data)
            pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{oid}\nsize {size}\n".encode()
            entry["oid"] = git_sha1(pointer)
            entry["lfs"] = {"oid": oid, "size": size, "pointerSize": len(pointer)}
        return entry


@dataclass(frozen=True)
class Commit:
    oid: str
    title: str
    files: dict[str, Blob]

    @classmethod
    def after(cls, parent_oid: str, title: str, files: dict[str, Blob]) -> "Commit":
        content = [parent_oid, title, sorted((path, blob.content_id) for path, blob in files.items())]
        return cls(hashlib.sha1(json.dumps(content).encode()).hexdigest(), title, files)


@dataclass
class Repo:
    repo_type: str  # "model", "dataset" or "space"
    repo_id: str
    private: bool
    commits: list[Commit]  # of all branches, oldest first
    branches: dict[str, str]  # name -> commit oid

    @property
    def key(self) -> str:
        return f"{self.repo_type}s/{self.repo_id}"

    def at(self, revision: str) -> Commit:
        """The commit of a branch or of an oid."""
        oid = self.branches.get(revision, revision)
        for commit in self.commits:
            if commit.oid == oid:
                return commit
        raise Refusal(404, "RevisionNotFound", f"Invalid rev id: {revision}")


class HubDouble:
    """The Hub, in memory, behind a server that lives as long as the `with` block.

    Args:
        user (`str`): The name that `whoami` gives, and the owner of repos that are created without one.
        token (`str`): The only token that is accepted.

    Attributes:
        url (`str`): Endpoint, `http://127.0.0.1:<port>`.
        repos (`dict[tuple[str, str], Repo]`): By (repo type, repo id), with every commit.
        requests (`list[tuple[str, str]]`): (method, decoded path) of every request, in order of arrival.
        unhandled (`list[tuple[str, str]]`): Those that no route answers, or whose handler raised: a test wants none.
        fault (`Fault`, *optional*): What goes wrong; [`fault_on`] makes one.
    """

    def __init__(self, user: str = "tester", token: str = "hf_double"):
        self.user, self.token, self.url = user, token, ""
        self.repos: dict[tuple[str, str], Repo] = {}
        self.requests: list[tuple[str, str]] = []
        self.unhandled: list[tuple[str, str]] = []
        self.fault: Fault | None = None
        self._lfs_objects: dict[tuple[str, str], bytes] = {}  # by (repo, sha256): each repo has its own
        self._lock = threading.Lock()

        repo = r"(?P<kind>models|datasets|spaces)/(?P<repo_id>[^/]+/[^/]+)"
        files = r"(?:(?P<kind>datasets|spaces)/)?(?P<repo_id>[^/]+/[^/]+)"
        self._routes = [
            ("GET", r"/api/whoami-v2", self._whoami),
            ("POST", r"/api/validate-yaml", self._validate_yaml),
            ("POST", r"/api/repos/create", self._create_repo),
            ("DELETE", r"/api/repos/delete", self._delete_repo),
            ("GET", rf"/api/{repo}(?:/revision/(?P<revision>[^/]+))?", self._repo_info),
            ("GET", rf"/api/{repo}/refs", self._refs),
            ("POST", rf"/api/{repo}/branch/(?P<branch>[^/]+)", self._create_branch),
            ("GET", rf"/api/{repo}/tree/(?P<revision>[^/]+)(?:/(?P<path>.+))?", self._tree),
            ("POST", rf"/api/{repo}/paths-info/(?P<revision>[^/]+)", self._paths_info),
            ("POST", rf"/api/{repo}/preupload/(?P<revision>[^/]+)", self._preupload),
            ("POST", rf"/{files}\.git/info/lfs/objects/batch", self._lfs_batch),
            ("PUT", r"/lfs/(?P<oid>[0-9a-f]{64})", self._lfs_put),
            ("POST", rf"/api/{repo}/commit/(?P<revision>[^/]+)", self._commit),
            ("GET", rf"/{files}/resolve/(?P<revision>[^/]+)/(?P<path>.+)", self._resolve),
            ("HEAD", rf"/{files}/resolve/(?P<revision>[^/]+)/(?P<path>.+)", self._resolve),
        ]

    def __enter__(self) -> "HubDouble":
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler_of(self))
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def files(self, repo_id: str, repo_type: str = "model", revision: str = "main") -> dict[str, bytes]:
        """The bytes of every file of a repo by its path."""
        blobs = self.repos[repo_type, repo_id].at(revision).files
        return {path: blob.data for path, blob in blobs.items()}

    # From a request to its handler

    def fault_of(self, method: str, path: str) -> Response | None:
        """Notes a request, and asks whether something goes wrong with it."""
        self.requests.append((method, path))
        return None if self.fault is None else self.fault(method, path)

    def answer(self, request: Request) -> Response:
        """The response of the first route that fits."""
        try:
            with self._lock:
                return self._route(request)
        except Refusal as refusal:
            return refusal.response
        except Exception as error:  # 501, because the client would repeat a request that gets a 500
            traceback.print_exc()
            self.unhandled.append((request.method, f"{unquote(request.path)}: {error!r}"))
            return Response.error(501, "HubDoubleError", repr(error))

    def _route(self, request: Request) -> Response:
        if request.headers.get("Authorization") not in (None, f"Bearer {self.token}"):
            raise Refusal(401, "Unauthorized", "Invalid credentials in Authorization header")
        for method, pattern, handler in self._routes:
            match = re.fullmatch(pattern, request.path)
            if match and method == request.method:
                values = {name: unquote(value) for name, value in match.groupdict().items() if value is not None}
                if "repo_id" in values:
                    values["repo"] = self._find(request, values.pop("kind", "models"), values.pop("repo_id"))
                return handler(request, **values)
        return self._not_handled(request)

    def _not_handled(self, request: Request) -> Response:
        self.unhandled.append((request.method, unquote(request.path)))
        return Response.error(404, "NotHandled", f"HubDouble has no route for {request.method} {request.path}")

    def _find(self, request: Request, kind: str, repo_id: str) -> Repo:
        """The repo, if the caller may see it. As on the Hub, nobody without a token learns whether a repo exists."""
        repo = self.repos.get((kind.removesuffix("s"), repo_id))
        has_token = "Authorization" in request.headers
        if repo is None or (repo.private and not has_token):
            raise Refusal(404 if has_token else 401, "RepoNotFound", "Repository not found")
        return repo

    def _need_token(self, request: Request, owner: str | None = None) -> None:
        """A request with a token, which is the user's and writes to nobody else's repos."""
        if "Authorization" not in request.headers:
            raise Refusal(401, "Unauthorized", "Invalid username or password.")
        if owner not in (None, self.user):
            raise Refusal(403, "Forbidden", f"You don't have the rights to write under the namespace {owner}")

    # Handlers: the account and its repos

    def _whoami(self, request: Request) -> Response:
        self._need_token(request)
        access = {"accessToken": {"displayName": "tests", "role": "write"}}
        return Response.json({"type": "user", "name": self.user, "orgs": [], "auth": access})

    def _validate_yaml(self, request: Request) -> Response:
        header = re.match(r"\s*---\r?\n(.*?)\r?\n---\s*(?:\n|$)", request.json()["content"], flags=re.DOTALL)
        try:
            yaml.safe_load(header[1] if header else "")
        except yaml.YAMLError as error:
            return Response.json({"errors": [{"message": str(error)}], "warnings": []}, status=400)
        return Response.json({"errors": [], "warnings": []})

    def _create_repo(self, request: Request) -> Response:
        wanted = request.json()
        self._need_token(request, wanted.get("organization"))
        key = self._repo_key(wanted)
        url = self._repo_url(*key)
        if key in self.repos:
            return Response.json({"error": f"You already created this {key[0]} repo", "url": url}, status=409)
        first = Commit.after(f"{key[0]} {key[1]}", "initial commit", {})
        private = wanted.get("visibility") == "private" or wanted.get("private") is True  # huggingface_hub 2 or older
        self.repos[key] = Repo(*key, private=private, commits=[first], branches={"main": first.oid})
        return Response.json({"url": url, "name": key[1], "id": key[1]})

    def _delete_repo(self, request: Request) -> Response:
        self._need_token(request)
        if self.repos.pop(self._repo_key(request.json()), None) is None:
            raise Refusal(404, "RepoNotFound", "Repository not found")
        return Response.json({})

    def _repo_key(self, wanted: dict[str, Any]) -> tuple[str, str]:
        return wanted.get("type") or "model", f"{wanted.get('organization') or self.user}/{wanted['name']}"

    def _repo_url(self, repo_type: str, repo_id: str) -> str:
        return f"{self.url}/{repo_id}" if repo_type == "model" else f"{self.url}/{repo_type}s/{repo_id}"

    def _repo_info(self, request: Request, repo: Repo, revision: str = "main") -> Response:
        commit = repo.at(revision)
        info = {
            "_id": "0",
            "id": repo.repo_id,
            "author": repo.repo_id.split("/")[0],
            "sha": commit.oid,
            "private": repo.private,
            "gated": False,
            "disabled": False,
            "downloads": 0,
            "likes": 0,
            "tags": [],
            "siblings": [{"rfilename": path} for path in sorted(commit.files)],
            "createdAt": DATE,
            "lastModified": DATE,
        }
        return Response.json(info)

    def _refs(self, request: Request, repo: Repo) -> Response:
        branches = [
            {"name": name, "ref": f"refs/heads/{name}", "targetCommit": oid} for name, oid in repo.branches.items()
        ]
        return Response.json({"branches": branches, "converts": [], "tags": [], "pullRequests": []})

    def _create_branch(self, request: Request, repo: Repo, branch: str) -> Response:
        self._need_token(request, repo.repo_id.split("/")[0])
        if branch in repo.branches:
            raise Refusal(409, "Conflict", f"Reference already exists: {branch}")
        repo.branches[branch] = repo.at(request.json().get("startingPoint", "main")).oid
        return Response.json({})

    # Handlers: what is in a repo

    def _tree(self, request: Request, repo: Repo, revision: str, path: str = "") -> Response:
        files = repo.at(revision).files
        prefix = f"{path}/" if path else ""
        below = [file for file in files if file.startswith(prefix)]
        if path and not below:
            raise Refusal(404, "EntryNotFound", f"{path} does not exist on {revision}")
        folders = {str(folder) for file in below for folder in PurePosixPath(file).parents} - {"."}
        paths = sorted(below + [folder for folder in folders if folder.startswith(prefix)])
        if request.query.get("recursive", "").lower() not in ("1", "true"):
            paths = [entry for entry in paths if "/" not in entry.removeprefix(prefix)]
        return Response.json([files[entry].entry(entry) if entry in files else folder_entry(entry) for entry in paths])

    def _paths_info(self, request: Request, repo: Repo, revision: str) -> Response:
        files = repo.at(revision).files
        entries = []
        for path in parse_qs(request.body.decode())["paths"]:
            if path in files:
                entries.append(files[path].entry(path))
            elif any(file.startswith(f"{path}/") for file in files):
                entries.append(folder_entry(path))
        return Response.json(entries)

    def _resolve(self, request: Request, repo: Repo, revision: str, path: str) -> Response:
        commit = repo.at(revision)
        headers = {"X-Repo-Commit": commit.oid, "Accept-Ranges": "bytes", "Content-Type": "application/octet-stream"}
        if path not in commit.files:  # the client remembers that this commit lacks the file
            error = Response.error(404, "EntryNotFound", "Entry not found")
            return Response(404, error.body, error.headers | {"X-Repo-Commit": commit.oid})
        blob = commit.files[path]
        headers["ETag"] = f'"{blob.content_id}"'
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", request.headers.get("Range", ""))
        if wanted is None or request.method == "HEAD":
            return Response(200, blob.data, headers)
        start, size = int(wanted[1]), len(blob.data)
        stop = min(int(wanted[2]) + 1, size) if wanted[2] else size
        if start >= stop:
            return Response(416, b"", {"Content-Range": f"bytes */{size}"})
        return Response(206, blob.data[start:stop], headers | {"Content-Range": f"bytes {start}-{stop - 1}/{size}"})

    # Handlers: an upload, in the client's order

    def _preupload(self, request: Request, repo: Repo, revision: str) -> Response:
        self._need_token(request, repo.repo_id.split("/")[0])
        known = repo.at(revision).files
        answers = []
        for file in request.json()["files"]:
            path = file["path"]
            lfs = path.endswith(LFS_SUFFIXES) or file["size"] > LFS_ABOVE_BYTES
            oid = known[path].content_id if path in known else None
            mode = "lfs" if lfs else "regular"
            answers.append({"path": path, "uploadMode": mode, "shouldIgnore": False, "oid": oid})
        return Response.json({"files": answers})

    def _lfs_batch(self, request: Request, repo: Repo) -> Response:
        self._need_token(request, repo.repo_id.split("/")[0])
        objects = [{"oid": wanted["oid"], "size": wanted["size"]} for wanted in request.json()["objects"]]
        for lfs_object in objects:
            if (repo.key, lfs_object["oid"]) not in self._lfs_objects:
                lfs_object["actions"] = {"upload": {"href": f"{self.url}/lfs/{lfs_object['oid']}?repo={repo.key}"}}
        return Response.json({"transfer": "basic", "objects": objects})

    def _lfs_put(self, request: Request, oid: str) -> Response:
        """No token here: the URL itself is the permission, as with the Hub's presigned ones."""
        if sha256(request.body) != oid:
            raise Refusal(400, "BadDigest", f"The bytes hash to {sha256(request.body)}, the object is {oid}")
        self._lfs_objects[request.query["repo"], oid] = request.body
        return Response(200)

    def _commit(self, request: Request, repo: Repo, revision: str) -> Response:
        self._need_token(request, repo.repo_id.split("/")[0])
        if "create_pr" in request.query:
            return self._not_handled(request)
        if revision not in repo.branches:
            raise Refusal(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        head = repo.at(revision)
        header, *operations = [json.loads(line) for line in request.body.splitlines()]
        if not head.oid.startswith(header["value"].get("parentCommit", "")):
            raise Refusal(412, "PreconditionFailed", "A commit has happened since. Please refresh and try again.")
        files = dict(head.files)
        for operation in operations:
            self._apply(repo, files, operation["key"], operation["value"])
        commit = Commit.after(head.oid, header["value"]["summary"], files)
        repo.commits.append(commit)
        repo.branches[revision] = commit.oid
        url = f"{self._repo_url(repo.repo_type, repo.repo_id)}/commit/{commit.oid}"
        return Response.json({"success": True, "commitOid": commit.oid, "commitUrl": url, "hookOutput": ""})

    def _apply(self, repo: Repo, files: dict[str, Blob], key: str, value: dict[str, Any]) -> None:
        """One line of a commit's body, applied to `files` in place."""
        path = value["path"]
        if key == "file":
            files[path] = Blob(base64.b64decode(value["content"]), lfs=False)
        elif key == "lfsFile":
            if (repo.key, value["oid"]) not in self._lfs_objects:
                raise Refusal(400, "LfsMissing", f"{path} points to {value['oid']}, which was never uploaded")
            files[path] = Blob(self._lfs_objects[repo.key, value["oid"]], lfs=True)
        elif key in ("deletedFile", "deletedFolder"):
            folder = f"{path.rstrip('/')}/"
            gone = [file for file in files if (file == path if key == "deletedFile" else file.startswith(folder))]
            if not gone:
                raise Refusal(404, "EntryNotFound", f"A file with this name doesn't exist: {path}")
            for file in gone:
                del files[file]
        else:
            raise ValueError(f"a commit's operation of an unknown kind: {key!r}")


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def git_sha1(data: bytes) -> str:
    """Git's name for a blob."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def folder_entry(path: str) -> dict[str, Any]:
    return {"type": "directory", "path": path, "size": 0, "oid": hashlib.sha1(path.encode()).hexdigest()}


def _handler_of(hub: HubDouble) -> type[BaseHTTPRequestHandler]:
    """The socket side: reads a request, has the hub answer it, writes the response."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True  # or every answer waits 40 ms for the client's delayed ACK

        def handle_any(self) -> None:
            url = urlsplit(self.path)
            query = {name: values[-1] for name, values in parse_qs(url.query).items()}
            fault = hub.fault_of(self.command, unquote(url.path))
            body = b"" if fault is DROP else self.read_body()
            if fault is None or fault is LOSE:
                response = hub.answer(Request(self.command, url.path, query, self.headers, body))
            self.send(response if fault is None else fault)

        do_DELETE = do_GET = do_HEAD = do_PATCH = do_POST = do_PUT = handle_any

        def read_body(self) -> bytes:
            if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
                return self.rfile.read(int(self.headers.get("Content-Length", 0)))
            chunks = []
            while size := int(self.rfile.readline(), 16):
                chunks.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(chunks)

        def send(self, response: Response) -> None:
            if response is DROP or response is LOSE:
                self.close_connection = True
                return
            headers = {"Content-Length": str(len(response.body))} | response.headers
            self.send_response(response.status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command == "HEAD":
                return
            self.wfile.write(response.body)
            if int(headers["Content-Length"]) > len(response.body):
                self.close_connection = True

        def log_message(self, *args: object) -> None:
            """Silent: `HubDouble.requests` is the log."""

    return Handler


def hub_env(hub: HubDouble, home: str | Path) -> dict[str, str]:
    """The whole environment of a process that shall see this Hub and nothing else of Hugging Face's.

    Args:
        hub ([`HubDouble`]): A running one.
        home (`str` or `Path`): `HF_HOME`, an empty directory: caches must not know an earlier test's port.

    Returns:
        `dict[str, str]`: This process's variables, less its own Hugging Face settings and proxies.
    """
    foreign = ("HF_", "HUGGING", "TRANSFORMERS_", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")
    env = {name: value for name, value in os.environ.items() if not name.upper().startswith(foreign)}
    root = Path(__file__).resolve().parent.parent
    return env | {
        "HF_ENDPOINT": hub.url,
        "HF_TOKEN": hub.token,
        "HF_HOME": str(home),
        "HF_HUB_OFFLINE": "0",
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_UPDATE_CHECK": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
        "NO_PROXY": "127.0.0.1",
        "PYTHONPATH": os.pathsep.join(filter(None, [str(root), str(root / "tests"), env.get("PYTHONPATH", "")])),
    }


def run_child(script: str, hub: HubDouble, home: str | Path, timeout_s: float = 120) -> Any:
    """Runs a script in a child process that sees only this Hub.

    Args:
        script (`str`): Python source; its last line of output must be JSON. It runs in `home`.
        hub ([`HubDouble`]): A running one.
        home (`str` or `Path`): See [`hub_env`].
        timeout_s (`float`): Seconds until the child is killed.

    Returns:
        `Any`: That JSON, decoded.

    Raises:
        AssertionError: If the child fails, with its standard error.
    """
    Path(home).mkdir(parents=True, exist_ok=True)
    child = child_python.run(script, env=hub_env(hub, home), cwd=home, timeout=timeout_s)
    if child.returncode != 0:
        raise AssertionError(f"the child ended with {child.returncode}; unhandled: {hub.unhandled}\n{child.stderr}")
    return json.loads(child.stdout.splitlines()[-1])
