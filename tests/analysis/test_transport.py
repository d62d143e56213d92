import hf_colearn  # noqa: F401, I001  # first: its guard makes `import evaluate` work beside a CPU torch

import warnings
from dataclasses import replace

import numpy as np
import ot
import pytest
import scipy.linalg
import torch
from scipy.optimize import linear_sum_assignment

from hf_colearn.analysis.latents import transport
from hf_colearn.analysis.latents.transport import sampling_floor, transport_triple, triangle_warning, wasserstein2


METHODS = ["exact", "gaussian", "sliced", "sinkhorn"]


def cloud(n=40, d=3, seed=0, scale=1.0, shift=0.0):
    return np.random.default_rng(seed).normal(size=(n, d)) * scale + shift


def with_moments(n, mean, root, seed=0):
    """Samples whose mean is `mean` and whose covariance (divided by n) is `root @ root.T`, exactly."""
    z = cloud(n, len(mean), seed)
    z -= z.mean(axis=0)
    return z @ np.linalg.inv(np.linalg.cholesky(z.T @ z / n)).T @ np.asarray(root).T + mean


# ---- values that are known ----


def test_one_dimension_is_the_mean_squared_difference_of_sorted_values():
    x, y = cloud(60, 1, 0), cloud(60, 1, 1, scale=3, shift=1)
    found = wasserstein2(x, y)
    expected = np.mean((np.sort(x[:, 0]) - np.sort(y[:, 0])) ** 2)
    assert found.w2_squared == pytest.approx(expected, rel=1e-12)
    assert found.w2 == pytest.approx(expected**0.5, rel=1e-12)
    assert (found.method, found.low, found.high, found.batches, found.note) == ("exact", None, None, 1, "")


def test_clouds_of_different_size_share_their_weights():
    # 0 moves half to -1 and half to 2: (1 + 4) / 2. The quantiles of {0, 1} and {0, 1, 2} differ by 1 on [1/3, 1/2] and
    # on [2/3, 1]: 1/6 + 1/3.
    assert wasserstein2(np.array([[0.0]]), np.array([[-1.0], [2.0]])).w2_squared == pytest.approx(2.5)
    x, y = np.array([[0.0], [1.0]]), np.array([[2.0], [0.0], [1.0]])
    assert wasserstein2(x, y).w2_squared == pytest.approx(0.5)
    assert wasserstein2(x, y, "sliced", num_projections=3).w2_squared == pytest.approx(0.5)


def test_gaussian_of_commuting_covariances_is_the_difference_of_deviations():
    # |(3, 4)|^2 + (1 - 2)^2 + (5 - 1)^2 = 42
    x, y = with_moments(200, [0, 0], np.diag([1.0, 5.0])), with_moments(300, [3, 4], np.diag([2.0, 1.0]), seed=1)
    assert wasserstein2(x, y, "gaussian").w2_squared == pytest.approx(42, rel=1e-12)


def test_gaussian_of_any_covariances_is_the_closed_form():
    x, y = cloud(50, 4) @ cloud(4, 4, 1), cloud(70, 4, 2) @ cloud(4, 4, 3) + 1
    a, b = (np.cov(z.T, bias=True) for z in (x, y))
    root = scipy.linalg.sqrtm(a)
    bures = np.trace(a + b - 2 * scipy.linalg.sqrtm(root @ b @ root)).real
    expected = np.sum((x.mean(axis=0) - y.mean(axis=0)) ** 2) + bures
    assert wasserstein2(x, y, "gaussian").w2_squared == pytest.approx(expected, rel=1e-9)
    with_pot = ot.gaussian.empirical_bures_wasserstein_distance(x, y, reg=0)
    assert wasserstein2(x, y, "gaussian").w2 == pytest.approx(with_pot, rel=1e-9)


