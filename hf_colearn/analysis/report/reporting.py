"""Did co-learning work? One page that answers, made of finished runs: [`report`], and `hf-colearn report RUN...`."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hf_colearn.analysis.plots.projection import Method
from hf_colearn.analysis.plots.style import arm_styles
from hf_colearn.analysis.report import latent_section as latents
from hf_colearn.analysis.report import merged_results as served
from hf_colearn.analysis.report import sections
from hf_colearn.analysis.report.page import Page, Section
from hf_colearn.analysis.runs import Run, compare_runs, read_runs, write_report
from hf_colearn.analysis.statistics.compare import Comparison


METHODS: tuple[Method, ...] = ("pca", "tsne", "umap")
DRAWN: tuple[Method, ...] = ("pca", "tsne")  # UMAP compiles itself for 10 seconds in every process


@dataclass(frozen=True)
class Report:
    """What was written, and the finding.

    Args:
        headline (`str`): The main finding in a sentence.
        verdict (`list[str]`): A sentence a co-learned arm.
        comparison ([`~hf_colearn.analysis.statistics.compare.Comparison`], *optional*): None where the arms cannot be compared.
        sections (`list[Section]`): What the page shows.
        files (`list[Path]`): The page first.
    """

    headline: str
    verdict: list[str]
    comparison: Comparison | None
    sections: list[Section]
    files: list[Path]


def report(
    runs: Sequence[Run] | Sequence[str | Path] | str | Path,
    output_dir: str | Path | None = None,
    facts: Mapping[str, Any] | None = None,
    metric: str | None = None,
    methods: Sequence[Method] = DRAWN,
) -> Report:
    """Writes what finished runs say: `report.html`, `report.md`, `report.json` and `figures/`.

    The page opens offline, in any browser, and prints. What the runs do not tell is said in words.

    Args:
        runs (`Sequence[Run]`, or paths): Runs, or folders of experiments, arms or runs; recipes keep theirs below their
            output folder, and [`~hf_colearn.experiments.experiment.save_run`] keeps those of your own trainer.
        output_dir (`str` or `Path`, *optional*): Where the report goes: the first folder, by default.
        facts (`Mapping`, *optional*): What is known of the experiment: `title`, `dataset`, `metric`, `source`, `command`;
            by default what the folder's `experiment.json` says.
        metric (`str`, *optional*): What the arms are compared on; `"accuracy"`, or what the recipe compared.
        methods (`Sequence[str]`, *optional*): Projections to draw: `"pca"`, `"tsne"`, both by default, and `"umap"`, which
            needs `pip install 'hf-colearn[umap]'` and takes ten seconds more to compile itself.

    Returns:
        [`Report`]: The finding, and what was written.

    Raises:
        FileNotFoundError: If a folder is missing or has no finished run.
        ValueError: If a run is damaged, nothing was scored on the metric, or a method is unknown.

    Example:

    ```python
    from hf_colearn.analysis.report import report

    print(report("runs/digits_l2v").headline)
    ```
    """
    if unknown := [method for method in methods if method not in METHODS]:
        raise ValueError(f"methods holds '{unknown[0]}', which is no projection: choose from {', '.join(METHODS)}.")
    paths = [runs] if isinstance(runs, (str, Path)) else list(runs)
    if not paths:
        raise ValueError("there is nothing to report on: name at least one run.")
    if isinstance(paths[0], Run):
        read = [run for run in paths if isinstance(run, Run)]
        known: dict[str, Any] = {}
    else:
        folders = [path for path in paths if not isinstance(path, Run)]
        read, known = read_runs(folders)
        output_dir = folders[0] if output_dir is None else output_dir
    if output_dir is None:
        raise ValueError("runs were given, and no folder to write to: pass output_dir.")
    known = {**known, **(facts or {})}
    metric = metric or known.get("metric") or "accuracy"
    source = known.get("source") or "teacher"
    return _write(Path(output_dir), read, known, metric, source, methods)


def _write(
    folder: Path, runs: Sequence[Run], known: Mapping[str, Any], metric: str, source: str, methods: Sequence[Method]
) -> Report:
    notes: list[str] = []
    comparison = None
    try:
        runs = with_common_seeds(runs, notes)
        check_same_test(runs)
        comparison = compare_runs(runs, metric, source)
        headline, verdict = comparison.headline, comparison.verdict.split("\n") if comparison.verdict else []
    except ValueError as error:
        if all(metric not in run.metrics for run in runs):
            raise
        headline, verdict = f"These arms are not compared: {error}", []
    styles = arm_styles({run.arm: run.kind for run in runs})
    found = sections.Findings(runs, comparison, styles, metric, source, methods, known.get("shares", ()))
    parts = [make(found) for make in SECTIONS]
    parts[0].notes = [*notes, *parts[0].notes]
    title = str(known.get("title") or folder.name)
    seeds = sorted({run.seed for run in runs})
    trained = {run.facts["num_train"] for run in runs if run.facts.get("num_train")}
    subtitle = "; ".join([
        *([str(known["dataset"])] if known.get("dataset") else []),
        *([f"{min(trained):,}{f' to {max(trained):,}' if len(trained) > 1 else ''} training samples"] if trained else []),
        f"{len(runs[0].labels):,} test samples",
        f"{len(found.arms)} arms, seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))}",
    ])  # fmt: skip
    legend = {arm: (of_arm[0].kind, styles[arm].swatch()) for arm, of_arm in found.arms.items()}
    page = Page(title, subtitle, headline, _tone(comparison), verdict, legend, parts, _told(known))
    written = page.save(folder)
    content = {name: value for name, value in known.items() if name != "runs"}
    content |= {"headline": headline, "findings": {part.name: _plain(part) for part in parts if not part.is_empty}}
    written.insert(1, write_report(folder, runs, comparison, content))
    return Report(headline, verdict, comparison, parts, written)


SECTIONS = [
    sections.arms_section,
    sections.tests_section,
    sections.training_section,
    latents.latents_section,
    served.modalities_section,
    served.sweep_section,
    served.fairness_section,
    sections.cost_section,
]


def with_common_seeds(runs: Sequence[Run], notes: list[str]) -> list[Run]:
    """The runs whose seed every arm has; adds to the notes what is left out.

    Raises:
        ValueError: If the arms have no seed in common.
    """
    seeds = {arm: {run.seed for run in runs if run.arm == arm} for arm in dict.fromkeys(run.arm for run in runs)}
    common = set.intersection(*seeds.values())
    if not common:
        raise ValueError(
            f"the arms have no seed in common ({ {arm: sorted(of_arm) for arm, of_arm in seeds.items()} })."
        )
    for arm, of_arm in seeds.items():
        if more := sorted(of_arm - common):
            notes.append(
                f"'{arm}' was also trained with seed {', '.join(map(str, more))}, which not all arms have: left out."
            )
    kept = [run for run in runs if run.seed in common]
    arms = list(seeds)
    return sorted(kept, key=lambda run: (run.seed, arms.index(run.arm)))


def check_same_test(runs: Sequence[Run]) -> None:
    """Refuses arms that were not scored on the same samples and classes.

    Raises:
        ValueError: Naming two arms and how they differ.
    """
    first = runs[0]
    for run in runs:
        if run.facts.get("class_names") != first.facts.get("class_names"):
            raise ValueError(f"'{first.arm}' and '{run.arm}' have other classes, so their scores do not compare.")
        if len(run.labels) != len(first.labels) or not np.array_equal(run.labels, first.labels):
            raise ValueError(
                f"'{first.arm}' was tested on {len(first.labels)} samples and '{run.arm}' on {len(run.labels)}, with other "
                "labels: these are not the same test set, so their scores do not compare."
            )


def _tone(comparison: Comparison | None) -> str:
    claims = set(comparison.findings.values()) if comparison is not None else set()
    return "good" if claims == {"helped"} else "bad" if "harm" in claims else "plain"


def _told(known: Mapping[str, Any]) -> dict[str, str]:
    names = {
        "command": "Command", "teacher_in_words": "Teacher", "pairing": "Pairing", "published": "Published",
        "samples": "Samples",
    }  # fmt: skip
    told = {pretty: known[name] for name, pretty in names.items() if known.get(name)}
    return {
        name: ", ".join(f"{key} {value:,}" for key, value in what.items()) if isinstance(what, dict) else str(what)
        for name, what in told.items()
    }


def _plain(section: Section) -> dict[str, Any]:
    tables = [{"header": list(table.header), "rows": [list(row) for row in table.rows]} for table in section.tables]
    content = {"lead": section.lead, "tables": tables, "notes": section.notes, **section.numbers}
    return json.loads(json.dumps(content, default=str))
