"""The Wasserstein-2 distance between two clouds of latents, exact and in three approximations, on POT.

Shape legend: N and M samples, D dimensions of a latent, P directions. The arithmetic is in float64, on the device where
the latents are, and no matrix is larger than `max_exact` x `max_exact` or a cloud. (The exact solver itself runs on the CPU.)
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import combinations
from typing import Any, Literal, get_args

import numpy as np
import ot
import torch
from scipy.stats import t as student_t


Method = Literal["exact", "gaussian", "sliced", "sinkhorn"]
SIMPLEX_STEPS = 100_000_000  # POT's 100,000 do not suffice for 2,000 x 2,000
SINKHORN_STEPS = 5_000
DIRECTIONS_AT_ONCE = 50


@dataclass(frozen=True)
class Wasserstein:
    """A distance between two clouds, as [`wasserstein2`] measured it.

    Args:
        w2 (`float`): The distance, in latent units: the root of `w2_squared`. A translation by s gives |s|.
        w2_squared (`float`): Its square, in squared latent units: the mean squared way of the cheapest transport.
        method (`str`): `"exact"`, `"gaussian"`, `"sliced"` or `"sinkhorn"`.
        low, high (`float`, *optional*): 95% t-interval of `w2_squared` over mini-batches or directions, cut at 0; None
            where there is nothing to average.
        batches (`int`): How many mini-batches `w2_squared` is the mean of; 1 where all samples were used together.
        note (`str`): What it approximates and which way it errs, in one sentence; `""` where it is exact.
    """

    w2: float
    w2_squared: float
    method: str
    low: float | None
    high: float | None
    batches: int
    note: str


@dataclass(frozen=True)
class Triple:
    """The three distances between teacher targets, baseline latents and co-learned latents."""

    targets_to_baseline: Wasserstein
    targets_to_colearned: Wasserstein
    baseline_to_colearned: Wasserstein


def wasserstein2(
    x: np.ndarray | torch.Tensor,
    y: np.ndarray | torch.Tensor,
    method: Method = "exact",
    *,
    max_exact: int = 2000,
    num_batches: int = 10,
    num_projections: int = 500,
    regularization: float = 0.05,
    seed: int = 0,
) -> Wasserstein:
    r"""The Wasserstein-2 distance between two clouds of equally weighted points, and its square.

    \\(W_2^2 = \min_\gamma \sum_{ij} \gamma_{ij} |x_i - y_j|^2\\) over the plans \\(\gamma\\) that move all of x to all of y.
    Between the given points, in whatever order:

    - `"exact"` solves the transport (network simplex). Above `max_exact` rows it is the mean of the *squared* distance
      over random mini-batches, and `w2` is the root of that mean. It is **biased upwards**: even two mini-batches of
      one cloud are apart, the more so the smaller they are and the more dimensions there are (Fatras et al., "Learning
      with minibatch Wasserstein", AISTATS 2020). [`sampling_floor`] measures how far; the interval does not cover it.
    - `"gaussian"` is the distance of the Gaussians with the clouds' means and covariances (divided by N): exact for
      Gaussians, a lower bound for all other clouds (Gelbrich, 1990), also of fewer samples than dimensions. It is
      \\(|m_x - m_y|^2 + \min_Q \|R_x - Q R_y\|_F^2\\) over rotations Q, R being roots of the covariances (Bhatia et al.,
      "On the Bures-Wasserstein distance between positive definite matrices", 2019).
    - `"sliced"` is the sliced distance as it is defined, not rescaled to W2: the mean of W2 squared over random
      directions on which both clouds are projected (Bonneel et al., 2015). A translation by s gives |s|^2 / D, and
      always SW2^2 <= W2^2 / D, so compare it with other sliced distances of the same width alone.
    - `"sinkhorn"` is the debiased Sinkhorn divergence, \\(OT_e(x, y) - (OT_e(x, x) + OT_e(y, y)) / 2\\), with the entropy
      relative to independence (Feydy et al., AISTATS 2019). It goes to W2 squared as the regularization goes to 0, and
      to the squared distance of the means as it grows. In mini-batches above `max_exact` rows, as the exact one.

    Args:
        x, y (`np.ndarray` or `torch.Tensor` of shapes `(N, D)` and `(M, D)`): Tensors stay on their device, without gradient.
        method (`str`, *optional*, defaults to `"exact"`): One of the four above.
        max_exact (`int`, *optional*, defaults to 2000): Rows of a cloud above which `"exact"` and `"sinkhorn"` draw
            mini-batches of this many rows from it.
        num_batches (`int`, *optional*, defaults to 10): How many mini-batches; each is drawn anew without replacement.
        num_projections (`int`, *optional*, defaults to 500): Directions of `"sliced"`.
        regularization (`float`, *optional*, defaults to 0.05): Of `"sinkhorn"`, in units of the median squared distance.
        seed (`int`, *optional*, defaults to 0): For mini-batches and directions.

    Raises:
        `ValueError`: If a cloud is empty, not two-dimensional or not finite, the widths or devices differ, an option is
            out of range, or a solver did not converge.
    """
    if method not in get_args(Method):
        raise ValueError(f"there is no method '{method}': choose from {list(get_args(Method))}")
    _at_least_one(max_exact=max_exact, num_batches=num_batches, num_projections=num_projections)
    if not regularization > 0:
        raise ValueError(f"regularization must be above 0, got {regularization}: method='exact' has none")
    x_ND, y_MD = _clouds(x=x, y=y).values()
    if method == "gaussian":
        note = "between the Gaussians with the clouds' means and covariances: a lower bound of W2, exact for Gaussians"
        return _measured([_gaussian(x_ND, y_MD)], method, 1, note)
    if method == "sliced":
        note = f"mean over {num_projections:,} random directions, not rescaled: a translation by s counts "
        note += f"|s|^2 / {x_ND.shape[1]}, so it compares with sliced distances alone"
        return _measured(_sliced(x_ND, y_MD, num_projections, seed), method, 1, note)

    solve, notes = _exact, list[str]()
    if method == "sinkhorn":
        solve = partial(_sinkhorn, regularization=regularization)
        notes.append(f"debiased entropic approximation (regularization {regularization:g} of the median cost)")
    if max(len(x_ND), len(y_MD)) <= max_exact:
        return _measured([solve(x_ND, y_MD)], method, 1, "".join(notes))
    generator = np.random.default_rng(seed)
    rows, columns = min(max_exact, len(x_ND)), min(max_exact, len(y_MD))
    values = [solve(_draw(x_ND, rows, generator), _draw(y_MD, columns, generator)) for _ in range(num_batches)]
    notes.append(
        f"mean over {num_batches} random mini-batches of {rows:,} and {columns:,} of the {len(x_ND):,} and {len(y_MD):,} "
        "samples, biased upwards: even two mini-batches of one cloud are apart"
    )
    return _measured(values, method, num_batches, "; ".join(notes))


def sampling_floor(
    x: np.ndarray | torch.Tensor,
    method: Method = "exact",
    *,
    max_exact: int = 2000,
    num_batches: int = 10,
    seed: int = 0,
    **options: Any,
) -> Wasserstein:
    """The distance between random halves of one cloud: what [`wasserstein2`] shows where there is no difference.

    A distance of two clouds that is not clearly above their floors says nothing. The halves have
    `min(max_exact, N // 2)` samples (`N // 2` for `"gaussian"` and `"sliced"`), and fewer samples are further apart: from
    `2 * max_exact` samples on the floor is that of a mini-batch distance, below it is higher than the distance's own. The
    cloud is halved at random `num_batches` times; other options are as of [`wasserstein2`].
    """
    _at_least_one(max_exact=max_exact, num_batches=num_batches)
    x_ND = _clouds(x=x)["x"]
    half = min(len(x_ND) // 2, max_exact if method in ("exact", "sinkhorn") else len(x_ND))
    if half == 0:
        raise ValueError("a cloud of 1 sample has no halves to compare: give at least 2 samples")
    generator = np.random.default_rng(seed)
    options |= {"max_exact": max_exact, "num_batches": num_batches, "seed": seed}
    halvings = (_draw(x_ND, 2 * half, generator).split(half) for _ in range(num_batches))
    values = [wasserstein2(one, other, method, **options).w2_squared for one, other in halvings]
    note = f"between random halves of one cloud, {half:,} samples each, mean over {num_batches} halvings"
    return _measured(values, method, num_batches, note)


def transport_triple(
    targets: np.ndarray | torch.Tensor,
    baseline: np.ndarray | torch.Tensor,
    colearned: np.ndarray | torch.Tensor,
    method: Method = "exact",
    **options: Any,
) -> Triple:
    """The three distances between the teacher's targets, the baseline's latents and the co-learned latents.

    Lee & Yoon ("Can One Modality Model Synergize Training of Other Modality Models?", ICLR 2025) print these three as W2.
    Their triples violate the triangle inequality, which no W2 does, and fit as W2 *squared*: compare them with `w2_squared`.
    The clouds need one width, not one length; options are as of [`wasserstein2`], with one seed for all three.
    """
    clouds = _clouds(targets=targets, baseline=baseline, colearned=colearned)
    return Triple(*(wasserstein2(*pair, method, **options) for pair in combinations(clouds.values(), 2)))


def triangle_warning(triple: Triple) -> str:
    """A sentence that warns where a triple's intervals leave no doubt that it is not three W2; `""` where all is well.

    The longest of three W2 is at most the sum of the others. `"exact"` on all samples, `"gaussian"` and `"sliced"` keep to
    that; means over mini-batches and the Sinkhorn divergence need not.
    """
    legs = {name.replace("_", " ").replace("colearned", "co-learned"): leg for name, leg in vars(triple).items()}
    name, longest = max(legs.items(), key=lambda leg: leg[1].w2)
    first, second = (leg for key, leg in legs.items() if key != name)
    at_least = (longest.w2_squared if longest.low is None else longest.low) ** 0.5
    at_most = sum((leg.w2_squared if leg.high is None else leg.high) ** 0.5 for leg in (first, second))
    if at_least <= at_most * (1 + 1e-6):  # three clouds on one line meet the bound up to rounding
        return ""
    return (
        f"These are not three W2 distances: the one from {name}, {longest.w2:.4g}, is longer than the other two together "
        f"({first.w2:.4g} + {second.w2:.4g}); the {longest.method} estimate errs by more than its interval, so raise "
        "max_exact or num_batches, or use method='gaussian'."
    )


def _measured(squares: Sequence[float], method: str, batches: int, note: str) -> Wasserstein:
    """The mean of squared distances, with its t-interval where there are several."""
    mean, n = float(np.mean(squares)), len(squares)
    if n == 1:
        return Wasserstein(mean**0.5, mean, method, None, None, batches, note)
    half = float(student_t.ppf(0.975, n - 1) * np.std(squares, ddof=1) / n**0.5)
    return Wasserstein(mean**0.5, mean, method, max(0.0, mean - half), mean + half, batches, note)


def _exact(x_ND: torch.Tensor, y_MD: torch.Tensor) -> float:
    x_ND, y_MD = _near_the_origin(x_ND, y_MD)
    cost_NM = ot.dist(x_ND, y_MD, metric="sqeuclidean")
    scale = cost_NM.mean()
    if scale == 0:
        return 0.0  # one point
    # The simplex stops at absolute differences, so that small latents would silently give a wrong plan.
    plan_NM, log = ot.emd([], [], cost_NM.div_(scale), numItermax=SIMPLEX_STEPS, log=True)
    if log["warning"] is not None:
        why = log["warning"]
        raise ValueError(f"the exact transport was not solved ({why}): lower max_exact, or use another method")
    # Of the points themselves: the costs above leave 1e-8 between equal clouds.
    i, j = plan_NM.nonzero(as_tuple=True)
    return max(0.0, (plan_NM[i, j] @ (x_ND[i] - y_MD[j]).square().sum(dim=1)).item())


def _gaussian(x_ND: torch.Tensor, y_MD: torch.Tensor) -> float:
    means = (x_ND.mean(dim=0) - y_MD.mean(dim=0)).square().sum()
    roots = [torch.linalg.qr((z - z.mean(dim=0)) / len(z) ** 0.5, mode="r").R for z in (x_ND, y_MD)]
    rank = max(len(root) for root in roots)
    x_RD, y_RD = (torch.nn.functional.pad(root, (0, 0, 0, rank - len(root))) for root in roots)
    left_RR, _, right_RR = torch.linalg.svd(x_RD @ y_RD.T)
    # The residual of the best rotation, not tr A + tr B - 2 tr (A B)^1/2: no difference of large numbers, no root of
    # a negative eigenvalue. (POT's `empirical_bures_wasserstein_distance` is NaN for fewer samples than dimensions.)
    return (means + (x_RD - left_RR @ right_RR @ y_RD).square().sum()).item()


def _sliced(x_ND: torch.Tensor, y_MD: torch.Tensor, num_projections: int, seed: int) -> list[float]:
    """The squared distance along each of P directions, `(P,)`; drawn on the CPU, so that every device has the same."""
    x_ND, y_MD = _near_the_origin(x_ND, y_MD)
    directions_DP = np.random.default_rng(seed).standard_normal((x_ND.shape[1], num_projections))
    directions_DP /= np.linalg.norm(directions_DP, axis=0)
    values: list[float] = []
    for part_DP in torch.from_numpy(directions_DP).to(x_ND.device).split(DIRECTIONS_AT_ONCE, dim=1):
        _, log = ot.sliced_wasserstein_distance(x_ND, y_MD, p=2, projections=part_DP, log=True)
        values += log["projected_emds"].tolist()
    return values


def _sinkhorn(x_ND: torch.Tensor, y_MD: torch.Tensor, regularization: float) -> float:
    x_ND, y_MD = _near_the_origin(x_ND, y_MD)
    cost_NM = ot.dist(x_ND, y_MD, metric="sqeuclidean")
    strength = regularization * cost_NM.median().item()
    if strength == 0:
        raise ValueError("at least half of the pairs of x and y coincide, so the median cost is 0: use method='exact'")
    # Not POT's `empirical_sinkhorn_divergence`, which leaves the entropies out and is a tenth to a third larger.
    own = sum(_entropic_to_itself(ot.dist(z, z, metric="sqeuclidean"), strength) for z in (x_ND, y_MD))
    return max(0.0, _entropic(cost_NM, strength) - own / 2)


def _entropic(cost_NM: torch.Tensor, strength: float) -> float:
    """min <plan, cost> + strength KL(plan | independence)."""
    a_N, b_M = (ot.unif(n, type_as=cost_NM) for n in cost_NM.shape)
    enough = 1e-4 * len(b_M) ** -0.5  # of the marginal's norm; what is left errs the value by some 1e-7 of itself
    options = {"numItermax": SINKHORN_STEPS, "stopThr": enough, "warn": False, "log": True}
    _, log = ot.bregman.sinkhorn_log(a_N, b_M, cost_NM, strength, **options)
    if not log["err"][-1] < enough:
        raise ValueError(
            f"Sinkhorn did not converge in {SINKHORN_STEPS:,} steps at {strength:.3g} squared latent units: raise "
            "regularization, or use method='exact'"
        )
    # The dual value: in what is left of the marginals its error is of second order.
    return strength * (a_N @ (log["log_u"] - a_N.log()) + b_M @ (log["log_v"] - b_M.log())).item()


def _entropic_to_itself(cost_NN: torch.Tensor, strength: float) -> float:
    """[`_entropic`] of a cloud and itself: one potential, by averaged steps, tens where alternating ones take thousands."""
    logits_NN = cost_NN.div_(-strength) - math.log(len(cost_NN))
    potential_N = logits_NN.new_zeros(len(logits_NN))  # in units of the strength
    for _ in range(SINKHORN_STEPS):
        step_N = -torch.logsumexp(logits_NN + potential_N, dim=1) - potential_N
        potential_N = potential_N + step_N / 2
        if step_N.abs().max() < 1e-9:
            return 2 * strength * potential_N.mean().item()
    raise ValueError(f"Sinkhorn did not converge in {SINKHORN_STEPS:,} steps on one cloud: use method='exact'")


def _near_the_origin(x_ND: torch.Tensor, y_MD: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Both moved by one vector, which changes no distance and keeps the digits of clouds that lie far out."""
    centre_D = x_ND.mean(dim=0)
    return x_ND - centre_D, y_MD - centre_D


def _draw(z_ND: torch.Tensor, rows: int, generator: np.random.Generator) -> torch.Tensor:
    return z_ND[torch.from_numpy(generator.permutation(len(z_ND))[:rows]).to(z_ND.device)]


def _clouds(**given: np.ndarray | torch.Tensor) -> dict[str, torch.Tensor]:
    """The clouds by name, checked, in float64."""
    clouds = {}
    for name, cloud in given.items():
        # A copy of an array: torch warns of those that are read-only.
        cloud = cloud.detach() if isinstance(cloud, torch.Tensor) else torch.from_numpy(np.array(cloud, np.float64))
        if cloud.ndim != 2 or cloud.numel() == 0:
            raise ValueError(f"cloud '{name}' must hold latents [N, D], got shape {tuple(cloud.shape)}")
        if bad := int((~cloud.isfinite().all(dim=1)).sum()):
            what = f"{bad} of {len(cloud)} latents of cloud '{name}'"
            raise ValueError(f"{what} are not finite, so no distance is defined")
        clouds[name] = cloud.double()
    for what, of in (("width", lambda cloud: cloud.shape[1]), ("device", lambda cloud: str(cloud.device))):
        found = {name: of(cloud) for name, cloud in clouds.items()}
        if len(set(found.values())) > 1:
            raise ValueError(f"the clouds must have one {what}, got {found}")
    return clouds


def _at_least_one(**counts: int) -> None:
    for name, count in counts.items():
        if count < 1:
            raise ValueError(f"{name} must be at least 1, got {count}")
