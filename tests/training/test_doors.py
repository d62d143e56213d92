"""Doors of `Trainer` beside the ordinary one: each works with our losses, batches and metrics as in Trainer, or is refused."""

import logging

import pytest
import torch
from transformers import PrinterCallback, Trainer

import tiny
from hf_colearn import CoLearningTrainer


def trained(run):
    run.remove_callback(PrinterCallback)
    run.train()
    return run


def weights_equal(one, other):
    return all(map(torch.equal, one.state_dict().values(), other.state_dict().values()))


# ---- arguments that arms share ----
@pytest.mark.parametrize(
    "fields",
    [
        {"alpha": 0.5, "latent_loss": "cosine", "latent_scaling": "l2"},
        {"alpha_schedule": "heuristic"},
        {"alpha_schedule": "learned", "alpha": 1.0, "alpha_outer_split": 0.5},
    ],
    ids=str,
)
def test_a_baseline_shares_the_arguments_of_its_arms_and_is_plain_trainer(fields, caplog):
    data = tiny.digits(32)
    plain = trained(Trainer(tiny.student(), tiny.arguments(max_steps=3), train_dataset=data))
    with caplog.at_level(logging.INFO, logger="hf_colearn.training.argument_checks"):
        ours = trained(CoLearningTrainer(tiny.student(), tiny.arguments(max_steps=3, **fields), train_dataset=data))
    assert weights_equal(plain.model, ours.model)
    (said,) = [record.getMessage() for record in caplog.records if "no objective" in record.getMessage()]
    assert all(f"{name}={value!r}" in said for name, value in fields.items())
