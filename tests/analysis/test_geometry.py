import hf_colearn  # noqa: F401, I001  # first: its guard makes `import evaluate` work beside a CPU torch

import sys
import tracemalloc

import numpy as np
import pytest
import torch
from scipy.special import i0
from scipy.stats import ortho_group

from hf_colearn.analysis.latents.geometry import (
    class_alignment,
    cross_validated_probe,
    fisher_ratio,
    linear_cka,
    modality_gap,
    present,
    procrustes_distance,
    retrieval_recall,
    silhouette,
    uniformity,
)
from hf_colearn.evaluation.modality_metrics import ModalityGap


def cloud(n=40, d=3, seed=0, scale=1.0, shift=0.0):
    return np.random.default_rng(seed).normal(size=(n, d)) * scale + shift


def rotation(d, seed=0):
    return ortho_group.rvs(d, random_state=seed)


def circle(degrees):
    return np.stack([np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))], axis=1)


# ---- which rows there are ----


def test_rows_that_lack_a_modality_are_dropped_from_all():
    x, y = cloud(5), cloud(5, 2, 1)
    x[1], y[3] = np.nan, np.nan
    kept_x, kept_y, labels = present(x, y, np.arange(5))
    assert labels.tolist() == [0, 2, 4]
    assert (kept_x == x[[0, 2, 4]]).all() and (kept_y == y[[0, 2, 4]]).all()
    # One NaN in a row is a diverged latent, not an absent one.
    x[0, 0] = np.nan
    assert np.isnan(present(x)[0][0, 0])
    with pytest.raises(ValueError, match="1 of 4 latents of cloud 'x' are not finite"):
        linear_cka(*present(x, cloud(5)))


def test_no_row_in_common_is_refused():
    x, y = cloud(2), cloud(2)
    x[0], y[1] = np.nan, np.nan
    with pytest.raises(ValueError, match="none of the 2 samples has all 2"):
        present(x, y)
    with pytest.raises(ValueError, match=r"they have \[2, 3\] rows"):
        present(x, cloud(3))


# ---- how alike two clouds are ----


@pytest.mark.parametrize("debiased", [False, True])
@pytest.mark.parametrize(("n", "d"), [(60, 4), (6, 20)])
def test_cka_and_procrustes_do_not_see_rotation_scale_and_shift(n, d, debiased):
    x = cloud(n, d)
    moved = -3 * x @ rotation(d) + 7
    assert linear_cka(x, moved, debiased=debiased) == pytest.approx(1)
    assert procrustes_distance(x, moved) == pytest.approx(0, abs=1e-12)
    stretched = x * np.geomspace(1, 10, d)
    assert linear_cka(x, stretched) < 0.95 and procrustes_distance(x, stretched) > 0.01


def test_cka_by_hand():
    # x = (1, -1, 0), y = (1, 0, -1), centred: (x.y)^2 / (|x|^2 |y|^2) = 1 / 4. Of orthogonal features it is 0.
    x, y = np.array([[1.0], [-1], [0]]), np.array([[1.0], [0], [-1]])
    assert linear_cka(x, y) == pytest.approx(0.25)
    assert linear_cka(x, np.array([[1.0], [1], [-2]])) == pytest.approx(0, abs=1e-15)
    # Features e1, e2 of y = x with the second feature gone: |X'Y|_F = 1, |X'X|_F = sqrt 2, |Y'Y|_F = 1.
    square = np.array([[1.0, 1], [1, -1], [-1, 1], [-1, -1]])
    assert linear_cka(square, square[:, :1]) == pytest.approx(2**-0.5)


def test_cka_of_unrelated_clouds_is_biased_as_said_and_debiased_is_not():
    pairs = [(cloud(100, 50, i), cloud(100, 50, 1000 + i)) for i in range(20)]
    assert np.mean([linear_cka(*pair) for pair in pairs]) == pytest.approx(50 / 150, abs=0.02)
    assert np.mean([linear_cka(*pair, debiased=True) for pair in pairs]) == pytest.approx(0, abs=0.02)


