"""Publishing with the real client against the Hub double: whole at once or not at all, whatever goes wrong.

One child process publishes for all tests: it takes an order a line, and answers with what `publish` returned or raised.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import save_file
from transformers import AutoModelForImageClassification

import families
import tiny
from hf_colearn.hub.publish import PublishError, publish
from hf_colearn.models.lora import save_student, with_lora
from hub_double import DROP, LOSE, Blob, Commit, HubDouble, Response, fault_on, hub_env


TOKEN = "hf_SecretSecretSecretSecretSecretSecr"  # of a real one's form
RETRY_NOW = {"Retry-After": "0"}
CARD = """---
license: apache-2.0
library_name: transformers
---

# Digits

```python
model = AutoModelForImageClassification.from_pretrained("somewhere/runs/digits/student")
base = AutoModelForImageClassification.from_pretrained("somewhere/runs/digits/student/base")
```
"""
CARD_AT_THE_HUB = """---
license: apache-2.0
library_name: transformers
---

# Digits

```python
model = AutoModelForImageClassification.from_pretrained("tester/whole")
base = AutoModelForImageClassification.from_pretrained("tester/whole", subfolder="base")
```
"""

PUBLISHER = """
import dataclasses, json, os, signal, sys, traceback
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job is started with it ignored
from huggingface_hub import constants
from hf_colearn.hub.publish import publish

answers, sys.stdout = sys.stdout, sys.stderr
for line in sys.stdin:
    order = json.loads(line)
    settings = {name: getattr(constants, name) for name in order["settings"]}
    for name, value in order["settings"].items():
        setattr(constants, name, value)
    token = os.environ.pop("HF_TOKEN") if order["logged_out"] else None
    try:
        answer = dataclasses.asdict(publish(**order["publish"]))
    except BaseException as error:
        traceback.print_exc()
        answer = {"error": type(error).__name__, "message": str(error)}
    if token is not None:
        os.environ["HF_TOKEN"] = token
    for name, value in settings.items():
        setattr(constants, name, value)
    print(json.dumps(answer), file=answers, flush=True)
"""


class Publisher:
    """Publishes in a process that sees only this Hub."""

    def __init__(self, hub, home):
        home.mkdir()
        self.hub, self.log = hub, home / "stderr"
        self.process = subprocess.Popen(
            [sys.executable, "-c", PUBLISHER],
            env=hub_env(hub, home),
            cwd=home,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.log.open("w"),
            text=True,
        )

    def __call__(self, run, repo, fault=None, settings=(), logged_out=False, **options):
        """What `publish` returned or raised, and what it said meanwhile; the fault is over afterwards."""
        before, self.hub.fault = len(self.log.read_text()), fault
        order = {"publish": {"run": str(run), "repo_id": repo, **options}, "settings": dict(settings)}
        print(json.dumps(order | {"logged_out": logged_out}), file=self.process.stdin, flush=True)
        line = self.process.stdout.readline()
        assert line, self.log.read_text()
        self.hub.fault = None
        answer = {"error": None, "message": None, **json.loads(line)}
        return SimpleNamespace(**answer, said=self.log.read_text()[before:])


@pytest.fixture(scope="module")
def hub():
    with HubDouble(token=TOKEN) as hub:
        yield hub


@pytest.fixture(scope="module")
def published(hub, tmp_path_factory):
    publisher = Publisher(hub, tmp_path_factory.mktemp("publisher") / "home")
    yield publisher
    publisher.process.stdin.close()
    assert publisher.process.wait(60) == 0


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished run: a real student in five shards, its card, and a report."""
    run = tmp_path_factory.mktemp("runs") / "digits"
    tiny.student().save_pretrained(run / "student", max_shard_size="15KB")
    (run / "student" / "README.md").write_text(CARD)
    (run / "student" / "colearning.json").write_text('{"seed": 0}')
    (run / "figures").mkdir()
    (run / "figures" / "alpha.png").write_bytes(b"\x89PNG picture")
    for page in ("report.html", "report.md", "report.json"):
        (run / page).write_text("{}")
    (run / "baseline" / "seed-0").mkdir(parents=True)
    (run / "baseline" / "seed-0" / "optimizer.pt").write_bytes(b"not a part of what is published")
    return run


