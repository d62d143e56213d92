"""AGM: the gradients of the modalities' Shapley values are scaled."""

import copy
import math

import pytest
import torch
from datasets import Dataset
from torch.nn.functional import cross_entropy

import tiny
from balanced_runs import assert_resumes, gradients, incomplete
from docstrings import run_example
from hf_colearn import (
    AGM,
    CoLearningForMultimodalClassification,
    ContrastiveAlignment,
    FeatureBackboneConfig,
    LearnedAlpha,
)
from hf_colearn.balance.agm import coefficients, contributions, scale_gradient
from refusals import Refusals, assert_refused
from tiny_modalities import data, model, trainer


THREE = ("image", "audio", "text")
NAN = float("nan")


# ---- contributions ----


def linear(pads_with_gradient):
    """f = w1 a + w2 v + 1 with a = v = 1, its contributions scaled by .2 and 1.5; the gradient of their sum."""
    weights = torch.ones(2, requires_grad=True)
    whole = weights[0] + weights[1] + 1
    of_a, of_v = weights[0] + 1, weights[1] + 1  # the other one is padded by 0
    if not pads_with_gradient:
        of_a, of_v = of_a.detach(), of_v.detach()
    phi = contributions({(0, 1): whole, (0,): of_a, (1,): of_v}, 2)
    assert sum(phi).item() == whole.item()
    for contribution, kappa in zip(phi, (0.2, 1.5), strict=True):
        scale_gradient(contribution, torch.tensor(kappa))
    sum(phi).backward()
    return weights.grad.tolist()


def test_gradients_are_scaled_one_by_one():
    # phi_a = [w1 + w2 + 1 - (w2 + 1) + w1 + 1] / 2 = w1 + 1/2: of w1 alone.
    assert linear(pads_with_gradient=True) == pytest.approx([0.2, 1.5])
    # Without a gradient of the padded passes phi_a = (w1 + w2) / 2 + const, and both get (.2 + 1.5) / 2.
    assert linear(pads_with_gradient=False) == pytest.approx([0.85, 0.85])


def test_three_contributions_are_shapley_values_with_weights_of_a_third_and_a_sixth():
    f = {(0,): 1.0, (1,): 2.0, (2,): 4.0, (0, 1): 5.0, (0, 2): 7.0, (1, 2): 8.0, (0, 1, 2): 12.0}
    # phi_0 = 1/3 * 1 + 1/6 (5 - 2) + 1/6 (7 - 4) + 1/3 (12 - 8) = 8/3
    # phi_1 = 1/3 * 2 + 1/6 (5 - 1) + 1/6 (8 - 4) + 1/3 (12 - 7) = 11/3
    # phi_2 = 1/3 * 4 + 1/6 (7 - 1) + 1/6 (8 - 2) + 1/3 (12 - 5) = 17/3
    found = contributions({subset: torch.tensor(value) for subset, value in f.items()}, 3)
    assert [phi.item() for phi in found] == pytest.approx([8 / 3, 11 / 3, 17 / 3])


# ---- coefficients ----


def test_coefficients_of_the_papers_rule():
    # s_a .5, s_v 1.5: r_a = e^1 = 2.71828; running .8, 1.2: tau_a = e^.4 = 1.49182; kappa_a = e^(1.49182 - 2.71828);
    # r_v = e^-1 = .36788, tau_v = e^-.4 = .67032; kappa_v = e^.30244.
    found = coefficients(torch.tensor([0.5, 1.5]), torch.tensor([0.8, 1.2]), 1.0).tolist()
    assert found == pytest.approx([0.29333, 1.35316], abs=1e-5)


def test_the_first_step_has_no_past_and_the_difference_is_held_at_10():
    # tau = 1 without a past: kappa_a = e^(1 - e), kappa_v = e^(1 - 1/e).
    found = coefficients(torch.tensor([0.5, 1.5]), torch.tensor([NAN, NAN]), 1.0).tolist()
    assert found == pytest.approx([math.exp(1 - math.e), math.exp(1 - 1 / math.e)])
    # tau_a = e^5, r_a = 1: 147.4 is held at 10; tau_v = e^-5, r_v = 1.
    found = coefficients(torch.tensor([1.0, 1.0]), torch.tensor([0.0, 5.0]), 1.0).tolist()
    assert found == pytest.approx([math.exp(10), math.exp(math.exp(-5) - 1)], rel=1e-5)


