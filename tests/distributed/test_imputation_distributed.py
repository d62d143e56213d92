"""Two real processes with 4 samples a step each are one process with 8: weights, centroids and losses of an imputation."""

from pathlib import Path

import pytest
import torch

import processes
from scripts import impute_two


def test_two_processes_are_one_with_twice_the_batch(tmp_path):
    processes.forked(Path(impute_two.__file__), tmp_path, folder=tmp_path, processes=2)
    expected, logged = impute_two.train(tmp_path)
    for rank in range(2):
        weights, losses = torch.load(tmp_path / f"result-{rank}.pt", weights_only=True)
        torch.testing.assert_close(weights, expected, atol=1e-6, rtol=1e-5)
        assert losses == [pytest.approx(log, rel=1e-4) for log in logged]