def test_fewer_samples_than_dimensions_have_a_gaussian_distance():
    # Without a covariance: tr (A^1/2 B A^1/2)^1/2 is the sum of the singular values of the samples' inner products.
    x, y = cloud(5, 768), cloud(7, 768, 1, scale=2, shift=0.1)
    centred = [(z - z.mean(axis=0)) / len(z) ** 0.5 for z in (x, y)]
    overlap = np.linalg.svd(centred[0] @ centred[1].T, compute_uv=False).sum()
    traces = sum(np.sum(z**2) for z in centred)
    expected = np.sum((x.mean(axis=0) - y.mean(axis=0)) ** 2) + traces - 2 * overlap
    assert wasserstein2(x, y, "gaussian").w2_squared == pytest.approx(expected, rel=1e-12)
    assert wasserstein2(x[:1], y[:1], "gaussian").w2_squared == pytest.approx(np.sum((x[0] - y[0]) ** 2))


def test_exact_distance_of_gaussian_samples_comes_near_the_closed_form():
    # |(3, 4)|^2 + 2 (2 - 1)^2 = 27; 1,500 samples in two dimensions are 3% off at most.
    x, y = cloud(1500, 2), cloud(1500, 2, 1, scale=2) + [3.0, 4.0]
    assert wasserstein2(x, y).w2_squared == pytest.approx(27, rel=0.03)


def test_sliced_distance_of_gaussians_is_the_closed_form():
    # Along a direction: N(0, 1) against N(u.m, 4), so (u.m)^2 + 1; the mean of (u.m)^2 is |m|^2 / D = 25 / 5.
    x, y = with_moments(400, [0] * 5, np.eye(5)), with_moments(400, [3, 4, 0, 0, 0], 2 * np.eye(5))
    found = wasserstein2(x, y, "sliced", num_projections=2000)
    assert found.low < 6 < found.high
    assert found.high - found.low < 0.6
    assert found.w2_squared <= wasserstein2(x, y).w2_squared / 5


@pytest.mark.parametrize("method", ["exact", "gaussian", "sinkhorn"])
def test_a_translation_is_as_long_as_it_is(method):
    x = cloud()
    found = wasserstein2(x, x + [2.0, 3.0, 6.0], method)
    assert found.w2 == pytest.approx(7, rel=1e-4)
    assert found.w2_squared == pytest.approx(49, rel=1e-4)


def test_sliced_translation_counts_its_square_over_the_dimensions():
    x, shift = cloud(30, 8), np.array([4.0, 0, 0, 0, 0, 0, 0, 0])
    found = wasserstein2(x, x + shift, "sliced", num_projections=4000)
    assert found.low < 16 / 8 < found.high
    assert "|s|^2 / 8" in found.note
    # In one dimension every direction is the same.
    assert wasserstein2(x[:, :1], x[:, :1] + 4, "sliced", num_projections=5).w2_squared == pytest.approx(16)


# ---- what holds of every distance ----


@pytest.mark.parametrize("method", ["exact", "gaussian"])
@pytest.mark.parametrize("t", [0.25, 0.6])
def test_legs_of_a_displacement_interpolation_add_up_to_the_whole(method, t):
    # The gradient of a convex function is an optimal map: x -> A x + b with A positive definite.
    root = cloud(4, 4, 5)
    x = cloud(60, 4)
    end = x @ (root @ root.T + np.eye(4)) + 3
    between = (1 - t) * x + t * end
    whole, first, second = (wasserstein2(*pair, method).w2 for pair in ((x, end), (x, between), (between, end)))
    assert whole**2 == pytest.approx(np.mean(np.sum((x - end) ** 2, axis=1)), rel=1e-9)
    assert first == pytest.approx(t * whole, rel=1e-9)
    assert first + second == pytest.approx(whole, rel=1e-9)


@pytest.mark.parametrize("method", METHODS)
def test_equal_clouds_in_any_order_are_not_apart(method):
    x = cloud(50, 6, shift=100)
    shuffled = x[np.random.default_rng(1).permutation(50)]
    # Sinkhorn's is a difference of values near 1, so its root keeps half of the digits.
    assert wasserstein2(x, shuffled, method).w2 == pytest.approx(0, abs=1e-3 if method == "sinkhorn" else 1e-10)


