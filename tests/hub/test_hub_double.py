"""The Hub double against the real clients: what they write is what they read back, through known routes only."""

import base64
import hashlib
import http.client
import json
from urllib.parse import urlsplit

import pytest

from hub_double import DROP, LOSE, HubDouble, Response, fault_on, run_child


@pytest.fixture
def hub():
    with HubDouble() as hub:
        yield hub


def ask(hub, method, path, body=None, headers=None):
    """One request over a bare socket. Returns (status, headers, body)."""
    connection = http.client.HTTPConnection("127.0.0.1", urlsplit(hub.url).port, timeout=10)
    try:
        connection.request(method, path, body, headers or {})
        response = connection.getresponse()
        return response.status, response.headers, response.read()
    finally:
        connection.close()


def with_token(hub):
    return {"Authorization": f"Bearer {hub.token}"}


def create_repo(hub, name, **settings):
    assert ask(hub, "POST", "/api/repos/create", json.dumps({"name": name} | settings), with_token(hub))[0] == 200


def commit(hub, name, path, data, **header):
    """Commits one small file to a model's main branch. Returns the status."""
    file = {"path": path, "content": base64.b64encode(data).decode(), "encoding": "base64"}
    lines = [{"key": "header", "value": {"summary": "add"} | header}, {"key": "file", "value": file}]
    body = "\n".join(map(json.dumps, lines))
    return ask(hub, "POST", f"/api/models/tester/{name}/commit/main", body, with_token(hub))[0]


def test_an_unknown_route_answers_404_and_is_recorded(hub):
    status, headers, _ = ask(hub, "GET", "/api/daily_papers?limit=1")

    assert (status, headers["X-Error-Code"]) == (404, "NotHandled")
    assert hub.unhandled == [("GET", "/api/daily_papers")]
    assert hub.requests == [("GET", "/api/daily_papers")]


def test_a_handler_that_raises_is_recorded_and_not_repeated(hub, capsys):
    status, _, _ = ask(hub, "POST", "/api/repos/create", b"not JSON", with_token(hub))

    assert status == 501  # the client repeats 500, 502, 503 and 504 for half a minute
    assert len(hub.unhandled) == 1 and "JSONDecodeError" in hub.unhandled[0][1]
    assert "JSONDecodeError" in capsys.readouterr().err


def test_an_lfs_object_must_hash_to_its_name(hub):
    oid = hashlib.sha256(b"weights").hexdigest()

    assert ask(hub, "PUT", f"/lfs/{oid}?repo=models/tester/a", b"other weights")[0] == 400
    assert ask(hub, "PUT", f"/lfs/{oid}?repo=models/tester/a", b"weights")[0] == 200


def test_a_commit_on_an_outdated_parent_is_refused(hub):
    create_repo(hub, "race")
    (first,) = hub.repos["model", "tester/race"].commits

    assert commit(hub, "race", "a.txt", b"a", parentCommit=first.oid) == 200
    assert commit(hub, "race", "a.txt", b"b", parentCommit=first.oid) == 412
    assert hub.files("tester/race") == {"a.txt": b"a"}
    assert hub.files("tester/race", revision=first.oid) == {}


def test_a_range_is_served_as_asked(hub):
    create_repo(hub, "letters")
    commit(hub, "letters", "a.txt", b"abcd")

    def part(wanted):
        status, headers, body = ask(hub, "GET", "/tester/letters/resolve/main/a.txt", headers={"Range": wanted})
        return status, headers["Content-Range"], body

    assert part("bytes=1-2") == (206, "bytes 1-2/4", b"bc")  # both ends included
    assert part("bytes=3-") == (206, "bytes 3-3/4", b"d")
    assert part("bytes=2-9") == (206, "bytes 2-3/4", b"cd")
    assert part("bytes=4-") == (416, "bytes */4", b"")
    head = hub.repos["model", "tester/letters"].branches["main"]
    status, headers, _ = ask(hub, "HEAD", "/tester/letters/resolve/main/absent.txt")
    assert (status, headers["X-Error-Code"], headers["X-Repo-Commit"]) == (404, "EntryNotFound", head)


def test_who_may_see_a_repo(hub):
    create_repo(hub, "open")
    create_repo(hub, "secret", visibility="private")
    wrong = {"Authorization": "Bearer hf_stolen"}

    def status(repo, headers):
        return ask(hub, "GET", f"/api/models/tester/{repo}", headers=headers)[0]

    assert [status(repo, {}) for repo in ("open", "secret", "missing")] == [200, 401, 401]
    assert [status(repo, with_token(hub)) for repo in ("open", "secret", "missing")] == [200, 200, 404]
    assert [status(repo, wrong) for repo in ("open", "secret", "missing")] == [401, 401, 401]


