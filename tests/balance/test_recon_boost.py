"""ReconBoost: modalities learn in turn what the others do not know, then all together."""

import copy
import math

import pytest
import torch
from torch.nn.functional import cross_entropy

from balanced_runs import assert_resumes, gradients, incomplete, of_encoder
from hf_colearn import ConstantAlpha, ContrastiveAlignment, MultimodalCollator, ReconBoost
from hf_colearn.balance.recon_boost import boosting_factors, boosting_loss, disagreement
from hf_colearn.data.multimodal import without_modality
from hf_colearn.models.lora import with_lora
from refusals import Refusals, assert_refused
from tiny_modalities import NAMES, data, trainer
from tiny_modalities import model as any_model


THREE = ("image", "audio", "text")


def model(names=NAMES, **kwargs):
    return any_model(names, fusion="sum", **kwargs)


def short(**kwargs):
    return ReconBoost(stage_epochs=1, joint_epochs=1, **kwargs)


# ---- the losses ----


@pytest.mark.parametrize(
    "weights, loss, gradient",
    [
        # (5 - .8) ln 2 / 2 classes; of u: 4.2 (q - y) / 2 with q = (.5, .5).
        ((5.0, 1.0), 1.45561, (-1.05, 1.05)),
        # (1 - .8) ln 2 / 2; .2 (q - y) / 2.
        ((1.0, 1.0), 0.06931, (-0.05, 0.05)),
    ],
)
def test_a_modality_learns_what_the_others_do_not_know(weights, loss, gradient):
    logits_BC = torch.zeros(1, 2, requires_grad=True)
    ensemble_BC = torch.tensor([[math.log(4), 0.0]], requires_grad=True)  # p = (.8, .2)
    found = boosting_loss(logits_BC, boosting_factors(ensemble_BC, torch.tensor([[1.0, 0.0]]), *weights))
    found.sum().backward()
    assert found.item() == pytest.approx(loss, abs=1e-5) and ensemble_BC.grad is None
    assert logits_BC.grad[0].tolist() == pytest.approx(gradient, abs=1e-5)


def test_a_class_of_half_a_label_counts_by_half():
    # y (.5, .5), p (.8, .2), w (5, 1): (.5 * 4.2 + .5 * 4.8) ln 2 / 2.
    factors_BC = boosting_factors(torch.tensor([[math.log(4), 0.0]]), torch.tensor([[0.5, 0.5]]), 5.0, 1.0)
    assert boosting_loss(torch.zeros(1, 2), factors_BC).item() == pytest.approx(4.5 * math.log(2) / 2)


def test_the_agreement_has_a_gradient():
    # q (.5, .5) and the other's (.8, .2): ((-.3)^2 + .3^2) / 2 = .09; dq/du = ((.25, -.25), (-.25, .25)), hence
    # (.25 (-.3) - .25 (.3)) 2 / 2 = -.15. Between two detached softmaxes, as in the released code, it would be 0.
    logits_BC = torch.zeros(1, 2, requires_grad=True)
    other_OBC = torch.tensor([[[math.log(4), 0.0]]], requires_grad=True)
    found = disagreement(logits_BC, other_OBC, torch.ones(1, 1).bool())
    found.sum().backward()
    assert found.item() == pytest.approx(0.09) and other_OBC.grad is None
    assert logits_BC.grad[0].tolist() == pytest.approx([-0.15, 0.15])


def test_a_sample_agrees_with_the_others_that_it_has():
    # The first sample has both others, at .09 and 0; the second one at .09; the third none.
    far_BC, near_BC = torch.tensor([[math.log(4), 0.0]] * 3), torch.zeros(3, 2)
    here_OB = torch.tensor([[True, True, False], [True, False, False]])
    found = disagreement(torch.zeros(3, 2), torch.stack([far_BC, near_BC]), here_OB)
    assert found.tolist() == pytest.approx([0.045, 0.09, 0])


# ---- the stages ----


def test_stages_of_three_modalities():
    balance = ReconBoost(stage_epochs=2, joint_epochs=1)
    assert [balance.stage_of(epoch) for epoch in range(7)] == [
        *((0, True), (0, True), (0, False)), *((1, True), (1, True), (1, False)), (2, True),
    ]  # fmt: skip


