"""Metrics of single-label classification as `evaluate` modules over scikit-learn, and as a `compute_metrics` for the Trainer.

Shapes: N samples, C classes. `evaluate.load("accuracy")` would fetch a script from the Hub.
"""

from functools import partial
from typing import Any

import numpy as np

from hf_colearn.data.sample_ids import NO_LABEL
from hf_colearn.evaluation.compute_metrics import ComputeMetrics
from hf_colearn.evaluation.measuring import (
    CLASS_IDS,
    SCORES,
    ArrayMetric,
    check_finite,
    chosen,
)


class Accuracy(ArrayMetric):
    """`accuracy`, the fraction of samples whose predicted class is the label, in [0, 1]."""

    forms = ((CLASS_IDS, CLASS_IDS),)

    def _compute(self, *, predictions: np.ndarray, references: np.ndarray) -> dict[str, float]:
        class_ids_N, labels_N = _check_class_ids(predictions, references)
        return {"accuracy": float(np.mean(class_ids_N == labels_N))}


class MacroF1(ArrayMetric):
    """`macro_f1`, the mean F1 over the classes that occur among labels or predictions, in [0, 1]."""

    forms = ((CLASS_IDS, CLASS_IDS),)

    def _compute(self, *, predictions: np.ndarray, references: np.ndarray) -> dict[str, float]:
        from sklearn.metrics import f1_score  # slow to import, as below

        class_ids_N, labels_N = _check_class_ids(predictions, references)
        return {"macro_f1": float(f1_score(labels_N, class_ids_N, average="macro"))}


