import hf_colearn  # noqa: F401, I001  # first: its guard makes `import evaluate` work beside a CPU torch

import numpy as np
import pytest
from matplotlib.patches import Rectangle
from scipy.stats import t as student_t

from hf_colearn.analysis.statistics.calibration import reliability
from hf_colearn.analysis.statistics.compare import Arm, compare, compare_levels
from hf_colearn.analysis.statistics.levels import LevelComparisons
from hf_colearn.analysis.plots.budget import plot_budget
from hf_colearn.analysis.plots.calibration import plot_reliability
from hf_colearn.analysis.plots.comparisons import (
    plot_class_changes,
    plot_differences,
    plot_modality_shares,
    plot_sweep,
)
from hf_colearn.analysis.plots.predictions import plot_predictions
from hf_colearn.analysis.plots.style import arm_styles
from hf_colearn.analysis.plots.triangle import plot_transport


def words(figure):
    """The title and the line below it, unwrapped."""
    return " ".join(text.get_text() for text in figure.texts).replace("\n", " ")


def rows(axis):
    """Names of the rows by their height."""
    names = [label.get_text().replace("\n", " ") for label in axis.get_yticklabels()]
    return dict(zip(axis.get_yticks(), names, strict=True))


def misplaced(figure):
    """Words that do not lie within the figure, or lie over other words."""
    figure.draw_without_rendering()
    texts = [*figure.texts, *(text for legend in figure.legends for text in legend.texts)]
    for axis in figure.axes if figure.axes[0].axison else ():
        for side, limits in ((axis.xaxis, axis.get_xlim()), (axis.yaxis, axis.get_ylim())):
            texts += [tick.label1 for tick in side.get_major_ticks() if limits[0] <= tick.get_loc() <= limits[1]]
            texts.append(side.label)
    texts = [text for text in [*texts, *figure.axes[0].texts] if text.get_text()]
    boxes = [text.get_window_extent() for text in texts]
    width, height = figure.bbox.size
    found = []
    for i, (text, box) in enumerate(zip(texts, boxes, strict=True)):
        if box.x0 < 0 or box.y0 < 0 or box.x1 > width or box.y1 > height:
            found.append(text.get_text())
        for other, over in zip(texts[:i], boxes[:i], strict=True):
            if min(box.x1, over.x1) - max(box.x0, over.x0) > 1 and min(box.y1, over.y1) - max(box.y0, over.y0) > 1:
                found.append((text.get_text(), other.get_text()))
    return found


# ---- differences ----

SCORES = {
    ("baseline", "baseline"): [0.80, 0.82, 0.84],
    ("random vectors", "null"): [0.80, 0.83, 0.84],
    ("true pairing + noise 0.0316", "colearned"): [0.84, 0.85, 0.89],
    ("class vectors", "null"): [0.79, 0.81, 0.84],
    ("audio alone", "reference"): [0.60, 0.62, 0.65],
}


def compared(n=3, without=()):
    return compare([Arm(*arm, scores[:n]) for arm, scores in SCORES.items() if arm[1] not in without])


def test_rows_go_from_colearned_to_null_to_reference():
    figure = plot_differences(compared())
    named = rows(figure.axes[0])
    assert [named[y] for y in sorted(named, reverse=True)] == [
        "true pairing + noise 0.0316",
        "random vectors",
        "class vectors",
        "audio alone",
    ]
    assert misplaced(figure) == []


def test_a_row_is_the_difference_with_its_interval_and_a_dot_a_seed():
    axis = plot_differences(compared()).axes[0]
    (height,) = (y for y, name in rows(axis).items() if name.startswith("true pairing"))
    interval, mean = (line for line in axis.lines if set(line.get_ydata()) == {height})
    # differences of 4, 3, 5 points: mean 4, standard deviation 1, t-interval with 2 degrees of freedom
    half = student_t.ppf(0.975, 2) / 3**0.5
    assert interval.get_xdata() == pytest.approx([4 - half, 4 + half])
    assert mean.get_xdata() == pytest.approx([4])
    dots = [points.get_offsets() for points in axis.collections if abs(points.get_offsets()[0][1] - height) < 0.4]
    assert np.asarray(dots[0])[:, 0] == pytest.approx([4, 3, 5])
    assert "+4.00" in [text.get_text() for text in axis.texts]
    assert "82.00 %" in axis.get_xlabel()


def test_the_band_is_the_interval_of_the_strongest_null_control():
    figure = plot_differences(compared())
    (band,) = (patch for patch in figure.axes[0].patches if isinstance(patch, Rectangle))
    # 'random vectors', differences 0, 1, 0: mean 1/3, standard deviation 1/sqrt(3)
    half = student_t.ppf(0.975, 2) / 3
    assert (band.get_x(), band.get_x() + band.get_width()) == pytest.approx((1 / 3 - half, 1 / 3 + half))
    assert "strongest null control, random vectors" in words(figure) and "3 seeds" in words(figure)
    without = plot_differences(compared(without=("null",)))
    assert not without.axes[0].patches and "null" not in words(without)


