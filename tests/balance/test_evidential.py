"""ETMC: every modality's evidence for the classes, combined."""

import copy

import pytest
import torch
from torch.distributions import Dirichlet, kl_divergence

from balanced_runs import assert_resumes, gradients, incomplete
from hf_colearn import EvidentialFusion
from hf_colearn.balance.evidential import dirichlet_loss, divergence_from_uniform, expected_cross_entropy
from refusals import Refusals, assert_refused
from tiny_modalities import data, model, trainer


THREE = ("image", "audio", "text")


def net(names=("image", "audio"), **kwargs):
    return model(names, fusion="evidential", **kwargs)


# ---- the loss of a view ----


def test_the_true_class_has_no_evidence_in_the_divergence():
    # alpha (3, 1), y = 0: CE = psi(4) - psi(3) = 1/3; alpha~ = (1, 1), KL 0;
    # KL(alpha) = ln G(4) - ln G(2) - ln G(3) - ln G(1) + 2 (psi(3) - psi(4)) = ln 3 - 2/3 = .43195.
    alpha_BC, targets_BC = torch.tensor([[3.0, 1.0]]), torch.tensor([[1.0, 0.0]])
    assert expected_cross_entropy(alpha_BC, targets_BC).item() == pytest.approx(1 / 3, abs=1e-6)
    assert divergence_from_uniform(alpha_BC).item() == pytest.approx(0.43195, abs=1e-5)
    assert dirichlet_loss(alpha_BC, targets_BC, 1.0).item() == pytest.approx(1 / 3, abs=1e-6)
    assert dirichlet_loss(alpha_BC, targets_BC, 1.0, released=True).item() == pytest.approx(1 / 3 + 0.43195, abs=1e-5)
    # Of the other class nothing is forgiven: alpha~ = (3, 1), CE = psi(4) - psi(1) = 1 + 1/2 + 1/3; half of KL.
    other = dirichlet_loss(alpha_BC, torch.tensor([[0.0, 1.0]]), 0.5).item()
    assert other == pytest.approx(11 / 6 + 0.43195 / 2, abs=1e-5)


def test_without_the_tilde_more_evidence_for_the_true_class_may_cost_more():
    more_BC, less_BC, y = torch.tensor([[50.0, 1.0]]), torch.tensor([[5.0, 1.0]]), torch.tensor([[1.0, 0.0]])
    assert dirichlet_loss(more_BC, y, 1.0) < dirichlet_loss(less_BC, y, 1.0)
    assert dirichlet_loss(more_BC, y, 1.0, released=True) > dirichlet_loss(less_BC, y, 1.0, released=True)


def test_divergence_and_expectation_are_those_of_torch_distributions():
    torch.manual_seed(0)
    alpha_BC = 1 + 10 * torch.rand(5, 4, dtype=torch.float64)
    expected_B = kl_divergence(Dirichlet(alpha_BC), Dirichlet(torch.ones(5, 4, dtype=torch.float64)))
    torch.testing.assert_close(divergence_from_uniform(alpha_BC), expected_B)
    draws = Dirichlet(alpha_BC).sample((40_000,)).log().neg().mean(0)  # E[-log p_k], known to about .5%
    targets_BC = torch.tensor([[0, 0, 1, 0]], dtype=torch.float64).expand(5, 4)
    torch.testing.assert_close(expected_cross_entropy(alpha_BC, targets_BC), draws[:, 2], rtol=0.03, atol=0)


def test_a_sample_without_a_label_adds_nothing():
    alpha_BC = torch.tensor([[3.0, 1.0], [7.0, 2.0]], requires_grad=True)
    loss_B = dirichlet_loss(alpha_BC, torch.tensor([[1.0, 0.0], [0.0, 0.0]]), 1.0)
    loss_B.sum().backward()
    assert loss_B[1] == 0 and alpha_BC.grad[1].tolist() == [0, 0]


# ---- the loss of a run ----


def reference(outputs, pseudo, labels, weight, released):
    """The loss by torch.distributions, of modalities that all samples have."""
    alphas = [torch.nn.functional.softplus(x) + 1 for x in (*outputs.modality_logits.values(), pseudo)]
    evidence = alphas[-1] - 1
    for alpha in alphas[:-1]:  # Dempster's rule: e1 + e2 + e1 e2 / C
        evidence = evidence + (alpha - 1) + evidence * (alpha - 1) / 3
    total = 0
    for alpha in (*alphas, evidence + 1):
        y = torch.eye(3)[labels]
        total = total + (alpha.sum(1).digamma() - alpha.digamma()[range(len(y)), labels]).mean()
        tilde = alpha if released else torch.where(y > 0, 1, alpha)
        total = total + weight * kl_divergence(Dirichlet(tilde), Dirichlet(torch.ones_like(tilde))).mean()
    return total


