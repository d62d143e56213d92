"""Hypergradients against closed forms, NumPy solutions and actual retraining; what they cost and leave alone."""

import threading

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from hf_colearn.alpha.hypergradient import HESSIANS, implicit_gradient
from hf_colearn.alpha.solvers import AdamDiagonal, ConjugateGradient, Identity, Neumann, adam_diagonal


# DESIGN.md, section 3: at alpha = 1/2, th* = (3/2, 1/3), H = (diag(1, 4) + diag(3, 2)) / 2 = diag(2, 3),
# g = th* - (1, 0) = (1/2, 1/3) and d = (-3, -8/3), so that -g' H^-1 d = 3/4 + 8/27 = 113/108.
MINIMUM = torch.tensor([1.5, 1 / 3], dtype=torch.float64)
CONJUGATE = ConjugateGradient(damping=0.0, iterations=2)


def outer(parameters):
    (theta,) = parameters
    return (theta - theta.new_tensor([1.0, 0.0])).square().sum() / 2


def inner(parameters):
    (theta,) = parameters
    task = (theta.new_tensor([1.0, 4.0]) * theta.square()).sum() / 2
    gap = (theta.new_tensor([3.0, 2.0]) * (theta - theta.new_tensor([2.0, 1.0])).square()).sum() / 2
    return {"task": task, "gap": gap}


def closed_form(solver=CONJUGATE, theta=MINIMUM, **kwargs):
    return implicit_gradient([theta], outer, inner, {"gap": 0.5}, solver, **kwargs)


# -g' [0.3 sum_{k<=K} (I - 0.3 H)^k] d, with I - 0.3 H = diag(0.4, 0.1): the two coordinates give
# 3/2 * (1 - 0.4^(K+1)) / 2 + 8/9 * (1 - 0.1^(K+1)) / 3; and the identity -g' d = 3/2 + 8/9
SOLUTIONS = [
    (CONJUGATE, 113 / 108),
    (Neumann(0.3, 0), 0.716667),
    (Neumann(0.3, 2), 0.998),
    (Neumann(0.3, 10), 1.046265),
    (Identity(), 2.388889),
    (Identity(0.3), 0.716667),
    (AdamDiagonal([torch.tensor([1 / 2, 1 / 3], dtype=torch.float64)]), 113 / 108),  # the inverse Hessian itself
    # The curvature along g is (2/4 + 3/9) / (1/4 + 1/9) = 30/13, so the damping is 1: g / (H + 1) = (1/6, 1/12), and with
    # d = (-3, -8/3): 1/2 + 2/9
    (ConjugateGradient(damping=13 / 30, iterations=2), 13 / 18),
]


@pytest.mark.parametrize("hessian", HESSIANS)
@pytest.mark.parametrize(("solver", "expected"), SOLUTIONS)
def test_the_closed_form(solver, expected, hessian):
    found = closed_form(solver, hessian=hessian)
    assert found.gradients["gap"].item() == pytest.approx(expected, abs=1e-6)
    assert found.outer_loss.item() == pytest.approx((0.5**2 + (1 / 3) ** 2) / 2)


@pytest.mark.parametrize("hessian", HESSIANS)
def test_the_closed_form_in_single_precision(hessian):
    found = closed_form(theta=MINIMUM.float(), hessian=hessian)
    assert found.gradients["gap"].dtype == torch.float32
    # rounding over the step: 1.2e-7 / 4.9e-5 = 2.4e-3 of the losses
    assert found.gradients["gap"].item() == pytest.approx(113 / 108, rel=2e-3 if hessian != "exact" else 1e-6)


@pytest.mark.parametrize("hessian", HESSIANS)
def test_the_residual_is_of_the_undamped_system(hessian):
    # v = 0.3 g: H v - g = (-0.4, -0.1) * g = (-0.2, -1/30), relative to |g| = |(1/2, 1/3)|
    expected = np.hypot(0.2, 1 / 30) / np.hypot(1 / 2, 1 / 3)
    assert closed_form(Identity(0.3), hessian=hessian).residual.item() == pytest.approx(expected, rel=1e-6)
    # v = g / (H + 1): H v - g = -v = -(1/6, 1/12)
    expected = np.hypot(1 / 6, 1 / 12) / np.hypot(1 / 2, 1 / 3)
    damped = ConjugateGradient(damping=13 / 30, iterations=2)
    assert closed_form(damped, hessian=hessian).residual.item() == pytest.approx(expected, rel=1e-6)
    assert closed_form(hessian=hessian).residual.item() < 1e-8


