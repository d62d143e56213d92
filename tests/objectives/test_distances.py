"""Distances of latents and divergences of predictions, worked out by hand."""

import math

import pytest
import torch

from hf_colearn.objectives.distances import LATENT_LOSSES, have_target, jensen_shannon, latent_distance, share_of


# B = 2 samples of D = 2: the differences are (1, 2) and (0, 0.5).
Z = torch.tensor([[1.0, 2.0], [3.0, 0.5]])
T = torch.tensor([[0.0, 0.0], [3.0, 0.0]])


@pytest.mark.parametrize(
    ("loss", "reduction", "expected"),
    [
        # squares: (1, 4) and (0, 0.25); their mean over all four, or the mean over samples of the sums 5 and 0.25
        ("mse", "mean", 5.25 / 4),
        ("mse", "sum", (5 + 0.25) / 2),
        # Huber with beta 1: |d| - 1/2 from 1 on, d^2 / 2 below: (0.5, 1.5) and (0, 0.125)
        ("smooth_l1", "mean", 2.125 / 4),
        ("smooth_l1", "sum", (2 + 0.125) / 2),
    ],
)
def test_distances_by_hand(loss, reduction, expected):
    assert latent_distance(Z, T, loss, reduction).item() == pytest.approx(expected)


def test_the_default_is_the_mean_squared_error_of_the_released_code():
    assert latent_distance(Z, T).item() == torch.nn.functional.mse_loss(Z, T).item() == pytest.approx(1.3125)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_the_cosine_distance_by_hand(reduction):
    z = torch.tensor([[3.0, 4.0], [1.0, 0.0], [1.0, 1.0]])
    t = torch.tensor([[6.0, 8.0], [0.0, 2.0], [-1.0, -1.0]])
    # same direction, right angle, opposite: 1 - cos = 0, 1, 2, whatever the lengths and the reduction
    assert latent_distance(z, t, "cosine", reduction).item() == pytest.approx(1)


@pytest.mark.parametrize("loss", ["mse", "smooth_l1"])
@pytest.mark.parametrize("dim", [1, 7, 384])
def test_sum_and_mean_differ_by_the_width_of_the_latent(loss, dim):
    z, t = torch.randn(2, 5, dim, generator=torch.Generator().manual_seed(0))
    mean, total = latent_distance(z, t, loss, "mean"), latent_distance(z, t, loss, "sum")
    torch.testing.assert_close(total, dim * mean)


@pytest.mark.parametrize("loss", LATENT_LOSSES)
def test_the_gradient_flows_into_the_latents_and_not_into_the_targets(loss):
    z, t = Z.clone().requires_grad_(), T.clone().requires_grad_()
    latent_distance(z, t, loss).backward()
    assert t.grad is None
    assert z.grad.abs().sum() > 0


def test_the_gradient_of_the_mean_by_hand():
    z = Z.clone().requires_grad_()
    latent_distance(z, T).backward()
    # d/dz of sum (z - t)^2 / 4 is (z - t) / 2
    assert z.grad.tolist() == [[0.5, 1.0], [0.0, 0.25]]


@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("loss", LATENT_LOSSES)
def test_bfloat16_latents_are_compared_in_float32(loss, autocast):
    # Multiples of 1/8 up to 16 are exact in bfloat16's 8 bits, their squares and sums are not.
    generator = torch.Generator().manual_seed(0)
    z, t = torch.randint(-128, 129, (2, 4, 384), generator=generator) / 8
    expected = latent_distance(z, t, loss)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        found = latent_distance(z.bfloat16(), t.bfloat16(), loss)
    assert found.dtype == torch.float32
    assert found.item() == expected.item()


def test_the_sum_of_large_bfloat16_latents_does_not_round():
    # 1001 ones: bfloat16 holds 1000 and 1004, not 1001
    z = torch.ones(1, 1001, dtype=torch.bfloat16)
    assert latent_distance(z, torch.zeros_like(z), "mse", "sum").item() == 1001


