import hf_colearn  # noqa: F401, I001  # first: its guard makes `import evaluate` work beside a CPU torch

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, f1_score
from transformers import EvalPrediction

from hf_colearn import multi_label_metrics
from hf_colearn.evaluation.multi_label import MicroF1, MultiLabelMacroF1, MultiLabelMeanAveragePrecision


def measured(logits, labels, metrics=("mean_average_precision", "f1_micro", "f1_macro")):
    return multi_label_metrics(metrics)(EvalPrediction(np.asarray(logits, dtype=np.float32), np.asarray(labels)))


@pytest.fixture
def logits_and_labels():
    """Logits [60, 5] with ties, labels [60, 5] of which class 4 has no positive."""
    rng = np.random.default_rng(0)
    labels = (rng.random((60, 5)) < 0.4).astype(np.float32)
    labels[:, 4] = 0
    return np.round(rng.normal(size=(60, 5)), 1), labels


def test_by_hand():
    logits = [[2, -1], [-1, 1], [1, 3]]
    labels = [[1.0, 0.0], [1.0, 1.0], [0.0, 0.0]]
    # class 0: TP 1, FP 1, FN 1 -> 1/2, ranked + - + -> (1 + 2/3) / 2; class 1: TP 1, FP 1, FN 0 -> 2/3, ranked - + - -> 1/2
    assert measured(logits, labels) == {
        "f1_micro": pytest.approx(2 * 2 / (2 * 2 + 2 + 1)),
        "f1_macro": pytest.approx((1 / 2 + 2 / 3) / 2),
        "mean_average_precision": pytest.approx((5 / 6 + 1 / 2) / 2),
        "mean_average_precision_excluded_classes": 0,
    }


def test_without_missing_entries_it_is_scikit_learns(logits_and_labels):
    logits, labels = logits_and_labels
    found = measured(logits, labels)
    assert found["f1_micro"] == pytest.approx(f1_score(labels, logits > 0, average="micro"))
    # Class 4 is predicted and never true: its F1 is 0, and it counts; it has no average precision.
    assert found["f1_macro"] == pytest.approx(f1_score(labels, logits > 0, average="macro"))
    assert found["mean_average_precision"] == pytest.approx(
        np.mean([average_precision_score(labels[:, c], logits[:, c].astype(np.float32)) for c in range(4)])
    )
    assert found["mean_average_precision_excluded_classes"] == 1


@pytest.mark.parametrize("missing", [np.nan, -100.0])
def test_missing_entries_are_left_out_of_their_class(logits_and_labels, missing):
    logits, labels = logits_and_labels
    is_missing = np.random.default_rng(1).random(labels.shape) < 0.3
    is_missing[:3] = True
    found = measured(logits, np.where(is_missing, missing, labels))
    kept = [(labels[~is_missing[:, c], c], logits[~is_missing[:, c], c].astype(np.float32)) for c in range(5)]
    truth, predicted = (np.concatenate(parts) for parts in zip(*kept, strict=True))
    assert found["f1_micro"] == pytest.approx(f1_score(truth, predicted > 0))
    assert found["f1_macro"] == pytest.approx(np.mean([f1_score(y, z > 0, zero_division=0) for y, z in kept]))
    assert found["mean_average_precision"] == pytest.approx(np.mean([average_precision_score(*x) for x in kept[:4]]))
    assert found["num_unlabelled"] == int(is_missing.all(axis=1).sum()) >= 3


def test_classes_that_never_occur_are_no_part_of_macro_f1_and_without_positives_there_is_no_mean_average_precision():
    assert measured([[1, -1], [1, -1]], [[1.0, 0.0], [0.0, 0.0]])["f1_macro"] == pytest.approx(2 / 3)
    assert measured([[-1, -1]], [[0, 0]]) == {
        "f1_micro": 0, "f1_macro": 0, "mean_average_precision_excluded_classes": 2,
    }  # fmt: skip


def test_heads_and_subsets_are_measured_over_the_labelled_samples_that_have_them():
    labels = np.array([[1.0, 0.0], [0.0, 1.0], [np.nan, np.nan]])
    right, wrong = labels * 2 - 1, 1 - labels * 2
    right[2] = wrong[2] = 0
    mask = np.array([[True, True], [False, True], [True, True]])
    heads = {"image": right, "audio": np.stack([right[0], wrong[1], right[2]])}
    found = multi_label_metrics(("f1_micro",))(EvalPrediction((right, heads, mask, heads), labels))
    assert found == {
        "f1_micro": 1, "f1_micro_image": 1, "f1_micro_audio": 0.5, "f1_micro_given_image": 1, "f1_micro_given_audio": 0.5,
        "num_unlabelled": 1,
    }  # fmt: skip


@pytest.mark.parametrize("metric", [MicroF1, MultiLabelMacroF1, MultiLabelMeanAveragePrecision])
def test_batches_give_what_whole_arrays_give(metric, tmp_path, logits_and_labels):
    logits, labels = logits_and_labels
    batches = metric(cache_dir=tmp_path)
    for rows in (slice(0, 40), slice(40, 60)):
        batches.add_batch(predictions=logits[rows], references=labels[rows])
    whole = metric(keep_in_memory=True).compute(predictions=logits, references=labels)
    assert batches.compute() == pytest.approx(whole)


@pytest.mark.parametrize(
    ("logits", "labels", "message"),
    [
        ([[0.0, np.nan]], [[1, 0]], "score nan in row 0 is not finite"),
        ([[0.0, 1.0]], [[1, 2]], "label 2 of sample 0 and class 1 is none: pass 1"),
        ([[0.0, 1.0]], [[0.3, -100]], "label 0.3 of sample 0 and class 0 is none"),
        ([[0.0, 1.0]], [1], r"labels \[N, C\] of 0 and 1, got shapes \(1, 2\) and \(1,\): for one class a sample"),
        ([[0.0, 1.0], [0.0, 1.0]], [[-100, np.nan]] * 2, "none of the 2 samples has a label"),
        (np.zeros((0, 2)), np.zeros((0, 2)), "nothing to measure"),
    ],
)
def test_bad_input_is_named(logits, labels, message):
    with pytest.raises(ValueError, match=message):
        measured(logits, labels)
