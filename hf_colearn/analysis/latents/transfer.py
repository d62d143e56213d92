"""What a teacher's latents know of the labels, and what of it a student's features can follow, by ridge regressions.

Shape legend: N samples, D features, P <= 128 principal components, n labelled samples, u samples without a label, m of them
with a pair, b samples of a fold, C classes or values of a label, R repeats.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from hf_colearn.utils.extras import extra


WIDTH = 128  # principal components that are kept of a space: bounds the time
PENALTIES = np.logspace(-2, 4, 13)  # from which every regression chooses by its own leave-one-out error
ROUNDS = 2  # of pseudo-labels in self-training
DRAWS = 199  # permutations of the pairs
FOLDS = 5


@dataclass(frozen=True)
class Labelled:
    """The labels, and which samples have one.

    Args:
        rows, others (`np.ndarray` of shapes `(n,)` and `(u,)`): The samples with a label, and those without.
        values (`np.ndarray` of shape `(n, C)`): One-hot for classes.
        classes (`np.ndarray` of shape `(n,)`, *optional*): From 0; None for values.
    """

    rows: np.ndarray
    others: np.ndarray
    values: np.ndarray
    classes: np.ndarray | None

    def decide(self, p_bC: np.ndarray) -> np.ndarray:
        """Predictions as labels: one-hot for classes."""
        return p_bC if self.classes is None else np.eye(p_bC.shape[1])[p_bC.argmax(axis=1)]

    def scores(self, p_bC: np.ndarray, y_bC: np.ndarray) -> np.ndarray:
        """Of each sample: whether the class is right; for values the explained variance, whose mean is R2."""
        if self.classes is not None:
            return (p_bC.argmax(axis=1) == y_bC.argmax(axis=1)).astype(float)
        return 1 - (np.square(p_bC - y_bC) / np.maximum(self.values.var(axis=0), 1e-12)).mean(axis=1)


@dataclass(frozen=True)
class HeldOut:
    """Scores of the labelled samples, each held out once a repeat, `(R, n)`.

    Args:
        student (`np.ndarray`): Of a probe of the student's features: the labels alone.
        self_training (`np.ndarray`): The same, retrained on its own predictions for the samples without a label.
        teacher (`np.ndarray`): Of a probe of the teacher's latents; NaN where a sample has no pair.
    """

    student: np.ndarray
    self_training: np.ndarray
    teacher: np.ndarray


def principal_components(x_ND: np.ndarray) -> np.ndarray:
    """Standardised dimensions, reduced to the 128 leading principal components where wider; rows of NaN stay so."""
    with extra("report", "the probes are scikit-learn's"):
        from sklearn.decomposition import PCA
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler
    has_N = np.isfinite(x_ND).all(axis=1)
    kept = min(WIDTH, max(1, int(has_N.sum()) - 1), x_ND.shape[1])
    steps = [PCA(kept, random_state=0)] if kept < x_ND.shape[1] else []
    reduced_NP = np.full((len(x_ND), kept), np.nan)
    if has_N.any():
        reduced_NP[has_N] = make_pipeline(StandardScaler(), *steps).fit_transform(x_ND[has_N])
    return reduced_NP


def held_out_scores(
    x_NP: np.ndarray, t_NP: np.ndarray, labelled: Labelled, folds: int, repeats: int, seed: int
) -> HeldOut:
    """Probes at the label budget, by folds that are stratified by class; no probe sees a label of the fold held out.

    Args:
        x_NP, t_NP (`np.ndarray`): Features and the teacher's latents, rows of NaN where there is no pair.
        labelled ([`Labelled`]): Every class has at least `folds` samples.
        folds, repeats, seed (`int`): Of the cross-validation.
    """
    paired_N, rows_n, y_nC = np.isfinite(t_NP).all(axis=1), labelled.rows, labelled.values
    found = HeldOut(*(np.full((repeats, len(rows_n)), np.nan) for _ in range(3)))
    for repeat, train, test in _splits(labelled, folds, repeats, seed):
        probes = student_probes(x_NP, labelled, train)
        for scores, probe in zip((found.student, found.self_training), probes, strict=True):
            scores[repeat, test] = labelled.scores(probe(x_NP[rows_n[test]]), y_nC[test])
        taught = train[paired_N[rows_n[train]]]
        shown = test[paired_N[rows_n[test]]]
        if len(taught) > 1 and len(shown):
            teacher = _ridge(t_NP[rows_n[taught]], y_nC[taught])
            found.teacher[repeat, shown] = labelled.scores(teacher(t_NP[rows_n[shown]]), y_nC[shown])
    return found


def student_probes(x_NP: np.ndarray, labelled: Labelled, train: np.ndarray) -> list[Callable]:
    """The probe of the labels alone, and the one that self-training leaves: confidence plays no part in it."""
    x_nP, y_nC, x_uP = x_NP[labelled.rows[train]], labelled.values[train], x_NP[labelled.others]
    alone = probe = _ridge(x_nP, y_nC)
    for _ in range(ROUNDS if len(x_uP) else 0):
        pseudo_uC = labelled.decide(probe(x_uP))
        probe = _ridge(np.concatenate([x_nP, x_uP]), np.concatenate([y_nC, pseudo_uC]))
    return [alone, probe]


@dataclass(frozen=True)
class Agreement:
    """How far predictions agree with the teacher's probe on pairs without a label, `(m,)` each.

    Args:
        student, self_training (`np.ndarray`): Of the student's probes, which know nothing of the pairs.
        transfer (`np.ndarray`): Of the teacher's probe, reading latents that are predicted from the student's features by a
            regression that was fitted without the pair.
        explained_variance (`float`): R2 of these predicted latents, all dimensions together.
    """

    student: np.ndarray
    self_training: np.ndarray
    transfer: np.ndarray
    explained_variance: float


def agreement(x_NP: np.ndarray, t_NP: np.ndarray, labelled: Labelled, seed: int) -> Agreement:
    """What a student would take over of the teacher: its decisions on the pairs without a label."""
    paired_N = np.isfinite(t_NP).all(axis=1)
    pairs_m = labelled.others[paired_N[labelled.others]]
    everyone = np.arange(len(labelled.rows))
    taught = everyone[paired_N[labelled.rows]]
    teacher = _ridge(t_NP[labelled.rows[taught]], labelled.values[taught])
    said_mC = labelled.decide(teacher(t_NP[pairs_m]))
    predicted_mP = _cross_fitted(x_NP, t_NP, pairs_m, labelled.rows[taught], seed)
    predictions = [probe(x_NP[pairs_m]) for probe in student_probes(x_NP, labelled, everyone)]
    predictions.append(teacher(predicted_mP))
    alone_m, self_training_m, transfer_m = (labelled.scores(p_mC, said_mC) for p_mC in predictions)
    return Agreement(alone_m, self_training_m, transfer_m, _explained_variance(t_NP[pairs_m], predicted_mP))


def _cross_fitted(x_NP: np.ndarray, t_NP: np.ndarray, pairs_m: np.ndarray, known: np.ndarray, seed: int) -> np.ndarray:
    """The latents that ridge regression predicts of pairs, each from the folds that it is not in and the `known` pairs."""
    with extra("report", "the probes are scikit-learn's"):
        from sklearn.model_selection import KFold
    predicted_mP = np.empty_like(t_NP[pairs_m])
    for train, test in KFold(FOLDS, shuffle=True, random_state=seed).split(pairs_m):
        rows = np.concatenate([pairs_m[train], known])
        predicted_mP[test] = _ridge(x_NP[rows], t_NP[rows])(x_NP[pairs_m[test]])
    return predicted_mP


def _explained_variance(t_mP: np.ndarray, predicted_mP: np.ndarray) -> float:
    """R2 over all dimensions together; 0 for latents that are all the same."""
    total = float(np.square(t_mP - t_mP.mean(axis=0)).sum())
    return 1 - float(np.square(t_mP - predicted_mP).sum()) / total if total > 1e-9 else 0.0


def permutation_p_value(x_mP: np.ndarray, t_mP: np.ndarray, groups_m: np.ndarray | None, seed: int) -> float:
    r"""Of "features and latents of a pair have nothing to do with each other", or nothing beyond the group that they are of.

    The statistic is linear HSIC, \\(\|X^T T\|_F^2\\) of centred spaces (Gretton et al., ALT 2005), against 199 permutations
    of the pairs; with groups (classes) both are centred and permuted within them. It is at least 1 / 200.
    """
    rng = np.random.default_rng(seed)
    groups_m = np.zeros(len(x_mP), dtype=int) if groups_m is None else groups_m
    members = [np.flatnonzero(groups_m == group) for group in np.unique(groups_m)]
    x_mP, t_mP = x_mP.copy(), t_mP.copy()
    for rows in members:
        x_mP[rows] -= x_mP[rows].mean(axis=0)
        t_mP[rows] -= t_mP[rows].mean(axis=0)

    def statistic(order: np.ndarray) -> float:
        return float(np.square(x_mP.T @ t_mP[order]).sum())

    own, order, above = statistic(np.arange(len(x_mP))), np.arange(len(x_mP)), 0
    for _ in range(DRAWS):
        for rows in members:
            order[rows] = rng.permutation(rows)
        above += statistic(order) >= own * (1 - 1e-9)
    return (1 + above) / (1 + DRAWS)


def _ridge(x_nP: np.ndarray, y_nC: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """A ridge regression's prediction; its penalty has the least leave-one-out error on these samples."""
    with extra("report", "the probes are scikit-learn's"):
        from sklearn.linear_model import RidgeCV
    fitted: Any = RidgeCV(alphas=PENALTIES).fit(x_nP, y_nC)
    return lambda x_bP: fitted.predict(x_bP).reshape(len(x_bP), -1)  # scikit-learn drops a dimension of one value


def _splits(labelled: Labelled, folds: int, repeats: int, seed: int) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    with extra("report", "the probes are scikit-learn's"):
        from sklearn.model_selection import KFold, StratifiedKFold
    of_kind = KFold if labelled.classes is None else StratifiedKFold
    for repeat in range(repeats):
        split = of_kind(folds, shuffle=True, random_state=seed + repeat)
        for train, test in split.split(labelled.values, labelled.classes):
            yield repeat, train, test
