"""Students whose gradients and optimizer DeepSpeed spreads over two processes (ZeRO-2) are those of one; the rest is refused.

Where the package is not installed the first test alone runs: accelerate imports it in every process where it is.
"""

from importlib.util import find_spec
from pathlib import Path

import pytest

import processes
from hf_colearn import CoLearningArguments
from mechanism_cases import difference


SCRIPT = Path(__file__).parents[1] / "scripts" / "zero_two.py"
WITHOUT = find_spec("deepspeed") is None
with_deepspeed = pytest.mark.skipif(WITHOUT, reason="pip install 'hf-colearn[deepspeed]'")
RUNS = ["latent", "accumulation", "several terms", "contrastive"]
REFUSED = {
    "averaged weights": "ema_decay=0.9 needs whole weights on every process, and DeepSpeed shards them",
    "rates by layer": "layer_decay=0.7 splits the optimizer that Trainer makes, and here it is DeepSpeed",
    "learned alpha": "LearnedAlpha perturbs whole weights, and DeepSpeed shards or wraps them",
    "a balance method": "OGM reads whole gradients and weights, and DeepSpeed shards them",
    "a momentum encoder": "CrossModalMining averages weights where they lie, and DeepSpeed keeps them",
    "weights in parts": "DeepSpeed's stage=3 spreads weights",
    "processes that are not counted": "2 processes were started, and transformers counts 1",
    "a CPU by the environment": "accelerate leaves `deepspeed=` aside where ACCELERATE_USE_CPU is set",
}


@pytest.mark.skipif(not WITHOUT, reason="deepspeed is installed")
def test_the_extra_is_named_where_the_package_is_missing(tmp_path):
    with pytest.raises(ImportError, match=r"pip install 'hf-colearn\[deepspeed\]'"):
        CoLearningArguments(str(tmp_path), use_cpu=True, deepspeed={"zero_optimization": {"stage": 2}})


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("zero")


@pytest.fixture(scope="module")
def results(folder):
    """What the two processes found, case by case."""
    return processes.cases_of_two(SCRIPT, folder)


def assert_one(results, name, expected):
    """Weights, losses and gradient norms are one process's, to rounding that Adam's steps magnify."""
    first, second = (result[name] for result in results)
    assert "error" not in first, first.get("error")
    assert first["kind"] == "DeepSpeedEngine"
    assert difference(first["weights"], second["weights"]) == 0
    assert difference(first["weights"], expected["weights"]) < 1e-5
    for two, one in zip(first["losses"], expected["losses"], strict=True):
        assert two == pytest.approx(one, rel=1e-5, abs=1e-6)
    assert first["norms"] == pytest.approx(expected["norms"], rel=1e-5)


@with_deepspeed
@pytest.mark.parametrize("name", [*RUNS, "resumed"])
def test_two_processes_are_one_with_twice_the_batch(results, name, tmp_path):
    from scripts.zero_two import train  # imports deepspeed

    assert_one(results, name, train("accumulation" if name == "resumed" else name, tmp_path))


@with_deepspeed
@pytest.mark.parametrize("name", REFUSED)
def test_what_needs_whole_weights_or_counted_processes_is_refused(results, name, folder):
    for result in results:
        assert REFUSED[name] in result[name]["error"]
    assert not [*(folder / name).iterdir()]
