"""Will this teacher help? A minute of linear probes before hours of training.

Shape legend: N samples, D and E widths of features and latents, n labelled samples.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from datasets import Dataset
from scipy.stats import t as student_t

from hf_colearn.analysis.latents.transfer import (
    FOLDS,
    Labelled,
    agreement,
    held_out_scores,
    permutation_p_value,
    principal_components,
)
from hf_colearn.analysis.latents.transfer_inputs import read_features, read_labels, read_targets
from hf_colearn.analysis.statistics.estimates import Estimate, hundredths, percent, points
from hf_colearn.teachers.bank import TeacherBank
from hf_colearn.teachers.pairing import Pairing
from hf_colearn.teachers.teacher import Teacher
from hf_colearn.utils.extras import extra
from hf_colearn.utils.tables import markdown_table, text_table


Verdict = Literal["likely to help", "cannot help", "will harm", "undecided"]
Outcome = Literal["helped", "no gain", "harmed"]
_OUTCOMES: dict[str, Outcome] = {"likely to help": "helped", "cannot help": "no gain", "will harm": "harmed"}
REPEATS = 4  # of the cross-validation
ENOUGH = 2 * FOLDS  # pairs without a label, with fewer of which nothing can be said of the two spaces


@dataclass(frozen=True)
class TeacherCheck:
    """What [`teacher_check`] found; printed as a table and one sentence.

    Args:
        verdict (`str`): `"likely to help"`, `"cannot help"`, `"will harm"` or `"undecided"`.
        reason (`str`): Why.
        notes (`tuple[str, ...]`): What else a reader must know, such as that the pairing carries the label.
        measure (`str`): Of the probes: `"accuracy"`, or `"R2"` for values and several labels.
        samples, labelled, paired, unlabelled_pairs (`int`): How many there are.
        student, self_training, teacher (`float`, *optional*): Held-out scores of the probes, as fractions.
        advantage (`Estimate`, *optional*): The teacher's score minus that of the labels alone.
        advantage_over_null (`Estimate`, *optional*): Minus the better one of the labels alone and self-training.
        following (`Estimate`, *optional*): How much more often a student that predicts the teacher's latents decides as the
            teacher does, on pairs without a label, than one that knows nothing of them.
        explained_variance (`float`, *optional*): R2 of the latents that are predicted from features, over held-out pairs.
        alignment_p_value (`float`, *optional*): Of "the pairs are no better than permuted ones".
        within_class_p_value (`float`, *optional*): The same within the classes of the labelled pairs.
        pairing_carries_label (`bool`): Whether all samples of a class share one latent.
    """

    verdict: Verdict
    reason: str
    notes: tuple[str, ...]
    measure: str
    samples: int
    labelled: int
    paired: int
    unlabelled_pairs: int
    student: float | None = None
    self_training: float | None = None
    teacher: float | None = None
    advantage: Estimate | None = None
    advantage_over_null: Estimate | None = None
    following: Estimate | None = None
    explained_variance: float | None = None
    alignment_p_value: float | None = None
    within_class_p_value: float | None = None
    pairing_carries_label: bool = False

    @property
    def sentence(self) -> str:
        """The verdict and its reason."""
        return f"{self.verdict[0].upper()}{self.verdict[1:]}: {self.reason}."

    def __str__(self) -> str:
        probe = f"probe's {self.measure} [%]"

        def p_value(value: float | None) -> str:
            return "-" if value is None else f"{value:.3f}"

        def score(value: float | None) -> str:
            return "-" if value is None else hundredths(value, "")

        rows = [
            ["measure", "value"],
            ["samples", f"{self.labelled} of {self.samples} labelled, {self.paired} paired"],
            ["pairs without a label", str(self.unlabelled_pairs)],
            [f"student's features, {probe}", score(self.student)],
            [f"with self-training, {probe}", score(self.self_training)],
            [f"teacher's latents, {probe}", score(self.teacher)],
            ["teacher - labels alone [pp]", points(self.advantage)],
            ["teacher - better null [pp]", points(self.advantage_over_null)],
            ["decisions taken over [pp]", points(self.following)],
            ["latents explained by features [%]", score(self.explained_variance)],
            ["pairs against permuted ones, p", p_value(self.alignment_p_value)],
            ["the same within classes, p", p_value(self.within_class_p_value)],
        ]
        return "\n".join([text_table(rows), "", self.sentence, *self.notes])


def teacher_check(
    features: np.ndarray | TeacherBank | Dataset,
    teacher: np.ndarray | TeacherBank | Teacher,
    labels: Sequence[Any] | np.ndarray | None = None,
    pairing: Pairing | None = None,
    *,
    feature_column: str = "features",
    label_column: str = "labels",
    id_column: str = "sample_id",
    confidence: float = 0.9,
    seed: int = 0,
) -> TeacherCheck:
    """Whether latents of this teacher will make a student of these features better, from linear probes alone.

    A gain needs three things, and each is asked by itself:

    1. *New information*: samples with a pair and without a label. Fully labelled, a teacher of classes never beat a null
       control in our tables. Without such pairs it "cannot help".
    2. *A teacher that knows more than the student at this label budget*: ridge probes of both spaces, by stratified
       cross-validation over the labelled samples alone. A teacher below the labels alone "will harm", and one below
       self-training, which sees the same samples without their pairs, "cannot help".
    3. *A student that can follow*: the latents are predicted from the features by ridge regression, and the teacher's
       probe reads them. On pairs without a label that were held out this must decide as the teacher does more often than
       the student's own probes do; else it "cannot help". Pairs that are no better than permuted ones "will harm".

    Where 2 and 3 are both found it is "likely to help". There is one threshold: an interval at level `confidence` (a t-interval
    over samples, and for permutations p) that excludes 0. Where it does not, "undecided" is the answer. With few labels it
    often is, since 2 is measured on the labelled samples alone, and with one a class always: none can be held out. The
    intervals leave out that other labelled samples would have given other probes. A student that is trained end to end may
    follow further than a linear map of these features does.

    Args:
        features (`np.ndarray` of shape `(N, D)`, [`TeacherBank`] or [`~datasets.Dataset`]): What the student sees: the pooled
            output of its backbone before training, as `TeacherBank.encode` gives it.
        teacher (`np.ndarray` of shape `(N, E)`, [`TeacherBank`] or [`Teacher`]): Row i belongs to sample i, NaN where it has
            no pair; of a bank, the row that the pairing shows in the first epoch.
        labels (`Sequence` of length N, *optional*): Classes (-100 or None is no label), values (NaN or None), or multi-hot
            labels `(N, C)`, of which a row counts where all its entries are known. By default the dataset's column.
        pairing ([`Pairing`], *optional*): Of a bank; by default sample i sees row i.
        feature_column, label_column, id_column (`str`, *optional*): Of a dataset. Without ids its rows are numbered.
        confidence (`float`, *optional*, defaults to 0.9): Level of the two-sided intervals; a verdict errs at 5% on its side.
        seed (`int`, *optional*, defaults to 0): Of folds, permutations and the pairing.

    Raises:
        ImportError: If scikit-learn is missing.
        ValueError: If lengths differ, features or latents are infinite or NaN in part, or fewer than 2 classes (for values,
            4 samples) have a label.

    Example:

    ```python
    >>> import numpy as np
    >>> from hf_colearn import teacher_check

    >>> rng = np.random.default_rng(0)
    >>> y = np.arange(400) % 4
    >>> latents = np.eye(4)[y] + 0.1 * rng.normal(size=(400, 4))
    >>> features = np.concatenate([latents + 0.3 * rng.normal(size=(400, 4)), 3 * rng.normal(size=(400, 40))], axis=1)
    >>> check = teacher_check(features, latents, np.where(np.arange(400) < 40, y, -100))
    >>> check.verdict
    'likely to help'

    ```
    """
    if not 0 < confidence < 1:
        raise ValueError(f"confidence={confidence} is no level of an interval: pass a number between 0 and 1, as 0.9.")
    x_ND, labels, sample_ids = read_features(features, labels, feature_column, label_column, id_column)
    t_NE = read_targets(teacher, pairing, sample_ids, len(x_ND), seed)
    labelled, lonely = read_labels(labels, len(x_ND))
    with extra("report", "the probes are scikit-learn's"):
        from threadpoolctl import threadpool_limits
    with threadpool_limits(limits=1):  # thousands of small products: threads would only wait for each other
        found = _measure(x_ND, t_NE, labelled, confidence, seed)
    verdict, reason = _decide(found, confidence)
    found["notes"] = (
        *found["notes"],
        *([f"Left out: the labels of {lonely} classes that have a single one."] if lonely else []),
    )
    return TeacherCheck(verdict=verdict, reason=reason, **found)


def _measure(x_ND: np.ndarray, t_NE: np.ndarray, labelled: Labelled, confidence: float, seed: int) -> dict[str, Any]:
    paired_N = np.isfinite(t_NE).all(axis=1)
    pairs = np.flatnonzero(paired_N)
    both_n = paired_N[labelled.rows]
    unlabelled_pairs = int(paired_N[labelled.others].sum())
    found: dict[str, Any] = {
        "measure": "R2" if labelled.classes is None else "accuracy", "samples": len(x_ND),
        "labelled": len(x_ND) - len(labelled.others), "paired": len(pairs), "unlabelled_pairs": unlabelled_pairs, "notes": (),
    }  # fmt: skip
    x_NP, t_NP = principal_components(x_ND), principal_components(t_NE)
    if len(pairs) >= ENOUGH:
        found["alignment_p_value"] = permutation_p_value(x_NP[pairs], t_NP[pairs], None, seed)
    if labelled.classes is not None and both_n.any():
        rows, classes = labelled.rows[both_n], labelled.classes[both_n]
        found |= _by_class(x_NP[rows], t_NE[rows], t_NP[rows], classes, seed)

    counts = [len(labelled.rows)] if labelled.classes is None else np.bincount(labelled.classes).tolist()
    if min(counts) < 2:
        return found
    scores = held_out_scores(x_NP, t_NP, labelled, min(FOLDS, *counts), REPEATS, seed)
    student_n, self_n = scores.student.mean(axis=0), scores.self_training.mean(axis=0)
    found |= {"student": float(student_n.mean()), "self_training": float(self_n.mean())}
    known_n = np.isfinite(scores.teacher).all(axis=0)
    if known_n.sum() < 2:
        return found
    teacher_n = scores.teacher[:, known_n].mean(axis=0)
    null_n = student_n if student_n[known_n].mean() >= self_n[known_n].mean() else self_n
    found["teacher"] = float(teacher_n.mean())
    found["advantage"] = _estimate(teacher_n - student_n[known_n], confidence)
    found["advantage_over_null"] = _estimate(teacher_n - null_n[known_n], confidence)
    if unlabelled_pairs >= ENOUGH:
        agreed = agreement(x_NP, t_NP, labelled, seed)
        best_m = max(agreed.student, agreed.self_training, key=np.mean)
        found["following"] = _estimate(agreed.transfer - best_m, confidence)
        found["explained_variance"] = agreed.explained_variance
    return found


def _by_class(x_nP: np.ndarray, t_nE: np.ndarray, t_nP: np.ndarray, classes: np.ndarray, seed: int) -> dict[str, Any]:
    """Whether the pairing says more of a labelled sample than its class."""
    groups = [t_nE[classes == label] for label in np.unique(classes)]
    repeats = any(len(group) > 1 for group in groups)
    if repeats and all((group == group[0]).all() for group in groups):
        note = "The pairing itself carries the label: the labelled samples of a class share one latent, so whoever paired "
        note += "the samples knew their classes. Compare with RandomPrototypes."
        distinct = len(np.unique(np.stack([group[0] for group in groups]), axis=0))
        return {"pairing_carries_label": True, "notes": (note,)} if distinct > 1 else {}
    if not repeats:
        return {}
    p_value = permutation_p_value(x_nP, t_nP, classes, seed)
    note = (
        f"Within classes, labelled pairs are no better than permuted ones (p = {p_value:.2f}): the pairing may carry "
    )
    note += "the class and nothing more of a sample, as pairs drawn by class do, or the labels are too few to tell."
    return {"within_class_p_value": p_value, "notes": (note,) if p_value > 0.05 else ()}


def _estimate(differences_n: np.ndarray, confidence: float) -> Estimate:
    """Mean and t-interval over samples; without a spread the interval is a point."""
    mean, error = differences_n.mean(), differences_n.std(ddof=1) / len(differences_n) ** 0.5
    half = student_t.isf((1 - confidence) / 2, len(differences_n) - 1) * error
    return Estimate(float(mean), float(mean - half), float(mean + half), confidence)


def _decide(found: Mapping[str, Any], confidence: float) -> tuple[Verdict, str]:
    """The rule of [`teacher_check`], the surest reasons first."""
    if not found["unlabelled_pairs"]:
        if found["labelled"] == found["samples"]:
            return "cannot help", f"all {found['samples']} samples are labelled, so the latents add no new information"
        without = found["samples"] - found["labelled"]
        return "cannot help", f"none of the {without} samples without a label has a pair, so they teach nothing new"
    p_value = found.get("alignment_p_value")
    if p_value is not None and p_value > 1 - confidence:
        return "will harm", (
            f"the pairs are no better than permuted ones (p = {p_value:.2f}), so the student would learn noise: "
            "look at the pairing"
        )
    if "student" not in found:
        return "undecided", "most classes have a single label, and none can be held out: label two of every class"
    if (teacher := found.get("teacher")) is None:
        return "undecided", "too few samples have a label and a pair to say what the teacher knows"
    over_labels, over_null = found["advantage"], found["advantage_over_null"]
    compared = f"{found['measure']} {_digits(teacher)} against {_digits(found['student'])}"
    if over_labels.is_loss:
        return "will harm", f"at this label budget the teacher knows less than the student's features ({compared})"
    self_training = f"{_digits(found['self_training'])} with self-training"
    if over_null.high <= 0:
        return "cannot help", f"the teacher knows no more than the student without pairs ({compared}, {self_training})"
    following = found.get("following")
    if following is None:
        return "undecided", f"{found['unlabelled_pairs']} pairs without a label are too few; {ENOUGH} are the least"
    if following.high <= 0:
        return (
            "cannot help",
            f"the student's features cannot follow the teacher's decisions ({points(following)} points)",
        )
    if over_null.is_gain and following.is_gain:
        return "likely to help", (
            f"the teacher knows more at this label budget ({compared}, {self_training}) and the student's features can "
            f"follow it on {found['unlabelled_pairs']} pairs without a label"
        )
    unclear = f"whether the teacher knows more ({compared}, {self_training})"
    if over_null.is_gain:
        unclear = f"whether the student's features can follow the teacher ({points(following)} points)"
    return "undecided", f"{found['labelled']} labels and {found['unlabelled_pairs']} pairs do not settle {unclear}"


def _digits(score: float) -> str:
    return percent(round(score, 3))


def hit_table(settings: Mapping[str, tuple[TeacherCheck, Estimate, Estimate]]) -> str:
    """Predictions beside what trained students gained, in Markdown, with the hit rate below.

    "Helped" is a measured gain over the best null control whose interval lies above 0, "harmed" one over the baseline whose
    interval lies below 0, anything else "no gain". A prediction hits where it names what was measured; "cannot help" also
    where training harmed. "Undecided" is no prediction.

    Args:
        settings (`Mapping[str, tuple[TeacherCheck, Estimate, Estimate]]`): By name: the check, and the measured gains over
            the baseline and over the best null control, as [`~hf_colearn.analysis.statistics.compare.compare`] finds them.
    """
    rows = [["setting", "prediction", "- baseline [pp]", "- best null [pp]", "measured", "hit"]]
    hits = []
    for name, (check, over_baseline, over_null) in settings.items():
        outcome = "helped" if over_null.is_gain else "harmed" if over_baseline.is_loss else "no gain"
        predicted = _OUTCOMES.get(check.verdict)
        hit = outcome == predicted or (predicted == "no gain" and outcome == "harmed")
        hits += [] if predicted is None else [hit]
        shown = "-" if predicted is None else "yes" if hit else "no"
        rows.append([name, check.verdict, points(over_baseline), points(over_null), outcome, shown])
    return f"{markdown_table(rows)}\n\nHits: {sum(hits)} of {len(hits)} predictions; {len(rows) - 1 - len(hits)} undecided."
