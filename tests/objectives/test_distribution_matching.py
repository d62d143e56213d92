"""Distribution matching: its terms by hand, whom a class belongs to, what does not count, and what it refuses."""

import math

import numpy as np
import pytest
import torch

import tiny
from docstrings import run_example
from hf_colearn import (
    CoLearningBatch,
    CoLearningTrainer,
    ConstantAlpha,
    DistributionMatching,
    Drawn,
    LatentMatching,
    Paired,
    Teacher,
    TeacherBank,
)
from hf_colearn.teachers.sequence_bank import SequenceBank
from mechanism_cases import CLASSES, LATENT, bank, class_bank, student, vectors
from refusals import Refusals, assert_refused


NAN = torch.nan
refusals = Refusals()


def column(*values):
    return torch.tensor(values)[:, None]


def one_hot(*classes):
    return torch.eye(2)[list(classes)]


def outputs(latents, logits=None):
    return {"latents": latents, "logits": torch.zeros(len(latents), 2) if logits is None else logits}


# ---- values ----
def test_the_example_runs():
    run_example(DistributionMatching)


def test_a_cloud_is_compared_with_the_rows_that_were_drawn_whatever_their_order():
    batch = CoLearningBatch(targets={"teacher": column(1.0, NAN, 4.0, 1.0)})
    # Of four students 0, 1, 2, 3 and three targets 1, 1, 4: the quantiles of 12ths are 0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3 and
    # 1 (eight times), 4 (four): (3 + 0 + 2 + 4 + 3 x 1) / 12
    found = DistributionMatching(shares=False)(outputs(column(0.0, 1.0, 2.0, 3.0)), batch)
    assert found["distribution_matching"].item() == pytest.approx(1.0)


@pytest.mark.parametrize("distance", ["sliced_wasserstein", "sinkhorn"])
def test_by_class_a_label_says_which_cloud_a_sample_belongs_to(distance):
    latents, drawn = column(0.0, 0.0, 5.0), column(5.0, 1.0, 5.0)
    batch = CoLearningBatch(torch.tensor([0, 0, 1]), {"teacher": drawn, "classes": one_hot(1, 0, 1)})
    by_class = DistributionMatching(distance, per_class=True, shares=False)(outputs(latents), batch)
    # Class 0: two samples at 0, a row at 1. Class 1: one at 5 and two rows at 5. By shares of the samples: (2 x 1 + 1 x 0) / 3
    assert by_class["distribution_matching"].item() == pytest.approx(2 / 3, rel=1e-5)
    swapped = CoLearningBatch(batch.labels, {"teacher": drawn, "classes": one_hot(0, 1, 0)})  # classes permuted
    permuted = DistributionMatching(distance, per_class=True, shares=False)(outputs(latents), swapped)
    # Class 0: 0 and 5, class 1: 5 and 1: (2 x 25 + 16) / 3
    assert permuted["distribution_matching"].item() == pytest.approx(22, rel=1e-5)


def test_without_a_label_a_sample_is_of_the_classes_that_the_student_predicts():
    logits = torch.tensor([[0.0, 0.0], [math.log(3.0), 0.0]], requires_grad=True)  # 1/2 and 1/2, 3/4 and 1/4
    latents = column(0.0, 2.0).requires_grad_()
    batch = CoLearningBatch(torch.tensor([-100, -100]), {"teacher": column(1.0, 0.0), "classes": one_hot(0, 1)})
    found = DistributionMatching(per_class=True, shares=False)(outputs(latents, logits), batch)[
        "distribution_matching"
    ]
    # Class 0 has weights 1/2 and 3/4 of 5/4 and a row at 1: both are 1 away, 1. Class 1 has 1/2 and 1/4 of 3/4 and a row at 0:
    # (1/2 x 0 + 1/4 x 4) / (3/4) = 4/3. Their shares of the weights are 5/8 and 3/8: 5/8 + 1/2
    assert found.item() == pytest.approx(9 / 8)
    found.backward()
    assert not logits.grad.any()  # a sample's class is a constant
    # d/dz: 2 (z - t) times the weight over 2 samples: for z = 0: 1/2 x -2 / 2 ; for z = 2: (3/4 x 2 + 1/4 x 4) / 2
    assert latents.grad.flatten().tolist() == pytest.approx([-0.5, 1.25])
    assert DistributionMatching(per_class=True, shares=False)(
        outputs(latents, logits), CoLearningBatch(targets=batch.targets)
    )["distribution_matching"].item() == pytest.approx(9 / 8)


def test_a_class_of_which_no_row_was_drawn_does_not_count():
    batch = CoLearningBatch(torch.tensor([0, 1]), {"teacher": column(3.0, 3.0), "classes": one_hot(0, 0)})
    found = DistributionMatching(per_class=True, shares=False)(outputs(column(1.0, 100.0)), batch)
    assert found["distribution_matching"].item() == pytest.approx(4)


def test_shares_of_predicted_classes_are_pulled_to_the_teachers():
    logits = torch.zeros(2, 2, requires_grad=True)
    batch = CoLearningBatch(targets={"teacher": column(0.0, 0.0), "classes": torch.tensor([[1.0, 0.0], [NAN, NAN]])})
    found = DistributionMatching()(outputs(column(0.0, 0.0), logits), batch)
    assert found["label_shares"].item() == pytest.approx(math.log(2))  # -log(1/2)
    found["label_shares"].backward()
    # d -log(mean p_0) / d logit_0 = -p_0 (1 - p_0) / 2 / mean p_0 = -1/4
    torch.testing.assert_close(logits.grad, torch.tensor([[-0.25, 0.25]] * 2))


