import hf_colearn  # noqa: F401, I001  # first: its guard makes `import evaluate` work beside a CPU torch

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure

from hf_colearn.analysis.plots import plot_alphas, plot_head_gaps, plot_losses, plot_modalities, plot_projection


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


def cloud(n=30, d=8, seed=0):
    return np.random.default_rng(seed).normal(size=(n, d)).astype(np.float32)


# ---- losses ----


def test_line_is_the_mean_and_band_the_range_over_seeds(tmp_path, figures):
    plot_losses({"base": [history([3.0, 1.0]), history([1.0, 0.5])]}, tmp_path / "a.png", terms=("loss_task",))
    (axis,) = figures[0].axes
    assert axis.lines[0].get_xydata().tolist() == [[10, 2.0], [20, 0.75]]
    corners = {tuple(point) for point in axis.collections[0].get_paths()[0].vertices}
    assert corners == {(10, 1.0), (10, 3.0), (20, 0.5), (20, 1.0)}
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")


def test_an_arm_without_a_term_is_only_in_the_other_panel_and_keeps_its_look(tmp_path, figures):
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
    assert first.get_xydata().tolist() == [[0.5, 0.5], [1.0, 0.4]]
    assert second.get_xydata().tolist() == [[0.5, 0.5], [1.0, 0.8]]
    assert mean.get_ydata() == pytest.approx([0.5, 0.6])
    assert mean.get_linewidth() > first.get_linewidth()
    assert [text.get_text() for text in figures[0].legends[0].texts] == ["learned (2 seeds)"]
    assert axis.get_ylim()[0] <= 0 and axis.get_ylim()[1] >= 1


def test_several_terms_have_a_panel_each_and_an_arm_keeps_its_look(tmp_path, figures):
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


# ---- modalities ----


def evaluations(fused, **heads):
    """A log history of an evaluation an epoch, and one of the best model at the end."""
    entries = [{"step": 1, "epoch": 0.5, "loss": 1.0}]
    for i, value in enumerate(fused):
        of_heads = {f"eval_accuracy_{name}": values[i] for name, values in heads.items()}
        entries.append({"step": 2 * i + 2, "epoch": i + 1.0, "eval_accuracy": value, **of_heads})
    return [*entries, {**entries[-1], **dict.fromkeys([key for key in entries[-1] if "accuracy" in key], 9.0)}]


def test_modalities_are_drawn_beside_the_fused_prediction_in_a_panel_an_arm(tmp_path, figures):
    given = {"given_image": [0.0, 0.0]}
    histories = {
        "ce": [evaluations([0.4, 0.8], image=[0.2, 0.6], audio=[0.1, 0.2], **given)],
        "mixed": [
            evaluations([0.4, 0.6], image=[0.3, 0.3], audio=[0.3, 0.3], **given),
            evaluations([0.6, 1.0], image=[0.5, 0.5], audio=[0.1, 0.1], **given),
        ],
        "image alone": [evaluations([0.1, 0.1])],
    }
    plot_modalities(histories, tmp_path / "a.png")
    ce, mixed = (axis for axis in figures[0].axes if axis.get_visible())
    assert (ce.get_title(), mixed.get_title()) == ("ce (1 seed)", "mixed (2 seeds)")
    fused, image, audio = ce.lines
    assert fused.get_xydata().tolist() == [[1.0, 0.4], [2.0, 0.8]]  # not the best model's, evaluated again
    assert image.get_ydata().tolist() == [0.2, 0.6] and audio.get_ydata().tolist() == [0.1, 0.2]
    assert mixed.lines[0].get_ydata() == pytest.approx([0.5, 0.8])
    corners = {tuple(point) for point in mixed.collections[0].get_paths()[0].vertices}
    assert corners == {(1.0, 0.4), (1.0, 0.6), (2.0, 0.6), (2.0, 1.0)}
    assert [line.get_color() for line in ce.lines] == [line.get_color() for line in mixed.lines]
    assert [text.get_text() for text in figures[0].legends[0].texts] == ["fused", "image head", "audio head"]


@pytest.mark.parametrize(("arms", "rows", "columns"), [(1, 1, 1), (3, 1, 3), (4, 2, 2), (5, 2, 3), (7, 3, 3)])
def test_panels_fill_rows_of_at_most_three(tmp_path, figures, arms, rows, columns):
    run = evaluations([0.5], image=[0.5], audio=[0.5])
    plot_modalities({f"arm {i}": [run] for i in range(arms)}, tmp_path / "a.png")
    assert figures[0].axes[0].get_gridspec().get_geometry() == (rows, columns)
    assert sum(axis.get_visible() for axis in figures[0].axes) == arms


