"""Unseen classes: a student that knows them alone, the gate, and accuracies over its quantiles."""

import numpy as np
import pytest
import torch

from docstrings import run_example
from hf_colearn import CoLearningForFeatureClassification, FeatureBackboneConfig
from hf_colearn.evaluation.zero_shot import (
    GeneralisedZeroShot,
    gated_classes,
    generalised_zero_shot,
    novelty,
    zero_shot,
)
from refusals import Refusals, assert_refused


SEEN = {"cat": torch.tensor([1.0, 0.0]), "car": torch.tensor([0.0, 1.0])}
UNSEEN = {"lynx": torch.tensor([1.0, 0.2]), "tram": torch.tensor([0.1, 1.0])}
# Classes 0 and 1 are seen, 2 and 3 unseen. Among the seen, predicted are 0, 1, 0, 0; among the unseen, 2, 2, 3, 2.
SCORES = np.array([[2.0, 0.0, 1.0, 0.0], [0.0, 1.0, 2.0, 0.0], [3.0, 0.0, 0.0, 1.0], [3.0, 0.0, 1.0, 0.0]])
LABELS, NOVELTY = np.array([0, 1, 3, 3]), np.array([0.2, 0.6, 0.7, 0.9])


@pytest.fixture(scope="module")
def student():
    torch.manual_seed(0)
    return CoLearningForFeatureClassification.from_backbone(
        FeatureBackboneConfig(feature_dim=4), head="prototypes", class_vectors=SEEN
    ).eval()


@pytest.mark.parametrize("documented", [zero_shot, generalised_zero_shot, GeneralisedZeroShot])
def test_the_examples_run(documented):
    run_example(documented)


def test_a_zero_shot_student_gives_the_cosines_to_the_new_vectors_alone(student):
    features = torch.randn(3, 4, generator=torch.Generator().manual_seed(1))
    new = zero_shot(student, UNSEEN)
    with torch.no_grad():
        outputs = new(features=features)
    z, v = outputs.latents.numpy(), np.stack([vector.numpy() for vector in UNSEEN.values()])
    cosines = (z @ v.T) / np.linalg.norm(z, axis=1)[:, None] / np.linalg.norm(v, axis=1)
    np.testing.assert_allclose(outputs.logits.numpy(), 10 * cosines, rtol=1e-5, atol=1e-5)
    assert list(new.config.id2label.values()) == ["lynx", "tram"]


def test_novelty_is_the_share_of_training_latents_that_are_nearer_to_a_class_mean():
    # Class 0: (1, 0) and (0, 1) with mean (.5, .5), sqrt(.5) from either. Class 1: (-1, 0) twice, at its mean.
    training, labels = np.array([[1.0, 0.0], [0.0, 2.0], [-1.0, 0.0], [-3.0, 0.0]]), np.array([0, 0, 1, 1])
    # (-5, 0) is at a mean: none is nearer, 0. (1, 1) has the direction (.707, .707), .293 from (.5, .5): 2 of 4 are nearer.
    # (0, -1) is sqrt(2) from (-1, 0) and 1.58 from (.5, .5), farther than all: 1. (1, 0) is as far as two of them: 2 of 4.
    asked = np.array([[-5.0, 0.0], [1.0, 1.0], [0.0, -1.0], [1.0, 0.0]])
    assert novelty(asked, training, labels).tolist() == [0, 0.5, 1, 0.5]


def test_accuracies_over_the_gates_by_hand():
    curve = generalised_zero_shot(SCORES, LABELS, [2, 3], NOVELTY, gates=[0, 0.5, 0.65, 0.8, np.inf])
    # Samples at or above the gate take the best unseen class: 2, 2, 3, 2, of which the third is right; the others 0, 1, 0, 0.
    # Gate 0: all unseen, 0 of classes 0 and 1; class 3: 1 of 2. Gate .5: the first is seen, and right. From .65 the second.
    # From .8 the third is taken for seen.
    assert curve.seen.tolist() == [0, 0.5, 1, 1, 1]
    assert curve.unseen.tolist() == [0.5, 0.5, 0.5, 0, 0]
    np.testing.assert_allclose(curve.harmonic, [0, 0.5, 2 / 3, 0, 0])  # 2 x 1 x .5 / 1.5
    # Under seen over unseen: from (0, 1) to (.5, 1).
    assert curve.area == pytest.approx(0.5)