@pytest.mark.parametrize("method", METHODS)
def test_distance_is_symmetric(method):
    x, y = cloud(30), cloud(45, seed=1, scale=2)
    there, back = wasserstein2(x, y, method), wasserstein2(y, x, method)
    assert there.w2_squared == pytest.approx(back.w2_squared, rel=1e-6)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("scale", [1e-10, 1e10])
def test_distance_scales_with_the_latents(method, scale):
    x, y = cloud(50, 5), cloud(50, 5, seed=1, shift=0.2)
    found = wasserstein2(scale * x, scale * y, method).w2
    assert found == pytest.approx(scale * wasserstein2(x, y, method).w2, rel=1e-6)


@pytest.mark.parametrize("method", METHODS)
def test_clouds_that_lie_far_out_keep_their_distance(method):
    x, y = cloud(50, 5), cloud(50, 5, seed=1, shift=0.2)
    assert wasserstein2(x + 1e6, y + 1e6, method).w2 == pytest.approx(wasserstein2(x, y, method).w2, rel=1e-6)


@pytest.mark.parametrize("method", METHODS)
def test_tensors_and_arrays_give_the_same(method):
    x, y = cloud(30).astype(np.float32), cloud(30, seed=1).astype(np.float32)
    tensors = torch.from_numpy(x).requires_grad_(), torch.from_numpy(y)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        x.setflags(write=False)  # as a memory-mapped array is
        assert wasserstein2(*tensors, method) == wasserstein2(x, y, method)


@pytest.mark.parametrize("method", METHODS)
def test_few_samples_of_many_dimensions_are_measured(method):
    x, y = cloud(5, 768), cloud(5, 768, seed=1)
    found = wasserstein2(x, y, method)
    assert 0 < found.w2_squared <= np.mean(np.sum((x - y) ** 2, axis=1)) * (1 + 1e-9)
    assert found.w2 == pytest.approx(found.w2_squared**0.5)


# ---- Sinkhorn ----


def test_sinkhorn_goes_to_the_exact_distance_and_to_that_of_the_means():
    x, y = cloud(25, 2), cloud(25, 2, seed=1, scale=2, shift=1)
    exact = wasserstein2(x, y).w2_squared
    errors = [abs(wasserstein2(x, y, "sinkhorn", regularization=r).w2_squared - exact) for r in (1, 0.1, 0.02)]
    assert errors[0] > errors[1] > errors[2]
    assert errors[2] < 0.01 * exact
    means = np.sum((x.mean(axis=0) - y.mean(axis=0)) ** 2)
    assert wasserstein2(x, y, "sinkhorn", regularization=1e4).w2_squared == pytest.approx(means, rel=1e-3)


def test_sinkhorn_is_the_debiased_divergence():
    x, y = cloud(20, 2), cloud(30, 2, seed=1, shift=1)
    strength = 0.3 * torch.from_numpy(ot.dist(x, y)).median().item()

    def entropic(x, y):  # the primal value, of a plan by Sinkhorn's own iterations
        a, b = np.full(len(x), 1 / len(x)), np.full(len(y), 1 / len(y))
        plan = ot.sinkhorn(a, b, ot.dist(x, y), strength, method="sinkhorn", stopThr=1e-13)
        return np.sum(plan * ot.dist(x, y)) + strength * np.sum(plan * np.log(plan / np.outer(a, b)))

    expected = entropic(x, y) - entropic(x, x) / 2 - entropic(y, y) / 2
    assert wasserstein2(x, y, "sinkhorn", regularization=0.3).w2_squared == pytest.approx(expected, rel=1e-6)