def test_a_fault_can_drop_a_connection_or_cut_an_answer(hub):
    hub.fault = lambda method, path: DROP
    with pytest.raises(http.client.RemoteDisconnected):
        ask(hub, "GET", "/api/whoami-v2")

    hub.fault = lambda method, path: Response(200, b"half", {"Content-Length": "8"})
    with pytest.raises(http.client.IncompleteRead, match="4 bytes read, 4 more expected"):
        ask(hub, "GET", "/api/whoami-v2")

    hub.fault = None
    assert ask(hub, "GET", "/api/whoami-v2", headers=with_token(hub))[0] == 200


def test_a_fault_meets_the_requests_that_it_is_meant_for(hub):
    hub.fault = fault_on("GET /api/who", Response(503), first=2, last=3)
    answers = [ask(hub, "GET", "/api/whoami-v2", headers=with_token(hub))[0] for _ in range(4)]
    assert answers == [200, 503, 503, 200]
    assert ask(hub, "POST", "/api/validate-yaml", json.dumps({"content": ""}))[0] == 200


def test_a_lost_answer_has_done_its_work_and_a_dropped_request_has_not(hub):
    for fault, made in ((DROP, []), (LOSE, [("model", "tester/lost")])):
        hub.fault = fault_on("POST /api/repos/create", fault)
        with pytest.raises((http.client.RemoteDisconnected, ConnectionResetError)):
            ask(hub, "POST", "/api/repos/create", json.dumps({"name": "lost"}), with_token(hub))
        assert list(hub.repos) == made


def test_a_dropped_upload_is_cut_in_its_middle(hub):
    hub.fault = fault_on("PUT", DROP)
    with pytest.raises(OSError):  # the client is still sending
        ask(hub, "PUT", f"/lfs/{'0' * 64}?repo=models/tester/a", bytes(50_000_000))


def test_nobody_writes_under_another_name(hub):
    assert (
        ask(hub, "POST", "/api/repos/create", json.dumps({"name": "a", "organization": "b"}), with_token(hub))[0]
        == 403
    )
    create_repo(hub, "mine")
    hub.repos["model", "other/theirs"] = hub.repos["model", "tester/mine"]
    hub.repos["model", "other/theirs"].repo_id = "other/theirs"
    body = json.dumps({"files": []})
    assert ask(hub, "POST", "/api/models/other/theirs/preupload/main", body, with_token(hub))[0] == 403


def test_the_client_gets_through_two_503s(hub, tmp_path):
    # 503, 503, then the real answer. Retry-After 0 makes the client wait 1 s each instead of 1 s and 2 s.
    answers = [Response(503, headers={"Retry-After": "0"}), Response(503, headers={"Retry-After": "0"})]

    def fault(method, path):
        return answers.pop() if answers and "/preupload/" in path else None

    hub.fault = fault
    script = """
import json
from huggingface_hub import HfApi

api = HfApi()
api.create_repo("tester/flaky")
api.upload_file(path_or_fileobj=b"{}", path_in_repo="config.json", repo_id="tester/flaky")
print(json.dumps("done"))
"""
    run_child(script, hub, tmp_path)

    assert hub.requests.count(("POST", "/api/models/tester/flaky/preupload/main")) == 3
    assert hub.files("tester/flaky") == {"config.json": b"{}"}
    assert hub.unhandled == []


