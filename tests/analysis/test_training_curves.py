import hf_colearn  # noqa: F401, I001  # first: its guard makes `import evaluate` work beside a CPU torch

import os
from pathlib import Path

import pytest
from matplotlib.figure import Figure

import child_python
from hf_colearn.analysis.plots.style import arm_styles
from hf_colearn.analysis.plots.training_curves import (
    plot_alphas,
    plot_curves,
    plot_head_gaps,
    plot_losses,
)


@pytest.fixture
def figures(monkeypatch):
    """The figures that are saved, so that a test can read what was drawn."""
    saved = []
    save = Figure.savefig

    def savefig(self, *args, **kwargs):
        saved.append(self)
        return save(self, *args, **kwargs)

    monkeypatch.setattr(Figure, "savefig", savefig)
    return saved


def history(task, latent=None):
    """A log history as the Trainer writes it: losses at steps 10, 20, ..., an evaluation and a summary between."""
    entries = [{"step": 10 * (i + 1), "loss": 1.0, "loss_task": value} for i, value in enumerate(task)]
    for entry, value in zip(entries, latent or [], strict=False):
        entry["loss_latent"] = value
    return [*entries, {"step": 10, "eval_loss": 9.0}, {"step": 30, "train_loss": 9.0}]


def words(figure):
    """The title and the line below it, unwrapped."""
    return " ".join(text.get_text() for text in figure.texts).replace("\n", " ")


# ---- losses ----


def test_line_is_the_mean_and_band_the_range_over_seeds(tmp_path, figures):
    plot_losses({"base": [history([3.0, 1.0]), history([1.0, 0.5])]}, tmp_path / "a.png", terms=("loss_task",))
    (axis,) = figures[0].axes
    assert axis.lines[0].get_xydata().tolist() == [[10, 2.0], [20, 0.75]]
    corners = {tuple(point) for point in axis.collections[0].get_paths()[0].vertices}
    assert corners == {(10, 1.0), (10, 3.0), (20, 0.5), (20, 1.0)}
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")


def test_an_arm_without_a_term_is_only_in_the_other_panel_and_keeps_its_style(tmp_path, figures):
    histories = {"base": [history([2.0, 1.0])], "text": [history([2.0, 1.0], [0.9, 0.8]), history([3.0, 1.0], [1, 1])]}
    plot_losses(histories, tmp_path / "a.png")
    task, latent = figures[0].axes
    assert len(task.lines) == 2 and len(latent.lines) == 1
    looks = [(line.get_color(), line.get_linestyle()) for line in (*task.lines, *latent.lines)]
    assert looks[1] == looks[2] != looks[0]
    assert [text.get_text() for text in figures[0].legends[0].texts] == ["base (1 seed)", "text (2 seeds)"]


def test_steps_that_a_seed_did_not_log_are_left_out(tmp_path, figures):
    plot_losses({"base": [history([3.0, 2.0, 1.0]), history([1.0, 1.0])]}, tmp_path / "a.png", terms=("loss_task",))
    assert figures[0].axes[0].lines[0].get_xdata().tolist() == [10, 20]


def test_axis_is_logarithmic_only_for_a_wide_positive_range(tmp_path, figures):
    histories = {"a": [history([2.0, 1.0], [1.0, 0.01])]}
    plot_losses(histories, tmp_path / "a.png")
    assert [axis.get_yscale() for axis in figures[0].axes] == ["linear", "log"]
    plot_losses({"a": [history([2.0, 0.0])]}, tmp_path / "a.png", terms=("loss_task",))
    assert figures[1].axes[0].get_yscale() == "linear"


def test_a_run_that_diverged_is_drawn_up_to_there(tmp_path, figures):
    plot_losses({"a": [history([2.0, 1.0, float("nan")])]}, tmp_path / "a.png", terms=("loss_task",))
    assert figures[0].axes[0].lines[0].get_ydata()[:2].tolist() == [2.0, 1.0]


def test_a_term_that_nobody_logged_is_named_with_what_there_is(tmp_path):
    with pytest.raises(ValueError, match="no arm logged 'loss_latent': .*'loss_task'"):
        plot_losses({"base": [history([2.0, 1.0])]}, tmp_path / "a.png")


def test_a_diverged_seed_ends_its_arm_with_a_cross_and_the_title_says_so():
    bad, never = history([2.0, float("nan"), 1.0]), history([float("inf")] * 3)
    figure = plot_losses({"a": [history([2.0, 1.0, 1.0]), bad], "b": [never]}, terms=("loss_task",))
    line, cross = figure.axes[0].lines
    assert line.get_xydata().tolist() == cross.get_xydata().tolist() == [[10, 2.0]] and cross.get_marker() == "x"
    title = words(figure)
    assert "x: a seed's value is not finite from here on" in title and "'b' was never finite" in title
    with pytest.raises(ValueError, match="'loss_task' was never finite in ..b..: the runs diverged"):
        plot_losses({"b": [never]}, terms=("loss_task",))