def test_weights_are_a_tenth_after_thirty_stages():
    balance = ReconBoost()
    assert balance.weights_of(29) == (5, 1) and balance.weights_of(30) == (0.5, 0.1)
    assert balance.weights_of(60) == (0.05, 0.01) and ReconBoost(decay_stages=None).weights_of(99) == (5, 1)


class Snapshots(ReconBoost):
    """Keeps the weights before every epoch, and after the last."""

    def on_train_begin(self, args, state, control, model=None, **kwargs):
        super().on_train_begin(args, state, control, model, **kwargs)
        self.weights_before = []

    def on_epoch_begin(self, args, state, control, model=None, **kwargs):
        super().on_epoch_begin(args, state, control, **kwargs)
        self.weights_before.append({name: weight.clone() for name, weight in model.state_dict().items()})

    def on_train_end(self, args, state, control, model=None, **kwargs):
        self.weights_before.append(dict(model.state_dict()))


@pytest.mark.parametrize("shared", [False, True])
def test_the_others_are_frozen_to_the_last_bit_in_a_turn(shared):
    balance = Snapshots(stage_epochs=1, joint_epochs=1)
    fields = {"weight_decay": 0.1, "num_train_epochs": 8, "max_steps": -1, "learning_rate": 0.01}
    trainer(balance, model(THREE, shared_classifier=shared), data(16, THREE), **fields).train()
    moved = [
        {name.split(".")[1] if "classifier" not in name or not shared else "head"
         for name in after if not torch.equal(before[name], after[name])}
        for before, after in zip(balance.weights_before, balance.weights_before[1:], strict=False)
    ]  # fmt: skip
    head = {"head"} if shared else set()
    together = {*THREE} | head
    turns = [
        together if name is None else {name} | head
        for name in ("image", None, "audio", None, "text", None, "image", None)
    ]
    assert moved == turns


def expected_gradients(net, samples, turn=None, weights=(5.0, 1.0), agreement=0.5):
    """By the equations alone."""
    outputs = net(**{name: value for name, value in samples.items() if name != "labels"})
    logits, labels = outputs.modality_logits, samples["labels"]
    if turn is None:
        loss = cross_entropy(sum(logits.values()), labels)
    else:
        rows, q = torch.arange(len(labels)), logits[turn].softmax(1)
        others = [value.detach() for name, value in logits.items() if name != turn]
        p = sum(others).softmax(1)[rows, labels]
        loss = (-(weights[0] - weights[1] * p) * q[rows, labels].log()).mean() / q.shape[1]
        loss = loss + agreement * torch.stack([(q - other.softmax(1)).square().mean() for other in others]).mean()
    loss.backward()
    return {name: parameter.grad for name, parameter in net.named_parameters() if parameter.grad is not None}