@pytest.mark.parametrize("shape", [(2,), (1, 2), (2, 1), (4, 2)])
@pytest.mark.parametrize("loss", LATENT_LOSSES)
def test_targets_of_another_shape_are_not_broadcast(loss, shape):
    with pytest.raises(ValueError, match=r"latents of shape \(2, 2\).*targets of \("):
        latent_distance(Z, torch.zeros(shape), loss)


def test_a_match_costs_nothing():
    for loss in LATENT_LOSSES:
        assert math.isclose(latent_distance(Z, Z.clone(), loss).item(), 0, abs_tol=1e-6)


# ---- samples without a target ----
NAN = float("nan")
EVERY_LOSS = [(loss, reduction) for loss in LATENT_LOSSES for reduction in ("mean", "sum")]


@pytest.mark.parametrize(("loss", "reduction"), EVERY_LOSS)
def test_samples_without_a_target_do_not_count(loss, reduction):
    z, t = torch.randn(2, 5, 4, generator=torch.Generator().manual_seed(0))
    some, of_them = z.clone().requires_grad_(), z[[0, 3]].clone().requires_grad_()
    expected = latent_distance(of_them, t[[0, 3]], loss, reduction)
    expected.backward()
    t[[1, 2, 4]] = NAN

    found = latent_distance(some, t, loss, reduction)
    found.backward()

    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(some.grad[[0, 3]], of_them.grad)
    assert not some.grad[[1, 2, 4]].any()


@pytest.mark.parametrize(("loss", "reduction"), EVERY_LOSS)
def test_a_batch_without_targets_costs_nothing_and_trains_on(loss, reduction):
    z = Z.clone().requires_grad_()
    distance = latent_distance(z, torch.full_like(Z, NAN), loss, reduction)
    (distance * 2**16).backward()  # as a gradient scaler has it
    assert distance.item() == 0 and not z.grad.any()


def test_a_target_that_is_nan_in_part_is_no_missing_one():
    t = torch.tensor([[0.0, 0.0], [NAN, 0.0], [NAN, NAN], [math.inf, NAN]])
    assert have_target(t).tolist() == [True, True, False, True]
    assert latent_distance(torch.ones(4, 2), t).isnan()  # shows, instead of being left out


@pytest.mark.parametrize(("loss", "reduction"), EVERY_LOSS)
@pytest.mark.parametrize("samples", [1, 3, 41, 49, 107])  # 1/41 * 41 is not 1 in float32
def test_where_all_have_a_target_the_loss_is_that_of_torch_to_the_last_bit(loss, reduction, samples):
    z0, t = torch.randn(2, samples, 5, generator=torch.Generator().manual_seed(samples))
    z, other = z0.clone().requires_grad_(), z0.clone().requires_grad_()
    if loss == "cosine":
        expected = (1 - torch.nn.functional.cosine_similarity(other, t, dim=-1)).mean()
    else:
        plain = {"mse": torch.nn.functional.mse_loss, "smooth_l1": torch.nn.functional.smooth_l1_loss}[loss]
        expected = plain(other, t) if reduction == "mean" else plain(other, t, reduction="none").sum(dim=-1).mean()
    found = latent_distance(z, t, loss, reduction)
    found.backward(), expected.backward()
    assert torch.equal(found, expected) and torch.equal(z.grad, other.grad)