@pytest.mark.parametrize("hessian", HESSIANS)
@pytest.mark.parametrize("seed", range(3))
def test_quadratics_of_20_dimensions_with_three_terms(seed, hessian):
    rng = np.random.default_rng(seed)
    names, alphas = ["task", "a", "b", "c"], {"a": 0.3, "b": 0.2, "c": 0.1}
    weights = [0.4, 0.3, 0.2, 0.1]
    roots, centres, goal = rng.normal(size=(4, 20, 20)), rng.normal(size=(4, 20)), rng.normal(size=20)
    matrices = roots @ roots.transpose(0, 2, 1) / 20 + 0.5 * np.eye(20)
    hessian_matrix = np.einsum("k,kij->ij", weights, matrices)
    theta = np.linalg.solve(hessian_matrix, np.einsum("k,kij,kj->i", weights, matrices, centres))
    gradients = np.einsum("kij,kj->ki", matrices, theta - centres)
    v = np.linalg.solve(hessian_matrix, theta - goal)
    expected = {name: -v @ (gradients[k] - gradients[0]) for k, name in enumerate(names) if k}

    def flat(parameters):
        return torch.cat([parameter.flatten() for parameter in parameters])

    def inner_losses(parameters):
        x = flat(parameters)
        pieces = zip(names, torch.tensor(matrices), torch.tensor(centres), strict=True)
        return {name: (x - centre) @ matrix @ (x - centre) / 2 for name, matrix, centre in pieces}

    theta = torch.tensor(theta)
    parameters = [theta[:12].view(3, 4), theta[12], theta[13:]]  # a matrix, a scalar and a vector
    found = implicit_gradient(
        parameters,
        lambda p: (flat(p) - torch.tensor(goal)).square().sum() / 2,
        inner_losses,
        alphas,
        ConjugateGradient(damping=0.0, iterations=30, tolerance=1e-9),
        hessian,
    )
    assert list(found.gradients) == ["a", "b", "c"]
    for name, value in expected.items():
        assert found.gradients[name].item() == pytest.approx(value, rel=1e-5, abs=1e-6)
    assert found.residual < 1e-5


class Network:
    """tanh perceptron on real digits: cross-entropy with weight decay, and as a term, logits that are drawn to 0."""

    def __init__(self, hidden):
        data = load_digits()
        pixels, labels = torch.tensor(data.data / 16), torch.tensor(data.target)
        self.x, self.y, self.x_outer, self.y_outer = pixels[:200], labels[:200], pixels[200:400], labels[200:400]
        generator = torch.Generator().manual_seed(0)
        sizes = [64, 10] if hidden is None else [64, hidden, 10]
        self.start = []
        for fan_in, fan_out in zip(sizes, sizes[1:], strict=False):
            weight = torch.randn(fan_out, fan_in, generator=generator, dtype=torch.float64) / fan_in**0.5
            self.start += [weight, torch.zeros(fan_out, dtype=torch.float64)]

    def logits(self, parameters, x):
        for index in range(0, len(parameters), 2):
            x = F.linear(torch.tanh(x) if index else x, *parameters[index : index + 2])
        return x

    def outer(self, parameters):
        return F.cross_entropy(self.logits(parameters, self.x_outer), self.y_outer)

    def inner(self, parameters):
        logits = self.logits(parameters, self.x)
        decay = sum(parameter.square().sum() for parameter in parameters)
        return {"task": F.cross_entropy(logits, self.y) + 0.005 * decay, "small": logits.square().mean()}

    def train(self, alpha, start):
        parameters = [parameter.clone().requires_grad_() for parameter in start]
        optimizer = torch.optim.LBFGS(
            parameters, max_iter=3000, tolerance_grad=1e-8, tolerance_change=1e-15, line_search_fn="strong_wolfe"
        )

        def closure():
            optimizer.zero_grad()
            losses = self.inner(parameters)
            loss = (1 - alpha) * losses["task"] + alpha * losses["small"]
            loss.backward()
            return loss

        optimizer.step(closure)
        assert max(parameter.grad.abs().max() for parameter in parameters) < 1e-6  # converged
        return [parameter.detach() for parameter in parameters]


