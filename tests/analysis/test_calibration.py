import hf_colearn  # noqa: F401, I001  # first: its guard makes `import evaluate` work beside a CPU torch

import numpy as np
import pytest
from sklearn.calibration import calibration_curve

from hf_colearn.analysis.statistics.calibration import reliability


# Of 10 samples: 0.95 three times, two right; 0.65 twice, both right; 0.62 once, wrong; 0.3 four times, one right.
CONFIDENCES = np.array([0.95, 0.3, 0.65, 0.95, 0.3, 0.62, 0.3, 0.95, 0.65, 0.3])
CORRECT = np.array([True, False, True, False, True, False, False, True, True, False])


def expected_calibration_error(confidences, correct, bins=15):
    return reliability(confidences, correct, bins).error


def adaptive_calibration_error(confidences, correct, bins=15):
    return reliability(confidences, correct, bins, strategy="quantile").error


def drawn(n=5000, sharpness=3.0):
    rng = np.random.default_rng(0)
    confidences = rng.beta(sharpness, 1, size=n)
    return confidences, rng.uniform(size=n) < confidences**2  # surer than right


def test_bins_by_hand():
    # 5 bins of 0.2: 0.3 is in (0.2, 0.4], 0.62 and 0.65 in (0.6, 0.8], 0.95 in (0.8, 1].
    found = reliability(CONFIDENCES, CORRECT, bins=5)
    assert [(b.low, b.high) for b in found.bins] == [pytest.approx(e) for e in ((0.2, 0.4), (0.6, 0.8), (0.8, 1.0))]
    assert [b.confidence for b in found.bins] == pytest.approx([0.3, 1.92 / 3, 0.95])
    assert [b.accuracy for b in found.bins] == pytest.approx([1 / 4, 2 / 3, 2 / 3])
    assert [b.count for b in found.bins] == [4, 3, 3]
    # 0.3 * 4 + 0.65 * 2 + 0.62 + 0.95 * 3 = 5.97, and 5 of 10 are right
    assert (found.count, found.confidence, found.accuracy) == (10, pytest.approx(0.597), 0.5)


def test_expected_calibration_error_by_hand():
    # 4/10 |0.25 - 0.3| + 3/10 |2/3 - 0.64| + 3/10 |2/3 - 0.95| = 0.02 + 0.008 + 0.085
    assert expected_calibration_error(CONFIDENCES, CORRECT, bins=5) == pytest.approx(0.113)


def test_one_bin_compares_the_means():
    assert expected_calibration_error(CONFIDENCES, CORRECT, bins=1) == pytest.approx(0.097)
    assert adaptive_calibration_error(CONFIDENCES, CORRECT, bins=1) == pytest.approx(0.097)


def test_a_confidence_at_the_end_of_a_bin_belongs_to_the_lower_one_as_published():
    found = reliability(np.array([0.0, 0.5, 0.5000001, 1.0]), np.array([0, 1, 1, 1]), bins=2)
    assert [(b.count, b.confidence) for b in found.bins] == [(2, pytest.approx(0.25)), (2, pytest.approx(0.75))]


@pytest.mark.parametrize("strategy", ["uniform", "quantile"])
@pytest.mark.parametrize("bins", [1, 7, 15])
def test_bins_equal_those_of_scikit_learn(bins, strategy):
    confidences, correct = drawn()
    found = reliability(confidences, correct, bins, strategy)
    accuracy, confidence = calibration_curve(correct, confidences, n_bins=bins, strategy=strategy)
    assert [b.accuracy for b in found.bins] == pytest.approx(accuracy)
    assert [b.confidence for b in found.bins] == pytest.approx(confidence)
    assert sum(b.count for b in found.bins) == len(confidences)