def test_accuracy_of_a_side_is_the_mean_over_its_classes():
    # Of class 0 both are right, of class 1 its only one is wrong: (1 + 0) / 2, and not 2 / 3.
    scores = np.array([[2.0, 0.0, 1.0], [2.0, 0.0, 1.0], [2.0, 0.0, 1.0], [2.0, 0.0, 1.0]])
    curve = generalised_zero_shot(scores, np.array([0, 0, 1, 2]), [2], np.zeros(4), gates=[0, np.inf])
    assert curve.seen.tolist() == [0, 0.5] and curve.unseen.tolist() == [1, 0]


def test_the_gate_at_infinity_is_the_head_of_the_seen_classes_and_at_0_all_are_unseen(student):
    features = torch.randn(64, 4, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        own = student(features=features)
        scores = student.with_classes(UNSEEN)(features=features).logits.numpy()
        unseen = zero_shot(student, UNSEEN)(features=features).logits
    far = novelty(own.latents, own.latents, own.logits.argmax(dim=1))
    assert gated_classes(scores, far, [2, 3], np.inf).tolist() == own.logits.argmax(dim=1).tolist()
    assert gated_classes(scores, far, [2, 3], 0.0).tolist() == (2 + unseen.argmax(dim=1)).tolist()
    between = gated_classes(scores, far, [2, 3], 0.5)
    assert 0 < (between >= 2).sum() < 64


def test_vectors_permuted_among_the_unseen_classes_are_right_by_chance():
    # Over all shifts of U vectors, a sample is given each class once: the mean accuracy is 1 / U, whatever the student.
    rng = np.random.default_rng(0)
    scores, labels = rng.normal(size=(40, 6)), np.r_[np.zeros(10, int), np.repeat([2, 3, 4, 5], 5), np.ones(10, int)]
    shifted = []
    for shift in range(4):
        moved = np.c_[scores[:, :2], np.roll(scores[:, 2:], shift, axis=1)]
        shifted.append(generalised_zero_shot(moved, labels, [2, 3, 4, 5], np.zeros(40)).unseen[0])
    assert np.mean(shifted) == pytest.approx(1 / 4)


def test_the_metric_is_an_evaluate_module_with_the_same_numbers():
    predictions = np.c_[SCORES, NOVELTY]
    in_memory = GeneralisedZeroShot([2, 3], keep_in_memory=True).compute(predictions=predictions, references=LABELS)
    # Unseen at gate 0: .5; seen at infinity: 1; harmonic 2/3 between .61 and .7; area .5 as above.
    assert in_memory == pytest.approx(
        {"unseen_accuracy": 0.5, "seen_accuracy": 1, "best_harmonic_mean": 2 / 3, "seen_unseen_area": 0.5}
    )


refusals = Refusals()


@refusals.case(ValueError, "'cat'", "with_classes", "trained on")
def a_class_that_was_trained_on(folder):
    student = CoLearningForFeatureClassification.from_backbone(
        FeatureBackboneConfig(feature_dim=4), head="prototypes", class_vectors=SEEN
    )
    yield
    zero_shot(student, {**UNSEEN, "cat": torch.ones(2)})


def scored(message, *more, scores=SCORES, labels=LABELS, unseen=(2, 3), far=NOVELTY, gates=(0, 1)):
    """A situation in which one argument is bad."""

    def situation(folder):
        yield
        generalised_zero_shot(scores, labels, list(unseen), far, gates)

    situation.__name__ = message
    refusals.case(ValueError, message, *more)(situation)


scored("unseen=[4]", "0 to 3", unseen=[4])
scored("all 4 classes are unseen", "zero_shot", unseen=[0, 1, 2, 3])
scored("of an unseen class", "test on both", labels=np.array([0, 1, 0, 1]))
scored("outside [0, 1]", "novelty", far=NOVELTY + 1)
scored("do not belong together", "(3,)", labels=LABELS[:3])
scored("not finite", "row 0", scores=np.where(SCORES == 2, np.nan, SCORES))
scored("not ascending", "[1, 0]", gates=[1, 0])


@pytest.mark.parametrize(Refusals.NAMES, refusals.cases)
def test_it_is_refused(situation, error, texts, tmp_path):
    assert_refused(situation, error, texts, tmp_path)
