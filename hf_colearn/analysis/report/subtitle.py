"""The line below a report's title: data, samples with their labels and pairs, arms and seeds."""

from collections.abc import Iterable, Mapping, Sequence

from hf_colearn.analysis.runs import Run, by_arm, by_level
from hf_colearn.analysis.statistics.levels import level_words


def subtitle(runs: Sequence[Run], dataset: str | None = None) -> str:
    """What the runs were trained and tested on.

    Which training samples have a label and which a pair is said where some have none, as in `24 of 1,200 labelled, 1,200
    paired`: of the co-learned arms, from the facts `num_train`, `num_labelled` and `num_paired`, which older runs lack.
    """
    parts = [str(dataset)] if dataset else []
    if trained := [run.facts["num_train"] for run in runs if run.facts.get("num_train")]:
        parts.append(f"{_span(trained)} training samples")
    parts.extend(_supervision(runs))
    variable, levels = by_level(runs)
    arms = len(by_arm(runs))
    if levels:
        *lower, highest = levels
        arms = len({run.arm for of_level in levels.values() for run in of_level})
        swept = f" at {', '.join(f'{level:g}' for level in lower)} and {level_words(highest, variable)}"
    seeds = sorted({run.seed for run in runs})
    numbers = f"seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))}"
    return "; ".join(
        [*parts, f"{len(runs[0].labels):,} test samples", f"{arms} arms{swept if levels else ''}, {numbers}"]
    )


def _supervision(runs: Sequence[Run]) -> list[str]:
    """Nothing where all samples have both, or nobody knows."""
    known = [run.facts for run in runs if None not in [run.facts.get(name) for name in ("num_train", "num_labelled")]]
    taught = [run.facts for run in runs if run.kind == "colearned" and run.facts in known]
    facts = taught or known
    paired: dict[str, list[int]] = {}
    for of_run in taught:
        counts = of_run.get("num_paired")
        for teacher, count in counts.items() if isinstance(counts, Mapping) else [("", counts)]:
            if count is not None:
                paired.setdefault(teacher, []).append(count)
    everyone, labelled = ([of_run[name] for of_run in facts] for name in ("num_train", "num_labelled"))
    if {*everyone} == {*labelled}.union(*paired.values()):
        return []
    words = [f"{_span(count)} paired{' with ' if teacher else ''}{teacher}" for teacher, count in paired.items()]
    return [", ".join([f"{_span(labelled)} of {_span(everyone)} labelled", *words])]


def _span(counts: Iterable[int]) -> str:
    """As in `1,200`, or `12 to 60` where they differ."""
    different = sorted(set(counts))
    return " to ".join(f"{count:,}" for count in dict.fromkeys((different[0], different[-1])))
