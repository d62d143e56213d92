"""Distances between two clouds of weighted points, of which no point of the one belongs to a point of the other.

All take points `x_ND`, `y_MD` and C rows of weights for each, `a_CN` and `b_CM`, such as a row a class, and give C distances. A
point of weight 0 does not count; a row of weights need not sum to 1, and in one of zeros all points count alike. Gradients flow
into `x_ND` alone. Computed in float32 (float64 for float64 points).

Shapes: N and M points, D dimensions, P directions, K = C P pairs of them.
"""

import ot
import torch
import torch.nn.functional as F

from hf_colearn.utils.distributed import overwrite_from_main_process


_WIDTHS = (0.25, 0.5, 1.0, 2.0, 4.0)  # of kernels, in units of the mean squared distance


def sliced_wasserstein(
    x_ND: torch.Tensor, y_MD: torch.Tensor, a_CN: torch.Tensor, b_CM: torch.Tensor, projections: int = 64
) -> torch.Tensor:
    r"""The squared sliced Wasserstein-2 distance, `(C,)`: the mean over P random directions \\(\theta\\) of

    \\(W_2^2(\theta^\top x, \theta^\top y) = \int_0^1 (F_x^{-1}(q) - F_y^{-1}(q))^2 dq\\),

    with \\(F^{-1}\\) the quantiles of the projected points: on a line, of two clouds of equal size and weights, the mean
    squared difference of the sorted values. In the points' squared units a dimension: 0 where the clouds are one, and a shift
    by s gives \\(\|s\|^2 / D\\) on average. It is the square, whose slope is finite at 0, where that of the root is not.

    The directions are drawn from torch's generator, anew in every call and the same on all processes. Source: "Sliced and Radon
    Wasserstein Barycenters of Measures" (Bonneel et al., 2015); on the line it is POT's `wasserstein_1d`.

    Args:
        x_ND, y_MD, a_CN, b_CM: Points and their weights.
        projections (`int`, *optional*, defaults to 64): P.

    Example:

    ```python
    >>> import torch
    >>> from hf_colearn.objectives.distribution_distances import sliced_wasserstein

    >>> x, y = torch.tensor([[0.0], [1.0], [2.0]]), torch.tensor([[1.0], [4.0], [1.0]])
    >>> sliced_wasserstein(x, y, torch.ones(1, 3), torch.ones(1, 3))  # (1 + 0 + 4) / 3
    tensor([1.6667])
    ```
    """
    x_ND, y_MD, a_CN, b_CM = _prepared(x_ND, y_MD, a_CN, b_CM)
    theta_DP = F.normalize(torch.randn(x_ND.shape[1], projections, device=x_ND.device, dtype=x_ND.dtype), dim=0)
    overwrite_from_main_process([theta_DP])
    # POT takes columns of a matrix: every direction with every row of weights.
    (x_NK, a_NK), (y_MK, b_MK) = (
        ((z_ND @ theta_DP).repeat(1, len(w_CN)), w_CN.T.repeat_interleave(projections, dim=1))
        for z_ND, w_CN in ((x_ND, a_CN), (y_MD, b_CM))
    )
    return ot.wasserstein_1d(x_NK, y_MK, a_NK, b_MK, p=2).view(len(a_CN), projections).mean(dim=1)


def sinkhorn_divergence(
    x_ND: torch.Tensor,
    y_MD: torch.Tensor,
    a_CN: torch.Tensor,
    b_CM: torch.Tensor,
    regularization: float = 0.1,
    iterations: int = 50,
) -> torch.Tensor:
    r"""The Sinkhorn divergence, `(C,)`: \\(S = OT(x, y) - \frac{1}{2} OT(x, x) - \frac{1}{2} OT(y, y)\\), with

    \\(OT(x, y) = \min_\pi \sum_{ij} \pi_{ij} c_{ij} + \varepsilon KL(\pi \| a b^\top)\\) over plans with the marginals a and b,
    and \\(c_{ij} = \|x_i - y_j\|^2 / D\\). A shift by s gives \\(\|s\|^2 / D\\), as of [`sliced_wasserstein`].

    Symmetric Sinkhorn updates of the dual potentials, a fixed number, after which the gradient is that of a last update. The
    potentials' own change is left out, so that second derivatives are not exact. Source: "Interpolating between Optimal
    Transport and MMD using Sinkhorn Divergences" (Feydy et al., AISTATS 2019). POT's `empirical_sinkhorn_divergence` leaves
    out the entropic terms, is cut at 0, and reads the error on the host.

    Args:
        x_ND, y_MD, a_CN, b_CM: Points and their weights.
        regularization (`float`, *optional*, defaults to 0.1): \\(\varepsilon\\), in units of c. Towards 0 the divergence
            becomes the squared Wasserstein-2 distance over D, and needs more iterations; for a large one it is the squared
            distance of the means over D.
        iterations (`int`, *optional*, defaults to 50): Updates.
    """
    x_ND, y_MD, a_CN, b_CM = _prepared(x_ND, y_MD, a_CN, b_CM)
    fixed_ND, dims = x_ND.detach(), x_ND.shape[1]
    xy_NM, xx_NN, yy_MM = (_squared_distances(*pair) / dims for pair in ((x_ND, y_MD), (x_ND, fixed_ND), (y_MD, y_MD)))
    log_a_CN, log_b_CM = a_CN.log(), b_CM.log()

    def update(cost_NM: torch.Tensor, log_weights_CM: torch.Tensor, potential_CM: torch.Tensor) -> torch.Tensor:
        exponents_CNM = (log_weights_CM + potential_CM / regularization)[:, None] - cost_NM / regularization
        return -regularization * exponents_CNM.logsumexp(dim=-1)

    with torch.no_grad():
        f_CN = p_CN = torch.zeros_like(a_CN)
        g_CM = q_CM = torch.zeros_like(b_CM)
        for _ in range(iterations):
            f_CN, g_CM = (
                (f_CN + update(xy_NM, log_b_CM, g_CM)) / 2,
                (g_CM + update(xy_NM.T, log_a_CN, f_CN)) / 2,
            )
            p_CN = (p_CN + update(xx_NN, log_a_CN, p_CN)) / 2
            q_CM = (q_CM + update(yy_MM, log_b_CM, q_CM)) / 2
        of_y_C = (b_CM * (update(xy_NM.T, log_a_CN, f_CN) - update(yy_MM, log_b_CM, q_CM))).sum(dim=1)
    return of_y_C + (a_CN * (update(xy_NM, log_b_CM, g_CM) - update(xx_NN, log_a_CN, p_CN))).sum(dim=1)