def test_debiased_cka_is_the_published_estimator():
    def hsic(k, h):  # equation 5 of Song et al., 2012, of Gram matrices without their diagonal
        n = len(k)
        k, h = k - np.diag(np.diag(k)), h - np.diag(np.diag(h))
        parts = np.trace(k @ h) + k.sum() * h.sum() / (n - 1) / (n - 2) - 2 / (n - 2) * k.sum(axis=0) @ h.sum(axis=0)
        return parts / n / (n - 3)

    x = cloud(12, 5, shift=2)
    y = np.hstack([x[:, :2] ** 2, cloud(12, 6, 1)])
    k, h = x @ x.T, y @ y.T
    expected = hsic(k, h) / np.sqrt(hsic(k, k) * hsic(h, h))
    assert linear_cka(x, y, debiased=True) == pytest.approx(expected)


def test_procrustes_by_hand():
    # Corners of a square against two points on a line, at half the corners each: X'Y of unit norms is (1/sqrt 2, 0), its
    # nuclear norm squared 1/2. The narrower cloud is padded.
    square = np.array([[1.0, 1], [1, -1], [-1, 1], [-1, -1]])
    assert procrustes_distance(square, 5 * square[:, :1]) == pytest.approx(0.5)
    assert procrustes_distance(square[:, :1], square[:, 1:]) == pytest.approx(1)


def test_clouds_that_cannot_be_compared_are_refused():
    for compare in (linear_cka, procrustes_distance):
        with pytest.raises(ValueError, match="cloud 'y' has collapsed: its 40 latents are all equal"):
            compare(cloud(), np.ones((40, 3)))
        with pytest.raises(ValueError, match="they have 40 and 39 rows"):
            compare(cloud(), cloud(39))
        with pytest.raises(ValueError, match="has 1 samples, and 2 are the least"):
            compare(cloud(1), cloud(1))
        with pytest.raises(ValueError, match="1 of 40 latents of cloud 'x' are not finite"):
            compare(np.where(np.arange(120).reshape(40, 3) == 4, np.inf, 1.0), cloud())
    with pytest.raises(ValueError, match="has 3 samples, and 4 are the least"):
        linear_cka(cloud(3), cloud(3), debiased=True)
    with pytest.raises(ValueError, match=r"must hold latents \[N, D\], got shape \(40,\)"):
        linear_cka(cloud()[:, 0], cloud())
    spikes = np.array([[1.0, 0], [0, 0], [0, 0], [0, 0]])  # one sample apart from the rest: no pair is alike
    with pytest.raises(ValueError, match="debiased CKA is not defined for these 4 samples"):
        linear_cka(spikes, cloud(4), debiased=True)


# ---- on the sphere ----


def test_class_alignment_counts_every_sample_once():
    # Class 0 at 0 and 90 degrees: 2. Class 1 at 0, 0 and 180: pairs of 0, 4 and 4, mean 8/3. Class 2 is alone.
    x, labels = circle([0, 90, 0, 0, 180, 45]) * 3, np.array([0, 0, 1, 1, 1, 2])
    assert class_alignment(x, labels) == pytest.approx((2 * 2 + 3 * 8 / 3) / 5)
    with pytest.raises(ValueError, match="no two of the 3 samples are of one class"):
        class_alignment(x[:3], np.array([0, 1, 2]))


def test_uniformity_on_the_circle_is_the_bessel_function():
    # E exp(-2 (2 - 2 cos t)) = exp(-4) I0(4), of t uniform; n evenly spaced points integrate it exactly, with the n pairs
    # of a point and itself, whose term is 1.
    n = 1500
    mean = (n * n * np.exp(-4) * i0(4) - n) / (n * (n - 1))
    assert uniformity(circle(np.arange(n) * 360 / n)) == pytest.approx(np.log(mean), rel=1e-12)


def test_uniformity_on_the_sphere_is_the_closed_form():
    # In three dimensions the cosine is uniform in [-1, 1]: exp(-4) sinh(4) / 4.
    assert uniformity(cloud(4000, 3, scale=9)) == pytest.approx(np.log(np.exp(-4) * np.sinh(4) / 4), abs=0.01)
    assert uniformity(circle([0, 180])) == pytest.approx(-8)
    assert uniformity(np.full((5, 3), 0.3)) == pytest.approx(0, abs=1e-12)
    assert uniformity(cloud(500, 2000)) == pytest.approx(-4, abs=0.01)