def test_one_term_is_one_panel_of_a_page_without_a_legend():
    histories = {"base": [history([2.0, 1.0])], "text": [history([2.0, 1.0], [0.9, 0.8])]}
    figure = plot_losses(histories, terms=("loss_latent",), legend=False)
    assert len(figure.axes) == 1 and not figure.legends
    assert figure.get_size_inches().tolist() == [4.8, 3.4]
    assert figure.texts[0].get_text() == "Latent loss" and figure.texts[1].get_text() == "1 seed"


def test_arms_have_the_given_styles_and_the_baseline_lies_below():
    histories = {"null": [history([2.0, 1.0])], "text": [history([2.0, 1.0])], "base": [history([2.0, 1.0])]}
    styles = arm_styles({"base": "baseline", "text": "colearned", "null": "null"})
    null, text, base = plot_losses(histories, terms=("loss_task",), styles=styles, legend=False).axes[0].lines
    assert [line.get_color() for line in (null, text, base)] == [styles[arm].colour for arm in histories]
    assert base.get_zorder() < null.get_zorder() < text.get_zorder()
    with pytest.raises(ValueError, match="arms without a style: .'null'.; make the styles"):
        plot_losses(histories, terms=("loss_task",), styles={arm: styles[arm] for arm in ("base", "text")})


def test_target_variances_are_lines_named_at_their_ends_and_equal_ones_are_named_together():
    histories = {"one": [history([2.0, 1.0], [0.9, 0.3])], "two": [history([2.0, 1.0], [0.8, 0.2])]}
    variances = {"one": 0.25, "two": 0.25, "random prompts": 0.24}
    axis = plot_losses(histories, target_variance=variances).axes[1]
    lines = [line.get_ydata() for line in axis.lines if list(line.get_xdata()) == [0, 1]]
    assert lines == [[0.25, 0.25], [0.24, 0.24]]
    names = {text.get_text().replace("\n", " "): text.get_position()[1] for text in axis.texts}
    assert list(names) == ["target variance of one, two 0.25", "random prompts 0.24"]
    assert names["target variance of one, two 0.25"] - names["random prompts 0.24"] > 0.1  # moved apart
    with pytest.raises(ValueError, match="the target variance 'one' is nan"):
        plot_losses(histories, target_variance={"one": float("nan")})
    with pytest.raises(
        ValueError, match="a target variance is drawn in 'loss_latent', which is not among .*'loss_task'"
    ):
        plot_losses(histories, terms=("loss_task",), target_variance=variances)


# ---- any key ----


def test_any_key_is_drawn_over_the_steps():
    runs = [evaluations([0.25, 0.75]), evaluations([0.75, 1.0])]
    axis = plot_curves({"ce": runs}, "eval_accuracy", ylabel="accuracy", legend=False).axes[0]
    assert axis.lines[0].get_xydata().tolist() == [[2.0, 0.5], [4.0, 0.875]]
    assert (axis.get_xlabel(), axis.get_ylabel()) == ("optimizer step", "accuracy")
    figure = plot_curves({"ce": runs}, "eval_accuracy")
    assert figure.texts[0].get_text() == "Accuracy (evaluation)"
    with pytest.raises(ValueError, match="no arm logged 'label_alignment'"):
        plot_curves({"ce": runs}, "label_alignment")


# ---- alphas ----


def alphas(values, key="alpha"):
    """A log history with alpha twice an epoch, an evaluation and a summary."""
    entries = [{"step": i + 1, "epoch": (i + 1) / 2, "loss": 1.0, key: value} for i, value in enumerate(values)]
    return [*entries, {"step": 2, "epoch": 1.0, "eval_loss": 9.0}, {"step": 9, "epoch": 9.0, "train_loss": 9.0}]


def test_alphas_are_a_thin_line_a_seed_and_their_mean(tmp_path, figures):
    histories = {"ce": [history([1.0])], "learned": [alphas([0.5, 0.4]), alphas([0.5, 0.8])]}
    plot_alphas(histories, tmp_path / "a.png")
    (axis,) = figures[0].axes
    first, second, mean = axis.lines
    assert first.get_xydata().tolist() == [[1, 0.5], [2, 0.4]]
    assert second.get_xydata().tolist() == [[1, 0.5], [2, 0.8]]
    assert mean.get_ydata() == pytest.approx([0.5, 0.6])
    assert mean.get_linewidth() > first.get_linewidth()
    assert [text.get_text() for text in figures[0].legends[0].texts] == ["learned (2 seeds)"]
    assert axis.get_ylim()[0] <= 0 and axis.get_ylim()[1] >= 1


