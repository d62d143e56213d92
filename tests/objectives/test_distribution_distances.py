"""Distances between clouds, beside numbers of SciPy and POT, closed forms and arithmetic by hand."""

import math

import numpy as np
import ot
import pytest
import torch
from scipy.stats import norm, wasserstein_distance

from docstrings import run_example
from hf_colearn.objectives.distribution_distances import (
    label_shares_divergence,
    mmd,
    sinkhorn_divergence,
    sliced_wasserstein,
)


DISTANCES = (sliced_wasserstein, sinkhorn_divergence, mmd)
every_distance = pytest.mark.parametrize("distance", DISTANCES)


def points(*rows):
    return torch.tensor(rows, dtype=torch.float64)[:, None]


def normal(*shape, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).normal(size=shape))


def alike(x, y):
    """One row of equal weights each."""
    return x, y, torch.ones(1, len(x)), torch.ones(1, len(y))


def weights(*shape, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).uniform(0.1, 1, size=shape))


def test_the_example_runs():
    run_example(sliced_wasserstein)


# ---- all of them ----
@every_distance
def test_it_is_0_of_one_cloud_and_above_0_of_two_and_its_slope_at_0_is_finite(distance):
    x = normal(6, 3).requires_grad_()
    same, other = distance(*alike(x, x.detach()[torch.randperm(6)])), distance(*alike(x, normal(5, 3, seed=1)))
    assert same.item() == pytest.approx(0, abs=1e-9) and other.item() > 0.01
    (slope,) = torch.autograd.grad(same.sum(), x)
    assert slope.abs().max() < 1e-6


@every_distance
def test_points_of_weight_0_do_not_count_and_clouds_may_differ_in_size(distance):
    x, y, a, b = normal(4, 2), normal(3, 2, seed=1), weights(1, 4), weights(1, 3, seed=1)
    torch.manual_seed(0)
    expected = distance(x, y, a, b)
    more = torch.cat([normal(1, 2, seed=2), x, normal(2, 2, seed=3)]), torch.cat([normal(2, 2, seed=4), y])
    torch.manual_seed(0)
    found = distance(
        *more, torch.cat([torch.zeros(1, 1), a, torch.zeros(1, 2)], 1), torch.cat([torch.zeros(1, 2), b], 1)
    )
    torch.testing.assert_close(found, expected)
    torch.manual_seed(0)
    torch.testing.assert_close(distance(x, y, 7 * a, b), expected)  # which need not sum to 1


@pytest.mark.parametrize("distance", [sliced_wasserstein, sinkhorn_divergence])  # mmd has one scale for all clouds
def test_rows_of_weights_are_clouds_of_their_own(distance):
    x, y, a, b = normal(5, 2), normal(4, 2, seed=1), weights(3, 5), weights(3, 4, seed=1)
    found = []
    for rows in (slice(None), *(slice(c, c + 1) for c in range(3))):
        torch.manual_seed(0)
        found.append(distance(x, y, a[rows], b[rows]))
    torch.testing.assert_close(found[0], torch.cat(found[1:]))


@every_distance
def test_gradient_is_that_of_finite_differences_and_the_target_has_none(distance):
    x, y = normal(4, 2).requires_grad_(), normal(5, 2, seed=1).requires_grad_()
    a, b = weights(1, 4), weights(1, 5, seed=1)
    options = {"regularization": 1.0} if distance is sinkhorn_divergence else {}  # soon converged
    x0 = x.detach().clone()

    def value(x):
        if distance is mmd:  # whose scale is a constant
            return of_kernels(x, y.detach(), a[0] / a.sum(), b[0] / b.sum(), scale_of(x0, y.detach(), a, b))
        torch.manual_seed(0)
        return distance(x, y, a, b, **options).sum()

    torch.manual_seed(0)
    distance(x, y, a, b, **options).sum().backward()
    h, expected = 1e-6, torch.zeros_like(x0)
    for i in range(4):
        for d in range(2):
            step = torch.zeros_like(x0)
            step[i, d] = h
            with torch.no_grad():
                expected[i, d] = (value(x0 + step) - value(x0 - step)) / (2 * h)
    torch.testing.assert_close(x.grad, expected, atol=1e-5, rtol=1e-4)
    assert y.grad is None


@every_distance
def test_half_precision_is_computed_in_float32(distance):
    x, y = normal(4, 2).bfloat16(), normal(4, 2, seed=1).bfloat16()
    torch.manual_seed(0)
    found = distance(*alike(x, y))
    torch.manual_seed(0)
    assert found.dtype == torch.float32 and torch.equal(found, distance(*alike(x.float(), y.float())))


# ---- sliced Wasserstein ----
def test_on_a_line_it_is_the_mean_squared_difference_of_the_sorted_values():
    # (0, 1, 2) and (1, 1, 4): (1 + 0 + 4) / 3
    found = sliced_wasserstein(*alike(points(2.0, 0.0, 1.0), points(1.0, 4.0, 1.0)))
    assert found.item() == pytest.approx(5 / 3)


def test_on_a_line_it_is_exact_transport_with_weights():
    x, y, a, b = normal(7, 1), normal(4, 1, seed=1), weights(1, 7), weights(1, 4, seed=1)
    cost = ot.dist(x.numpy(), y.numpy())  # squared
    expected = ot.emd2((a / a.sum())[0].numpy(), (b / b.sum())[0].numpy(), cost)
    assert sliced_wasserstein(x, y, a, b, projections=3).item() == pytest.approx(expected)


