"""Run folders: `run.json` (scores, history, costs) and `arrays.npz` (predictions, latents) of an arm trained with a seed.

Runs of one experiment lie below one folder, whose `experiment.json` says what they have in common.

Shape legend: N test samples, n <= N samples whose latents are kept, C classes, D and T widths of latent and target.
"""

import json
import platform
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from hf_colearn import __version__
from hf_colearn.analysis.statistics.compare import Arm, Comparison, Kind, compare, compare_levels
from hf_colearn.analysis.statistics.levels import LevelComparisons, level_words
from hf_colearn.utils.metric_names import is_count, is_error, written


RUN, ARRAYS, EXPERIMENT = "run.json", "arrays.npz", "experiment.json"
MAX_KEPT = 10_000  # samples of a split whose latents are kept
_CONTENT = ("arm", "kind", "seed", "metrics", "seconds", "facts", "history")  # of run.json, beside the identity
_ARRAYS = ("labels", "predictions", "confidences")  # of arrays.npz, beside those of groups and samples


@dataclass
class Samples:
    """What is kept of the samples of one split.

    Args:
        labels (`np.ndarray` of shape `(n,)`): Their classes; of another problem type as [`Run`]'s. Those of a training set
            may be missing: -100, or NaN.
        latents (`np.ndarray` of shape `(n, D)`): Of the student, in evaluation mode.
        targets (`np.ndarray` of shape `(n, T)`, *optional*): The teacher's, of the last epoch; NaN where there is none.
        modality_latents (`dict[str, np.ndarray]` of shape `(n, D)`): Of a multimodal model; NaN in rows without it.
    """

    labels: np.ndarray
    latents: np.ndarray
    targets: np.ndarray | None = None
    modality_latents: dict[str, np.ndarray] = field(default_factory=dict)


@dataclass
class Run:
    """One arm trained with one seed.

    Args:
        arm, kind (`str`), seed (`int`): As of [`~hf_colearn.analysis.statistics.compare.Arm`], and the run's.
        metrics (`dict[str, float]`): On the test set, as fractions.
        history (`list[dict]`), seconds (`float`): `trainer.state.log_history`, and of training.
        labels, predictions (`np.ndarray` of shape `(N,)`): Class of every test sample that has a label, and the predicted
            one. Multi-label: `(N, C)` int8, 1 or 0, and -100 where a label is missing. Regression: values, `(N,)`, or
            `(N, C)` of several outputs.
        confidences (`np.ndarray` of shape `(N,)`, *optional*): The predicted class's softmax probability. Multi-label: every
            class's probability, `(N, C)`. None of a regression.
        test ([`Samples`]): Of the test set, at most 10,000, the same ones in every run.
        train ([`Samples`], *optional*): Of the training set, at most 2,000.
        groups (`dict[str, np.ndarray]` of shape `(N,)`): What the test samples are grouped by, such as their speaker.
        facts (`dict`): Of the run: `problem_type`, `class_names`, `parameters`, `peak_memory` (bytes), `target_variance`,
            `teacher`, ...; of its training samples `num_train`, `num_labelled`, and `num_paired`, by teacher where there are
            several; None of a stream. `num_unlabelled` are the samples that were left out of each test set, by its name.
    """

    arm: str
    kind: Kind
    seed: int
    metrics: dict[str, float]
    history: list[dict[str, Any]]
    seconds: float
    labels: np.ndarray
    predictions: np.ndarray
    confidences: np.ndarray | None
    test: Samples
    train: Samples | None = None
    groups: dict[str, np.ndarray] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def problem_type(self) -> str:
        """`"single_label_classification"`, `"multi_label_classification"` or `"regression"`."""
        return self.facts.get("problem_type", "single_label_classification")  # which earlier versions did not keep

    @property
    def sweep(self) -> tuple[str, float] | None:
        """The variable and the level of a sweep, as in `("labels a class", 5.0)`."""
        sweep = self.facts.get("sweep")
        return None if sweep is None else (sweep["variable"], float(sweep["level"]))

    def save(self, folder: str | Path, identity: Mapping[str, Any] | None = None) -> Path:
        """Writes the run to a folder, which it returns; `run.json` comes last, so a run that has one is whole.

        Args:
            folder (`str` or `Path`): Where to, such as `runs/mine/baseline/seed-0`.
            identity (`Mapping`, *optional*): What the run depended on, to be compared when it is taken up again.
        """
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        arrays = {name: array for name in _ARRAYS if (array := getattr(self, name)) is not None}
        arrays |= {f"groups/{name}": np.asarray(values, dtype=str) for name, values in self.groups.items()}
        for split, samples in (("test", self.test), ("train", self.train)):
            if samples is not None:
                arrays |= {f"{split}/labels": samples.labels, f"{split}/latents": samples.latents}
                arrays |= {f"{split}/modalities/{name}": z_ND for name, z_ND in samples.modality_latents.items()}
                arrays |= {} if samples.targets is None else {f"{split}/targets": samples.targets}
        np.savez(folder / ARRAYS, **arrays)  # type: ignore[arg-type]
        content = {**{name: getattr(self, name) for name in _CONTENT}, "identity": dict(identity or {})}
        unfinished = folder / f"{RUN}.part"
        unfinished.write_text(json.dumps(content, default=str))
        unfinished.replace(folder / RUN)
        return folder

    @classmethod
    def load(cls, folder: str | Path) -> "Run":
        """Reads a run back; raises `FileNotFoundError` without a finished one, `ValueError` if it is damaged."""
        content = read_json(Path(folder) / RUN)
        try:
            with np.load(Path(folder) / ARRAYS) as stored:  # no pickles: np.load refuses them
                arrays = {name: stored[name] for name in stored.files}
            return cls(
                **{name: content[name] for name in _CONTENT},
                labels=arrays["labels"],
                predictions=arrays["predictions"],
                confidences=arrays.get("confidences"),
                test=_samples(arrays, "test"),
                train=_samples(arrays, "train") if "train/labels" in arrays else None,
                groups=_below("groups/", arrays),
            )
        except (OSError, ValueError, KeyError, EOFError) as error:
            raise ValueError(
                f"the run in '{folder}' cannot be read ({type(error).__name__}: {error}): it is damaged, or an older version "
                "kept it without its predictions and latents; train it again."
            ) from error


