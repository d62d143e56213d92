"""Greedy: the modality that learns mostly through the exchange of channels does without it for some steps."""

import copy

import pytest
import torch
from datasets import Dataset
from transformers import TrainerCallback

import tiny
from hf_colearn import CoLearningForMultimodalClassification, ConstantAlpha, ContrastiveAlignment, MultimodalCollator
from hf_colearn.balance.greedy import GreedyCuration, bypass_difference, speed
from hf_colearn.data.multimodal import without_modality
from hf_colearn.models.lora import with_lora
from refusals import Refusals, assert_refused
from tiny_modalities import data, model, trainer


def mmtm(names=("image", "audio"), **kwargs):
    return model(names, fusion="mmtm", **kwargs)


def test_a_speed_is_the_squared_gradient_over_the_squared_weights():
    # |(3, 4)|^2 + |(0, 5)|^2 = 50 and |(1, 2)|^2 = 5: .1. What has no gradient counts as a weight; what is frozen does not.
    weights = [torch.nn.Parameter(torch.tensor(values)) for values in ([3.0, 4.0], [0.0, 5.0])]
    weights[0].grad = torch.tensor([1.0, 2.0])
    frozen = torch.nn.Parameter(torch.tensor([9.0]), requires_grad=False)
    assert speed([*weights, frozen]).item() == pytest.approx(0.1)


def test_the_difference_is_of_logarithms_and_names_the_largest_ratio():
    # Ratios of bypass and main of 4 and 1: log10 4 = .60206.
    difference, fastest = bypass_difference(torch.tensor([[8.0, 2.0], [3.0, 3.0]]))
    assert (difference.item(), fastest.item()) == (pytest.approx(0.60206, abs=1e-5), 0)
    # Ratios of .5, 5 and .05 of three: log10 (5 / .05) = 2.
    difference, fastest = bypass_difference(torch.tensor([[1.0, 2.0], [5.0, 1.0], [1.0, 20.0]]))
    assert (difference.item(), fastest.item()) == (pytest.approx(2.0), 1)
    assert bypass_difference(torch.tensor([[6.0, 3.0], [2.0, 1.0]]))[0] == pytest.approx(0, abs=1e-6)


class Watch(TrainerCallback):
    """Weights and buffers after every step, and which modality was curated in it."""

    def __init__(self):
        self.states, self.curated = [], []

    def on_optimizer_step(self, args, state, control, model=None, **kwargs):
        self.curated.append(model.fusion.curated)
        self.states.append(copy.deepcopy(model.state_dict()))


def run_with(method, net=None, dataset=None, **fields):
    watch = Watch()
    fields = {"max_steps": 8, "learning_rate": 0.05, "weight_decay": 0.1, "callbacks": [watch], **fields}
    run = trainer(method, mmtm() if net is None else net, data(16) if dataset is None else dataset, **fields)
    run.train()
    return run, watch


def test_after_an_epoch_it_curates_for_some_steps_and_decides_after_a_step_without():
    run, watch = run_with(GreedyCuration(steps=2))
    # Two steps an epoch; the third decides, the fourth and fifth are curated, the sixth decides.
    fast = watch.curated[3]
    assert fast is not None and watch.curated == [None, None, None, fast, fast, None, fast, fast]
    logs = [log for log in run.state.log_history if "loss" in log]
    name = ("image", "audio")[fast]
    assert [log[f"balance_coefficient_{name}"] for log in logs] == [0, 0, 0, 1, 1, 0, 1, 1]
    assert [log["step"] for log in logs if "balance_difference" in log] == [3, 6]
    assert run.model.fusion.curated is None


def test_equal_ratios_are_not_curated():
    _, watch = run_with(GreedyCuration(epsilon=100.0, steps=2))
    assert watch.curated == [None] * 8


def test_a_curated_step_moves_neither_the_gates_nor_their_mean_nor_the_speeds():
    method = GreedyCuration(steps=2)
    run, watch = run_with(method, max_steps=5)
    fast, before, after = watch.curated[4], watch.states[2], watch.states[4]
    # Momentum and weight decay would move the weights of the gates at gradients of 0.
    for key in (f"fusion.excitations.{fast}.weight", f"fusion.gate_mean_{fast}", f"fusion.gate_mean_{1 - fast}"):
        assert torch.equal(before[key], after[key]), key
    for key in ("fusion.squeeze.weight", f"fusion.excitations.{1 - fast}.weight"):
        assert not torch.equal(before[key], after[key]), key
    _, three = run_with(other := GreedyCuration(steps=2), max_steps=3)
    assert torch.equal(method.state_dict()["speeds"], other.state_dict()["speeds"])
    assert len(three.states) == 3


