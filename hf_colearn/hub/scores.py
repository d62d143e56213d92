"""Which metrics of an evaluation a card can state as scores: finite numbers; the rest is noted in words."""

import math
import numbers
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from hf_colearn.utils.metric_names import is_count


_LONGEST = 40  # characters of a text that is noted


def finite_scalars(metrics: Mapping[str, Any]) -> tuple[dict[str, float], dict[str, str]]:
    """The metrics that are one finite number, and what the others are, in words.

    A scalar of NumPy, and a tensor or an array of no dimensions, are numbers; True and False are none, and a count of what
    was left out is no score.

    Example:

    ```python
    >>> from hf_colearn.hub.scores import finite_scalars

    >>> finite_scalars({"accuracy": 0.5, "recall_by_class": [0.2, 0.8], "map": float("nan")})
    ({'accuracy': 0.5}, {'recall_by_class': '2 values', 'map': 'nan'})
    ```
    """
    scores: dict[str, float] = {}
    others: dict[str, str] = {}
    for name, value in metrics.items():
        plain = plain_value(value)
        if is_finite_scalar(plain) and not is_count(str(name)):
            scores[str(name)] = plain
        else:
            others[str(name)] = _in_words(plain)
    return scores, others


def plain_value(value: Any) -> Any:
    """A scalar of NumPy or torch, or of no dimensions, as Python's; other values as they are."""
    if isinstance(value, (np.generic, np.ndarray, torch.Tensor)) and value.ndim == 0:
        return value.item()
    return value


def is_finite_scalar(value: Any) -> bool:
    return isinstance(value, numbers.Real) and not isinstance(value, bool) and math.isfinite(value)


def _in_words(value: Any) -> str:
    if isinstance(value, (np.ndarray, torch.Tensor)):
        return f"{' x '.join(map(str, value.shape))} values"
    if isinstance(value, Mapping):
        return f"by name: {', '.join(map(str, value))}"[:_LONGEST]
    if isinstance(value, (list, tuple, set)):
        return f"{len(value)} values"
    text = " ".join(str(value).split())
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."
