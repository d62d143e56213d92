"""Who gained and who lost: accuracy by class and by group of samples, such as their speaker; and F1 by label.

Shape legend: N test samples, C labels, S seeds, P classes, groups or labels.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from hf_colearn.analysis.statistics.estimates import (
    Estimate,
    beyond_what_is_possible,
    paired_differences,
    paired_estimates,
    percent,
)


MIN_SAMPLES = 5  # fewer are shown and not judged: one sample would be more than a fifth of the accuracy


@dataclass(frozen=True)
class Change:
    """A class's or a group's accuracy, baseline against arm.

    Args:
        name (`str`), samples (`int`): Of the class or the group, and how many test samples it has.
        baseline_accuracy, accuracy (`float`): Fraction of its samples that are predicted right, the mean over seeds; of a
            label, its F1.
        difference ([`~hf_colearn.analysis.statistics.estimates.Estimate`]): `accuracy - baseline_accuracy`, paired by
            seed. It has a mean alone with one seed, fewer than 5 samples, or the same difference at every seed; and its
            values by seed where an interval would reach beyond what is possible.
    """

    name: str
    samples: int
    baseline_accuracy: float
    accuracy: float
    difference: Estimate


@dataclass(frozen=True)
class Extremes:
    """How unequal an arm's classes or groups are, by their mean accuracies over seeds; those of 5 samples or more count.

    The lowest of many accuracies is low by chance alone, more so the smaller they are: compare an arm's with the baseline's,
    which has the same samples. `gap` is the highest minus the lowest.
    """

    worst: str
    worst_accuracy: float
    best: str
    best_accuracy: float
    gap: float


@dataclass(frozen=True)
class Changes:
    """What [`per_class_changes`], [`per_group_changes`] and [`per_label_changes`] found.

    Args:
        changes (`tuple[Change, ...]`): From the largest gain to the largest loss.
        baseline, arm ([`Extremes`], *optional*): None where fewer than two classes or groups have 5 samples.
        n_seeds (`int`), notes (`tuple[str, ...]`): S, and what a reader of the numbers must know, a sentence each.
    """

    changes: tuple[Change, ...]
    baseline: Extremes | None
    arm: Extremes | None
    n_seeds: int
    notes: tuple[str, ...]


def per_class_changes(
    predictions: Sequence[Any],
    baseline_predictions: Sequence[Any],
    labels_N: Any,
    class_names: Sequence[str] | None = None,
    confidence: float = 0.95,
) -> Changes:
    """Every class's recall, baseline against arm: of the samples of a class, the fraction that is predicted as it.

    Paired by seed, with t-intervals that Holm's procedure corrects for the number of classes of at least 5 samples
    ([`~hf_colearn.analysis.statistics.estimates.paired_estimates`]): the chance of finding any change where there is none is
    `1 - confidence` at most, over all classes. Classes without a test sample are left out.

    Args:
        predictions, baseline_predictions (`Sequence[np.ndarray]` of shape `(N,)`): Predicted class ids of the arm and of
            the baseline, one array a seed, the seeds in the same order.
        labels_N (`np.ndarray` of shape `(N,)`): Class ids of the test samples.
        class_names (`Sequence[str]`, *optional*): By class id; by default the ids.
        confidence (`float`, *optional*, defaults to 0.95): Of all findings together.

    Raises:
        `ValueError`: If there are no samples or seeds, their numbers differ, ids are no integers, or a label has no name.
    """
    labels_N = _ids("labels", labels_N)
    if class_names is not None and not 0 <= labels_N.min() <= labels_N.max() < len(class_names):
        raise ValueError(
            f"the labels go from {labels_N.min()} to {labels_N.max()}, and there are {len(class_names)} class names"
        )

    def name(c: Any) -> str:
        return str(c) if class_names is None else str(class_names[c])

    notes = []
    if class_names is not None and (absent := len(class_names) - len(np.unique(labels_N))):
        notes.append(f"{absent} of {len(class_names)} classes have no test sample and are not listed.")
    arms = (predictions, baseline_predictions)
    return _changes(arms, labels_N, labels_N, name, ("class", "classes"), confidence, notes)


def per_group_changes(
    predictions: Sequence[Any],
    baseline_predictions: Sequence[Any],
    labels_N: Any,
    groups_N: Any,
    confidence: float = 0.95,
) -> Changes:
    """Every group's accuracy, baseline against arm: of the samples of a group, the fraction that is predicted right.

    As [`per_class_changes`], corrected for the number of groups: `groups_N` has a string a sample, such as its speaker.
    """
    labels_N, groups_N = _ids("labels", labels_N), np.asarray(groups_N)
    if groups_N.shape != labels_N.shape or not all(isinstance(group, str) for group in groups_N.tolist()):
        raise ValueError(
            f"need one string a sample for {len(labels_N)} samples, got groups of shape {groups_N.shape} and "
            f"{groups_N.dtype}: pass names, such as `np.array(speakers, dtype=str)`"
        )
    arms = (predictions, baseline_predictions)
    return _changes(arms, labels_N, groups_N, str, ("group", "groups"), confidence, [])


def per_label_changes(
    predictions: Sequence[np.ndarray],
    baseline_predictions: Sequence[np.ndarray],
    labels_NC: np.ndarray,
    names: Sequence[str],
    confidence: float = 0.95,
) -> Changes:
    """Every label's F1 where a sample may have several, baseline against arm; its samples are those that have it.

    As [`per_class_changes`], corrected for the number of labels. Labels that no test sample has are left out.

    Args:
        predictions, baseline_predictions (`Sequence[np.ndarray]` of shape `(N, C)`): 1 or 0, one array a seed.
        labels_NC (`np.ndarray` of shape `(N, C)`): 1 or 0, and -100 where it is not known.
        names (`Sequence[str]`): By label.
    """
    samples = (labels_NC == 1).sum(axis=0)
    seen = np.flatnonzero(samples)
    if not len(seen):
        raise ValueError(f"none of the {len(labels_NC)} test samples has any of the {labels_NC.shape[1]} labels")
    arms = [
        np.stack([_f1(of_seed, labels_NC)[seen] for of_seed in arm]) for arm in (predictions, baseline_predictions)
    ]
    notes = []
    if absent := len(names) - len(seen):
        notes.append(f"{absent} of {len(names)} labels have no test sample and are not listed.")
    shown = [str(names[c]) for c in seen.tolist()]
    return _judged(arms[0], arms[1], samples[seen], shown, ("label", "labels"), confidence, notes)


def _f1(predicted_NC: np.ndarray, labels_NC: np.ndarray) -> np.ndarray:
    """2 TP / (2 TP + FP + FN) of every label over the samples where it is known; 0 where it has none of them."""
    is_known_NC, is_true_NC, is_said_NC = labels_NC >= 0, labels_NC == 1, predicted_NC == 1
    hits_C = 2 * (is_true_NC & is_said_NC).sum(axis=0)
    all_C = is_true_NC.sum(axis=0) + (is_said_NC & is_known_NC).sum(axis=0)
    return hits_C / np.maximum(all_C, 1)


def _changes(
    arms: tuple[Sequence[Any], Sequence[Any]],
    labels_N: np.ndarray,
    parts_N: np.ndarray,
    name: Callable[[Any], str],
    words: tuple[str, str],
    confidence: float,
    notes: list[str],
) -> Changes:
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must lie between 0 and 1, got {confidence}")
    num_seeds, of_baseline = map(len, arms)
    if not 0 < num_seeds == of_baseline:
        raise ValueError(
            f"the arm has predictions of {num_seeds} seeds and the baseline of {of_baseline}: pass those of the same "
            "seeds, one at least"
        )
    parts, part_N, samples = np.unique(parts_N, return_inverse=True, return_counts=True)
    accuracies, baseline_accuracies = (
        np.stack([_accuracies(ids, labels_N, part_N, samples) for ids in of_arm])  # [S, parts]
        for of_arm in arms
    )
    names = [name(part) for part in parts.tolist()]
    if len(parts) == 1:
        notes.append(
            f"The test samples are all of one {words[0]} ('{names[0]}'), so there is nothing to hold it against."
        )
    return _judged(accuracies, baseline_accuracies, samples, names, words, confidence, notes)


def _judged(
    accuracies: np.ndarray,
    baseline_accuracies: np.ndarray,
    samples: np.ndarray,
    names: list[str],
    words: tuple[str, str],
    confidence: float,
    notes: list[str],
) -> Changes:
    """From the scores `(S, P)` of an arm and of the baseline."""
    num_seeds = len(accuracies)
    means, baseline_means = accuracies.mean(axis=0), baseline_accuracies.mean(axis=0)
    differences = paired_differences(accuracies, baseline_accuracies)
    judged = np.flatnonzero(samples >= MIN_SAMPLES).tolist()
    estimates = dict(zip(judged, paired_estimates(list(differences[:, judged].T), confidence, reach=1.0), strict=True))
    rows = zip(names, samples.tolist(), baseline_means.tolist(), means.tolist(), strict=True)
    changes = [
        Change(*row, difference=estimates.get(i, Estimate(float(differences[:, i].mean()))))
        for i, row in enumerate(rows)
    ]
    if few := [change.name for change in changes if change.samples < MIN_SAMPLES]:
        some = ", ".join(map(repr, few[:5])) + (f" and {len(few) - 5} more" if len(few) > 5 else "")
        notes.append(f"Shown and not judged for having fewer than {MIN_SAMPLES} samples: {some}.")
    if any(estimate.by_seed for estimate in estimates.values()):
        notes.append(beyond_what_is_possible(num_seeds))
    if num_seeds == 1:
        notes.append("One seed: no intervals, so no change is claimed.")
    elif len(judged) > 1:
        notes.append(
            f"Intervals are corrected for {len(judged)} {words[1]} (Holm): the chance of finding any change where there is "
            f"none is {percent(1 - confidence)} at most. A lone difference is the same at every seed."
        )
    return Changes(
        changes=tuple(sorted(changes, key=lambda change: -change.difference.mean)),
        baseline=_extremes(names, baseline_means, judged),
        arm=_extremes(names, means, judged),
        n_seeds=num_seeds,
        notes=tuple(notes),
    )


def _accuracies(ids: Any, labels_N: np.ndarray, part_N: np.ndarray, samples: np.ndarray) -> np.ndarray:
    """The fraction of every part's samples that is predicted right."""
    ids_N = _ids("predictions", ids)
    if ids_N.shape != labels_N.shape:
        raise ValueError(f"got {len(ids_N)} predictions for {len(labels_N)} labels: pass those of the same samples")
    return np.bincount(part_N, weights=ids_N == labels_N, minlength=len(samples)) / samples


def _extremes(names: list[str], means: np.ndarray, judged: list[int]) -> Extremes | None:
    if len(judged) < 2:
        return None
    worst, best = min(judged, key=lambda i: means[i]), max(judged, key=lambda i: means[i])
    low, high = float(means[worst]), float(means[best])
    return Extremes(names[worst], low, names[best], high, high - low)


def _ids(what: str, ids: Any) -> np.ndarray:
    ids_N = np.asarray(ids)
    if ids_N.size == 0:
        raise ValueError(f"there is nothing to measure: the {what} are empty")
    if ids_N.ndim != 1 or ids_N.dtype.kind not in "iu":
        raise ValueError(f"{what} must be integer class ids [N], got shape {ids_N.shape} of {ids_N.dtype}")
    return ids_N
