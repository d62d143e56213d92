"""How well latents find what belongs to them among others.

Shapes: N queries, M latents of the gallery, D dimensions, C queries of a chunk.
"""

from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np

from hf_colearn.evaluation.measuring import LATENTS, ArrayMetric, check_finite
from hf_colearn.utils.checks import check_integer


_CHUNK = 2**22  # cosines that are made at a time
RANKS = (1, 5, 10)


def retrieval_metrics(
    queries_ND: Any,
    gallery_MD: Any,
    query_ids: Sequence[Hashable] | None = None,
    gallery_ids: Sequence[Hashable] | None = None,
    at: Sequence[int] = RANKS,
) -> dict[str, float]:
    """Recall, precision and mean average precision of retrieval by cosine, and what random orders have.

    Every query orders the gallery by cosine; of equal cosines what does not belong to the query comes first. What has the
    query's id is relevant: with ids of samples its partner, with classes everything of its class.

    | metric | |
    |---|---|
    | `recall_at_{k}` | share of the queries with something relevant among the first k |
    | `precision_at_{k}` | share of the first k that is relevant, mean over the queries |
    | `map` | mean average precision: the mean over a query's relevant ranks r of the precision at r, mean over the queries |
    | `median_rank` | of the first relevant latent, from 1, median over the queries: lower is better |
    | `{metric}_by_chance` | what random orders of this gallery have: the expectation, or of ranks the median |

    Args:
        queries_ND (`np.ndarray` or `torch.Tensor` of shape `(N, D)`): Latents of one modality.
        gallery_MD (`np.ndarray` or `torch.Tensor` of shape `(M, D)`): Latents of another.
        query_ids (`Sequence` of length N, *optional*): What a query belongs to, such as sentences or classes; by default row i
            of the queries belongs to row i of the gallery.
        gallery_ids (`Sequence` of length M, *optional*): The same of the gallery; by default the queries' ids.
        at (`Sequence[int]`, *optional*, defaults to `(1, 5, 10)`): Each k, from 1.

    Raises:
        ValueError: If shapes or ids do not fit, a value is not finite, or nothing in the gallery belongs to a query.

    Example:

    ```python
    >>> import torch
    >>> from hf_colearn import retrieval_metrics

    >>> gallery = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]])
    >>> found = retrieval_metrics(torch.tensor([[2.0, 0.1], [1.0, 0.5], [-1.0, 0.0]]), gallery, at=(1,))
    >>> found["median_rank"], round(found["map"], 4), round(found["recall_at_1_by_chance"], 4)
    (1.0, 0.8333, 0.3333)
    ```
    """
    q_ND, g_MD = _directions("queries", queries_ND), _directions("gallery", gallery_MD)
    if q_ND.shape[1] != g_MD.shape[1]:
        raise ValueError(
            f"queries are {q_ND.shape[1]} wide, the gallery {g_MD.shape[1]}: compare latents of one space."
        )
    for k in at:
        check_integer("at", k, 1)
    q_ids_N, g_ids_M = _numbered(query_ids, gallery_ids, len(q_ND), len(g_MD))
    if lonely := np.flatnonzero(~np.isin(q_ids_N, g_ids_M)).tolist():
        raise ValueError(
            f"nothing in the gallery belongs to query {lonely[0]} ({len(lonely)} of {len(q_ND)} such queries): leave them out."
        )
    size = max(1, _CHUNK // len(g_MD))
    chunks = [slice(start, start + size) for start in range(0, len(q_ND), size)]
    of_query_NK = np.concatenate([_measured(q_ND[c] @ g_MD.T, q_ids_N[c, None] == g_ids_M, at) for c in chunks])
    first_N, precision_N, *precisions_at = of_query_NK.T
    found = {f"recall_at_{k}": float((first_N <= k).mean()) for k in at}
    found |= {f"precision_at_{k}": float(x_N.mean()) for k, x_N in zip(at, precisions_at, strict=True)}
    found |= {"map": float(precision_N.mean()), "median_rank": float(np.median(first_N))}
    relevant_N = np.bincount(g_ids_M, minlength=q_ids_N.max() + 1)[q_ids_N]
    return found | {f"{name}_by_chance": value for name, value in _chance(relevant_N, len(g_MD), at).items()}


def retrieval_scores(
    latents_ND: np.ndarray, targets_ND: np.ndarray, partners: Sequence[Hashable] | None = None
) -> dict[str, float]:
    """Recall at 1 and 5, and the share of the targets' variance that is explained.

    Sample i asks for target i among all targets, see [`retrieval_metrics`]. Explained variance is
    1 - sum |z - t|^2 / sum |t|^2: of targets that were standardized by the training ones it is 0 for a student that knows
    their mean alone, and below 0 for a worse one.

    Args:
        latents_ND (`np.ndarray` of shape `(N, D)`): A student's.
        targets_ND (`np.ndarray` of shape `(N, D)`): Of the same samples, scaled as in training.
        partners (`Sequence` of length N, *optional*): What tells the partners apart; by default all are different.

    Example:

    ```python
    >>> import numpy as np
    >>> from hf_colearn.evaluation.retrieval import retrieval_scores

    >>> targets = np.array([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]])
    >>> scores = retrieval_scores(np.array([[2.0, 0.1], [1.0, 0.5], [-1.0, 0.0]]), targets)
    >>> round(scores["recall_at_1"], 4)  # the second one finds the first target
    0.6667
    ```
    """
    z_ND, t_ND = np.asarray(latents_ND, dtype=np.float64), np.asarray(targets_ND, dtype=np.float64)
    found = retrieval_metrics(z_ND, t_ND, partners, at=(1, 5))
    explained = float(1 - ((z_ND - t_ND) ** 2).sum() / (t_ND**2).sum())
    return {name: found[name] for name in ("recall_at_1", "recall_at_5")} | {"explained_variance": explained}


class Retrieval(ArrayMetric):
    """[`retrieval_metrics`] as a module of `evaluate`: predictions are the queries, references the gallery.

    `compute` takes `query_ids` and `gallery_ids`, too. A gallery of another size than the queries needs
    `keep_in_memory=True`.

    Args:
        at (`Sequence[int]`, *optional*, defaults to `(1, 5, 10)`): As of [`retrieval_metrics`].
        **kwargs: Of `evaluate.Metric`.

    Example:

    ```python
    >>> import numpy as np
    >>> from hf_colearn import Retrieval

    >>> spoken, written = np.eye(3), np.eye(3)[[0, 2, 1]]
    >>> found = Retrieval(at=(1,), keep_in_memory=True).compute(predictions=spoken, references=written)
    >>> round(found["recall_at_1"], 4)  # the tie of the others counts against the second and the third
    0.3333
    ```
    """

    forms = ((LATENTS, LATENTS),)

    def __init__(self, at: Sequence[int] = RANKS, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.at = tuple(at)

    def _compute(
        self, *, predictions: Any, references: Any, query_ids: Any = None, gallery_ids: Any = None
    ) -> dict[str, float]:
        return retrieval_metrics(predictions, references, query_ids, gallery_ids, self.at)


def _measured(cosines_CM: np.ndarray, is_relevant_CM: np.ndarray, at: Sequence[int]) -> np.ndarray:
    """Of every query the rank of the first relevant one, the average precision, and the precision at each k."""
    order_CM = np.lexsort((is_relevant_CM, -cosines_CM))  # of equal cosines the irrelevant ones first
    hits_CM = np.take_along_axis(is_relevant_CM, order_CM, axis=1)
    precision_CM = hits_CM.cumsum(axis=1) / np.arange(1, hits_CM.shape[1] + 1)
    average_C = (precision_CM * hits_CM).sum(axis=1) / hits_CM.sum(axis=1)
    return np.stack([hits_CM.argmax(axis=1) + 1, average_C, *(hits_CM[:, :k].sum(axis=1) / k for k in at)], axis=1)


def _chance(relevant_N: np.ndarray, M: int, at: Sequence[int]) -> dict[str, float]:
    """The metrics' expectations over random orders of M latents, of which so many are relevant to each query.

    With R relevant ones, none is among the first k with probability prod_{i<k} (M - R - i) / (M - i). Rank r is relevant with
    probability R / M, and each rank before it then with (R - 1) / (M - 1), from which the average precision follows.
    """
    counts, of_count = np.unique(relevant_N, return_counts=True)
    ranks_M = np.arange(M)
    none_RM = np.cumprod(np.maximum(M - counts[:, None] - ranks_M, 0) / (M - ranks_M), axis=1)
    found_M = 1 - (of_count[:, None] * none_RM).sum(axis=0) / len(relevant_N)  # by rank, mean over the queries
    medians = [np.argmax(found_M > 0.5 + side) + 1 for side in (-1e-9, 1e-9)]  # of an even number there are two
    others_N = (relevant_N - 1) / max(M - 1, 1)
    precision_N = others_N + (1 - others_N) * (1 / np.arange(1, M + 1)).mean()
    share = float(relevant_N.mean() / M)
    found = {f"recall_at_{k}": float(found_M[min(k, M) - 1]) for k in at}
    found |= {f"precision_at_{k}": share * min(k, M) / k for k in at}
    return found | {"map": float(precision_N.mean()), "median_rank": float(np.mean(medians))}


def _directions(what: str, latents: Any) -> np.ndarray:
    x_ND = np.asarray(latents, dtype=np.float64)
    if x_ND.ndim != 2 or not x_ND.size:
        raise ValueError(f"the {what} have the shape {x_ND.shape}: pass one latent a row, [N, D].")
    check_finite(x_ND)
    return x_ND / np.maximum(np.linalg.norm(x_ND, axis=1, keepdims=True), 1e-12)


def _numbered(query_ids: Any, gallery_ids: Any, N: int, M: int) -> tuple[np.ndarray, np.ndarray]:
    """The ids as whole numbers from 0, equal ones as the same."""
    if query_ids is None and gallery_ids is not None:
        raise ValueError("gallery_ids are given without query_ids: say what belongs to each query, too.")
    query_ids = range(N) if query_ids is None else query_ids
    lists = [
        ids.tolist() if hasattr(ids, "tolist") else list(ids)
        for ids in (query_ids, query_ids if gallery_ids is None else gallery_ids)
    ]
    if (len(lists[0]), len(lists[1])) != (N, M):
        raise ValueError(
            f"there are {len(lists[0])} ids of {N} queries and {len(lists[1])} of {M} latents in the gallery: pass one each."
        )
    numbers: dict[Hashable, int] = {}
    found = [np.array([numbers.setdefault(x, len(numbers)) for x in ids]) for ids in lists]
    return found[0], found[1]
