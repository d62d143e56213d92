"""OGM-GE: the encoder that learns faster gets a smaller gradient."""

import math

import pytest
import torch
from torch import nn

from balanced_runs import assert_cut_makes_no_difference, assert_resumes, gradients, incomplete, of_encoder
from docstrings import run_example
from hf_colearn import OGM
from hf_colearn.balance.ogm import coefficients
from hf_colearn.balance.scores import means_of, true_class_probability
from refusals import Refusals, assert_refused
from tiny_modalities import data, model, trainer


THREE = ("image", "audio", "text")


# ---- the coefficients ----


@pytest.mark.parametrize("alpha, expected", [(0.1, 0.80262), (0.8, 0.07833)])
def test_coefficients_of_the_papers_rule(alpha, expected):
    # p_v = (.9, .7), p_a = (.4, .4): sums 1.6 and .8, rho_v = 2, rho_a = 1/2; k_v = 1 - tanh(.2) or 1 - tanh(1.6).
    k_v, k_a = coefficients(means_of(torch.tensor([1.6, 0.8, 2, 2])), alpha).tolist()
    assert k_v == pytest.approx(expected, abs=1e-5) and k_a == 1


def test_equal_scores_damp_no_encoder():
    # The released code damps the audio encoder at rho = 1, by 1 - tanh(.8) = .33596.
    assert coefficients(torch.tensor([0.5, 0.5]), 0.8).tolist() == [1, 1]


def test_one_of_three_is_compared_with_the_mean_of_the_others():
    # rho = .6 / .3, .4 / .4, .2 / .5; the second is equal to the mean of the others.
    found = coefficients(torch.tensor([0.6, 0.4, 0.2]), 0.5).tolist()
    assert found == pytest.approx([1 - math.tanh(1.0), 1, 1])


def test_means_are_compared_and_an_absent_modality_is_not():
    # Sums 1.6 over two samples and 1.2 over one would be rho = 4/3 for the first; means .8 and 1.2 are 3/2 for the second.
    assert coefficients(means_of(torch.tensor([1.6, 1.2, 2, 1])), 0.8).tolist() == pytest.approx(
        [1, 1 - math.tanh(1.2)]
    )
    nan = float("nan")
    assert coefficients(torch.tensor([0.8, nan]), 0.8).tolist() == [1, 1]
    assert coefficients(torch.tensor([0.8, nan, 0.4]), 0.8).tolist() == pytest.approx([1 - math.tanh(1.6), 1, 1])


def test_the_true_class_is_that_of_the_label_or_of_class_probabilities():
    logits_BC = torch.tensor([[0.0, math.log(3)], [math.log(4), 0.0]])  # p = (1/4, 3/4), (4/5, 1/5)
    assert true_class_probability(logits_BC, torch.tensor([1, -100]))[0].item() == pytest.approx(0.75)
    soft_BC = torch.tensor([[0.5, 0.5], [1.0, 0.0]])
    assert true_class_probability(logits_BC, soft_BC).tolist() == pytest.approx([0.5, 0.8])


# ---- gradients ----


def expected_factor(net, dataset, alpha, unimodal):
    """k of every modality in the first step, by the outputs of a forward."""
    samples = dataset[:]
    outputs = net(**samples)
    logits = outputs.modality_logits
    if unimodal == "fused":
        halves = net.fusion.classifier.weight.chunk(2, dim=1)
        logits = {
            name: outputs.modality_latents[name] @ half.T + net.fusion.classifier.bias / 2
            for name, half in zip(logits, halves, strict=True)
        }
    scores = [x.softmax(1)[torch.arange(len(x)), samples["labels"]].sum().item() for x in logits.values()]
    ratio = scores[0] / scores[1]
    return [1 - math.tanh(alpha * r) if r > 1 else 1.0 for r in (ratio, 1 / ratio)]


def test_the_null_control_gives_every_modality_the_factor_of_the_one_before_it():
    factors = {}
    for shuffled in (False, True):
        run = trainer(OGM(noise=False, shuffled=shuffled), max_steps=1)
        run.train()
        entry = run.state.log_history[0]
        factors[shuffled] = [entry[f"balance_coefficient_{name}"] for name in ("image", "audio")]
    assert factors[True] == factors[False][::-1] and min(factors[True]) < 1


@pytest.mark.parametrize("fusion, asked, unimodal", [("concat", None, "fused"), ("concat", "heads", "heads"),
                                                     ("film", None, "heads")])  # fmt: skip
