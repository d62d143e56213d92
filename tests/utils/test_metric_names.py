"""What metrics are called, and how they are shown."""

import pytest

from hf_colearn.utils.metric_names import called, is_count, is_error, pp, with_unit


@pytest.mark.parametrize(
    ("metric", "header", "difference"),
    [
        ("accuracy", "accuracy [%]", "percentage points"),
        ("macro_f1_given_image_audio", "macro F1 given image audio [%]", "percentage points"),
        ("map", "mAP [%]", "percentage points"),
        ("mapped_share", "mapped share [%]", "percentage points"),
        ("r2_image", "R² image [× 100]", "hundredths of R² image"),
        ("pearson", "Pearson correlation [× 100]", "hundredths of Pearson correlation"),
        ("mse_given_audio", "mean squared error given audio", "hundredths of mean squared error given audio"),
    ],
)
def test_a_header_has_the_name_and_the_unit(metric, header, difference):
    assert with_unit(metric) == header and header.startswith(called(metric))
    assert pp(metric) == difference
    assert is_error(metric) == metric.startswith("mse")


def test_counts_are_no_scores():
    assert is_count("num_unlabelled") and is_count("map_excluded_classes") and not is_count("number_accuracy")
