"""The arms of mined positives where another modality knows the classes: what each null control mines, and where they fall."""

import numpy as np
import pytest
import torch

from hf_colearn import TeacherBank, classification_metrics
from hf_colearn.data.views import TwoViews
from hf_colearn.experiments.frozen_features import feature_dataset, feature_student
from hf_colearn.experiments.mined_positives import (
    MINED,
    OWN,
    OWN_KEYS,
    PERMUTED,
    RANDOM,
    TRANSFER,
    FeatureDropout,
    MinedPositives,
    mining_arms,
)
from hf_colearn.experiments.semi_supervised import BUDGET


CLASSES, N, WIDTH = 4, 96, 12
TRAINING = {"max_steps": 30, "per_device_train_batch_size": 32, "labelled_per_batch": 4, "report_to": "none"}
TRAINING |= {"save_strategy": "no", "use_cpu": True, "learning_rate": 5e-3, "logging_strategy": "no"}


@pytest.fixture(scope="module")
def mined():
    """Classes that features show in two of twelve dimensions, and the other modality in all of its four."""
    rng, labels = np.random.default_rng(0), np.arange(N) % CLASSES
    features_NF = torch.from_numpy(rng.normal(size=(N, WIDTH))).float()
    angle = torch.from_numpy(labels * np.pi / 2)
    features_NF[:, :2] += 2 * torch.stack([angle.cos(), angle.sin()], dim=1).float()

    def student(latent_dim):
        return feature_student(features_NF, [16], latent_dim, {label: str(label) for label in range(CLASSES)})

    return MinedPositives(
        feature_dataset(features_NF, labels),
        TeacherBank.from_latents((np.eye(CLASSES)[labels] + 0.2 * rng.normal(size=(N, CLASSES))).astype(np.float32)),
        lambda: student(8),
        features_NF.numpy(),
        TwoViews(strong=FeatureDropout(features_NF, 0.3)),
        {"neighbours": 5, "queue_size": 48, "temperature": 1.0, "decay": 0.9},
        make_matching_student=lambda: student(CLASSES),
        compute_metrics=classification_metrics(("accuracy",)),
    )


def trainer_of(mined, method, folder, **fields):
    arm = next(arm for arm in mining_arms() if arm.name == method).at(BUDGET, 1)
    return mined.make_trainer(arm, arm.arguments({**TRAINING, "output_dir": str(folder), **fields}, seed=3))


def test_arms_mine_by_what_their_names_say(mined, tmp_path):
    trainers = {name: trainer_of(mined, name, tmp_path) for name in (OWN_KEYS, RANDOM, OWN, PERMUTED, MINED)}
    neighbours = {name: trainer.auxiliary_objective.neighbours for name, trainer in trainers.items()}
    assert neighbours == {OWN_KEYS: 0, RANDOM: 5, OWN: 5, PERMUTED: 5, MINED: 5}
    ids = np.arange(N)
    targets = {name: trainer.teachers["other"].targets(ids, 0, 0) for name, trainer in trainers.items()}
    true = mined.bank.lookup(ids)
    assert torch.equal(targets[MINED], true) and torch.equal(targets[OWN_KEYS], true)
    assert torch.equal(targets[OWN], mined.own_bank.lookup(ids))
    wrong = targets[PERMUTED]
    assert not (wrong == true).all(dim=1).any()  # no sample has its own
    assert torch.isin(wrong, true).all()
    assert not torch.isin(targets[RANDOM], true).any()
    assert trainer_of(mined, TRANSFER, tmp_path).model.config.latent_dim == CLASSES


def test_neighbours_of_the_other_modality_help_and_wrong_ones_do_not(mined, tmp_path):
    found = {}
    for name in (OWN_KEYS, PERMUTED, MINED):
        trainer = trainer_of(mined, name, tmp_path)
        trainer.train()
        found[name] = trainer.evaluate(mined.train)["eval_accuracy"]
    assert found[MINED] > max(found[OWN_KEYS], found[PERMUTED]) + 0.1, found


def test_a_view_lacks_a_share_of_the_features(mined):
    features = torch.arange(2.0).repeat(1000, 4) + torch.tensor([[10.0]])  # means of 10 and 11
    torch.manual_seed(0)
    view = FeatureDropout(features, 0.25)({"features": features + 5, "labels": 3})
    is_mean = view["features"] == features
    assert view["labels"] == 3 and (is_mean | (view["features"] == features + 5)).all()
    assert is_mean.float().mean().item() == pytest.approx(0.25, abs=0.02)  # three deviations of 8000 draws: .015


def test_a_view_without_features_is_refused():
    with pytest.raises(ValueError, match="probability=1"):
        FeatureDropout(torch.ones(2, 3), 1)