def test_modality_gap_is_the_one_that_training_logs():
    x, y = cloud(30, 4, shift=1), cloud(30, 4, 1)
    curves = ModalityGap()
    latents = {"image": torch.from_numpy(x), "audio": torch.from_numpy(y)}
    logged = curves.curves(curves.sums({"modality_latents": latents}, None, None, training=False))
    assert modality_gap(x, y) == pytest.approx(logged["modality_gap_image_audio"], rel=1e-5)
    assert modality_gap(circle([0, 0]), circle([180])) == pytest.approx(2)
    assert modality_gap(circle([0, 90]), circle([0, 90]) * 7) == pytest.approx(0, abs=1e-15)


def test_latents_without_a_direction_are_refused():
    x = cloud()
    x[[4, 9]] = 0
    for measure in (modality_gap, retrieval_recall):
        with pytest.raises(ValueError, match="2 of 40 latents of cloud 'y' have length 0"):
            measure(cloud(), x)
        with pytest.raises(ValueError, match="cloud 'x' has width 3 and 'y' 4"):
            measure(cloud(), cloud(d=4))
    with pytest.raises(ValueError, match="length 0"):
        uniformity(x)
    with pytest.raises(ValueError, match="length 0"):
        class_alignment(x, np.zeros(40))
    with pytest.raises(ValueError, match="has 1 samples, and 2 are the least"):
        uniformity(cloud(1))


# ---- retrieval ----


def test_recall_of_equal_clouds_is_one_and_of_a_permutation_its_fixed_points():
    x = cloud(2500, 16)  # several chunks
    found = retrieval_recall(x, 3 * x)
    assert found["x_to_y"] == found["y_to_x"] == {1: 1.0, 5: 1.0, 10: 1.0}
    assert found["chance"] == {1: 1 / 2500, 5: 5 / 2500, 10: 10 / 2500}
    order = np.arange(2500)
    order[:1000] = np.roll(order[:1000], 1)
    assert retrieval_recall(x, x[order], k=[1])["x_to_y"][1] == pytest.approx(0.6)


def test_recall_by_hand_differs_between_the_directions():
    # From x every one finds its own first: 0 finds 21, 30 finds 34, 40 finds 36. Back, 21 finds 30, then 40, then 0.
    found = retrieval_recall(circle([0, 30, 40]), circle([21, 34, 36]), k=(1, 2, 3))
    assert found["x_to_y"] == {1: 1, 2: 1, 3: 1}
    assert found["y_to_x"] == pytest.approx({1: 2 / 3, 2: 2 / 3, 3: 1})
    # 10 finds 0 before its own at 80.
    found = retrieval_recall(circle([0, 10, 90]), circle([0, 80, 91]), k=(1, 2, 3))
    assert found["x_to_y"] == pytest.approx({1: 2 / 3, 2: 1, 3: 1})


def test_a_collapsed_modality_retrieves_by_chance():
    constant = np.tile(cloud(1, 7), (50, 1)).astype(np.float32)
    for x, y in ((constant, constant), (cloud(50, 7), constant), (constant, cloud(50, 7))):
        found = retrieval_recall(x, y)
        assert found["x_to_y"][5] == pytest.approx(0.1)
        assert found["x_to_y"][10] == pytest.approx(0.2)
    # Ties beside a nearer one: 1 is found at place 2 or 3.
    found = retrieval_recall(circle([0, 0, 0]), circle([0, 30, -30]), k=(1, 2, 3))["x_to_y"]
    assert found == pytest.approx({1: 1 / 3, 2: (1 + 1 / 2 + 1 / 2) / 3, 3: 1})


def test_a_k_that_is_no_rank_is_refused():
    with pytest.raises(ValueError, match="recall@10 is not defined among 8 samples"):
        retrieval_recall(cloud(8), cloud(8))
    with pytest.raises(ValueError, match="recall@0"):
        retrieval_recall(cloud(8), cloud(8), k=[0])


def test_memory_does_not_grow_with_the_square_of_the_samples():
    x, y = cloud(8000, 4), cloud(8000, 4, 1)  # 8,000 x 8,000 would be 512 MB
    tracemalloc.start()
    try:
        uniformity(x), retrieval_recall(x, y), linear_cka(x, y), class_alignment(x, np.arange(8000) % 2)
        assert tracemalloc.get_traced_memory()[1] < 300e6
    finally:
        tracemalloc.stop()


# ---- separability ----


