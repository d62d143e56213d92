"""Answers about the classes as soft targets."""

import math

import pytest
import torch
import torch.nn.functional as F
from datasets import Dataset

import tiny
from docstrings import run_example
from hf_colearn import (
    ClassConcepts,
    CoLearningForFeatureClassification,
    CoLearningTrainer,
    ConstantAlpha,
    FeatureBackboneConfig,
)
from hf_colearn.objectives.objective import CoLearningBatch
from refusals import Refusals, assert_refused


REFUSALS = Refusals()
case = REFUSALS.case
NAN = float("nan")
ANSWERS = torch.tensor([[1.0, 0.0], [0.25, NAN]])  # of class 0 and 1


def term(logits, labels, answers=ANSWERS):
    outputs = {"training_outputs": {"concepts": torch.tensor(logits)}}
    return ClassConcepts(answers)(outputs, CoLearningBatch(torch.tensor(labels)))["concepts"].item()


def test_the_example_runs():
    run_example(ClassConcepts)


@pytest.mark.parametrize(
    ("logits", "labels", "expected"),
    [
        ([[0.0, 0.0]], [0], math.log(2)),  # one half each
        # sigmoid(log 3) = 3/4, of "no" it is 1/4: (-log 3/4 - log 1/4) / 2 = (log 4/3 + log 4) / 2
        ([[math.log(3), math.log(3)]], [0], (math.log(4 / 3) + math.log(4)) / 2),
        # class 1 has an answer to the first question alone: -(.25 log 3/4 + .75 log 1/4)
        ([[math.log(3), 99.0]], [1], 0.25 * math.log(4 / 3) + 0.75 * math.log(4)),
        ([[0.0, 0.0], [99.0, 99.0]], [0, -100], math.log(2)),  # without a label it does not count
        ([[9.0, 9.0]], [-100], 0.0),
    ],
)
def test_the_term_is_the_mean_over_answered_questions_and_labelled_samples(logits, labels, expected):
    assert term(logits, labels) == pytest.approx(expected, rel=1e-5)


def test_what_does_not_count_has_no_gradient():
    logits_BQ = torch.zeros(3, 2, requires_grad=True)
    batch = CoLearningBatch(torch.tensor([0, 1, -100]))
    ClassConcepts(ANSWERS)({"training_outputs": {"concepts": logits_BQ}}, batch)["concepts"].backward()
    # d/do BCE = sigmoid(o) - a, by 2 samples and by the 2 or 1 questions that are answered
    expected = torch.tensor([[(0.5 - 1) / 4, (0.5 - 0) / 4], [(0.5 - 0.25) / 2, 0], [0, 0]])
    torch.testing.assert_close(logits_BQ.grad, expected)


def test_permuted_classes_are_answered_wrongly():
    answers = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    learned = [[9.0, -9.0], [-9.0, 9.0]]
    assert term(learned, [0, 1], answers) < 0.01 < 5 < term(learned, [0, 1], answers.flip(0))


# ---- with the trainer ----
LABELS = [0, 1, -100, 0, -100, 1, 1, -100]


def student(**heads):
    torch.manual_seed(0)
    return CoLearningForFeatureClassification.from_backbone(
        FeatureBackboneConfig(feature_dim=3), 4, 2, training_heads=heads or {"concepts": 2}
    )


def data():
    torch.manual_seed(1)
    return Dataset.from_dict({"features": torch.randn(8, 3).tolist(), "labels": LABELS}).with_format("torch")


def trainer(folder, model=None, objective=None, **fields):
    return CoLearningTrainer(
        student() if model is None else model,
        tiny.arguments(folder, max_steps=1, optim="sgd", learning_rate=0.5, lr_scheduler_type="constant", **fields),
        train_dataset=data(),
        objective=objective or ClassConcepts(ANSWERS),
        alpha=ConstantAlpha({"concepts": 0.4}),
    )


@pytest.mark.parametrize(("batch", "micro_batches"), [(8, 1), (1, 8), (2, 4)])
def test_a_step_is_that_of_all_labelled_samples_together(tmp_path, batch, micro_batches):
    expected = student().train()
    outputs, rows = (
        expected(**{"features": data()["features"][:]}),
        [i for i, label in enumerate(LABELS) if label >= 0],
    )
    labels = torch.tensor(LABELS)[rows]
    logits_RQ, answers_RQ = outputs.training_outputs["concepts"][rows], ANSWERS[labels]
    losses_RQ = F.binary_cross_entropy_with_logits(logits_RQ, answers_RQ.nan_to_num(0), reduction="none")
    concepts = (losses_RQ * ~answers_RQ.isnan()).sum(1) / (~answers_RQ.isnan()).sum(1)
    (0.6 * F.cross_entropy(outputs.logits[rows], labels) + 0.4 * concepts.mean()).backward()
    trained = trainer(tmp_path, per_device_train_batch_size=batch, gradient_accumulation_steps=micro_batches)
    trained.train()
    for name, weight in expected.named_parameters():
        moved = weight - 0.5 * weight.grad
        torch.testing.assert_close(trained.model.state_dict()[name], moved.detach(), atol=1e-6, rtol=1e-5, msg=name)


# ---- refusals ----
@case(ValueError, "no training head 'concepts' (it has other)", "training_heads={'concepts': 2}")
def student_without_the_head(folder):
    yield
    trainer(folder / "out", student(other=2))


@case(ValueError, "training head 'concepts' is 3 wide, and the table has 2 questions")
def head_of_another_width(folder):
    yield
    trainer(folder / "out", student(concepts=3))


@case(ValueError, "the table has 3 classes and the student 2")
def table_of_other_classes(folder):
    yield
    trainer(folder / "out", objective=ClassConcepts(torch.ones(3, 2)))


@case(ValueError, "the answers reach from -1 to 2", "from 0 (no) to 1 (yes)")
def answers_that_are_no_probabilities(folder):
    yield
    ClassConcepts(torch.tensor([[2.0, -1.0]]))


@case(ValueError, "class 1 has no answer")
def class_without_an_answer(folder):
    yield
    ClassConcepts(torch.tensor([[1.0], [NAN]]))


@case(ValueError, "of shape (2,)", "a row a class")
def answers_that_are_no_table(folder):
    yield
    ClassConcepts(torch.ones(2))


@case(ValueError, "labels are of shape (1, 2)", "an index each")
def soft_labels(folder):
    yield
    term([[0.0, 0.0]], [[0.5, 0.5]])


@pytest.mark.parametrize(Refusals.NAMES, REFUSALS.cases)
def test_what_cannot_be_answered_is_refused_with_the_way_out(situation, error, texts, tmp_path):
    assert_refused(situation, error, texts, tmp_path)
