"""Measures of a cloud of latents, and of how two compare.

`x_ND` and `y_NE` are latents (`np.ndarray` of shapes `(N, D)` and `(N, E)`), row i of both the same sample, and `labels_N`
their classes. Every measure raises a `ValueError` where clouds or labels do not fit each other, or a cloud is not finite, has
too few samples or classes, or is constant or of length 0 where it must not be; and an `ImportError` without scikit-learn.

Shape legend: N samples, D and E widths, C classes. All in float64; no array grows with the square of N.
"""

from collections.abc import Sequence

import numpy as np
from scipy.spatial import procrustes

from hf_colearn.utils.extras import extra


CHUNK = 1_000  # rows of a similarity matrix that are held at once
TIE = 1e-12  # cosines closer than this are equal but for rounding


def present(*arrays: np.ndarray) -> tuple[np.ndarray, ...]:
    """The rows that all arrays `(N, ...)` have, still paired: a row of nothing but NaN is a sample that lacks the modality.

    Raises:
        `ValueError`: If the arrays differ in their number of rows, or no row is left.
    """
    rows = [len(array) for array in arrays]
    if len(set(rows)) != 1:
        raise ValueError(f"row i must be the same sample in every array, and they have {rows} rows")
    absent_N = np.any([np.isnan(array.reshape(rows[0], -1)).all(axis=1) for array in arrays], axis=0)
    if absent_N.all():
        raise ValueError(f"none of the {rows[0]} samples has all {len(arrays)} of the modalities that are compared")
    return tuple(array[~absent_N] for array in arrays)


def linear_cka(x_ND: np.ndarray, y_NE: np.ndarray, debiased: bool = False) -> float:
    r"""How alike two clouds arrange the same samples: 1 for equal up to rotation, scale and shift, 0 for unrelated.

    \\(\|Y^T X\|_F^2 / (\|X^T X\|_F \|Y^T Y\|_F)\\) with centred features (Kornblith et al., "Similarity of Neural Network
    Representations Revisited", ICML 2019). It is biased upwards where there are few samples for the width: of N
    unrelated Gaussian samples with D dimensions it is about D / (D + N).

    Args:
        debiased (`bool`, *optional*, defaults to `False`): Whether to put the unbiased estimator of HSIC (Song et al., 2012)
            in all three places, of at least 4 samples: about 0 for unrelated clouds whatever N, at times below.
    """
    x_ND, y_NE = _pair(x_ND, y_NE, least=4 if debiased else 2, varied=True)
    x_ND, y_NE = x_ND - x_ND.mean(axis=0), y_NE - y_NE.mean(axis=0)
    between, of_x, of_y = (_hsic(a, b, debiased) for a, b in ((x_ND, y_NE), (x_ND, x_ND), (y_NE, y_NE)))
    if min(of_x, of_y) <= 0:
        raise ValueError(f"debiased CKA is not defined for these {len(x_ND)} samples: a cloud is not even like itself")
    return float(between / np.sqrt(of_x) / np.sqrt(of_y))


def procrustes_distance(x_ND: np.ndarray, y_NE: np.ndarray) -> float:
    r"""What the best rotation of one cloud leaves of the other: 0 for the same shape, 1 for nothing in common.

    The Procrustes statistic \\(1 - \|X^T Y\|_*^2\\) of the clouds centred and scaled to unit Frobenius norm: the squared
    residual after the best rotation or reflection and scale (`scipy.spatial.procrustes`; Gower, 1975), in [0, 1]. The
    narrower cloud is padded with zeros. It is biased downwards where N is not far above the widths: a rotation of many
    dimensions fits few samples.
    """
    x_ND, y_NE = _pair(x_ND, y_NE, least=2, varied=True)
    width = max(x_ND.shape[1], y_NE.shape[1])
    padded = [np.pad(z, ((0, 0), (0, width - z.shape[1]))) for z in (x_ND, y_NE)]
    return float(procrustes(*padded)[2])