@pytest.mark.parametrize("distance", ["sliced_wasserstein", "sinkhorn", "mmd"])
@pytest.mark.parametrize("per_class", [False, True])
def test_where_no_row_was_drawn_both_terms_are_0_without_a_slope(distance, per_class):
    latents, logits = torch.randn(3, 2).requires_grad_(), torch.randn(3, 2).requires_grad_()
    none = torch.full((3, 2), NAN)
    batch = CoLearningBatch(torch.tensor([0, 1, -100]), {"teacher": none, "classes": none})
    terms = DistributionMatching(distance, per_class)(outputs(latents, logits), batch)
    sum(terms.values()).backward()
    assert all(term.item() == 0 for term in terms.values())
    assert not latents.grad.any() and not logits.grad.any()


def test_a_training_head_of_the_terms_name_is_matched_in_place_of_the_latents():
    batch = CoLearningBatch(targets={"teacher": column(1.0, 4.0)})
    of_head = {**outputs(torch.zeros(2, 3)), "training_outputs": {"distribution_matching": column(2.0, 1.0)}}
    found = DistributionMatching(shares=False)(of_head, batch)
    assert found["distribution_matching"].item() == pytest.approx(2)  # (0 + 4) / 2


# ---- a run ----
def test_latents_take_on_the_distribution_of_a_bank_that_no_sample_is_paired_with(tmp_path):
    """A bank of another length than the training set; matched by distribution, and by random pairs."""
    shifted = TeacherBank.from_latents(np.random.default_rng(5).normal(3, 2, size=(50, LATENT))).scaled("none")

    def latents(objective, folder):
        model = student(latent_norm="none")
        trainer = CoLearningTrainer(
            model,
            tiny.arguments(folder, max_steps=60, per_device_train_batch_size=16, learning_rate=0.05),
            train_dataset=vectors(()),
            teachers={"teacher": Teacher(shifted, Drawn())},
            objective=objective,
            alpha=ConstantAlpha({objective.terms[0]: 0.9}),
        )
        trainer.train()
        with torch.no_grad():
            return model.eval()(features=trainer.train_dataset["features"][:]).latents

    matched = latents(DistributionMatching(shares=False), tmp_path / "matched")
    pulled = latents(LatentMatching(), tmp_path / "pulled")
    assert matched.mean().item() == pytest.approx(3, abs=0.6) and pulled.mean().item() == pytest.approx(3, abs=0.6)
    # Random pairs have the mean alone to teach.
    assert matched.std(dim=0).mean() > 1.4 > 1.2 > pulled.std(dim=0).mean()


# ---- bad input ----
def fits(objective=None, model=None, pairing=None, **banks):
    pairing = Drawn() if pairing is None else pairing
    known = {"teacher": bank(), "classes": class_bank(), **banks}
    teachers = {name: Teacher(its, Drawn() if name == "teacher" else pairing) for name, its in known.items() if its}
    (objective or DistributionMatching(per_class=True)).check(model or student(), teachers)


BAD = {
    "no classes": ({"classes": None}, "needs the teacher 'classes'", "['teacher']", "shares=False, per_class=False"),
    "no teacher": ({"objective": DistributionMatching(teacher="text")}, "needs the teacher 'text'", "Drawn()"),
    "a width": ({"teacher": bank(6)}, f"latents are {LATENT} wide", "'distribution_matching': 6"),
    "sequences": ({"teacher": SequenceBank.from_sequences([np.eye(4)])}, "'teacher' holds sequences"),
    "other classes": ({"classes": bank().scaled("none")}, "'classes' is 4 wide", f"{CLASSES} classes"),
    "scaled": ({"classes": bank(CLASSES)}, "holds probabilities", "scaled('none')"),
    "other rows": ({"pairing": Paired()}, "(Paired) are not the 16 of 'teacher' (Drawn)", "one pairing"),
    "fewer rows": (
        {"classes": TeacherBank.from_latents(np.eye(CLASSES)).scaled("none")}, "the 3 rows of 'classes'", "the same rows",
    ),
    "numbers": ({"model": student(num_labels=CLASSES, problem_type="regression")}, "regression", "leave classes out"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_what_does_not_fit_is_refused_with_the_way_out(name):
    given, *texts = BAD[name]
    with pytest.raises(ValueError) as caught:
        fits(**given)
    assert [text for text in texts if text not in str(caught.value)] == [], str(caught.value)


def test_what_fits_is_not_refused():
    fits()
    fits(DistributionMatching(shares=False), classes=None)
    fits(model=student(training_heads={"distribution_matching": 6}), teacher=bank(6))
    one = Paired()
    DistributionMatching().check(student(), {"teacher": Teacher(bank(), one), "classes": Teacher(class_bank(), one)})


@pytest.mark.parametrize(
    "given, message",
    [
        (
            {"distance": "euclidean"},
            "distance='euclidean' is unknown: choose one of sliced_wasserstein, sinkhorn, mmd",
        ),
        ({"projections": 0}, "projections=0"),
        ({"regularization": 0.0}, "regularization=0.0"),
        ({"teacher": "text", "classes": "text"}, "teacher='text' and classes='text' are one teacher"),
    ],
)
def test_impossible_arguments_are_refused(given, message):
    with pytest.raises(ValueError, match=message.replace("(", r"\(")):
        DistributionMatching(**given)


@refusals.case(ValueError, "needs the teacher 'classes'", "shares=False")
def a_trainer_without_the_classes(folder):
    yield
    CoLearningTrainer(
        student(),
        tiny.arguments(folder / "out"),
        train_dataset=vectors(()),
        teachers={"teacher": Teacher(bank(), Drawn())},
        objective=DistributionMatching(),
    )


@pytest.mark.parametrize(Refusals.NAMES, refusals.cases)
def test_it_is_refused_before_training(situation, error, texts, tmp_path):
    assert_refused(situation, error, texts, tmp_path)
