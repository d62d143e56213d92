"""A sample of the bank without pairs, and the cloud of the same moments that is its null control."""

import numpy as np
import pytest
import torch

from docstrings import run_example
from hf_colearn import Drawn, Teacher, TeacherBank
from hf_colearn.teachers.drawn import gaussian_cloud


BANK = TeacherBank.from_latents(np.arange(5.0)[:, None])


@pytest.mark.parametrize("documented", [Drawn, gaussian_cloud])
def test_the_example_runs(documented):
    run_example(documented)


def test_rows_are_a_function_of_sample_epoch_and_seed_alone():
    ids = np.array([7, 123456, 0])
    rows = Drawn().rows(BANK, ids, 3, 1)
    assert np.array_equal(Drawn().rows(BANK, ids[::-1], 3, 1), rows[::-1])
    others = [Drawn().rows(BANK, np.arange(50), epoch, seed) for epoch, seed in ((3, 1), (4, 1), (3, 2))]
    assert len({tuple(found) for found in others}) == 3
    classes = TeacherBank.from_latents(10 + np.arange(5.0)[:, None])  # of the same rows
    shown = [Teacher(bank, Drawn()).targets(ids, 3, 1) for bank in (BANK, classes)]
    assert torch.equal(shown[0] + 10, shown[1])


def test_every_row_is_drawn_as_often_whatever_the_sample():
    # 10,000 draws of 5 rows: 2,000 each, with a standard deviation of sqrt(10000 x .2 x .8) = 40
    rows = Drawn().rows(BANK, np.arange(10_000), 0, 0)
    assert abs(np.bincount(rows, minlength=5) - 2000).max() < 4 * 40
    assert abs(np.corrcoef(rows[:-1], rows[1:])[0, 1]) < 4 / 100  # of neighbours: 1 / sqrt(10000)


def test_gaussian_cloud_has_the_mean_and_the_covariances_and_nothing_else():
    drawn = np.random.default_rng(0)
    two_ND = drawn.choice([-3.0, 3.0], size=(4000, 1)) * [1.0, 2.0] + drawn.normal(size=(4000, 2))
    cloud_ND = gaussian_cloud(TeacherBank.from_latents(two_ND), seed=1).lookup(np.arange(4000)).numpy()
    np.testing.assert_allclose(cloud_ND.mean(axis=0), two_ND.mean(axis=0), atol=0.4)  # 6 / sqrt(4000) = 0.1
    np.testing.assert_allclose(np.cov(cloud_ND.T), np.cov(two_ND.T), rtol=0.1)
    # Of two clusters at +-3 with a deviation of 1 few points are near 0; of a Gaussian of deviation sqrt(10), .25 within 1.
    assert (abs(two_ND[:, 0]) < 1).mean() < 0.05 and (abs(cloud_ND[:, 0]) < 1).mean() > 0.2
