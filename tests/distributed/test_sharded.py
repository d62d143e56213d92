"""Students whose weights FSDP2 spreads over two processes are those of one process: weights, losses and checkpoints."""

from pathlib import Path

import pytest

import processes
from mechanism_cases import CASES, assert_two_are_one, difference
from scripts.sharded_two import OTHERS, RESUMED, SOURCES, train


SCRIPT = Path(__file__).parents[1] / "scripts" / "sharded_two.py"
REFUSED = {
    "learned class vectors": "FSDP shards no weights that are single numbers, and the model has 'classifier.log_scale'"
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("sharded")


@pytest.fixture(scope="module")
def alone(folder):
    """What one plain process does, with checkpoints."""
    return {name: train(name, folder / "alone") for name in RESUMED}


@pytest.fixture(scope="module")
def results(folder, alone):
    """What the two processes found, case by case."""
    return processes.cases_of_two(SCRIPT, folder)


@pytest.mark.parametrize("name", list(CASES))
def test_two_processes_with_shards_are_one_with_twice_the_batch(results, name, tmp_path):
    if name in REFUSED:
        assert REFUSED[name] in results[0][name]["error"] and REFUSED[name] in results[1][name]["error"]
        return
    assert_two_are_one(results, name, lambda: train(name, tmp_path))


def assert_same(results, name, expected):
    """What each process found: sharded weights, losses and evaluations are the last ones of another run, to rounding."""
    first, second = (result[name] for result in results)
    assert "error" not in first, first.get("error")
    assert first["is_sharded"] and difference(first["weights"], second["weights"]) == 0
    assert difference(first["weights"], expected["weights"]) < 1e-5  # Adam's steps magnify what is rounded
    for of in ("losses", "evaluations"):
        for one, other in zip(first[of], expected[of], strict=True):
            assert one == pytest.approx(other, rel=1e-5, abs=1e-6)


@pytest.mark.parametrize("name", [*OTHERS, *RESUMED])
def test_options_are_those_of_one_process(results, alone, name, tmp_path):
    """Averages that are evaluated and trained on, rates by layer, clipping, two teachers, negatives, accumulation."""
    assert_same(results, name, alone[name] if name in alone else train(name, tmp_path))


@pytest.mark.parametrize("name", SOURCES)
def test_a_checkpoint_in_shards_or_whole_goes_on_in_two_shards(results, alone, name):
    assert_same(results, name, alone[name.partition(" from ")[0]])
