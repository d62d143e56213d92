"""Classification metrics that need no network: for `Trainer(compute_metrics=...)` and as `evaluate` metrics.

Shape legend: N samples, C classes, M modalities.

`evaluate.load("accuracy")` fetches a script from the Hub; these are shipped with the package and need only NumPy. The
arithmetic is in functions of arrays, called by [`classification_metrics`] and by the `evaluate.Metric` classes.
"""

from collections.abc import Callable
from typing import Any

import evaluate
import numpy as np
from datasets import Features, Sequence, Value
from transformers import EvalPrediction


def accuracy(class_ids_N: np.ndarray, labels_N: np.ndarray) -> float:
    """Fraction of samples whose predicted class is the label, in [0, 1]."""
    class_ids_N, labels_N = _check_class_ids(class_ids_N, labels_N)
    return float(np.mean(class_ids_N == labels_N))


def top_k_accuracy(scores_NC: np.ndarray, labels_N: np.ndarray, k: int = 5) -> float:
    """Fraction of samples whose label is among the `k` highest scores, in [0, 1].

    Of equal scores the lower class id comes first, as in `argmax`, so `k=1` is the accuracy of the argmax.
    """
    scores_NC, labels_N = _check_scores(scores_NC, labels_N)
    if not 0 < k < scores_NC.shape[1]:
        raise ValueError(f"top-k accuracy needs 0 < k < number of classes, got k={k} and {scores_NC.shape[1]} classes")
    best_Nk = np.argsort(-scores_NC, axis=1, kind="stable")[:, :k]
    return float(np.mean((best_Nk == labels_N[:, None]).any(axis=1)))


def macro_f1(class_ids_N: np.ndarray, labels_N: np.ndarray) -> float:
    """Mean over classes of `F1 = 2 TP / (2 TP + FP + FN)`, in [0, 1].

    The classes are those that occur among labels or predictions, as in scikit-learn's `f1_score(average="macro")`.
    """
    class_ids_N, labels_N = _check_class_ids(class_ids_N, labels_N)
    hits = np.bincount(labels_N[class_ids_N == labels_N], minlength=max(class_ids_N.max(), labels_N.max()) + 1)
    # 2 TP + FP + FN = (predicted as the class) + (labelled with the class)
    occurrences = np.bincount(class_ids_N, minlength=len(hits)) + np.bincount(labels_N, minlength=len(hits))
    seen = occurrences > 0
    return float(np.mean(2 * hits[seen] / occurrences[seen]))


def average_precision(scores_N: np.ndarray, positives_N: np.ndarray) -> float:
    """Step-wise average precision, `sum_n (R_n - R_{n-1}) P_n` over the distinct scores as thresholds.

    Samples with equal scores enter together, nothing is interpolated: scikit-learn's `average_precision_score`.

    Args:
        scores_N (`np.ndarray` of shape `(N,)`): Finite scores, higher means more likely positive.
        positives_N (`np.ndarray` of shape `(N,)`): `True` for the positives; at least one.
    """
    order_N = np.argsort(-scores_N)
    sorted_N = scores_N[order_N]
    last_of_ties = np.append(np.flatnonzero(sorted_N[1:] != sorted_N[:-1]), len(sorted_N) - 1)
    true_positives = np.cumsum(positives_N[order_N])[last_of_ties]
    precision = true_positives / (last_of_ties + 1)
    recall_steps = np.diff(true_positives, prepend=0) / true_positives[-1]
    return float(np.sum(recall_steps * precision))


def mean_average_precision(scores_NC: np.ndarray, labels_N: np.ndarray) -> tuple[float, int]:
    """Macro mean over classes of [`average_precision`], one class against the rest.

    Returns:
        `tuple[float, int]`: The mean over the classes that have a positive, in [0, 1], and the number of classes left
        out because no label names them.
    """
    scores_NC, labels_N = _check_scores(scores_NC, labels_N)
    present = np.unique(labels_N)
    values = [average_precision(scores_NC[:, c], labels_N == c) for c in present]
    return float(np.mean(values)), scores_NC.shape[1] - len(present)


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
        by name. A multimodal model's predictions, `(logits, modality_logits, presence, subset_logits)`, give more:
        `{metric}_{modality}` of a modality's own head, over the samples that have it, and `{metric}_given_{subset}` of
        the fused prediction from a subset of the modalities, over the samples that have all of it; a modality or subset
        that no sample has is left out. It raises `ValueError` for any other tuple of predictions, logits that are not
        finite, a label outside `[0, C)` and an empty evaluation set.

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
    known = ("accuracy", "top5", "macro_f1", "map")
    unknown = [name for name in metrics if name not in known]
    if unknown:
        raise ValueError(f"unknown metrics {unknown}: choose from {list(known)}")

    def compute_metrics(evaluation: EvalPrediction) -> dict[str, float]:
        predictions, labels_N = evaluation.predictions, evaluation.label_ids
        if not isinstance(predictions, tuple):
            return _measure(metrics, predictions, labels_N)
        if not _is_multimodal(predictions):
            raise ValueError(
                f"predictions is a tuple of {len(predictions)} arrays: the model's output holds more than the loss and "
                "the logits. Name the others in `config.keys_to_ignore_at_inference` or in `ignore_keys`/"
                "`ignore_keys_for_eval`, so that only the logits [N, C] are gathered."
            )
        logits_NC, modality_logits, mask_NM, subset_logits = predictions
        results = _measure(metrics, logits_NC, labels_N)
        here = {name: mask_NM[:, i].astype(bool) for i, name in enumerate(modality_logits)}
        for name, own_logits_NC in modality_logits.items():
            results |= _measure_part(metrics, own_logits_NC, labels_N, here[name], f"_{name}")
        for subset, fused_logits_NC in subset_logits.items():
            has_all_N = np.all([here[name] for name in _names_in(subset, list(here))], axis=0)
            results |= _measure_part(metrics, fused_logits_NC, labels_N, has_all_N, f"_given_{subset}")
        return results

    return compute_metrics


