"""Learned alphas and balance methods on weights that FSDP2 spreads over two processes are those of one, or refused."""

import os
from pathlib import Path

import pytest
import torch

import processes
from balance_cases import CASES, CLASSES, VARIABLE, compare, write
from scripts.sharded_methods_two import ALPHAS, train


FILE = "tests/distributed/test_sharded_methods.py"
SCRIPT = Path(__file__).parents[1] / "scripts" / "sharded_methods_two.py"
REFUSED = {
    "exact": "hessian='exact' goes back through the gradient, whose graph ends where FSDP averages it into shards",
    "bfloat16": "LearnedAlpha takes differences of losses, for which torch.bfloat16, in which FSDP gathers weights, is too",
}


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """What the two processes found, case by case."""
    return processes.cases_of_two(SCRIPT, tmp_path_factory.mktemp("two"))


@pytest.mark.parametrize("name", list(ALPHAS))
def test_alphas_learned_on_shards_are_those_of_one_process(results, name, tmp_path):
    first, second = (result[name] for result in results)
    assert "error" not in first and "error" not in second, f"{first.get('error')}\n{second.get('error')}"
    one = train(name, tmp_path)
    assert first["is_sharded"] and not one["is_sharded"]
    assert first["updates"] == one["updates"] == 2
    assert first["alphas"] == second["alphas"]
    assert first["touched"] == second["touched"] == []
    assert first["alphas"] == pytest.approx(one["alphas"], rel=1e-6)
    for two, alone in zip(first["logs"], one["logs"], strict=True):
        residual = "hypergradient_residual"
        assert two[residual] == pytest.approx(alone[residual], rel=1e-6)
        # Losses near 1.5, rounded by 1e-7, are subtracted from each other: of 0.005 that leaves 3e-5.
        assert two == pytest.approx(alone, rel=5e-5)


@pytest.mark.parametrize("name", list(REFUSED))
def test_what_has_no_hypergradient_on_shards_is_refused(results, name):
    assert f"ValueError: {REFUSED[name]}" in results[0][name]["error"]


@pytest.mark.parametrize("name", list(CASES))
def test_methods_on_shards_are_those_of_one_process(results, name, tmp_path):
    first, second = (result[name] for result in results)
    if CLASSES[name].needs_whole_weights:
        for result in (first, second):
            assert f"ValueError: {name} reads whole gradients and weights, and FSDP shards them" in result["error"]
        cell = "refused"
    else:
        assert "error" not in first and "error" not in second, f"{first.get('error')}\n{second.get('error')}"
        alone = train(name, tmp_path)
        for result in (first, second):
            torch.testing.assert_close(result["weights"], alone["weights"], atol=1e-6, rtol=1e-5)
        for step, (two, one) in enumerate(zip(first["logs"], alone["logs"], strict=True)):
            assert two == pytest.approx(one, rel=1e-4, abs=1e-5, nan_ok=True), f"step {step + 1}"
        cell = "yes"
    if VARIABLE in os.environ:
        write({name: {"FSDP": cell}})
    else:
        compare(name, {"FSDP": cell}, FILE)
