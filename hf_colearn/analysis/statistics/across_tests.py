"""Do the arms hold on other test sets, such as with a cue taken away? Each has a comparison of the same arms and seeds."""

from collections.abc import Mapping

from hf_colearn.analysis.statistics.compare import Comparison
from hf_colearn.analysis.statistics.estimates import (
    interval,
    paired_differences,
    paired_estimates,
    points,
    score_limits,
)
from hf_colearn.utils.tables import markdown_table


def tests_table(comparisons: Mapping[str, Comparison]) -> str:
    """Arms x test sets (by name) in Markdown: means over the seeds in percent, with t-intervals where the seeds differ."""
    rows = [["arm", *comparisons]]
    for i, arm in enumerate(_check(comparisons).arms):
        means = [comparison.arms[i].mean for comparison in comparisons.values()]
        rows.append([arm.name, *(f"{100 * mean.mean:.2f} {interval(mean, '')}".rstrip() for mean in means)])
    return markdown_table(rows)


def tests_in_words(comparisons: Mapping[str, Comparison]) -> str:
    """One line an arm: its mean on the first test set, and how far every other one is from it, paired by seed.

    The intervals are not corrected for the number of arms and test sets, which are given by name.
    """
    first = _check(comparisons, at_least=2)
    [(first_name, _), *others] = comparisons.items()
    lines = []
    for i, arm in enumerate(first.arms):
        moves = []
        for name, other in others:
            difference = paired_differences(other.arms[i].scores, arm.scores)
            lowest, highest = score_limits(first.metric, [*other.arms[i].scores, *arm.scores])
            moves.append(f"{points(*paired_estimates([difference], first.confidence, highest - lowest))} pp on {name}")
        lines.append(f"{arm.name}: {100 * arm.mean.mean:.2f} % on {first_name}; {', '.join(moves)}.")
    return "\n".join(lines)


def _check(comparisons: Mapping[str, Comparison], at_least: int = 1) -> Comparison:
    """The first comparison; refuses fewer than are needed, or others of the same arms and seeds."""
    if len(comparisons) < at_least:
        raise ValueError(
            f"{len(comparisons)} test sets are given, and at least {at_least} needed: score on some more."
        )
    first_name, first = next(iter(comparisons.items()))
    for name, comparison in comparisons.items():
        found, wanted = ([(arm.name, len(arm.scores)) for arm in c.arms] for c in (comparison, first))
        if found != wanted:
            raise ValueError(
                f"the arms and their seeds on '{name}' are {dict(found)}, and on '{first_name}' {dict(wanted)}: score the "
                "same runs on every test set."
            )
    return first
