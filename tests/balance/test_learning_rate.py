"""MSLR: a learning rate a modality, by its accuracy on the validation split."""

import pytest
import torch
from transformers import TrainerCallback

import tiny
from hf_colearn import CoLearningTrainer
from hf_colearn.balance.learning_rate import LearningRatePerModality, speed
from hf_colearn.balance.method import BalanceMethod, encoder_parameters
from refusals import Refusals, assert_refused
from tiny_modalities import data, model, trainer


EVALUATED = {"eval_strategy": "steps", "eval_steps": 1, "eval_dataset": data(12)}


def test_the_factor_is_the_accuracy_over_the_mean_of_the_last_five():
    # The mean of (.5, .5, .6, .6, .6) is .56, and .7 / .56 = 1.25; times .9 and 1.1: 1.125 and 1.375.
    method = LearningRatePerModality({"image": 0.9, "audio": 1.1})
    memory = [0.5, 0.5, 0.6, 0.6, 0.6]
    method.load_state_dict({"accuracies": {}, "speeds": {"image": speed(0.7, memory), "audio": speed(0.7, memory)}})
    assert [method.coefficient(name) for name in ("image", "audio")] == pytest.approx([1.125, 1.375])


def test_the_factor_is_the_initial_one_without_a_past_or_where_nothing_was_right():
    assert speed(0.7, []) == speed(0.7, [0.0, 0.0]) == 1.0


def test_only_the_last_evaluations_are_kept():
    method = LearningRatePerModality(memory=2)
    run = trainer(method, **EVALUATED, max_steps=4)
    run.train()
    assert {name: len(kept) for name, kept in method.state_dict()["accuracies"].items()} == {"image": 2, "audio": 2}


class ScaledGradients(BalanceMethod):
    """What the learning rate stands in place of: gradients of the image that are twice as large."""

    def on_gradients(self, model):
        for parameter in encoder_parameters(model)["image"]:
            parameter.grad.mul_(2)


def moved(method, **fields):
    """How far one step moves every parameter."""
    net = model(fusion="sum")
    before = {name: weight.detach().clone() for name, weight in net.named_parameters()}
    run = trainer(method, net, **{"max_steps": 1, "eval_strategy": "no", "max_grad_norm": 0.0, **EVALUATED, **fields})
    run.train()
    return run, {name: weight.detach() - before[name] for name, weight in net.named_parameters()}


@pytest.mark.parametrize("fields", [{"weight_decay": 0.1}, {"lr_scheduler_type": "linear"}])
def test_under_adam_the_rate_moves_weights_further_where_a_scaled_gradient_cancels(fields):
    _, plain = moved(LearningRatePerModality(), **fields)
    run, faster = moved(LearningRatePerModality({"image": 2.0}), **fields)
    _, scaled = moved(ScaledGradients(), **fields)
    for name, change in plain.items():
        factor = 2.0 if ".image." in name else 1.0
        torch.testing.assert_close(faster[name], factor * change, rtol=1e-3, atol=1e-8)
        torch.testing.assert_close(scaled[name], change, rtol=1e-2, atol=1e-7)
    assert run.state.log_history[0]["balance_coefficient_image"] == 2.0


class Rates(TrainerCallback):
    """The rates of the groups after every optimizer step."""

    def __init__(self):
        self.seen = []

    def on_step_end(self, args, state, control, optimizer=None, **kwargs):
        self.seen.append([group["lr"] for group in optimizer.param_groups])


def test_the_schedule_goes_on_from_its_own_rate():
    # StepLR multiplies the rate that it finds, which would be the modality's; and the groups have a rate of 0 in no step.
    fields = {
        "per_device_train_batch_size": 8,
        "lr_step_epochs": 1,
        "lr_step_gamma": 0.5,
        "lr_scheduler_type": "linear",
    }
    found, logged = [], []
    for factor in (1.0, 3.0):
        rates = Rates()
        run = trainer(
            LearningRatePerModality({"image": factor}), **EVALUATED, max_steps=4, callbacks=[rates], **fields
        )
        run.train()
        found.append(rates.seen)
        logged.append([log["learning_rate"] for log in run.state.log_history if "loss" in log])
    # Two steps an epoch.
    assert found[0] == found[1] == [[rate] * len(found[0][0]) for rate in (1e-3, 5e-4, 5e-4, 2.5e-4)]
    assert logged[0] == logged[1] == [1e-3, 1e-3, 5e-4, 5e-4]