def test_solvers_that_do_not_converge_are_no_number(monkeypatch):
    monkeypatch.setattr(transport, "SINKHORN_STEPS", 20)
    with pytest.raises(ValueError, match="did not converge in 20 steps at .* raise regularization"):
        wasserstein2(cloud(), cloud(seed=1), "sinkhorn", regularization=0.001)
    monkeypatch.setattr(transport, "SIMPLEX_STEPS", 3)
    with (
        pytest.warns(UserWarning, match="numItermax"),
        pytest.raises(ValueError, match="was not solved .*: lower max_exact"),
    ):
        wasserstein2(cloud(), cloud(seed=1))


def test_sinkhorn_needs_pairs_that_are_apart():
    with pytest.raises(ValueError, match="coincide, so the median cost is 0: use method='exact'"):
        wasserstein2(np.ones((4, 2)), np.ones((4, 2)), "sinkhorn")
    assert wasserstein2(np.ones((4, 2)), np.ones((4, 2))).w2 == 0


# ---- mini-batches ----


def mini_batch_mean(x, y, size, draws):
    """The mean squared distance of random mini-batches, by another solver."""
    generator = np.random.default_rng(99)
    values = []
    for _ in range(draws):
        a, b = (generator.choice(z, size, replace=False) for z in (x, y))
        costs = ((a[:, None] - b[None]) ** 2).sum(axis=2)
        values.append(costs[linear_sum_assignment(costs)].mean())
    return np.mean(values)


def test_mini_batch_interval_covers_the_value_at_that_size_and_lies_above_the_whole():
    x, y = cloud(200, 4), cloud(200, 4, seed=1, shift=0.3)
    at_this_size = mini_batch_mean(x, y, 20, 2000)
    covered = 0
    for seed in range(100):
        found = wasserstein2(x, y, max_exact=20, num_batches=8, seed=seed)
        assert found.w2_squared == pytest.approx((found.low + found.high) / 2)
        covered += found.low <= at_this_size <= found.high
    assert covered >= 88  # of 100 at 95%; fewer than 88 happen once in 500
    assert found.w2 == found.w2_squared**0.5
    assert found.batches == 8
    assert "8 random mini-batches of 20 and 20 of the 200 and 200 samples, biased upwards" in found.note
    assert at_this_size > 1.5 * wasserstein2(x, y).w2_squared


def test_mini_batches_follow_the_seed():
    x, y = cloud(100), cloud(100, seed=1)
    one, again, other = (wasserstein2(x, y, max_exact=20, num_batches=2, seed=seed) for seed in (0, 0, 1))
    assert one == again != other
    assert wasserstein2(x, y, max_exact=20, num_batches=1).low is None


@pytest.mark.parametrize("method", ["exact", "sinkhorn"])
def test_no_matrix_is_larger_than_allowed(method, monkeypatch):
    shapes, dist = [], ot.dist

    def recorded(*args, **kwargs):
        cost = dist(*args, **kwargs)
        shapes.append(tuple(cost.shape))
        return cost

    monkeypatch.setattr(ot, "dist", recorded)
    wasserstein2(cloud(5000), cloud(10, seed=1), method, max_exact=30, num_batches=2)
    assert shapes and max(max(shape) for shape in shapes) == 30
    assert (30, 10) in shapes


def test_floor_is_what_two_samples_of_one_distribution_are_apart():
    x = cloud(400, 6)
    floor = sampling_floor(x, max_exact=50, num_batches=20)
    independent = np.mean([wasserstein2(cloud(50, 6, 10 + i), cloud(50, 6, 90 + i)).w2_squared for i in range(20)])
    assert floor.w2_squared == pytest.approx(independent, rel=0.1)
    assert floor.low < floor.w2_squared < floor.high and floor.batches == 20
    assert "50 samples each" in floor.note
    assert "200 samples each" in sampling_floor(x, num_batches=2).note
    assert sampling_floor(x, num_batches=2).w2_squared < floor.w2_squared
    # Of a Gaussian fit to halves, and of a point.
    assert 0 < sampling_floor(x, "gaussian", num_batches=3).w2_squared < floor.w2_squared
    assert sampling_floor(np.ones((8, 3)), num_batches=2).w2 == 0


# ---- the triple ----


