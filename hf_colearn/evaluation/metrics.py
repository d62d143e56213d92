"""Classification metrics as `evaluate` modules over scikit-learn, and as a `compute_metrics` for the Trainer.

Shapes: N samples, C classes, M modalities. `evaluate.load("accuracy")` would fetch a script from the Hub.
"""

from collections.abc import Callable
from typing import Any

import evaluate
import numpy as np
from datasets import Features, Sequence, Value
from transformers import EvalPrediction


class _ClassificationMetric(evaluate.Metric):
    """Checks what it measures, and with `keep_in_memory=True` takes whole arrays as they are.

    `evaluate` passes all scores through Arrow, each as a Python float, and makes a folder in its cache for every metric.
    For 5,000 x 200 scores that takes as long again as the arithmetic, and a home may be read-only.
    """

    takes_scores = False

    def _info(self) -> evaluate.MetricInfo:
        what = "scores (N, C)" if self.takes_scores else "class ids (N,)"
        prediction = Sequence(Value("float64")) if self.takes_scores else Value("int64")
        return evaluate.MetricInfo(
            description=(self.__doc__ or "").splitlines()[0],
            citation="",
            inputs_description=f"\nPredictions are {what}, references are class ids (N,).",
            features=Features({"predictions": prediction, "references": Value("int64")}),
            format=None if self.takes_scores else "numpy",
        )

    def _build_data_dir(self) -> str:
        return self._data_dir_root if self.keep_in_memory else super()._build_data_dir()

    def compute(self, *, predictions: Any = None, references: Any = None, **kwargs: Any) -> dict[str, Any] | None:
        """Computes the metric of these arrays, or of the batches that were added."""
        if self.keep_in_memory and predictions is not None and self.writer is None:
            return self._compute(predictions=predictions, references=references)
        return super().compute(predictions=predictions, references=references, **kwargs)


class Accuracy(_ClassificationMetric):
    """`accuracy`, the fraction of samples whose predicted class is the label, in [0, 1]."""

    def _compute(self, *, predictions: np.ndarray, references: np.ndarray) -> dict[str, float]:
        class_ids_N, labels_N = _check_class_ids(predictions, references)
        return {"accuracy": float(np.mean(class_ids_N == labels_N))}


class MacroF1(_ClassificationMetric):
    """`macro_f1`, the mean F1 over the classes that occur among labels or predictions, in [0, 1]."""

    def _compute(self, *, predictions: np.ndarray, references: np.ndarray) -> dict[str, float]:
        from sklearn.metrics import f1_score  # slow to import, as below

        class_ids_N, labels_N = _check_class_ids(predictions, references)
        return {"macro_f1": float(f1_score(labels_N, class_ids_N, average="macro"))}


