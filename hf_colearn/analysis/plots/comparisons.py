"""Figures that compare arms by their scores: differences, changes by class, sweeps, shares of the modalities.

They take fractions, and refuse a value that is not finite. Every function returns a matplotlib `Figure`, written where `path`
is given, whose ending gives the format. Needs `pip install hf-colearn[report]`.
"""

from collections.abc import Mapping, Sequence
from os import PathLike
from typing import TYPE_CHECKING, Any

import numpy as np

from hf_colearn.analysis.plots.style import (
    BLACK,
    BLUE,
    CLASS_COLOURS,
    GREY,
    RED,
    ROW_NAME,
    ArmStyle,
    arm_styles,
    finish,
    finite,
    label_right,
    label_rows,
    new_figure,
    plain_axes,
    seeds,
)
from hf_colearn.analysis.statistics.compare import Comparison
from hf_colearn.analysis.statistics.estimates import hundredths, mean_estimate, score_limits
from hf_colearn.utils.metric_names import called, pp, with_unit


if TYPE_CHECKING:
    from matplotlib.figure import Figure

HATCHES = ["", "////", "....", "xxxx", "\\\\\\\\", "++++"]


def plot_differences(
    comparison: Comparison, styles: Mapping[str, ArmStyle] | None = None, path: str | PathLike | None = None
) -> "Figure":
    """Draws each arm's difference to the baseline: its mean with its interval, and every seed as a dot.

    Co-learned arms come first, null controls and references below, each in the order of the comparison. The grey band is
    the strongest null control's interval: what lies within it needs no teacher. By default, the styles are those of
    [`~hf_colearn.analysis.plots.style.arm_styles`].
    """
    styles = arm_styles({arm.name: arm.kind for arm in comparison.arms}) if styles is None else styles
    kinds = [kind for kind in ("colearned", "null", "reference") if any(a.kind == kind for a in comparison.arms)]
    arms = [arm for kind in kinds for arm in comparison.arms if arm.kind == kind]
    baseline = next(arm for arm in comparison.arms if arm.name == comparison.baseline)
    # A row each from the top down, and half a row between kinds.
    heights = -np.arange(len(arms)) - 0.5 * np.array([kinds.index(arm.kind) for arm in arms])
    row = 0.36 if any(len(arm.name) > ROW_NAME for arm in arms) else 0.3  # inches, for names of two lines or one
    figure, (axis,) = new_figure(height=1.25 + row * (np.ptp(heights) + 1.1))
    values = []
    for arm, y in zip(arms, heights, strict=True):
        style, gain = styles[arm.name], arm.to_baseline
        assert gain is not None  # only the baseline has none
        if gain.low is not None and gain.high is not None:
            axis.plot([100 * gain.low, 100 * gain.high], [y, y], color=style.colour, linewidth=2.2, zorder=3)
            if arm.name == comparison.strongest_null:
                axis.axvspan(100 * gain.low, 100 * gain.high, color="#D9D9D9", alpha=0.6, linewidth=0, zorder=0)
        by_seed = 100 * np.subtract(arm.scores, baseline.scores)
        if len(by_seed) > 1:
            axis.scatter(by_seed, np.full(len(by_seed), y - 0.27), s=7, color=style.colour, alpha=0.7, linewidths=0)
        axis.plot(100 * gain.mean, y, linestyle="none", markersize=7, zorder=4, **style.points)
        values.append((hundredths(gain.mean, "+"), y, style.colour if arm.kind == "colearned" else GREY))
    axis.axvline(0, color=BLACK, linewidth=1.2, zorder=2)
    label_rows(axis, heights, [arm.name for arm in arms])
    for label, arm in zip(axis.get_yticklabels(), arms, strict=True):
        label.set_color(BLACK if arm.kind == "colearned" else GREY)
    of_baseline = f"{100 * baseline.mean.mean:.2f}{' %' if with_unit(comparison.metric).endswith('[%]') else ''}"
    axis.set(xlabel=f"{called(comparison.metric)} minus baseline's {of_baseline} [{pp(comparison.metric)}]")
    axis.set_ylim(heights.min() - 0.6, heights.max() + 0.5)
    axis.margins(x=0.08)
    label_right(figure, axis, values)
    below = "1 seed: differences without intervals"
    if comparison.n_seeds > 1:
        judged = comparison.num_judged
        corrected = f" corrected for {judged} co-learned arms" if judged > 1 else ""
        seeds_as_dots = f"{comparison.n_seeds} seeds as dots"
        below = f"mean, {100 * comparison.confidence:.4g}% interval{corrected}, {seeds_as_dots}"
        if any(arm.to_baseline is not None and arm.to_baseline.by_seed for arm in arms):
            below += "; no bar where so few seeds settle nothing"
        null = next((arm.to_baseline for arm in arms if arm.name == comparison.strongest_null), None)
        if null is not None and null.low is not None:
            below += f"; grey: interval of the strongest null control, {comparison.strongest_null}"
    return finish(figure, f"Difference of each arm to '{comparison.baseline}'", below, path)


