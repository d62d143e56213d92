"""The line below a report's title: data, samples with their labels and pairs, arms and seeds."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from hf_colearn.analysis.runs import Run, by_arm, by_level
from hf_colearn.analysis.statistics.levels import level_words


def subtitle(runs: Sequence[Run], dataset: str | None = None, level: str = "") -> str:
    """What the runs were trained and tested on.

    Which training samples have a label and which a pair is said where some have none, as in `24 of 1,200 labelled, 1,200
    paired`: of the co-learned arms, by the facts `num_train`, `num_labelled` and `num_paired`, which older runs lack.
    """
    parts = [words for words in (dataset and str(dataset), level) if words]
    sets = _training_sets(runs)
    if trained := [of_set["num_train"] for of_set in sets or [run.facts for run in runs] if of_set.get("num_train")]:
        parts.append(f"{_span(trained)} training samples")
    if words := _supervision(sets):
        parts.append(words)
    tested, missing = f"{len(runs[0].labels):,} test samples", runs[0].facts.get("num_unlabelled", {}).get("test")
    parts.append(f"{tested} ({missing:,} more without a label)" if missing else tested)
    variable, levels = by_level(runs)
    count = len(by_arm(runs))
    arms = f"{count} arm{'s' if count > 1 else ''}"
    if levels:
        *lower, highest = levels
        names = {run.arm for of_level in levels.values() for run in of_level}
        arms = (
            f"{len(names)} arms at {', '.join(f'{level:g}' for level in lower)} and {level_words(highest, variable)}"
        )
    seeds = sorted({run.seed for run in runs})
    return "; ".join([*parts, f"{arms}, {_seed_words(seeds)}"])


def _seed_words(seeds: list[int]) -> str:
    """As in `seed 0`, `seeds 0, 1, 2` and, of many that follow each other, `seeds 100 to 119`."""
    if len(seeds) == 1:
        return f"seed {seeds[0]}"
    if len(seeds) > 5 and seeds == list(range(seeds[0], seeds[-1] + 1)):
        return f"seeds {seeds[0]} to {seeds[-1]}"
    return f"seeds {', '.join(map(str, seeds))}"


def _training_sets(runs: Sequence[Run]) -> list[Mapping[str, Any]]:
    """The facts of what was trained on, one a seed and level, of the co-learned arms: the largest set, with fewest labels.

    Others may see a part of it, such as the labelled samples alone, or labels that a teacher or a student made.
    """
    known = [run for run in runs if run.facts.get("num_train") and run.facts.get("num_labelled") is not None]
    chosen: dict[Any, Mapping[str, Any]] = {}
    for run in [run for run in known if run.kind == "colearned"] or known:
        key, facts = (run.seed, run.sweep), run.facts
        if key not in chosen or _order(facts) < _order(chosen[key]):
            chosen[key] = facts
    return list(chosen.values())


def _order(facts: Mapping[str, Any]) -> tuple[int, int, bool]:
    return -facts["num_train"], facts["num_labelled"], facts.get("num_paired") is None


def _supervision(sets: Sequence[Mapping[str, Any]]) -> str:
    """Empty where all samples have a label and a pair, or nobody knows."""
    paired: dict[str, list[int]] = {}
    for of_set in sets:
        counts = of_set.get("num_paired")
        for teacher, count in counts.items() if isinstance(counts, Mapping) else [("", counts)]:
            if count is not None:
                paired.setdefault(teacher, []).append(count)
    everyone, labelled = ([of_set[name] for of_set in sets] for name in ("num_train", "num_labelled"))
    if {*everyone} == {*labelled}.union(*paired.values()):
        return ""
    words = [f"{_span(count)} paired{' with ' if teacher else ''}{teacher}" for teacher, count in paired.items()]
    return ", ".join([f"{_span(labelled)} of {_span(everyone)} labelled", *words])


def _span(counts: Iterable[int]) -> str:
    """As in `1,200`, or `12 to 60` where they differ."""
    different = sorted(set(counts))
    return " to ".join(f"{count:,}" for count in dict.fromkeys((different[0], different[-1])))