@pytest.mark.parametrize("hidden", [None, 8], ids=["logistic", "perceptron"])
@pytest.mark.parametrize("alpha", [0.05, 0.5])
def test_it_predicts_what_retraining_gives(hidden, alpha):
    network, delta = Network(hidden), 0.005
    optimum = network.train(alpha, network.start)
    retrained = [network.outer(network.train(a, optimum)) for a in (alpha + delta, alpha - delta)]
    expected = (retrained[0] - retrained[1]).item() / (2 * delta)
    solver = ConjugateGradient(damping=0.0, iterations=100, tolerance=1e-6)
    found = implicit_gradient(optimum, network.outer, network.inner, {"small": alpha}, solver)
    assert found.residual < 0.01
    assert found.gradients["small"].item() == pytest.approx(expected, rel=0.02)
    by_default = implicit_gradient(optimum, network.outer, network.inner, {"small": alpha})
    assert by_default.solved and by_default.gradients["small"].item() == pytest.approx(expected, rel=0.02)


# ---- the step ----
def points_around(theta, scale=1.0, **kwargs):
    seen = []

    def watched(parameters):
        seen.append(parameters[0].detach().clone())
        return inner(parameters)

    implicit_gradient([theta], outer, watched, {"gap": 0.5}, Identity(scale), **kwargs)
    return seen


def test_the_step_is_a_share_of_the_weights_norm_whatever_v_is():
    default = 0.01 * 2.0 ** (-52 / 3)
    for theta in (MINIMUM, 1000 * MINIMUM):
        for scale in (1.0, 1e-6, 1e6):
            ahead, behind = points_around(theta, scale)
            assert (ahead - theta).norm().item() == pytest.approx(default * theta.norm().item(), rel=1e-6)
            assert torch.allclose(ahead - theta, theta - behind, rtol=1e-6)
            direction = theta - theta.new_tensor([1.0, 0.0])  # the outer gradient
            assert F.cosine_similarity(ahead - theta, direction, dim=0).item() == pytest.approx(1)
    ahead, behind = points_around(MINIMUM, relative_step=0.1)
    assert (ahead - behind).norm().item() == pytest.approx(0.2 * MINIMUM.norm().item())


def test_weights_of_zero_still_take_a_step():
    theta = torch.zeros(2, dtype=torch.float64)
    ahead, behind = points_around(theta, relative_step=0.1)
    assert (ahead - behind).norm().item() == pytest.approx(0.2)
    # g = (-1, 0) and grad L_gap - grad L_task = -(6, 2): -g' d = -6
    assert closed_form(Identity(), theta).gradients["gap"].item() == pytest.approx(-6)


def test_a_zero_outer_gradient_gives_a_zero_hypergradient():
    theta = torch.tensor([1.0, 0.0], dtype=torch.float64)  # where the outer loss is least
    for solver, _ in SOLUTIONS:
        found = closed_form(solver, theta)
        assert found.gradients["gap"] == 0 and found.residual == 0


