"""Checks of single values, which name the value and the way out."""

import math
import os
from collections.abc import Collection, Iterable
from numbers import Integral, Real
from typing import Any


def is_number(value: Any) -> bool:
    """Whether a value is one real number, NaN and infinity among them, and no boolean."""
    return isinstance(value, Real) and not isinstance(value, bool)


def as_number(name: str, value: Any) -> float:
    """A number as a float, also one that is written as text, as YAML reads 5e-1; refuses what is none."""
    try:
        if not isinstance(value, bool):
            return float(value)
    except (TypeError, ValueError):
        pass
    raise ValueError(f"{name}={value!r} is no number: pass one, such as 0.5.")


def check_choice(name: str, value: str, choices: Collection[str]) -> None:
    """Refuses a text that is none of the choices."""
    if not isinstance(value, str) or value not in choices:
        raise ValueError(f"{name}='{value}' is unknown: choose one of {', '.join(choices)}.")


def check_positive(name: str, value: float) -> None:
    """Refuses 0 and below, infinity, NaN and what is no number."""
    if not is_number(value) or not 0 < value < math.inf:
        raise ValueError(f"{name}={value!r}: choose a number above 0.")


def check_integer(name: str, value: Any, least: int = 0) -> None:
    """Refuses what is no integer, and those below the least one."""
    if isinstance(value, bool) or not isinstance(value, Integral) or value < least:
        raise ValueError(f"{name}={value!r}: pass a whole number, at least {least}.")


def check_path(name: str, value: Any) -> None:
    """Refuses what is no path."""
    if not isinstance(value, (str, os.PathLike)):
        raise TypeError(f"{name} is a {type(value).__name__}: pass a path, such as 'runs/mine'.")


def check_names(name: str, value: Any, such_as: str) -> None:
    """Refuses what is no list of names, as a single name is none."""
    if isinstance(value, str) or not isinstance(value, Iterable) or not all(isinstance(v, str) for v in value):
        raise TypeError(f"{name}={value!r} is no list of names: pass a tuple, such as ('{such_as}',).")


def check_epochs(epochs: Any) -> tuple[int, int]:
    """The first and the last epoch of a span, from 0; refuses what is none."""
    if not isinstance(epochs, (tuple, list)) or len(epochs) != 2:
        raise ValueError(f"epochs={epochs!r}: pass the first and the last one, such as (0, 50).")
    first, last = epochs
    check_integer("the first of epochs", first)
    check_integer("the last of epochs", last)
    if last < first:
        raise ValueError(f"epochs={(first, last)} end before they begin: pass the first and the last one, as (0, 50).")
    return first, last
