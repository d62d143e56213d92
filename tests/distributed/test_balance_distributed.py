"""Two real processes with 4 samples a step each are one process with 8: weights and coefficients of every balance method."""

import os
from pathlib import Path

import pytest
import torch

import processes
from balance_cases import CASES, VARIABLE, compare, write
from scripts.balance_two import train


FILE = "tests/distributed/test_balance_distributed.py"
SCRIPT = Path(__file__).parents[1] / "scripts" / "balance_two.py"


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """What the two processes found, method by method."""
    return processes.cases_of_two(SCRIPT, tmp_path_factory.mktemp("two"))


@pytest.mark.parametrize("name", list(CASES))
def test_two_processes_are_one_with_twice_the_batch(results, name, tmp_path):
    first, second = (result[name] for result in results)
    assert "error" not in first and "error" not in second, f"{first.get('error')}\n{second.get('error')}"
    alone = train(name, tmp_path)
    for result in (first, second):
        torch.testing.assert_close(result["weights"], alone["weights"], atol=1e-6, rtol=1e-5)
    assert all(torch.equal(weight, second["weights"][key]) for key, weight in first["weights"].items())
    for step, (two, one) in enumerate(zip(first["logs"], alone["logs"], strict=True)):
        assert two == pytest.approx(one, rel=1e-4, abs=1e-5, nan_ok=True), f"step {step + 1}"
    if VARIABLE in os.environ:
        write({name: {"two processes": "yes"}})
    else:
        compare(name, {"two processes": "yes"}, FILE)
