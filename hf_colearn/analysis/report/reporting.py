"""Did co-learning work? One page that answers, made of finished runs: [`report`], and `hf-colearn report RUN...`."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np

from hf_colearn.analysis.plots.projection import Method
from hf_colearn.analysis.plots.style import arm_styles
from hf_colearn.analysis.plots.text import is_drawable
from hf_colearn.analysis.report.arms import rows_of_each, section_arms, section_sweep, section_tests
from hf_colearn.analysis.report.balance import section_balance
from hf_colearn.analysis.report.budget import section_budget
from hf_colearn.analysis.report.by_modality import PartComparison, compare_parts, main_parts
from hf_colearn.analysis.report.class_names import are_numbers
from hf_colearn.analysis.report.co_training import section_co_training
from hf_colearn.analysis.report.fairness import section_fairness
from hf_colearn.analysis.report.latents import section_latents
from hf_colearn.analysis.report.merged_results import MergedResults, arms_to_show
from hf_colearn.analysis.report.modalities import section_by_modality, section_modalities
from hf_colearn.analysis.report.page import Page, Section
from hf_colearn.analysis.report.subtitle import subtitle
from hf_colearn.analysis.report.summary import summary
from hf_colearn.analysis.report.training import section_cost, section_training
from hf_colearn.analysis.report.zero_shot import section_zero_shot
from hf_colearn.analysis.runs import Run, at_one_level, by_arm, by_level, compare_all, finite, read_runs, write_report
from hf_colearn.analysis.statistics.compare import Comparison
from hf_colearn.analysis.statistics.levels import LevelComparisons, level_words
from hf_colearn.utils.metric_names import is_count, is_error
from hf_colearn.utils.tables import text_table


METHODS: tuple[Method, ...] = get_args(Method)
DRAWN: tuple[Method, ...] = ("pca", "tsne")  # UMAP compiles itself for 10 seconds in every process
SECTIONS: tuple[Callable[[MergedResults], Section | None], ...] = (
    section_budget,
    section_by_modality,
    section_arms,
    section_zero_shot,
    section_tests,
    section_training,
    section_co_training,
    section_balance,
    section_latents,
    section_modalities,
    section_sweep,
    section_fairness,
    section_cost,
)


@dataclass(frozen=True)
class Report:
    """What was written, and the finding.

    Args:
        headline (`str`), verdict (`list[str]`): The main finding in a sentence, and a sentence a co-learned arm.
        comparison ([`~hf_colearn.analysis.statistics.compare.Comparison`], *optional*): None where arms cannot be compared;
            [`~hf_colearn.analysis.statistics.levels.LevelComparisons`] of a sweep with a baseline at every level.
        sections (`list[Section]`), files (`list[Path]`): What the page shows, and what was written, the page first.
        summary (`str`): The arms' tables for a terminal.
    """

    headline: str
    verdict: list[str]
    comparison: Comparison | LevelComparisons | None
    sections: list[Section]
    files: list[Path]
    summary: str

    def __repr__(self) -> str:
        return f"Report('{self.files[0]}'): {self.headline}"


def report(
    runs: Sequence[Run] | Sequence[str | Path] | str | Path,
    output_dir: str | Path | None = None,
    info: Mapping[str, Any] | None = None,
    metric: str | None = None,
    methods: Sequence[Method] = DRAWN,
    arms: Sequence[str] | None = None,
) -> Report:
    """Writes what finished runs say: `report.html`, `report.md`, `report.json` and `figures/`.

    The page opens offline, in any browser, and prints. What the runs do not show is stated in words.

    Args:
        runs (`Sequence[Run]`, or paths): Runs, or folders of experiments, arms or runs; recipes keep theirs below their
            output folder, and [`~hf_colearn.experiments.scoring.save_run`] keeps those of your own trainer.
        output_dir (`str` or `Path`, *optional*): Where the report goes: the first folder, by default.
        info (`Mapping`, *optional*): `title`, `dataset`, `metric`, `source`, `command` of the experiment; by default what
            the folder's `experiment.json` says.
        metric (`str`, *optional*): What the arms are compared on: by default what the recipe compared, or `"accuracy"`, or
            the first one that was measured and is better the higher it is.
        methods (`Sequence[str]`, *optional*): Projections to draw: `"pca"`, `"tsne"`, both by default, and `"umap"`, which
            needs `pip install 'hf-colearn[umap]'` and takes ten seconds more to compile itself.
        arms (`Sequence[str]`, *optional*): Those of the maps and of the tables of classes, which are held against the baseline:
            by default the baseline, the co-learned arm and the null control with the highest means. Every arm is compared.

    Raises:
        FileNotFoundError: If a folder is missing or has no finished run.
        ValueError: If a run is damaged, nothing was scored on the metric, or a method or an arm is unknown.

    Example:

    ```python
    from hf_colearn.analysis.report import report

    print(report("runs/digits_l2v").headline)
    ```
    """
    if unknown := [method for method in methods if method not in METHODS]:
        raise ValueError(f"methods holds '{unknown[0]}', which is no projection: choose from {', '.join(METHODS)}.")
    given = [runs] if isinstance(runs, (str, Path)) else list(runs)
    if not given:
        raise ValueError("there is nothing to report on: name at least one run.")
    merged, known = [run for run in given if isinstance(run, Run)], dict[str, Any]()
    if not merged:
        folders = [path for path in given if not isinstance(path, Run)]
        merged, known = read_runs(folders)
        output_dir = folders[0] if output_dir is None else output_dir
    if output_dir is None:
        raise ValueError("runs were given, and no folder to write to: pass output_dir.")
    known = {**known, **(info or {})}
    scores = [name for name in merged[0].metrics if not is_error(name) and not is_count(name)]
    measured = scores or [*merged[0].metrics] or ["accuracy"]
    metric = metric or known.get("metric") or ("accuracy" if "accuracy" in measured else measured[0])
    source = known.get("source") or "teacher"
    return _write(Path(output_dir), merged, known, metric, source, methods, arms)


def _write(
    folder: Path,
    all_runs: Sequence[Run],
    info: Mapping[str, Any],
    metric: str,
    source: str,
    methods: Sequence[Method],
    chosen: Sequence[str] | None,
) -> Report:
    notes: list[str] = []
    runs, level = at_one_level(all_runs)
    shown = arms_to_show(by_arm(runs), metric, chosen)
    comparison: Comparison | LevelComparisons | None = None
    try:
        runs = _with_common_seeds(runs, notes)
        _check_same_test(runs)
        comparison = compare_all(runs, metric, source)
        headline, verdict = comparison.headline, comparison.verdict.split("\n") if comparison.verdict else []
    except ValueError as error:
        if all(metric not in run.metrics for run in runs):
            raise
        headline, verdict = f"These arms are not compared: {error}", []
    results = _results(runs, comparison, info, metric, source, methods, chosen, shown)
    claims = set(comparison.findings.values()) if comparison is not None else set()
    if isinstance(comparison, Comparison) and (main := main_parts(results.parts)):
        headline, verdict = _by_part(results.parts, comparison)
        claims = claims.union(*(part.comparison.findings.values() for part in main))
        claims |= {"no reliable difference" for part in main if part.alone is not None and not part.better_than_alone}
    sections = [section for make in SECTIONS if (section := make(results)) is not None]
    for section in sections[1 if results.levels else len(sections) :]:
        section.lead = f"At {results.level}. {section.lead}".rstrip()
    named = [*by_arm(runs), *(runs[0].facts.get("class_names") or ())]
    if spelled := [str(name) for name in named if not is_drawable(str(name))]:
        notes.append(
            f"Figures spell the characters of '{spelled[0]}' that no installed font has: install one, such as Noto Sans CJK."
        )
    sections[0].notes = [*notes, *sections[0].notes]
    page = Page(
        title=str(info.get("title") or folder.resolve().name),
        subtitle=subtitle(runs, info.get("dataset"), level),
        headline=headline,
        tone="good" if claims == {"helped"} else "bad" if "harm" in claims else "plain",
        verdict=verdict,
        legend={arm: (of_arm[0].kind, results.styles[arm].swatch()) for arm, of_arm in results.arms.items()},
        sections=sections,
        metadata=_metadata(info),
    )
    written = page.save(folder)
    content = {name: value for name, value in info.items() if name != "runs"}
    content |= {"headline": headline, "findings": {section.name: _plain(section) for section in sections}}
    kept = {(run.arm, run.seed): whole for run, whole in zip(at_one_level(all_runs)[0], all_runs, strict=True)}
    written.insert(1, write_report(folder, [kept[run.arm, run.seed] for run in runs], comparison, content))
    each = text_table(rows_of_each(runs, metric))
    text = each if comparison is None else summary(runs, comparison, info, level)
    return Report(headline, verdict, comparison, sections, written, text)


def _results(
    runs: Sequence[Run],
    comparison: Comparison | LevelComparisons | None,
    info: Mapping[str, Any],
    metric: str,
    source: str,
    methods: Sequence[Method],
    chosen: Sequence[str] | None,
    shown: Sequence[str],
) -> MergedResults:
    """What the sections read: of a sweep of levels one of them, that of the kept student, or the middle one."""
    shares = info.get("shares", ())
    if not isinstance(comparison, LevelComparisons):
        styles = arm_styles({run.arm: run.kind for run in runs})
        parts = [] if comparison is None else compare_parts(runs, metric, source)
        return MergedResults(runs, comparison, styles, metric, shown, source, methods, shares, parts)
    variable, levels = by_level(runs)
    kept = (info.get("student") or {}).get("arm")
    of_student = [run.sweep[1] for run in runs if run.arm == kept and run.sweep is not None]
    level = of_student[0] if of_student else list(levels)[len(levels) // 2]
    styles = arm_styles({name: next(iter(at.values())).kind for name, at in comparison.arms.items()})
    here, words = levels[level], level_words(level, variable)
    parts = compare_parts(here, metric, source)
    found, shown = comparison.levels[level], arms_to_show(by_arm(here), metric, chosen)
    return MergedResults(here, found, styles, metric, shown, source, methods, shares, parts, comparison, words)


def _by_part(parts: Sequence[PartComparison], fused: Comparison) -> tuple[str, list[str]]:
    """Headline and verdict of multimodal arms: by modality, then by subset, and last fused."""
    main = main_parts(parts)
    subsets = [f"{part.name}: {part.comparison.headline}" for part in parts if part not in main]
    verdict = [*(part.verdict for part in main), *subsets, f"fused: {fused.headline}"]
    return " ".join(part.headline for part in main), verdict


def _with_common_seeds(runs: Sequence[Run], notes: list[str]) -> list[Run]:
    """The runs whose seed every arm has, by seed; adds to the notes what is left out."""
    seeds = {arm: {run.seed for run in of_arm} for arm, of_arm in by_arm(runs).items()}
    common = set.intersection(*seeds.values())
    if not common:
        raise ValueError(
            f"the arms have no seed in common ({ {arm: sorted(of_arm) for arm, of_arm in seeds.items()} })."
        )
    for arm, of_arm in seeds.items():
        if more := ", ".join(map(str, sorted(of_arm - common))):
            notes.append(f"'{arm}' was also trained with seed {more}, which not all arms have: left out.")
    arms = list(seeds)
    return sorted((run for run in runs if run.seed in common), key=lambda run: (run.seed, arms.index(run.arm)))


def _check_same_test(runs: Sequence[Run]) -> None:
    """Refuses arms that were not scored on the same samples and classes, naming two and how they differ."""
    named = [run for run in runs if not are_numbers(run.facts.get("class_names"))]  # others have no names to compare
    first = named[0] if named else runs[0]
    for run in runs:
        if not are_numbers(run.facts.get("class_names")) and run.facts["class_names"] != first.facts["class_names"]:
            raise ValueError(f"'{first.arm}' and '{run.arm}' have other classes, so their scores do not compare.")
        if not np.array_equal(run.labels, first.labels, equal_nan=True):
            raise ValueError(
                f"'{first.arm}' was tested on {len(first.labels)} samples and '{run.arm}' on {len(run.labels)}, with other "
                "labels: these are not the same test set, so their scores do not compare."
            )


def _metadata(info: Mapping[str, Any]) -> dict[str, str]:
    """What the page says at its end of how to repeat it, by pretty names."""
    names = {"command": "Command", "teacher_in_words": "Teacher"}
    names |= {name: name.capitalize() for name in ("pairing", "published", "samples")}
    return {
        pretty: ", ".join(f"{key} {count:,}" for key, count in info[name].items())
        if isinstance(info[name], dict)
        else str(info[name])
        for name, pretty in names.items()
        if info.get(name)
    }


def _plain(section: Section) -> dict[str, Any]:
    tables = [{"header": list(table.header), "rows": [list(row) for row in table.rows]} for table in section.tables]
    content = {"lead": section.lead, "tables": tables, "notes": section.notes, **section.numbers}
    return json.loads(json.dumps(finite(content), default=str))