def test_several_terms_have_a_panel_each_and_an_arm_keeps_its_style(tmp_path, figures):
    one, two = alphas([0.5], "alpha_contrastive"), alphas([0.3], "alpha_distribution")
    both = [{**one[0], **two[0]}]
    plot_alphas({"both": [both], "one": [one]}, tmp_path / "a.png")
    left, right = figures[0].axes
    assert (left.get_title(), right.get_title()) == ("contrastive", "distribution")
    assert (len(left.lines), len(right.lines)) == (2, 1)
    assert left.lines[0].get_color() == right.lines[0].get_color() != left.lines[1].get_color()
    assert left.lines[0].get_linewidth() > left.lines[1].get_linewidth()  # the lower one shows where they agree


def test_arms_without_alpha_alone_are_nothing_to_draw(tmp_path):
    with pytest.raises(ValueError, match="no arm logged an alpha: .*'loss_task'"):
        plot_alphas({"ce": [history([1.0])]}, tmp_path / "a.png")


# ---- gaps between modalities ----


def evaluations(fused, **heads):
    """A log history of an evaluation an epoch, and one of the best model at the end."""
    entries = [{"step": 1, "epoch": 0.5, "loss": 1.0}]
    for i, value in enumerate(fused):
        of_heads = {f"eval_accuracy_{name}": values[i] for name, values in heads.items()}
        entries.append({"step": 2 * i + 2, "epoch": i + 1.0, "eval_accuracy": value, **of_heads})
    return [*entries, {**entries[-1], **dict.fromkeys([key for key in entries[-1] if "accuracy" in key], 9.0)}]


def test_head_gaps_are_the_difference_of_the_heads_seed_by_seed(tmp_path, figures):
    histories = {
        "one-hot": [
            evaluations([1.0, 1.0], image=[0.5, 0.75], audio=[0.25, 0.25]),
            evaluations([1.0, 1.0], image=[0.5, 0.5], audio=[0.75, 0.25]),
        ],
        "image alone": [evaluations([0.1, 0.1])],
    }
    plot_head_gaps(histories, ("image", "audio"), tmp_path / "a.png")
    (axis,) = figures[0].axes
    assert axis.lines[0].get_xydata().tolist() == [[2.0, 0.0], [4.0, 0.375]]
    corners = {tuple(point) for point in axis.collections[0].get_paths()[0].vertices}
    assert corners == {(2.0, 0.25), (2.0, -0.25), (4.0, 0.5), (4.0, 0.25)}
    assert axis.get_ylabel() == "accuracy of image minus audio"
    assert [text.get_text() for text in figures[0].legends[0].texts] == ["one-hot (2 seeds)"]
    with pytest.raises(ValueError, match="no arm logged 'eval_accuracy_image' and 'eval_accuracy_text'"):
        plot_head_gaps(histories, ("image", "text"), tmp_path / "a.png")


def test_three_modalities_have_three_pairs(tmp_path, figures):
    run = evaluations([0.5], image=[0.5], text=[0.4], speech=[0.1])
    plot_head_gaps({"ce": [run]}, ("image", "text", "speech"), tmp_path / "a.png")
    assert [axis.get_ylabel() for axis in figures[0].axes] == [
        "accuracy of image minus text",
        "accuracy of image minus speech",
        "accuracy of text minus speech",
    ]


# ---- the extra ----


def test_drawing_leaves_pyplot_alone_and_a_missing_matplotlib_names_the_extra(tmp_path):
    script = """
import sys
import numpy as np
from hf_colearn.analysis.plots.projection import plot_map
from hf_colearn.analysis.plots.training_curves import plot_losses
assert "matplotlib" not in sys.modules and "sklearn.manifold" not in sys.modules
history = [{"step": 1, "loss_task": 1.0}, {"step": 2, "loss_task": 0.5}]
plot_losses({"a": [history]}, "a.png", terms=("loss_task",))
assert "matplotlib" in sys.modules and "matplotlib.pyplot" not in sys.modules
sys.modules["matplotlib.figure"] = None
for draw in (lambda: plot_losses({"a": [history]}, "a.png"),
             lambda: plot_map({"a": np.eye(9)}, np.arange(9), "pca", "a.png")):
    try:
        draw()
    except ImportError as error:
        assert "pip install 'hf-colearn[report]'" in str(error)
    else:
        raise SystemExit("no error")
"""
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    child_python.run(script, env=environment, cwd=tmp_path).check_returncode()
