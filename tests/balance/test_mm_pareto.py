"""MMPareto: one gradient of the fused and the unimodal losses for each encoder."""

import copy

import pytest
import torch
from torch.nn.functional import cross_entropy

from balanced_runs import assert_cut_makes_no_difference, assert_resumes, gradients, incomplete, of_encoder
from hf_colearn import ConstantAlpha, ContrastiveAlignment, LearnedAlpha, MMPareto, MultimodalCollator
from hf_colearn.balance.method import encoder_parameters
from hf_colearn.balance.mm_pareto import combined_gradient, fused_weight
from hf_colearn.data.multimodal import without_modality
from refusals import Refusals, assert_refused
from tiny_modalities import NAMES, data, model, trainer


THREE = ("image", "audio", "text")


def tensors(*values):
    return [torch.tensor(value) for value in values]


# ---- the rule ----


@pytest.mark.parametrize(
    "unimodal, weight, combined",
    [
        # g1 (1, 0), g2 (-1, 1): g1 g2 = -1 and c = (2 + 1) / 5; d = 1.2 g1 + .8 g2 = (.4, .8), shorter than g1 + g2 = (0, 1):
        # 1.5 (.4, .8) / sqrt(.8).
        ((-1.0, 1.0), 0.6, (0.67082, 1.34164)),
        # g1 g2 = 1: d = g1 + g2 = (2, 1), times 1.5.
        ((1.0, 1.0), 0.5, (3.0, 1.5)),
        # At a right angle the shortest vector lies halfway: d = (1, 1), times 1.5.
        ((0.0, 1.0), 0.5, (1.5, 1.5)),
        # g2 = -3 g1: c = (9 + 3) / 16 = .75, where d = 1.5 g1 - 1.5 g1 is 0.
        ((-3.0, 0.0), 0.75, (0.0, 0.0)),
        # g2 = 0: c = 0, kept at .001; d = .002 g1 grows to the length of g1.
        ((0.0, 0.0), 0.001, (1.5, 0.0)),
    ],
)
def test_gradients_of_one_tensor(unimodal, weight, combined):
    g1, g2 = tensors([1.0, 0.0]), tensors(list(unimodal))
    found, is_conflict = fused_weight(g1, g2)
    assert found.item() == pytest.approx(weight) and is_conflict.item() == (unimodal != (1.0, 1.0))
    assert combined_gradient(g1, g2, found)[0].tolist() == pytest.approx(combined, abs=1e-5)


def test_the_weight_is_of_all_tensors_and_the_length_of_each():
    # g1 ((1, 0), (2)), g2 ((-1, 1), (-1)): g1 g2 = -1 - 2, |g1|^2 = 5, |g2|^2 = 3, c = (3 + 3) / (5 + 3 + 6) = 3/7.
    g1, g2 = tensors([1.0, 0.0], [2.0]), tensors([-1.0, 1.0], [-1.0])
    weight, _ = fused_weight(g1, g2)
    assert weight.item() == pytest.approx(3 / 7)
    # d = 6/7 g1 + 8/7 g2 = ((-2/7, 8/7), (4/7)); |(-2, 8)| / 7 = 1.178 is longer than |(0, 1)|, 4/7 is shorter than 1.
    first, second = combined_gradient(g1, g2, weight, gamma=1.0)
    assert first.tolist() == pytest.approx([-2 / 7, 8 / 7]) and second.item() == pytest.approx(1.0)


def test_no_mixture_is_shorter_under_a_conflict():
    torch.manual_seed(0)
    for _ in range(20):
        g1, g2 = torch.randn(5), torch.randn(5)
        g2 = g2 - (g2 @ g1).clamp(min=0) / g1.square().sum() * g1 * 1.5  # in conflict
        weight, _ = fused_weight([g1], [g2])
        lengths = [(c * g1 + (1 - c) * g2).norm().item() for c in torch.linspace(0.001, 0.999, 101)]
        assert (weight * g1 + (1 - weight) * g2).norm().item() <= min(lengths) + 1e-6