# ---- what it costs ----
@pytest.mark.parametrize(
    ("solver", "hessian", "cost"),
    [
        # 3 for the outer gradient; every product is two forward and two backward passes, and the last one serves the
        # residual and the terms
        (Identity(), "finite_difference", 3 + 6),
        (Neumann(0.01, 4), "finite_difference", 3 + 4 * 6 + 6),
        # damped, as this network bends downwards, too; nothing meets a tolerance of 0
        (ConjugateGradient(damping=10, iterations=5, tolerance=0), "finite_difference", 3 + 5 * 6 + 6),
        # one graph of the gradient (3), and through it 6 a product: each of its matmuls has two more behind it
        (Identity(), "exact", 3 + 3 + 6),
        (ConjugateGradient(damping=10, iterations=5, tolerance=0), "exact", 3 + 3 + 5 * 6 + 6),
    ],
)
def test_the_cost_is_what_was_spent(solver, hessian, cost):
    torch.manual_seed(0)
    layers, x = [torch.randn(32, 32) / 32**0.5 for _ in range(12)], torch.randn(16, 32)
    calls = {"outer": 0, "inner": 0, "backward": 0}

    def forward(parameters):
        z = x
        for weight in parameters:
            z = torch.tanh(z @ weight)
        return z

    def counted(name, loss):
        calls[name] += 1
        loss.register_hook(lambda grad: calls.update(backward=calls["backward"] + 1))
        return loss

    def inner_losses(parameters):
        z = forward(parameters)
        return {"task": counted("inner", z.square().mean()), "term": z.mean()}

    with FlopCounterMode(display=False) as one_forward:
        forward(layers)
    with FlopCounterMode(display=False) as spent:
        found = implicit_gradient(
            layers, lambda p: counted("outer", forward(p).square().sum()), inner_losses, {"term": 0.5}, solver, hessian
        )
    assert found.cost == cost
    # the first layer's input needs no gradient, which spares a twelfth of some passes
    assert spent.get_total_flops() / one_forward.get_total_flops() == pytest.approx(cost, rel=0.06)
    if hessian == "finite_difference":
        assert calls["outer"] == 1
        assert calls["outer"] + calls["inner"] + 2 * calls["backward"] == cost
    else:
        assert calls["outer"] == calls["inner"] == 1