@pytest.fixture
def run(finished, hub, tmp_path):
    """A copy of it, which is the same after the test as before."""
    run = tmp_path / "digits"
    shutil.copytree(finished, run)
    yield run
    assert contents(run) == contents(finished)
    assert hub.unhandled == []


def contents(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def expected(run, repo):
    """What the repository holds in the end: the student, and the report below `report/`."""
    files = contents(run / "student")
    files["README.md"] = CARD_AT_THE_HUB.replace("tester/whole", repo).encode()
    pages = ("report.html", "report.md", "report.json", "figures/alpha.png")
    return files | {f"report/{page}": (run / page).read_bytes() for page in pages}


def commits(hub, repo):
    """How many there are beside the one that a new repository has."""
    return len(hub.repos["model", repo].commits) - 1


def uploads(hub):
    return [path for method, path in hub.requests if method == "PUT"]


# ---- whole


def test_a_run_appears_in_one_commit_and_again_in_none(hub, published, run):
    before = len(uploads(hub))
    made = published(run, "tester/whole", private=True)
    assert made.error is None, made.said
    assert hub.files("tester/whole") == expected(run, "tester/whole")
    assert (made.url, made.commit) == (f"{hub.url}/tester/whole", hub.repos["model", "tester/whole"].branches["main"])
    assert made.files == sorted(expected(run, "tester/whole"))
    assert hub.repos["model", "tester/whole"].private and commits(hub, "tester/whole") == 1
    sent = len(uploads(hub)) - before
    assert sent == len(list((run / "student").glob("*.safetensors"))) + 1  # and the picture

    again = published(run, "tester/whole")
    assert (again.error, again.commit) == (None, made.commit)
    assert commits(hub, "tester/whole") == 1 and len(uploads(hub)) - before == sent


def test_what_a_loader_could_read_instead_goes_with_the_same_commit_and_the_rest_stays(hub, published, run, tmp_path):
    assert published(run, "tester/again").error is None
    repo = hub.repos["model", "tester/again"]
    head = repo.at("main")
    others = {
        ".gitattributes": b"",
        "LICENSE": b"",
        "picture.svg": b"",
        "runs/events": b"",
        "checkpoint-2/optimizer.pt": b"",
    }
    stale = {"training_args.bin": b"", "adapter/adapter_config.json": b"", "preprocessor_config.json": b"{}"}
    added = {path: Blob(data, lfs=False) for path, data in (others | stale).items()}
    repo.commits.append(Commit.after(head.oid, "by somebody else", head.files | added))
    repo.branches["main"] = repo.commits[-1].oid

    bare = tmp_path / "bare"  # the same student in one piece, without a report
    tiny.student().save_pretrained(bare)
    (bare / "README.md").write_text(CARD)
    assert published(bare, "tester/again").error is None
    assert hub.files("tester/again") == contents(bare) | others
    assert commits(hub, "tester/again") == 3


def test_a_revision_is_a_branch_and_main_stays(hub, published, run):
    made = published(run, "tester/branch", revision="v1")
    assert made.error is None, made.said
    assert hub.files("tester/branch", revision="v1") == expected(run, "tester/branch")
    assert hub.files("tester/branch") == {}


def test_a_folder_of_save_model_is_published_as_a_student_that_loads(hub, published, tmp_path):
    folder = tmp_path / "mine"
    student = tiny.student(training_heads={"probe": {"out_features": 500}})
    student.save_pretrained(folder, max_shard_size="15KB")
    torch.save({"a": 1}, folder / "training_args.bin")
    (folder / "checkpoint-2").mkdir()
    torch.save({"a": 1}, folder / "checkpoint-2" / "optimizer.pt")
    before = contents(folder)
    made = published(folder, "tester/saved")
    assert made.error is None, made.said
    assert made.left_out == ["checkpoint-2/", "training_args.bin"]
    assert any("the training heads 'probe' are left out" in note for note in made.notes)
    files = hub.files("tester/saved")
    assert not [name for name in files if name.endswith((".bin", ".pt"))] and contents(folder) == before
    assert not [name for name, data in files.items() if name.endswith("safetensors") and b"training_heads" in data]
    back = tmp_path / "back"
    back.mkdir()
    for name, data in files.items():
        (back / name).write_bytes(data)
    loaded, expected = AutoModelForImageClassification.from_pretrained(back), student.without_training_heads()
    assert loaded.config.training_heads == {} and loaded.state_dict().keys() == expected.state_dict().keys()
    assert all(torch.equal(weight, expected.state_dict()[name]) for name, weight in loaded.state_dict().items())
    assert 'from_pretrained("tester/saved")' in files["README.md"].decode()


# ---- faults that pass


BUSY = Response(503, b"<html>busy</html>", RETRY_NOW)
LIMITED = Response(429, b"", {"RateLimit": '"api";r=0;t=0'})
PASSING = {
    "a card that cannot be validated at once": (fault_on("validate-yaml", BUSY, last=1), 1),
    "a repository that is not made at once": (fault_on("repos/create", BUSY, last=2), 2),
    "a rate limit": (fault_on("GET /api/models", LIMITED, last=1), 1),
    "an upload that is not answered at first": (fault_on("/preupload/", BUSY, last=1), 0),
    "an upload that is cut in its middle": (fault_on("PUT", DROP, first=2, last=2), 0),
    "an upload that meets a broken storage": (fault_on("PUT", Response(500, b"", RETRY_NOW), last=2), 0),
    "an upload that is damaged": (fault_on("PUT", Response.error(400, "BadDigest", "wrong"), last=1), 1),
    "a commit that is refused": (fault_on("/commit/", BUSY, last=1), 1),
    "a commit that does not arrive": (fault_on("/commit/", DROP, last=1), 1),
    "a commit whose answer is lost": (fault_on("/commit/", LOSE, last=1), 1),
    "a commit that is slow": (fault_on("/commit/", None, last=1, wait_s=0.8), 1),
    "a question that is slow": (fault_on("GET /api/models", DROP, last=1, wait_s=0.8), 1),
}


@pytest.mark.parametrize("fault", PASSING)
def test_the_repository_is_complete_after(fault, hub, published, run):
    happens, own_attempts = PASSING[fault]
    repo = "tester/" + fault.replace(" ", "-")
    made = published(run, repo, fault=happens, timeout_s=0.5)
    assert made.error is None, made.said
    assert hub.files(repo) == expected(run, repo)
    assert commits(hub, repo) == 1
    assert made.commit == hub.repos["model", repo].branches["main"]
    # One line a pause; those of uploads are the client's own.
    assert [f"attempt {n} of 5 in" in made.said for n in (2, 3, 4)] == [own_attempts >= 1, own_attempts >= 2, False]
    assert TOKEN not in made.said


def test_somebody_elses_commit_meanwhile_is_kept_and_compared_with(hub, published, run):
    def meanwhile(method, path):
        if "/commit/" in path and commits(hub, "tester/race") == 0:
            repo = hub.repos["model", "tester/race"]
            files = {"LICENSE": Blob(b"free", lfs=False), "model.safetensors": Blob(b"stale", lfs=False)}
            repo.commits.append(Commit.after(repo.branches["main"], "theirs", files))
            repo.branches["main"] = repo.commits[-1].oid

    made = published(run, "tester/race", fault=meanwhile)
    assert made.error is None, made.said
    assert hub.files("tester/race") == expected(run, "tester/race") | {"LICENSE": b"free"}
    assert "412" in made.said


def test_a_file_that_changes_while_it_is_sent_is_sent_as_it_is_then(hub, published, tmp_path):
    folder = tmp_path / "student"
    tiny.student(seed=0).save_pretrained(folder)
    (folder / "README.md").write_text(CARD)

    def trains_on(method, path):
        if path.endswith("/objects/batch") and "changed" not in trains_on.__dict__:  # hashed, not yet sent
            trains_on.changed = tiny.student(seed=1).save_pretrained(folder)

    made = published(folder, "tester/changing", fault=trains_on)
    assert made.error is None, made.said
    assert hub.files("tester/changing")["model.safetensors"] == (folder / "model.safetensors").read_bytes()
    assert "model.safetensors" in made.said and "attempt 2 of 5" in made.said


# ---- faults that do not, and what a repeat makes of them


def gives_up(published, hub, run, repo, **options):
    """Publishes, which fails with nothing to be seen in the repository. Returns the error's message."""
    made = published(run, repo, **options)
    assert made.error == "PublishError", made
    assert "\n" not in made.message and TOKEN not in made.said
    assert ("model", repo) not in hub.repos or hub.files(repo) == {}
    return made.message


def completes(published, hub, run, repo, **options):
    made = published(run, repo, **options)
    assert made.error is None, made.said
    assert hub.files(repo) == expected(run, repo)


def test_a_server_that_stays_down_is_named_and_a_repeat_completes(hub, published, run):
    sent = len(uploads(hub))
    message = gives_up(published, hub, run, "tester/down", fault=fault_on("/commit/", BUSY), attempts=2)
    assert "503 to POST /api/models/tester/down/commit/main" in message and "The local folder is as it was" in message
    completes(published, hub, run, "tester/down")
    assert len(set(uploads(hub)[sent:])) == len(uploads(hub)[sent:])


def test_an_upload_that_never_succeeds_is_tried_by_the_client_alone_and_names_the_file(hub, published, run):
    fault = fault_on("PUT .*", Response(503, b"", RETRY_NOW))
    before = len(uploads(hub))
    message = gives_up(published, hub, run, "tester/full", fault=fault)
    assert re.search(r"Error while uploading '.+(safetensors|png)' to the Hub. 503 to PUT /lfs/\w+\)", message), (
        message
    )
    assert max(uploads(hub)[before:].count(path) for path in uploads(hub)[before:]) == 6  # as huggingface_hub does
    completes(published, hub, run, "tester/full")


def test_a_file_that_always_arrives_damaged_is_named(hub, published, run):
    fault = fault_on("PUT", Response.error(400, "BadDigest", "wrong"))
    message = gives_up(published, hub, run, "tester/damaged", fault=fault, attempts=2)
    assert "Error while uploading '" in message and "refused with 400" in message
    completes(published, hub, run, "tester/damaged")


def test_a_token_refused_in_the_middle_ends_it_at_once_and_a_repeat_sends_what_is_missing(hub, published, run):
    before = len(hub.requests)
    fault = fault_on("PUT", Response.error(401, "Unauthorized", "expired"), first=3)
    message = gives_up(published, hub, run, "tester/half", fault=fault)
    assert "(401)" in message and "hf auth login" in message
    assert not any("/commit/" in path for _, path in hub.requests[before:])
    first = [path for method, path in hub.requests[before:] if method == "PUT"]
    completes(published, hub, run, "tester/half")
    second = [path for method, path in hub.requests[before:] if method == "PUT"][len(first) :]
    arrived = set(first[:2])  # the Hub answered the later ones with 401
    assert set(second).isdisjoint(arrived) and len(second) == len(set(second))
    assert {path.removeprefix("/lfs/") for path in arrived | set(second)} == {
        blob.content_id for blob in hub.repos["model", "tester/half"].at("main").files.values() if blob.lfs
    }


def test_a_token_revoked_before_the_commit_and_a_new_one(hub, published, run):
    renewed = "hf_RenewedRenewedRenewedRenewedRenewe"

    def revoke(method, path):
        if "/commit/" in path:
            hub.token = renewed

    try:
        message = gives_up(published, hub, run, "tester/revoked", fault=revoke)
        assert "(401)" in message
        assert hub.requests.count(("GET", "/api/models/tester/revoked/revision/main")) == 1  # no second attempt
        before = len(uploads(hub))
        completes(published, hub, run, "tester/revoked", token=renewed)
        assert len(uploads(hub)) == before
    finally:
        hub.token = TOKEN
    assert renewed not in published.log.read_text()


def test_an_interrupted_publish_goes_on_where_it_stopped(hub, published, run):
    def interrupt(method, path):  # uploads come in parallel: the count may pass 2 before one of them is here
        if method == "PUT" and len(uploads(hub)) >= before + 2 and not interrupted:
            interrupted.append(path)
            os.kill(published.process.pid, signal.SIGINT)

    before, interrupted = len(uploads(hub)), []
    made = published(run, "tester/interrupted", fault=interrupt)
    assert made.error == "KeyboardInterrupt"
    assert hub.files("tester/interrupted") == {}
    completes(published, hub, run, "tester/interrupted")
    assert len(set(uploads(hub)[before:])) == len(uploads(hub)[before:])  # nothing was sent twice


def test_a_refusal_is_passed_on_at_once_with_its_reason(hub, published, run):
    fault = fault_on("/commit/", Response.error(413, "TooLarge", "This repository\nis full"), last=1)
    message = gives_up(published, hub, run, "tester/refusing", fault=fault)
    assert "413 to POST /api/models/tester/refusing/commit/main: This repository is full" in message
    completes(published, hub, run, "tester/refusing")


def test_an_upload_that_xet_gives_up_is_explained(hub, published, run):
    fault = fault_on("/xet-write-token/", Response.error(403, "Forbidden", "read-only"))
    settings = {"HF_HUB_DISABLE_XET": False}
    message = gives_up(published, hub, run, "tester/xet", fault=fault, settings=settings)
    assert "The upload failed" in message and "403" in message and "that the access token may write" in message
    completes(published, hub, run, "tester/xet")


def test_no_network(hub, published, run):
    settings = {"ENDPOINT": "http://127.0.0.1:9"}  # nobody listens there
    message = gives_up(published, hub, run, "tester/nowhere", settings=settings, attempts=2)
    assert "There is no connection to http://127.0.0.1:9" in message and "check the network" in message


# ---- who may


def test_a_missing_and_a_wrong_token(hub, published, run):
    before = len(hub.requests)
    message = gives_up(published, hub, run, "tester/nobody", logged_out=True)
    assert "There is no access token: run `hf auth login`, or set HF_TOKEN" in message
    assert hub.requests[before:] == []
    message = gives_up(published, hub, run, "tester/nobody", token="hf_wrong")
    assert "The Hub refused the access token (401)" in message and "hf_wrong" not in message


def test_a_name_of_somebody_else(hub, published, run):
    message = gives_up(published, hub, run, "somebody/else")
    assert "may not write to 'somebody/else' (403" in message and "a token of 'somebody'" in message
    taken = Response.json({"error": "taken", "url": f"{hub.url}/tester/hidden"}, status=409)
    message = gives_up(published, hub, run, "tester/hidden", fault=fault_on("repos/create", taken))
    assert "'tester/hidden' is taken" in message and "choose another name" in message


def test_a_public_repository_is_not_taken_for_a_private_one(hub, published, run, tmp_path):
    assert published(run, "tester/public").error is None
    before = hub.files("tester/public")
    made = published(run, "tester/public", private=True)
    assert made.error == "PublishError"
    assert "exists and is public, not private as asked for; nothing was sent" in made.message
    assert hub.files("tester/public") == before and not hub.repos["model", "tester/public"].private


# ---- adapters


def test_an_adapter_names_its_base_model(hub, published, tmp_path):
    run = tmp_path / "lora"
    torch.manual_seed(0)
    save_student(with_lora(families.student("resnet"), rank=2), None, run / "student")
    for folder in ("", "adapter"):
        card = f'---\nlicense: mit\nbase_model: {run}\n---\nPeftModel.from_pretrained(base, "{run}/student/adapter")\n'
        (run / "student" / folder / "README.md").write_text(card)
    before = contents(run)

    with pytest.raises(ValueError, match="student/base' is no repository but a local base model.*publish the base"):
        publish(run, "tester/adapter", adapter=True)
    missing = published(run, "tester/adapter", adapter=True, base="tester/base")
    assert missing.error == "PublishError" and "The base model 'tester/base' is not on the Hub" in missing.message

    whole = published(run, "tester/base")
    assert whole.error is None, whole.said
    config = json.loads(hub.files("tester/base")["adapter/adapter_config.json"])
    assert config["base_model_name_or_path"] == "tester/base/base"  # beside it, and no folder of this machine
    assert (
        b'PeftModel.from_pretrained(base, "tester/base", subfolder="adapter")' in hub.files("tester/base")["README.md"]
    )

    made = published(run, "tester/adapter", adapter=True, base="tester/base")
    assert made.error is None, made.said
    files = hub.files("tester/adapter")
    assert sorted(files) == ["README.md", "adapter_config.json", "adapter_model.safetensors"]
    assert json.loads(files["adapter_config.json"])["base_model_name_or_path"] == "tester/base"
    assert (
        b"base_model: tester/base\n" in files["README.md"] and b"base_model_relation: adapter\n" in files["README.md"]
    )
    assert contents(run) == before


# ---- what is not published; this process is offline, and the folder is looked at before that is said


def refused(run, **options):
    with pytest.raises((ValueError, FileNotFoundError)) as caught:
        publish(run, "tester/refused", token=TOKEN, **options)
    return str(caught.value)


def test_a_whole_folder_is_refused_offline_only(run):
    with pytest.raises(PublishError, match="HF_HUB_OFFLINE is set"):
        publish(run, "tester/refused", token=TOKEN)


@pytest.mark.parametrize("name", ["arguments.bin", "extra/weights.PT", "model.pkl", "scheduler.pth", "old.ckpt"])
def test_pickles_are_refused_by_their_name(name, tmp_path, finished):
    student = tmp_path / "student"
    shutil.copytree(finished / "student", student)
    (student / name).parent.mkdir(exist_ok=True)
    (student / name).write_bytes(b"")
    assert f"'{name}' may run code" in refused(student)


def test_everything_that_is_unsafe_is_named_at_once(tmp_path, finished):
    run = tmp_path / "digits"
    shutil.copytree(finished, run)
    student = run / "student"
    torch.save({"a": 1}, student / "weights.dat")  # a zip with a pickle in it
    (student / "state").write_bytes(b"\x80\x04K\x01.")  # pickle.dumps(1)
    save_file({"a": torch.zeros(1)}, student / "optimizer.safetensors")
    (student / ".env").write_text("")
    (student / "secret").symlink_to("/etc/hostname")
    (student / "gone").symlink_to("nothing")
    message = refused(run)
    for name in ("weights.dat", "state", "optimizer.safetensors", ".env", "secret", "gone"):
        assert f"'{name}'" in message
    assert message.count(": remove it") == 6 and message.endswith("Then repeat.")

    for name in ("weights.dat", "state", "optimizer.safetensors", ".env", "secret", "gone"):
        (student / name).unlink()
    (student / "inside").symlink_to("config.json")  # a link that stays in the folder is published as a file
    (run / "figures" / "link.png").symlink_to("/etc/hostname")
    assert "'figures/link.png' is a link out of the folder" in refused(run)


@pytest.mark.parametrize("where", ["student/notes.txt", "report.html", "student/README.md", "figures/data.svg"])
@pytest.mark.parametrize("token", [TOKEN, "hf_" + "aB3" * 11 + "x"])  # the one in use, another one
def test_a_token_in_a_file_is_refused_and_not_repeated(where, token, tmp_path, finished):
    run = tmp_path / "digits"
    shutil.copytree(finished, run)
    with (run / where).open("a") as file:
        file.write(f"export HF_TOKEN={token}\n")
    message = refused(run)
    assert "holds an access token" in message and where.split("/")[-1] in message
    assert token not in message


def test_what_is_not_whole_is_refused_with_what_is_missing(tmp_path, finished):
    student = tmp_path / "student"

    def with_(change):
        shutil.rmtree(student, ignore_errors=True)
        shutil.copytree(finished / "student", student)
        change()
        return refused(student)

    def write(name, content):
        return lambda: (student / name).write_text(content)

    shard = sorted(path.name for path in (finished / "student").glob("*.safetensors"))[1]
    assert "has no model.safetensors" in with_((student / "model.safetensors.index.json").unlink)
    assert f"names '{shard}', which is missing" in with_((student / shard).unlink)
    assert "names 'student.py' as the model's code, which is missing" in with_((student / "student.py").unlink)
    assert f"{shard}' is damaged" in with_(lambda: os.truncate(student / shard, 200))
    assert "config.json' is no JSON" in with_(write("config.json", "{"))
    assert "colearning.json' is no JSON" in with_(write("colearning.json", "{"))
    assert "has no metadata" in with_(write("README.md", "# Digits\n"))
    assert "metadata of" in with_(write("README.md", "---\na: [\n---\n"))
    shutil.rmtree(student)
    student.mkdir()
    (student / "checkpoint-7").mkdir()
    assert "there is no student in" in (message := refused(student)) and "checkpoints in it: checkpoint-7" in message


def test_options_that_contradict_each_other(run):
    assert "repo_id='digits' is not of the form 'owner/name'" in str(catch(run, "digits"))
    assert "attempts=0" in str(catch(run, "tester/x", attempts=0))
    assert "base='tester/base'" in str(catch(run, "tester/x", base="tester/base"))
    with pytest.raises(FileNotFoundError, match="only a run with LoRA has an adapter"):
        publish(run, "tester/x", adapter=True)


def catch(run, repo, **options):
    with pytest.raises(ValueError) as caught:
        publish(run, repo, **options)
    return caught.value


def test_no_token_was_ever_shown_or_published(hub, published):
    assert TOKEN not in published.log.read_text()
    for repo in hub.repos.values():
        for commit in repo.commits:
            assert not any(TOKEN.encode() in blob.data for blob in commit.files.values())