def _samples(arrays: Mapping[str, np.ndarray], split: str) -> Samples:
    labels, latents = arrays[f"{split}/labels"], arrays[f"{split}/latents"]
    return Samples(labels, latents, arrays.get(f"{split}/targets"), _below(f"{split}/modalities/", arrays))


def _below(prefix: str, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}


def kept_rows(size: int, most: int = MAX_KEPT, seed: int = 0) -> np.ndarray:
    """The rows of a split that are kept or drawn, `(n,)` in ascending order: all, or a fixed random choice of them."""
    return np.sort(np.random.default_rng(seed).permutation(size)[:most])


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object; a damaged one, or what is none, raises a `ValueError`."""
    try:
        content = json.loads(path.read_text())
    except ValueError as error:
        raise ValueError(f"'{path}' is damaged ({error}): train the run again, or leave it out.") from error
    if not isinstance(content, dict):
        raise ValueError(f"'{path}' holds a {type(content).__name__}, and not what a run keeps: leave it out.")
    return content


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

    Where two folders have an arm of one name and a seed in common, at different levels of a sweep the level is put after
    the later one's name; else the name of the later one's folder is put before its arms, and a baseline of it is shown as a
    reference: a comparison has one.
    """
    runs: list[Run] = []
    info: dict[str, Any] = {}
    for path in map(Path, paths):
        here = [Run.load(folder) for folder in find_runs([path])]
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


def compare_runs(runs: Sequence[Run], metric: str = "accuracy", source: str = "teacher") -> Comparison:
    """The arms' scores, paired by seed, by [`~hf_colearn.analysis.statistics.compare.compare`]; all must have the metric."""
    return compare(_arms(runs, metric), metric=metric, source=source)


def compare_all(
    runs: Sequence[Run], metric: str = "accuracy", source: str = "teacher"
) -> Comparison | LevelComparisons:
    """As [`compare_runs`], and where a sweep has a baseline at every level, the arms of every level among themselves."""
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
        if metric not in run.metrics:
            raise ValueError(
                f"metric='{metric}' was not measured in arm '{run.arm}', which has {sorted(run.metrics)}: choose "
                "one of these, or give the trainer a `compute_metrics` that returns it."
            )
    return [Arm(arm, of_arm[-1].kind, [run.metrics[metric] for run in of_arm]) for arm, of_arm in by_arm(runs).items()]


def arm_at(arm: str, variable: str, level: float) -> str:
    """The name of an arm at one level of a sweep, unique among all of them: `latent transfer, 5 labels a class`."""
    return f"{arm}, {level_words(level, variable)}"


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


def write_report(
    folder: str | Path, runs: Sequence[Run], comparison: Comparison | LevelComparisons | None, info: Mapping[str, Any]
) -> Path:
    """Writes `report.json`: what is known of the experiment, what is installed, the comparison, and every run."""
    shown = [name for name in _CONTENT if name != "facts"]
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
    path.write_text(json.dumps(report, indent=1, default=str))  # paths among the options
    return path
