"""MSES: a modality goes back to the minimum of its validation loss and is frozen there."""

import copy

import pytest
import torch
from transformers import TrainerCallback, TrainerControl

from hf_colearn.balance.early_stop import EarlyStopPerModality, smoothed
from hf_colearn.balance.validation import Score
from refusals import Refusals, assert_refused
from tiny_modalities import data, model, trainer


def negated(dataset, name):
    """Validation samples on which a modality does the worse, the better it fits the training set."""
    return dataset.map(lambda sample: {f"{name}_features": -sample[f"{name}_features"]})


EVALUATED = {
    "eval_strategy": "steps",
    "eval_steps": 1,
    "eval_dataset": negated(data(), "audio"),
    "per_device_train_batch_size": 16,
    "learning_rate": 0.05,
    "weight_decay": 0.1,
    "max_steps": 6,
}


class Weights(TrainerCallback):
    """The model's weights before every evaluation."""

    def __init__(self):
        self.seen = []

    def on_step_end(self, args, state, control, model=None, **kwargs):
        self.seen.append(copy.deepcopy(model.state_dict()))


def of(weights, name):
    return {key: weight for key, weight in weights.items() if key.startswith(f"encoders.{name}.")}


def same(one, other):
    return all(torch.equal(weight, other[key]) for key, weight in one.items())


def run_with(method, **fields):
    weights = Weights()
    run = trainer(
        method, fields.pop("net", None) or model(fusion="sum"), callbacks=[weights], **{**EVALUATED, **fields}
    )
    run.train()
    return run, weights.seen


def test_the_loss_is_smoothed_from_the_first_on():
    # Half of the past: 1, .5 * 1 + .5 * .8 = .9, .5 * .9 + .5 * .9 = .9, .5 * .9 + .5 * .7 = .8.
    found = [None]
    for loss in (1.0, 0.8, 0.9, 0.7):
        found.append(smoothed(loss, found[-1], 0.5))
    assert found[1:] == pytest.approx([1.0, 0.9, 0.9, 0.8])


def losses(method, net, control, **by_name):
    method.validated({name: Score(loss, 0.0) for name, loss in by_name.items()}, net, control)


def test_it_waits_for_a_new_minimum_and_training_stops_when_all_have_stopped():
    method, net, control = EarlyStopPerModality(2, 0.0), model(("a", "b", "c")), TrainerControl()
    losses(method, net, control, a=1.0, b=1.0, c=1.0)
    losses(method, net, control, a=1.0, b=1.5, c=0.9)  # an equal loss is no new minimum
    assert method.stopped == ()
    losses(method, net, control, a=1.1, b=0.9, c=0.8)
    assert method.stopped == ("a",)
    losses(method, net, control, a=0.1, b=1.0, c=0.9)
    losses(method, net, control, a=0.1, b=1.0, c=0.7)
    assert method.stopped == ("a", "b") and not control.should_training_stop
    losses(method, net, control, a=0.1, b=1.0, c=0.8)
    losses(method, net, control, a=0.1, b=1.0, c=0.8)
    assert method.stopped == ("a", "b", "c") and control.should_training_stop


def test_a_modality_goes_back_to_its_minimum_and_stays_bit_identical_while_others_learn():
    run, weights = run_with(EarlyStopPerModality(2, 0.0))
    # The audio's loss grows from the first evaluation on, so its weights of step 1 are back in step 4.
    assert run.balance.stopped == ("audio",) and len(weights) == 6
    assert not same(of(weights[2], "audio"), of(weights[0], "audio"))
    assert all(same(of(later, "audio"), of(weights[0], "audio")) for later in weights[3:])
    assert all(not same(of(later, "image"), of(weights[2], "image")) for later in weights[3:])
    logged = [log["balance_coefficient_audio"] for log in run.state.log_history if "loss" in log]
    assert logged == [1, 1, 1, 0, 0, 0]
    assert same(run.model.state_dict(), weights[-1])


class ZeroGradients(EarlyStopPerModality):
    """Wrong: gradients of 0."""

    def on_gradients(self, model):
        for parameter in self._frozen.parameters(model):
            parameter.grad.zero_()


@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_a_gradient_of_zero_would_not_freeze(decay):
    _, weights = run_with(ZeroGradients(2, 0.0), weight_decay=decay)
    assert not same(of(weights[5], "audio"), of(weights[3], "audio"))