def mmd(x_ND: torch.Tensor, y_MD: torch.Tensor, a_CN: torch.Tensor, b_CM: torch.Tensor) -> torch.Tensor:
    r"""The squared maximum mean discrepancy, `(C,)`, from 0 to 2, without units:

    \\(\sum_{ij} a_i a_j k(x_i, x_j) + \sum_{ij} b_i b_j k(y_i, y_j) - 2 \sum_{ij} a_i b_j k(x_i, y_j)\\).

    The biased estimator, which counts a point with itself and is never negative. k is the mean of five Gaussian kernels
    \\(e^{-\|x - y\|^2 / (w s)}\\), w = 1/4, 1/2, 1, 2, 4, with s the mean squared distance between all points of both clouds,
    as a constant of the batch. Sources: "A Kernel Two-Sample Test" (Gretton et al., JMLR 2012); several widths about the mean
    distance as in "Learning Transferable Features with Deep Adaptation Networks" (Long et al., ICML 2015).
    """
    x_ND, y_MD, a_CN, b_CM = _prepared(x_ND, y_MD, a_CN, b_CM)
    z_KD, pooled_K = torch.cat([x_ND, y_MD]), torch.cat([a_CN.mean(dim=0), b_CM.mean(dim=0)]) / 2
    distances_KK = _squared_distances(z_KD, z_KD)
    scale = (pooled_K @ distances_KK.detach() @ pooled_K).clamp(min=torch.finfo(z_KD.dtype).tiny)
    kernel_KK = torch.stack([(-distances_KK / (width * scale)).exp() for width in _WIDTHS]).mean(dim=0)
    signed_CK = torch.cat([a_CN, -b_CM], dim=1)
    return ((signed_CK @ kernel_KK) * signed_CK).sum(dim=1)


def label_shares_divergence(p_NC: torch.Tensor, q_MC: torch.Tensor, counts_M: torch.Tensor) -> torch.Tensor:
    r"""\\(KL(\bar q \| \bar p)\\) in nats, of the mean class probabilities of a teacher's samples and of the student's.

    In this direction the gradient is linear in the teacher's shares, so that what is drawn of them averages out. Source: the
    label regularisation of "Simple, Robust, Scalable Semi-supervised Learning via Expectation Regularization" (Mann & McCallum,
    ICML 2007).

    Args:
        p_NC (`torch.Tensor` of shape `(N, C)`): The student's probabilities.
        q_MC (`torch.Tensor` of shape `(M, C)`): The teacher's, into which no gradient flows.
        counts_M (`torch.Tensor` of shape `(M,)`): 1 for the rows that count, 0 for others; where none does, the result is 0.
    """
    p_C = p_NC.mean(dim=0).clamp(min=torch.finfo(p_NC.dtype).tiny)
    q_C = (q_MC.detach() * counts_M[:, None]).sum(dim=0) / counts_M.sum().clamp(min=1)
    return (torch.xlogy(q_C, q_C) - q_C * p_C.log()).sum()


def _prepared(x_ND: torch.Tensor, y_MD: torch.Tensor, a_CN: torch.Tensor, b_CM: torch.Tensor) -> list[torch.Tensor]:
    """All of one dtype, and rows of weights that sum to 1."""
    dtype = torch.promote_types(torch.promote_types(x_ND.dtype, y_MD.dtype), torch.float32)
    weights = []
    for w_CN in (a_CN.detach().to(dtype), b_CM.detach().to(dtype)):
        total_C1 = w_CN.sum(dim=1, keepdim=True)
        shares_CN = w_CN / total_C1.clamp(min=torch.finfo(dtype).tiny)
        weights.append(torch.where(total_C1 > 0, shares_CN, 1 / w_CN.shape[1]))
    return [x_ND.to(dtype), y_MD.detach().to(dtype), *weights]


def _squared_distances(x_ND: torch.Tensor, y_MD: torch.Tensor) -> torch.Tensor:
    norms_N1, norms_1M = x_ND.pow(2).sum(dim=1, keepdim=True), y_MD.pow(2).sum(dim=1)[None]
    return (norms_N1 + norms_1M - 2 * x_ND @ y_MD.T).clamp(min=0)
