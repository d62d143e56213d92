"""A data set encoded by two processes: they take turns at the shards and write the bytes of one; of a failure both tell, and
the other process encodes its shards all the same.
"""

from pathlib import Path

import pytest

import processes
from scripts.encode_two import equal


SCRIPT = Path(__file__).parents[1] / "scripts" / "encode_two.py"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("two")


@pytest.fixture(scope="module")
def results(folder):
    """What the two processes found, case by case."""
    return processes.cases_of_two(SCRIPT, folder)


def bytes_of(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_two_processes_take_turns_and_write_the_bytes_of_one(results, folder, tmp_path):
    alone = equal(tmp_path)

    # Five shards of one batch each: numbers 0, 2, 4 and 1, 3.
    assert alone == {"rows": 15, "forwards": 5}
    assert [found["equal"] for found in results] == [{"rows": 15, "forwards": 3}, {"rows": 15, "forwards": 2}]
    assert bytes_of(folder / "texts") == bytes_of(tmp_path / "texts")


def test_a_failure_is_told_by_both_and_the_other_goes_on(results, folder):
    first, second = (found["failing"]["error"] for found in results)

    assert "OtherProcessFailed: process 1 failed: ValueError: shard 1 of 4: teacher input 0 is no image" in first
    assert "ValueError: shard 1 of 4: teacher input 0 is no image that can be decoded" in second
    assert sorted(bytes_of(folder / "images")) == [
        "data-00000-of-00004.parquet",
        "data-00002-of-00004.parquet",
        "job.json",
    ]


def test_processes_with_different_sources_are_refused(results, folder):
    assert "ValueError: this process has another source, teacher or option" in results[1]["other"]["error"]
    assert not (folder / "other").exists()
