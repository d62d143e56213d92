"""Two real processes with 2 samples a step each are one process with 4: labels gained, metrics, losses, the ensemble."""

from pathlib import Path

import numpy as np

import processes
from scripts import co_train_two


def test_two_processes_gain_the_labels_of_one(tmp_path):
    found = processes.cases_of_two(Path(co_train_two.__file__), tmp_path)
    alone = co_train_two.train("two views", tmp_path)
    assert sum(alone["rounds"][-1]["gained"].values())
    for of_rank in (rank["two views"] for rank in found):
        assert "error" not in of_rank, of_rank["error"]
        assert of_rank["labels"] == alone["labels"] and of_rank["rounds"] == alone["rounds"]
        np.testing.assert_allclose(of_rank["probabilities"], alone["probabilities"], rtol=1e-4, atol=1e-6)
        for view, fits in alone["losses"].items():
            for number, expected in fits.items():
                np.testing.assert_allclose(of_rank["losses"][view][number], expected, rtol=1e-3, atol=1e-5)
