"""Checks of single values, which name the value and the way out."""

import math
from collections.abc import Collection
from typing import Any

from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id


def check_choice(name: str, value: str, choices: Collection[str]) -> None:
    """Refuses a text that is none of the choices."""
    if value not in choices:
        raise ValueError(f"{name}='{value}' is unknown: choose one of {', '.join(choices)}.")


def check_positive(name: str, value: float) -> None:
    """Refuses 0 and below, infinity and NaN."""
    if not 0 < value < math.inf:
        raise ValueError(f"{name}={value}: choose a number above 0.")


def check_repo_id(repo_id: Any) -> None:
    """Refuses what cannot be the name of a repository of the Hub, before anything is asked of it."""
    why = ""
    if isinstance(repo_id, str) and repo_id.count("/") == 1:
        try:
            return validate_repo_id(repo_id)
        except HFValidationError as error:
            why = f" ({error})"
    raise ValueError(
        f"repo_id={repo_id!r} is not of the form 'owner/name', such as 'me/digits'{why}: choose another name."
    )
