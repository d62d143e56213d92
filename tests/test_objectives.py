"""Objectives: named terms from outputs and targets."""

import pytest
import torch
from transformers.modeling_outputs import ModelOutput

import families
import tiny
from hf_colearn import CoLearningTrainer, ConstantAlpha, LatentMatching
from hf_colearn.losses import latent_distance


def test_latent_matching_gives_the_term_that_it_names():
    objective = LatentMatching(reduction="sum")
    terms = objective({"latents": torch.zeros(2, 3)}, torch.ones(2, 3))
    assert tuple(terms) == objective.terms == ("latent",)
    assert terms["latent"].item() == 3  # 1 + 1 + 1, the same for both samples


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        # z = (1, 2), t = (0, 0): squares 1 and 4; Huber 0.5 and 1.5
        ({}, 2.5),
        ({"reduction": "sum"}, 5.0),
        ({"loss": "smooth_l1"}, 1.0),
        ({"loss": "smooth_l1", "reduction": "sum"}, 2.0),
    ],
)
def test_latent_matching_hands_its_options_to_the_loss(options, expected):
    outputs = ModelOutput(latents=torch.tensor([[1.0, 2.0]]))
    assert LatentMatching(**options)(outputs, torch.zeros(1, 2))["latent"].item() == expected


def test_latent_matching_reads_a_students_output():
    student = families.student("vit")
    with torch.no_grad():
        output = student(**families.inputs("vit"))
        term = LatentMatching(loss="cosine")(output, torch.ones(2, 24))["latent"]
    torch.testing.assert_close(term, latent_distance(output.latents, torch.ones(2, 24), "cosine"))


@pytest.mark.parametrize(("name", "value"), [("loss", "l2"), ("reduction", "none"), ("reduction", "batchmean")])
def test_an_unknown_option_is_refused_by_its_value(name, value):
    with pytest.raises(ValueError, match=f"{name}='{value}' is unknown to LatentMatching"):
        LatentMatching(**{name: value})


def test_its_representation_tells_its_options():
    assert repr(LatentMatching("cosine", "sum")) == "LatentMatching(loss='cosine', reduction='sum')"


class Spread:
    """An objective of a user: two terms, no base class."""

    terms = ("near", "small")

    def __call__(self, outputs, targets):
        return {"near": latent_distance(outputs["latents"], targets), "small": outputs["latents"].pow(2).mean()}


def test_any_object_with_terms_can_be_trained(digits):
    trainer = CoLearningTrainer(
        tiny.student(),
        tiny.arguments(max_steps=2),
        train_dataset=digits,
        bank=tiny.bank(),
        pairing=tiny.random_prompt(),
        objective=Spread(),
        alpha=ConstantAlpha({"near": 0.5, "small": 0.25}),
    )
    trainer.train()
    steps = [entry for entry in trainer.state.log_history if "loss_near" in entry]
    assert len(steps) == 2
    for entry in steps:
        mixed = 0.25 * entry["loss_task"] + 0.5 * entry["loss_near"] + 0.25 * entry["loss_small"]
        assert entry["loss"] == pytest.approx(mixed, abs=1e-4)
        assert (entry["alpha_near"], entry["alpha_small"]) == (0.5, 0.25)