def test_second_derivatives_pass_by_samples_without_a_target():
    t = torch.randn(4, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    t[1] = NAN
    z = torch.ones(4, 3).requires_grad_()
    (grad,) = torch.autograd.grad(latent_distance(z, t, reduction="sum"), z, create_graph=True)
    (curvature,) = torch.autograd.grad(grad.sum(), z)
    assert curvature.tolist() == [[pytest.approx(2 / 3)] * 3 if row != 1 else [0] * 3 for row in range(4)]


def test_a_share_is_exact():
    assert share_of(torch.tensor([True, False, True, True])).item() == 0.75
    assert [share_of(torch.ones(n, dtype=torch.bool)).item() for n in range(1, 200)] == [1] * 199


# ---- divergences ----
def test_the_divergence_by_hand():
    # p = (3/4, 1/4), q = (1/4, 3/4), m = (1/2, 1/2): both KL are 3/4 log(3/2) + 1/4 log(1/2)
    logits = torch.tensor([[math.log(3), 0.0]])
    expected = 0.75 * math.log(1.5) + 0.25 * math.log(0.5)
    assert jensen_shannon(logits, -logits).item() == pytest.approx(expected)
    # The second row does not differ, whatever is added to its logits: the mean is half of it.
    a, b = torch.cat([logits, torch.ones(1, 2)]), torch.cat([-logits, torch.full((1, 2), 9.0)])
    assert jensen_shannon(a, b).item() == pytest.approx(expected / 2)
    assert jensen_shannon(a, b, torch.tensor([True, False])).item() == pytest.approx(expected)


def test_the_divergence_is_that_of_scipy():
    from scipy.spatial.distance import jensenshannon

    a, b = torch.randn(2, 6, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    squares = jensenshannon(a.softmax(-1).numpy(), b.softmax(-1).numpy(), axis=1) ** 2  # a distance: its square root
    assert jensen_shannon(a, b).item() == pytest.approx(squares.mean())
    assert jensen_shannon(b, a).item() == pytest.approx(squares.mean())


def test_the_gradient_of_the_divergence_flows_into_both():
    a, b = torch.randn(2, 4, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    mask = torch.tensor([True, False, True, True])
    inputs = (a.requires_grad_(), b.requires_grad_())
    assert torch.autograd.gradcheck(lambda a, b: jensen_shannon(a, b, mask), inputs)
    assert torch.autograd.gradgradcheck(lambda a, b: jensen_shannon(a, b, mask), inputs)
    jensen_shannon(a, b, mask).backward()
    assert a.grad[mask].abs().sum(1).min() > 0 and b.grad[mask].abs().sum(1).min() > 0
    assert not a.grad[1].any() and not b.grad[1].any()


@pytest.mark.parametrize("size", [100.0, 1e4, 1e30])
def test_extreme_logits_diverge_by_log_two_and_not_by_nan(size):
    a, b = torch.tensor([[size, 0.0, -size]]).requires_grad_(), torch.tensor([[-size, 0.0, size]]).requires_grad_()
    divergence = jensen_shannon(a, b)
    divergence.backward()
    assert divergence.item() == pytest.approx(math.log(2))
    assert a.grad.isfinite().all() and b.grad.isfinite().all()


def test_rows_that_do_not_count_may_hold_anything():
    a, b = torch.ones(2, 3).requires_grad_(), torch.eye(3)[:2].requires_grad_()
    with torch.no_grad():
        a[0] = torch.nan
    expected = jensen_shannon(a[1:], b[1:])
    torch.testing.assert_close(jensen_shannon(a, b, torch.tensor([False, True])), expected)
    nothing = jensen_shannon(a, b, torch.tensor([False, False]))
    nothing.backward()
    assert nothing.item() == 0
    assert not a.grad.any() and not b.grad.any()


def test_bfloat16_logits_diverge_in_float32():
    a, b = (torch.randint(-40, 41, (2, 4, 8), generator=torch.Generator().manual_seed(0)) / 8).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        found = jensen_shannon(a, b)
    assert found.dtype == torch.float32
    assert found.item() == pytest.approx(jensen_shannon(a.double(), b.double()).item(), rel=1e-5)


def test_logits_of_other_shapes_are_not_broadcast():
    with pytest.raises(ValueError, match=r"logits of shape \(2, 3\) have no divergence from those of \(1, 3\)"):
        jensen_shannon(torch.ones(2, 3), torch.ones(1, 3))
    with pytest.raises(ValueError, match=r"mask_B of shape \(3,\) does not fit 2 rows"):
        jensen_shannon(torch.ones(2, 3), torch.ones(2, 3), torch.ones(3, dtype=torch.bool))