@pytest.mark.parametrize("names", [NAMES, THREE])
def test_steps_are_those_of_the_equations(names):
    # One batch an epoch, and a learning rate of 0: image alone, all, audio alone, all, ...
    fields = {"per_device_train_batch_size": 8, "learning_rate": 0.0, "max_steps": 2 * len(names)}
    steps = gradients(short(), model(names), data(8, names), **fields)
    for step, found in enumerate(steps):
        turn = None if step % 2 else names[step // 2]
        expected = expected_gradients(model(names), data(8, names)[:], turn)
        assert set(found) == set(expected)
        for name, gradient in expected.items():
            torch.testing.assert_close(found[name], gradient, atol=1e-6, rtol=1e-4)


def test_coefficients_and_stages_are_logged():
    run = trainer(short(), model(), data(8), max_steps=4, learning_rate=0.0)
    run.train()
    alone, joint, second = run.state.log_history[:3]
    assert [alone["balance_stage"], joint["balance_stage"], second["balance_stage"]] == [0, 0, 1]
    # (5 - p) / 3 with p between 0 and 1.
    assert 4 / 3 < alone["balance_coefficient_image"] < 5 / 3 and alone["balance_coefficient_audio"] == 0
    assert joint["balance_coefficient_image"] == joint["balance_coefficient_audio"] == 1
    assert second["balance_coefficient_image"] == 0 and 0 < second["balance_agreement"] < 1


# ---- with what a Trainer does ----


def test_steps_of_all_phases_are_the_same_however_they_are_cut():
    fields = {**incomplete(8), "learning_rate": 0.0, "max_steps": 4}
    whole, cut = (
        gradients(short(), model(), per_device_train_batch_size=size, gradient_accumulation_steps=8 // size, **fields)
        for size in (8, 1)
    )
    for one, other in zip(whole, cut, strict=True):
        assert set(one) == set(other)
        for name, gradient in one.items():
            torch.testing.assert_close(other[name], gradient, atol=1e-6, rtol=1e-4)


def test_a_sample_without_others_meets_an_even_ensemble():
    # No sample has audio but one, which lacks its label: of the others p = 1/3 in every class, and there is no agreement.
    dataset, collator = without_modality(data(8), "audio", 0.9), MultimodalCollator(dict.fromkeys(NAMES))
    here = [sample["audio_features"] is not None for sample in dataset]
    labels = [-100 if is_here else label for is_here, label in zip(here, data(8)["labels"], strict=True)]
    dataset = dataset.remove_columns("labels").add_column("labels", [int(label) for label in labels])
    fields = {"max_steps": 4, "learning_rate": 0.0, "data_collator": collator}
    run = trainer(short(), model(), dataset, **fields)
    run.train()
    alone, _, of_audio = run.state.log_history[:3]
    assert alone["balance_coefficient_image"] == pytest.approx((5 - 1 / 3) / 3) and alone["balance_agreement"] == 0
    assert of_audio["loss"] == 0 and of_audio["grad_norm"] == 0  # no label of it counts


@pytest.mark.parametrize("save", [2, 5])
def test_a_run_resumed_in_a_stage_is_the_same(save, tmp_path):
    # Two batches an epoch: between the phases of a stage, and within the second modality's turn.
    assert_resumes(short, tmp_path, steps=8, save=save, net=model())


def test_a_term_beside_it_moves_no_frozen_encoder():
    fields = {"objective": ContrastiveAlignment(0.5), "alpha": ConstantAlpha(0.25, "contrastive"), "max_steps": 4}
    found = gradients(short(), model(), data(8), **fields)[0]
    assert not of_encoder(found, "audio") and of_encoder(found, "image")
    (alone, *_), (term, *_) = (
        gradients(short(), model(), data(8), max_steps=4),
        gradients(None, model(), data(8), **{**fields, "alpha": ConstantAlpha(1.0, "contrastive")}),
    )
    for name in of_encoder(found, "image"):
        torch.testing.assert_close(found[name], 0.75 * alone[name] + 0.25 * term[name], atol=1e-6, rtol=1e-4)


def test_bf16_adapters_and_averaged_weights():
    net = with_lora(model(), 2)
    before = copy.deepcopy(net.state_dict())
    trainer(short(), net, data(8), max_steps=4, bf16=True, ema_decay=0.5, learning_rate=0.01).train()
    moved = {name for name, weight in net.state_dict().items() if not torch.equal(weight, before[name])}
    assert all(weight.isfinite().all() for weight in net.state_dict().values())
    assert {name.split("encoders.")[1].split(".")[0] for name in moved} == {*NAMES}


# ---- what is refused ----

refusals = Refusals()


@refusals.case(
    ValueError, "stage_epochs=4, joint_epochs=4) needs 16 epochs", "2 modalities", "the run has 8", "shorten"
)
def too_few_epochs(folder):
    yield
    trainer(ReconBoost(), model(), num_train_epochs=8, max_steps=-1)


@refusals.case(ValueError, "needs 4 epochs", "the run has 3.5")
def too_few_steps(folder):
    yield
    trainer(short(), model(), data(16), max_steps=7)  # of two batches an epoch


@refusals.case(ValueError, "a stream", "pass a data set with a length")
def a_stream(folder):
    yield
    trainer(ReconBoost(), model(), data().to_iterable_dataset(), max_steps=100)


@refusals.case(ValueError, "fusion='sum'", "the model has fusion='concat'")
def another_fusion(folder):
    yield
    trainer(short(), any_model())


@refusals.case(ValueError, "weights=(1.0, 5.0)", "from 0 to the first")
def a_loss_without_a_minimum(folder):
    yield
    ReconBoost(weights=(1.0, 5.0))


@refusals.case(ValueError, "stage_epochs=0", "at least 1")
def no_turn(folder):
    yield
    ReconBoost(stage_epochs=0)


@refusals.case(ValueError, "agreement=-0.5", "from 0 on")
def a_prize_for_disagreement(folder):
    yield
    ReconBoost(agreement=-0.5)


@pytest.mark.parametrize(Refusals.NAMES, refusals.cases)
def test_it_is_refused(situation, error, texts, tmp_path):
    assert_refused(situation, error, texts, tmp_path)
