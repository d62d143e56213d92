"""The benchmarks run; what they measure is looked at in tests/benchmarks/RESULTS.md, never here."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest


ROOT = Path(__file__).parent.parent
EXPECTED = {
    "co-learning step / plain step",
    "what co-learning adds, alone",
    "targets of RandomPrompt in the collator",
    "targets of Noisy(RandomPrompt) in the collator",
    "host reads in compute_loss",
    "step with the teacher online / with the bank",
    "encoding all / `TeacherBank.encode`, empty cache",
    "resident memory added, peak",
    "resident memory added, private",
    "look-up / step, cold",
    "look-up / step, warm",
}


def run(module: str, *arguments) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", module, "--quick", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, env=os.environ, capture_output=True, text=True, timeout=300)


@pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")
def test_quick_run_writes_the_whole_table(tmp_path):
    result = run("tests.benchmarks", "--output", tmp_path)

    assert result.returncode == 0, result.stderr
    rows = json.loads((tmp_path / "results.json").read_text())["rows"]
    assert {row["what"] for row in rows} == EXPECTED
    assert all(math.isfinite(row[key]) for row in rows for key in ("value", "low", "high"))
    text = (tmp_path / "RESULTS.md").read_text()
    assert all(f"| {row['what']} [" in text for row in rows)
    assert "the numbers mean nothing" in text
    assert next(row["value"] for row in rows if row["what"] == "host reads in compute_loss") == 0


def test_gpu_benchmark_says_plainly_that_there_is_no_gpu(tmp_path):
    result = run("tests.benchmarks.gpu_step", "--output", tmp_path)  # conftest.py hides the GPUs

    assert result.returncode == 1
    assert result.stderr.strip().endswith("torch sees none here: run `python -m tests.benchmarks` instead.")
    assert not list(tmp_path.iterdir())
