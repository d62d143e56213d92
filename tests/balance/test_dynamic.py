"""DOMFN: the fused prediction learns from the samples on which the modalities agree."""

import copy

import pytest
import torch
from torch.nn.functional import cross_entropy

from balanced_runs import assert_resumes, gradients, incomplete
from hf_colearn import DynamicFusion
from hf_colearn.balance.dynamic import sample_losses
from hf_colearn.models.dynamic_fusion import disagreement
from refusals import Refusals, assert_refused
from tiny_modalities import data, model, trainer


THREE = ("image", "audio", "text")


def net(names=("image", "audio"), tau=0.003, **kwargs):
    """Whose gate is open for some of the samples, and closed for others."""
    return model(names, fusion="dynamic", fusion_options={"tau": tau}, **kwargs)


# ---- the loss of a sample ----


def test_an_open_gate_adds_the_disagreement_and_the_fused_loss():
    # p (.9, .1), (.5, .5), mean (.7, .3): d = .2^2 = .04 for both; with l = .5: l^2 / 2 - eta d = .125 - .02 = .105.
    logits = [torch.tensor([[0.9, 0.1]]).log(), torch.tensor([[0.5, 0.5]]).log()]
    d_BM = disagreement(logits, torch.ones(1, 2, dtype=torch.bool))
    assert d_BM.tolist() == [pytest.approx([0.04, 0.04])]
    l_BM, l_z_B = torch.tensor([[0.5, 0.5]]), torch.tensor([0.3])
    is_open = sample_losses(l_BM, d_BM, l_z_B, torch.tensor([True]), 0.5).item()
    assert is_open == pytest.approx(0.105 + 0.105 + 0.5 + 0.5 + 0.3)
    # Closed, the modalities learn alone; the released code has .105 + .105 here.
    assert sample_losses(l_BM, d_BM, l_z_B, torch.tensor([False]), 0.5).item() == pytest.approx(1.0)


def reference(outputs, labels, tau, pretraining=False):
    """The loss sample by sample, of modalities that all samples have; and how many gates are open."""
    total, opened = 0, 0
    for i, y in enumerate(labels):
        p_MC = torch.stack([logits[i].softmax(0) for logits in outputs.modality_logits.values()])
        d_M = (p_MC - p_MC.mean(0)).square().max(1).values
        l_M = -p_MC[:, y].log()
        total = total + l_M.sum()
        if (d_M / tau < 0.8).all():
            opened += 1
            if not pretraining:
                total = total + (l_M**2 / 2 - 0.5 * d_M).sum() + cross_entropy(outputs.logits[i : i + 1], y[None])
    return total / len(labels), opened


@pytest.mark.parametrize("names", [("image", "audio"), THREE])
def test_it_trains_as_the_equations_say(names):
    dataset = data(8, names)
    samples, trained = dataset[:], net(names)
    expected, opened = copy.deepcopy(trained).train(), []
    optimizer = torch.optim.SGD(expected.parameters(), 0.2)
    for epoch in range(3):  # an epoch is one step, the first of them is of the modalities alone
        optimizer.zero_grad()
        loss, count = reference(expected(**samples), samples["labels"], 0.003, pretraining=epoch < 1)
        loss.backward()
        optimizer.step()
        opened.append(count / 8)
    assert all(0 < share < 1 for share in opened)  # both branches
    fields = {"optim": "sgd", "learning_rate": 0.2, "max_grad_norm": 0.0, "max_steps": 3}
    run = trainer(DynamicFusion(pretraining_epochs=1), trained, dataset, **fields)
    run.train()
    for weight, other in zip(run.model.parameters(), expected.parameters(), strict=True):
        torch.testing.assert_close(weight, other, atol=1e-5, rtol=1e-4)
    logs = run.state.log_history[:-1]
    assert [log["balance_gate_open"] for log in logs] == pytest.approx(opened)
    assert all(log[f"balance_disagreement_{name}"] > 0 for log in logs for name in names)


def test_the_fused_classifier_is_not_trained_first_nor_where_all_gates_are_closed():
    for method, tau in ((DynamicFusion(pretraining_epochs=9), 1.0), (DynamicFusion(), 1e-9)):
        (found,) = gradients(method, net(tau=tau), data(8))
        assert not found["fusion.classifier.weight"].any() and found["encoders.audio.classifier.weight"].any()