def test_one_seed_has_neither_interval_nor_band():
    figure = plot_differences(compared(1))
    assert "1 seed: differences without intervals" in words(figure)
    assert not figure.axes[0].patches
    assert all(len(line.get_xdata()) == 1 for line in figure.axes[0].lines[:-1])


def test_twelve_arms_with_long_names_find_room(tmp_path):
    rng = np.random.default_rng(0)
    kinds = ["baseline", *["colearned"] * 5, *["null"] * 4, *["reference"] * 2]
    arms = [
        Arm(
            f"a pairing with {i} in a long name" + i // 11 * " that does not end where it should",
            k,
            list(rng.uniform(0.5, 0.6, 5)),
        )
        for i, k in enumerate(kinds)
    ]
    figure = plot_differences(compare(arms), path=tmp_path / "a.svg")
    assert len(rows(figure.axes[0])) == 11
    assert misplaced(figure) == []
    assert (tmp_path / "a.svg").read_text().startswith("<?xml")


# ---- classes ----


def test_classes_are_sorted_and_a_sure_change_is_filled():
    figure = plot_class_changes(
        ["cat", "dog", "cow"], [0.01, -0.1, 0.2], [-0.1, -0.2, 0.1], [0.12, -0.01, 0.3], [9, 8, 1200]
    )
    axis = figure.axes[0]
    named = rows(axis)
    assert [named[y] for y in sorted(named, reverse=True)] == ["cow (1,200)", "cat (9)", "dog (8)"]
    points = {named[line.get_ydata()[0]]: line for line in axis.lines if line.get_marker() == "o"}
    assert points["dog (8)"].get_xdata() == pytest.approx([-10])
    filled = {name: line.get_markerfacecolor() != "white" for name, line in points.items()}
    assert filled == {"cow (1,200)": True, "cat (9)": False, "dog (8)": True}
    assert "3 classes" in words(figure)
    assert misplaced(figure) == []


def test_of_many_classes_the_ends_are_shown_and_the_rest_is_counted():
    differences = np.arange(-50, 50) / 100
    names = [f"a class with a long name {i}" for i in range(100)]
    figure = plot_class_changes(
        names, differences, differences - 0.1, differences + 0.1, 300 * np.arange(100), shown=10
    )
    axis = figure.axes[0]
    drawn = sorted(line.get_xdata()[0] for line in axis.lines if line.get_marker() == "o")
    assert drawn == pytest.approx([-50, -49, -48, -47, -46, 45, 46, 47, 48, 49])
    assert [text.get_text() for text in axis.texts] == ["90 more classes from -45.0 to +44.0"]
    assert "10 of 100 classes" in words(figure)
    assert misplaced(figure) == []


def test_class_changes_without_intervals_or_with_bad_values():
    figure = plot_class_changes(["a", "b"], [0.1, -0.1], None, None, [5, 5], what="speakers")
    assert "2 speakers (test samples); 1 seed" in words(figure)
    with pytest.raises(ValueError, match="1 of 2 differences are not finite"):
        plot_class_changes(["a", "b"], [0.1, np.nan], None, None, [5, 5])
    with pytest.raises(ValueError, match=r"must have one length above 0, got \[1, 2\]"):
        plot_class_changes(["a"], [0.1, 0.2], None, None, [5, 5])


# ---- calibration ----


def test_reliability_shows_bins_by_their_size_and_draws_no_line_through_small_ones():
    # bins of [0, 1/2], (1/2, 1]: 4 samples at 0.4, half right; 12 at 0.9, 9 right
    curve = reliability([0.4] * 4 + [0.9] * 12, [1, 1, 0, 0] + [1] * 9 + [0] * 3, bins=2)
    figure = plot_reliability({"base": curve}, arm_styles({"base": "baseline"}))
    axis = figure.axes[0]
    points = [points.get_offsets()[0].tolist() for points in axis.collections]
    assert points == [pytest.approx([0.4, 0.5]), pytest.approx([0.9, 0.75])]
    small, large = axis.collections
    assert small.get_alpha() < large.get_alpha() and small.get_sizes()[0] < large.get_sizes()[0]
    diagonal, line = axis.lines
    assert diagonal.get_xydata().tolist() == [[0, 0], [1, 1]]
    assert line.get_xydata().tolist() == [pytest.approx([0.9, 0.75])]
    assert {"4", "12"} <= {text.get_text() for text in axis.texts}
    assert "16 predictions an arm" in words(figure)
    with pytest.raises(ValueError, match="no arm"):
        plot_reliability({}, {})


