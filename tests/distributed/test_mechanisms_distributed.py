"""Two real processes with 4 samples a step each are one process with 8: weights and losses of every head and objective."""

from pathlib import Path

import pytest

import processes
from mechanism_cases import CASES, assert_two_are_one
from scripts.mechanisms_two import train


SCRIPT = Path(__file__).parents[1] / "scripts" / "mechanisms_two.py"


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """What the two processes found, case by case."""
    return processes.cases_of_two(SCRIPT, tmp_path_factory.mktemp("two"))


@pytest.mark.parametrize("name", list(CASES))
def test_two_processes_are_one_with_twice_the_batch(results, name, tmp_path):
    assert_two_are_one(results, name, lambda: train(name, tmp_path))
