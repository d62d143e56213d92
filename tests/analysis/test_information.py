"""Cross-entropy reduction against integrals, Shapley values against games that have an answer."""

import time

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.stats import norm

from hf_colearn.analysis.statistics.information import cross_entropy_reduction, shapley_of_metrics, shapley_values


def two_views(a, b, n, seed=0):
    """Labels 0 and 1 at even odds, seen as +-a and +-b under independent unit noise."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(2, size=n)
    signs = 2 * labels - 1
    return {
        "image": (signs * a + rng.normal(size=n))[:, None],
        "audio": (signs * b + rng.normal(size=n))[:, None],
    }, labels


def entropy_given(*strengths):
    """H(y|x) in nats: with d^2 the sum of squares, the margin of the best (linear) rule is Gaussian, mean and variance d^2."""
    d2 = sum(strength**2 for strength in strengths)
    return quad(lambda m: np.logaddexp(0, -2 * m) * norm.pdf(m, d2, d2**0.5), d2 - 9 * d2**0.5, d2 + 9 * d2**0.5)[0]


# ---- cross-entropy ----
def test_the_reduction_is_the_conditional_information_where_a_linear_rule_is_the_best():
    latents, labels = two_views(1.0, 0.7, 2000)
    found = cross_entropy_reduction(latents, labels)
    assert found.samples == 2000 and found.lacking == 0
    truth = {
        (): np.log(2),
        ("image",): entropy_given(1.0),
        ("audio",): entropy_given(0.7),
        ("image", "audio"): entropy_given(1.0, 0.7),
    }
    assert found.cross_entropy.keys() == truth.keys()
    for subset, expected in truth.items():
        estimate = found.cross_entropy[subset]
        assert abs(estimate.mean - expected) < 3 * estimate.standard_error + 1e-3, subset
    by_pair = {(reduction.modality, reduction.given): reduction.nats for reduction in found.reductions}
    for pair, expected in {
        ("audio", "image"): entropy_given(1.0) - entropy_given(1.0, 0.7),
        ("image", "audio"): entropy_given(0.7) - entropy_given(1.0, 0.7),
    }.items():
        assert abs(by_pair[pair].mean - expected) < 3 * by_pair[pair].standard_error
        assert by_pair[pair].standard_error < 0.02 and by_pair[pair].low > 0.03
    assert "'audio' tells of the label what 'image' alone does not: +0." in found.reductions[0].sentence


def test_the_interval_covers_the_truth_in_most_repeats():
    truth = entropy_given(0.8) - entropy_given(0.8, 0.8)
    covered = 0
    for seed in range(10):
        nats = cross_entropy_reduction(*two_views(0.8, 0.8, 400, seed), folds=2).reductions[0].nats
        covered += nats.low < truth < nats.high
    assert covered >= 7  # of 10 at 95 %, 6 or fewer have a chance of 0.1 %


def test_a_copy_and_pure_noise_tell_nothing_more():
    latents, labels = two_views(1.0, 0.7, 600)
    rng = np.random.default_rng(1)
    copies = {"image": latents["image"], "copy": 3 * latents["image"] - 1, "noise": rng.normal(size=(600, 30))}
    found = {(r.modality, r.given): r for r in cross_entropy_reduction(copies, labels, folds=3).reductions}
    assert len(found) == 6
    assert abs(found["copy", "image"].nats.mean) < 0.005
    assert -0.05 < found["noise", "image"].nats.mean < 0.01  # negative: an estimate, not a bound
    assert "no reliable sign that 'noise' tells of the label more than 'image'" in found["noise", "image"].sentence
    assert found["image", "noise"].nats.low > 0.1


def test_what_only_the_product_of_two_modalities_tells_is_missed_by_linear_probes():
    rng = np.random.default_rng(0)
    x, y = rng.choice([-1.0, 1.0], size=(2, 800))
    found = cross_entropy_reduction({"x": x[:, None], "y": y[:, None]}, (x * y > 0).astype(int))  # log 2 in truth
    assert abs(found.reductions[0].nats.mean) < 0.02


def test_without_a_modality_there_are_the_frequencies_of_the_classes():
    latents, _ = two_views(0, 0, 400)
    labels = np.repeat([0, 1, 1, 1], 100)
    found = cross_entropy_reduction(latents, labels)
    expected = -(0.25 * np.log(0.25) + 0.75 * np.log(0.75))  # every fold has just these
    assert found.cross_entropy[()].mean == pytest.approx(expected)


def test_samples_that_lack_a_modality_are_left_out():
    latents, labels = two_views(1.0, 0.7, 500)
    whole = {name: x[100:] for name, x in latents.items()}
    latents["image"][:60], latents["audio"][40:100] = np.nan, np.nan
    found = cross_entropy_reduction(latents, labels, folds=2)
    assert (found.samples, found.lacking) == (400, 100)
    assert found.reductions == cross_entropy_reduction(whole, labels[100:], folds=2).reductions


def test_labels_may_have_any_numbers_and_the_seed_draws_folds_and_samples():
    latents, labels = two_views(1.0, 0.7, 300)
    few = {"folds": 2, "max_samples": 200}
    found = cross_entropy_reduction(latents, labels, **few)
    assert found.samples == 200
    assert cross_entropy_reduction(latents, 7 + 5 * labels, **few) == found
    assert cross_entropy_reduction(latents, labels, **few, seed=1) != found


def test_wide_latents_of_many_samples_take_bounded_time():
    rng = np.random.default_rng(0)
    labels = np.arange(10_000) % 10
    means = rng.normal(size=(10, 384))
    latents = {name: (means[labels] + 12 * rng.normal(size=(10_000, 384))).astype("float32") for name in "ab"}
    started = time.process_time()  # of this process: the machine may be busy
    found = cross_entropy_reduction(latents, labels)
    assert time.process_time() - started < 10
    assert found.samples == 2000
    assert found.cross_entropy["a",].mean < found.cross_entropy[()].mean - 0.2
    assert all(reduction.nats.low > 0 for reduction in found.reductions)


def broken(**change):
    latents, labels = two_views(1.0, 0.7, 60)
    return {"latents": latents, "labels": labels} | change


PLAIN = two_views(1.0, 0.7, 60)[0]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (broken(latents={"image": PLAIN["image"]}), "at least two, and there are only 'image'"),
        (broken(latents={}), "at least two, and there are none"),
        (broken(labels=np.zeros(60)), "type float64 are no classes"),
        (broken(labels=np.zeros(59, dtype=int)), r"'image' have the shape \(60, 1\), and there are 59 labels"),
        (broken(latents=PLAIN | {"audio": np.zeros(60)}), r"'audio' have the shape \(60,\)"),
        (broken(labels=np.full(60, 4)), "all of class 4, and there is no label to tell"),
        (broken(latents=PLAIN | {"audio": np.full((60, 1), np.nan)}), "samples that have all of image, audio are none"),
        (broken(latents=PLAIN | {"audio": np.ones((60, 5))}), "'audio' are the same in all 60 samples"),
        (broken(latents=PLAIN | {"audio": np.full((60, 1), np.inf)}), "60 of 60 latents of 'audio' hold NaN or inf"),
        (
            broken(latents=PLAIN | {"audio": np.tile([np.nan, 1.0], (60, 1))}),
            "60 of 60 latents of 'audio' hold NaN or inf",
        ),
        (broken(labels=np.r_[np.zeros(51, int), np.ones(9, int)]), "class 1 has 9 samples .* 5 folds need 10 of every"),
        (broken(folds=1), "folds=1 leaves nothing"),
    ],
)  # fmt: skip
def test_what_gives_no_information_is_refused_in_a_sentence(given, message):
    with pytest.raises(ValueError, match=message):
        cross_entropy_reduction(**given)


# ---- Shapley ----
def test_in_an_additive_game_everyone_gets_its_own():
    worth = {"image": 0.3, "audio": 0.1, "text": -0.05}
    value = {
        frozenset(s): 0.1 + sum(worth[name] for name in s)
        for s in (
            (),
            ("image",),
            ("audio",),
            ("text",),
            ("image", "audio"),
            ("image", "text"),
            ("text", "audio"),
            worth,
        )
    }
    assert shapley_values(value) == pytest.approx(worth)


def test_the_glove_game():
    # One left glove (l), two right ones (a, b); a pair is worth 1. Of the six orders, l completes a pair in four, a in one
    # (l, a, b) and b in one (l, b, a): 4/6, 1/6, 1/6.
    pairs = [("l", "a"), ("b", "l"), ("a", "b", "l")]
    value = {(): 0, ("l",): 0, ("a",): 0, ("b",): 0, ("a", "b"): 0} | dict.fromkeys(pairs, 1)
    assert shapley_values(value) == pytest.approx({"l": 2 / 3, "a": 1 / 6, "b": 1 / 6})


def test_shares_add_up_are_symmetric_and_nothing_for_a_dummy():
    names = ("a", "b", "c", "d")
    value = {}
    for code in range(16):
        subset = frozenset(name for i, name in enumerate(names) if code >> i & 1)
        # d adds nothing to anybody, a and b are interchangeable
        value[subset] = 2.0 ** len(subset & {"a", "b"}) + 0.7 * ("c" in subset) + 0.4 * ({"a", "b", "c"} <= subset)
    shares = shapley_values(value)
    assert shares["d"] == pytest.approx(0)
    assert shares["a"] == pytest.approx(shares["b"])
    assert sum(shares.values()) == pytest.approx(value[frozenset(names)] - value[frozenset()])
    # By hand: of 2^k of a and b, each gets (4 - 1) / 2; of the bonus of 0.4 for all three, a third.
    assert shares == pytest.approx({"a": 1.5 + 0.4 / 3, "b": 1.5 + 0.4 / 3, "c": 0.7 + 0.4 / 3, "d": 0})


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({("a",): 1, ("b",): 1, ("a", "b"): 2}, r"value of no modality \(the chance level\) is missing"),
        ({(): 0, ("a",): 1, ("a", "b"): 2}, r"value of \(b\) is missing: Shapley values need all 4 subsets of a, b"),
        ({(): 0, ("a",): 1, ("b",): 1}, r"value of \(a, b\) is missing"),
        ({(): 0, ("a", "b"): 1, ("b", "a"): 1}, r"the subset \(a, b\) is given twice"),
        ({(): 0, ("a",): float("nan")}, r"value of \(a\) is nan"),
        ({(): 0, "a": 1}, r"'a' is no subset: write \('a',\)"),
        ({(): 0}, "no modality is named"),
        ({}, "no modality is named"),
    ],
)
def test_games_that_are_not_whole_are_refused(value, message):
    with pytest.raises(ValueError, match=message):
        shapley_values(value)


def test_shapley_values_of_a_run():
    metrics = {"accuracy": 0.9, "accuracy_given_image": 0.8, "accuracy_given_audio": 0.5, "accuracy_image": 0.1}
    # image comes first (0.8 - 0.1) or last (0.9 - 0.5); audio first (0.5 - 0.1) or last (0.9 - 0.8)
    found = shapley_of_metrics(metrics, ("image", "audio"), chance=0.1)
    assert found == pytest.approx({"image": 0.55, "audio": 0.25})
    assert list(found) == ["image", "audio"]


def test_subsets_of_a_run_are_named_in_the_models_order():
    value = {"c": 0.2, "a": 0.3, "b": 0.4, "c_a": 0.5, "c_b": 0.6, "a_b": 0.8}
    metrics = {"macro_f1": 0.9} | {f"macro_f1_given_{subset}": score for subset, score in value.items()}
    found = shapley_of_metrics(metrics, ("c", "a", "b"), "macro_f1", chance=0.0)
    by_subset = {tuple(subset.split("_")): score for subset, score in value.items()}
    assert found == pytest.approx(shapley_values(by_subset | {(): 0.0, ("a", "b", "c"): 0.9}))
    assert sum(found.values()) == pytest.approx(0.9)


def test_a_subset_that_was_not_measured_is_named():
    metrics = {"accuracy": 0.9, "accuracy_given_image": 0.8}
    with pytest.raises(ValueError, match="'accuracy_given_audio' was not measured"):
        shapley_of_metrics(metrics, ("image", "audio"), chance=0.1)
    with pytest.raises(ValueError, match="needs at least two, and there are 1"):
        shapley_of_metrics(metrics, ("image",), chance=0.1)
    with pytest.raises(ValueError, match="chance level.* is nan"):
        shapley_of_metrics(metrics | {"accuracy_given_audio": 0.5}, ("image", "audio"), chance=float("nan"))