def _measure(metrics: tuple[str, ...], logits_NC: Any, labels_N: Any) -> dict[str, float]:
    logits_NC, labels_N = _check_scores(logits_NC, labels_N)
    class_ids_N = logits_NC.argmax(axis=1)
    results: dict[str, float] = {}
    if "accuracy" in metrics:
        results["accuracy"] = accuracy(class_ids_N, labels_N)
    if "top5" in metrics and logits_NC.shape[1] > 5:
        results["top5"] = top_k_accuracy(logits_NC, labels_N, k=5)
    if "macro_f1" in metrics:
        results["macro_f1"] = macro_f1(class_ids_N, labels_N)
    if "map" in metrics:
        # Ranking across samples: a constant added to one sample's logits must not move it, hence the softmax.
        results["map"], results["map_excluded_classes"] = mean_average_precision(_log_softmax(logits_NC), labels_N)
    return results


def _measure_part(
    metrics: tuple[str, ...], logits_NC: np.ndarray, labels_N: np.ndarray, is_part_N: np.ndarray, suffix: str
) -> dict[str, float]:
    if not is_part_N.any():
        return {}
    found = _measure(metrics, logits_NC[is_part_N], labels_N[is_part_N])
    return {f"{metric}{suffix}": value for metric, value in found.items()}


def _is_multimodal(predictions: tuple[Any, ...]) -> bool:
    """Whether these are a multimodal model's logits, its heads' by modality, what was present, and its subsets'."""
    kinds = (np.ndarray, dict, np.ndarray, dict)
    return len(predictions) == 4 and all(map(isinstance, predictions, kinds))


def _names_in(subset: str, names: list[str]) -> list[str]:
    """The modalities in a subset's name, such as `image_audio`: no name followed by "_" begins another's."""
    found, rest = [], f"{subset}_"
    while rest:
        found.append(next(name for name in names if rest.startswith(f"{name}_")))
        rest = rest[len(found[-1]) + 1 :]
    return found


class Accuracy(evaluate.Metric):
    """`accuracy` from predicted class ids `(N,)` and labels `(N,)`; see [`accuracy`]."""

    def _info(self) -> evaluate.MetricInfo:
        return _class_id_info("Fraction of samples whose predicted class is the label, in [0, 1].")

    def _compute(self, *, predictions: np.ndarray, references: np.ndarray) -> dict[str, float]:
        return {"accuracy": accuracy(predictions, references)}


class MacroF1(evaluate.Metric):
    """`macro_f1` from predicted class ids `(N,)` and labels `(N,)`; see [`macro_f1`]."""

    def _info(self) -> evaluate.MetricInfo:
        return _class_id_info("Mean F1 over the classes that occur among labels or predictions, in [0, 1].")

    def _compute(self, *, predictions: np.ndarray, references: np.ndarray) -> dict[str, float]:
        return {"macro_f1": macro_f1(predictions, references)}


class TopKAccuracy(evaluate.Metric):
    """`top{k}` from scores `(N, C)` and labels `(N,)`; see [`top_k_accuracy`].

    Args:
        k (`int`, *optional*, defaults to 5): How many of the highest scores count as a hit; below C.
        **kwargs: Of `evaluate.Metric`: `num_process`, `process_id`, `experiment_id`, `cache_dir`, ...
    """

    def __init__(self, k: int = 5, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.k = k

    def _info(self) -> evaluate.MetricInfo:
        return _score_info("Fraction of samples whose label is among the k highest scores, in [0, 1].")

    def _compute(self, *, predictions: np.ndarray, references: np.ndarray) -> dict[str, float]:
        return {f"top{self.k}": top_k_accuracy(predictions, references, self.k)}


class MeanAveragePrecision(evaluate.Metric):
    """`map` and `map_excluded_classes` from scores `(N, C)` and labels `(N,)`; see [`mean_average_precision`].

    The samples of a class are ranked by the scores as they are given. With logits, take the softmax first:
    [`classification_metrics`] does.
    """

    def _info(self) -> evaluate.MetricInfo:
        return _score_info("Mean over classes of the step-wise average precision (one class against the rest).")

    def _compute(self, *, predictions: np.ndarray, references: np.ndarray) -> dict[str, float]:
        value, excluded = mean_average_precision(predictions, references)
        return {"map": value, "map_excluded_classes": excluded}


def _class_id_info(description: str) -> evaluate.MetricInfo:
    return evaluate.MetricInfo(
        description=description,
        citation="",
        inputs_description="\nPredictions are class ids (N,), references are class ids (N,).",
        features=Features({"predictions": Value("int64"), "references": Value("int64")}),
        format="numpy",
    )


def _score_info(description: str) -> evaluate.MetricInfo:
    return evaluate.MetricInfo(
        description=description,
        citation="",
        inputs_description="\nPredictions are scores (N, C), references are class ids (N,).",
        features=Features({"predictions": Sequence(Value("float64")), "references": Value("int64")}),
    )


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
    finite_N = np.isfinite(scores_NC).all(axis=1)
    if not finite_N.all():
        row = int(np.argmin(finite_N))
        bad = scores_NC[row][~np.isfinite(scores_NC[row])][0]
        raise ValueError(
            f"score {bad} in row {row} is not finite, in {(~finite_N).sum()} of {len(finite_N)} rows: look at that "
            "sample; if training has diverged, lower the learning rate or use bf16 or float32 instead of float16"
        )
    return scores_NC, labels_N
