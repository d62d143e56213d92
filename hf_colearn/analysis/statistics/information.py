"""What one modality tells of the label beyond another, and what each is worth in a model of several.

Shapes: n samples, D dimensions of a latent (each modality has its own), C classes, M modalities.
"""

import itertools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import combinations, permutations
from math import factorial, isfinite

import numpy as np
from scipy.stats import norm

from hf_colearn.utils.extras import extra


MAX_DIM = 64  # of a modality's latents, as the probes see them
INVERSE_PENALTIES = (1e-3, 2e-2, 0.5, 10.0)  # scikit-learn's C, from which the probes choose


@dataclass(frozen=True)
class Nats:
    """A mean over samples in nats, with its standard error and 95% normal interval."""

    mean: float
    standard_error: float
    low: float
    high: float


@dataclass(frozen=True)
class Reduction:
    """By how much a probe's cross-entropy falls when it sees `modality` beside `given`."""

    modality: str
    given: str
    nats: Nats

    @property
    def sentence(self) -> str:
        """What the interval allows to say."""
        size = f"{self.nats.mean:+.3f} [{self.nats.low:+.3f}, {self.nats.high:+.3f}] nats"
        if self.nats.low > 0:
            return f"'{self.modality}' tells of the label what '{self.given}' alone does not: {size}."
        return f"no reliable sign that '{self.modality}' tells of the label more than '{self.given}' alone: {size}."


@dataclass(frozen=True)
class Information:
    """What [`cross_entropy_reduction`] found.

    Args:
        cross_entropy (`dict[tuple[str, ...], Nats]`): Of the label, held-out, from no modality (`()`, the classes'
            frequencies), each one and each pair, in the order of the latents.
        reductions (`tuple[Reduction, ...]`): One for every ordered pair of modalities.
        samples, lacking (`int`): Samples that were probed, and that were left out because they lack a modality.
    """

    cross_entropy: dict[tuple[str, ...], Nats]
    reductions: tuple[Reduction, ...]
    samples: int
    lacking: int


def cross_entropy_reduction(
    latents: Mapping[str, np.ndarray], labels: np.ndarray, folds: int = 5, seed: int = 0, max_samples: int = 2000
) -> Information:
    r"""How much a second modality tells of the label: \\(CE(y|x_i) - CE(y|x_i, x_j)\\) by held-out linear probes.

    A probe's cross-entropy is an **upper bound** of the conditional entropy \\(H(y|x)\\), since it can use only what a linear
    classifier reads. The difference of two bounds estimates the conditional mutual information \\(I(y; x_j|x_i)\\) and
    bounds it from neither side: it misses what only both modalities' product tells, and it may be **negative**, where the
    second modality gives the probe more to overfit than to learn from.

    A probe is an L2-penalised multinomial logistic regression on standardised latents, reduced to their 64 leading principal
    components where wider. Scaling, projection and the penalty (C of 0.001 to 10, by 3-fold cross-validation of the log loss)
    are fitted inside the training folds, and every sample is predicted by the one probe that never saw it. The intervals are
    over samples, paired within a difference; they leave out that other training folds would give other probes.

    Args:
        latents (`dict[str, np.ndarray]`): By modality, `[n, D]`; a row of NaN is a sample that lacks the modality. Only
            samples that have all modalities are probed.
        labels (`np.ndarray` of shape `(n,)`): Integers.
        folds (`int`, *optional*, defaults to 5): At least 2; a class needs twice as many samples.
        seed (`int`, *optional*, defaults to 0): Of the folds, and of the draw of samples.
        max_samples (`int`, *optional*, defaults to 2000): Of more, so many are drawn at random: bounds time and memory.

    Raises:
        ImportError: If scikit-learn is missing.
        ValueError: If there are fewer than two modalities or classes, too few samples of a class, latents that are constant,
            infinite or NaN in part, or shapes that differ.
    """
    if folds < 2:
        raise ValueError(f"folds={folds} leaves nothing to hold out: pass at least 2.")
    names, labels = list(latents), np.asarray(labels)
    x, has_all_n = _checked(latents, labels)
    rows = np.flatnonzero(has_all_n)
    rows = np.sort(np.random.default_rng(seed).permutation(rows)[:max_samples])
    x = {name: x_nD[rows] for name, x_nD in x.items()}
    classes, y_n, counts_C = np.unique(labels[rows], return_inverse=True, return_counts=True)
    _check_enough(x, classes, counts_C, folds)

    subsets: list[tuple[str, ...]] = [(), *((name,) for name in names), *combinations(names, 2)]
    losses = {subset: _held_out_losses([x[name] for name in subset], y_n, folds, seed) for subset in subsets}
    reductions = tuple(
        Reduction(other, name, _mean(losses[name,] - losses[tuple(n for n in names if n in (name, other))]))
        for name, other in permutations(names, 2)
    )
    cross_entropy = {subset: _mean(losses_n) for subset, losses_n in losses.items()}
    return Information(cross_entropy, reductions, len(rows), int((~has_all_n).sum()))


