import hf_colearn  # noqa: F401, I001  # first: its guard makes `import evaluate` work beside a CPU torch

import os
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.distance import cdist, pdist
from sklearn.manifold import TSNE

import child_python
from hf_colearn.analysis.plots.projection import class_styles, perplexities, plot_map, project
from hf_colearn.analysis.run import kept_rows


@pytest.fixture(autouse=True)
def all_iterations_of_tsne(monkeypatch):
    monkeypatch.setattr(TSNE, "__init__", TSNE.__init__.__wrapped__)  # fewer steps in other tests: processes.brief


def cloud(n=30, d=8, seed=0):
    return np.random.default_rng(seed).normal(size=(n, d)).astype(np.float32)


def two_groups(n=40, d=16):
    """Latents of two classes that lie far apart."""
    labels = np.arange(n) % 2
    return cloud(n, d) + 8 * labels[:, None], labels


def own_class_is_nearest(points, labels):
    distances = cdist(points, points) + np.diag(np.full(len(points), np.inf))
    return np.mean(labels[distances.argmin(axis=1)] == labels)


# ---- projecting ----


def test_pca_keeps_the_distances_of_latents_that_fill_a_plane_only():
    plane = cloud(20, 2, seed=1) @ np.linalg.qr(cloud(8, 2, seed=2))[0].T  # two directions of eight, turned
    points = project(plane + 3, "pca")
    assert points.shape == (20, 2) and points.mean(axis=0) == pytest.approx([0, 0], abs=1e-5)
    assert pdist(points) == pytest.approx(pdist(plane), rel=1e-4)
    assert points[:, 0].var() > points[:, 1].var()


@pytest.mark.parametrize("method", ["pca", "tsne"])
def test_projections_repeat_to_the_last_bit_and_keep_distant_classes_apart(method):
    latents, labels = two_groups()
    first, again = (project(latents, method, perplexity=5) for _ in range(2))
    assert (first == again).all()
    assert own_class_is_nearest(first, labels) == 1


def test_umap_repeats_too(tmp_path):
    # In a process without numba's compiler, which would take 20 s for 16 points.
    script = """
import numpy as np
from hf_colearn.analysis.plots.projection import project
latents = np.load("latents.npy")
np.save("points.npy", [project(latents, "umap", neighbours=4) for _ in range(2)])
"""
    latents, labels = two_groups(16)
    np.save(tmp_path / "latents.npy", latents)
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2]), "NUMBA_DISABLE_JIT": "1"}
    child_python.run(script, env=environment, cwd=tmp_path).check_returncode()
    first, again = np.load(tmp_path / "points.npy")
    assert (first == again).all()
    assert own_class_is_nearest(first, labels) == 1


@pytest.mark.parametrize(
    ("module", "method", "message"),
    [
        ("umap", "umap", r"UMAP needs umap-learn: pip install 'hf-colearn\[umap\]'"),
        ("sklearn.manifold", "tsne", r"t-SNE needs scikit-learn: pip install 'hf-colearn\[report\]'"),
        ("sklearn.decomposition", "pca", r"PCA needs scikit-learn: pip install 'hf-colearn\[report\]'"),
    ],
)
def test_what_is_missing_names_its_extra(monkeypatch, module, method, message):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImportError, match=message):
        project(cloud(), method, perplexity=5)


@pytest.mark.parametrize(
    ("latents", "options", "message"),
    [
        (np.where(np.arange(30)[:, None] == 4, np.nan, cloud()), {}, "1 of 30 latents are not finite"),
        (np.full((30, 8), 0.1), {}, "all 30 latents are equal: the cloud has collapsed"),
        (1 + 1e-8 * cloud(), {}, "all 30 latents are equal"),  # but for rounding
        (np.zeros((30, 8)), {}, "all 30 latents are equal"),
        (cloud(3), {}, "3 samples are too few to project: there is nothing to see below 4"),
        (cloud(30, 1), {}, r"needs latents of shape \(N, D >= 2\), got \(30, 1\)"),
        (cloud()[:, 0], {}, r"got \(30,\)"),
        (cloud(), {"perplexity": 10.1}, "at most a third of the 30 points to draw, got 10.1"),
        (cloud(), {"perplexity": 0}, "above 0"),
        (cloud(), {"method": "umap", "neighbours": 30}, "neighbours must be from 2 to 29, all other points, got 30"),
        (cloud(), {"method": "lda"}, "method must be one of .'pca', 'tsne', 'umap'., got 'lda'"),
    ],
)
def test_what_cannot_be_projected_is_said(latents, options, message):
    with pytest.raises(ValueError, match=message):
        project(latents, **{"perplexity": 5} | options)


def test_the_same_samples_are_drawn_whatever_the_cloud():
    rows = kept_rows(899, 500)
    assert len(rows) == 500 and (np.diff(rows) > 0).all() and rows.max() < 899
    assert (rows == kept_rows(899, 500)).all() and (rows != kept_rows(899, 500, seed=1)).any()
    assert kept_rows(7).tolist() == [0, 1, 2, 3, 4, 5, 6]