def test_statistics_of_batches_stay_as_well():
    net = model(fusion="sum")
    net.encoders["audio"].backbone.layers.append(torch.nn.BatchNorm1d(1))
    net.encoders["image"].backbone.layers.append(torch.nn.BatchNorm1d(1))
    _, weights = run_with(EarlyStopPerModality(1, 0.0), net=net)
    key = "encoders.{}.backbone.layers.2.running_mean"
    assert all(torch.equal(later[key.format("audio")], weights[0][key.format("audio")]) for later in weights[3:])
    assert not torch.equal(weights[5][key.format("image")], weights[4][key.format("image")])


def test_training_ends_with_the_minima_of_all():
    everywhere = negated(negated(data(), "audio"), "image")
    run, weights = run_with(EarlyStopPerModality(2, 0.0), eval_dataset=everywhere)
    assert run.state.global_step == 3
    assert same(of(run.model.state_dict(), "audio"), of(weights[0], "audio"))
    assert same(of(run.model.state_dict(), "image"), of(weights[0], "image"))


def test_the_best_checkpoint_is_loaded_as_it_was_evaluated():
    saved = {"save_strategy": "steps", "save_steps": 1, "load_best_model_at_end": True}
    run, weights = run_with(EarlyStopPerModality(1, 0.0), **saved, metric_for_best_model="loss", max_steps=2)
    # The audio stops at the last evaluation, whose checkpoint is the best one.
    first, last = [log["eval_loss"] for log in run.state.log_history if "eval_loss" in log]
    assert run.balance.stopped == ("audio",) and last < first
    assert same(run.model.state_dict(), weights[1])


def test_a_resumed_run_is_the_same_and_a_second_run_begins_anew():
    saved = {"save_strategy": "steps", "save_steps": 1}
    whole, weights = run_with(EarlyStopPerModality(2, 0.0), **saved)
    for step in (3, 4):  # before it goes back, and after
        resumed = trainer(EarlyStopPerModality(2, 0.0), model(fusion="sum"), **EVALUATED)
        resumed.train(resume_from_checkpoint=f"out/checkpoint-{step}")
        assert same(resumed.model.state_dict(), whole.model.state_dict()), step
        assert resumed.balance.stopped == ("audio",)
    whole.train()
    assert whole.state.log_history[0]["balance_coefficient_audio"] == 1.0


def test_a_run_that_has_ended_stays_as_it_is_when_it_is_resumed():
    # With a learning rate of 3 both losses have their minimum at the first of six evaluations.
    fields = {"learning_rate": 3.0, "save_strategy": "steps", "save_steps": 1}
    whole, _ = run_with(EarlyStopPerModality(1, 0.0), **fields)
    last = whole.state.global_step
    assert last < 6 and set(whole.balance.stopped) == {"image", "audio"}
    resumed = trainer(EarlyStopPerModality(1, 0.0), model(fusion="concat"), **{**EVALUATED, **fields})
    concat, _ = run_with(EarlyStopPerModality(1, 0.0), net=model(fusion="concat"), **fields)
    resumed.train(resume_from_checkpoint=f"out/checkpoint-{concat.state.global_step}")
    assert same(resumed.model.state_dict(), concat.model.state_dict())  # the fusion's weights, too


refusals = Refusals()


@refusals.case(ValueError, "patience=0", "at least 1")
def no_patience(folder):
    yield
    EarlyStopPerModality(patience=0)


@refusals.case(ValueError, "smoothing=1.0", "pass 0 to below 1")
def a_loss_that_never_moves(folder):
    yield
    EarlyStopPerModality(smoothing=1.0)


@refusals.case(ValueError, "ema_decay=0.9", "leave ema_decay out")
def averaged_weights(folder):
    yield
    trainer(EarlyStopPerModality(), ema_decay=0.9, **EVALUATED)


@refusals.case(ValueError, "shared_classifier=True", "build the model without it")
def a_shared_head(folder):
    net = model(shared_classifier=True)
    yield
    trainer(EarlyStopPerModality(), net, **EVALUATED)


@pytest.mark.parametrize(Refusals.NAMES, refusals.cases)
def test_it_is_refused(situation, error, texts, tmp_path):
    assert_refused(situation, error, texts, tmp_path)
