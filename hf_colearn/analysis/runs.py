"""The runs of an experiment: found below its folder, whose `experiment.json` says what they have in common, and compared."""

import json
import platform
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, get_args

import numpy as np

from hf_colearn import __version__
from hf_colearn.analysis.run import CONTENT, RUN, Run, read_json
from hf_colearn.analysis.statistics.compare import Arm, Comparison, Kind, compare, compare_levels
from hf_colearn.analysis.statistics.levels import LevelComparisons, level_words
from hf_colearn.utils.metric_names import is_count, is_error, written


EXPERIMENT = "experiment.json"


def write_experiment(folder: str | Path, info: Mapping[str, Any], runs: Iterable[Path] = ()) -> None:
    """Writes `experiment.json` above runs: what they have in common (`title`, `dataset`, `metric`, ...), and which they are.

    Without `runs`, those that belong to the experiment are all that are below the folder.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    listed = [str(run.relative_to(folder)) for run in runs]
    content = {**info, "runs": listed} if listed else dict(info)
    (folder / EXPERIMENT).write_text(json.dumps(content, indent=1, default=str))


def find_runs(paths: Iterable[str | Path]) -> list[Path]:
    """The folders of the finished runs at or below some paths, in their order; where there are none, `FileNotFoundError`.

    Of an experiment those that its `experiment.json` lists: what an earlier attempt has left beside them does not count.
    """
    found: list[Path] = []
    for path in map(Path, paths):
        if not path.is_dir():
            raise FileNotFoundError(
                f"there is no folder '{path}': name the folder of an experiment, an arm or a run, such as runs/digits_l2v."
            )
        listed = read_json(path / EXPERIMENT).get("runs") if (path / EXPERIMENT).is_file() else None
        here = [path / run for run in listed] if listed else sorted(file.parent for file in path.rglob(RUN))
        missing = [run for run in here if not (run / RUN).is_file()]
        if missing or not here:
            lacks = f"'{missing[0]}' has no {RUN}" if missing else f"nothing below '{path}' has a {RUN}"
            raise FileNotFoundError(
                f"no finished run: {lacks}. Recipes keep one for every arm and seed; in your own project call "
                "hf_colearn.save_run(trainer, test_dataset, folder, ...) after training."
            )
        found.extend(run for run in here if run not in found)
    return found


def read_runs(paths: Iterable[str | Path]) -> tuple[list[Run], dict[str, Any]]:
    """The finished runs at or below some paths, and what the first `experiment.json` of them says.

    Where nothing lists the runs, baselines come first, then co-learned arms, null controls and references. Where two folders
    have an arm of one name and a seed in common, at different levels of a sweep the level is put after
    the later one's name; else the name of the later one's folder is put before its arms, and a baseline of it is shown as a
    reference: a comparison has one.
    """
    runs: list[Run] = []
    info: dict[str, Any] = {}
    for path in map(Path, paths):
        here = _in_order([path])
        taken = {(run.arm, run.seed): run.sweep for run in runs}
        here = [
            replace(run, arm=arm_at(run.arm, *run.sweep))
            if run.sweep is not None and taken.get((run.arm, run.seed), run.sweep) != run.sweep
            else run
            for run in here
        ]
        if any((run.arm, run.seed) in taken for run in here):
            here = [
                replace(run, arm=f"{path.name}/{run.arm}", kind="reference" if run.kind == "baseline" else run.kind)
                for run in here
            ]
        runs.extend(here)
        for above in (path, *path.resolve().parents[:2]):
            if not info and (above / EXPERIMENT).is_file():
                info = read_json(above / EXPERIMENT)
    info.pop("runs", None)
    if "source" not in info and any(run.test.modality_latents for run in runs):
        info["source"] = "pairing"  # the modalities teach each other
    return runs, info


def _in_order(paths: Iterable[Path]) -> list[Run]:
    """The runs at or below some paths, each of another arm or seed."""
    folders = find_runs(paths)
    runs = [Run.load(folder) for folder in folders]
    seen: dict[tuple[str, int], Path] = {}
    for run, folder in zip(runs, folders, strict=True):
        if (run.arm, run.seed) in seen:
            raise ValueError(
                f"'{seen[run.arm, run.seed]}' and '{folder}' are both of arm '{run.arm}' with seed {run.seed}: give every run "
                "the seed that it was trained with, as the argument `seed` of its trainer, or remove one."
            )
        seen[run.arm, run.seed] = folder
    listed = any((path / EXPERIMENT).is_file() and read_json(path / EXPERIMENT).get("runs") for path in paths)
    return runs if listed else sorted(runs, key=lambda run: get_args(Kind).index(run.kind))


def compare_runs(runs: Sequence[Run], metric: str = "accuracy", source: str = "teacher") -> Comparison:
    """The arms' scores, paired by seed, by [`~hf_colearn.analysis.statistics.compare.compare`]; all must have the metric."""
    return compare(_arms(runs, metric), metric=metric, source=source)


