"""Does a prediction's confidence say how often it is right?

Shape legend: N test samples. A confidence is the softmax probability of the predicted class.
"""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np


@dataclass(frozen=True)
class ReliabilityBin:
    """The samples whose confidence lies above `low` and at most at `high`; the first bin holds its `low`, too.

    It has `count` samples, at least 1, with their mean `confidence` and the fraction that is predicted right.
    """

    low: float
    high: float
    count: int
    confidence: float
    accuracy: float


@dataclass(frozen=True)
class Reliability:
    """A reliability diagram: the bins that hold samples, in rising order, and of all samples the expected calibration error.

    Where the mean `confidence` is above the `accuracy`, the model is overconfident; all are fractions.
    """

    bins: tuple[ReliabilityBin, ...]
    count: int
    confidence: float
    accuracy: float
    error: float


def reliability(
    confidences_N: Any, correct_N: Any, bins: int = 15, strategy: Literal["uniform", "quantile"] = "uniform"
) -> Reliability:
    r"""How often predictions of a confidence are right, and the expected calibration error.

    \\(\text{ECE} = \sum_b \frac{n_b}{N} \, | \text{acc}_b - \text{conf}_b |\\) (Guo et al., "On Calibration of Modern Neural
    Networks", ICML 2017, with 15 bins). It is above 0 even for a calibrated model, the more so the fewer samples a bin has:
    compare arms on the same samples and with the same bins.

    Args:
        confidences_N (`np.ndarray` of shape `(N,)`): Softmax probability of the predicted class, from 0 to 1.
        correct_N (`np.ndarray` of shape `(N,)`): Whether it is the right class, `bool` or 0 and 1.
        bins (`int`, *optional*, defaults to 15): At most as many as samples.
        strategy (`str`, *optional*, defaults to `"uniform"`): Bins of equal width, or with `"quantile"` of equally many
            samples (those of one confidence stay together), as in scikit-learn's `calibration_curve`.

    Raises:
        `ValueError`: If there are no samples or fewer than bins, shapes differ, a confidence lies outside of [0, 1] or is
            NaN, or `correct_N` holds anything but 0 and 1.
    """
    confidences_N, correct_N = _check(confidences_N, correct_N, bins)
    if strategy not in ("uniform", "quantile"):
        raise ValueError(f"strategy='{strategy}' is unknown: choose 'uniform' or 'quantile'")
    shares = np.linspace(0, 1, bins + 1)
    edges = shares if strategy == "uniform" else np.quantile(confidences_N, shares)
    bin_N = np.searchsorted(edges[1:-1], confidences_N)  # of equal confidences all in one bin
    # scikit-learn's `calibration_curve` bins alike, but returns no counts, which the error needs.
    found = [
        ReliabilityBin(float(edges[b]), float(edges[b + 1]), *_sizes(confidences_N[bin_N == b], correct_N[bin_N == b]))
        for b in np.unique(bin_N).tolist()
    ]
    error = sum(b.count * abs(b.accuracy - b.confidence) for b in found) / len(confidences_N)
    return Reliability(tuple(found), *_sizes(confidences_N, correct_N), error)


def _sizes(confidences_N: np.ndarray, correct_N: np.ndarray) -> tuple[int, float, float]:
    """Count, mean confidence and accuracy."""
    return len(confidences_N), float(confidences_N.mean()), float(correct_N.mean())


def _check(confidences_N: Any, correct_N: Any, bins: int) -> tuple[np.ndarray, np.ndarray]:
    # In double precision: a confidence on an edge must not fall beside it by rounding of the sum.
    confidences_N, correct_N = np.asarray(confidences_N, dtype=np.float64), np.asarray(correct_N)
    if confidences_N.ndim != 1 or confidences_N.shape != correct_N.shape:
        raise ValueError(
            f"need one confidence and one `correct` a sample, both [N], got shapes {confidences_N.shape} and "
            f"{correct_N.shape}"
        )
    if len(confidences_N) == 0:
        raise ValueError("there is nothing to measure: no confidence was given")
    if not 1 <= bins <= len(confidences_N):
        raise ValueError(f"bins={bins} with {len(confidences_N)} samples: choose 1 to {len(confidences_N)}")
    is_bad_N = ~((confidences_N >= 0) & (confidences_N <= 1))  # also NaN
    if is_bad_N.any():
        row = int(is_bad_N.argmax())
        raise ValueError(
            f"confidence {confidences_N[row]} of sample {row} is no probability ({is_bad_N.sum()} of {len(is_bad_N)} are "
            "none): pass the softmax probability of the predicted class, not its logit or percent"
        )
    if not np.isin(correct_N, (0, 1)).all():
        row = int((~np.isin(correct_N, (0, 1))).argmax())
        raise ValueError(
            f"correct is {correct_N[row]} for sample {row}: pass whether the prediction is the label, `predictions == labels`"
        )
    return confidences_N, correct_N.astype(np.float64)
