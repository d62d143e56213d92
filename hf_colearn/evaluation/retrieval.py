"""How well latents find their partner among others. Shapes: N samples, D dimensions of a latent."""

from collections.abc import Hashable, Sequence

import numpy as np


def retrieval_scores(
    latents_ND: np.ndarray, targets_ND: np.ndarray, partners: Sequence[Hashable] | None = None
) -> dict[str, float]:
    """Recall at 1 and 5, and the share of the targets' variance that is explained.

    Sample i asks for target i: the targets are ordered by their cosine with its latent, and a hit is a target of the same
    partner among the first; another one of equal cosine comes before it. Explained variance is 1 - sum |z - t|^2 / sum |t|^2:
    of targets that were standardized by the training ones it is 0 for a student that knows their mean alone, and below 0 for a
    worse one.

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
    cosines_NN = _unit(z_ND) @ _unit(t_ND).T
    ids = np.unique(np.asarray([str(p) for p in partners or range(len(t_ND))]), return_inverse=True)[1]
    is_own_NN = ids[:, None] == ids[None]
    own_N = np.where(is_own_NN, cosines_NN, -np.inf).max(axis=1)
    before_N = (~is_own_NN & (cosines_NN >= own_N[:, None])).sum(axis=1)  # a tie is no hit
    return {
        "recall_at_1": float((before_N < 1).mean()),
        "recall_at_5": float((before_N < 5).mean()),
        "explained_variance": float(1 - ((z_ND - t_ND) ** 2).sum() / (t_ND**2).sum()),
    }


def _unit(x_ND: np.ndarray) -> np.ndarray:
    return x_ND / np.maximum(np.linalg.norm(x_ND, axis=1, keepdims=True), 1e-12)
