"""What came out, in pictures of one panel each: differences, calibration, transport, sweeps, modalities.

They take plain values (fractions, latent units), and draw what they are given: a value that is not finite is refused.
Every function returns a matplotlib `Figure`, and writes it where `path` is given. Needs `pip install hf-colearn[report]`.
"""

from collections.abc import Mapping, Sequence
from os import PathLike
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.stats import ttest_1samp

from hf_colearn.analysis.plots.style import (
    BLACK,
    BLUE,
    CLASS_COLOURS,
    GREY,
    PANEL,
    RED,
    ROW_NAME,
    ArmStyle,
    arm_styles,
    bare,
    finite,
    name_rows,
    new_figure,
    save,
    seeds,
    spread,
    title,
)
from hf_colearn.analysis.statistics.calibration import Reliability
from hf_colearn.analysis.statistics.compare import Comparison


if TYPE_CHECKING:
    from matplotlib.figure import Figure

BAND = "#D9D9D9"
FEW = 10  # samples of a bin whose accuracy says little
HATCHES = ["", "////", "....", "xxxx", "\\\\\\\\", "++++"]


def plot_differences(
    comparison: Comparison, styles: Mapping[str, ArmStyle] | None = None, path: str | PathLike | None = None
) -> "Figure":
    """Draws each arm's difference to the baseline: its mean with its interval, and every seed as a dot.

    Co-learned arms come first, null controls and references below, each in the order of the comparison. The grey band is
    the strongest null control's interval: what lies within it needs no teacher.

    Args:
        comparison ([`~hf_colearn.analysis.statistics.compare.Comparison`]):
            What [`~hf_colearn.analysis.statistics.compare.compare`] found.
        styles (`Mapping[str, ArmStyle]`, *optional*):
            As of [`~hf_colearn.analysis.plots.style.arm_styles`], which is the default.
        path (`str` or `PathLike`, *optional*):
            Where to write the picture; the ending gives the format.

    Raises:
        `ImportError`: If matplotlib is missing.
    """
    styles = arm_styles({arm.name: arm.kind for arm in comparison.arms}) if styles is None else styles
    kinds = [kind for kind in ("colearned", "null", "reference") if any(a.kind == kind for a in comparison.arms)]
    arms = [arm for kind in kinds for arm in comparison.arms if arm.kind == kind]
    baseline = next(arm for arm in comparison.arms if arm.name == comparison.baseline)
    # A row each from the top down, and half a row between kinds.
    heights = -np.arange(len(arms)) - 0.5 * np.array([kinds.index(arm.kind) for arm in arms])
    row = 0.36 if any(len(arm.name) > ROW_NAME for arm in arms) else 0.3  # inches, for names of two lines or one
    figure = new_figure(PANEL[0], 1.25 + row * (np.ptp(heights) + 1.1))
    axis = figure.subplots()
    for arm, y in zip(arms, heights, strict=True):
        style, gain = styles[arm.name], arm.to_baseline
        assert gain is not None  # only the baseline has none
        if gain.low is not None and gain.high is not None:
            axis.plot([100 * gain.low, 100 * gain.high], [y, y], color=style.colour, linewidth=2.2, zorder=3)
            if arm.name == comparison.strongest_null:
                axis.axvspan(100 * gain.low, 100 * gain.high, color=BAND, alpha=0.6, linewidth=0, zorder=0)
        by_seed = 100 * np.subtract(arm.scores, baseline.scores)
        if len(by_seed) > 1:
            axis.scatter(by_seed, np.full(len(by_seed), y - 0.27), s=7, color=style.colour, alpha=0.7, linewidths=0)
        axis.plot(100 * gain.mean, y, linestyle="none", markersize=7, zorder=4, **style.points)
        axis.annotate(
            f"{round(100 * gain.mean, 2) + 0.0:+.2f}", (1.02, y), xycoords=("axes fraction", "data"), va="center",
            fontsize=8.5, color=style.colour if arm.kind == "colearned" else GREY,
        )  # fmt: skip
    axis.axvline(0, color=BLACK, linewidth=1.2, zorder=2)
    name_rows(axis, heights, [arm.name for arm in arms])
    for label, arm in zip(axis.get_yticklabels(), arms, strict=True):
        label.set_color(BLACK if arm.kind == "colearned" else GREY)
    axis.set(xlabel=f"{comparison.metric} minus baseline's {100 * baseline.mean.mean:.2f} % [percentage points]")
    axis.set_ylim(heights.min() - 0.6, heights.max() + 0.5)
    axis.margins(x=0.08)
    if comparison.n_seeds == 1:
        below = "1 seed: differences without intervals"
    else:
        judged = sum(arm.kind == "colearned" for arm in arms)
        corrected = f" corrected for {judged} co-learned arms" if judged > 1 else ""
        below = f"mean, {100 * comparison.confidence:.4g}% interval{corrected}, {comparison.n_seeds} seeds as dots"
        if comparison.strongest_null is not None:
            below += f"; grey: interval of the strongest null control, {comparison.strongest_null}"
    title(figure, f"What each arm adds to '{comparison.baseline}'", below)
    return save(figure, path)


