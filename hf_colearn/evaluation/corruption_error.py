"""The mean corruption error of ImageNet-C: errors at five severities, held against AlexNet's.

Hendrycks & Dietterich, "Benchmarking Neural Network Robustness to Common Corruptions and Perturbations", ICLR 2019.
"""

from collections.abc import Mapping

from hf_colearn.evaluation.corruptions import SEVERITIES, Condition, all_conditions


# AlexNet's error, averaged over the five severities; from the released code of the paper.
ALEXNET_ERRORS = {
    "gaussian_noise": 0.886428,
    "shot_noise": 0.894468,
    "impulse_noise": 0.922640,
    "defocus_blur": 0.819880,
    "glass_blur": 0.826268,
    "motion_blur": 0.785948,
    "zoom_blur": 0.798360,
    "snow": 0.866816,
    "frost": 0.826572,
    "fog": 0.819324,
    "brightness": 0.564592,
    "contrast": 0.853204,
    "elastic_transform": 0.646056,
    "pixelate": 0.717840,
    "jpeg_compression": 0.606500,
}


def corruption_errors(errors: Mapping[Condition, float]) -> dict[str, float]:
    r"""The corruption error of every corruption of which all five severities were measured, in percent.

    \\(CE_c = 100 \sum_s E_{s,c} / \sum_s E^{AlexNet}_{s,c}\\)

    Args:
        errors (`Mapping`): From corruption and severity to the fraction of images classified wrongly, in [0, 1].

    Example:

    ```python
    >>> from hf_colearn.evaluation.corruption_error import corruption_errors

    >>> corruption_errors({("fog", severity): 0.409662 for severity in (1, 2, 3, 4, 5)})
    {'fog': 50.0}
    ```
    """
    whole = [name for name in ALEXNET_ERRORS if all((name, severity) in errors for severity in SEVERITIES)]
    return {
        name: 100 * sum(errors[name, severity] for severity in SEVERITIES) / (len(SEVERITIES) * ALEXNET_ERRORS[name])
        for name in whole
    }


def mean_corruption_error(errors: Mapping[Condition, float]) -> float:
    """The mCE, the mean of the 15 corruption errors, in percent; AlexNet has 100.

    Raises:
        ValueError: If a corruption or severity was not measured; it names them.
    """
    missing = [f"{name} {severity}" for name, severity in all_conditions() if (name, severity) not in errors]
    if missing:
        raise ValueError(
            f"an mCE needs 15 corruptions at 5 severities, {len(missing)} are missing: {', '.join(missing[:5])}"
            f"{', ...' if len(missing) > 5 else ''}. Add them, or report the corruption errors one by one."
        )
    by_corruption = corruption_errors(errors)
    return sum(by_corruption.values()) / len(by_corruption)