def test_error_of_a_known_miscalibration():
    # Right with probability c^2 where c is the confidence, of density 3 c^2: the mean of c - c^2 is 3/4 - 3/5 = 0.15.
    confidences, correct = drawn(200_000)
    assert expected_calibration_error(confidences, correct) == pytest.approx(0.15, abs=0.005)
    assert adaptive_calibration_error(confidences, correct) == pytest.approx(0.15, abs=0.005)


def test_a_calibrated_student_has_next_to_no_error():
    confidences = np.random.default_rng(1).uniform(size=200_000)
    correct = np.random.default_rng(2).uniform(size=200_000) < confidences
    assert expected_calibration_error(confidences, correct) < 0.01


def test_adaptive_bins_hold_the_same_number_of_samples():
    found = reliability(*drawn(), bins=10, strategy="quantile")
    assert [b.count for b in found.bins] == [500] * 10
    # Two bins of two: 0.6 and 0.7 (both wrong), 0.8 and 0.9 (both right): (0.65 + 0.15) / 2. In one each: the same sum.
    confidences, correct = np.array([0.9, 0.6, 0.8, 0.7]), np.array([1, 0, 1, 0])
    assert adaptive_calibration_error(confidences, correct, bins=2) == pytest.approx(0.4)
    # Equal confidences stay together: three bins at most of 0.3, of up to 0.65 and of 0.95, as above.
    assert [b.count for b in reliability(CONFIDENCES, CORRECT, 3, "quantile").bins] == [4, 3, 3]


def test_adaptive_bins_tell_apart_what_one_wide_bin_averages_away():
    # All confidences lie in (14/15, 1]: the sure half is too sure, the other not sure enough.
    confidences = np.repeat([0.94, 0.99], 100)
    correct = np.concatenate([np.arange(100) < 99, np.arange(100) < 94])
    assert expected_calibration_error(confidences, correct) == pytest.approx(0, abs=1e-9)
    assert adaptive_calibration_error(confidences, correct, bins=2) == pytest.approx(0.05)


def test_the_order_of_the_samples_does_not_matter():
    confidences, correct = drawn(500)
    confidences = confidences.round(1)  # with ties
    order = np.random.default_rng(3).permutation(500)
    for error in (expected_calibration_error, adaptive_calibration_error):
        assert error(confidences[order], correct[order]) == pytest.approx(error(confidences, correct))


def test_all_sure_and_all_right_is_no_error():
    for error in (expected_calibration_error, adaptive_calibration_error):
        assert error(np.ones(20, dtype=np.float32), np.ones(20, dtype=bool)) == 0
        assert error(np.zeros(20), np.zeros(20, dtype=bool)) == 0


@pytest.mark.parametrize(
    ("confidences", "correct", "bins", "message"),
    [
        ([], [], 15, "nothing to measure"),
        ([0.5, 0.5], [1], 1, r"got shapes \(2,\) and \(1,\)"),
        ([[0.5]], [[1]], 1, r"got shapes \(1, 1\)"),
        ([0.5, np.nan], [1, 1], 1, "confidence nan of sample 1 is no probability"),
        ([0.5, 1.2], [1, 1], 1, "confidence 1.2 of sample 1"),
        ([-0.1, 0.2], [1, 1], 1, "confidence -0.1 of sample 0"),
        ([0.5, 0.5, 0.5], [1, 0, 2], 1, "correct is 2 for sample 2"),
        ([0.5], [1], 0, "bins=0 with 1 samples: choose 1 to 1"),
        ([0.5, 0.6, 0.7], [1, 1, 1], 15, "bins=15 with 3 samples"),
    ],
)
def test_bad_input_is_named(confidences, correct, bins, message):
    for error in (expected_calibration_error, adaptive_calibration_error):
        with pytest.raises(ValueError, match=message):
            error(np.array(confidences), np.array(correct), bins)


def test_an_unknown_strategy_is_named():
    with pytest.raises(ValueError, match="strategy='width' is unknown"):
        reliability(CONFIDENCES, CORRECT, 5, "width")