class TopKAccuracy(_ClassificationMetric):
    """`top{k}`, the fraction of samples whose label is among the `k` highest scores, in [0, 1].

    Of equal scores the lower class id comes first, as in `argmax`, so `k=1` is the accuracy of the argmax.

    Args:
        k (`int`, *optional*, defaults to 5): How many of the highest scores count as a hit; below C.
        **kwargs: Of `evaluate.Metric`.
    """

    takes_scores = True

    def __init__(self, k: int = 5, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.k = k

    def _compute(self, *, predictions: np.ndarray, references: np.ndarray) -> dict[str, float]:
        from sklearn.metrics import top_k_accuracy_score

        scores_NC, labels_N = _check_scores(predictions, references)
        classes = scores_NC.shape[1]
        if not 0 < self.k < classes:
            raise ValueError(f"top-k accuracy needs 0 < k < number of classes, got k={self.k} and {classes} classes")
        if self.k == 1:  # scikit-learn takes two classes in another form
            return {"top1": float(np.mean(labels_N == scores_NC.argmax(axis=1)))}
        # scikit-learn prefers the higher class id of equal scores, so the classes are counted from the end.
        value = top_k_accuracy_score(classes - 1 - labels_N, scores_NC[:, ::-1], k=self.k, labels=range(classes))
        return {f"top{self.k}": float(value)}


class MeanAveragePrecision(_ClassificationMetric):
    """`map`, the macro mean of the average precision of one class against the rest, and `map_excluded_classes`.

    The mean is over the classes that have a positive; the others are counted. Average precision is step-wise,
    `sum_n (R_n - R_{n-1}) P_n` over the distinct scores as thresholds, so that samples of equal scores enter together.
    The samples of a class are ranked by the scores as they are given: with logits, take the softmax first.
    """

    takes_scores = True

    def _compute(self, *, predictions: np.ndarray, references: np.ndarray) -> dict[str, float]:
        from sklearn.metrics import average_precision_score

        scores_NC, labels_N = _check_scores(predictions, references)
        present = np.unique(labels_N)
        # One call for all classes: scikit-learn checks its input anew in every call, for longer than it computes.
        value = average_precision_score(labels_N[:, None] == present, scores_NC[:, present])
        return {"map": float(value), "map_excluded_classes": scores_NC.shape[1] - len(present)}


_METRICS = {"accuracy": Accuracy, "top5": TopKAccuracy, "macro_f1": MacroF1, "map": MeanAveragePrecision}


def classification_metrics(
    metrics: tuple[str, ...] = ("accuracy", "top5", "macro_f1", "map"),
) -> Callable[[EvalPrediction], dict[str, float]]:
    """A `compute_metrics` for single-label classification with [`~transformers.Trainer`].

    Args:
        metrics (`tuple[str, ...]`, *optional*, defaults to `("accuracy", "top5", "macro_f1", "map")`):
            What to compute, all in [0, 1]. `"top5"` is left out with 5 classes or fewer, where it would always be 1.
            `"map"` ranks the samples of each class by their softmax probability, and comes with
            `map_excluded_classes`, the number of classes without a positive.

    Returns:
        `Callable[[EvalPrediction], dict[str, float]]`: From logits `(N, C)` and integer labels `(N,)` to the metrics
        by name. A multimodal model's predictions, `(logits, modality_logits, modality_mask, subset_logits)`, give more:
        `{metric}_{modality}` of a modality's own head, over the samples that have it, and `{metric}_given_{subset}` of
        the fused prediction from a subset of the modalities, over the samples that have all of it; without samples they
        are left out. Other tuples, an empty set, scores that are not finite and labels outside `[0, C)` are a ValueError.

    Raises:
        `ValueError`: If a name is not one of the four.

    Example:

    ```python
    >>> import numpy as np
    >>> from transformers import EvalPrediction
    >>> from hf_colearn import classification_metrics

    >>> compute_metrics = classification_metrics(metrics=("accuracy", "map"))
    >>> compute_metrics(EvalPrediction(predictions=np.array([[2.0, 0.0], [0.0, 1.0]]), label_ids=np.array([0, 1])))
    {'accuracy': 1.0, 'map': 1.0, 'map_excluded_classes': 0}
    ```
    """
    if unknown := [name for name in metrics if name not in _METRICS]:
        raise ValueError(f"unknown metrics {unknown}: choose from {list(_METRICS)}")
    modules = [metric(keep_in_memory=True) for name, metric in _METRICS.items() if name in metrics]

    def compute_metrics(evaluation: EvalPrediction) -> dict[str, float]:
        predictions, labels_N = evaluation.predictions, evaluation.label_ids
        if not isinstance(predictions, tuple):
            return _measure(modules, predictions, labels_N)
        if tuple(map(type, predictions)) != (np.ndarray, dict, np.ndarray, dict):
            raise ValueError(
                f"predictions is a tuple of {len(predictions)} arrays: the model's output holds more than the loss and "
                "the logits. Name the others in `config.keys_to_ignore_at_inference` or in `ignore_keys`/"
                "`ignore_keys_for_eval`, so that only the logits [N, C] are gathered."
            )
        logits_NC, modality_logits, mask_NM, subset_logits = predictions
        results = _measure(modules, logits_NC, labels_N)
        here = {name: mask_NM[:, i].astype(bool) for i, name in enumerate(modality_logits)}
        parts = {f"_{name}": (own_NC, here[name]) for name, own_NC in modality_logits.items()}
        for subset, fused_NC in subset_logits.items():
            has_all_N = np.all([here[name] for name in _names_in(subset, list(here))], axis=0)
            parts[f"_given_{subset}"] = (fused_NC, has_all_N)
        for suffix, (part_NC, is_part_N) in parts.items():
            if is_part_N.any():
                found = _measure(modules, part_NC[is_part_N], labels_N[is_part_N])
                results |= {f"{metric}{suffix}": value for metric, value in found.items()}
        return results

    return compute_metrics


def _measure(modules: list[_ClassificationMetric], logits_NC: Any, labels_N: Any) -> dict[str, float]:
    logits_NC, labels_N = _check_scores(logits_NC, labels_N)
    results: dict[str, float] = {}
    for module in modules:
        if isinstance(module, TopKAccuracy) and logits_NC.shape[1] <= module.k:
            continue
        predictions = logits_NC if module.takes_scores else logits_NC.argmax(axis=1)
        if isinstance(module, MeanAveragePrecision):
            # Ranking across samples: a constant added to one sample's logits must not move it, hence the softmax.
            predictions = _log_softmax(logits_NC)
        results |= module.compute(predictions=predictions, references=labels_N) or {}
    return results


def _names_in(subset: str, names: list[str]) -> list[str]:
    """The modalities in a subset's name, such as `image_audio`: no name followed by "_" begins another's."""
    found, rest = [], f"{subset}_"
    while rest:
        found.append(next(name for name in names if rest.startswith(f"{name}_")))
        rest = rest[len(found[-1]) + 1 :]
    return found


def _log_softmax(logits_NC: np.ndarray) -> np.ndarray:
    """Ranks samples as the softmax does, without its ties where probabilities round to 0 or 1."""
    shifted_NC = logits_NC.astype(np.float64) - logits_NC.max(axis=1, keepdims=True)
    others_NC = np.exp(shifted_NC)  # the highest logit has exp(0) = 1, which log1p adds without rounding
    others_NC[np.arange(len(logits_NC)), logits_NC.argmax(axis=1)] = 0
    return shifted_NC - np.log1p(others_NC.sum(axis=1, keepdims=True))


def _check_class_ids(class_ids_N: Any, labels_N: Any) -> tuple[np.ndarray, np.ndarray]:
    labels_N = _check_ids("label", labels_N)
    class_ids_N = _check_ids("predicted class", class_ids_N)
    if class_ids_N.shape != labels_N.shape:
        raise ValueError(f"got {len(class_ids_N)} predicted classes for {len(labels_N)} labels")
    return class_ids_N, labels_N


def _check_ids(what: str, ids_N: Any) -> np.ndarray:
    ids_N = np.asarray(ids_N)
    if ids_N.size == 0:
        raise ValueError(f"there is nothing to measure: no {what} was given")
    if ids_N.ndim != 1 or ids_N.dtype.kind not in "iu":
        raise ValueError(f"need one integer {what} a sample [N], got shape {ids_N.shape} of {ids_N.dtype}")
    if ids_N.min() < 0:
        raise ValueError(f"{what} {ids_N.min()} of sample {ids_N.argmin()} is negative: class ids start at 0")
    return ids_N


def _check_scores(scores_NC: Any, labels_N: Any) -> tuple[np.ndarray, np.ndarray]:
    scores_NC, labels_N = np.asarray(scores_NC), _check_ids("label", labels_N)
    if scores_NC.ndim != 2 or len(scores_NC) != len(labels_N):
        raise ValueError(f"need scores [N, C] for {len(labels_N)} labels, got shape {scores_NC.shape}")
    if labels_N.max() >= scores_NC.shape[1]:
        raise ValueError(
            f"label {labels_N.max()} of sample {labels_N.argmax()} is out of range for {scores_NC.shape[1]} classes"
        )
    is_bad_NC = ~np.isfinite(scores_NC)
    if is_bad_NC.any():
        row, column = np.argwhere(is_bad_NC)[0]
        raise ValueError(
            f"score {scores_NC[row, column]} in row {row} is not finite, in {is_bad_NC.any(axis=1).sum()} of "
            f"{len(scores_NC)} rows: look at that sample; if training has diverged, lower the learning rate or use bf16 or "
            "float32 instead of float16"
        )
    return scores_NC, labels_N