def compare_all(
    runs: Sequence[Run], metric: str = "accuracy", source: str = "teacher"
) -> Comparison | LevelComparisons:
    """As [`compare_runs`], and where a sweep has a baseline at every level, the arms of every level among themselves.

    A level that all have in common is not in the arms' names, see [`at_one_level`].
    """
    runs, _ = at_one_level(runs)
    variable, levels = by_level(runs)
    if not levels:
        return compare_runs(runs, metric, source)
    arms = {level: _arms(of_level, metric) for level, of_level in levels.items()}
    return LevelComparisons(variable, compare_levels(arms, metric=metric, source=source))


def main_metric(run: Run) -> str:
    """What arms are compared on where nobody has said it: the first metric that is better the higher it is.

    Raises:
        ValueError: If there is none.
    """
    names = [name for name in run.metrics if not is_error(name) and not is_count(name)]
    if not names:
        raise ValueError(
            f"arm '{run.arm}' was scored on {list(run.metrics) or 'nothing'}, and arms are compared on a metric that is better "
            "the higher it is: give the trainer a `compute_metrics` that returns one, such as `classification_metrics()`."
        )
    return names[0]


def _arms(runs: Sequence[Run], metric: str) -> list[Arm]:
    if is_error(metric):
        raise ValueError(
            f"metric='{metric}' is lower where it is better, and arms are compared on one that is higher: choose another, such "
            "as 'r2', which is 1 - mse / variance of the test labels."
        )
    for run in runs:
        if not run.metrics:
            raise ValueError(
                f"nothing was measured in arm '{run.arm}', seed {run.seed}: give its trainer a `compute_metrics`, and save the "
                "run again."
            )
        if metric not in run.metrics:
            raise ValueError(
                f"metric='{metric}' was not measured in arm '{run.arm}', which has {sorted(run.metrics)}: choose "
                "one of these, or give the trainer a `compute_metrics` that returns it."
            )
    return [Arm(arm, of_arm[-1].kind, [run.metrics[metric] for run in of_arm]) for arm, of_arm in by_arm(runs).items()]


def arm_at(arm: str, variable: str, level: float) -> str:
    """The name of an arm at one level of a sweep, unique among all of them: `latent transfer, 5 labels a class`."""
    return f"{arm}, {level_words(level, variable)}"


def at_one_level(runs: Sequence[Run]) -> tuple[list[Run], str]:
    """The runs, without the level in their arms' names where it is the same in all that have one; and the level in words."""
    sweeps = {run.sweep for run in runs if run.sweep is not None}
    if len(sweeps) != 1:
        return list(runs), ""
    [(variable, level)] = sweeps
    ending = arm_at("", variable, level)
    if not any(run.arm.endswith(ending) for run in runs):  # such as one of a share of pairs, beside a baseline
        return list(runs), ""
    return [replace(run, arm=run.arm.removesuffix(ending)) for run in runs], level_words(level, variable)


