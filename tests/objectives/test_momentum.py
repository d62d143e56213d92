"""The momentum encoder, in a run: what it averages, what an objective is told, and that it resumes."""

import pytest
import torch

import tiny
from hf_colearn import CoLearningTrainer, Combined, ConstantAlpha, ContrastiveAlignment
from hf_colearn.objectives.combined import callbacks_of
from hf_colearn.objectives.momentum import MomentumEncoder
from mechanism_cases import copied, student, vectors


class ToAverage(MomentumEncoder):
    """Pulls the latents to those of the average."""

    terms = ("average",)

    def __call__(self, outputs, batch):
        self.told = batch.momentum
        return {"average": (outputs["latents"] - batch.momentum["latents"] + 1).pow(2).mean()}


def trained(folder, objective, resume=None, **fields):
    model = student()
    known = {"max_steps": 2, "learning_rate": 0.1, "optim": "sgd", "per_device_train_batch_size": 4, **fields}
    trainer = CoLearningTrainer(
        model,
        tiny.arguments(folder, **known),
        train_dataset=vectors(()),
        objective=objective,
        alpha=ConstantAlpha({"average": 0.5}),
    )
    before = copied(model)
    trainer.train(resume_from_checkpoint=resume)
    return before, copied(model)


def test_average_begins_with_the_first_weights_and_follows_every_step(tmp_path):
    objective = ToAverage(0.75)
    before, after = trained(tmp_path, objective, max_steps=1)
    for name, weight in objective.average.state_dict().items():
        # d w0 + (1 - d) w1
        torch.testing.assert_close(weight, 0.75 * before[name] + 0.25 * after[name])
    assert not any(weight.requires_grad for weight in objective.average.parameters())
    assert not objective.told["latents"].requires_grad


def test_a_second_run_begins_anew(tmp_path):
    objective = ToAverage(0.5)
    trained(tmp_path / "first", objective)
    before, after = trained(tmp_path / "second", objective, max_steps=1)
    name = "latent_head.weight"
    torch.testing.assert_close(objective.average.state_dict()[name], (before[name] + after[name]) / 2)


def test_resumed_run_is_the_same_to_the_last_bit(tmp_path):
    whole, parted = ToAverage(0.5), ToAverage(0.5)
    _, after = trained(tmp_path / "whole", whole, max_steps=3, save_strategy="steps", save_steps=1)
    _, resumed = trained(tmp_path / "parted", parted, tmp_path / "whole" / "checkpoint-1", max_steps=3)
    assert all(torch.equal(after[name], resumed[name]) for name in after)
    averages = (objective.average.state_dict() for objective in (whole, parted))
    assert all(torch.equal(*pair) for pair in zip(*(state.values() for state in averages), strict=True))


def test_parts_of_a_combined_objective_are_callbacks_and_one_of_them_averages():
    one, other = ToAverage(0.5), ToAverage(0.9)
    other.terms = ("other",)
    assert callbacks_of(Combined(ContrastiveAlignment(), Combined(one))) == [one]
    with pytest.raises(ValueError, match="ToAverage and ToAverage have a momentum encoder each"):
        Combined(one, Combined(other))


def test_decay_rises_linearly_to_its_value():
    # from .5 to .9 within 4 steps, by .1 each
    objective = ToAverage(0.9, first_decay=0.5, ramp_steps=4)
    found = [objective.decay_at(step) for step in (0, 1, 3, 4, 100)]
    assert found == pytest.approx([0.5, 0.6, 0.8, 0.9, 0.9])
    assert ToAverage(0.9).decay_at(0) == 0.9


def test_average_follows_the_ramp(tmp_path):
    objective = ToAverage(0.9, first_decay=0.25, ramp_steps=10)
    before, after = trained(tmp_path, objective, max_steps=1)
    name = "latent_head.weight"  # the first step has the first decay: .25 w0 + .75 w1
    torch.testing.assert_close(objective.average.state_dict()[name], 0.25 * before[name] + 0.75 * after[name])


@pytest.mark.parametrize("ramp", [{"first_decay": 0.5}, {"ramp_steps": 5}])
def test_half_a_ramp_is_refused(ramp):
    with pytest.raises(ValueError, match="a ramp of the decay needs both"):
        ToAverage(0.9, **ramp)


@pytest.mark.parametrize("decay", [1.0, -0.1, True])
def test_impossible_decay_is_refused(decay):
    with pytest.raises(ValueError, match=f"decay={decay}"):
        ToAverage(decay)
