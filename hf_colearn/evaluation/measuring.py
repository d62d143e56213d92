"""What the metrics of all problem types are: `evaluate` modules that take whole arrays.

Shapes: N samples, C classes or outputs.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import evaluate
import numpy as np
from datasets import Features, Sequence, Value

from hf_colearn.utils.checks import check_names


CLASS_IDS, SCORES, LABELS, VALUES, OUTPUTS, LATENTS = (
    "class ids (N,)", "scores (N, C)", "labels (N, C)", "values (N,)", "outputs (N, C)", "latents (N, D)",
)  # fmt: skip
_ARROW_TYPES = {
    CLASS_IDS: Value("int64"),
    SCORES: Sequence(Value("float64")),
    LABELS: Sequence(Value("float64")),
    VALUES: Value("float64"),
    OUTPUTS: Sequence(Value("float64")),
    LATENTS: Sequence(Value("float64")),
}


class ArrayMetric(evaluate.Metric):
    """Checks what it measures, and with `keep_in_memory=True` takes whole arrays as they are.

    `evaluate` passes all scores through Arrow, each as a Python float, and makes a folder in its cache for every metric.
    For 5,000 x 200 scores that takes as long again as the arithmetic, and a home may be read-only.
    """

    forms: tuple[tuple[str, str], ...] = ()  # predictions and references, of the kinds in `_ARROW_TYPES`

    def _info(self) -> evaluate.MetricInfo:
        types = [[_ARROW_TYPES[kind] for kind in form] for form in self.forms]
        features = [Features({"predictions": ours, "references": theirs}) for ours, theirs in types]
        return evaluate.MetricInfo(
            description=(self.__doc__ or "").splitlines()[0],
            citation="",
            inputs_description="\n"
            + " Or: ".join("Predictions are {}, references are {}.".format(*f) for f in self.forms),
            features=features if len(features) > 1 else features[0],
            format="numpy" if all(isinstance(kind, Value) for form in types for kind in form) else None,
        )

    def _build_data_dir(self) -> str:
        return self._data_dir_root if self.keep_in_memory else super()._build_data_dir()

    def compute(self, *, predictions: Any = None, references: Any = None, **kwargs: Any) -> dict[str, Any] | None:
        """Computes the metric of these arrays, or of the batches that were added."""
        if self.keep_in_memory and predictions is not None and self.writer is None:
            return self._compute(predictions=predictions, references=references, **kwargs)
        return super().compute(predictions=predictions, references=references, **kwargs)


def check_finite(scores_NC: np.ndarray) -> None:
    """A ValueError that names the first row whose scores are not finite."""
    is_bad_NC = ~np.isfinite(scores_NC)
    if is_bad_NC.any():
        row, column = np.argwhere(is_bad_NC)[0]
        raise ValueError(
            f"score {scores_NC[row, column]} in row {row} is not finite, in {is_bad_NC.any(axis=1).sum()} of "
            f"{len(scores_NC)} rows: look at that sample; if training has diverged, lower the learning rate or use bf16 or "
            "float32 instead of float16"
        )


def chosen(metrics: tuple[str, ...], known: Mapping[str, type[ArrayMetric]]) -> list[ArrayMetric]:
    """The modules of the metrics that are named, for whole arrays; refuses a name that is not known."""
    check_names("metrics", metrics, next(iter(known)))
    if not len(metrics):
        raise ValueError(f"metrics={metrics!r} measures nothing: choose from {list(known)}")
    if unknown := [name for name in metrics if name not in known]:
        raise ValueError(f"unknown metrics {unknown}: choose from {list(known)}")
    return [metric(keep_in_memory=True) for name, metric in known.items() if name in metrics]


def measured(modules: Iterable[ArrayMetric], predictions: np.ndarray, references: np.ndarray) -> dict[str, float]:
    """What all modules find of the same arrays, by name."""
    results: dict[str, float] = {}
    for module in modules:
        results |= module.compute(predictions=predictions, references=references) or {}
    return results