def class_alignment(x_ND: np.ndarray, labels_N: np.ndarray) -> float:
    """Mean squared distance of normalised latents of one class: 0 (aligned) to 4 (opposite).

    The mean over samples of the mean over the others of their class; a sample that is alone in its class is left out. Source:
    the alignment of Wang & Isola, "Understanding Contrastive Representation Learning through Alignment and Uniformity on the
    Hypersphere" (ICML 2020), with exponent 2 and the class as the positive pair.
    """
    x_ND, labels_N = _labelled(x_ND, labels_N)
    of_classes = [z_nD for z_nD in _by_class(_normalised("x", x_ND), labels_N) if len(z_nD) > 1]
    if not of_classes:
        raise ValueError(f"no two of the {len(x_ND)} samples are of one class, so there is no positive pair")
    # The sum over ordered pairs of |a - b|^2 is 2 n sum |a - mean|^2, over n (n - 1) of them; n samples.
    total = sum(2 * len(z_nD) / (len(z_nD) - 1) * _scatter(z_nD) for z_nD in of_classes)
    return float(total / sum(map(len, of_classes)))


def uniformity(x_ND: np.ndarray) -> float:
    r"""How evenly normalised latents fill the sphere: 0 (all in one point) downwards, lower is more even.

    \\(\log \frac{2}{N (N - 1)} \sum_{i < j} \exp(-2 |x_i - x_j|^2)\\), at least -8; evenly spread over a sphere of many
    dimensions it goes to -4. Source: Wang & Isola (ICML 2020), t = 2.
    """
    unit_ND = _normalised("x", x_ND, least=2)
    n, total = len(unit_ND), 0.0
    for start in range(0, n, CHUNK):
        rows_BD = unit_ND[start : start + CHUNK]
        kernel = np.exp(-2 * np.maximum(2 - 2 * (rows_BD @ unit_ND[start:].T), 0))
        total += 2 * kernel.sum() - kernel[:, : len(rows_BD)].sum()  # the chunk with itself holds its pairs twice
    return float(np.log((total - n) / (n * (n - 1))))


def modality_gap(x_ND: np.ndarray, y_MD: np.ndarray) -> float:
    """Distance between the means of two modalities' normalised latents, from 0 to 2.

    As [`~hf_colearn.evaluation.modality_metrics.ModalityGap`] logs it; the clouds need not be paired. Source: section 4.2 of
    Liang et al., "Mind the Gap" (NeurIPS 2022).
    """
    x_ND, y_MD = _normalised_pair(x_ND, y_MD)
    return float(np.linalg.norm(x_ND.mean(axis=0) - y_MD.mean(axis=0)))


def retrieval_recall(x_ND: np.ndarray, y_ND: np.ndarray, k: Sequence[int] = (1, 5, 10)) -> dict[str, dict[int, float]]:
    """How often a sample's other modality is among the k nearest by cosine, over all N candidates.

    Ties are broken at random, in expectation: where g candidates are nearer than the right one and t as near, it is found
    with probability `(k - g) / (t + 1)`, cut to [0, 1]. So a modality that has collapsed to a point gives chance.

    Args:
        k (`Sequence[int]`, *optional*, defaults to `(1, 5, 10)`): Each from 1 to N.

    Returns:
        `dict[str, dict[int, float]]`: `"x_to_y"`, `"y_to_x"` and `"chance"` (k / N), each by k, in [0, 1].
    """
    x_ND, y_ND = _normalised_pair(*_pair(x_ND, y_ND))
    for count in k:
        if not 1 <= count <= len(x_ND):
            raise ValueError(f"recall@{count} is not defined among {len(x_ND)} samples: take k from 1 to their number")
    chance = {count: count / len(x_ND) for count in k}
    return {"x_to_y": _recall(x_ND, y_ND, k), "y_to_x": _recall(y_ND, x_ND, k), "chance": chance}