class NoWaiting(TorchDispatchMode):
    """Refuses what reads a number off the device: `.item()`, `float(x)`, `if x`, `nonzero`."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        assert func not in (torch.ops.aten._local_scalar_dense.default, torch.ops.aten.nonzero.default), func
        return func(*args, **(kwargs or {}))


def test_approximations_never_wait_for_the_device():
    with NoWaiting():
        with pytest.raises(AssertionError):
            MINIMUM.sum().item()
        for hessian in HESSIANS:
            for solver, _ in SOLUTIONS:
                if not isinstance(solver, ConjugateGradient):
                    closed_form(solver, hessian=hessian)


# ---- what it leaves alone ----
@pytest.mark.parametrize("hessian", HESSIANS)
def test_parameters_gradients_and_random_state_stay_as_they_were(hessian):
    theta = MINIMUM.clone().requires_grad_()
    theta.grad = torch.tensor([7.0, 8.0], dtype=torch.float64)
    before, state = theta.detach().clone(), torch.get_rng_state()
    found = closed_form(theta=theta, hessian=hessian)
    assert torch.equal(theta, before) and theta.requires_grad and theta.grad_fn is None
    assert theta.grad.tolist() == [7.0, 8.0]
    assert torch.equal(torch.get_rng_state(), state)
    for tensor in (found.gradients["gap"], found.outer_loss, found.residual):
        assert not tensor.requires_grad and tensor.shape == ()
    with torch.no_grad():  # the caller's mode does not matter
        assert closed_form(theta=theta, hessian=hessian).gradients["gap"] == found.gradients["gap"]


@pytest.mark.parametrize("hessian", HESSIANS)
def test_an_autocast_around_the_call_does_not_reach_the_losses(hessian):
    torch.manual_seed(0)
    weight, x = torch.randn(4, 4), torch.randn(8, 4)

    def losses(parameters):
        z = x @ parameters[0]
        assert z.dtype == torch.float32
        return {"task": z.square().mean(), "term": z.exp().mean()}

    arguments = [weight], lambda p: losses(p)["task"], losses, {"term": 0.5}, Neumann(0.1, 2), hessian
    expected = implicit_gradient(*arguments)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert implicit_gradient(*arguments).gradients["term"] == expected.gradients["term"]


@pytest.mark.parametrize("hessian", HESSIANS)
@pytest.mark.parametrize("solver", [CONJUGATE, Neumann(0.3, 10), Identity()])
def test_parameters_that_some_losses_do_not_use_add_nothing(solver, hessian):
    # The unused one is near 0, so that the step, a share of the norm of all weights, stays comparable.
    parameters = [torch.full((3, 2), 1e-3, dtype=torch.float64), MINIMUM]
    found = implicit_gradient(
        parameters, lambda p: outer(p[1:]), lambda p: inner(p[1:]), {"gap": 0.5}, solver, hessian
    )
    assert found.gradients["gap"].item() == pytest.approx(closed_form(solver).gradients["gap"].item(), rel=1e-7)

    # L_task + p^2 / 2 in the inner losses alone: the outer loss does not care, so the hypergradient is the same
    def with_more(p):
        losses = inner(p[1:])
        return {"task": losses["task"] + p[0].square().sum() / 2, "gap": losses["gap"]}

    found = implicit_gradient(parameters, lambda p: outer(p[1:]), with_more, {"gap": 0.5}, solver, hessian)
    assert found.gradients["gap"].item() == pytest.approx(closed_form(solver).gradients["gap"].item(), rel=1e-7)


def test_a_term_that_is_constant_counts_as_having_no_gradient():
    # d = -grad L_task = -(3/2, 4/3), and H = diag(1, 4) / 2: -g' H^-1 d = 1/2 * 3/2 * 2 + 1/3 * 4/3 / 2
    for hessian in HESSIANS:
        found = implicit_gradient(
            [MINIMUM], outer, lambda p: {**inner(p), "gap": p[0].new_zeros(())}, {"gap": 0.5}, CONJUGATE, hessian
        )
        assert found.gradients["gap"].item() == pytest.approx(1.5 + 2 / 9, rel=1e-6)


@pytest.mark.parametrize("hessian", HESSIANS)
def test_linear_losses_have_no_curvature(hessian):
    # d = (2, 0) - (1, 1): -g'd = -(1/2 - 1/3), and H v - g = -g
    def linear(p):
        return {"task": p[0].sum(), "gap": 2 * p[0][0]}

    found = implicit_gradient([MINIMUM], outer, linear, {"gap": 0.5}, Identity(), hessian)
    assert found.gradients["gap"].item() == pytest.approx(-1 / 6, rel=1e-6)
    assert found.residual.item() == pytest.approx(1)


# ---- several processes ----
def on_two_threads(work):
    """Runs `work(rank, average)` on two threads; `average` is the mean of what both hand in, as by an all-reduce."""
    barrier, given, results, errors = threading.Barrier(2, timeout=60), [None, None], [None, None], []

    def run(rank):
        def average(tensor):
            given[rank] = tensor.clone()
            barrier.wait()
            mean = (given[0] + given[1]) / 2
            barrier.wait()
            return tensor.copy_(mean)  # in place, as collectives are

        try:
            results[rank] = work(rank, average)
        except BaseException as error:
            errors.append(error)
            barrier.abort()

    threads = [threading.Thread(target=run, args=(rank,)) for rank in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors, errors
    return results


@pytest.mark.parametrize("hessian", HESSIANS)
@pytest.mark.parametrize("solver", [ConjugateGradient(iterations=5), Neumann(0.1, 3), Identity()])
def test_two_shards_that_are_averaged_equal_the_whole(solver, hessian):
    network, alphas = Network(None), {"small": 0.3}
    whole = implicit_gradient(network.start, network.outer, network.inner, alphas, solver, hessian)

    def shard(rank, average):
        part = Network(None)
        for name in ("x", "y", "x_outer", "y_outer"):
            setattr(part, name, getattr(network, name)[rank::2])
        return implicit_gradient(network.start, part.outer, part.inner, alphas, solver, hessian, average)

    first, second = on_two_threads(shard)
    for name in ("outer_loss", "residual"):
        assert getattr(first, name) == getattr(second, name)
        assert getattr(first, name).item() == pytest.approx(getattr(whole, name).item(), rel=1e-5)
    assert first.gradients["small"] == second.gradients["small"]
    assert first.gradients["small"].item() == pytest.approx(whole.gradients["small"].item(), rel=1e-6)


# ---- losses that are not finite ----
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("hessian", HESSIANS)
@pytest.mark.parametrize("where", ["outer", "task", "gap"])
def test_a_loss_that_is_not_finite_makes_every_gradient_nan_on_every_process(where, hessian, value):
    def work(rank, average):
        bad = value if rank == 1 else 0.0  # added: the gradient alone would not tell

        def inner_losses(p):
            losses = {**inner(p), "other": p[0].sum()}
            return {name: loss + (bad if name == where else 0.0) for name, loss in losses.items()}

        def outer_loss(p):
            return outer(p) + (bad if where == "outer" else 0.0)

        for solver in (CONJUGATE, Neumann(0.3, 2), Identity()):
            alphas = {"gap": 0.3, "other": 0.2}
            found = implicit_gradient([MINIMUM], outer_loss, inner_losses, alphas, solver, hessian, average)
            assert found.gradients["gap"].isnan() and found.gradients["other"].isnan(), solver

    on_two_threads(work)


@pytest.mark.parametrize("hessian", HESSIANS)
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_an_outer_gradient_that_is_not_finite_gives_nan(value, hessian):
    for solver, _ in SOLUTIONS:
        found = implicit_gradient([MINIMUM], lambda p: outer(p) * value, inner, {"gap": 0.5}, solver, hessian)
        assert found.gradients["gap"].isnan() and found.residual.isnan()


@pytest.mark.parametrize("hessian", HESSIANS)
def test_conjugate_gradients_do_not_take_a_gradient_that_is_not_finite_for_convergence(hessian):
    # Losses that are finite, with a gradient of infinity (the root of 0) outside and of NaN (0 times that) inside.
    def bad_outer(p):
        return outer(p) + (p[0][1] - MINIMUM[1]).sqrt()

    def bad_inner(p):
        return {**inner(p), "gap": (0 * p[0]).sqrt().sum()}

    for outer_loss, inner_losses in ((bad_outer, inner), (outer, bad_inner)):
        found = implicit_gradient([MINIMUM], outer_loss, inner_losses, {"gap": 0.5}, CONJUGATE, hessian)
        assert found.outer_loss.isfinite() and not found.gradients["gap"].isfinite() and found.residual.isnan()


# ---- conjugate gradients where the Hessian is not positive definite ----
def saddle(parameters):
    (theta,) = parameters
    return {"task": (theta.new_tensor([2.0, -1.0]) * theta.square()).sum(), "gap": theta.sum()}


@pytest.mark.parametrize("hessian", HESSIANS)
def test_conjugate_gradients_stop_at_negative_curvature(hessian):
    # H = diag(2, -1) of the weighted sum: half the task's, and the gap is linear
    theta = torch.tensor([1.0, 1.0], dtype=torch.float64)

    def solve(goal, **kwargs):
        # g = theta - goal
        outer_loss = lambda p: (p[0] - p[0].new_tensor(goal)).square().sum() / 2  # noqa: E731
        solver = ConjugateGradient(**{"damping": 0.0, "iterations": 5, **kwargs})
        return implicit_gradient([theta], outer_loss, saddle, {"gap": 0.5}, solver, hessian)

    # g = (0, 1) has curvature -1 from the first step: nothing is known, v = 0
    found = solve([1.0, 0.0])
    assert found.gradients["gap"].item() == pytest.approx(0, abs=1e-12)
    assert found.residual.item() == pytest.approx(1)
    assert found.solved is False
    # with damping 2, H + 2 = diag(4, 1): v = (0, 1), d = (1, 1) - (4, -2) = (-3, 3), so -v'd = -3
    damped = solve([1.0, 0.0], damping=2.0)
    assert damped.gradients["gap"].item() == pytest.approx(-3, rel=1e-6)
    assert damped.solved  # the damped system
    # g = (1, 1) has curvature 2 - 1 = 1: v = (2, 2) first; then r = g - H v = (-3, 3) and
    # p = r + (18 / 2) g = (6, 12) with curvature 72 - 144 < 0, so v stays (2, 2): -v'd = 0, |H v - g| / |g| = 3
    found = solve([0.0, 0.0])
    assert found.gradients["gap"].item() == pytest.approx(0, abs=1e-6)
    assert found.residual.item() == pytest.approx(3, rel=1e-6)
    assert found.solved is False


def test_iterations_after_convergence_change_nothing():
    few, many = (closed_form(ConjugateGradient(0.0, iterations, 1e-4)) for iterations in (2, 12))
    assert few.gradients["gap"] == many.gradients["gap"]
    # A tolerance that the first step meets: v = 13/30 g, and g - H v = (1/15, -1/10) is 1/5 of g = (1/2, 1/3); so is, over
    # the curvature 30/13 times |v|, the error. The second product is the check.
    first = closed_form(ConjugateGradient(0.0, 12, 0.5))
    assert first.residual.item() == pytest.approx(0.2, rel=1e-6) and first.solved and first.cost == 3 + 2 * 6


# ---- Adam's diagonal ----
@pytest.mark.parametrize("cls", [torch.optim.Adam, torch.optim.AdamW])
@pytest.mark.parametrize("amsgrad", [False, True])
def test_the_diagonal_of_adam_by_hand(cls, amsgrad):
    a, b, never = (torch.ones(size, requires_grad=True) for size in (3, 1, 2))
    groups = [{"params": [a, never]}, {"params": [b], "lr": 0.5, "eps": 0.25, "betas": (0.9, 0.5)}]
    optimizer = cls(groups, lr=0.1, betas=(0.9, 0.75), eps=0.0, amsgrad=amsgrad)
    for gradients in (([8.0, 0.5, 0.0], [2.0]), ([2.0, 1.0, 0.0], [4.0])):
        a.grad, b.grad = map(torch.tensor, gradients)
        optimizer.step()
    before = {name: value.clone() for name, value in optimizer.state[a].items()}
    of_b, of_never, of_a = adam_diagonal(optimizer, [b, never, a])
    # a: after the squares s1, s2 the moment is (s1 * 3 + s2 * 4) / 16, over 1 - 0.75^2 = 7/16: (3 s1 + 4 s2) / 7.
    # AMSGrad keeps the larger of both moments, s1 / 4 = 16 for the first coordinate, before the same correction.
    first = 16 * 16 / 7 if amsgrad else (3 * 64 + 4 * 4) / 7
    assert of_a.tolist() == pytest.approx([0.1 / first**0.5, 0.1 / ((3 * 0.25 + 4) / 7) ** 0.5, 0])
    # b: (4 / 4 + 16 / 2) / (1 - 1/4) = 12
    assert of_b.tolist() == pytest.approx([0.5 / (12**0.5 + 0.25)])
    assert of_never.tolist() == [0, 0]
    assert all(torch.equal(value, before[name]) for name, value in optimizer.state[a].items())


def test_an_optimizer_without_second_moments_is_named():
    theta = torch.ones(2, requires_grad=True)
    theta.grad = torch.ones(2)
    adam, sgd = torch.optim.AdamW([theta]), torch.optim.SGD([theta], momentum=0.9)
    with pytest.raises(ValueError, match="AdamW has no state for any of the 1 parameters"):
        adam_diagonal(adam, [theta])
    sgd.step()
    with pytest.raises(ValueError, match=r"SGD has no second moments .* only \['momentum_buffer'\]"):
        adam_diagonal(sgd, [theta])
    with pytest.raises(ValueError, match=r"parameter 0 of shape \(2,\) is not one that this AdamW optimizes"):
        adam_diagonal(adam, [theta.detach().clone()])


# ---- bad input ----
def test_numbers_out_of_range_are_named():
    for make, message in [
        (lambda: Identity(0.0), "scale=0.0"),
        (lambda: Neumann(float("nan"), 1), "scale=nan"),
        (lambda: Neumann(0.1, -1), "terms=-1"),
        (lambda: ConjugateGradient(damping=-0.1), "damping=-0.1"),
        (lambda: ConjugateGradient(iterations=0), "iterations=0"),
        (lambda: ConjugateGradient(tolerance=float("inf")), "tolerance=inf"),
        (lambda: closed_form(relative_step=0.0), "relative_step=0.0"),
        (lambda: closed_form(relative_step=0.1, hessian="exact"), "relative_step=0.1"),
        (lambda: closed_form(hessian="fisher"), "hessian='fisher' is unknown: choose one of finite_difference, exact"),
    ]:
        with pytest.raises(ValueError, match=message):
            make()


@pytest.mark.parametrize(
    ("alphas", "message"),
    [
        ({}, r"alphas=\{\}: give one weight for every term"),
        ({"task": 0.5}, "none for 'task'"),
        ({"gap": 1.5}, "alpha=1.5 for the term 'gap'"),
        ({"gap": float("nan")}, "nan"),
        ({"gap": 0.6, "other": 0.6}, "sum is at most 1"),
        ({"other": 0.5}, r"inner_losses gives \['gap', 'task'\], and the alphas are of \['other'\]"),
    ],
)
def test_alphas_that_do_not_fit_are_named(alphas, message):
    with pytest.raises(ValueError, match=message):
        implicit_gradient([MINIMUM], outer, inner, alphas)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ([], "the 0 parameters"),
        ([MINIMUM.bfloat16()], "torch.bfloat16 on cpu"),
        ([MINIMUM, MINIMUM.float()], r"\['torch.float32 on cpu', 'torch.float64 on cpu'\]"),
    ],
)
def test_parameters_of_the_wrong_kind_are_named(parameters, message):
    with pytest.raises(ValueError, match=message):
        implicit_gradient(parameters, outer, inner, {"gap": 0.5})


@pytest.mark.parametrize("hessian", HESSIANS)
@pytest.mark.parametrize(
    ("outer_loss", "inner_losses", "message"),
    [
        (lambda p: p[0], inner, r"outer_loss gives torch.float64 of shape \(2,\)"),
        (lambda p: outer([MINIMUM]), inner, "outer_loss does not depend on the parameters"),
        (lambda p: outer([MINIMUM.clone().requires_grad_()]), inner, "outer_loss does not depend on the parameters"),
        (outer, lambda p: inner([MINIMUM]), "the weighted sum of inner_losses does not depend"),
        (outer, lambda p: {**inner(p), "gap": p[0].sum().bfloat16()}, r"inner_losses\['gap'\] gives torch.bfloat16"),
    ],
)
def test_losses_that_are_no_functions_of_the_parameters_are_named(outer_loss, inner_losses, message, hessian):
    with pytest.raises(ValueError, match=message):
        implicit_gradient([MINIMUM], outer_loss, inner_losses, {"gap": 0.5}, hessian=hessian)


def test_losses_coarser_than_the_default_step_are_refused():
    def in_single(p):
        return {name: loss.float() for name, loss in inner(p).items()}

    with pytest.raises(ValueError, match="torch.float32 and the parameters torch.float64.*relative_step=4.9e-05"):
        implicit_gradient([MINIMUM], outer, in_single, {"gap": 0.5})
    found = implicit_gradient([MINIMUM], outer, in_single, {"gap": 0.5}, CONJUGATE, relative_step=1e-2)
    assert found.gradients["gap"].item() == pytest.approx(113 / 108, rel=1e-4)


def test_a_diagonal_of_other_parameters_is_named():
    with pytest.raises(ValueError, match=r"diagonal 0 is of shape \(3,\), and parameter 0 of shape \(2,\)"):
        closed_form(AdamDiagonal([torch.ones(3)]))
    with pytest.raises(ValueError, match=r"diagonal 1 is of shape \(1,\), and parameter 1 missing"):
        closed_form(AdamDiagonal([torch.ones(2), torch.ones(1)]))
    with pytest.raises(ValueError, match=r"diagonal 0 is of shape \(3,\), and parameter 0 of shape \(2,\)"):
        closed_form(ConjugateGradient(diagonal=[torch.ones(3)]))
