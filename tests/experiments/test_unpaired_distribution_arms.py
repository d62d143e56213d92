"""The arms without pairs: which of them are nulls, what classes the teacher's rows are said to be of, and where each falls."""

import numpy as np
import pytest
import torch

from hf_colearn import TeacherBank, classification_metrics
from hf_colearn.arguments import CoLearningArguments
from hf_colearn.experiments.frozen_features import feature_dataset, feature_student
from hf_colearn.experiments.semi_supervised import BUDGET
from hf_colearn.experiments.unpaired_distribution import UnpairedDistributions, unpaired_arms, with_permuted_classes


CLASSES, EACH, WIDTH = 3, 20, 6
NAMES = ["one", "two", "three"]


def clusters(seed, spread):
    """Points about a centre of each class."""
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(9).normal(size=(CLASSES, WIDTH))
    labels = np.repeat(np.arange(CLASSES), EACH)
    return torch.from_numpy(
        (centres[labels] + spread * rng.normal(size=(len(labels), WIDTH))).astype(np.float32)
    ), labels


@pytest.fixture(scope="module")
def unpaired():
    (own, labels), (other, _) = clusters(0, 1.0), clusters(1, 0.3)
    return UnpairedDistributions(
        feature_dataset(own, labels),
        TeacherBank.from_latents(other),
        lambda: feature_student(own, [8], WIDTH, dict(enumerate(NAMES))),
        own.numpy(),
        TeacherBank.from_latents(np.eye(CLASSES, WIDTH), inputs=[f"This is about {name}." for name in NAMES]),
        compute_metrics=classification_metrics(("accuracy",)),
    )


def test_there_is_one_baseline_and_every_arm_has_as_many_settings():
    arms = unpaired_arms(NAMES)
    kinds = {arm.name: arm.kind for arm in arms}
    assert [name for name, kind in kinds.items() if kind == "null"] == [
        "self-training", "Gaussian cloud", "distribution by class, permuted",
    ]  # fmt: skip
    assert [name for name, kind in kinds.items() if kind == "colearned"] == [
        "random prompts", "distribution", "distribution by class",
    ]  # fmt: skip
    assert kinds["labels alone"] == "baseline"
    assert kinds["latent transfer"] == kinds["distribution by class, labelled teacher"] == "reference"
    assert {len(arm.grid) for arm in arms} == {3}


def test_rows_are_of_the_classes_that_a_classifier_with_few_labels_says(unpaired):
    train = unpaired.train.with_format(None)
    hidden = [label if row % EACH < 2 else -100 for row, label in enumerate(train["labels"])]
    few = train.remove_columns("labels").add_column("labels", hidden)
    found = unpaired.class_bank(few).lookup(np.arange(CLASSES * EACH))
    assert (found.argmax(dim=1).numpy() == np.asarray(train["labels"])).mean() > 0.9  # compact clusters
    torch.testing.assert_close(found.sum(dim=1), torch.ones(CLASSES * EACH))


def test_a_permuted_class_has_the_latents_of_one_other_class():
    classes = [0, 0, 0, 2, 2, 3]  # none of class 1
    bank = TeacherBank.from_latents(np.array([[10.0 * label + row] for row, label in enumerate(classes)]))
    shown = with_permuted_classes(bank, TeacherBank.from_latents(np.eye(4)[classes]), seed=0).lookup(range(6))
    of = (shown[:, 0] // 10).int().tolist()
    assert of[0] == of[1] == of[2] and of[3] == of[4]
    assert {of[0], of[3], of[5]} == {0, 2, 3} and of[0] != 0 and of[3] != 2 and of[5] != 3


def test_by_class_latents_of_a_class_meet_the_teachers_and_permuted_those_of_another(unpaired, tmp_path):
    """The distance from a class's mean latent to the mean of the teacher's cloud of that class, by arm."""
    other, labels = clusters(1, 0.3)
    other = (other - other.mean(dim=0)) / other.std(dim=0, unbiased=False)
    nearest = {}
    for arm in unpaired_arms(NAMES):
        if arm.method not in ("distribution by class", "distribution by class, permuted"):
            continue
        args = CoLearningArguments(
            output_dir=str(tmp_path), max_steps=60, per_device_train_batch_size=30, learning_rate=0.05, report_to="none",
            save_strategy="no", disable_tqdm=True, use_cpu=True, labelled_per_batch=10,
        )  # fmt: skip
        trainer = unpaired.make_trainer(arm.at(BUDGET, 5), args)
        trainer.train()
        with torch.no_grad():
            latents = trainer.model.eval()(features=unpaired.train["features"][:]).latents
        means, theirs = (torch.stack([z[labels == c].mean(dim=0) for c in range(CLASSES)]) for z in (latents, other))
        nearest[arm.method] = torch.cdist(means, theirs).argmin(dim=1).tolist()
    assert nearest["distribution by class"] == [0, 1, 2]
    assert sorted(nearest["distribution by class, permuted"]) == [0, 1, 2]
    assert all(c != of for c, of in enumerate(nearest["distribution by class, permuted"]))