def plot_class_changes(
    names: Sequence[str],
    differences: Sequence[float] | np.ndarray,
    low: Sequence[float] | np.ndarray | None,
    high: Sequence[float] | np.ndarray | None,
    counts: Sequence[int] | np.ndarray,
    path: str | PathLike | None = None,
    *,
    heading: str = "Who gained and who lost",
    what: str = "classes",
    shown: int = 30,
) -> "Figure":
    """Draws the change of accuracy per class (or group), the largest gain on top.

    Filled dots have an interval without 0. Of more than `shown`, the largest gains and losses are drawn, half of each.

    Args:
        names (`Sequence[str]` of length C):
            Of the classes.
        differences, low, high (`Sequence[float]` of length C):
            Accuracy minus the baseline's, as fractions, and the ends of the interval; `None` for a single seed.
        counts (`Sequence[int]` of length C):
            Test samples of each class.
        path (`str` or `PathLike`, *optional*):
            Where to write the picture.
        heading, what (`str`, *optional*):
            The title, and what the rows are, in the plural.
        shown (`int`, *optional*, defaults to 30):
            Rows at most.

    Raises:
        `ImportError`: If matplotlib is missing.
        `ValueError`: If lengths differ, or a value is not finite.
    """
    changes = 100 * finite("differences", differences)
    ends = None if low is None or high is None else 100 * np.stack([finite("low", low), finite("high", high)])
    lengths = {len(names), len(changes), len(counts), *(() if ends is None else (ends.shape[1],))}
    if len(lengths) > 1 or not len(changes):
        raise ValueError(
            f"names, differences, intervals and counts must have one length above 0, got {sorted(lengths)}"
        )
    order = np.argsort(-changes, kind="stable")
    rows = order if len(order) <= shown else np.concatenate([order[: -(-shown // 2)], order[-(shown // 2) :]])
    heights = -np.arange(len(rows), dtype=float)
    if len(rows) < len(order):
        heights[-(shown // 2) :] -= 1.2  # a gap for those left out
    figure = new_figure(PANEL[0], max(2.2, 1.15 + 0.19 * (np.ptp(heights) + 1)))
    axis = figure.subplots()
    for row, y in zip(rows, heights, strict=True):
        colour = BLUE if changes[row] > 0 else RED if changes[row] < 0 else GREY
        sure = ends is not None and not ends[0, row] <= 0 <= ends[1, row]
        if ends is not None:
            axis.plot(ends[:, row], [y, y], color=colour, linewidth=1.4, alpha=1 if sure else 0.5, zorder=2)
        face = colour if sure else "white"
        axis.plot(changes[row], y, "o", color=colour, markerfacecolor=face, markersize=5, zorder=3)
    axis.axvline(0, color=BLACK, linewidth=1.0, zorder=1)
    name_rows(axis, heights, [f"{_short(names[row])} ({counts[row]:,})" for row in rows], size=8)
    axis.set(xlabel="accuracy minus the baseline's [percentage points]", ylim=(heights.min() - 0.7, 0.7))
    below = f"{len(changes)} {what} (test samples)"
    if len(rows) < len(order):
        rest = changes[order[-(-shown // 2) : -(shown // 2)]]
        inner = f"{len(rest)} more {what} from {rest.min():+.1f} to {rest.max():+.1f}"
        middle = (heights[-(-shown // 2) - 1] + heights[-(shown // 2)]) / 2
        box: dict[str, Any] = {"facecolor": "white", "edgecolor": "none", "pad": 1.0}
        look: dict[str, Any] = {
            "ha": "center",
            "va": "center",
            "fontsize": 8,
            "color": GREY,
            "style": "italic",
            "bbox": box,
        }
        axis.text(0.5, middle, inner, transform=axis.get_yaxis_transform(), **look)
        below = f"{len(rows)} of {below}"
    title(figure, heading, f"{below}; filled: the interval excludes 0" if ends is not None else f"{below}; 1 seed")
    return save(figure, path)


def plot_reliability(
    curves: Mapping[str, Reliability], styles: Mapping[str, ArmStyle], path: str | PathLike | None = None
) -> "Figure":
    """Draws how often predictions of a confidence are right; the larger a marker, the more samples are in its bin.

    Bins of fewer than 10 samples are faint, and no line goes through them.

    Args:
        curves (`Mapping[str, Reliability]`):
            By arm, as [`~hf_colearn.analysis.statistics.calibration.reliability`] gives it. A single arm's bins have their number
            of samples beside them.
        styles (`Mapping[str, ArmStyle]`):
            As of [`~hf_colearn.analysis.plots.style.arm_styles`].
        path (`str` or `PathLike`, *optional*):
            Where to write the picture.

    Raises:
        `ImportError`: If matplotlib is missing.
        `ValueError`: If there is no arm.
    """
    if not curves:
        raise ValueError("there is no arm whose calibration could be drawn")
    figure = new_figure(*PANEL)
    axis = figure.subplots()
    axis.plot([0, 1], [0, 1], color="0.6", linewidth=1, zorder=1)
    small: dict[str, Any] = {"fontsize": 8, "color": GREY}
    for arm, curve in curves.items():
        style = styles[arm]
        many = [of_bin for of_bin in curve.bins if of_bin.count >= FEW]
        axis.plot(
            [of_bin.confidence for of_bin in many],
            [of_bin.accuracy for of_bin in many],
            **style.line | {"linewidth": 1.3},
        )
        for of_bin in curve.bins:
            at, size = (of_bin.confidence, of_bin.accuracy), 12 + 250 * of_bin.count / curve.count
            look: dict[str, Any] = {"marker": style.marker, "edgecolor": style.colour, "zorder": style.layer + 1}
            look |= {"alpha": 0.85 if of_bin.count >= FEW else 0.3}
            axis.scatter(*at, s=size, facecolor=style.colour if style.filled else "white", **look)
            if len(curves) == 1:
                axis.annotate(f"{of_bin.count:,}", at, (6, -6), textcoords="offset points", va="top", **small)
    axis.text(0.03, 0.96, "right more often\nthan it believes", va="top", style="italic", **small)
    axis.text(1.03, 0.0, "surer than right", ha="right", style="italic", **small)
    axis.set(xlabel="confidence of the prediction", ylabel="share that is right", xlim=(0, 1.06), ylim=(-0.03, 1.05))
    bare(axis)
    counts = sorted({curve.count for curve in curves.values()})
    samples = f"{counts[0]:,}" if len(counts) == 1 else f"{counts[0]:,} to {counts[-1]:,}"
    below = f"{samples} predictions an arm; a larger marker holds more of them, a faint one fewer than {FEW}"
    title(figure, "Is it as sure as it is right?", below)
    return save(figure, path)


def plot_sweep(
    levels: Sequence[float],
    scores: Sequence[Sequence[float]],
    baseline: Sequence[float],
    null: Sequence[float] | None = None,
    path: str | PathLike | None = None,
    *,
    variable: str = "share of mismatched pairs",
    metric: str = "accuracy",
    confidence: float = 0.95,
) -> "Figure":
    """Draws a score over a share that was swept, with t-intervals and seeds, the baseline and a null control as bands.

    Args:
        levels (`Sequence[float]` of length L):
            As fractions, in any order.
        scores (`Sequence[Sequence[float]]` of shape `(L, seeds)`):
            As fractions, by seed.
        baseline (`Sequence[float]`):
            Scores of the baseline, by seed.
        null (`Sequence[float]`, *optional*):
            Scores of the strongest null control, by seed.
        path (`str` or `PathLike`, *optional*):
            Where to write the picture.
        variable, metric (`str`, *optional*):
            What was swept and what was scored.
        confidence (`float`, *optional*, defaults to 0.95):
            Of the intervals.

    Raises:
        `ImportError`: If matplotlib is missing.
        `ValueError`: If there are fewer than two levels, levels without scores, or a value that is not finite.
    """
    if len(set(levels)) != len(levels) or len(levels) < 2 or len(levels) != len(scores):
        raise ValueError(f"a sweep needs two different levels or more, and scores of each; got {list(levels)}")
    figure = new_figure(*PANEL)
    axis = figure.subplots()
    bands: list[tuple[str, Sequence[float], ArmStyle]] = [("baseline", baseline, arm_styles({"": "baseline"})[""])]
    if null is not None:
        bands.append(("null control", null, arm_styles({"": "null"})[""]))
    for name, values, style in bands:
        mean, low, high = 100 * _interval(name, values, confidence)
        if len(values) > 1:
            axis.axhspan(low, high, color=style.colour, alpha=0.1, linewidth=0, zorder=1)
        axis.axhline(mean, **style.line | {"linewidth": 1.4, "zorder": 2})
    for level, values in zip(levels, scores, strict=True):
        jitter = 0.012 * np.ptp(levels) * 100
        axis.scatter(np.full(len(values), 100 * level) + jitter, 100 * np.asarray(values), s=9, color=RED, alpha=0.6,
                     linewidths=0, zorder=3)  # fmt: skip
    order = np.argsort(levels)
    x = 100 * np.asarray(levels, dtype=float)[order]
    mean_L, low_L, high_L = (
        100 * np.array([_interval(f"the level {levels[i]:g}", scores[i], confidence) for i in order]).T
    )
    axis.plot(x, mean_L, "s-", color=RED, linewidth=1.8, markersize=5.5, zorder=5)
    if min(map(len, scores)) > 1:
        axis.errorbar(x, mean_L, [mean_L - low_L, high_L - mean_L], fmt="none", color=RED, capsize=3, zorder=4)
    heights = spread([100 * float(np.mean(values)) for _, values, _ in bands], 0.07 * np.ptp(axis.get_ylim()))
    for (name, _, style), at in zip(bands, heights, strict=True):
        axis.annotate(
            name, (1.01, at), xycoords=("axes fraction", "data"), va="center", fontsize=8.5, color=style.colour
        )
    axis.set(xlabel=f"{variable} [%]", ylabel=f"{metric} [%]", xticks=x)
    bare(axis)
    many = min(map(len, scores)) > 1
    told = (
        f"{seeds([len(values) for values in scores])}{f', mean and {100 * confidence:.4g}% interval' if many else ''}"
    )
    title(figure, f"{metric[:1].upper()}{metric[1:]} over the {variable}", told)
    return save(figure, path)


def plot_modality_shares(
    shares: Mapping[str, Mapping[str, Sequence[float]]],
    path: str | PathLike | None = None,
    *,
    metric: str = "accuracy",
    confidence: float = 0.95,
) -> "Figure":
    """Draws what each modality contributes: its Shapley values as bars an arm, with t-intervals over seeds.

    Args:
        shares (`Mapping[str, Mapping[str, Sequence[float]]]`):
            For each arm and each modality the Shapley value in every seed, as a fraction; the same modalities in all arms.
        path (`str` or `PathLike`, *optional*):
            Where to write the picture.
        metric (`str`, *optional*):
            Whose gain over chance is shared out.
        confidence (`float`, *optional*, defaults to 0.95):
            Of the intervals.

    Raises:
        `ImportError`: If matplotlib is missing.
        `ValueError`: If arms differ in their modalities, or a value is not finite.
    """
    modalities = list(next(iter(shares.values()))) if shares else []
    if not modalities or any(list(of_arm) != modalities for of_arm in shares.values()):
        raise ValueError(f"every arm needs a value of the same modalities, got {[list(v) for v in shares.values()]}")
    figure = new_figure(PANEL[0], 1.5 + len(shares) * (0.16 + 0.15 * len(modalities)))
    axis = figure.subplots()
    height = 0.8 / len(modalities)
    counts = []
    for j, modality in enumerate(modalities):
        colour, hatch = CLASS_COLOURS[(3, 4, 1, 6, 8, 7)[j % 6]], HATCHES[j % len(HATCHES)]
        for i, (arm, of_arm) in enumerate(shares.items()):
            mean, low, high = 100 * _interval(f"{modality} of '{arm}'", of_arm[modality], confidence)
            y = -i + 0.4 - height * (j + 0.5)
            look: dict[str, Any] = {"color": colour, "hatch": hatch, "edgecolor": "white", "linewidth": 0}
            axis.barh(y, mean, height * 0.92, label=modality if i == 0 else None, **look)
            counts.append(len(of_arm[modality]))
            if counts[-1] > 1:
                axis.plot([low, high], [y, y], color=BLACK, linewidth=1.0)
    axis.axvline(0, color=BLACK, linewidth=1.0)
    name_rows(axis, -np.arange(len(shares)), list(shares))
    axis.set(xlabel=f"Shapley value [percentage points of {metric}]", ylim=(-len(shares) + 0.45, 0.55))
    figure.legend(loc="outside lower center", ncols=min(4, len(modalities)), frameon=False, fontsize=9)
    told = f"mean and {100 * confidence:.4g}% interval over {seeds(counts)}" if max(counts) > 1 else "1 seed"
    title(figure, "What each modality contributes", f"{told}; bars of an arm add up to its {metric} above chance")
    return save(figure, path)


def _short(name: str) -> str:
    return name if len(name) <= 18 else f"{name[:17]}…"


def _interval(what: str, values: Sequence[float], confidence: float) -> np.ndarray:
    """Mean and the ends of the t-interval (3,); both ends are the mean for one value."""
    array = finite(f"scores of {what}", values)
    if not len(array):
        raise ValueError(f"{what} has no scores")
    if len(array) == 1 or np.ptp(array) == 0:
        return np.full(3, array.mean())
    low, high = ttest_1samp(array, 0).confidence_interval(confidence)
    return np.array([array.mean(), low, high])