# ---- transport ----


@pytest.mark.parametrize(
    "sides", [(12.0, 9.0, 7.0), (20.0, 19.4, 3.1), (19.4, 20.0, 1.2), (10.0, 4.0, 6.0), (5.0, 5.0, 5.0)]
)
def test_a_triangle_is_to_scale_on_the_page(sides):
    figure = plot_transport(*sides, below="test, 899 samples")
    assert misplaced(figure) == []
    axis = figure.axes[0]
    corners = axis.transData.transform([line.get_xydata()[0] for line in axis.lines if len(line.get_xdata()) == 1])
    targets, baseline, colearned = corners
    drawn = [np.linalg.norm(a - b) for a, b in ((targets, baseline), (targets, colearned), (baseline, colearned))]
    assert np.divide(drawn, drawn[0]) == pytest.approx(np.divide(sides, sides[0]), rel=1e-3)
    assert {f"{side:.3g}" for side in sides} <= {text.get_text() for text in axis.texts}
    assert "drawn to scale" in words(figure) and "test, 899 samples" in words(figure)


@pytest.mark.parametrize(
    ("sides", "why"),
    [
        ((10.0, 3.0, 6.0), "no triangle: one distance is larger than the two others together"),
        ((0.0, 3.0, 3.0), "no triangle: a distance is 0"),
        ((0.0, 0.0, 0.0), "no triangle: a distance is 0"),
    ],
)
def test_where_there_is_no_triangle_there_are_bars(sides, why):
    figure = plot_transport(*sides)
    axis = figure.axes[0]
    assert [bar.get_width() for bar in axis.patches] == list(sides)
    assert why in words(figure) and "drawn to scale" not in words(figure)
    assert misplaced(figure) == []
    assert "[latent units]" in axis.get_xlabel()


def test_what_is_no_distance_is_not_drawn():
    with pytest.raises(ValueError, match="1 of 3 distances are not finite"):
        plot_transport(1, float("nan"), 1)
    with pytest.raises(ValueError, match="distances cannot be negative"):
        plot_transport(1, -1, 1)


# ---- sweeps ----


def test_a_sweep_is_drawn_in_the_order_of_its_levels_with_t_intervals():
    levels, scores = [1.0, 0.0, 0.5], [[0.60, 0.62], [0.70, 0.74], [0.66, 0.66]]
    figure = plot_sweep(levels, scores, [0.60, 0.62], [0.61, 0.65])
    axis = figure.axes[0]
    (line,) = (line for line in axis.lines if line.get_marker() == "s")
    assert line.get_xydata() == pytest.approx(np.array([[0, 72], [50, 66], [100, 61]]))
    half = student_t.ppf(0.975, 1)  # of two values, 2 and 4 points apart: times standard error 1 and 2
    bars = next(c for c in axis.collections if len(c.get_paths()) == 3 and len(c.get_paths()[0].vertices) == 2)
    ends = [path.vertices[:, 1].tolist() for path in bars.get_paths()]
    assert ends[0] == pytest.approx([72 - 2 * half, 72 + 2 * half])
    assert ends[1] == pytest.approx([66, 66])
    assert ends[2] == pytest.approx([61 - half, 61 + half])
    assert {text.get_text() for text in axis.texts} == {"baseline", "null control"}
    assert "2 seeds, mean and 95% interval" in words(figure)
    assert misplaced(figure) == []


def test_a_sweep_of_one_seed_has_no_intervals():
    figure = plot_sweep([0, 1], [[0.7], [0.6]], [0.65])
    assert not figure.axes[0].patches and "interval" not in words(figure)


@pytest.mark.parametrize(
    ("levels", "scores", "message"),
    [
        ([0.5], [[0.7]], "two different levels or more"),
        ([0.5, 0.5], [[0.7], [0.6]], "two different levels or more"),
        ([0, 1], [[0.7], []], "the level 1 has no scores"),
        ([0, 1], [[0.7], [float("nan")]], "1 of 1 scores of the level 1 are not finite"),
    ],
)
def test_a_sweep_that_cannot_be_drawn_is_refused(levels, scores, message):
    with pytest.raises(ValueError, match=message):
        plot_sweep(levels, scores, [0.6])


# ---- a budget of labels ----


def budget(levels=(1, 5, 10)):
    """Scores of 10, 50, 100 % of a baseline's at 1, 5 and 10; a seed more has 2 points more."""

    def at(level, share):
        return [share * level / 10, share * level / 10 - 0.02]

    kinds = {"labels alone": ("baseline", 0.5), "transfer": ("colearned", 0.9), "FixMatch": ("null", 0.6)}
    kinds |= {"permuted pairs": ("null", 0.3), "label oracle": ("reference", 0.8)}
    arms = {level: [Arm(name, kind, at(level, share)) for name, (kind, share) in kinds.items()] for level in levels}
    return LevelComparisons("labels a class", compare_levels(arms))


