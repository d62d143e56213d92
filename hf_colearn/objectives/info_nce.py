"""Symmetric InfoNCE between two modalities, in memory linear in the batch.

Shapes: B pairs of this process, N pairs of all processes (B on one), D dimensions of a latent, C rows of a chunk.
"""

from typing import Any

import torch
import torch.nn.functional as F

from hf_colearn.data.sample_ids import NO_LABEL
from hf_colearn.objectives.distances import check_entries, what_counts
from hf_colearn.utils.distributed import gather_with_gradient, mean_over_processes, rank, world_size


_KEPT = 5 * 2**23  # logits, 160 MiB in float32
_LARGEST_SCALE = 40.0  # up to here, exp(logit - scale) and its inverse are normal numbers in float32


def info_nce(
    x_BD: torch.Tensor,
    y_BD: torch.Tensor,
    scale: float | torch.Tensor,
    mask_B: torch.Tensor | None = None,
    labels_B: torch.Tensor | None = None,
    chunk: int = 512,
    direct: bool = False,
) -> torch.Tensor:
    r"""Symmetric InfoNCE: every row of `x_BD` has to find its partner among all of `y_BD`, and the other way round.

    With \\(s_{ij} = \text{scale} \cdot \cos(x_i, y_j)\\) it is the mean over the pairs i of
    \\(-\frac{1}{2} \log \frac{e^{s_{ii}}}{\sum_j e^{s_{ij}}} - \frac{1}{2} \log \frac{e^{s_{ii}}}{\sum_j e^{s_{ji}}}\\)
    (CLIP, Radford et al., 2021; the matching loss of Yang et al., NeurIPS 2024). In nats, computed in float32 (float64
    for float64 latents) whatever the autocast dtype.

    The gradient is worked out in the forward pass, in a second sweep over chunks of rows that makes the logits anew, so
    that B x N of them never exist at once: beside chunks, at most 5/8 of them and 160 MiB wait for the second sweep.

    Over several processes, each matches its B rows of `x_BD` with all N of `y_BD`, which are gathered with their
    gradient. The loss is the mean over the pairs of all processes, the same on each, and averaging the processes'
    gradients, as DDP does, gives what one process with all N pairs would have. Gradient accumulation adds no negatives.

    Args:
        x_BD, y_BD (`torch.Tensor` of shape `(B, D)`): Latents of two modalities, row by row of the same sample; they are
            L2-normalised here.
        scale (`float` or `torch.Tensor` of shape `()`): One over the temperature; a tensor gets a gradient.
        mask_B (`torch.Tensor` of shape `(B,)`, *optional*): Booleans. A pair with False counts neither as a pair nor
            among the others' negatives, whatever its latents hold. Where no pair counts, loss and gradient are 0.
        labels_B (`torch.Tensor` of shape `(B,)`, *optional*): Samples of the same class are no negatives of each other; -100
            is no label, and such a sample is of nobody's class.
        chunk (`int`, *optional*, defaults to 512): Rows of logits made at a time; for memory and speed only.
        direct (`bool`, *optional*, defaults to `False`): Whether to compute it plainly, with B x N logits kept for
            the backward pass, which can then be differentiated again (exact Hessian products).

    Raises:
        ValueError: If the shapes do not fit together, `chunk` is below 1, or processes have batches of unequal sizes.
        RuntimeError: If a gradient is taken with `create_graph=True` without `direct`.

    Example:

    ```python
    >>> import torch
    >>> from hf_colearn.objectives.info_nce import info_nce

    >>> info_nce(torch.eye(2), torch.eye(2), scale=1.0)  # log(1 + 1/e): one cosine of 1, one of 0
    tensor(0.3133)
    ```
    """
    if x_BD.ndim != 2 or x_BD.shape != y_BD.shape:
        raise ValueError(
            f"latents of shapes {tuple(x_BD.shape)} and {tuple(y_BD.shape)} are no pairs: give (B, D) both."
        )
    check_entries("mask_B", mask_B, x_BD)
    check_entries("labels_B", labels_B, x_BD)
    if chunk < 1:
        raise ValueError(f"chunk={chunk} rows of logits cannot be made at a time: pass at least 1.")
    with torch.autocast(x_BD.device.type, enabled=False):
        x_BD, y_BD = what_counts(x_BD, y_BD, mask_B)
        q_BD, k_BD = scale * F.normalize(x_BD, dim=-1), F.normalize(y_BD, dim=-1)
        k_ND = gather_with_gradient(k_BD)
        if mask_B is None and world_size() > 1:  # another process may have one
            mask_B = torch.ones(len(x_BD), dtype=torch.bool, device=x_BD.device)
        mask_N, labels_N = (None if v_B is None else gather_with_gradient(v_B) for v_B in (mask_B, labels_B))
        if direct:
            return _direct(q_BD, k_BD, k_ND, mask_N, labels_N)
        return _Fused.apply(q_BD, k_ND, mask_N, labels_N, _bound(scale), chunk)


def _bound(scale: float | torch.Tensor) -> float | None:
    """What no logit exceeds, where exponentials need no other offset; None for large scales and those not on the host."""
    if isinstance(scale, torch.Tensor):
        scale = scale.detach().item() if scale.device.type == "cpu" else torch.inf
    return abs(scale) if abs(scale) <= _LARGEST_SCALE else None


