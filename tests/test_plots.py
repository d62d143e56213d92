import hf_colearn  # noqa: F401, I001  # first: its guard makes `import evaluate` work beside a CPU torch

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure

from hf_colearn.analysis.plots import plot_losses, plot_projection


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