@pytest.mark.parametrize("clip", [0.0, 1e-3])
def test_speeds_are_of_unclipped_gradients_of_whole_steps_however_they_are_cut(clip):
    found = []
    for size in (8, 1):
        method = GreedyCuration()
        cut = {"per_device_train_batch_size": size, "gradient_accumulation_steps": 8 // size, "max_grad_norm": clip}
        dataset = without_modality(data(8), "audio", 0.5, seed=1)
        collator = MultimodalCollator(dict.fromkeys(("image", "audio")))
        net = mmtm()
        run_with(method, net, dataset, max_steps=1, data_collator=collator, optim="sgd", learning_rate=1e-9, **cut)
        found.append(method.state_dict()["speeds"])
        # By hand, from the gradients of the plain model, whose weights have hardly moved.
        if size == 8:
            batch = collator([dataset[i] for i in range(8)])
            net.train()(**batch).loss.backward()
            squeeze, own = net.fusion.squeeze, net.fusion.excitations[1]
            weights = [*squeeze.parameters(), *own.parameters()]
            squares = [sum(t.square().sum() for t in side) for side in ([w.grad for w in weights], weights)]
            assert found[0][1, 0].item() == pytest.approx((squares[0] / squares[1]).item(), rel=1e-3)
    torch.testing.assert_close(found[0], found[1], rtol=1e-4, atol=1e-8)


def test_the_null_control_draws_the_modality_by_seed_and_step():
    names = ("a", "b", "c")
    drawn = []
    for seed in (1, 1, 2):
        method = GreedyCuration(steps=1, random=True, start_epoch=0)
        _, watch = run_with(method, mmtm(names), data(16, names), max_steps=16, seed=seed)
        drawn.append(watch.curated)
    assert drawn[0] == drawn[1] != drawn[2]
    # Every other step is curated, as with the rule; all modalities come up.
    assert all(curated[::2] == [None] * 8 and set(curated[1::2]) == {0, 1, 2} for curated in drawn)


def test_gates_between_the_stages_are_curated_as_well():
    torch.manual_seed(0)
    net = CoLearningForMultimodalClassification.from_backbones(
        {"image": tiny.resnet(), "audio": tiny.resnet()}, 4, 3, fusion="mmtm", fusion_options={"stages": [1, 2]}
    )
    drawn = torch.randn(8, 2, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    columns = {f"{name}_pixel_values": drawn[:, i].numpy() for i, name in enumerate(("image", "audio"))}
    dataset = Dataset.from_dict({**columns, "labels": [0, 1, 2, 0, 1, 2, 0, 1]}).with_format("torch")
    _, watch = run_with(GreedyCuration(steps=1, start_epoch=0), net, dataset, max_steps=2)
    fast = watch.curated[1]
    for stage in (0, 1):
        key = f"fusion.exchanges.{stage}.excitations.{{}}.weight".format
        assert torch.equal(watch.states[0][key(fast)], watch.states[1][key(fast)])
        assert not torch.equal(watch.states[0][key(1 - fast)], watch.states[1][key(1 - fast)])


def test_a_resumed_run_is_the_same_and_a_second_run_begins_anew():
    fields = {"save_strategy": "steps", "save_steps": 2}
    whole, watch = run_with(GreedyCuration(steps=2), **fields)
    for step in (2, 4):  # before the first decision, and among curated steps
        resumed = trainer(GreedyCuration(steps=2), mmtm(), max_steps=8, learning_rate=0.05, weight_decay=0.1)
        resumed.train(resume_from_checkpoint=f"out/checkpoint-{step}")
        for name, weight in whole.model.state_dict().items():
            assert torch.equal(weight, resumed.model.state_dict()[name]), name
    whole.train()
    assert watch.curated[8:11] == [None] * 3


def test_it_goes_with_adapters_half_precision_a_contrastive_term_and_missing_modalities():
    run, watch = run_with(
        GreedyCuration(steps=1, start_epoch=0),
        with_lora(mmtm(), 2),
        without_modality(data(16), "audio", 0.6, seed=1),
        per_device_train_batch_size=2,
        gradient_accumulation_steps=2,
        bf16=True,
        max_steps=4,
        data_collator=MultimodalCollator(dict.fromkeys(("image", "audio"))),
        objective=ContrastiveAlignment(0.5),
        alpha=ConstantAlpha(0.25, "contrastive"),
        callbacks=[],
    )
    logged = [
        log["balance_coefficient_image"] + log["balance_coefficient_audio"] for log in run.state.log_history[:-1]
    ]
    assert logged == [0, 1, 0, 1] and not watch.states


refusals = Refusals()


@refusals.case(
    ValueError, "GreedyCuration works with fusion='mmtm'", "the model has fusion='concat'", "build it with that"
)
def another_fusion(folder):
    yield
    trainer(GreedyCuration())


@refusals.case(ValueError, "epsilon=-1", "pass 0 or more")
def a_negative_threshold(folder):
    yield
    GreedyCuration(epsilon=-1)


@refusals.case(ValueError, "steps=0", "at least 1")
def no_curated_steps(folder):
    yield
    GreedyCuration(steps=0)


@refusals.case(TypeError, "random=7 is a int", "pass a bool")
def a_seed_in_place_of_a_switch(folder):
    yield
    GreedyCuration(random=7)


@pytest.mark.parametrize(Refusals.NAMES, refusals.cases)
def test_it_is_refused(situation, error, texts, tmp_path):
    assert_refused(situation, error, texts, tmp_path)
