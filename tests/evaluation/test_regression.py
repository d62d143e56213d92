import hf_colearn  # noqa: F401, I001  # first: its guard makes `import evaluate` work beside a CPU torch

import numpy as np
import pytest
from sklearn.metrics import r2_score
from transformers import EvalPrediction

from hf_colearn import regression_metrics
from hf_colearn.evaluation.regression import MeanSquaredError, PearsonCorrelation, RSquared


def measured(predictions, labels, metrics=("r2", "mse", "pearson")):
    return regression_metrics(metrics)(EvalPrediction(np.asarray(predictions), np.asarray(labels)))


@pytest.mark.parametrize("shape", [(4,), (4, 1)])
def test_by_hand(shape):
    # errors 0, -1, -1, 0: mse 1/2; labels 1, 3, 5, 7 have squared deviations 9 + 1 + 1 + 9: R2 = 1 - 2 / 20
    found = measured(np.array([[1.0], [2.0], [4.0], [7.0]]), np.array([1.0, 3.0, 5.0, 7.0]).reshape(shape))
    assert list(found) == ["r2", "mse", "pearson"]
    assert found == pytest.approx({"r2": 0.9, "mse": 0.5, "pearson": np.corrcoef([1, 2, 4, 7], [1, 3, 5, 7])[0, 1]})


def test_several_outputs_are_averaged_each_over_the_samples_that_have_its_label():
    rng = np.random.default_rng(0)
    predictions, labels = rng.normal(size=(30, 3)), rng.normal(size=(30, 3))
    missing = labels.copy()
    missing[4] = missing[7, 1] = np.nan
    kept = [np.setdiff1d(np.arange(30), [4, 7] if c == 1 else [4]) for c in range(3)]
    outputs = [(predictions[rows, c], labels[rows, c]) for c, rows in enumerate(kept)]
    found = measured(predictions, missing)
    assert found == pytest.approx(
        {
            "mse": np.mean(np.concatenate([(x - y) ** 2 for x, y in outputs])),
            "r2": np.mean([r2_score(y, x) for x, y in outputs]),
            "pearson": np.mean([np.corrcoef(x, y)[0, 1] for x, y in outputs]),
            "num_unlabelled": 1,
        }
    )
    assert found["r2"] < 0


def test_predictions_that_are_all_the_same_have_no_correlation_and_labels_that_are_have_an_error_alone():
    assert measured([[2.0], [2.0], [2.0]], [1.0, 2.0, 3.0]) == pytest.approx({"mse": 2 / 3, "r2": 0, "pearson": 0})
    assert measured([[1.0], [3.0]], [2.0, 2.0]) == {"mse": 1.0}
    # Of two outputs the one whose labels vary.
    assert measured([[1.0, 5.0], [2.0, 6.0]], [[1.0, 0.0], [2.0, 0.0]])["r2"] == 1


def test_heads_are_measured_over_the_labelled_samples_that_have_them():
    labels = np.array([0.0, 1.0, 2.0, np.nan])
    image, audio = np.array([[1.0], [1.0], [5.0], [0.0]]), np.array([[9.0], [1.0], [0.0], [0.0]])
    mask = np.array([[True, False], [True, True], [False, True], [True, True]])
    heads = {"image": image, "audio": audio}
    found = regression_metrics(("mse",))(EvalPrediction((image, heads, mask, heads), labels))
    assert found == pytest.approx(
        {
            "mse": 10 / 3, "mse_image": 1 / 2, "mse_audio": 2, "mse_given_image": 1 / 2, "mse_given_audio": 2,
            "num_unlabelled": 1,
        }
    )  # fmt: skip


@pytest.mark.parametrize("metric", [RSquared, MeanSquaredError, PearsonCorrelation])
@pytest.mark.parametrize("shape", [(12,), (12, 2)])
def test_batches_give_what_whole_arrays_give(metric, shape, tmp_path):
    predictions, labels = np.random.default_rng(0).normal(size=(2, *shape))
    batches = metric(cache_dir=tmp_path)
    for rows in (slice(0, 5), slice(5, 12)):
        batches.add_batch(predictions=predictions[rows], references=labels[rows])
    whole = metric(keep_in_memory=True).compute(predictions=predictions, references=labels)
    assert batches.compute() == pytest.approx(whole)


@pytest.mark.parametrize(
    ("predictions", "labels", "message"),
    [
        ([[0.0], [np.inf]], [1.0, 2.0], "score inf in row 1 is not finite"),
        ([[0.0], [1.0]], [1.0, np.inf], "label inf of sample 1 is no number"),
        ([[0.0, 1.0]], [1.0], r"got shapes \(1, 2\) and \(1,\)"),
        ([[0.0], [1.0]], [np.nan, np.nan], "none of the 2 samples has a label"),
        (np.zeros((0, 1)), [], "nothing to measure"),
    ],
)
def test_bad_input_is_named(predictions, labels, message):
    with pytest.raises(ValueError, match=message):
        measured(predictions, labels)


def test_an_unknown_metric_is_named():
    with pytest.raises(ValueError, match=r"unknown metrics \['rmse'\]: choose from \['r2', 'mse', 'pearson'\]"):
        regression_metrics(("rmse",))
