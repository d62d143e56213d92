"""What was measured on ImageNet's variants: counts, intervals, corruption errors, caveats, and the table of them.

The mean corruption error of ImageNet-C is that of Hendrycks & Dietterich, "Benchmarking Neural Network Robustness to Common
Corruptions and Perturbations", ICLR 2019: errors at five severities, divided by AlexNet's.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy.stats import binomtest

from hf_colearn.evaluation.corruptions import SEVERITIES, Condition, all_conditions
from hf_colearn.utils.tables import text_table


# By corruption, averaged over the five severities; from the released code of the paper.
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
    r"""The corruption error in percent of every corruption of which all five severities were measured.

    \\(CE_c = 100 \sum_s E_{s,c} / \sum_s E^{AlexNet}_{s,c}\\), of the fractions E of images classified wrongly, in [0, 1].
    """
    return {
        name: 100 * sum(errors[name, severity] for severity in SEVERITIES) / (len(SEVERITIES) * of_alexnet)
        for name, of_alexnet in ALEXNET_ERRORS.items()
        if all((name, severity) in errors for severity in SEVERITIES)
    }


def mean_corruption_error(errors: Mapping[Condition, float]) -> float:
    """The mCE, the mean of the 15 corruption errors, in percent; AlexNet has 100. It names what was not measured."""
    missing = [f"{name} {severity}" for name, severity in all_conditions() if (name, severity) not in errors]
    if missing:
        raise ValueError(
            f"an mCE needs 15 corruptions at 5 severities, {len(missing)} are missing: {', '.join(missing[:5])}"
            f"{', ...' if len(missing) > 5 else ''}. Add them, or report the corruption errors one by one."
        )
    by_corruption = corruption_errors(errors)
    return sum(by_corruption.values()) / len(by_corruption)


@dataclass(frozen=True)
class RobustnessResult:
    """What was counted on one dataset: images classified, correctly, among how many classes, and left out."""

    title: str
    samples: int
    correct: int
    classes: int
    skipped: int = 0
    bad_samples: tuple[str, ...] = ()  # the first that were left out, and why
    whole: int | None = None  # images that the whole set has
    is_first_look: bool = False  # `max_samples` was given
    notes: tuple[str, ...] = ()

    @property
    def accuracy(self) -> float:
        """The fraction classified correctly, in [0, 1]."""
        return self.correct / self.samples

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson's 95% interval of the accuracy, over images, not over training seeds."""
        interval = binomtest(self.correct, self.samples).proportion_ci(method="wilson")
        return float(interval.low), float(interval.high)

    @property
    def caveat(self) -> str | None:
        """Why this is no benchmark number, where it is none."""
        if self.samples == self.whole or (self.whole is None and not self.is_first_look and not self.skipped):
            return None
        parts = [f"{self.samples:,} images" if self.whole is None else f"{self.samples:,} of {self.whole:,} images"]
        parts += ["a first look (max_samples)"] if self.is_first_look else []
        parts += [f"{self.skipped} could not be read, such as {self.bad_samples[0]}"] if self.skipped else []
        return f"{self.title}: {', '.join(parts)}; not a benchmark number."

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain values, for JSON."""
        properties = {"accuracy": self.accuracy, "interval_95": self.interval, "caveat": self.caveat}
        return asdict(self) | properties


@dataclass(frozen=True)
class CorruptionResult:
    """ImageNet-C: a result a corruption and severity, and where the images came from."""

    conditions: dict[Condition, RobustnessResult]
    source: str

    @property
    def errors(self) -> dict[Condition, float]:
        """The fraction classified wrongly, by corruption and severity."""
        return {condition: 1 - result.accuracy for condition, result in self.conditions.items()}

    @property
    def mean_error(self) -> float:
        """The unnormalised mean of the errors, in [0, 1]."""
        return float(np.mean(list(self.errors.values())))

    @property
    def mce(self) -> float | None:
        """The mean corruption error in percent of AlexNet's; none unless all 75 conditions were measured."""
        return mean_corruption_error(self.errors) if set(self.errors) == set(all_conditions()) else None

    @property
    def caveat(self) -> str | None:
        """Why this is no benchmark number, where it is none."""
        if self.mce is None:
            return f"ImageNet-C: {len(self.conditions)} of 75 conditions, so no mCE; not a benchmark number."
        return next((result.caveat for result in self.conditions.values() if result.caveat), None)

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain values, for JSON."""
        by_name: dict[str, dict[str, Any]] = {}
        for (name, severity), result in self.conditions.items():
            by_name.setdefault(name, {"severities": {}})["severities"][severity] = result.to_dict()
        for name, error in corruption_errors(self.errors).items():
            by_name[name]["corruption_error"] = error
        figures = {"mce": self.mce, "mean_error": self.mean_error, "corruptions": by_name, "caveat": self.caveat}
        return {"title": "ImageNet-C", "source": self.source, **figures}


def table(results: Mapping[str, RobustnessResult | CorruptionResult]) -> str:
    """The results as plain text, in percent; `*` marks what is no benchmark number, and notes say why."""
    plain = [result for result in results.values() if isinstance(result, RobustnessResult)]
    blocks = []
    if plain:
        rows = [["set", "images", "classes", "accuracy [%]", "95% interval"]]
        for result in plain:
            low, high = result.interval
            name = result.title + (" *" if result.caveat else "")
            accuracy, interval = f"{100 * result.accuracy:.2f}", f"[{100 * low:.2f}, {100 * high:.2f}]"
            rows.append([name, f"{result.samples:,}", str(result.classes), accuracy, interval])
        blocks.append(text_table(rows))
    blocks += [_corruption_block(result) for result in results.values() if isinstance(result, CorruptionResult)]
    return "\n\n".join([*blocks, "\n".join(_footnotes(results))])


def _corruption_block(result: CorruptionResult) -> str:
    errors, normalised = result.errors, corruption_errors(result.errors)
    rows = [["corruption", *(f"severity {severity}" for severity in SEVERITIES), "error [%]", "CE [%]"]]
    for name in dict.fromkeys(name for name, _ in errors):
        own = [errors.get((name, severity)) for severity in SEVERITIES]
        mean = np.mean([error for error in own if error is not None])
        cells = ["-" if error is None else f"{100 * error:.1f}" for error in own]
        rows.append([name, *cells, f"{100 * mean:.1f}", f"{normalised[name]:.1f}" if name in normalised else "-"])
    mce = "no mCE" if result.mce is None else f"mCE {result.mce:.2f} %"
    images = max(condition.samples for condition in result.conditions.values())
    star = " *" if result.caveat else ""
    title = f"ImageNet-C{star} ({result.source}, {images:,} images a condition)"
    return f"{title}: {mce}, mean error {100 * result.mean_error:.2f} %; errors in percent:\n{text_table(rows)}"


def _footnotes(results: Mapping[str, RobustnessResult | CorruptionResult]) -> list[str]:
    lines = [f"* {result.caveat}" for result in results.values() if result.caveat]
    for measured in results.values():
        parts = [measured] if isinstance(measured, RobustnessResult) else list(measured.conditions.values())
        lines += [f"{part.title}: {note}." for part in parts for note in part.notes]
    intervals = "Brackets are Wilson's 95% intervals over images, not over training seeds."
    return [*dict.fromkeys(lines), intervals]
