"""Metrics of multi-label classification as `evaluate` modules over scikit-learn, and as a `compute_metrics` for the Trainer.

Shapes: N samples, C classes, each of which a sample may have or not.
"""

from functools import partial
from typing import Any

import numpy as np

from hf_colearn.data.sample_ids import NO_LABEL
from hf_colearn.evaluation.compute_metrics import ComputeMetrics
from hf_colearn.evaluation.measuring import (
    LABELS,
    SCORES,
    ArrayMetric,
    check_finite,
    chosen,
    measured,
)


class MultiLabelMeanAveragePrecision(ArrayMetric):
    """`mean_average_precision`, the macro mean of the classes' average precisions, and how many classes it excludes.

    The mean is over the classes that have a positive; the others are counted, as
    `mean_average_precision_excluded_classes`. Average precision is step-wise, `sum_n (R_n - R_{n-1}) P_n` over the distinct
    scores as thresholds. Where no class has a positive there is no mean.
    """

    forms = ((SCORES, LABELS),)

    def _compute(self, *, predictions: np.ndarray, references: np.ndarray) -> dict[str, float]:
        from sklearn.metrics import average_precision_score  # slow to import, as below

        scores_NC, is_positive_NC, counts_NC = _check_labels(predictions, references)
        present_C = is_positive_NC.any(axis=0)
        excluded: dict[str, float] = {"mean_average_precision_excluded_classes": int(np.sum(~present_C))}
        if not present_C.any():
            return excluded
        # A negative below all positives adds no recall: entries without a label go there, and scikit-learn is called once.
        scores_NC = np.where(counts_NC, scores_NC, scores_NC.min() - 1)
        value = average_precision_score(is_positive_NC[:, present_C], scores_NC[:, present_C])
        return {"mean_average_precision": float(value), **excluded}


class MicroF1(ArrayMetric):
    """`f1_micro`, the F1 of all entries of all classes together, in [0, 1]; 0 where none is positive or predicted.

    A class is predicted where its score is above 0: of a logit, where its probability is above 0.5.
    """

    forms = ((SCORES, LABELS),)

    def _compute(self, *, predictions: np.ndarray, references: np.ndarray) -> dict[str, float]:
        from sklearn.metrics import f1_score

        is_positive_NC, is_predicted_NC = _entries(predictions, references)
        value = f1_score(is_positive_NC.ravel(), is_predicted_NC.ravel(), zero_division=0)
        return {"f1_micro": float(value)}


class MultiLabelMacroF1(ArrayMetric):
    """`f1_macro`, the mean F1 over the classes that occur among labels or predictions, in [0, 1]; 0 where none does.

    A class is predicted as for `f1_micro`.
    """

    forms = ((SCORES, LABELS),)

    def _compute(self, *, predictions: np.ndarray, references: np.ndarray) -> dict[str, float]:
        from sklearn.metrics import f1_score

        is_positive_NC, is_predicted_NC = _entries(predictions, references)
        occurs_C = (is_positive_NC | is_predicted_NC).any(axis=0)
        if not occurs_C.any():
            return {"f1_macro": 0.0}
        # One class alone is a column that scikit-learn would take for single labels.
        each = [
            f1_score(is_positive_NC[:, c], is_predicted_NC[:, c], zero_division=0) for c in np.flatnonzero(occurs_C)
        ]
        return {"f1_macro": float(np.mean(each))}


_METRICS: dict[str, type[ArrayMetric]] = {
    "mean_average_precision": MultiLabelMeanAveragePrecision, "f1_micro": MicroF1, "f1_macro": MultiLabelMacroF1,
}  # fmt: skip


def multi_label_metrics(
    metrics: tuple[str, ...] = ("mean_average_precision", "f1_micro", "f1_macro"),
) -> ComputeMetrics:
    """A `compute_metrics` for multi-label classification with [`~transformers.Trainer`].

    An entry of the labels that is -100 or NaN is none: it is left out of its class. A sample without any other entry is left
    out and, where there are some, counted as `num_unlabelled`.

    Args:
        metrics (`tuple[str, ...]`, *optional*, defaults to `("mean_average_precision", "f1_micro", "f1_macro")`):
            What to compute, all in [0, 1]. F1 counts a class as predicted where its logit is above 0.
            `"mean_average_precision"` is over the classes that have a positive, comes with
            `mean_average_precision_excluded_classes`, the number of the others, and is left out where there is no positive.

    Returns:
        `Callable[[EvalPrediction], dict[str, float]]`: From logits `(N, C)` and labels `(N, C)` of 0 and 1 to the metrics
        by name; of a multimodal model's modalities, too, as of [`classification_metrics`].

    Raises:
        `ValueError`: If a name is not one of the three.

    Example:

    ```python
    >>> import numpy as np
    >>> from transformers import EvalPrediction
    >>> from hf_colearn import multi_label_metrics

    >>> compute_metrics = multi_label_metrics(metrics=("f1_micro",))
    >>> logits, labels = np.array([[2.0, -1.0], [3.0, 1.0]]), np.array([[1.0, 0.0], [np.nan, 1.0]])
    >>> compute_metrics(EvalPrediction(predictions=logits, label_ids=labels))
    {'f1_micro': 1.0}
    ```
    """
    measure = partial(measured, chosen(metrics, _METRICS))
    return ComputeMetrics("multi_label_classification", measure, _check_labels)


def _entries(scores_NC: Any, labels_NC: Any) -> tuple[np.ndarray, np.ndarray]:
    """Which entries are positive, and which are predicted, `(N, C)` booleans: F1 does not see those that are neither."""
    scores_NC, is_positive_NC, counts_NC = _check_labels(scores_NC, labels_NC)
    return is_positive_NC, (scores_NC > 0) & counts_NC


def _check_labels(scores_NC: Any, labels_NC: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The scores, which entries are positive, and which have a label, `(N, C)`."""
    scores_NC, labels_NC = np.asarray(scores_NC), np.asarray(labels_NC)
    if labels_NC.size == 0:
        raise ValueError("there is nothing to measure: no label was given")
    if labels_NC.ndim != 2 or scores_NC.shape != labels_NC.shape:
        raise ValueError(
            f"need scores [N, C] and labels [N, C] of 0 and 1, got shapes {scores_NC.shape} and {labels_NC.shape}: for one "
            "class a sample, use `classification_metrics`"
        )
    counts_NC = ~np.isnan(labels_NC) & (labels_NC != NO_LABEL)
    is_bad_NC = counts_NC & (labels_NC != 0) & (labels_NC != 1)
    if is_bad_NC.any():
        row, column = np.argwhere(is_bad_NC)[0]
        raise ValueError(
            f"label {labels_NC[row, column]} of sample {row} and class {column} is none: pass 1 where the sample has the "
            "class, 0 where it has not, and -100 or NaN where that is not known"
        )
    check_finite(scores_NC)
    return scores_NC, labels_NC == 1, counts_NC
