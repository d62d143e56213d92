"""Nearest neighbours as positives, and the contrastive loss with several of them, in memory linear in the batch.

Shapes: B samples, M keys, D dimensions of a key, E of the other modality's vectors, K neighbours, C rows of a chunk.
"""

import torch
import torch.nn.functional as F
from torch.utils.checkpoint import checkpoint


NONE = -1  # in place of a neighbour's row


@torch.no_grad()
def nearest_neighbours(
    x_BE: torch.Tensor,
    y_ME: torch.Tensor,
    ids_B: torch.Tensor,
    ids_M: torch.Tensor,
    counts_M: torch.Tensor,
    neighbours: int,
    chunk: int = 256,
) -> torch.Tensor:
    """The rows of `y_ME` that have the highest cosine similarity to each row of `x_BE`, of other samples, `(B, K)`.

    -1 stands where there are fewer of them. K is `neighbours`, or M where that is smaller.

    Args:
        x_BE, y_ME (`torch.Tensor` of shapes `(B, E)` and `(M, E)`): Vectors of one space.
        ids_B, ids_M (`torch.Tensor` of shapes `(B,)` and `(M,)`): Whose they are, integers.
        counts_M (`torch.Tensor` of shape `(M,)`): Booleans, which rows may be found.
        neighbours (`int`): How many are looked for.
        chunk (`int`, *optional*, defaults to 256): Rows of similarities made at a time; for memory and speed only.

    Example:

    ```python
    >>> import torch
    >>> from hf_colearn.objectives.mined_positives import nearest_neighbours

    >>> x, ids = torch.tensor([[1.0, 0.0], [1.0, 1.0], [0.0, 1.0]]), torch.arange(3)
    >>> nearest_neighbours(x[:1], x, ids[:1], ids, ids >= 0, neighbours=1)  # not the sample itself
    tensor([[1]])
    ```
    """
    with torch.autocast(x_BE.device.type, enabled=False):
        x_BE, y_ME = _normalized(x_BE), _normalized(y_ME)
        found = []
        for x_CE, ids_C in zip(x_BE.split(chunk), ids_B.split(chunk), strict=True):
            cosines_CM = (x_CE @ y_ME.T).masked_fill_(_left_out(ids_C, ids_M, counts_M), -torch.inf)
            cosines_CK, rows_CK = cosines_CM.topk(min(neighbours, len(y_ME)), dim=1)
            found.append(rows_CK.masked_fill_(cosines_CK == -torch.inf, NONE))
        return torch.cat(found)


def mined_info_nce(
    q_BD: torch.Tensor,
    k_MD: torch.Tensor,
    own_B: torch.Tensor,
    mined_BK: torch.Tensor,
    ids_B: torch.Tensor,
    ids_M: torch.Tensor,
    counts_M: torch.Tensor,
    temperature: float,
    chunk: int = 256,
) -> torch.Tensor:
    r"""InfoNCE with several positives, of every query, `(B,)`.

    \\(-\log \frac{\sum_{p \in P_i} e^{s_{ip}}}{\sum_j e^{s_{ij}}}\\) with \\(s_{ij} = \cos(q_i, k_j) / \tau\\), where the
    positives \\(P_i\\) are the own key and the mined ones, and j goes over the own key and those of all other samples (CoCLR,
    Han et al., NeurIPS 2020; without mined ones MoCo, He et al., CVPR 2020). In nats, from 0; in float32 (float64 for float64
    queries) whatever the autocast dtype.

    The B x M logits never exist at once: chunks of rows are made for the loss, and made anew for the gradient, which may be
    differentiated again.

    Args:
        q_BD, k_MD (`torch.Tensor` of shapes `(B, D)` and `(M, D)`): Queries and keys, which are L2-normalised here.
        own_B (`torch.Tensor` of shape `(B,)`): The row of each query's own key.
        mined_BK (`torch.Tensor` of shape `(B, K)`): Rows of keys of other samples; -1 is none.
        ids_B, ids_M (`torch.Tensor` of shapes `(B,)` and `(M,)`): Whose they are, integers. Further keys of the query's own
            sample are left out.
        counts_M (`torch.Tensor` of shape `(M,)`): Booleans; keys with False are left out, but for a query's own.
        temperature (`float`): \\(\tau\\), above 0.
        chunk (`int`, *optional*, defaults to 256): Rows of logits made at a time; for memory and speed only.

    Example:

    ```python
    >>> import torch
    >>> from hf_colearn.objectives.mined_positives import mined_info_nce

    >>> k, own, ids = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 2.0]]), torch.tensor([0]), torch.arange(3)
    >>> mined_info_nce(k[:1], k, own, torch.tensor([[-1]]), ids[:1], ids, ids >= 0, 1.0)  # -log(e / (e + 2))
    tensor([0.5514])
    >>> mined_info_nce(k[:1], k, own, torch.tensor([[2]]), ids[:1], ids, ids >= 0, 1.0)  # -log((e + 1) / (e + 2))
    tensor([0.2382])
    ```
    """
    with torch.autocast(q_BD.device.type, enabled=False):
        q_BD, k_MD = _normalized(q_BD) / temperature, _normalized(k_MD)

        def losses(
            q_CD: torch.Tensor, own_C: torch.Tensor, mined_CK: torch.Tensor, ids_C: torch.Tensor
        ) -> torch.Tensor:
            left_out_CM = _left_out(ids_C, ids_M, counts_M).scatter_(1, own_C[:, None], False)
            logits_CM = (q_CD @ k_MD.T).masked_fill_(left_out_CM, -torch.inf)
            positives_CP = torch.cat([own_C[:, None], mined_CK], dim=1)
            of_positives_CP = logits_CM.gather(1, positives_CP.clamp(min=0))
            of_positives_CP = of_positives_CP.masked_fill(positives_CP == NONE, -torch.inf)
            return logits_CM.logsumexp(dim=1) - of_positives_CP.logsumexp(dim=1)

        chunks = zip(*(rows.split(chunk) for rows in (q_BD, own_B, mined_BK, ids_B)), strict=True)
        return torch.cat([checkpoint(losses, *each, use_reentrant=False, preserve_rng_state=False) for each in chunks])


def _normalized(x_BD: torch.Tensor) -> torch.Tensor:
    """Rows of length 1 in float32 or float64."""
    return F.normalize(x_BD.to(torch.promote_types(x_BD.dtype, torch.float32)), dim=-1)


def _left_out(ids_C: torch.Tensor, ids_M: torch.Tensor, counts_M: torch.Tensor) -> torch.Tensor:
    """Keys of the same sample, and those that do not count, `(C, M)`."""
    return (ids_C[:, None] == ids_M).logical_or_(~counts_M)
