"""The sweep over the pairing as its users start it: real digits, a real teacher, few steps."""

import json
from pathlib import Path

import pytest

import processes


RECIPE = Path(__file__).parents[2] / "recipes" / "pairing_sweep.py"
QUICK = ["--seeds", "1", "--max_steps", "4", "--no_report"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sweep")
    output = processes.forked(RECIPE, *QUICK, folder=folder).stdout
    return folder / "runs" / "pairing_sweep", output


def runs_of(folder):
    return [json.loads(path.read_text()) for path in folder.rglob("run.json")]


def test_every_level_is_an_arm_beside_the_baseline_and_null_controls(finished):
    folder, output = finished
    report = json.loads((folder / "report.json").read_text())
    kinds = {arm["name"]: arm["kind"] for arm in report["comparison"]["arms"]}
    mismatched = [f"mismatched {percent}%" for percent in (0, 25, 50, 75, 100)]
    budgets = [f"budget {percent}%" for percent in (100, 50, 25, 10)]
    assert kinds == {
        "baseline": "baseline",
        **dict.fromkeys([*mismatched, *budgets], "colearned"),
        **dict.fromkeys(["class vectors", "permuted pairing"], "null"),
    }
    assert "Accuracy over the share of mismatched pairs: " in output
    assert "Accuracy over the share of samples with a pair: " in output


def test_the_runs_carry_their_level(finished):
    runs = runs_of(finished[0])
    assert len(runs) == 12
    levels = {run["arm"]: run["facts"].get("sweep") for run in runs}
    assert levels["mismatched 25%"] == {"variable": "share of mismatched pairs", "level": 0.25}
    assert levels["budget 10%"] == {"variable": "share of samples with a pair", "level": 0.1}
    assert levels["baseline"] is None and levels["class vectors"] is None


def test_no_wrong_pair_and_a_full_budget_are_the_same_training(finished):
    scores = {(run["arm"], run["seed"]): run["metrics"] for run in runs_of(finished[0])}
    losses = {
        (run["arm"], run["seed"]): [entry["loss_latent"] for entry in run["history"] if "loss_latent" in entry]
        for run in runs_of(finished[0])
    }
    assert scores["mismatched 0%", 0] == scores["budget 100%", 0]
    assert losses["mismatched 0%", 0] == losses["budget 100%", 0]
    assert len({tuple(losses[arm, 0]) for arm in ("mismatched 0%", "mismatched 50%", "budget 50%")}) == 3


def test_one_sweep_alone_has_its_own_arms(tmp_path):
    arguments = ["--sweep", "budget", "--output_dir", "out"]
    output = processes.forked(RECIPE, *QUICK, *arguments, folder=tmp_path).stdout
    assert "mismatched" not in output
    assert len({run["arm"] for run in runs_of(tmp_path / "out")}) == 7