@pytest.mark.parametrize("g1", [0.0, 1.0])
@pytest.mark.parametrize("g2", [0.0, -1.0])
def test_gradients_that_cancel_or_are_zero_stay_finite(g1, g2):
    # The released code divides by the length of d, which is 0 in three of these.
    fused, unimodal = tensors([g1, g1], [0.0]), tensors([g2, g2], [0.0])
    weight, _ = fused_weight(fused, unimodal)
    combined = combined_gradient(fused, unimodal, weight)
    assert all(gradient.isfinite().all() for gradient in combined) and 0 < weight < 1
    assert combined[0].tolist() == pytest.approx([1.5 * (g1 + g2)] * 2)  # the one that is not 0, at its length


# ---- the step ----


def expected_gradients(net, samples, gamma=1.5, unimodal_of=lambda outputs: outputs.modality_logits):
    """By the equations alone: of every encoder's parameters, and the plain sum's of the other parameters."""
    outputs, labels = net(**{k: v for k, v in samples.items() if k != "labels"}), samples["labels"]
    losses = [cross_entropy(outputs.logits, labels)]
    losses += [cross_entropy(logits_BC, labels) for logits_BC in unimodal_of(outputs).values()]
    names = [name for name, parameter in net.named_parameters() if parameter.requires_grad]
    found = []
    for loss in losses:
        net.zero_grad()
        loss.backward(retain_graph=True)
        zeros = {name: torch.zeros_like(parameter) for name, parameter in net.named_parameters()}
        found.append({n: zeros[n] if p.grad is None else p.grad.clone() for n, p in net.named_parameters()})
    net.zero_grad()
    expected = {name: sum(of_loss[name] for of_loss in found) for name in names}
    for index, modality in enumerate(net.modalities):
        of_modality = [*of_encoder(expected, modality)]
        g1, g2 = (
            torch.cat([of_loss[name].flatten() for name in of_modality]) for of_loss in (found[0], found[1 + index])
        )
        c = 0.5 if g1 @ g2 > 0 else ((g2 @ g2 - g1 @ g2) / (g1 - g2).square().sum()).clamp(0.001, 0.999).item()
        for name in of_modality:
            direction = 2 * c * found[0][name] + 2 * (1 - c) * found[1 + index][name]
            expected[name] = gamma * direction * max(1.0, (expected[name].norm() / direction.norm()).item())
    return expected


def in_conflict(net):
    """Makes the fused head predict the opposite of the modalities' own."""
    with torch.no_grad():
        heads = [net.encoders[name].classifier for name in net.modalities]
        net.fusion.classifier.weight.copy_(-torch.cat([head.weight for head in heads], dim=1))
    return net


@pytest.mark.parametrize("names", [("image", "audio"), THREE])
@pytest.mark.parametrize(
    "make", [model, lambda names: in_conflict(model(names)), lambda names: model(names, fusion="sum")]
)
def test_a_step_is_that_of_the_equations(make, names):
    net, samples = make(names), data(8, names)
    expected = expected_gradients(copy.deepcopy(net), samples[:])
    (found,) = gradients(MMPareto(), net, samples)
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, atol=1e-6, rtol=1e-4, msg=lambda m, name=name: f"{name} {m}")


def test_logits_may_be_slices_of_the_fused_head():
    net, samples = model(), data(8)

    def slices(outputs):
        halves, bias = net.fusion.classifier.weight.chunk(2, 1), net.fusion.classifier.bias / 2
        return {name: latents @ half.T + bias
                for (name, latents), half in zip(outputs.modality_latents.items(), halves, strict=True)}  # fmt: skip

    expected = expected_gradients(net, samples[:], unimodal_of=slices)
    (found,) = gradients(MMPareto(unimodal="fused"), model(), samples)
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, atol=1e-6, rtol=1e-4)


def test_an_encoder_that_does_not_train_is_left_out():
    net = model()
    for parameter in encoder_parameters(net)["audio"]:
        parameter.requires_grad_(False)
    expected = expected_gradients(model(), data(8)[:])
    (found,) = gradients(MMPareto(), net, data(8))
    assert not of_encoder(found, "audio")
    for name, gradient in of_encoder(found, "image").items():
        torch.testing.assert_close(gradient, expected[name], atol=1e-6, rtol=1e-4)