def test_groups_of_several_rates_are_split_each_with_its_own():
    method, net = LearningRatePerModality({"image": 3.0}), model()
    encoders, fusion = net.encoders.parameters(), net.fusion.parameters()
    optimizer = torch.optim.SGD([{"params": [*encoders], "lr": 0.1}, {"params": [*fusion], "lr": 0.5}])
    method.group_parameters(optimizer, net)
    rates = [0.1, 0.1, 0.5]  # image, audio, fusion
    assert [group["lr"] for group in optimizer.param_groups] == rates
    method.on_pre_optimizer_step(None, None, None, optimizer=optimizer)
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([0.3, 0.1, 0.5])
    method.on_optimizer_step(None, None, None, model=net, optimizer=optimizer)
    assert [group["lr"] for group in optimizer.param_groups] == rates


def test_a_shared_head_and_the_fusion_keep_the_rate():
    net = model(("a", "b", "c"), shared_classifier=True)
    run = trainer(LearningRatePerModality(), net, data(8, ("a", "b", "c")), **EVALUATED)
    run.create_optimizer()
    names = {weight: name for name, weight in net.named_parameters()}
    found = {}
    for group in run.optimizer.param_groups:
        found.setdefault(group["modality"], set()).update(names.pop(weight) for weight in group["params"])
    assert not names
    shared = {name for name in found.pop(None)}
    assert shared == {"fusion.classifier.weight", "fusion.classifier.bias"} | {
        name for name in shared if ".classifier." in name and name.startswith("encoders.a.")
    }
    assert len(shared) == 4
    assert all(name.startswith(f"encoders.{owner}.") for owner, owned in found.items() for name in owned)


def test_a_resumed_run_is_the_same_and_a_second_run_begins_anew():
    fields = {**EVALUATED, "max_steps": 6, "save_strategy": "steps", "save_steps": 3, "learning_rate": 0.1}
    whole = trainer(LearningRatePerModality(), **fields)
    whole.train()
    resumed = trainer(LearningRatePerModality(), **fields)
    resumed.train(resume_from_checkpoint="out/checkpoint-3")
    assert [log.get("balance_coefficient_image") for log in whole.state.log_history[:-1]] == [
        log.get("balance_coefficient_image") for log in resumed.state.log_history[:-1]
    ]
    for name, weight in whole.model.state_dict().items():
        assert torch.equal(weight, resumed.model.state_dict()[name]), name
    assert whole.balance.state_dict() == resumed.balance.state_dict()
    whole.train()
    assert whole.state.log_history[0]["balance_coefficient_image"] == 1.0


refusals = Refusals()


@refusals.case(ValueError, "factors['image']=0", "choose a number above 0")
def a_factor_of_zero(folder):
    yield
    LearningRatePerModality({"image": 0})


@refusals.case(TypeError, "factors=0.9", "pass a dict by modality")
def a_number_in_place_of_factors(folder):
    yield
    LearningRatePerModality(0.9)


@refusals.case(ValueError, "memory=0", "at least 1")
def no_memory(folder):
    yield
    LearningRatePerModality(memory=0)


@refusals.case(ValueError, "factors names video", "image, audio", "name those")
def an_unknown_modality(folder):
    yield
    trainer(LearningRatePerModality({"video": 1.0}), **EVALUATED)


@refusals.case(ValueError, "one of your own (SGD)", "leave `optimizers` out")
def an_own_optimizer(folder):
    net = model()
    optimizers = torch.optim.SGD(net.parameters(), 0.1), None
    args = tiny.arguments(folder / "out", eval_strategy="epoch")
    yield
    CoLearningTrainer(
        net,
        args,
        train_dataset=data(),
        eval_dataset=data(),
        optimizers=optimizers,
        balance=LearningRatePerModality(),
    )


@pytest.mark.parametrize(Refusals.NAMES, refusals.cases)
def test_it_is_refused(situation, error, texts, tmp_path):
    assert_refused(situation, error, texts, tmp_path)
