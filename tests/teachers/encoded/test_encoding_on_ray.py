"""Encoding on a Ray cluster of one machine with one worker.

The cluster takes 4 seconds to start, and a worker 5 for its imports: one test has it all.
"""

import threading
import time

import psutil
import pytest
import ray

import tiny_encoding
from hf_colearn import FrozenEncoder
from hf_colearn.teachers.encoded.job import encode_dataset
from hf_colearn.teachers.encoded.ray_engine import encode_on_ray


def kill_the_worker(output, killed):
    """Once it has encoded a shard; `killed` gets how many there were."""
    while not (done := list(output.glob("data-*"))):
        time.sleep(0.001)
    for process in psutil.Process().children(recursive=True):
        if "MapWorker" in " ".join(process.cmdline()):
            process.kill()
            killed.append(len(done))


@pytest.fixture
def cluster(monkeypatch):
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")  # or a token is left in the home
    ray.init(num_cpus=1, include_dashboard=False, object_store_memory=80 * 2**20, logging_level="ERROR")
    yield
    ray.shutdown()


def test_a_killed_worker_costs_its_shard_and_what_fails_is_told_by_its_shard(cluster, tmp_path):
    source = tiny_encoding.write_source(tmp_path / "source", shards=12, rows=200)
    teacher = FrozenEncoder.from_pretrained(str(tiny_encoding.write_teacher(tmp_path / "teacher")))
    options = {"dtype": "float16", "show_progress": False}
    encode_dataset(source, teacher, "text", tmp_path / "alone", **options)

    on_ray, killed, last = tmp_path / "on_ray", [], source / "part-011.parquet"
    whole = last.read_bytes()
    last.write_bytes(bytes(len(whole)))

    threading.Thread(target=kill_the_worker, args=(on_ray, killed), daemon=True).start()
    with pytest.raises((ValueError, RuntimeError), match="^shard 11 of 12: .*Parquet"):
        encode_dataset(source, teacher, "text", on_ray, engine="ray", workers=1, **options)
    assert len(killed) == 1 and killed[0] < 11
    assert {path.name[5:10] for path in on_ray.glob("data-*")} == {f"{i:05d}" for i in range(11)}
    assert ray.is_initialized()  # a cluster that was there stays

    last.write_bytes(whole)
    encode_dataset(source, teacher, "text", on_ray, **options)
    assert tiny_encoding.contents(on_ray) == tiny_encoding.contents(tmp_path / "alone")


def test_no_workers_are_refused():
    with pytest.raises(ValueError, match="workers=0"):
        encode_on_ray(None, None, None, [0], workers=0)