def _checked(latents: Mapping[str, np.ndarray], labels: np.ndarray) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """The latents as float64 arrays, and which samples have all of them."""
    if len(latents) < 2:
        found = f"only '{next(iter(latents))}'" if latents else "none"
        raise ValueError(f"what a modality tells beyond another needs latents of at least two, and there are {found}.")
    if labels.ndim != 1 or labels.dtype.kind not in "iu":
        raise ValueError(f"labels of shape {labels.shape} and type {labels.dtype} are no classes: pass integers [n].")
    x = {name: np.asarray(x_nD, dtype=np.float64) for name, x_nD in latents.items()}
    has_all_n = np.ones(len(labels), dtype=bool)
    for name, x_nD in x.items():
        if x_nD.ndim != 2 or len(x_nD) != len(labels):
            raise ValueError(
                f"the latents of '{name}' have the shape {x_nD.shape}, and there are {len(labels)} labels."
            )
        is_absent_n = np.isnan(x_nD).all(axis=1)
        if broken := (~np.isfinite(x_nD).all(axis=1) & ~is_absent_n).sum():
            raise ValueError(
                f"{broken} of {len(x_nD)} latents of '{name}' hold NaN or infinite values: training has diverged."
            )
        has_all_n &= ~is_absent_n
    return x, has_all_n


def _check_enough(x: Mapping[str, np.ndarray], classes: np.ndarray, counts_C: np.ndarray, folds: int) -> None:
    all_of_them = f"all of {', '.join(x)}"
    if len(classes) < 2:
        found = f"all of class {classes[0]}" if len(classes) else "none"
        raise ValueError(
            f"the samples that have {all_of_them} are {found}, and there is no label to tell from another."
        )
    if counts_C.min() < 2 * folds:
        raise ValueError(
            f"class {classes[counts_C.argmin()]} has {counts_C.min()} samples with {all_of_them}, and probes on {folds} folds "
            f"need {2 * folds} of every class."
        )
    for name, x_nD in x.items():
        if np.ptp(x_nD, axis=0).max() == 0:
            raise ValueError(f"the latents of '{name}' are the same in all {len(x_nD)} samples: they tell nothing.")