def test_a_budget_has_a_line_an_arm_over_its_levels_and_names_them_at_the_right():
    figure = plot_budget(budget())
    axis = figure.axes[0]
    assert axis.get_xscale() == "log" and axis.get_xticks().tolist() == [1, 5, 10]
    assert [label.get_text() for label in axis.get_xticklabels()] == ["1", "5", "10"]
    drawn = [line for line in axis.lines if len(line.get_xdata()) == 3 and line.get_clip_on()]
    lines = dict(zip(budget().arms, drawn, strict=True))
    assert lines["labels alone"].get_ydata() == pytest.approx([4, 24, 49])
    assert lines["transfer"].get_ydata() == pytest.approx([8, 44, 89])
    for line in lines.values():
        np.testing.assert_allclose(line.get_xdata(), [1, 5, 10], rtol=0.06)  # beside each other
    for name, is_solid in (("labels alone", True), ("transfer", True), ("FixMatch", False), ("label oracle", False)):
        line = lines[name]  # its kind is not told by colour alone
        assert (line.get_linestyle() == "-") == (line.get_markerfacecolor() == line.get_color()) == is_solid
    assert [text.get_text() for text in axis.texts].count("transfer") == 1 and len(axis.texts) == 5
    # Two seeds, 2 points apart: t = 12.706 times a standard error of 1. Of the null controls, the best has its interval.
    half = student_t.ppf(0.975, 1)
    bars = [line.get_ydata() for line in axis.lines if len(line.get_xdata()) == 2]
    assert len(bars) == 4 * 3
    middle = [ends for ends in bars if ends.min() > 0 and ends.max() < 100]  # others end where scores do
    assert [np.ptp(ends) for ends in middle] == pytest.approx([2 * half] * 7)
    assert min(map(min, bars)) == 0 and max(map(max, bars)) == 100
    assert "2 seeds, mean and 95% interval" in words(figure) and words(figure).startswith(
        "Accuracy at 1 to 10 labels a class"
    )
    assert misplaced(figure) == []


def test_a_level_of_none_has_no_place_on_a_logarithmic_axis():
    with pytest.raises(ValueError, match="the level 0 has no place"):
        plot_budget(budget(levels=(0, 5)))


def test_predictions_of_a_regression_are_drawn_over_the_true_values():
    true, predicted = np.array([1.0, 2.0, 4.0]), np.array([1.5, 2.0, 3.0])
    style = arm_styles({"text": "colearned"})["text"]
    figure = plot_predictions(true, predicted, "text", style, (1.0, 4.0))
    [points] = figure.axes[0].collections
    assert points.get_offsets().tolist() == [[1.0, 1.5], [2.0, 2.0], [4.0, 3.0]]
    [line] = figure.axes[0].lines
    np.testing.assert_array_equal(line.get_xdata(), line.get_ydata())
    assert "'text'" in words(figure) and "3 test samples" in words(figure) and misplaced(figure) == []
    with pytest.raises(ValueError, match="1 of 3 predictions of 'text' are not finite"):
        plot_predictions(true, np.array([1.0, np.nan, 2.0]), "text", style, (1.0, 4.0))


# ---- modalities ----


def test_shares_are_a_bar_a_modality_in_each_arm():
    shares = {"ce": {"image": [0.3, 0.4], "audio": [-0.1, 0.1]}, "learned": {"image": [0.2, 0.2], "audio": [0.2, 0.3]}}
    figure = plot_modality_shares(shares)
    axis = figure.axes[0]
    assert [bar.get_width() for bar in axis.patches] == pytest.approx([35, 20, 0, 25])
    assert [text.get_text() for text in figure.legends[0].texts] == ["image", "audio"]
    half = 5 * student_t.ppf(0.975, 1)
    assert axis.lines[0].get_xdata() == pytest.approx([35 - half, 35 + half])
    assert list(rows(axis).values()) == ["ce", "learned"]
    assert "2 seeds" in words(figure)
    assert misplaced(figure) == []
    one = plot_modality_shares({"ce": {"image": [0.3], "audio": [0.1]}})
    assert "1 seed" in words(one) and len(one.axes[0].lines) == 1  # the zero line


def test_arms_of_other_modalities_are_refused():
    with pytest.raises(ValueError, match="the same modalities, got .*'image', 'audio'.*'image'"):
        plot_modality_shares({"ce": {"image": [0.3], "audio": [0.1]}, "image alone": {"image": [0.3]}})
    with pytest.raises(ValueError, match="1 of 1 scores of image of 'ce' are not finite"):
        plot_modality_shares({"ce": {"image": [float("inf")]}})