def test_perplexities_are_those_that_the_points_allow():
    assert perplexities(500) == (5, 30, 50)
    assert perplexities(90) == (5, 30)
    assert perplexities(9) == (3,)


# ---- classes ----


def test_of_many_classes_the_largest_have_colours_and_the_others_are_grey():
    labels = np.concatenate([np.arange(12), np.arange(3, 12)])  # classes 3 to 11 have two samples, 0 to 2 one
    styles, names = class_styles(labels, [f"c{i}" for i in range(12)])
    assert list(styles) == [*(f"c{i}" for i in range(3, 12)), "3 other classes"]
    assert len({(style.colour, style.marker) for style in styles.values()}) == 10
    assert names.tolist() == [*["3 other classes"] * 3, *(f"c{i}" for i in range(3, 12))] + [
        f"c{i}" for i in range(3, 12)
    ]
    assert list(class_styles(np.arange(10))[0]) == [str(i) for i in range(10)]
    with pytest.raises(ValueError, match="two classes have the same name"):
        class_styles(labels[:2], ["a", "a"])


def test_samples_without_a_label_are_of_no_class():
    styles, names = class_styles(np.array([-100, 1, 0, -100]), ["cat", "dog"])
    assert names.tolist() == ["no label", "dog", "cat", "no label"]
    assert list(styles) == ["cat", "dog", "no label"] and styles["no label"].layer < styles["cat"].layer
    assert list(class_styles(np.array([-100, -100]), ["cat"])[0]) == ["no label"]


# ---- drawing ----


def test_of_many_samples_the_same_few_are_drawn_and_counted():
    labels = np.arange(60) % 4
    figure = plot_map({"a": cloud(60)}, labels, perplexity=5, max_points=20)
    expected = np.bincount(labels[kept_rows(60, 20)]).tolist()
    assert [len(points.get_offsets()) for points in figure.axes[0].collections] == expected
    assert figure.texts[0].get_text() == "a: t-SNE, perplexity 5"
    assert figure.texts[1].get_text() == "20 of 60 samples, D = 8"


@pytest.mark.parametrize(
    ("latents", "message"),
    [
        (np.where(np.arange(30)[:, None] == 4, np.nan, cloud()), "1 of 30 latents of cloud 'student' are not finite"),
        (cloud(29), r"'student' must hold one latent for each of the 30 labels, got shape \(29, 8\)"),
        (cloud()[:, 0], r"got shape \(30,\)"),
    ],
)
def test_bad_clouds_are_named(latents, message):
    with pytest.raises(ValueError, match=message):
        plot_map({"student": latents}, np.arange(30) % 3, perplexity=5)


def test_a_map_of_one_cloud_has_the_points_of_its_projection_by_class():
    latents, labels = two_groups()
    figure = plot_map({"student": latents}, labels, "pca", class_names=["cat", "dog"])
    (axis,) = figure.axes
    expected = project(latents, "pca")
    for i, points in enumerate(axis.collections):
        assert np.allclose(points.get_offsets(), expected[labels == i])
    assert [text.get_text() for text in figure.legends[0].texts] == ["cat", "dog"]
    assert figure.texts[0].get_text() == "student: PCA" and figure.texts[1].get_text() == "40 samples, D = 16"
    # almost all variance lies between the classes: 16 * 4^2 of 16 * 4^2 + 16
    share = float(axis.get_xlabel().split("(")[1].split("%")[0]) / 100
    assert share == pytest.approx(256 / 272, abs=0.03)


def test_clouds_of_one_map_are_as_far_apart_as_they_are():
    latents, labels = cloud(30, 8), np.zeros(30, int)
    axis = plot_map({"before": latents, "after": latents + 10}, labels, "pca").axes[0]
    before, after = (np.asarray(points.get_offsets()) for points in axis.collections)
    assert np.linalg.norm(after - before, axis=1) == pytest.approx(np.full(30, 10 * 8**0.5), rel=1e-3)
    assert [text.get_text() for text in axis.texts] == ["before", "after"]
    markers = [points.get_paths()[0].vertices for points in axis.collections]
    assert markers[0].shape != markers[1].shape
    assert axis.get_aspect() == 1


def test_a_map_of_clouds_that_do_not_go_together_is_refused():
    labels = np.arange(30) % 3
    with pytest.raises(ValueError, match="one width, and they have .*'a': 8, 'b': 9.: draw a map each"):
        plot_map({"a": cloud(), "b": cloud(d=9)}, labels)
    with pytest.raises(ValueError, match="all 30 latents of 'b' are equal"):
        plot_map({"a": cloud(), "b": np.ones((30, 8))}, labels)
    with pytest.raises(ValueError, match="there is no cloud"):
        plot_map({}, labels)
