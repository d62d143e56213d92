"""Symmetric InfoNCE between two modalities, in memory linear in the batch.

Shapes: B pairs of this process, N pairs of all processes (B on one), D dimensions of a latent, C rows of a chunk, K keys that
are gathered at a time, as many of every process.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F

from hf_colearn.data.sample_ids import NO_LABEL
from hf_colearn.objectives.distances import check_entries, what_counts
from hf_colearn.utils.distributed import (
    check_equal_rows,
    gather,
    gather_with_gradient,
    mean_over_processes,
    rank,
    sum_to_owners,
    world_size,
)


_KEPT = 5 * 2**23  # logits, 160 MiB in float32
_KEYS = 4096  # that are gathered at a time, or B where that is more
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
    that B x N of them never exist at once: beside chunks, at most 5/8 of B x B and 160 MiB wait for the second sweep.

    Over several processes, each matches its B rows of `x_BD` with all N of `y_BD`. These are gathered B or 4096 at a time,
    once for the loss and once for the gradient, which is summed at the process of each row: a process needs the memory that
    it needs for its own B pairs (below 4096 of them, for 4096 keys), however many processes there are. The loss is the mean
    over the pairs of all processes, the same on each, to be weighed alike by all; averaging the processes' gradients, as DDP
    does, gives what one process with all N pairs would have. Gradient accumulation adds no negatives.

    Args:
        x_BD, y_BD (`torch.Tensor` of shape `(B, D)`): Latents of two modalities, row by row of the same sample; they are
            L2-normalised here.
        scale (`float` or `torch.Tensor` of shape `()`): One over the temperature; a tensor gets a gradient.
        mask_B (`torch.Tensor` of shape `(B,)`, *optional*): Booleans. A pair with False counts neither as a pair nor
            among the others' negatives, whatever its latents hold. Where no pair counts, loss and gradient are 0.
        labels_B (`torch.Tensor` of shape `(B,)`, *optional*): Samples of the same class are no negatives of each other; -100
            is no label, and such a sample is of nobody's class.
        chunk (`int`, *optional*, defaults to 512): Rows of logits made at a time; for memory and speed only.
        direct (`bool`, *optional*, defaults to `False`): Whether to compute it plainly, with N gathered keys and B x N logits
            kept for the backward pass, which can then be differentiated again (exact Hessian products).

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
        check_equal_rows(len(x_BD))
        if mask_B is None and world_size() > 1:  # another process may have one
            mask_B = torch.ones(len(x_BD), dtype=torch.bool, device=x_BD.device)
        mask_N, labels_N = (None if v_B is None else gather(v_B) for v_B in (mask_B, labels_B))
        if direct:
            return _direct(q_BD, k_BD, mask_N, labels_N)
        return _Fused.apply(q_BD, k_BD, mask_N, labels_N, _bound(scale), chunk)


def _bound(scale: float | torch.Tensor) -> float | None:
    """What no logit exceeds, where exponentials need no other offset; None for large scales and those not on the host."""
    if isinstance(scale, torch.Tensor):
        scale = scale.detach().item() if scale.device.type == "cpu" else torch.inf
    return abs(scale) if abs(scale) <= _LARGEST_SCALE else None


def _dropped(rows: Sequence[torch.Tensor | None], columns: Sequence[torch.Tensor | None]) -> torch.Tensor | None:
    """Which logits are left out by the mask and the labels of the rows and of the columns, `(rows, columns)`; None for none.

    A positive never is: whoever calls this takes them out. So a pair that does not count keeps its positive alone: its loss
    is 0 and so is its gradient, without a special case.
    """
    (mask_B, labels_B), (mask_N, labels_N) = rows, columns
    dropped = None
    if labels_B is not None and labels_N is not None:
        dropped = (labels_B[:, None] == labels_N).logical_and_(labels_N != NO_LABEL)
    if mask_B is not None and mask_N is not None:
        outside = ~(mask_B[:, None] & mask_N)
        dropped = outside if dropped is None else dropped.logical_or_(outside)
    return dropped


def _weight(mask_N: torch.Tensor | None, N: int) -> float | torch.Tensor:
    """What the sum of both directions over this process's rows is multiplied with, for the mean over the processes."""
    return world_size() / (2 * (N if mask_N is None else mask_N.sum().clamp(min=1)))