def plot_class_changes(
    names: Sequence[str],
    differences: Sequence[float] | np.ndarray,
    low: Sequence[float] | np.ndarray | None,
    high: Sequence[float] | np.ndarray | None,
    counts: Sequence[int] | np.ndarray,
    path: str | PathLike | None = None,
    *,
    what: str = "classes",
    score: str = "accuracy",
    arm: str | None = None,
    shown: int = 30,
) -> "Figure":
    """Draws the change of accuracy per class (or group, or of another score per label), the largest gain on top.

    Filled dots have an interval without 0. Of more than `shown`, the largest gains and losses are drawn, half of each.

    Args:
        names (`Sequence[str]`), counts (`Sequence[int]`, both of length C): Of the classes, and their test samples.
        differences, low, high (`Sequence[float]` of length C): Accuracy minus the baseline's, and the ends of the interval;
            NaN where there is no interval, and None for a single seed.
        what, score (`str`, *optional*, defaults to `"classes"` and `"accuracy"`): What the rows are, in the plural, and what
            changes.
        arm (`str`, *optional*): Whose changes these are, for the title.
        shown (`int`, *optional*, defaults to 30): Rows at most.

    Raises:
        `ValueError`: If lengths differ, or a difference is not finite.
    """
    changes = 100 * finite("differences", differences)
    ends = None if low is None or high is None else 100 * np.stack([np.asarray(x, dtype=float) for x in (low, high)])
    lengths = {len(names), len(changes), len(counts), *(() if ends is None else (ends.shape[1],))}
    if len(lengths) > 1 or not len(changes):
        raise ValueError(
            f"names, differences, intervals and counts must have one length above 0, got {sorted(lengths)}"
        )
    order, top = np.argsort(-changes, kind="stable"), -(-shown // 2)
    rest = order[top : len(order) - shown // 2] if len(order) > shown else order[:0]
    rows = order[~np.isin(order, rest)]
    heights = -np.arange(len(rows), dtype=float)
    if len(rest):
        heights[top:] -= 1.2  # a gap for those left out
    figure, (axis,) = new_figure(height=max(2.2, 1.15 + 0.19 * (np.ptp(heights) + 1)))
    for row, y in zip(rows, heights, strict=True):
        colour = BLUE if changes[row] > 0 else RED if changes[row] < 0 else GREY
        has_ends = ends is not None and bool(np.isfinite(ends[:, row]).all())
        sure = ends is not None and has_ends and not ends[0, row] <= 0 <= ends[1, row]
        if ends is not None and has_ends:
            axis.plot(ends[:, row], [y, y], color=colour, linewidth=1.4, alpha=1 if sure else 0.5, zorder=2)
        face = colour if sure else "white"
        axis.plot(changes[row], y, "o", color=colour, markerfacecolor=face, markersize=5, zorder=3)
    axis.axvline(0, color=BLACK, linewidth=1.0, zorder=1)
    numbers = [f" ({count:,})" for count in counts]
    widths = [ROW_NAME - len(number) for number in numbers]  # a row has one line
    short = [name if len(name) <= n else f"{name[: n - 1]}…" for name, n in zip(names, widths, strict=True)]
    label_rows(axis, heights, [short[row] + numbers[row] for row in rows], size=8)
    axis.set(xlabel=f"{score} minus the baseline's [percentage points]", ylim=(heights.min() - 0.7, 0.7))
    below = f"{len(changes)} {what} (test samples)"
    if len(rest):
        below = f"{len(rows)} of {below}"
        between = f"{len(rest)} more {what} from {changes[rest].min():+.1f} to {changes[rest].max():+.1f}"
        font: dict[str, Any] = {"ha": "center", "va": "center", "fontsize": 8, "color": GREY, "style": "italic"}
        box: dict[str, Any] = {"facecolor": "white", "edgecolor": "none", "pad": 1.0}
        axis.text(0.5, heights[top - 1] - 1.1, between, transform=axis.get_yaxis_transform(), bbox=box, **font)
    none = "1 seed" if ends is None else "no intervals of so few seeds"
    below += f"; {none if ends is None or not np.isfinite(ends).any() else 'filled: the interval excludes 0'}"
    return finish(figure, f"Change of {score}{f': {arm}' if arm else ''}", below, path)


def plot_sweep(
    levels: Sequence[float],
    scores: Sequence[Sequence[float]],
    baseline: Sequence[float],
    null: Sequence[float] | None = None,
    path: str | PathLike | None = None,
    *,
    variable: str = "share of mismatched pairs",
    metric: str = "accuracy",
) -> "Figure":
    """Draws a score over a share that was swept, with 95% t-intervals and seeds, the baseline and a null control as bands.

    Args:
        levels (`Sequence[float]` of length L), scores (`Sequence[Sequence[float]]` of shape `(L, seeds)`): In any order.
        baseline, null (`Sequence[float]`): Scores of the baseline and, optionally, of the strongest null control, by seed.
        variable, metric (`str`, *optional*): What was swept and what was scored.

    Raises:
        `ValueError`: If there are fewer than two levels, levels without scores, or a value that is not finite.
    """
    if len(set(levels)) != len(levels) or len(levels) < 2 or len(levels) != len(scores):
        raise ValueError(f"a sweep needs two different levels or more, and scores of each; got {list(levels)}")
    figure, (axis,) = new_figure()
    bands = {"baseline": baseline} | ({} if null is None else {"null control": null})
    styles = arm_styles({"baseline": "baseline", "null control": "null", "swept": "colearned"})
    limits = score_limits(metric, [score for values in (*bands.values(), *scores) for score in values])
    labels = []
    for name, values in bands.items():
        mean, low, high = 100 * _interval(name, values, limits)
        if len(values) > 1:
            axis.axhspan(low, high, color=styles[name].colour, alpha=0.1, linewidth=0, zorder=1)
        axis.axhline(mean, **styles[name].line | {"linewidth": 1.4, "zorder": 2})
        labels.append((name, mean, styles[name].colour))
    for level, values in zip(levels, scores, strict=True):
        beside = np.full(len(values), 100 * level + 1.2 * np.ptp(levels))
        axis.scatter(beside, 100 * np.asarray(values), s=9, color=RED, alpha=0.6, linewidths=0, zorder=3)
    order = np.argsort(levels)
    x_L = 100 * np.asarray(levels, dtype=float)[order]
    intervals = [_interval(f"the level {levels[i]:g}", scores[i], limits) for i in order]
    mean_L, low_L, high_L = 100 * np.array(intervals).T
    axis.plot(x_L, mean_L, **styles["swept"].line | styles["swept"].points | {"markersize": 5.5, "zorder": 5})
    many = min(map(len, scores)) > 1
    if many:
        axis.errorbar(x_L, mean_L, [mean_L - low_L, high_L - mean_L], fmt="none", color=RED, capsize=3, zorder=4)
    label_right(figure, axis, labels)
    axis.set(xlabel=f"{variable} [%]", ylabel=with_unit(metric), xticks=x_L)
    plain_axes(axis)
    below = seeds([len(values) for values in scores])
    below += ", mean and 95% interval" if many else ""
    words = called(metric)
    return finish(figure, f"{words[:1].upper()}{words[1:]} over the {variable}", below, path)


def plot_modality_shares(
    shares: Mapping[str, Mapping[str, Sequence[float]]],
    path: str | PathLike | None = None,
    *,
    metric: str = "accuracy",
) -> "Figure":
    """Draws what each modality contributes: its Shapley values as bars an arm, with 95% t-intervals over seeds.

    Args:
        shares (`Mapping[str, Mapping[str, Sequence[float]]]`): By arm and modality, the Shapley value in every seed; the same
            modalities in all arms.
        metric (`str`, *optional*, defaults to `"accuracy"`): Whose gain over chance is shared out.

    Raises:
        `ValueError`: If arms differ in their modalities, or a value is not finite.
    """
    modalities = list(next(iter(shares.values()))) if shares else []
    if not modalities or any(list(of_arm) != modalities for of_arm in shares.values()):
        raise ValueError(f"every arm needs a value of the same modalities, got {[list(v) for v in shares.values()]}")
    figure, (axis,) = new_figure(height=1.5 + len(shares) * (0.16 + 0.15 * len(modalities)))
    height = 0.8 / len(modalities)
    counts = []
    for j, modality in enumerate(modalities):
        bar: dict[str, Any] = {"color": CLASS_COLOURS[(3, 4, 1, 6, 8, 7)[j % 6]], "hatch": HATCHES[j % len(HATCHES)]}
        for i, (arm, of_arm) in enumerate(shares.items()):
            mean, low, high = 100 * _interval(f"{modality} of '{arm}'", of_arm[modality], (-1.0, 1.0))
            y = -i + 0.4 - height * (j + 0.5)
            label = modality if i == 0 else None
            axis.barh(y, mean, height * 0.92, label=label, edgecolor="white", linewidth=0, **bar)
            counts.append(len(of_arm[modality]))
            if counts[-1] > 1:
                axis.plot([low, high], [y, y], color=BLACK, linewidth=1.0)
    axis.axvline(0, color=BLACK, linewidth=1.0)
    label_rows(axis, -np.arange(len(shares)), list(shares))
    axis.set(xlabel=f"Shapley value [percentage points of {metric}]", ylim=(-len(shares) + 0.45, 0.55))
    figure.legend(loc="outside lower center", ncols=min(4, len(modalities)), frameon=False, fontsize=9)
    many = f"mean and 95% interval over {seeds(counts)}" if max(counts) > 1 else "1 seed"
    below = f"{many}; bars of an arm add up to its {metric} above chance"
    return finish(figure, "Contribution of each modality", below, path)


def _interval(what: str, values: Sequence[float], limits: tuple[float, float]) -> np.ndarray:
    """Mean and the ends of the 95% t-interval (3,) within `limits`; both ends are the mean where there is none."""
    array = finite(f"scores of {what}", values)
    if not len(array):
        raise ValueError(f"{what} has no scores")
    found = mean_estimate(array, 0.95, limits)
    return np.array([found.mean, *((found.mean, found.mean) if found.low is None else (found.low, found.high))])