def cross_validated_probe(x_ND: np.ndarray, labels_N: np.ndarray, folds: int = 5, seed: int = 0) -> float:
    """Mean accuracy of a logistic regression on frozen latents over stratified folds, each held out once, in [0, 1].

    Features are standardised by the training folds' moments; scikit-learn's `LogisticRegression` with C = 1. Source:
    Alain & Bengio, "Understanding intermediate layers using linear classifier probes" (2016).

    Args:
        folds (`int`, *optional*, defaults to 5): At least 2; every class needs as many samples.
        seed (`int`, *optional*, defaults to 0): For the folds.
    """
    x_ND, labels_N = _labelled(x_ND, labels_N, varied=True)
    classes, counts = np.unique(labels_N, return_counts=True)
    if not 2 <= folds <= counts.min():
        raise ValueError(
            f"class {classes[counts.argmin()]} has {counts.min()} samples for {folds} folds: every class needs one in each "
            "fold, and two folds are the least"
        )
    with extra("report", "the linear probe needs scikit-learn"):
        from sklearn.linear_model import LogisticRegression
        from sklearn.model_selection import StratifiedKFold, cross_val_score
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler
        from threadpoolctl import threadpool_limits
    probe = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000))
    split = StratifiedKFold(folds, shuffle=True, random_state=seed)
    with threadpool_limits(limits=1):  # thousands of small products: threads would only wait for each other
        return float(cross_val_score(probe, x_ND, labels_N, cv=split, error_score="raise").mean())


def silhouette(x_ND: np.ndarray, labels_N: np.ndarray, max_samples: int = 2000, seed: int = 0) -> float:
    """Mean silhouette of the classes by Euclidean distance, from -1 (wrong) through 0 (overlap) to 1 (apart).

    (b - a) / max(a, b) of every sample, with a its mean distance to its class and b to the nearest other (Rousseeuw,
    1987; scikit-learn).

    Args:
        max_samples (`int`, *optional*, defaults to 2000): Of more samples, this many are drawn.
        seed (`int`, *optional*, defaults to 0): For drawing.
    """
    x_ND, labels_N = _labelled(x_ND, labels_N)
    drawn = np.random.default_rng(seed).permutation(len(x_ND))[:max_samples]
    x_ND, labels_N = _labelled(x_ND[drawn], labels_N[drawn], varied=True)
    if len(np.unique(labels_N)) == len(labels_N):
        raise ValueError(f"no two of the {len(labels_N)} samples are of one class, so there is no silhouette")
    with extra("report", "the silhouette needs scikit-learn"):
        from sklearn.metrics import silhouette_score
    return float(silhouette_score(x_ND, labels_N))


def fisher_ratio(x_ND: np.ndarray, labels_N: np.ndarray) -> float:
    r"""Scatter between the classes over scatter within them; 0 where all class means are equal, without an upper bound.

    \\(\mathrm{tr}\, S_B / \mathrm{tr}\, S_W = \sum_c n_c |m_c - m|^2 / \sum_c \sum_{i \in c} |x_i - m_c|^2\\) (Fisher, 1936, by
    traces). Labels that mean nothing give about (C - 1) / (N - C), not 0.
    """
    x_ND, labels_N = _labelled(x_ND, labels_N, varied=True)
    of_classes = _by_class(x_ND, labels_N)
    if all((z_nD == z_nD[0]).all() for z_nD in of_classes):
        count = len(of_classes)
        raise ValueError(f"each of the {count} classes is a single point, so there is no scatter within them")
    mean_D = x_ND.mean(axis=0)
    between = sum(len(z_nD) * np.square(z_nD.mean(axis=0) - mean_D).sum() for z_nD in of_classes)
    return float(between / sum(map(_scatter, of_classes)))


def _by_class(x_ND: np.ndarray, labels_N: np.ndarray) -> list[np.ndarray]:
    return [x_ND[labels_N == label] for label in np.unique(labels_N)]


def _scatter(x_ND: np.ndarray) -> float:
    return float(np.square(x_ND - x_ND.mean(axis=0)).sum())


def _hsic(x_ND: np.ndarray, y_NE: np.ndarray, debiased: bool) -> float:
    """The inner product of two centred Gram matrices, up to a factor, through the (D, E) matrix between the features."""
    n, product = len(x_ND), float(np.square(x_ND.T @ y_NE).sum())
    if not debiased:
        return product
    # Song et al.'s estimator of centred features, from the diagonals of the two Gram matrices.
    x_N, y_N = np.square(x_ND).sum(axis=1), np.square(y_NE).sum(axis=1)
    return float(product - n / (n - 2) * (x_N @ y_N) + x_N.sum() * y_N.sum() / ((n - 1) * (n - 2)))


