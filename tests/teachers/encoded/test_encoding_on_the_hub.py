"""Encoding into a dataset repository, with the real client against the Hub double; one child process does it all.

Five shards, two a commit: a whole run makes one commit of the job, three of shards, one of card and manifest.
"""

import json

import pytest

import tiny_encoding
from hub_double import LOSE, HubDouble, Response, fault_on, run_child


BUSY = Response(503, b"", {"Retry-After": "0"})
WHOLE = ["What is encoded", *(f"Shards {a}" for a in ("0 to 1", "2 to 3", "4")), "Card and manifest"]
CHILD = """
import json, shutil, sys
from pathlib import Path
from datasets import load_dataset
from huggingface_hub import HfApi
from hf_colearn import FrozenEncoder, LatentColumn
from hf_colearn.teachers.encoded.hub_output import HubOutput
from hf_colearn.teachers.encoded.job import Part, encode_dataset, encode_source
from hf_colearn.teachers.encoded.manifest import Manifest
from hf_colearn.teachers.encoded.plan import EncodingOptions
from hf_colearn.teachers.encoded.source import Source

SOURCE, TEACHER, FOLDER = "{source}", FrozenEncoder.from_pretrained("{teacher}"), "{folder}"
found = {{}}

def encode(name, dtype="float16", waiting="waiting", part=None, **options):
    options = {{"shards_a_commit": 2, "attempts": 2, **options}}
    try:
        output = HubOutput(f"tester/{{name}}", Path(waiting, name), **options)
        source = Source.open(SOURCE)
        encode_source(source, TEACHER, EncodingOptions("text", dtype=dtype), output, part, show_progress=False)
    except Exception as error:
        found.setdefault(name, []).append([type(error).__name__, str(error)])
    else:
        found.setdefault(name, []).append(["done", ""])

encode_dataset(SOURCE, TEACHER, "text", FOLDER, dtype="float16", show_progress=False)
encode("whole", private=True, licence="mit")
encode("whole")
encode("whole", dtype="int8")
for name in ("down", "lost", "conflict"):
    encode(name)
encode("down")
encode("parts", waiting="one", part=Part(0, 2))
encode("parts", waiting="two", part=Part(1, 2))
HfApi().create_repo("tester/public", repo_type="dataset")
encode("public", private=True)
HfApi().upload_file(path_or_fileobj=b"", path_in_repo="data.csv", repo_id="tester/public", repo_type="dataset")
encode("public")
rows = list(load_dataset("tester/whole", split="train", streaming=True))
here = list(load_dataset(FOLDER, split="train", streaming=True))
bank = LatentColumn.of("tester/whole")
print(json.dumps({{"found": found, "rows": len(rows), "same": rows == here, "dim": bank.dim,
                   "left": [str(path) for path in Path("waiting").rglob("*.parquet")]}}))
"""


@pytest.fixture(scope="module")
def hub():
    with HubDouble() as hub:
        yield hub


@pytest.fixture(scope="module")
def encoded(hub, tmp_path_factory):
    """What the child found, and the folder that it has encoded into."""
    root = tmp_path_factory.mktemp("hub")
    source, teacher = tiny_encoding.write_source(root / "source", 5), tiny_encoding.write_teacher(root / "teacher")
    another = fault_on("/commit/", Response(409, b"", {"Retry-After": "0"}), first=2, last=2)
    meanwhile = fault_on("/commit/", Response(412, b"", {"Retry-After": "0"}), first=4, last=4)
    of_commits = {
        "down": fault_on("/commit/", BUSY, first=3, last=4),  # both attempts at shards 2 and 3
        "lost": fault_on("/commit/", LOSE, first=2, last=2),
        "conflict": lambda method, path: another(method, path) or meanwhile(method, path),
    }

    def fault(method, path):
        name = next((name for name in of_commits if f"tester/{name}/" in path), None)
        return None if name is None else of_commits[name](method, path)

    hub.fault = fault
    script = CHILD.format(source=source, teacher=teacher, folder=root / "folder")
    answer = run_child(script, hub, root / "home")
    hub.fault = None
    assert hub.unhandled == []
    return answer, tiny_encoding.contents(root / "folder")


def titles(hub, name):
    """Of the commits, with a shard's number in the place of its file's name."""
    commits = hub.repos["dataset", f"tester/{name}"].commits[1:]
    return [commit.title.replace("data-0000", "").replace("-of-00005.parquet", "") for commit in commits]


def files(hub, name):
    return hub.files(f"tester/{name}", "dataset")


def told(encoded, name):
    return encoded[0]["found"][name]


def without_card(files):
    return {name: data for name, data in files.items() if name != "README.md"}


def test_a_repository_holds_what_a_folder_does_and_is_read_as_a_stream(hub, encoded):
    answer, folder = encoded
    assert told(encoded, "whole")[:2] == [["done", ""]] * 2 and titles(hub, "whole") == WHOLE
    assert without_card(files(hub, "whole")) == without_card(folder)
    assert hub.repos["dataset", "tester/whole"].private
    card = files(hub, "whole")["README.md"].decode()
    assert "license: mit" in card and 'load_dataset("tester/whole"' in card and "path: data-*.parquet" in card
    assert (answer["rows"], answer["same"], answer["dim"], answer["left"]) == (20, True, 16, [])


def test_another_job_and_other_data_and_another_visibility_are_refused(hub, encoded):
    kind, message = told(encoded, "whole")[2]
    assert (
        kind == "ValueError"
        and "'tester/whole' holds the shards of another job (dtype 'float16' there, 'int8'" in message
    )
    (kind, message), (kind_2, message_2) = told(encoded, "public")
    assert kind == "PublishError" and "'tester/public' exists and is public, not private as asked for" in message
    assert kind_2 == "ValueError" and "holds 'data.csv', which is of no encoding" in message_2
    assert set(files(hub, "public")) == {"data.csv"}


def test_a_commit_that_fails_is_told_and_a_repeat_sends_nothing_twice(hub, encoded):
    (kind, message), again = told(encoded, "down")
    assert kind == "PublishError" and "503 to POST /api/datasets/tester/down/commit/main" in message
    assert "Encoded shards stay in 'waiting/down'; repeated, this goes on where it stopped." in message
    assert again == ["done", ""] and titles(hub, "down") == WHOLE
    assert without_card(files(hub, "down")) == without_card(encoded[1])


@pytest.mark.parametrize("name", ["lost", "conflict"])
def test_commits_are_made_once_though(name, hub, encoded):
    assert told(encoded, name) == [["done", ""]] and titles(hub, name) == WHOLE
    assert without_card(files(hub, name)) == without_card(encoded[1])


def test_no_bytes_were_sent_twice(hub, encoded):
    sent = [path for method, path in hub.requests if method == "PUT"]
    repositories = 5  # to each of which the double has every object sent
    assert len(sent) == 5 * repositories


def test_machines_share_the_shards_and_the_last_one_reads_what_the_others_wrote(hub, encoded):
    assert told(encoded, "parts") == [["done", ""]] * 2
    # Of shards 0, 2 and 4, and of 1 and 3; two a commit.
    assert titles(hub, "parts") == [WHOLE[0], "Shards 0 to 2", "Shards 4", "Shards 1 to 3", WHOLE[-1]]
    assert without_card(files(hub, "parts")) == without_card(encoded[1])
    assert json.loads(files(hub, "parts")["manifest.json"])["rows"] == 20
