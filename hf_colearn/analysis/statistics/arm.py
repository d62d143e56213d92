"""An arm of a comparison: its name, its kind and its scores, and what of these makes no comparison."""

import difflib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np


Kind = Literal["baseline", "colearned", "null", "reference"]


@dataclass(frozen=True)
class Arm:
    """One trained configuration.

    Args:
        name (`str`): Unique within the comparison.
        kind (`str`): `"baseline"` (no teacher), `"colearned"` (the real teacher), `"null"` (a null control), or `"reference"`
            (shown beside them, such as one modality alone; neither judged nor a control).
        scores (`list[float]`): One a seed, of 1 at most, higher is better, the seeds in the same order in every arm: a
            fraction, or a coefficient such as R2, which may be negative.
    """

    name: str
    kind: Kind
    scores: list[float]


def check_arm(arm: str, kind: str) -> None:
    """Refuses a name that tables cannot show, and what is none of the four kinds."""
    if not isinstance(arm, str) or not arm.strip() or not arm.isprintable() or arm != arm.strip():
        raise ValueError(
            f"arm={arm!r} is no name: pass a text of one line, without spaces around it, such as 'text teacher'."
        )
    if kind not in get_args(Kind):
        near = difflib.get_close_matches(str(kind), get_args(Kind), n=1, cutoff=0.5)
        guess = f"did you mean '{near[0]}'? It is" if near else "it is"
        raise ValueError(
            f"arm '{arm}' is of kind {kind!r}: {guess} one of 'baseline' (no teacher), 'colearned' (the real teacher), 'null' "
            "(a null control) or 'reference' (shown beside them)."
        )


def check_arms(arms: list[Arm], confidence: float) -> None:
    """Refuses arms that make no comparison, with the value at fault."""
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must lie between 0 and 1, got {confidence}")
    for name, count in Counter(arm.name for arm in arms).items():
        if count > 1:
            raise ValueError(f"{count} arms are named '{name}': give every arm its own name")
    for arm in arms:
        check_arm(arm.name, arm.kind)
        if len(arm.scores) == 0 or len(arm.scores) != len(arms[0].scores):
            counts = {arm.name: len(arm.scores) for arm in arms}
            raise ValueError(f"every arm needs one score for each of the same seeds, got {counts} scores")
        for seed, score in enumerate(arm.scores):
            if not -np.inf < score <= 1:  # also catches NaN
                raise ValueError(
                    f"score {seed} of arm '{arm.name}' is {score}: scores are fractions, or coefficients such as R2, of 1 at "
                    "most (divide percent by 100; a NaN is a failed run, train it again or leave the arm out)"
                )
    kinds = [arm.kind for arm in arms]
    if kinds.count("baseline") != 1 or not {"colearned", "reference"} & set(kinds):
        raise ValueError(
            f"need exactly one arm of kind 'baseline' and at least one 'colearned', got {kinds}: {_what_is_missing(arms)}."
        )


def _what_is_missing(arms: Sequence[Arm]) -> str:
    baselines = [repr(arm.name) for arm in arms if arm.kind == "baseline"]
    if len(baselines) > 1:
        return f"compare {' and '.join(baselines)} one at a time, or save all but one of them as 'reference'"
    if not baselines:
        return "train the same model without a teacher, and save it as 'baseline'"
    return "train one with the teacher, and save it as 'colearned'"
