"""Metrics of regression as `evaluate` modules over scikit-learn and SciPy, and as a `compute_metrics` for the Trainer.

Shapes: N samples, C outputs; one output may be `(N,)` or `(N, 1)`.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from transformers import EvalPrediction

from hf_colearn.evaluation.compute_metrics import ComputeMetrics
from hf_colearn.evaluation.measuring import (
    OUTPUTS,
    VALUES,
    ArrayMetric,
    check_finite,
    chosen,
    measured,
)


class RSquared(ArrayMetric):
    """`r2`, the coefficient of determination: 1 at best, 0 for the labels' mean, below 0 for what is worse than that.

    The mean over the outputs, each over the samples that have its label, whose labels vary; where none does there is none.
    """

    forms = ((VALUES, VALUES), (OUTPUTS, OUTPUTS))

    def _compute(self, *, predictions: np.ndarray, references: np.ndarray) -> dict[str, float]:
        from sklearn.metrics import r2_score  # slow to import, as below

        each = [r2_score(labels_n, values_n) for values_n, labels_n in _varying_outputs(predictions, references)]
        return {"r2": float(np.mean(each))} if each else {}


class MeanSquaredError(ArrayMetric):
    """`mse`, the mean squared difference of prediction and label, in the labels' unit squared; lower is better.

    The mean over all labels of all outputs, as the loss.
    """

    forms = ((VALUES, VALUES), (OUTPUTS, OUTPUTS))

    def _compute(self, *, predictions: np.ndarray, references: np.ndarray) -> dict[str, float]:
        from sklearn.metrics import mean_squared_error

        predictions_NC, labels_NC = _check_values(predictions, references)
        is_label_NC = ~np.isnan(labels_NC)
        return {"mse": float(mean_squared_error(labels_NC[is_label_NC], predictions_NC[is_label_NC]))}


class PearsonCorrelation(ArrayMetric):
    """`pearson`, the linear correlation of predictions and labels, in [-1, 1].

    The mean over the outputs as of `r2`. Predictions that are the same for all samples count as 0.
    """

    forms = ((VALUES, VALUES), (OUTPUTS, OUTPUTS))

    def _compute(self, *, predictions: np.ndarray, references: np.ndarray) -> dict[str, float]:
        from scipy.stats import pearsonr

        each = [
            pearsonr(labels_n, values_n)[0] if np.ptp(values_n) > 0 else 0.0
            for values_n, labels_n in _varying_outputs(predictions, references)
        ]
        return {"pearson": float(np.mean(each))} if each else {}


_METRICS: dict[str, type[ArrayMetric]] = {"r2": RSquared, "mse": MeanSquaredError, "pearson": PearsonCorrelation}


def regression_metrics(metrics: tuple[str, ...] = ("r2", "mse", "pearson")) -> ComputeMetrics:
    """A `compute_metrics` for regression with [`~transformers.Trainer`].

    A label that is NaN is none: it is left out of its output. Samples without any other are left out and, where there are
    some, counted as `num_unlabelled`.

    Args:
        metrics (`tuple[str, ...]`, *optional*, defaults to `("r2", "mse", "pearson")`): What to compute, means over the
            outputs. `"mse"` is in the labels' unit squared, and lower is better: with `metric_for_best_model="mse"` set
            `greater_is_better=False`. `"r2"` and `"pearson"` are left out where the labels do not vary.

    Returns:
        `Callable[[EvalPrediction], dict[str, float]]`: From logits `(N, C)` and labels `(N,)` or `(N, C)` to the metrics by
        name; of a multimodal model's modalities, too, as of [`classification_metrics`].

    Raises:
        `ValueError`: If a name is not one of the three.

    Example:

    ```python
    >>> import numpy as np
    >>> from transformers import EvalPrediction
    >>> from hf_colearn import regression_metrics

    >>> compute_metrics = regression_metrics()
    >>> predictions, labels = np.array([[1.0], [2.0], [4.0], [9.0]]), np.array([1.0, 3.0, 5.0, np.nan])
    >>> {name: round(x, 3) for name, x in compute_metrics(EvalPrediction(predictions, labels)).items()}
    {'r2': 0.75, 'mse': 0.667, 'pearson': 0.982, 'num_unlabelled': 1}
    ```
    """
    return ComputeMetrics("regression", partial(measured, chosen(metrics, _METRICS)), _check_values)


def with_r2(compute_metrics: Callable[[EvalPrediction], dict[str, float]] | None) -> Any:
    """What also measures `r2`, last, where it does not: an error has a unit, and arms are compared on what has none."""

    def also_r2(evaluation: EvalPrediction) -> dict[str, float]:
        results = dict(compute_metrics(evaluation)) if compute_metrics is not None else {}
        return results if "r2" in results else results | regression_metrics(("r2",))(evaluation)

    return also_r2


def _varying_outputs(predictions: Any, labels: Any) -> list[tuple[np.ndarray, np.ndarray]]:
    """Predictions and labels, both `(n,)`, of every output whose labels vary, over the samples that have one."""
    predictions_NC, labels_NC = _check_values(predictions, labels)
    outputs = [
        (values_N[~np.isnan(labels_N)], labels_N[~np.isnan(labels_N)])
        for values_N, labels_N in zip(predictions_NC.T, labels_NC.T, strict=True)
    ]
    return [(values_n, labels_n) for values_n, labels_n in outputs if len(labels_n) > 1 and np.ptp(labels_n) > 0]


def _check_values(predictions: Any, labels: Any) -> tuple[np.ndarray, np.ndarray]:
    """Predictions and labels, both `(N, C)` in float64; NaN is no label."""
    predictions, labels = np.asarray(predictions, dtype=np.float64), np.asarray(labels, dtype=np.float64)
    if labels.size == 0:
        raise ValueError("there is nothing to measure: no label was given")
    predictions_NC, labels_NC = predictions.reshape(len(predictions), -1), labels.reshape(len(labels), -1)
    if max(predictions.ndim, labels.ndim) > 2 or predictions_NC.shape != labels_NC.shape:
        raise ValueError(
            f"need one prediction for each label, [N] or [N, outputs], got shapes {predictions.shape} and {labels.shape}"
        )
    check_finite(predictions_NC)
    if np.isinf(labels_NC).any():
        row, column = np.argwhere(np.isinf(labels_NC))[0]
        raise ValueError(f"label {labels_NC[row, column]} of sample {row} is no number to measure against")
    return predictions_NC, labels_NC