def test_one_of_three_is_compared_with_the_mean_of_the_others_that_are_there():
    # Others of the first: (1.5 + 2.5) / 2 - 1 = 1; of the second (1 + 2.5) / 2 - 1.5 = .25; of the third -1.25.
    past = torch.tensor([NAN] * 3)
    found = coefficients(torch.tensor([1.0, 1.5, 2.5]), past, 1.0).tolist()
    assert found == pytest.approx([math.exp(1 - math.exp(x)) for x in (1.0, 0.25, -1.25)])
    assert coefficients(torch.tensor([1.0, NAN, NAN]), past, 1.0).tolist() == [1, 1, 1]
    assert coefficients(torch.tensor([0.5, NAN, 1.5]), past, 1.0)[[0, 2]].tolist() == pytest.approx(
        [math.exp(1 - math.e), math.exp(1 - 1 / math.e)]
    )


# ---- gradients of a model ----


def by_hand(net, samples, alpha):
    """The gradient of the first step, of the paper's formulas for two modalities, without hooks."""
    labels = samples["labels"]
    image, audio = samples["image_features"], samples["audio_features"]
    whole, of_image, of_audio = (
        net(image_features=x, audio_features=y).logits
        for x, y in ((image, audio), (image, 0 * audio), (0 * image, audio))
    )
    phi = (whole - of_audio + of_image) / 2, (whole - of_image + of_audio) / 2
    s_image, s_audio = (cross_entropy(x, labels).item() for x in phi)
    kappa = [math.exp(alpha * (1 - math.exp(d))) for d in (s_audio - s_image, s_image - s_audio)]
    downstream = torch.autograd.grad(cross_entropy(whole, labels), whole)[0]
    scaled = (downstream * (kappa[0] * phi[0] + kappa[1] * phi[1])).sum()
    names = [name for name, _ in net.named_parameters() if "encoders" not in name or ".classifier" not in name]
    parameters = dict(net.named_parameters())
    return dict(zip(names, torch.autograd.grad(scaled, [parameters[name] for name in names]), strict=True)), kappa


@pytest.mark.parametrize("fusion", ["concat", "lstm"])
def test_the_gradient_of_a_step_is_that_of_the_papers_formulas(fusion):
    net = model(fusion=fusion)
    net.encoders["image"].latent_head.weight.data *= 3  # the modalities differ
    expected, kappa = by_hand(net.train(), data(8)[:], 2.0)
    (plain,), (found,) = gradients(None, copy.deepcopy(net), data(8)), gradients(AGM(2.0), net, data(8))
    assert max(kappa) / min(kappa) > 1.05
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, atol=1e-6, rtol=1e-4)
    heads = plain.keys() - expected.keys()  # they learn as without it
    assert heads
    for name in heads:
        torch.testing.assert_close(found[name], plain[name])


def test_a_modality_contributes_nothing_to_samples_that_lack_it():
    seen = {}

    class Watched(AGM):
        def _values(self, batch):
            values = super()._values(batch)
            seen["phi"], seen["present"] = contributions(values, len(batch.modalities)), batch.present_BM
            seen["logits"] = batch.outputs["logits"]
            return values

    fields = incomplete(8, THREE)
    gradients(Watched(), model(THREE), **fields)
    absent_B = ~seen["present"][:, 2]
    assert absent_B.any() and not absent_B.all()
    assert (seen["phi"][2][absent_B] == 0).all() and (seen["phi"][2][~absent_B] != 0).any()
    torch.testing.assert_close(sum(seen["phi"]), seen["logits"])


def test_padded_passes_change_no_statistics_of_batch_norms():
    def run(balance):
        torch.manual_seed(0)
        net = CoLearningForMultimodalClassification.from_backbones(
            {"image": tiny.resnet(), "audio": tiny.resnet()}, latent_dim=4, num_labels=3
        )
        pictures = {f"{name}_pixel_values": torch.rand(8, 1, 8, 8) for name in ("image", "audio")}
        dataset = Dataset.from_dict({**pictures, "labels": data(8)["labels"][:]}).with_format("torch")
        made = trainer(balance, net, dataset, max_steps=1)
        made.train()
        assert all(module.training for module in made.model.modules())
        return {name: value for name, value in made.model.state_dict().items() if "running" in name}

    plain, found = run(None), run(AGM())
    assert plain and all(torch.equal(found[name], value) for name, value in plain.items())