class TopKAccuracy(ArrayMetric):
    """`top{k}`, the fraction of samples whose label is among the `k` highest scores, in [0, 1].

    Of equal scores the lower class id comes first, as in `argmax`, so `k=1` is the accuracy of the argmax.

    Args:
        k (`int`, *optional*, defaults to 5): How many of the highest scores count as a hit; below C.
        **kwargs: Of `evaluate.Metric`.
    """

    forms = ((SCORES, CLASS_IDS),)

    def __init__(self, k: int = 5, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.k = k

    def _compute(self, *, predictions: np.ndarray, references: np.ndarray) -> dict[str, float]:
        from sklearn.metrics import top_k_accuracy_score

        scores_NC, labels_N = _check_scores(predictions, references)
        classes = scores_NC.shape[1]
        if not 0 < self.k < classes:
            raise ValueError(f"top-k accuracy needs 0 < k < number of classes, got k={self.k} and {classes} classes")
        if self.k == 1:  # scikit-learn takes two classes in another form
            return {"top1": float(np.mean(labels_N == scores_NC.argmax(axis=1)))}
        # scikit-learn prefers the higher class id of equal scores, so the classes are counted from the end.
        value = top_k_accuracy_score(classes - 1 - labels_N, scores_NC[:, ::-1], k=self.k, labels=range(classes))
        return {f"top{self.k}": float(value)}


class MeanAveragePrecision(ArrayMetric):
    """`map`, the macro mean of the average precision of one class against the rest, and `map_excluded_classes`.

    The mean is over the classes that have a positive; the others are counted. Average precision is step-wise,
    `sum_n (R_n - R_{n-1}) P_n` over the distinct scores as thresholds, so that samples of equal scores enter together.
    The samples of a class are ranked by the scores as they are given: with logits, take the softmax first.
    """

    forms = ((SCORES, CLASS_IDS),)

    def _compute(self, *, predictions: np.ndarray, references: np.ndarray) -> dict[str, float]:
        from sklearn.metrics import average_precision_score

        scores_NC, labels_N = _check_scores(predictions, references)
        present = np.unique(labels_N)
        # One call for all classes: scikit-learn checks its input anew in every call, for longer than it computes.
        value = average_precision_score(labels_N[:, None] == present, scores_NC[:, present])
        return {"map": float(value), "map_excluded_classes": scores_NC.shape[1] - len(present)}


_METRICS: dict[str, type[ArrayMetric]] = {
    "accuracy": Accuracy, "top5": TopKAccuracy, "macro_f1": MacroF1, "map": MeanAveragePrecision,
}  # fmt: skip


def classification_metrics(
    metrics: tuple[str, ...] = ("accuracy", "top5", "macro_f1", "map"),
) -> ComputeMetrics:
    """A `compute_metrics` for single-label classification with [`~transformers.Trainer`].

    Samples whose label is -100 have none: they are left out and, where there are some, counted as `num_unlabelled`.

    Args:
        metrics (`tuple[str, ...]`, *optional*, defaults to `("accuracy", "top5", "macro_f1", "map")`):
            What to compute, all in [0, 1]. `"top5"` is left out with 5 classes or fewer, where it would always be 1.
            `"map"` ranks the samples of each class by their softmax probability, and comes with
            `map_excluded_classes`, the number of classes without a positive.

    Returns:
        `Callable[[EvalPrediction], dict[str, float]]`: From logits `(N, C)` and integer labels `(N,)` to the metrics
        by name. A multimodal model's predictions, `(logits, modality_logits, modality_mask, subset_logits)`, give more:
        `{metric}_{modality}` of a modality's own head, over the samples that have it, and `{metric}_given_{subset}` of
        the fused prediction from a subset of the modalities, over the samples that have all of it; without samples they
        are left out. Other tuples, no labels at all, scores that are not finite and labels outside `[0, C)` are a
        ValueError.

    Raises:
        `ValueError`: If a name is not one of the four.

    Example:

    ```python
    >>> import numpy as np
    >>> from transformers import EvalPrediction
    >>> from hf_colearn import classification_metrics

    >>> compute_metrics = classification_metrics(metrics=("accuracy", "map"))
    >>> logits, labels = np.array([[2.0, 0.0], [0.0, 1.0], [0.0, 3.0]]), np.array([0, 1, -100])
    >>> compute_metrics(EvalPrediction(predictions=logits, label_ids=labels))
    {'accuracy': 1.0, 'map': 1.0, 'map_excluded_classes': 0, 'num_unlabelled': 1}
    ```
    """
    modules = chosen(metrics, _METRICS)

    def measure(logits_NC: np.ndarray, labels_N: np.ndarray) -> dict[str, float]:
        _check_scores(logits_NC, labels_N)
        results: dict[str, float] = {}
        for module in modules:
            if isinstance(module, TopKAccuracy) and logits_NC.shape[1] <= module.k:
                continue
            predictions = logits_NC if SCORES in module.forms[0] else logits_NC.argmax(axis=1)
            if isinstance(module, MeanAveragePrecision):
                # Ranking across samples: a constant added to one sample's logits must not move it, hence the softmax.
                predictions = _log_softmax(logits_NC)
            results |= module.compute(predictions=predictions, references=labels_N) or {}
        return results

    return ComputeMetrics("single_label_classification", measure, partial(_check_scores, unlabelled=True))


def _log_softmax(logits_NC: np.ndarray) -> np.ndarray:
    """Ranks samples as the softmax does, without its ties where probabilities round to 0 or 1."""
    shifted_NC = logits_NC.astype(np.float64) - logits_NC.max(axis=1, keepdims=True)
    others_NC = np.exp(shifted_NC)  # the highest logit has exp(0) = 1, which log1p adds without rounding
    others_NC[np.arange(len(logits_NC)), logits_NC.argmax(axis=1)] = 0
    return shifted_NC - np.log1p(others_NC.sum(axis=1, keepdims=True))


def _check_class_ids(class_ids_N: Any, labels_N: Any) -> tuple[np.ndarray, np.ndarray]:
    labels_N = _check_ids("label", labels_N)
    class_ids_N = _check_ids("predicted class", class_ids_N)
    if class_ids_N.shape != labels_N.shape:
        raise ValueError(f"got {len(class_ids_N)} predicted classes for {len(labels_N)} labels")
    return class_ids_N, labels_N


def _check_ids(what: str, ids_N: Any, unlabelled: bool = False) -> np.ndarray:
    ids_N = np.asarray(ids_N)
    if ids_N.size == 0:
        raise ValueError(f"there is nothing to measure: no {what} was given")
    if ids_N.ndim != 1 or ids_N.dtype.kind not in "iu":
        raise ValueError(f"need one integer {what} a sample [N], got shape {ids_N.shape} of {ids_N.dtype}")
    is_bad_N = (ids_N < 0) & ~(unlabelled & (ids_N == NO_LABEL))
    if is_bad_N.any():
        sample = is_bad_N.argmax()
        raise ValueError(f"{what} {ids_N[sample]} of sample {sample} is negative: class ids start at 0")
    return ids_N


def _check_scores(scores_NC: Any, labels_N: Any, unlabelled: bool = False) -> tuple[np.ndarray, np.ndarray]:
    scores_NC, labels_N = np.asarray(scores_NC), _check_ids("label", labels_N, unlabelled)
    if scores_NC.ndim != 2 or len(scores_NC) != len(labels_N):
        raise ValueError(f"need scores [N, C] for {len(labels_N)} labels, got shape {scores_NC.shape}")
    if labels_N.max() >= scores_NC.shape[1]:
        raise ValueError(
            f"label {labels_N.max()} of sample {labels_N.argmax()} is out of range for {scores_NC.shape[1]} classes"
        )
    check_finite(scores_NC)
    return scores_NC, labels_N
