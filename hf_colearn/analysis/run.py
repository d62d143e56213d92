"""The folder of one run: `run.json` (scores, history, costs) and `arrays.npz` (predictions, latents) of an arm and a seed.

Shape legend: N test samples, n <= N samples whose latents are kept, C classes, D and T widths of latent and target.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from hf_colearn.analysis.statistics.arm import Kind, check_arm
from hf_colearn.utils.metric_names import is_count, written


RUN, ARRAYS = "run.json", "arrays.npz"
MAX_KEPT = 10_000  # samples of a split whose latents are kept
CONTENT = ("arm", "kind", "seed", "metrics", "seconds", "facts", "history")  # of run.json, beside the identity
_ARRAYS = ("labels", "predictions", "confidences")  # of arrays.npz, beside those of groups and samples


@dataclass
class Samples:
    """What is kept of the samples of one split.

    Args:
        labels (`np.ndarray` of shape `(n,)`): Their classes; of another problem type as [`Run`]'s. Those of a training set
            may be missing: -100, or NaN.
        latents (`np.ndarray` of shape `(n, D)`, *optional*): Of the student, in evaluation mode; None of a model without.
        targets (`np.ndarray` of shape `(n, T)`, *optional*): The teacher's, of the last epoch; NaN where there is none.
        modality_latents (`dict[str, np.ndarray]` of shape `(n, D)`): Of a multimodal model; NaN in rows without it.
    """

    labels: np.ndarray
    latents: np.ndarray | None = None
    targets: np.ndarray | None = None
    modality_latents: dict[str, np.ndarray] = field(default_factory=dict)

    def __repr__(self) -> str:
        arrays = {"latents": self.latents, "targets": self.targets, **self.modality_latents}
        shapes = [f"{name} {array.shape}" for name, array in arrays.items() if array is not None]
        return f"Samples({', '.join([f'{len(self.labels):,} samples', *shapes])})"


@dataclass
class Run:
    """One arm trained with one seed.

    Args:
        arm, kind (`str`), seed (`int`): As of [`~hf_colearn.analysis.statistics.arm.Arm`], and the run's.
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

    def __repr__(self) -> str:
        scores = [f"{name} {written(name, value)}" for name, value in self.metrics.items() if not is_count(name)]
        more = ["..."] if len(scores) > 3 else []
        named = f"Run({self.arm!r}, {self.kind!r}, seed {self.seed}"
        return f"{named}: {', '.join([*scores[:3], *more, f'{len(self.labels):,} test samples'])})"

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

        Raises:
            ValueError: If the arm has no name or none of the four kinds, or the folder holds a run of another arm or seed.
        """
        check_arm(self.arm, self.kind)
        check_folder(folder, self.arm, self.seed)
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        arrays = {name: array for name in _ARRAYS if (array := getattr(self, name)) is not None}
        arrays |= {f"groups/{name}": np.asarray(values, dtype=str) for name, values in self.groups.items()}
        for split, samples in (("test", self.test), ("train", self.train)):
            if samples is not None:
                arrays |= {f"{split}/labels": samples.labels}
                arrays |= {} if samples.latents is None else {f"{split}/latents": samples.latents}
                arrays |= {f"{split}/modalities/{name}": z_ND for name, z_ND in samples.modality_latents.items()}
                arrays |= {} if samples.targets is None else {f"{split}/targets": samples.targets}
        np.savez(folder / ARRAYS, **arrays)  # type: ignore[arg-type]
        content = {**{name: getattr(self, name) for name in CONTENT}, "identity": dict(identity or {})}
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
                **{name: content[name] for name in CONTENT},
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
    labels, latents = arrays[f"{split}/labels"], arrays.get(f"{split}/latents")
    return Samples(labels, latents, arrays.get(f"{split}/targets"), _below(f"{split}/modalities/", arrays))


def _below(prefix: str, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}


def check_folder(folder: str | Path, arm: str, seed: int) -> None:
    """Refuses to write a run over that of another arm or seed."""
    file = Path(folder) / RUN
    there = read_json(file) if file.is_file() else {}
    if there.get("arm") is not None and (there["arm"], there.get("seed")) != (arm, seed):
        raise ValueError(
            f"'{folder}' holds the run of arm '{there['arm']}' with seed {there.get('seed')}, and this is arm '{arm}' with "
            f"seed {seed}: give each run a folder of its own, such as runs/mine/{arm.replace(' ', '-')}/seed-{seed}."
        )


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