def test_of_a_shifted_cloud_it_is_the_square_of_the_distance_that_scipy_has():
    x, y = normal(40, 1), normal(40, 1) + 3
    expected = wasserstein_distance(x[:, 0], y[:, 0])  # W1, which of a shift is W2: 3
    assert sliced_wasserstein(*alike(x, y)).item() == pytest.approx(expected**2) == pytest.approx(9)


def test_between_gaussians_it_is_the_closed_form():
    # W2^2 = (m - n)^2 + (s - t)^2 = 4 + 1; as points the quantiles of N(0, 1), twice and shifted by 2
    x = points(*norm.ppf((np.arange(2000) + 0.5) / 2000))
    assert sliced_wasserstein(*alike(x, 2 * x + 2)).item() == pytest.approx(5, rel=0.01)


def test_it_is_a_mean_over_directions_and_a_shift_has_its_mean_square():
    # (theta . s)^2 has the mean |s|^2 / D = 25 / 2, and at most 25: a deviation below 12.5 / sqrt(4000) = .2
    x = normal(8, 2)
    found = sliced_wasserstein(*alike(x, x + torch.tensor([3.0, 4.0])), projections=4000)
    assert found.item() == pytest.approx(12.5, abs=0.6)


def test_directions_follow_torchs_generator():
    x, y = normal(5, 3), normal(5, 3, seed=1)
    found = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        found.append(sliced_wasserstein(*alike(x, y)).item())
    assert found[0] == found[1] != found[2]


# ---- Sinkhorn divergence ----
@pytest.mark.parametrize("regularization, iterations", [(1.0, 50), (0.2, 200)])
def test_sinkhorn_divergence_is_that_of_pots_three_problems(regularization, iterations):
    x, y, a, b = normal(6, 3), normal(5, 3, seed=1) + 1, weights(1, 6), weights(1, 5, seed=1)
    a, b = a / a.sum(), b / b.sum()

    def value(x, y, a, b):
        cost = ot.dist(x.numpy(), y.numpy()) / 3
        return ot.solve(
            cost, a[0].numpy(), b[0].numpy(), reg=regularization, reg_type="KL", max_iter=2_000, tol=1e-9
        ).value

    expected = value(x, y, a, b) - (value(x, x, a, a) + value(y, y, b, b)) / 2
    found = sinkhorn_divergence(x, y, a, b, regularization, iterations)
    assert found.item() == pytest.approx(expected, abs=1e-5)


def test_sinkhorn_divergence_of_a_shift_is_its_mean_square_whatever_the_regularization():
    x = normal(6, 2)
    for regularization in (1.0, 100.0):
        found = sinkhorn_divergence(*alike(x, x + torch.tensor([3.0, 4.0])), regularization, iterations=100)
        assert found.item() == pytest.approx(25 / 2, rel=1e-4)


# ---- MMD ----
def scale_of(x, y, a, b):
    z, w = torch.cat([x, y]), torch.cat([a[0] / a.sum(), b[0] / b.sum()]) / 2
    return sum(w[i] * w[j] * (z[i] - z[j]).pow(2).sum() for i in range(len(z)) for j in range(len(z)))


def of_kernels(x, y, a, b, scale):
    def mean(x, y, a, b):
        return sum(
            a[i] * b[j] * math.exp(-float((x[i] - y[j]).pow(2).sum() / (width * scale))) / 5
            for width in (0.25, 0.5, 1, 2, 4)
            for i in range(len(x))
            for j in range(len(y))
        )

    return mean(x, x, a, a) + mean(y, y, b, b) - 2 * mean(x, y, a, b)


def test_mmd_of_two_points_by_hand():
    # x = 0, y = 2: the mean squared distance of all pairs of both is (0 + 4 + 4 + 0) / 4 = 2, so exp(-4 / (2 w));
    # 2 - 2 (e^-8 + e^-4 + e^-2 + e^-1 + e^-.5) / 5
    kernel = sum(math.exp(-power) for power in (8, 4, 2, 1, 0.5)) / 5
    assert mmd(*alike(points(0.0), points(2.0))).item() == pytest.approx(2 - 2 * kernel)


def test_mmd_is_a_sum_over_pairs():
    x, y, a, b = normal(3, 2), normal(4, 2, seed=1), weights(1, 3), weights(1, 4, seed=1)
    expected = of_kernels(x, y, a[0] / a.sum(), b[0] / b.sum(), scale_of(x, y, a, b))
    assert mmd(x, y, a, b).item() == pytest.approx(float(expected))


# ---- shares ----
def test_divergence_of_label_shares_by_hand():
    p = torch.tensor([[0.9, 0.1], [0.1, 0.9]])  # shares of one half
    q = torch.tensor([[1.0, 0.0], [0.5, 0.5], [9.0, 9.0]])  # of the first two: 3/4 and 1/4
    found = label_shares_divergence(p, q, torch.tensor([1.0, 1.0, 0.0]))
    assert found.item() == pytest.approx(0.75 * math.log(1.5) + 0.25 * math.log(0.5))
    assert label_shares_divergence(p, q, torch.zeros(3)).item() == 0
    one_class = torch.tensor([[1.0, 0.0]])
    assert label_shares_divergence(p, one_class, torch.ones(1)).item() == pytest.approx(math.log(2))