@pytest.mark.parametrize("names, released", [(("image", "audio"), False), (THREE, True)])
def test_it_trains_as_the_equations_say(names, released):
    dataset = data(8, names)
    samples, trained = dataset[:], net(names)
    expected = copy.deepcopy(trained).train()
    optimizer = torch.optim.SGD(expected.parameters(), 0.1)
    for epoch in range(4):  # an epoch is one step; the weight of KL is 0, 1/2, 1, 1
        outputs = expected(**samples)
        pseudo = expected.fusion.pseudo(torch.cat([*outputs.modality_latents.values()], dim=1))
        optimizer.zero_grad()
        reference(outputs, pseudo, samples["labels"], min(1, epoch / 2), released).backward()
        optimizer.step()
    fields = {"optim": "sgd", "learning_rate": 0.1, "max_grad_norm": 0.0, "max_steps": 4}
    run = trainer(EvidentialFusion(2, released=released), trained, dataset, **fields)
    run.train()
    for weight, other in zip(run.model.parameters(), expected.parameters(), strict=True):
        torch.testing.assert_close(weight, other, atol=1e-5, rtol=1e-4)
    logs = run.state.log_history[:-1]
    assert [log["balance_annealing"] for log in logs] == [0, 0.5, 1, 1]
    assert all(0 < log[f"balance_uncertainty_{name}"] < 1 for log in logs for name in names)


@pytest.mark.parametrize("missing", [False, True])
def test_a_step_is_the_same_however_it_is_cut(missing):
    fields = incomplete(8) if missing else {"dataset": data(8)}
    whole, cut = (
        gradients(EvidentialFusion(2), net(), steps=2, per_device_train_batch_size=size,
                  gradient_accumulation_steps=8 // size, **fields)[1]
        for size in (8, 1)
    )  # fmt: skip
    for name, gradient in whole.items():
        torch.testing.assert_close(cut[name], gradient, atol=1e-6, rtol=1e-4)


def test_a_modality_that_is_absent_adds_no_view():
    # Three of eight samples lack the audio: its view is a mean over five, and the others over eight.
    dataset, mask_BM = data(8), torch.ones(8, 2).bool()
    mask_BM[:3, 1] = False
    trained = net()
    outputs = trained(**dataset[:], modality_mask=mask_BM)
    alphas = [torch.nn.functional.softplus(x) + 1 for x in outputs.modality_logits.values()]
    pseudo = torch.nn.functional.softplus(trained.fusion.pseudo(outputs.latents)) + 1
    y = torch.eye(3)[dataset[:]["labels"]]
    expected = sum(
        expected_cross_entropy(alpha[rows], y[rows]).mean()
        for alpha, rows in ((alphas[0], slice(0, 8)), (alphas[1], slice(3, 8)), (pseudo, slice(0, 8)),
                            (outputs.logits.exp(), slice(0, 8)))
    )  # fmt: skip
    with_mask = dataset.add_column("modality_mask", mask_BM.tolist())
    run = trainer(EvidentialFusion(), trained, with_mask, max_steps=1)
    run.train()
    assert run.state.log_history[0]["loss"] == pytest.approx(expected.item(), rel=1e-5)


def test_it_resumes_with_its_annealing(tmp_path):
    assert_resumes(lambda: EvidentialFusion(2), tmp_path, save=3, net=net())  # two steps an epoch


# ---- what is refused ----

refusals = Refusals()


@refusals.case(ValueError, "works with fusion='evidential'", "fusion='concat'", "build it with that")
def another_fusion(folder):
    trained = model()
    yield
    trainer(EvidentialFusion(), trained, folder=folder / "out")


@refusals.case(ValueError, "modality_loss_weight=0.5 would do nothing", "build the model without")
def a_loss_of_the_heads_beside_it(folder):
    trained = net(modality_loss_weight=0.5)
    yield
    trainer(EvidentialFusion(), trained, folder=folder / "out")


@refusals.case(ValueError, "annealing_epochs=-1", "at least 0")
def epochs_below_0(folder):
    yield
    EvidentialFusion(annealing_epochs=-1)


@refusals.case(ValueError, "released=1", "pass True")
def a_number(folder):
    yield
    EvidentialFusion(released=1)


@pytest.mark.parametrize(Refusals.NAMES, refusals.cases)
def test_it_is_refused(situation, error, texts, tmp_path):
    assert_refused(situation, error, texts, tmp_path)