def test_a_folder_comes_back_as_it_was_uploaded(hub, tmp_path):
    folder, home = tmp_path / "upload", tmp_path / "home"
    files = {
        "README.md": b"---\nlicense: mit\n---\n# A card\n",
        "config.json": b"{}",
        "empty.txt": b"",
        "model.safetensors": bytes(range(256)) * 4096,  # 1 MiB, by LFS
        "logs/run 1/events.txt": "täglich".encode(),
    }
    for path, data in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(data)
    home.mkdir()
    script = f"""
import json
from pathlib import Path
from huggingface_hub import HfApi, HfFileSystem, snapshot_download
from huggingface_hub.errors import RemoteEntryNotFoundError, RepositoryNotFoundError, RevisionNotFoundError

def error_of(call, *args, **kwargs):
    try:
        call(*args, **kwargs)
    except Exception as error:
        return type(error).__name__

api, repo = HfApi(), "tester/student"
api.create_repo(repo)
api.create_repo(repo, exist_ok=True)
upload = api.upload_folder(repo_id=repo, folder_path={str(folder)!r})
again = api.upload_folder(repo_id=repo, folder_path={str(folder)!r})  # nothing has changed: no commit
snapshot = Path(snapshot_download(repo))
api.create_branch(repo, branch="step/10")
api.delete_file("empty.txt", repo, revision="step/10")
api.delete_folder("logs", repo, revision="step/10")
api.create_repo("tester/secret", private=True)
short_lived = api.create_repo("tester/short-lived", repo_type="dataset")
api.delete_repo("tester/short-lived", repo_type="dataset")
print(json.dumps({{
    "snapshot": {{str(f.relative_to(snapshot)): f.read_bytes().hex() for f in snapshot.rglob("*") if f.is_file()}},
    "same_commit": upload.oid == again.oid == api.model_info(repo).sha,
    "top": [entry.path for entry in api.list_repo_tree(repo)],
    "lfs": [f.path for f in api.list_repo_tree(repo, recursive=True) if getattr(f, "lfs", None)],
    "branches": [branch.name for branch in api.list_repo_refs(repo).branches],
    "on_branch": api.list_repo_files(repo, revision="step/10"),
    "urls": [upload.repo_url.repo_id, short_lived.repo_type, short_lived.repo_id],
    "range": HfFileSystem().cat_file(repo + "/model.safetensors", start=255, end=258).hex(),
    "errors": [
        error_of(api.upload_file, path_or_fileobj=b"---\\na: [\\n---\\n", path_in_repo="README.md", repo_id=repo),
        error_of(api.hf_hub_download, repo, "absent.json"),
        error_of(api.hf_hub_download, repo, "config.json", revision="absent"),
        error_of(snapshot_download, "tester/secret", token=False),
        error_of(snapshot_download, "tester/absent"),
    ],
}}))
"""
    result = run_child(script, hub, home)

    assert {path: bytes.fromhex(data) for path, data in result["snapshot"].items()} == files
    assert hub.files("tester/student") == files
    assert result["same_commit"]
    assert result["top"] == ["README.md", "config.json", "empty.txt", "logs", "model.safetensors"]
    assert result["lfs"] == ["model.safetensors"]
    assert result["branches"] == ["main", "step/10"]
    assert result["on_branch"] == ["README.md", "config.json", "model.safetensors"]
    assert result["urls"] == ["tester/student", "dataset", "tester/short-lived"]
    assert result["range"] == "ff0001"  # bytes 255, 256 and 257 of 00 01 ... ff 00 01 ...
    assert result["errors"] == [
        "ValueError",  # invalid YAML in the card
        "RemoteEntryNotFoundError",
        "RevisionNotFoundError",
        "RepositoryNotFoundError",
        "RepositoryNotFoundError",
    ]
    assert sorted(hub.repos) == [("model", "tester/secret"), ("model", "tester/student")]
    assert hub.unhandled == []


def test_a_model_comes_back_with_identical_weights(hub, tmp_path):
    script = """
import hf_colearn  # first: see hf_colearn/utils/torchaudio_guard.py
import json
import torch
from transformers import AutoModel, BertConfig

config = BertConfig(
    vocab_size=32, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32,
    max_position_embeddings=8,
)
model = AutoModel.from_config(config)
model.push_to_hub("tester/tiny-bert")
back = AutoModel.from_pretrained("tester/tiny-bert")
weights, weights_back = model.state_dict(), back.state_dict()
print(json.dumps({
    "class": type(back).__name__,
    "same_names": list(weights) == list(weights_back),
    "same_bits": all(torch.equal(weights[name], weights_back[name]) for name in weights),
}))
"""
    result = run_child(script, hub, tmp_path)

    assert result == {"class": "BertModel", "same_names": True, "same_bits": True}
    assert {"config.json", "model.safetensors"} <= set(hub.files("tester/tiny-bert"))
    assert hub.unhandled == []


def test_datasets_come_back_by_config_and_a_private_one_needs_a_token(hub, tmp_path):
    script = """
import json
from datasets import Dataset, DatasetDict, get_dataset_config_names, load_dataset

speech = Dataset.from_dict({"id": [1, 2], "latent": [[0.5, 1.0], [2.0, -1.0]]})
train, test = Dataset.from_dict({"id": [1], "words": ["eins"]}), Dataset.from_dict({"id": [2], "words": ["zwei"]})
text = DatasetDict(train=train, test=test)
speech.push_to_hub("tester/pairs", "speech")
text.push_to_hub("tester/pairs", "text")
speech.push_to_hub("tester/secret", private=True)
try:
    load_dataset("tester/secret", token=False)
    refused = None
except Exception as error:
    refused = type(error).__name__
print(json.dumps({
    "configs": get_dataset_config_names("tester/pairs"),
    "speech": load_dataset("tester/pairs", "speech", split="train").to_dict(),
    "text": {split: rows.to_dict() for split, rows in load_dataset("tester/pairs", "text").items()},
    "refused": refused,
    "secret": load_dataset("tester/secret", split="train").to_dict(),
}))
"""
    result = run_child(script, hub, tmp_path)

    speech = {"id": [1, 2], "latent": [[0.5, 1.0], [2.0, -1.0]]}
    assert result == {
        "configs": ["speech", "text"],
        "speech": speech,
        "text": {"train": {"id": [1], "words": ["eins"]}, "test": {"id": [2], "words": ["zwei"]}},
        "refused": "DatasetNotFoundError",
        "secret": speech,
    }
    assert hub.repos["dataset", "tester/secret"].private
    assert hub.unhandled == []
