"""Which predictions become labels: confident ones of every predicted class, and what views make of each other's.

Shapes: N training samples, C classes.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch

from hf_colearn.data.sample_ids import NO_LABEL
from hf_colearn.utils.checks import check_integer, is_number


@dataclass(frozen=True)
class Selection:
    """The confident predictions of a round, class by class.

    A number or a share of every *predicted* class, so that a classifier that is sure of one class alone does not flood the
    others: "Combining Labeled and Unlabeled Data with Co-Training" (Blum & Mitchell, COLT 1998) takes the n most confident of
    each class. A threshold alone takes all that reach it, as many of a class as there are.

    Args:
        per_class (`int`, *optional*): The most confident ones of each class, in every round; at most so many beside a
            threshold.
        share (`float`, *optional*): Instead, of the predictions of each class the most confident share, rounded up; above 0,
            up to 1.
        threshold (`float`, *optional*): The least probability of the predicted class; above 0, below 1.

    Raises:
        ValueError: If none is given, two exclude each other, or one is out of range.

    Example:

    ```python
    >>> import numpy as np
    >>> from hf_colearn.co_training.selection import Selection

    >>> probabilities = np.array([[0.9, 0.1], [0.8, 0.2], [0.7, 0.3], [0.4, 0.6]])
    >>> Selection(per_class=1)(probabilities, np.array([False, True, True, True])).tolist()
    [-100, 0, -100, 1]
    ```
    """

    per_class: int | None = None
    share: float | None = None
    threshold: float | None = None

    def __post_init__(self):
        given = {"per_class": self.per_class, "share": self.share, "threshold": self.threshold}
        given = {name: value for name, value in given.items() if value is not None}
        if not given:
            raise ValueError(
                "nothing says which predictions become labels: pass per_class=10, share=0.5 or threshold=0.9."
            )
        if self.share is not None and len(given) > 1:
            (name, value) = next(item for item in given.items() if item[0] != "share")
            raise ValueError(f"share={self.share} and {name}={value} are two rules of what becomes a label: pass one.")
        if self.per_class is not None:
            check_integer("per_class", self.per_class, least=1)
        if self.share is not None and not (is_number(self.share) and 0 < self.share <= 1):
            raise ValueError(f"share={self.share} adds no prediction: pass a share above 0, up to 1.")
        if self.threshold is not None and not (is_number(self.threshold) and 0 < self.threshold < 1):
            raise ValueError(
                f"threshold={self.threshold} is no probability to reach: pass one above 0, below 1, such as 0.9."
            )

    def __call__(self, probabilities_NC: np.ndarray, is_candidate_N: np.ndarray) -> np.ndarray:
        """The classes `(N,)` of what is selected among the candidates, -100 elsewhere; rows of NaN are never selected."""
        confidences_N, classes_N = probabilities_NC.max(axis=1), probabilities_NC.argmax(axis=1)
        is_candidate_N = is_candidate_N & np.isfinite(confidences_N)
        if self.threshold is not None:
            is_candidate_N &= np.nan_to_num(confidences_N) >= self.threshold
        selected_N = np.full(len(classes_N), NO_LABEL, dtype=np.int64)
        for label in np.unique(classes_N[is_candidate_N]):
            candidates = np.flatnonzero(is_candidate_N & (classes_N == label))
            order = np.argsort(-confidences_N[candidates], kind="stable")
            count = self.per_class if self.share is None else math.ceil(self.share * len(candidates))
            selected_N[candidates[order[:count]]] = label
        return selected_N


def exchanged(
    probabilities: Mapping[str, np.ndarray],
    pools: Mapping[str, np.ndarray],
    select: Selection,
) -> tuple[dict[str, np.ndarray], dict[str, int]]:
    """The labels that every view gains from the confident predictions of the *other* views; of a single view from its own.

    Every view selects among the pool of the view that learns. What any two of them, the learning one included, select with
    different classes is left out; of the rest the learning view gains what another one has selected. With more than two views
    it so gains the labels of all others.

    Args:
        probabilities (`Mapping[str, np.ndarray]`): By view `(N, C)`; a view without a classifier yet is not in it.
        pools (`Mapping[str, np.ndarray]`): Of every view that learns, which samples have no label yet, `(N,)` booleans.
        select ([`Selection`]): The rule.

    Returns:
        `tuple`: By view the classes gained `(N,)`, -100 where there is none; and by view how many samples were left out.
    """
    is_alone = len({*probabilities, *pools}) == 1
    gained, conflicts = {}, {}
    for name, pool_N in pools.items():
        selected = {view: select(probabilities_NC, pool_N) for view, probabilities_NC in probabilities.items()}
        given = [classes_N for view, classes_N in selected.items() if view != name or is_alone]
        labels_N = np.full(len(pool_N), NO_LABEL, dtype=np.int64)
        for classes_N in given:
            labels_N = np.where(classes_N != NO_LABEL, classes_N, labels_N)
        clash_N = np.zeros(len(pool_N), dtype=bool)
        for classes_N in selected.values():
            clash_N |= (labels_N != NO_LABEL) & (classes_N != NO_LABEL) & (classes_N != labels_N)
        gained[name], conflicts[name] = np.where(clash_N, NO_LABEL, labels_N), int(clash_N.sum())
    return gained, conflicts


def with_own_labels(logits_NC: np.ndarray, labels_N: np.ndarray, share: float) -> np.ndarray:
    """Labels `(N,)` with predictions where there was none: of each predicted class the most confident share, rounded up.

    Args:
        logits_NC (`np.ndarray` of shape `(N, C)`): Of all samples.
        labels_N (`np.ndarray` of shape `(N,)`): Classes, -100 where there is none.
        share (`float`): As of [`Selection`].

    Example:

    ```python
    >>> import numpy as np
    >>> from hf_colearn.co_training.selection import with_own_labels

    >>> logits = np.array([[9.0, 0.0], [5.0, 0.0], [1.0, 0.0], [0.0, 2.0]])
    >>> with_own_labels(logits, np.array([1, -100, -100, -100]), share=0.5).tolist()
    [1, 0, -100, 1]
    ```
    """
    probabilities_NC = torch.from_numpy(logits_NC).float().softmax(dim=-1).numpy()
    own_N = Selection(share=share)(probabilities_NC, labels_N == NO_LABEL)
    return np.where(own_N != NO_LABEL, own_N, labels_N)