def test_coefficients_and_conflicts_are_logged():
    run = trainer(MMPareto(), in_conflict(model()), max_steps=1)
    run.train()
    log = run.state.log_history[0]
    assert log["balance_conflict_image"] == log["balance_conflict_audio"] == 1
    assert 0 < log["balance_coefficient_image"] != 0.5
    calm = trainer(MMPareto(), model(fusion="sum"), max_steps=1)
    calm.train()
    assert calm.state.log_history[0]["balance_coefficient_image"] == 0.5


# ---- with what a Trainer does ----


def test_a_step_is_the_same_however_it_is_cut():
    assert_cut_makes_no_difference(MMPareto, **incomplete(8))


def test_a_contrastive_terms_gradient_is_added_as_it_is():
    fields = {"objective": ContrastiveAlignment(0.5), "alpha": ConstantAlpha(0.25, "contrastive")}
    (alone,), (beside,) = gradients(MMPareto(), dataset=data(8)), gradients(MMPareto(), dataset=data(8), **fields)
    fields["alpha"] = ConstantAlpha(1.0, "contrastive")
    (term,) = gradients(None, dataset=data(8), **fields)
    for name in of_encoder(alone, "image"):
        expected = 0.75 * alone[name] + 0.25 * term[name]
        assert term[name].norm() > 0.01
        torch.testing.assert_close(beside[name], expected, atol=1e-6, rtol=1e-4)


def test_clipping_comes_after_the_rule():
    logs = []
    for norm in (1e-3, 0.0):
        run = trainer(MMPareto(), in_conflict(model()), max_steps=1, max_grad_norm=norm, optim="sgd")
        run.train()
        logs.append(run.state.log_history[0])
    assert logs[0]["balance_coefficient_audio"] == logs[1]["balance_coefficient_audio"]


def test_steps_without_a_modality_give_finite_gradients_and_zeros_to_its_encoder():
    # One of eight samples has audio, and every step sees one sample.
    dataset, collator = without_modality(data(8), "audio", 0.9), MultimodalCollator(dict.fromkeys(NAMES))
    steps = gradients(MMPareto(), dataset=dataset, data_collator=collator, steps=8, per_device_train_batch_size=1)
    assert all(gradient.isfinite().all() for found in steps for gradient in found.values())
    moves = {name: [any(g.any() for g in of_encoder(found, name).values()) for found in steps]
             for name in ("image", "audio")}  # fmt: skip
    assert all(moves["image"]) and sum(moves["audio"]) == 1


def test_a_resumed_run_is_the_same(tmp_path):
    assert_resumes(MMPareto, tmp_path)


# ---- what is refused ----

refusals = Refusals()


@refusals.case(ValueError, "gamma=0", "above 0")
def no_gradient_left(folder):
    yield
    MMPareto(gamma=0)


@refusals.case(ValueError, "gamma='1.5'", "a number above 0")
def a_text(folder):
    yield
    MMPareto(gamma="1.5")


@refusals.case(ValueError, "none of their weights trains", "unfreeze some")
def frozen_encoders(folder):
    net = model()
    for parameters in encoder_parameters(net).values():
        for parameter in parameters:
            parameter.requires_grad_(False)
    yield
    trainer(MMPareto(), net)


@refusals.case(ValueError, "MMPareto trains on another loss", "LearnedAlpha", "use a constant alpha")
def a_learned_alpha(folder):
    yield
    trainer(MMPareto(), objective=ContrastiveAlignment(), alpha=LearnedAlpha(interval=2))


@refusals.case(ValueError, "MMPareto is defined for single_label_classification", "problem_type='regression'")
def a_regression(folder):
    yield
    trainer(MMPareto(), model(classes=1))


@pytest.mark.parametrize(Refusals.NAMES, refusals.cases)
def test_it_is_refused(situation, error, texts, tmp_path):
    assert_refused(situation, error, texts, tmp_path)