def _dropped(mask_N: torch.Tensor | None, labels_N: torch.Tensor | None, first: int, rows: int) -> torch.Tensor | None:
    """Which logits of the rows from `first` on are left out, `(rows, N)`; a positive never is.

    So a pair that does not count keeps its positive alone: its loss is 0 and so is its gradient, without a special case.
    """
    own = slice(first, first + rows)
    dropped = None if labels_N is None else (labels_N[own, None] == labels_N).logical_and_(labels_N != NO_LABEL)
    if mask_N is not None:
        outside = ~(mask_N[own, None] & mask_N)
        dropped = outside if dropped is None else dropped.logical_or_(outside)
    if dropped is not None:
        dropped.diagonal(first).fill_(False)
    return dropped


def _weight(mask_N: torch.Tensor | None, N: int) -> float | torch.Tensor:
    """What the sum of both directions over this process's rows is multiplied with, for the mean over the processes."""
    return world_size() / (2 * (N if mask_N is None else mask_N.sum().clamp(min=1)))


def _direct(q_BD: torch.Tensor, k_BD: torch.Tensor, k_ND: torch.Tensor, mask_N: Any, labels_N: Any) -> torch.Tensor:
    first = rank() * len(q_BD)
    dropped_BN = _dropped(mask_N, labels_N, first, len(q_BD))

    def logits(queries_BD: torch.Tensor, keys_ND: torch.Tensor) -> torch.Tensor:
        logits_BN = queries_BD @ keys_ND.T
        return logits_BN if dropped_BN is None else logits_BN.masked_fill(dropped_BN, -torch.inf)

    there_BN = logits(q_BD, k_ND)
    back_BN = there_BN.T if world_size() == 1 else logits(k_BD, gather_with_gradient(q_BD))
    own_B = first + torch.arange(len(q_BD), device=q_BD.device)
    both = F.cross_entropy(there_BN, own_B, reduction="sum") + F.cross_entropy(back_BN, own_B, reduction="sum")
    loss = both * _weight(mask_N, len(k_ND))
    return loss + (mean_over_processes(loss) - loss.detach())


class _Fused(torch.autograd.Function):
    """Both directions from one block of logits: its rows are the queries of x, its columns those of y.

    The rows' log-sum-exps are complete within a chunk; the columns' grow from chunk to chunk and over the processes.
    With a bound on the logits, a block holds exp(logit - bound), and one exponential serves rows and columns.
    """

    @staticmethod
    def forward(ctx, q_BD, k_ND, mask_N, labels_N, bound: float | None, chunk: int) -> torch.Tensor:
        B, N = len(q_BD), len(k_ND)
        first, starts = rank() * B, range(0, B, chunk)

        def block(start: int) -> torch.Tensor:
            block_CN = q_BD[start : start + chunk] @ k_ND.T
            dropped_CN = _dropped(mask_N, labels_N, first + start, len(block_CN))
            if dropped_CN is not None:
                block_CN.masked_fill_(dropped_CN, -torch.inf)
            return block_CN if bound is None else block_CN.sub_(bound).exp_()

        def log_sum_exp(block_CN: torch.Tensor, dim: int) -> torch.Tensor:
            return block_CN.logsumexp(dim) if bound is None else block_CN.sum(dim).log_().add_(bound)

        needs_gradient = any(ctx.needs_input_grad[:2])
        kept_rows = min(_KEPT // N, 5 * B // 8) if needs_gradient else 0
        kept: dict[int, torch.Tensor] = {}
        rows_B, positives_B = q_BD.new_empty(B), q_BD.new_empty(B)
        columns_N = q_BD.new_full((N,), -torch.inf)
        for start in starts:
            block_CN = block(start)
            rows_B[start : start + chunk] = log_sum_exp(block_CN, 1)
            columns_N = torch.logaddexp(columns_N, log_sum_exp(block_CN, 0))
            positives_B[start : start + chunk] = block_CN.diagonal(first + start)
            if start + chunk <= kept_rows:
                kept[start] = block_CN
        if bound is not None:
            positives_B.log_().add_(bound)
        columns_N = gather_with_gradient(columns_N).view(-1, N).logsumexp(0)
        weight = _weight(mask_N, N)

        if needs_gradient:
            dq_BD, dk_ND = torch.empty_like(q_BD), torch.zeros_like(k_ND)
            for start in starts:
                own = slice(start, start + chunk)
                block_CN = kept.pop(start) if start in kept else block(start)
                if bound is None:
                    slopes_CN = torch.sub(block_CN, rows_B[own, None]).exp_()
                    slopes_CN += block_CN.sub_(columns_N).exp_()
                else:
                    slopes_CN = (bound - rows_B[own, None]).exp() + (bound - columns_N).exp()
                    slopes_CN *= block_CN
                slopes_CN.diagonal(first + start).sub_(2)
                torch.mm(slopes_CN, k_ND, out=dq_BD[own])
                dk_ND.addmm_(slopes_CN.T, q_BD[own])
            ctx.save_for_backward(dq_BD.mul_(weight), dk_ND.mul_(weight))
        return mean_over_processes((rows_B + columns_N[first : first + B] - 2 * positives_B).sum() * weight)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:  # type: ignore[override]
        if torch.is_grad_enabled():
            raise RuntimeError(
                "a gradient with create_graph=True was asked of the contrastive loss, whose chunked form cannot be "
                "differentiated twice: use `ContrastiveAlignment(direct=True)` or `info_nce(..., direct=True)`, which "
                "keep all logits of the batch, or Hessian products by finite differences."
            )
        dq_BD, dk_ND = ctx.saved_tensors
        return grad * dq_BD, grad * dk_ND, None, None, None, None