def by_level(runs: Sequence[Run]) -> tuple[str, dict[float, list[Run]]]:
    """What is swept, such as `"labels a class"`, and the runs of every level, ascending, with the arms' names without it.

    Only of a sweep of several levels that all have a baseline; else `("", {})`. Runs without a level, such as those of a
    student that has all labels, belong to every one.
    """
    baselines: dict[str, set[float]] = {}
    for run in runs:
        if run.kind == "baseline" and (sweep := run.sweep) is not None:
            baselines.setdefault(sweep[0], set()).add(sweep[1])
    for variable, levels in baselines.items():
        if len(levels) > 1:
            if others := [run.arm for run in runs if run.sweep is not None and run.sweep[0] != variable]:
                raise ValueError(
                    f"the levels are {variable}, and arm '{others[0]}' is of another sweep: report it apart."
                )
            return variable, {
                level: [
                    replace(run, arm=run.arm.removesuffix(arm_at("", variable, level)))
                    for run in runs
                    if run.sweep is None or run.sweep == (variable, level)
                ]
                for level in sorted(levels)
            }
    return "", {}


def histories(runs: Sequence[Run]) -> dict[str, list[list[dict[str, Any]]]]:
    """The log histories of every arm, as `plot_losses` takes them: one loss alone, without auxiliary terms, is the task's."""
    return {
        arm: [
            [{**entry, "loss_task": entry.get("loss_task", entry["loss"])} for entry in run.history if "loss" in entry]
            for run in of_arm
        ]
        for arm, of_arm in by_arm(runs).items()
    }


def by_arm(runs: Iterable[Run]) -> dict[str, list[Run]]:
    """The runs of every arm, in their order."""
    arms: dict[str, list[Run]] = {}
    for run in runs:
        arms.setdefault(run.arm, []).append(run)
    return arms


def mean_percent(runs: Sequence[Run], metric: str) -> str:
    """The mean of a metric over those runs that have it, as in `82.91`; of an error in its own unit, as in `0.01234`."""
    mean = np.mean([run.metrics[metric] for run in runs if metric in run.metrics] or [np.nan])
    return "-" if np.isnan(mean) else written(metric, float(mean)) if is_error(metric) else f"{100 * mean:.2f}"


def means_table(runs: Iterable[Run], names: Mapping[str, str]) -> list[list[str]]:
    """Rows of every arm's mean metrics in percent, the header first, with the names that the metrics have there."""
    rows = [[arm, *(mean_percent(of_arm, metric) for metric in names)] for arm, of_arm in by_arm(runs).items()]
    return [["arm", *names.values()], *rows]


def finite(value: Any) -> Any:
    """Plain values for JSON, which has no NaN and no infinity: None in their place."""
    if isinstance(value, Mapping):
        return {str(key): finite(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(entry) for entry in value]
    if isinstance(value, (np.ndarray, np.generic)):
        return finite(value.tolist())
    return None if isinstance(value, float) and not np.isfinite(value) else value


def write_report(
    folder: str | Path, runs: Sequence[Run], comparison: Comparison | LevelComparisons | None, info: Mapping[str, Any]
) -> Path:
    """Writes `report.json`: what is known of the experiment, what is installed, the comparison, and every run."""
    shown = [name for name in CONTENT if name != "facts"]
    installed = {name: version(name) for name in ("torch", "transformers", "datasets", "accelerate")}
    report = {
        **info,
        "processes": runs[0].facts.get("processes"),
        "installed": {"python": platform.python_version(), "hf_colearn": __version__, **installed},
        "comparison": None if comparison is None else comparison.to_dict(),
        "runs": [
            {name: getattr(run, name) for name in shown} | {"seconds": round(run.seconds, 2), **run.facts}
            for run in runs
        ],
    }
    path = Path(folder) / "report.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(finite(report), indent=1, default=str, allow_nan=False))  # paths among the options
    return path