def test_eta_weighs_the_gradient_of_the_disagreement():
    key = "encoders.audio.classifier.weight"
    none, one, two = (gradients(DynamicFusion(eta), net(tau=1.0), data(8))[0][key] for eta in (0.0, 1.0, 2.0))
    assert (one - none).any()
    torch.testing.assert_close(two - none, 2 * (one - none), rtol=1e-3, atol=1e-7)


def test_a_modality_that_a_sample_lacks_has_no_part_in_its_loss():
    # Three of eight samples have the image alone: d = 0, the gate is open, l + l^2 / 2 + l_z.
    dataset, mask_BM = data(8), torch.ones(8, 2).bool()
    mask_BM[:3, 1] = False
    trained = net(tau=1e-9)  # closed for the others: l_image + l_audio
    samples = dataset[:]
    outputs = trained(**samples, modality_mask=mask_BM)
    image_B, audio_B, z_B = (
        cross_entropy(logits, samples["labels"], reduction="none")
        for logits in (*outputs.modality_logits.values(), outputs.logits)
    )
    expected_B = torch.cat([(image_B + image_B**2 / 2 + z_B)[:3], (image_B + audio_B)[3:]])
    with_mask = dataset.add_column("modality_mask", mask_BM.tolist())
    run = trainer(DynamicFusion(), trained, with_mask, max_steps=1)
    run.train()
    log = run.state.log_history[0]
    assert log["loss"] == pytest.approx(expected_B.mean().item(), rel=1e-5)
    assert log["balance_gate_open"] == pytest.approx(3 / 8)


@pytest.mark.parametrize("missing", [False, True])
def test_a_step_is_the_same_however_it_is_cut(missing):
    fields = incomplete(8) if missing else {"dataset": data(8)}
    whole, cut = (
        gradients(DynamicFusion(), net(), per_device_train_batch_size=size,
                  gradient_accumulation_steps=8 // size, **fields)[0]
        for size in (8, 1)
    )  # fmt: skip
    for name, gradient in whole.items():
        torch.testing.assert_close(cut[name], gradient, atol=1e-6, rtol=1e-4)


def test_a_prediction_does_not_depend_on_the_rest_of_its_batch():
    # The released code decides once, by one number, and so for a batch of one sample alone.
    trained, samples = net().eval(), data(8)[:]
    inputs = {name: value for name, value in samples.items() if name != "labels"}
    whole = trained(**inputs).logits
    single = torch.cat([trained(**{name: x[i : i + 1] for name, x in inputs.items()}).logits for i in range(8)])
    torch.testing.assert_close(whole, single)


def test_it_resumes_in_its_pretraining(tmp_path):
    assert_resumes(lambda: DynamicFusion(pretraining_epochs=2), tmp_path, save=3, net=net())  # two steps an epoch


# ---- what is refused ----

refusals = Refusals()


@refusals.case(ValueError, "works with fusion='dynamic'", "fusion='sum'", "build it with that")
def another_fusion(folder):
    trained = model(fusion="sum")
    yield
    trainer(DynamicFusion(), trained, folder=folder / "out")


@refusals.case(ValueError, "modality_dropout=0.25 hides some", "build the model without")
def dropped_modalities(folder):
    trained = net(modality_dropout=0.25)
    yield
    trainer(DynamicFusion(), trained, folder=folder / "out")


@refusals.case(ValueError, "DynamicFusion has the heads' in it", "modality_loss_weight=1.0 would do nothing")
def a_loss_of_the_heads_beside_it(folder):
    trained = net(modality_loss_weight=1.0)
    yield
    trainer(DynamicFusion(), trained, folder=folder / "out")


@refusals.case(ValueError, "eta=-0.5", "at least 0")
def agreement(folder):
    yield
    DynamicFusion(eta=-0.5)


@refusals.case(ValueError, "pretraining_epochs=0.5", "pass a whole number")
def half_an_epoch(folder):
    yield
    DynamicFusion(pretraining_epochs=0.5)


@pytest.mark.parametrize(Refusals.NAMES, refusals.cases)
def test_it_is_refused(situation, error, texts, tmp_path):
    assert_refused(situation, error, texts, tmp_path)
