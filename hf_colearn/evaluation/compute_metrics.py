"""A `compute_metrics` for the Trainer: through what it predicts, over the samples that have a label.

Shapes: N samples, C classes or outputs, M modalities.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from transformers import EvalPrediction

from hf_colearn.data.labels import is_labelled


# What makes the metrics of every problem type.
MADE_BY = {
    "single_label_classification": "classification_metrics",
    "multi_label_classification": "multi_label_metrics",
    "regression": "regression_metrics",
}


@dataclass(frozen=True)
class ComputeMetrics:
    """Metrics of one problem type, called with an [`~transformers.EvalPrediction`].

    A multimodal model's predictions, `(logits, modality_logits, modality_mask, subset_logits)`, are measured in parts, too:
    `{metric}_{modality}` of a modality's own head, over the samples that have it, and `{metric}_given_{subset}` of the
    fused prediction from a subset of the modalities, over the samples that have all of it; without samples they are left out.

    Args:
        problem_type (`str`): As of transformers.
        measure (`Callable`): From logits `(N, C)` and labels of samples that have one to the metrics by name.
        check (`Callable`): Refuses logits and labels of all samples that cannot be measured.
    """

    problem_type: str
    measure: Callable[[np.ndarray, np.ndarray], dict[str, float]]
    check: Callable[[np.ndarray, np.ndarray], Any]

    def __call__(self, evaluation: EvalPrediction) -> dict[str, float]:
        """The metrics by name, and `num_unlabelled` where some samples have no label."""
        predictions, labels = _joined(evaluation.predictions), np.asarray(_joined(evaluation.label_ids))
        whole, parts = _parts(predictions)
        self.check(whole, labels)
        counts_N = is_labelled(labels)
        if not counts_N.any():
            raise ValueError(
                f"none of the {len(labels)} samples has a label (all are -100 or NaN), so there is nothing to measure: "
                "evaluate on samples with labels, or leave `compute_metrics` out."
            )
        results = self.measure(whole[counts_N], labels[counts_N])
        for suffix, (logits_NC, is_part_N) in parts.items():
            rows_N = is_part_N & counts_N
            if rows_N.any():
                found = self.measure(logits_NC[rows_N], labels[rows_N])
                results |= {f"{metric}{suffix}": value for metric, value in found.items()}
        missing = int(len(labels) - counts_N.sum())
        return {**results, "num_unlabelled": missing} if missing else results


def _joined(values: Any) -> Any:
    """All samples' values of those of batches, which Trainer keeps apart with `eval_do_concat_batches=False`."""
    first = values[0] if isinstance(values, list) and values else None
    if isinstance(first, tuple):
        return tuple(_joined(list(each)) for each in zip(*values, strict=True))
    if isinstance(first, dict):
        return {name: _joined([batch[name] for batch in values]) for name in first}
    return np.concatenate(values) if isinstance(first, np.ndarray) and first.ndim else values


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