def test_probe_reads_what_is_linear_and_nothing_else():
    x = cloud(400, 5)
    linear, product = (x[:, 0] + x[:, 1] > 0).astype(int), (x[:, 0] * x[:, 1] > 0).astype(int)
    x[:, 0] *= 1e-4  # standardised away
    assert cross_validated_probe(x, linear) > 0.95
    assert abs(cross_validated_probe(x, product) - 0.5) < 0.12


def test_folds_hold_every_sample_out():
    # A feature that names the sample: fitted perfectly, and worthless for one that was held out.
    x, labels = np.eye(60), np.arange(60) % 2
    assert cross_validated_probe(x, labels, folds=3) < 0.7
    assert cross_validated_probe(x, labels, seed=4) == cross_validated_probe(x, labels, seed=4)


def test_silhouette_by_hand():
    # 0 and 1 against 4 and 6. a = 1, b = (4 + 6) / 2 = 5; 1, (3 + 5) / 2 = 4; 2, (4 + 3) / 2 = 3.5; 2, (6 + 5) / 2 = 5.5.
    x, labels = np.array([[0.0], [1], [4], [6]]), np.array([0, 0, 1, 1])
    assert silhouette(x, labels) == pytest.approx((4 / 5 + 3 / 4 + 1.5 / 3.5 + 3.5 / 5.5) / 4)


def test_silhouette_of_many_is_that_of_a_draw():
    labels = np.arange(600) % 3
    x = cloud(600, 4) + 2 * np.eye(4)[labels]
    whole, some = silhouette(x, labels), silhouette(x, labels, max_samples=200)
    assert some == silhouette(x, labels, max_samples=200) != silhouette(x, labels, max_samples=200, seed=1)
    assert some == pytest.approx(whole, abs=0.05) and some != whole


def test_fisher_ratio_by_hand():
    # Means 1 and 6, of all 3; between 3 (1 - 3)^2 + 2 (6 - 3)^2 = 30; within 1 + 0 + 1 + 4 + 4 = 10. A second feature, which
    # is the same in both classes but scatters by 5, adds to the lower sum alone.
    x, labels = np.array([[0.0], [1], [2], [4], [8]]), np.array([7, 7, 7, 9, 9])
    assert fisher_ratio(x, labels) == pytest.approx(3)
    scatter = np.array([[0.0], [0], [0], [5], [-5]]) / 10**0.5
    assert fisher_ratio(np.hstack([x, scatter]), labels) == pytest.approx(30 / 15)
    assert fisher_ratio(100 * x + 5, labels) == pytest.approx(3)


def test_labels_without_meaning_give_the_chance_that_is_said():
    ratios = [fisher_ratio(cloud(50, 20, seed), np.arange(50) % 5) for seed in range(50)]
    assert np.mean(ratios) == pytest.approx(4 / 45, rel=0.05)


def test_what_has_no_separability_is_refused():
    labels = np.arange(40) % 2
    for measure in (cross_validated_probe, silhouette, fisher_ratio):
        with pytest.raises(ValueError, match="all 40 samples are of class 3"):
            measure(cloud(), np.full(40, 3))
        with pytest.raises(ValueError, match="has collapsed: its 40 latents are all equal"):
            measure(np.ones((40, 3)), labels)
        with pytest.raises(ValueError, match="40 of 40 latents .* are not finite"):
            measure(np.full((40, 3), np.nan), labels)
        with pytest.raises(ValueError, match=r"one label for each of the 40 latents of '\w+', got shape \(39,\)"):
            measure(cloud(), labels[1:])
    with pytest.raises(ValueError, match="class 1 has 2 samples for 5 folds"):
        cross_validated_probe(cloud(), (np.arange(40) < 2).astype(int))
    with pytest.raises(ValueError, match="no two of the 40 samples are of one class"):
        silhouette(cloud(), np.arange(40))
    with pytest.raises(ValueError, match="each of the 2 classes is a single point"):
        fisher_ratio(np.eye(2)[labels], labels)


def test_without_scikit_learn_it_says_what_to_install(monkeypatch):
    for name in ("sklearn.linear_model", "sklearn.metrics"):
        monkeypatch.setitem(sys.modules, name, None)
    for measure in (silhouette, cross_validated_probe):
        with pytest.raises(ImportError, match=r"needs scikit-learn: pip install 'hf-colearn\[report\]'"):
            measure(cloud(), np.arange(40) % 2)
    assert fisher_ratio(cloud(), np.arange(40) % 2) > 0
