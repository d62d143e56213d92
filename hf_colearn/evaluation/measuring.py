"""What the metrics of all problem types share: `evaluate` modules of whole arrays, and the way through what a Trainer predicts.

Shapes: N samples, C classes or outputs, M modalities.
"""

from collections.abc import Callable, Mapping
from typing import Any

import evaluate
import numpy as np
from datasets import Features, Sequence, Value
from transformers import EvalPrediction

from hf_colearn.data.labels import is_labelled


CLASS_IDS, SCORES, LABELS, VALUES, OUTPUTS = (
    "class ids (N,)", "scores (N, C)", "labels (N, C)", "values (N,)", "outputs (N, C)",
)  # fmt: skip
_ARROW_TYPES = {
    CLASS_IDS: Value("int64"),
    SCORES: Sequence(Value("float64")),
    LABELS: Sequence(Value("float64")),
    VALUES: Value("float64"),
    OUTPUTS: Sequence(Value("float64")),
}
ComputeMetrics = Callable[[EvalPrediction], dict[str, float]]


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
            return self._compute(predictions=predictions, references=references)
        return super().compute(predictions=predictions, references=references, **kwargs)


def compute_metrics_of(
    measure: Callable[[np.ndarray, np.ndarray], dict[str, float]],
    check: Callable[[np.ndarray, np.ndarray], Any],
) -> ComputeMetrics:
    """A `compute_metrics` for the Trainer, over the samples that have a label.

    A multimodal model's predictions, `(logits, modality_logits, modality_mask, subset_logits)`, are measured in parts, too:
    `{metric}_{modality}` of a modality's own head, over the samples that have it, and `{metric}_given_{subset}` of the
    fused prediction from a subset of the modalities, over the samples that have all of it; without samples they are left out.

    Args:
        measure (`Callable`): From logits `(N, C)` and labels of samples that have one to the metrics by name.
        check (`Callable`): Refuses logits and labels of all samples that cannot be measured.

    Returns:
        `Callable[[EvalPrediction], dict[str, float]]`: Which adds `num_unlabelled` where some samples have no label.
    """

    def compute_metrics(evaluation: EvalPrediction) -> dict[str, float]:
        labels = np.asarray(evaluation.label_ids)
        whole, parts = _parts(evaluation.predictions)
        check(whole, labels)
        counts_N = is_labelled(labels)
        if not counts_N.any():
            raise ValueError(
                f"none of the {len(labels)} samples has a label (all are -100 or NaN), so there is nothing to measure: "
                "evaluate on samples with labels, or leave `compute_metrics` out."
            )
        results = measure(whole[counts_N], labels[counts_N])
        for suffix, (logits_NC, is_part_N) in parts.items():
            rows_N = is_part_N & counts_N
            if rows_N.any():
                found = measure(logits_NC[rows_N], labels[rows_N])
                results |= {f"{metric}{suffix}": value for metric, value in found.items()}
        missing = int(len(labels) - counts_N.sum())
        return {**results, "num_unlabelled": missing} if missing else results

    return compute_metrics


def _parts(predictions: Any) -> tuple[np.ndarray, dict[str, tuple[np.ndarray, np.ndarray]]]:
    """The logits `(N, C)`, and by suffix those of modalities and subsets with the samples `(N,)` that have them."""
    if not isinstance(predictions, tuple):
        return np.asarray(predictions), {}
    if tuple(map(type, predictions)) != (np.ndarray, dict, np.ndarray, dict):
        raise ValueError(
            f"predictions is a tuple of {len(predictions)} arrays: the model's output holds more than the loss and "
            "the logits. Name the others in `config.keys_to_ignore_at_inference` or in `ignore_keys`/"
            "`ignore_keys_for_eval`, so that only the logits [N, C] are gathered."
        )
    logits_NC, modality_logits, mask_NM, subset_logits = predictions
    here = {name: mask_NM[:, i].astype(bool) for i, name in enumerate(modality_logits)}
    parts = {f"_{name}": (own_NC, here[name]) for name, own_NC in modality_logits.items()}
    for subset, fused_NC in subset_logits.items():
        has_all_N = np.all([here[name] for name in _names_in(subset, list(here))], axis=0)
        parts[f"_given_{subset}"] = (fused_NC, has_all_N)
    return logits_NC, parts


def _names_in(subset: str, names: list[str]) -> list[str]:
    """The modalities in a subset's name, such as `image_audio`: no name followed by "_" begins another's."""
    found, rest = [], f"{subset}_"
    while rest:
        found.append(next(name for name in names if rest.startswith(f"{name}_")))
        rest = rest[len(found[-1]) + 1 :]
    return found


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
    if unknown := [name for name in metrics if name not in known]:
        raise ValueError(f"unknown metrics {unknown}: choose from {list(known)}")
    return [metric(keep_in_memory=True) for name, metric in known.items() if name in metrics]
