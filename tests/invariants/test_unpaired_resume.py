"""A run on unpaired data that is killed in the middle of an epoch goes on with identical losses and weights."""

import signal
from pathlib import Path

import pytest

import processes
from mechanism_cases import copied, difference
from scripts.unpaired_killed import run
from tiny_tasks import losses


SCRIPT = Path(__file__).parents[1] / "scripts" / "unpaired_killed.py"


@pytest.mark.parametrize(("every", "kill_at", "last"), [("step", 9, 8), ("micro_batch", 5, 4)])
def test_a_run_killed_in_mid_epoch_resumes_with_identical_losses(every, kill_at, last, tmp_path):
    # An epoch has 6 steps, or 3 of two micro-batches: both runs are killed in the second one.
    whole = run(tmp_path / "whole", every)
    whole.train()
    processes.forked(SCRIPT, tmp_path, every, kill_at, folder=tmp_path, expect=-signal.SIGKILL)
    assert sorted(int(path.name.split("-")[1]) for path in tmp_path.glob("checkpoint-*"))[-1] == last
    resumed = run(tmp_path, every)
    resumed.train(resume_from_checkpoint=True)
    assert resumed.state.global_step == whole.state.global_step
    assert losses(resumed) == losses(whole)
    assert difference(copied(resumed.model), copied(whole.model)) == 0