def test_triple_holds_the_three_distances():
    targets, baseline, colearned = cloud(), cloud(seed=1, shift=5), cloud(seed=2, shift=1)
    triple = transport_triple(targets, torch.from_numpy(baseline), colearned, "sliced", num_projections=20)
    options = {"method": "sliced", "num_projections": 20}
    assert triple.targets_to_baseline == wasserstein2(targets, baseline, **options)
    assert triple.targets_to_colearned == wasserstein2(targets, colearned, **options)
    assert triple.baseline_to_colearned == wasserstein2(baseline, colearned, **options)
    assert triangle_warning(triple) == ""


def test_triple_on_a_line_is_no_violation():
    baseline = cloud(30)
    assert triangle_warning(transport_triple(baseline + 6, baseline, baseline + 2)) == ""
    assert triangle_warning(transport_triple(baseline + 6, baseline, baseline + 2, "gaussian")) == ""


def test_a_triple_that_no_distances_can_be_is_warned_of():
    triple = transport_triple(cloud(), cloud(seed=1), cloud(seed=2))
    legs = {"targets_to_baseline": 3.0, "targets_to_colearned": 1.0, "baseline_to_colearned": 1.5}
    as_w2 = replace(
        triple, **{k: replace(triple.targets_to_baseline, w2=w, w2_squared=w * w) for k, w in legs.items()}
    )
    assert "the one from targets to baseline, 3, is longer than the other two together (1 + 1.5)" in triangle_warning(
        as_w2
    )
    # The same three numbers as squares: 1.73 <= 1 + 1.22.
    as_squares = replace(
        triple, **{k: replace(triple.targets_to_baseline, w2=w**0.5, w2_squared=w) for k, w in legs.items()}
    )
    assert triangle_warning(as_squares) == ""
    # An interval that reaches down to 2.4^2 leaves doubt.
    doubtful = replace(as_w2, targets_to_baseline=replace(as_w2.targets_to_baseline, low=2.4**2, high=3.6**2))
    assert triangle_warning(doubtful) == ""


# ---- what has no distance ----


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("method", METHODS)
def test_latents_that_are_not_finite_are_refused(bad, method):
    x = cloud()
    x[[3, 7], 1] = bad
    with pytest.raises(ValueError, match="2 of 40 latents of cloud 'y' are not finite"):
        wasserstein2(cloud(), x, method)
    with pytest.raises(ValueError, match="cloud 'colearned' are not finite"):
        transport_triple(cloud(), cloud(), torch.from_numpy(x), method)


def test_wrong_shapes_are_refused():
    with pytest.raises(ValueError, match=r"cloud 'x' must hold latents \[N, D\], got shape \(40,\)"):
        wasserstein2(cloud()[:, 0], cloud())
    with pytest.raises(ValueError, match=r"cloud 'y' must hold latents \[N, D\], got shape \(0, 3\)"):
        wasserstein2(cloud(), cloud(0))
    with pytest.raises(ValueError, match="one width, got {'x': 3, 'y': 4}"):
        wasserstein2(cloud(), cloud(d=4))
    with pytest.raises(ValueError, match="one width, got {'targets': 3, 'baseline': 3, 'colearned': 2}"):
        transport_triple(cloud(), cloud(), cloud(d=2))
    with pytest.raises(ValueError, match="1 sample has no halves"):
        sampling_floor(cloud(1))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "fast"}, r"no method 'fast': choose from \['exact', 'gaussian', 'sliced', 'sinkhorn'\]"),
        ({"max_exact": 0}, "max_exact must be at least 1, got 0"),
        ({"num_batches": 0}, "num_batches must be at least 1, got 0"),
        ({"regularization": 0.0}, "regularization must be above 0, got 0.0"),
        ({"regularization": float("nan")}, "regularization must be above 0, got nan"),
    ],
)
def test_options_out_of_range_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        wasserstein2(cloud(), cloud(), **options)
    with pytest.raises(ValueError, match=message):
        sampling_floor(cloud(), **options)
