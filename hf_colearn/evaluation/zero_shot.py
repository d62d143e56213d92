"""Classes without a training sample: a student that knows them alone, and beside those that it was trained on.

Shapes: N test samples, M training samples, C classes (seen and unseen), S seen classes, D latent width, Q gates.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from hf_colearn.evaluation.measuring import CLASS_IDS, SCORES, ArrayMetric, check_finite


QUANTILES = (*np.linspace(0, 1, 101).tolist(), float("inf"))


def zero_shot(student: Any, class_vectors: Mapping[str, Any]) -> Any:
    """A copy of the student that knows these classes alone, none of which it was trained on.

    Source: "DeViSE: A Deep Visual-Semantic Embedding Model" (Frome et al., NIPS 2013).

    Args:
        student ([`CoLearningStudent`]): Trained with `head="prototypes"`.
        class_vectors (`Mapping[str, torch.Tensor]`): A vector `(D,)` a class, at least 2, from where those of the student's own
            classes come.

    Raises:
        ValueError: If one of the classes was trained on, or a vector does not fit.

    Example:

    ```python
    >>> import torch
    >>> from hf_colearn import CoLearningForFeatureClassification, FeatureBackboneConfig, zero_shot

    >>> student = CoLearningForFeatureClassification.from_backbone(
    ...     FeatureBackboneConfig(feature_dim=4),
    ...     head="prototypes",
    ...     class_vectors={"cat": torch.tensor([1.0, 0.0]), "car": torch.tensor([0.0, 1.0])},
    ... )
    >>> zero_shot(student, {"lynx": torch.tensor([1.0, 0.2]), "tram": torch.tensor([0.1, 1.0])}).config.id2label
    {0: 'lynx', 1: 'tram'}
    ```
    """
    trained_on = set(student.config.id2label.values())
    if isinstance(class_vectors, Mapping) and (known := [name for name in class_vectors if name in trained_on]):
        raise ValueError(
            f"the student was trained on the class '{known[0]}', so it is not unseen: leave it out, or score all classes by "
            "`student.with_classes({...})` and `generalised_zero_shot`."
        )
    return student.with_classes(class_vectors, keep=False)


def novelty(latents_ND: Any, training_latents_MD: Any, training_labels_M: Any) -> np.ndarray:
    r"""How far each latent is from what was trained on, `(N,)` in [0, 1].

    The distance of a latent is that to the nearest mean of a class of training latents, all of length 1; its novelty is the
    share of the training latents whose own distance is smaller. A sample of novelty \\(\geq q\\) is beyond the q-quantile.

    Source: "Zero-Shot Learning Through Cross-Modal Transfer" (Socher et al., NIPS 2013), whose threshold is on a density of
    isotropic Gaussians around the class means.

    Args:
        latents_ND, training_latents_MD (arrays of shape `(N, D)`, `(M, D)`): A student's, in evaluation mode.
        training_labels_M (array of shape `(M,)`): Classes.
    """
    labels_M = np.asarray(training_labels_M)
    z_ND, z_MD = _directions("latents", latents_ND), _directions("training latents", training_latents_MD)
    if labels_M.shape != (len(z_MD),) or z_ND.shape[1] != z_MD.shape[1]:
        raise ValueError(
            f"the latents {z_ND.shape}, training latents {z_MD.shape} and labels {labels_M.shape} do not belong together: pass "
            "latents of one width, and a class a training latent."
        )
    means_SD = np.stack([z_MD[labels_M == c].mean(axis=0) for c in np.unique(labels_M)])
    known_M = np.sort(_nearest(z_MD, means_SD))
    return np.searchsorted(known_M, _nearest(z_ND, means_SD), side="left") / len(known_M)


def gated_classes(scores_NC: np.ndarray, novelty_N: np.ndarray, unseen: Sequence[int], gate: float) -> np.ndarray:
    """The predicted class `(N,)`: the best unseen one where the novelty is at least the gate, elsewhere the best seen one.

    At gate 0 all are unseen. At infinity none is, and the predictions are those of the head of the seen classes.
    """
    is_unseen_C = _is_unseen(unseen, scores_NC.shape[1])
    best_seen_N = np.where(is_unseen_C, -np.inf, scores_NC).argmax(axis=1)
    best_unseen_N = np.where(is_unseen_C, scores_NC, -np.inf).argmax(axis=1)
    return np.where(novelty_N >= gate, best_unseen_N, best_seen_N)


@dataclass(frozen=True)
class SeenUnseenCurve:
    """Accuracy of the seen and of the unseen classes over the gates, each the mean over its classes' accuracies.

    Args:
        gates (`np.ndarray` of shape `(Q,)`): Ascending.
        seen, unseen (`np.ndarray` of shape `(Q,)`): In [0, 1].
    """

    gates: np.ndarray
    seen: np.ndarray
    unseen: np.ndarray

    @property
    def harmonic(self) -> np.ndarray:
        """The harmonic means `(Q,)`, 0 where either accuracy is."""
        return 2 * self.seen * self.unseen / np.maximum(self.seen + self.unseen, 1e-12)

    @property
    def area(self) -> float:
        """Under the seen accuracy over the unseen one (Chao et al., ECCV 2016): 1 is perfect."""
        unseen, seen = self.unseen[::-1], self.seen[::-1]  # unseen ascends
        return float(np.trapezoid(np.r_[seen[:1], seen], np.r_[0.0, unseen]))


def generalised_zero_shot(
    scores_NC: np.ndarray,
    labels_N: np.ndarray,
    unseen: Sequence[int],
    novelty_N: np.ndarray,
    gates: Sequence[float] = QUANTILES,
) -> SeenUnseenCurve:
    r"""Seen and unseen accuracy over all gates.

    A class's accuracy is a mean over its samples, and those of the seen and of the unseen classes are means over the classes
    that have samples, as in "Zero-Shot Learning - A Comprehensive Evaluation of the Good, the Bad and the Ugly" (Xian et al.,
    TPAMI 2019), where the harmonic mean \\(2su / (s + u)\\) comes from.

    Args:
        scores_NC (`np.ndarray` of shape `(N, C)`): Logits of all classes, such as of `student.with_classes({...})`.
        labels_N (`np.ndarray` of shape `(N,)`): Classes, at least one sample of a seen and one of an unseen class.
        unseen (`Sequence[int]`): The classes without a training sample.
        novelty_N (`np.ndarray` of shape `(N,)`): See [`novelty`].
        gates (`Sequence[float]`, *optional*): Quantiles, ascending; by default 0, 0.01, ..., 1, and infinity.

    Example:

    ```python
    >>> import numpy as np
    >>> from hf_colearn import generalised_zero_shot

    >>> scores = np.array([[2.0, 0.0, 1.0, 0.0], [0.0, 1.0, 2.0, 0.0], [3.0, 0.0, 0.0, 1.0], [3.0, 0.0, 1.0, 0.0]])
    >>> curve = generalised_zero_shot(
    ...     scores, np.array([0, 1, 3, 2]), unseen=[2, 3], novelty_N=np.array([0.2, 0.6, 0.7, 0.9]), gates=[0, 0.5, 0.7, np.inf]
    ... )
    >>> curve.seen.tolist(), curve.unseen.tolist()
    ([0.0, 0.5, 1.0, 1.0], [1.0, 1.0, 1.0, 0.0])
    ```
    """
    scores_NC, labels_N, novelty_N = np.asarray(scores_NC), np.asarray(labels_N), np.asarray(novelty_N)
    gates_Q = np.asarray(list(gates), dtype=float)
    _check_scored(scores_NC, labels_N, novelty_N)
    if not len(gates_Q) or np.isnan(gates_Q).any() or (np.diff(gates_Q) < 0).any():
        raise ValueError(f"gates={list(gates)[:6]} are not ascending numbers: pass quantiles, such as [0, 0.5, 1].")
    is_unseen_C = _is_unseen(unseen, scores_NC.shape[1])
    present = np.unique(labels_N)
    sides = {"a seen": present[~is_unseen_C[present]], "an unseen": present[is_unseen_C[present]]}
    if empty := [side for side, classes in sides.items() if not len(classes)]:
        raise ValueError(f"no test sample is of {empty[0]} class, so there is nothing to weigh: test on both.")
    hits = [gated_classes(scores_NC, novelty_N, unseen, gate) == labels_N for gate in gates_Q]
    seen_Q, unseen_Q = (
        np.array([np.mean([hit_N[labels_N == c].mean() for c in classes]) for hit_N in hits])
        for classes in sides.values()
    )
    return SeenUnseenCurve(gates_Q, seen_Q, unseen_Q)


class GeneralisedZeroShot(ArrayMetric):
    """`unseen_accuracy`, `seen_accuracy`, `best_harmonic_mean` and `seen_unseen_area`, each in [0, 1].

    The first is among the unseen classes alone (gate 0), the second among the seen alone (gate infinity). The best harmonic
    mean is of the gate that is best for these very samples, hence a little high; the area needs no gate.
    See [`generalised_zero_shot`].
    Predictions are the scores of all C classes and, in a last column, the novelty.

    Args:
        unseen (`Sequence[int]`): The classes without a training sample.
        **kwargs: Of `evaluate.Metric`.

    Example:

    ```python
    >>> import numpy as np
    >>> from hf_colearn import GeneralisedZeroShot

    >>> predictions = np.array([[2.0, 0.0, 1.0, 0.0, 0.2], [0.0, 0.0, 2.0, 1.0, 0.6], [3.0, 0.0, 0.0, 1.0, 0.7]])
    >>> metric = GeneralisedZeroShot(unseen=[2, 3], keep_in_memory=True)
    >>> metric.compute(predictions=predictions, references=np.array([0, 2, 3]))["unseen_accuracy"]
    1.0
    ```
    """

    forms = ((SCORES, CLASS_IDS),)

    def __init__(self, unseen: Sequence[int], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.unseen = list(unseen)

    def _compute(self, *, predictions: Any, references: Any) -> dict[str, float]:
        predictions_NK = np.asarray(predictions)
        if predictions_NK.ndim != 2 or predictions_NK.shape[1] < 3:
            raise ValueError(
                f"predictions are of shape {predictions_NK.shape}: pass the scores of all classes and the novelty, [N, C + 1]."
            )
        curve = generalised_zero_shot(predictions_NK[:, :-1], references, self.unseen, predictions_NK[:, -1])
        return measures(curve)


def measures(curve: SeenUnseenCurve) -> dict[str, float]:
    """The metrics by name, of a curve from gate 0 to infinity."""
    return {
        "unseen_accuracy": float(curve.unseen[0]),
        "seen_accuracy": float(curve.seen[-1]),
        "best_harmonic_mean": float(curve.harmonic.max()),
        "seen_unseen_area": curve.area,
    }


def _directions(what: str, latents_ND: Any) -> np.ndarray:
    x_ND = np.asarray(latents_ND, dtype=np.float64)
    if x_ND.ndim != 2 or not len(x_ND):
        raise ValueError(f"the {what} are of shape {x_ND.shape}: pass one a sample, [N, D].")
    check_finite(x_ND)
    return x_ND / np.maximum(np.linalg.norm(x_ND, axis=1, keepdims=True), 1e-12)


def _nearest(z_ND: np.ndarray, means_SD: np.ndarray) -> np.ndarray:
    squares_NS = (z_ND**2).sum(axis=1)[:, None] - 2 * z_ND @ means_SD.T + (means_SD**2).sum(axis=1)
    return np.sqrt(np.maximum(squares_NS.min(axis=1), 0))


def _is_unseen(unseen: Sequence[int], num_classes: int) -> np.ndarray:
    classes = np.unique(np.asarray(list(unseen)))
    if not len(classes) or classes.dtype.kind not in "iu" or classes[0] < 0 or classes[-1] >= num_classes:
        raise ValueError(f"unseen={list(unseen)} are no classes of {num_classes}: pass some, 0 to {num_classes - 1}.")
    if len(classes) == num_classes:
        raise ValueError(f"all {num_classes} classes are unseen: score such a student by `zero_shot`.")
    return np.isin(np.arange(num_classes), classes)


def _check_scored(scores_NC: np.ndarray, labels_N: np.ndarray, novelty_N: np.ndarray) -> None:
    if scores_NC.ndim != 2 or labels_N.shape != (len(scores_NC),) or novelty_N.shape != (len(scores_NC),):
        raise ValueError(
            f"scores {scores_NC.shape}, labels {labels_N.shape} and novelty {novelty_N.shape} do not belong together: pass "
            "[N, C], [N] and [N]."
        )
    check_finite(scores_NC)
    if (
        not len(labels_N)
        or labels_N.dtype.kind not in "iu"
        or labels_N.min() < 0
        or labels_N.max() >= scores_NC.shape[1]
    ):
        raise ValueError(f"labels are no classes of {scores_NC.shape[1]}: pass whole numbers, 0 and above.")
    if not ((novelty_N >= 0) & (novelty_N <= 1)).all():
        raise ValueError("the novelty lies outside [0, 1]: take that of `novelty(...)`.")
