"""What the name of a metric says: whether it is an error, which is better the lower it is, what it is called in tables and
figures, and how its value is written.
"""

import numpy as np


_ERRORS = {"loss", "mse", "rmse", "mae", "rank"}  # words in the names
_COEFFICIENTS = {"r2", "pearson"}  # of 1 at most, and no fractions of anything: shown times 100
_CALLED = {
    "macro_f1": "macro F1",
    "f1_macro": "macro F1",
    "f1_micro": "micro F1",
    "map": "mAP",
    "top5": "top-5 accuracy",
    "r2": "R²",
    "mse": "mean squared error",
    "pearson": "Pearson correlation",
}


def is_error(metric: str) -> bool:
    """Whether a metric is lower where it is better, and has a unit of its own: `mse`, `mse_given_audio`, `loss`.

    Example:

    ```python
    >>> from hf_colearn.utils.metric_names import is_error

    >>> is_error("mse_image"), is_error("r2"), is_error("accuracy")
    (True, False, False)
    ```
    """
    return not _ERRORS.isdisjoint(metric.split("_"))


def written(metric: str, value: float) -> str:
    """The value with four decimals, or of an error with four digits, as in `0.8750` and `0.00001235`."""
    if is_error(metric):
        return np.format_float_positional(value, precision=4, fractional=False, unique=False, trim="-")
    return f"{value:.4f}"


def is_count(metric: str) -> bool:
    """Whether it is no score, but a number of samples or classes that were left out."""
    return metric.startswith("num_") or "excluded" in metric


def called(metric: str) -> str:
    """What a metric is called, one of a modality or of another test set included.

    Example:

    ```python
    >>> from hf_colearn.utils.metric_names import called

    >>> called("f1_macro_given_audio"), called("accuracy_on_cue_flipped")
    ('macro F1 given audio', 'accuracy on cue flipped')
    ```
    """
    name = next((name for name in _CALLED if f"{metric}_".startswith(f"{name}_")), "")
    return (_CALLED.get(name, "") + metric.removeprefix(name)).replace("_", " ")


def with_unit(metric: str) -> str:
    """As in `accuracy [%]`, over a column of values: a hundred times a coefficient, and an error in the label's unit."""
    if is_error(metric):
        return called(metric)
    return f"{called(metric)} [{'%' if _COEFFICIENTS.isdisjoint(metric.split('_')) else '× 100'}]"


def pp(metric: str) -> str:
    """What a difference in `pp` is: `percentage points`, or `hundredths of R²`."""
    return "percentage points" if with_unit(metric).endswith("[%]") else f"hundredths of {called(metric)}"