def test_without_noise_the_gradient_is_exactly_k_times_the_plain_one(fusion, asked, unimodal):
    dataset = data(8)
    (plain,) = gradients(None, model(fusion=fusion), dataset)
    (found,) = gradients(OGM(0.8, noise=False, unimodal=asked), model(fusion=fusion), dataset)
    factors = expected_factor(model(fusion=fusion), dataset, 0.8, unimodal)
    assert sorted(k == 1 for k in factors) == [False, True]  # one is damped
    scaled = {}
    for name, factor in zip(("image", "audio"), factors, strict=True):
        for key, gradient in of_encoder(plain, name).items():
            scaled[key] = True
            torch.testing.assert_close(found[key], gradient * factor, rtol=1e-5, atol=1e-8)
    rest = plain.keys() - scaled.keys()
    assert rest and all(torch.equal(found[key], plain[key]) for key in rest)  # fusion and heads


def test_noise_has_the_deviation_of_the_unscaled_gradient_and_both_encoders_get_it():
    wide = {"width": 64}
    (damped,) = gradients(OGM(5.0, noise=False), model(**wide), data(8, **wide))
    (plain,) = gradients(None, model(**wide), data(8, **wide))
    (noisy,) = gradients(OGM(5.0), model(**wide), data(8, **wide))
    for name in ("image", "audio"):
        key = f"encoders.{name}.backbone.layers.0.weight"  # 320 numbers: a deviation is known to 4%
        noise = noisy[key] - damped[key]
        assert noise.std().item() == pytest.approx(plain[key].std().item(), rel=0.2)
    # Damped by 1 - tanh(5 rho) < 1e-3, whose deviation would be no noise at all.


def test_a_tensor_of_one_element_has_no_noise():
    def net():
        made = model()
        made.encoders["image"].backbone.gain = nn.Parameter(torch.ones(1))
        layer = made.encoders["image"].backbone.layers
        layer.register_forward_hook(lambda module, inputs, output: output * made.encoders["image"].backbone.gain)
        return made

    (found,) = gradients(OGM(), net(), data(8))
    assert all(gradient.isfinite().all() for gradient in found.values())
    assert "encoders.image.backbone.gain" in found


def test_it_acts_in_its_epochs_alone_and_the_logs_say_what_it_did():
    run = trainer(OGM(0.8, noise=False, epochs=(1, 1)), dataset=data(8), max_steps=3)
    run.train()  # an epoch is one step
    logs = [entry for entry in run.state.log_history if "loss" in entry]
    products = [entry["balance_coefficient_image"] * entry["balance_coefficient_audio"] for entry in logs]
    assert [product == 1 for product in products] == [True, False, True]


def test_clipping_changes_neither_scores_nor_the_relation_of_the_gradients():
    (whole,), (clipped,) = (gradients(OGM(), dataset=data(8), max_grad_norm=norm) for norm in (0.0, 1e-3))
    total = torch.stack([gradient.norm() for gradient in whole.values()]).norm()
    for key, gradient in whole.items():
        torch.testing.assert_close(clipped[key], gradient * 1e-3 / total, rtol=1e-4, atol=1e-9)


# ---- runs ----


@pytest.mark.parametrize("missing", [False, True])
def test_a_step_is_the_same_however_it_is_cut(missing):
    assert_cut_makes_no_difference(OGM, **(incomplete(8) if missing else {"dataset": data(8)}))


def test_a_resumed_run_draws_the_same_noise(tmp_path):
    assert_resumes(OGM, tmp_path)


def test_the_next_step_draws_other_noise():
    first, second = gradients(OGM(5.0), model(), data(8), steps=2, learning_rate=1e-12)
    assert not torch.allclose(first["encoders.image.latent_head.weight"], second["encoders.image.latent_head.weight"])


# ---- what is refused ----

refusals = Refusals()


@refusals.case(ValueError, "alpha=0", "above 0")
def an_alpha_of_nothing(folder):
    yield
    OGM(alpha=0)


@refusals.case(ValueError, "epochs=(50, 0)", "as (0, 50)")
def epochs_that_end_before_they_begin(folder):
    yield
    OGM(epochs=(50, 0))


@refusals.case(ValueError, "epochs=50", "such as (0, 50)")
def one_epoch(folder):
    yield
    OGM(epochs=50)


@refusals.case(ValueError, "unimodal='fused'", "fusion='film'", "unimodal='heads'")
def slices_of_a_head_that_has_none(folder):
    net = model(fusion="film")
    yield
    trainer(OGM(unimodal="fused"), net, folder=folder / "out")


@refusals.case(ValueError, "problem_type='multi_label_classification'", "another method")
def several_labels(folder):
    net = model(problem_type="multi_label_classification")
    yield
    trainer(OGM(), net, folder=folder / "out")


@pytest.mark.parametrize(Refusals.NAMES, refusals.cases)
def test_it_is_refused(situation, error, texts, tmp_path):
    assert_refused(situation, error, texts, tmp_path)


def test_its_example_runs():
    run_example(OGM)