def test_without_a_modalitys_accuracy_there_is_nothing_to_draw(tmp_path):
    with pytest.raises(ValueError, match="no arm logged 'eval_accuracy_' with a modality's name: .*'eval_accuracy'"):
        plot_modalities({"image alone": [evaluations([0.1], given_image=[0.2])]}, tmp_path / "a.png")


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
    assert axis.lines[0].get_xydata().tolist() == [[1.0, 0.0], [2.0, 0.375]]
    corners = {tuple(point) for point in axis.collections[0].get_paths()[0].vertices}
    assert corners == {(1.0, 0.25), (1.0, -0.25), (2.0, 0.5), (2.0, 0.25)}
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


# ---- projection ----


def test_panels_show_the_same_classes_with_the_same_looks(tmp_path, figures):
    labels = np.arange(30) % 3
    plot_projection({"student": cloud(), "teacher": cloud(d=20, seed=1)}, labels, tmp_path / "a.png", perplexity=5)
    left, right = figures[0].axes
    assert left.get_title() == "student\n30 samples, D = 8"
    assert right.get_title() == "teacher\n30 samples, D = 20"
    assert "perplexity 5" in figures[0].get_suptitle()
    for one, other in zip(left.collections, right.collections, strict=True):
        assert len(one.get_offsets()) == 10  # 30 points, 3 classes
        assert one.get_facecolor().tolist() == other.get_facecolor().tolist()
    assert [text.get_text() for text in figures[0].legends[0].texts] == ["0", "1", "2"]


def test_projection_is_repeatable_and_separates_two_distant_classes(tmp_path, figures):
    labels = np.arange(40) % 2
    latents = cloud(40, d=600) + 5 * labels[:, None]
    for name in ("a.png", "b.png"):
        plot_projection({"student": latents}, labels, tmp_path / name, perplexity=5)
    first, second = ([np.asarray(c.get_offsets()) for c in figure.axes[0].collections] for figure in figures)
    assert all((a == b).all() for a, b in zip(first, second, strict=True))
    # every point lies nearer to the centre of its own class
    for own, other in ((first[0], first[1]), (first[1], first[0])):
        to_own, to_other = (np.linalg.norm(own - centre.mean(axis=0), axis=1) for centre in (own, other))
        assert (to_own < to_other).all()


def test_of_many_samples_the_same_few_are_drawn_in_every_panel(tmp_path, figures):
    labels = np.arange(60)  # a class a sample, so that the labels tell which samples were drawn
    clouds = {"a": cloud(60), "b": cloud(60, seed=1)}
    plot_projection(clouds, labels, tmp_path / "a.png", perplexity=5, max_points=20)
    drawn = [[c.get_label() for c in axis.collections if len(c.get_offsets())] for axis in figures[0].axes]
    assert len(drawn[0]) == 20 and drawn[0] == drawn[1]
    assert "20 of 60 samples" in figures[0].axes[0].get_title()


def test_a_collapsed_cloud_is_said_to_be_one(tmp_path, figures):
    clouds = {"good": cloud(), "collapsed": np.ones((30, 8))}
    plot_projection(clouds, np.arange(30) % 3, tmp_path / "a.png", perplexity=5)
    good, collapsed = figures[0].axes
    assert len(good.collections) == 3 and len(collapsed.collections) == 0
    assert "all latents are equal" in collapsed.texts[0].get_text()


@pytest.mark.parametrize(
    ("latents", "perplexity", "message"),
    [
        (
            np.where(np.arange(30)[:, None] == 4, np.nan, cloud()),
            5,
            "1 of 30 latents of cloud 'student' are not finite",
        ),
        (cloud(29), 5, r"'student' must hold one latent for each of the 30 labels, got shape \(29, 8\)"),
        (cloud()[:, 0], 5, r"got shape \(30,\)"),
        (cloud(), 30, "below the 30 points to draw, got 30"),
    ],
)
def test_bad_clouds_are_named(tmp_path, latents, perplexity, message):
    with pytest.raises(ValueError, match=message):
        plot_projection({"student": latents}, np.arange(30) % 3, tmp_path / "a.png", perplexity=perplexity)


# ---- the extra ----


def test_drawing_leaves_pyplot_alone_and_a_missing_matplotlib_names_the_extra(tmp_path):
    script = """
import sys
import numpy as np
import hf_colearn.analysis.plots as plots
assert "matplotlib" not in sys.modules and "sklearn.manifold" not in sys.modules
history = [{"step": 1, "loss_task": 1.0}, {"step": 2, "loss_task": 0.5}]
plots.plot_losses({"a": [history]}, "a.png", terms=("loss_task",))
assert "matplotlib" in sys.modules and "matplotlib.pyplot" not in sys.modules
sys.modules["matplotlib.figure"] = None
for draw in (lambda: plots.plot_losses({"a": [history]}, "a.png"),
             lambda: plots.plot_projection({"a": np.eye(9)}, np.arange(9), "a.png", perplexity=3)):
    try:
        draw()
    except ImportError as error:
        assert "pip install hf-colearn[report]" in str(error)
    else:
        raise SystemExit("no error")
"""
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
    subprocess.run([sys.executable, "-c", script], check=True, cwd=tmp_path, env=environment)