def test_a_modality_of_token_ids_is_passed_as_absent():
    torch.manual_seed(0)
    net = CoLearningForMultimodalClassification.from_backbones(
        {"image": FeatureBackboneConfig(4, [5]), "text": tiny.bert()}, latent_dim=4, num_labels=3
    )
    texts = {"text_input_ids": torch.randint(1, 90, (8, 5)), "text_attention_mask": torch.ones(8, 5, dtype=torch.long)}
    samples = {"image_features": data(8)["image_features"][:], **texts}
    dataset = Dataset.from_dict({**samples, "labels": data(8)["labels"][:]}).with_format("torch")
    seen = {}

    class Watched(AGM):
        def _padded(self, batch, subset):
            seen[subset] = super()._padded(batch, subset)
            return seen[subset]

    gradients(Watched(), net, dataset, learning_rate=0.0)
    samples = {name: value for name, value in dataset[:].items() if name != "labels"}
    image, zeros = samples["image_features"], torch.zeros_like(samples["image_features"])
    with torch.no_grad():
        net.eval()
        expected = {(0,): net(image_features=image).logits, (1,): net(**{**samples, "image_features": zeros}).logits}
    for subset, expected_BC in expected.items():  # the samples were shuffled
        places = torch.cdist(seen[subset].detach(), expected_BC).argmin(1)
        assert len(set(places.tolist())) > 4
        torch.testing.assert_close(seen[subset].detach(), expected_BC[places], atol=1e-5, rtol=1e-4)


# ---- runs ----


def test_running_means_are_over_steps_and_saved():
    method = AGM()
    run = trainer(method, dataset=data(16), max_steps=3)
    seen = []
    scores, real = [], method.on_gradients

    def watched(net):
        sums_M, counts_M = method._step_2M.chunk(2)
        scores.append(sums_M / counts_M)
        real(net)
        seen.append(method.state_dict())

    method.on_gradients = watched
    run.train()
    for step in (1, 2, 3):
        torch.testing.assert_close(seen[step - 1]["means"], torch.stack(scores[:step]).mean(0))
        assert seen[step - 1]["steps"].tolist() == [step, step]


def test_a_resumed_run_is_the_uninterrupted_one(tmp_path):
    assert_resumes(AGM, tmp_path)


def test_a_second_run_starts_without_a_past():
    method, logs = AGM(), []
    for _ in range(2):
        run = trainer(method, max_steps=2)
        run.train()
        logs.append([entry["balance_coefficient_image"] for entry in run.state.log_history[:-1]])
    assert logs[0] == logs[1]


def test_coefficients_are_those_of_a_micro_batch_and_means_those_of_the_step():
    whole, cut = AGM(20.0), AGM(20.0)
    runs = [trainer(method, dataset=data(8), max_steps=1, per_device_train_batch_size=size,
                    gradient_accumulation_steps=8 // size) for method, size in ((whole, 8), (cut, 1))]  # fmt: skip
    for run in runs:
        run.train()
    torch.testing.assert_close(whole.state_dict()["means"], cut.state_dict()["means"], atol=1e-6, rtol=1e-5)
    names = [f"balance_coefficient_{name}" for name in ("image", "audio")]
    found = [[run.state.log_history[0][name] for name in names] for run in runs]
    assert found[0] != pytest.approx(found[1], abs=1e-4)


def test_clipping_does_not_change_what_it_reads():
    logs = []
    for norm in (0.0, 1e-3):
        run = trainer(AGM(), max_steps=1, max_grad_norm=norm)
        run.train()
        logs.append(run.state.log_history[0]["balance_coefficient_image"])
    assert logs[0] == logs[1] != 1


# ---- what is refused ----

refusals = Refusals()


@refusals.case(ValueError, "alpha=-1", "above 0")
def a_negative_alpha(folder):
    yield
    AGM(alpha=-1)


@refusals.case(ValueError, "modality_dropout=0.3", "set it to 0")
def modalities_that_are_dropped_at_random(folder):
    net = model(modality_dropout=0.3)
    yield
    trainer(AGM(), net, folder=folder / "out")


@refusals.case(ValueError, "LearnedAlpha", "constant alpha")
def an_alpha_that_is_learned(folder):
    yield
    trainer(AGM(), folder=folder / "out", objective=ContrastiveAlignment(), alpha=LearnedAlpha("contrastive"))


@refusals.case(ValueError, "label_smoothing_factor", "leave it out")
def smoothed_labels(folder):
    yield
    trainer(AGM(), folder=folder / "out", label_smoothing_factor=0.1)


@pytest.mark.parametrize(Refusals.NAMES, refusals.cases)
def test_it_is_refused(situation, error, texts, tmp_path):
    assert_refused(situation, error, texts, tmp_path)


def test_its_example_runs():
    run_example(AGM)