def _recall(queries_ND: np.ndarray, keys_ND: np.ndarray, k: Sequence[int]) -> dict[int, float]:
    n = len(queries_ND)
    found = dict.fromkeys(k, 0.0)
    for start in range(0, n, CHUNK):
        cosines_BN = queries_ND[start : start + CHUNK] @ keys_ND.T
        right_B1 = np.take_along_axis(cosines_BN, np.arange(start, start + len(cosines_BN))[:, None], axis=1)
        nearer_B = (cosines_BN > right_B1 + TIE).sum(axis=1)
        as_near_B = (cosines_BN >= right_B1 - TIE).sum(axis=1) - nearer_B  # the right one among them
        for count in k:
            found[count] += np.clip((count - nearer_B) / as_near_B, 0, 1).sum()
    return {count: float(hits / n) for count, hits in found.items()}


def _checked(name: str, x_ND: np.ndarray, least: int = 1, varied: bool = False) -> np.ndarray:
    """The cloud in float64; refused where it has fewer than `least` rows, or where it must vary and is one point."""
    x_ND = np.asarray(x_ND, dtype=np.float64)
    if x_ND.ndim != 2 or x_ND.shape[1] == 0:
        raise ValueError(f"cloud '{name}' must hold latents [N, D], got shape {x_ND.shape}")
    if len(x_ND) < least:
        raise ValueError(f"cloud '{name}' has {len(x_ND)} samples, and {least} are the least that says anything")
    if bad := int((~np.isfinite(x_ND).all(axis=1)).sum()):
        raise ValueError(
            f"{bad} of {len(x_ND)} latents of cloud '{name}' are not finite, so nothing can be said of them"
        )
    if varied and (x_ND == x_ND[0]).all():
        raise ValueError(
            f"cloud '{name}' has collapsed: its {len(x_ND)} latents are all equal, so nothing can be compared"
        )
    return x_ND


def _normalised(name: str, x_ND: np.ndarray, least: int = 1) -> np.ndarray:
    x_ND = _checked(name, x_ND, least)
    lengths_N1 = np.linalg.norm(x_ND, axis=1, keepdims=True)
    if zeros := int((lengths_N1 == 0).sum()):
        raise ValueError(f"{zeros} of {len(x_ND)} latents of cloud '{name}' have length 0, and so no direction")
    return x_ND / lengths_N1


def _normalised_pair(x_ND: np.ndarray, y_MD: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    x_ND, y_MD = _normalised("x", x_ND), _normalised("y", y_MD)
    if x_ND.shape[1] != y_MD.shape[1]:
        raise ValueError(f"cloud 'x' has width {x_ND.shape[1]} and 'y' {y_MD.shape[1]}: they must be equal")
    return x_ND, y_MD


def _pair(x_ND: np.ndarray, y_NE: np.ndarray, least: int = 1, varied: bool = False) -> tuple[np.ndarray, np.ndarray]:
    x_ND, y_NE = _checked("x", x_ND, least, varied), _checked("y", y_NE, least, varied)
    if len(x_ND) != len(y_NE):
        raise ValueError(
            f"row i must be the same sample in both clouds, and they have {len(x_ND)} and {len(y_NE)} rows"
        )
    return x_ND, y_NE


def _labelled(x_ND: np.ndarray, labels_N: np.ndarray, varied: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Latents with their labels; where they must vary, of two classes or more."""
    x_ND, labels_N = _checked("x", x_ND, varied=varied), np.asarray(labels_N)
    if labels_N.shape != (len(x_ND),):
        raise ValueError(f"need one label for each of the {len(x_ND)} latents of 'x', got shape {labels_N.shape}")
    if varied and (labels_N == labels_N[0]).all():
        raise ValueError(f"all {len(labels_N)} samples are of class {labels_N[0]}: separability needs two classes")
    return x_ND, labels_N