def _direct(q_BD: torch.Tensor, k_BD: torch.Tensor, mask_N: Any, labels_N: Any) -> torch.Tensor:
    own = slice(rank() * len(q_BD), (rank() + 1) * len(q_BD))
    dropped_BN = _dropped([None if v_N is None else v_N[own] for v_N in (mask_N, labels_N)], (mask_N, labels_N))
    if dropped_BN is not None:
        dropped_BN.diagonal(own.start).fill_(False)

    def logits(queries_BD: torch.Tensor, keys_ND: torch.Tensor) -> torch.Tensor:
        logits_BN = queries_BD @ keys_ND.T
        return logits_BN if dropped_BN is None else logits_BN.masked_fill(dropped_BN, -torch.inf)

    there_BN = logits(q_BD, gather_with_gradient(k_BD))
    back_BN = there_BN.T if world_size() == 1 else logits(k_BD, gather_with_gradient(q_BD))
    own_B = torch.arange(own.start, own.stop, device=q_BD.device)
    both = F.cross_entropy(there_BN, own_B, reduction="sum") + F.cross_entropy(back_BN, own_B, reduction="sum")
    loss = both * _weight(mask_N, there_BN.shape[1])
    return loss + (mean_over_processes(loss) - loss.detach())


class _Blocks:
    """The logits of this process's rows with all keys, in blocks of C rows and K keys, the same ones of every process.

    With a bound on the logits a block holds exp(logit - bound), and one exponential serves rows and columns.
    """

    def __init__(self, q_BD, k_BD, mask_N, labels_N, bound: float | None, chunk: int):
        self._q_BD, self._k_BD, self._bound = q_BD, k_BD, bound
        B, of_process = len(q_BD), min(max(max(len(q_BD), _KEYS) // world_size(), 1), len(q_BD))
        self.rows = [slice(start, min(start + chunk, B)) for start in range(0, B, chunk)]
        self.columns = [slice(start, min(start + of_process, B)) for start in range(0, B, of_process)]
        self.width = of_process * world_size()  # K
        self._masks = [None if v_N is None else v_N.view(world_size(), B) for v_N in (mask_N, labels_N)]

    def keys(self, columns: slice) -> torch.Tensor:
        return gather(self._k_BD[columns])

    def block(self, rows: slice, columns: slice, k_KD: torch.Tensor) -> torch.Tensor:
        block_CK = self._q_BD[rows] @ k_KD.T
        of_rows = [None if v is None else v[rank(), rows] for v in self._masks]
        dropped_CK = _dropped(of_rows, [None if v is None else v[:, columns].flatten() for v in self._masks])
        if dropped_CK is not None:
            self.positives(dropped_CK, rows, columns).fill_(False)
            block_CK.masked_fill_(dropped_CK, -torch.inf)
        return block_CK if self._bound is None else block_CK.sub_(self._bound).exp_()

    def positives(self, block_CK: torch.Tensor, rows: slice, columns: slice) -> torch.Tensor:
        """Those of the pairs that a block holds, none or some, in the same memory."""
        return block_CK.unflatten(1, (world_size(), -1))[:, rank()].diagonal(rows.start - columns.start)

    def log_sum_exp(self, block_CK: torch.Tensor, dim: int) -> torch.Tensor:
        return block_CK.logsumexp(dim) if self._bound is None else block_CK.sum(dim).log_().add_(self._bound)

    def slopes(self, block_CK: torch.Tensor, rows_C: torch.Tensor, columns_K: torch.Tensor) -> torch.Tensor:
        """The sum of both softmaxes by their log-sum-exps; it overwrites the block."""
        if self._bound is None:
            slopes_CK = torch.sub(block_CK, rows_C[:, None]).exp_()
            return slopes_CK.add_(block_CK.sub_(columns_K).exp_())
        return block_CK.mul_((self._bound - rows_C[:, None]).exp() + (self._bound - columns_K).exp())


class _Fused(torch.autograd.Function):
    """Both directions from one block of logits: its rows are the queries of x, its columns those of y.

    The log-sum-exps of rows and columns grow from block to block, and the columns' over the processes.
    """

    @staticmethod
    def forward(ctx, q_BD, k_BD, mask_N, labels_N, bound: float | None, chunk: int) -> torch.Tensor:
        B, N = len(q_BD), len(q_BD) * world_size()
        blocks = _Blocks(q_BD, k_BD, mask_N, labels_N, bound, chunk)
        needs_gradient = any(ctx.needs_input_grad[:2])
        kept_rows = min(_KEPT, 5 * B * blocks.width // 8) // N if needs_gradient else 0
        kept: dict[tuple[int, int], torch.Tensor] = {}
        rows_B, positives_B = q_BD.new_full((B,), -torch.inf), q_BD.new_empty(B)
        all_columns, own_columns = [], []
        for columns in blocks.columns:
            k_KD = blocks.keys(columns)
            columns_K = q_BD.new_full((len(k_KD),), -torch.inf)
            for rows in blocks.rows:
                block_CK = blocks.block(rows, columns, k_KD)
                rows_B[rows] = torch.logaddexp(rows_B[rows], blocks.log_sum_exp(block_CK, 1))
                columns_K = torch.logaddexp(columns_K, blocks.log_sum_exp(block_CK, 0))
                first, end = max(rows.start, columns.start), min(rows.stop, columns.stop)
                positives_B[first : max(first, end)] = blocks.positives(block_CK, rows, columns)
                if rows.stop <= kept_rows:
                    kept[rows.start, columns.start] = block_CK
            all_columns.append(gather(columns_K).view(-1, len(k_KD)).logsumexp(0))
            own_columns.append(all_columns[-1].view(world_size(), -1)[rank()])
        if bound is not None:
            positives_B.log_().add_(bound)
        weight = _weight(mask_N, N)

        if needs_gradient:
            dq_BD, dk_parts = torch.empty_like(q_BD), []
            for columns, columns_K in zip(blocks.columns, all_columns, strict=True):
                k_KD = blocks.keys(columns) if len(blocks.columns) > 1 else k_KD
                dk_KD = torch.zeros_like(k_KD)
                for rows in blocks.rows:
                    waited = kept.pop((rows.start, columns.start), None)
                    block_CK = blocks.block(rows, columns, k_KD) if waited is None else waited
                    slopes_CK = blocks.slopes(block_CK, rows_B[rows], columns_K)
                    blocks.positives(slopes_CK, rows, columns).sub_(2)
                    dq_BD[rows].addmm_(slopes_CK, k_KD, beta=float(columns.start > 0))
                    dk_KD.addmm_(slopes_CK.T, q_BD[rows])
                dk_parts.append(sum_to_owners(dk_KD))
            dk_BD = torch.cat(dk_parts) if len(dk_parts) > 1 else dk_parts[0]
            ctx.save_for_backward(dq_BD.mul_(weight), dk_BD.mul_(weight))
        return mean_over_processes((rows_B + torch.cat(own_columns) - 2 * positives_B).sum() * weight)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:  # type: ignore[override]
        if torch.is_grad_enabled():
            raise RuntimeError(
                "a gradient with create_graph=True was asked of the contrastive loss, whose chunked form cannot be "
                "differentiated twice: use `ContrastiveAlignment(direct=True)` or `info_nce(..., direct=True)`, which "
                "keep all logits of the batch, or Hessian products by finite differences."
            )
        dq_BD, dk_BD = ctx.saved_tensors
        return grad * dq_BD, grad * dk_BD, None, None, None, None
