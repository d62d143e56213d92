"""Checks of single values, which name the value and the way out."""

import math
from collections.abc import Collection


def check_choice(name: str, value: str, choices: Collection[str]) -> None:
    """Refuses a text that is none of the choices."""
    if value not in choices:
        raise ValueError(f"{name}='{value}' is unknown: choose one of {', '.join(choices)}.")


def check_positive(name: str, value: float) -> None:
    """Refuses 0 and below, infinity and NaN."""
    if not 0 < value < math.inf:
        raise ValueError(f"{name}={value}: choose a number above 0.")
