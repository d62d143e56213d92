"""Encodings that are killed at any point: nothing is lost but the shard that was encoded, and nothing else is encoded again."""

import random
import time
from pathlib import Path

import pytest

import processes
import tiny_encoding


SCRIPT = processes.TESTS / "scripts" / "encode_shards.py"
SHARDS, KILLS = 200, 20


class Encoding:
    """`hf-colearn encode` of one source into a folder of its own."""

    def __init__(self, source, teacher, folder):
        folder.mkdir()
        self.folder, self.output, self.log = folder, folder / "output", folder / "log"
        self.options = [source, "--teacher", teacher, "--column", "text", "--output", self.output, "--dtype", "int8"]

    def start(self, environments=({},)):
        self.log.write_text("")
        return [
            processes.started(
                SCRIPT,
                self.log,
                *self.options,
                folder=self.folder,
                output=self.folder / str(i),
                environment=environment,
            )
            for i, environment in enumerate(environments)
        ]

    def complete(self):
        (process,) = self.start()
        process.join(120)
        assert process.exitcode == 0, Path(self.folder, "0.err").read_text()

    def noted(self, what="encode"):
        """The shards of these lines of the log, in order."""
        lines = [line.split() for line in self.log.read_text().splitlines()]
        return [int(shard) for event, shard in lines if event == what]

    def done(self):
        return {int(path.name[5:10]) for path in self.output.glob("data-*.parquet")}

    def wait_for(self, lines, process, timeout_s=60):
        """Until the log has as many lines."""
        deadline = time.monotonic() + timeout_s
        while self.log.read_text().count("\n") < lines:
            assert process.is_alive() and time.monotonic() < deadline, Path(self.folder, "0.err").read_text()
            time.sleep(0.0005)


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    return tiny_encoding.write_teacher(tmp_path_factory.mktemp("teacher"))


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return tiny_encoding.write_source(tmp_path_factory.mktemp("data") / "source", SHARDS)


def undisturbed(source, teacher, folder, shards):
    encoding = Encoding(source, teacher, folder)
    encoding.complete()
    assert encoding.noted() == list(range(shards))
    return tiny_encoding.contents(encoding.output)


def test_killed_20_times_the_files_are_those_of_an_undisturbed_run(source, teacher, tmp_path):
    draw, source = random.Random(0), source / "*.parquet"
    expected = undisturbed(source, teacher, tmp_path / "undisturbed", SHARDS)
    encoding = Encoding(source, teacher, tmp_path / "run")
    seen_in_the_middle = 0
    for _ in range(KILLS):
        before = encoding.done()
        (process,) = encoding.start()
        encoding.wait_for(draw.randint(0, 20), process)  # three lines a shard
        time.sleep(draw.uniform(0, 0.004))  # somewhere between two lines
        process.kill()
        process.join()
        encoded, after = encoding.noted(), encoding.done()
        assert before.isdisjoint(encoded) and len(encoded) == len(set(encoded))
        lost = set(encoded) - after
        assert len(lost) <= 1 and after - before == set(encoded) - lost
        seen_in_the_middle += len(lost)
        whole = {name: data for name, data in tiny_encoding.contents(encoding.output).items() if name[:5] == "data-"}
        assert whole.items() <= expected.items()
    assert 5 <= seen_in_the_middle <= KILLS and "manifest.json" not in tiny_encoding.contents(encoding.output)

    before = encoding.done()
    encoding.complete()
    assert encoding.noted() == sorted(set(range(SHARDS)) - before)
    assert tiny_encoding.contents(encoding.output) == expected


def test_of_two_processes_the_other_finishes_its_share_and_one_completes_the_rest(source, teacher, tmp_path):
    source = source / "part-0[0-3]*.parquet"
    encoding = Encoding(source, teacher, tmp_path / "run")
    other, killed = encoding.start(processes.of_torchrun(2))
    encoding.wait_for(6, killed)
    killed.kill()
    other.join(60)
    assert other.exitcode not in (0, None)  # its partner did not come to the end
    encoded, done, share = encoding.noted(), encoding.done(), set(range(0, 40, 2))
    assert share <= done and len(done) < 40
    assert len(set(encoded) - done) <= 1 and len(encoded) == len(set(encoded))

    encoding.complete()
    assert encoding.noted() == sorted(set(range(40)) - done)
    expected = undisturbed(source, teacher, tmp_path / "undisturbed", 40)
    assert tiny_encoding.contents(encoding.output) == expected