def _held_out_losses(parts: list[np.ndarray], y_n: np.ndarray, folds: int, seed: int) -> np.ndarray:
    """The log loss of every sample, `(n,)`, from the probe that never saw it; without parts from the classes' frequencies."""
    with extra("report", "the probes are scikit-learn's"):
        from sklearn.compose import ColumnTransformer
        from sklearn.decomposition import PCA
        from sklearn.dummy import DummyClassifier
        from sklearn.linear_model import LogisticRegression
        from sklearn.model_selection import GridSearchCV, StratifiedKFold, cross_val_predict
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler
        from threadpoolctl import threadpool_limits
    split = StratifiedKFold(folds, shuffle=True, random_state=seed)
    trained = len(y_n) - -(-len(y_n) // folds)  # samples of the smallest training folds
    probe, x_nD = DummyClassifier(strategy="prior"), np.zeros((len(y_n), 1))
    if parts:
        reduced, end = [], 0
        for width in (part.shape[1] for part in parts):
            end += width
            steps = [PCA(min(MAX_DIM, trained - 1), random_state=seed)] if width > MAX_DIM else []
            reduced.append((str(end), make_pipeline(StandardScaler(), *steps), slice(end - width, end)))
        regression = LogisticRegression(max_iter=1000)
        chosen = GridSearchCV(regression, {"C": list(INVERSE_PENALTIES)}, scoring="neg_log_loss", cv=3)
        probe, x_nD = make_pipeline(ColumnTransformer(reduced), chosen), np.concatenate(parts, axis=1)
    with threadpool_limits(limits=1):  # thousands of small products: threads would only wait for each other
        p_nC = cross_val_predict(probe, x_nD, y_n, cv=split, method="predict_proba")
    return -np.log(np.maximum(p_nC[np.arange(len(y_n)), y_n], np.finfo(p_nC.dtype).tiny))


def _mean(values_n: np.ndarray) -> Nats:
    mean, error = float(values_n.mean()), float(values_n.std(ddof=1) / len(values_n) ** 0.5)
    half = float(norm.ppf(0.975)) * error
    return Nats(mean, error, mean - half, mean + half)


def shapley_values(value: Mapping[frozenset[str] | tuple[str, ...], float]) -> dict[str, float]:
    r"""What each modality contributes to what all reach together: the exact Shapley value over all subsets.

    \\(\phi_i = \sum_{S \not\ni i} \frac{|S|!\,(M-|S|-1)!}{M!}\,(v(S \cup i) - v(S))\\) (Shapley, 1953): the gain of adding
    the modality, averaged over all orders. The values add up to \\(v(\text{all}) - v(\emptyset)\\), and may be negative.

    Args:
        value (`Mapping[frozenset[str] | tuple[str, ...], float]`): Of every subset of the modalities in any order, such as
            an accuracy; also of the empty one (`frozenset()` or `()`), which is the chance level.

    Raises:
        ValueError: If a subset is missing, given twice or has a value that is not finite.
    """
    known: dict[frozenset[str], float] = {}
    for subset, worth in value.items():
        if isinstance(subset, str):
            raise ValueError(f"'{subset}' is no subset: write ('{subset}',) for a modality alone.")
        if frozenset(subset) in known:
            raise ValueError(f"the subset {_shown(subset)} is given twice: keep one of them.")
        if not isfinite(worth):
            raise ValueError(f"the value of {_shown(subset)} is {worth}, so nothing can be shared out.")
        known[frozenset(subset)] = float(worth)
    names = sorted(frozenset().union(*known))
    if not names:
        raise ValueError("no modality is named, so there is nothing to share out.")
    count = len(names)
    subsets = [frozenset(subset) for size in range(count + 1) for subset in combinations(names, size)]
    if missing := [subset for subset in subsets if subset not in known]:
        needed = f"all {len(subsets)} subsets of {', '.join(names)}"
        raise ValueError(f"the value of {_shown(missing[0])} is missing: Shapley values need {needed}.")
    shares = dict.fromkeys(names, 0.0)
    for name, s in itertools.product(names, subsets):
        if name not in s:
            weight = factorial(len(s)) * factorial(count - len(s) - 1) / factorial(count)
            shares[name] += weight * (known[s | {name}] - known[s])
    return shares


def _shown(subset: Iterable[str]) -> str:
    return f"({', '.join(sorted(subset))})" if subset else "no modality (the chance level)"


def shapley_of_metrics(
    metrics: Mapping[str, float], modalities: Iterable[str], metric: str = "accuracy", *, chance: float
) -> dict[str, float]:
    """The Shapley value of every modality in one model, from what it reaches with each subset of them.

    They are in the model's order and add up to `metrics[metric] - chance`, the latter being what is reached without any, such
    as the share of the commonest class. `metrics` has `{metric}` and `{metric}_given_{subset}` of every smaller subset, as
    [`classification_metrics`] gives them for up to 5 modalities. Each is over the samples that have the whole subset, so
    compare the values only where all samples are complete.
    """
    names = tuple(modalities)
    if len(names) < 2:
        raise ValueError(f"a share of what modalities reach together needs at least two, and there are {len(names)}.")
    smaller = [subset for size in range(1, len(names)) for subset in combinations(names, size)]
    keys = {names: metric} | {subset: f"{metric}_given_{'_'.join(subset)}" for subset in smaller}
    if missing := [key for key in keys.values() if key not in metrics]:
        raise ValueError(f"'{missing[0]}' was not measured, and the values of {', '.join(names)} need every subset.")
    shares = shapley_values({(): chance, **{subset: metrics[key] for subset, key in keys.items()}})
    return {name: shares[name] for name in names}
