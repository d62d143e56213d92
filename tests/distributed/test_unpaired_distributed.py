"""Two real processes with half of a batch each are one process: losses and weights of a model of many tasks on unpaired data,
without a search for unused parameters; and weights of tasks that are not drawn stay as they are.
"""

from pathlib import Path

import pytest
import torch

import processes
from mechanism_cases import assert_two_are_one
from scripts.unpaired_two import CASES, train


SCRIPT = Path(__file__).parents[1] / "scripts" / "unpaired_two.py"


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """What the two processes found, case by case."""
    return processes.cases_of_two(SCRIPT, tmp_path_factory.mktemp("two"))


@pytest.mark.parametrize("name", list(CASES))
def test_two_processes_are_one_with_twice_the_batch(results, name, tmp_path):
    assert_two_are_one(results, name, lambda: train(name, tmp_path))


def test_weights_that_no_batch_has_a_use_for_stay_as_they_are(results):
    found = results[0]["two of three tasks"]
    moved = {name for name, weight in found["weights"].items() if not torch.equal(weight, found["before"][name])}
    assert not {name for name in moved if "wine" in name}
    assert {name.split(".")[1] for name in moved if name.startswith("stems")} == {"image", "speech"}
