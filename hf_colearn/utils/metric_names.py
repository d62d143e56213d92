"""What the name of a metric says: whether it is an error, which is better the lower it is, and how its value is written."""

import numpy as np


_ERRORS = {"loss", "mse", "rmse", "mae"}  # words in the names


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
