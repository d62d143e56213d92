"""ARL: the factors of the encoders' gradients, and the losses of single modalities."""

import math

import pytest
import torch
from torch.nn.functional import cross_entropy

from balanced_runs import assert_cut_makes_no_difference, assert_resumes, gradients, incomplete, of_encoder
from docstrings import run_example
from hf_colearn import ARL, ContrastiveAlignment, LearnedAlpha
from hf_colearn.balance.arl import asymmetric_weights
from refusals import Refusals, assert_refused
from tiny_modalities import data, model, trainer


THREE = ("image", "audio", "text")
NAN = float("nan")


def weights(magnitudes, entropies, temperature=8.0):
    return asymmetric_weights(torch.tensor(magnitudes), torch.tensor(entropies), temperature).tolist()


def now(**kwargs):
    return ARL(**{"start": 0, **kwargs})


# ---- the weights ----


def test_weights_of_the_papers_rule():
    # Shares of entropy .4/1.6 = .25, held at .3, and .75; inverses 3.33333 and 1.33333, h (.71429, .28571);
    # softmax of 8 * (.3 * .71429, .7 * .28571) = (1.71429, 1.6).
    assert weights([0.7, 0.3], [0.4, 1.2]) == pytest.approx([0.52854, 0.47146], abs=1e-5)
    assert weights([1.4, 0.6], [0.4, 1.2]) == pytest.approx([0.52854, 0.47146], abs=1e-5)  # shares of the sizes alone


def test_of_three_the_others_are_a_mean_and_the_least_share_is_a_fifth():
    # Shares of entropy (.1, .3, .6), the first held at .2; inverses (5, 3.33333, 1.66667), h (.5, .33333, .16667);
    # others' shares of size (1 - .5) / 2 = .25, (1 - .3) / 2 = .35, (1 - .2) / 2 = .4: scores (1, .93333, .53333).
    scores = torch.tensor([8 * 0.25 / 2, 8 * 0.35 / 3, 8 * 0.4 / 6])
    assert weights([0.5, 0.3, 0.2], [0.2, 0.6, 1.2]) == pytest.approx(scores.softmax(0).tolist(), abs=1e-6)


def test_absent_modalities_weigh_nothing_and_one_alone_is_compared_with_none():
    assert weights([0.7, NAN, 0.3], [0.4, NAN, 1.2]) == pytest.approx([0.52854, 0, 0.47146], abs=1e-5)
    assert weights([0.7, NAN], [0.4, NAN]) == [0.5, 0.5]
    assert weights([0.7, 0.3], [0.0, 0.0]) == pytest.approx([1 / (1 + math.exp(1.6)), 1 / (1 + math.exp(-1.6))])


# ---- gradients ----


def by_hand(net, samples, gamma):
    """The gradient of l_z + gamma (l_image + l_audio), and the weights of the encoders."""
    outputs = net(**{name: value for name, value in samples.items() if name != "labels"})
    logits, labels = outputs.modality_logits, samples["labels"]
    loss = cross_entropy(outputs.logits, labels) + gamma * sum(cross_entropy(x, labels) for x in logits.values())
    parameters = dict(net.named_parameters())
    found = dict(zip(parameters, torch.autograd.grad(loss, [*parameters.values()]), strict=True))
    entropies = [torch.distributions.Categorical(logits=x).entropy().mean() for x in logits.values()]
    sizes = [x.abs().sum(1).mean() for x in logits.values()]
    return found, asymmetric_weights(torch.stack(sizes), torch.stack(entropies), 8.0).tolist()


@pytest.mark.parametrize("fusion", ["concat", "sum"])
def test_encoders_are_scaled_by_one_and_their_weight_and_nothing_else_is(fusion):
    net = model(fusion=fusion)
    net.encoders["image"].classifier.weight.data *= 3  # the modalities differ
    expected, w = by_hand(net, data(8)[:], 4.0)
    (found,) = gradients(now(), net, data(8))
    assert abs(w[0] - w[1]) > 0.05
    scaled = {key: 1 + w[i] for i, name in enumerate(("image", "audio")) for key in of_encoder(expected, name)}
    assert found.keys() == expected.keys() > scaled.keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient * scaled.get(name, 1.0), atol=1e-6, rtol=1e-4)


def test_what_the_released_code_amounts_to_is_a_constant_of_1_5():
    net = model()
    expected, _ = by_hand(net, data(8)[:], 4.0)
    (found,) = gradients(now(weights="constant"), net, data(8))
    for name in ("image", "audio"):
        for key, gradient in of_encoder(expected, name).items():
            torch.testing.assert_close(found[key], 1.5 * gradient, atol=1e-6, rtol=1e-4)


def test_before_its_start_factors_and_gamma_are_one_and_the_logs_say_so():
    expected, _ = by_hand(model(), data(8)[:], 1.0)
    (found,) = gradients(ARL(start=1), model(), data(8))
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, atol=1e-6, rtol=1e-4)
    run = trainer(ARL(start=1), dataset=data(8), max_steps=2)
    run.train()  # an epoch is one step
    first, second = ([entry[f"balance_coefficient_{name}"] for name in ("image", "audio")]
                     for entry in run.state.log_history[:2])  # fmt: skip
    assert first == [1, 1] and sum(second) == pytest.approx(3) and min(second) > 1


# ---- runs ----


@pytest.mark.parametrize("missing", [False, True])
def test_a_step_is_the_same_however_it_is_cut(missing):
    assert_cut_makes_no_difference(now, **(incomplete(8) if missing else {"dataset": data(8)}))


def test_a_resumed_run_is_the_uninterrupted_one(tmp_path):
    assert_resumes(lambda: ARL(start=1), tmp_path)


def test_clipping_does_not_change_what_it_reads():
    logs = []
    for norm in (0.0, 1e-3):
        run = trainer(now(), max_steps=1, max_grad_norm=norm)
        run.train()
        logs.append(run.state.log_history[0]["balance_coefficient_image"])
    assert logs[0] == logs[1] != 1.5


# ---- what is refused ----

refusals = Refusals()


@refusals.case(ValueError, "gamma=0", "above 0")
def a_gamma_of_nothing(folder):
    yield
    ARL(gamma=0)


@refusals.case(ValueError, "weights='shuffled'", "asymmetric, constant")
def unknown_weights(folder):
    yield
    ARL(weights="shuffled")


@refusals.case(ValueError, "start=-1", "at least 0")
def a_start_before_the_run(folder):
    yield
    ARL(start=-1)


@refusals.case(ValueError, "LearnedAlpha", "constant alpha")
def an_alpha_that_is_learned(folder):
    yield
    trainer(ARL(), folder=folder / "out", objective=ContrastiveAlignment(), alpha=LearnedAlpha("contrastive"))


@pytest.mark.parametrize(Refusals.NAMES, refusals.cases)
def test_it_is_refused(situation, error, texts, tmp_path):
    assert_refused(situation, error, texts, tmp_path)


def test_its_example_runs():
    run_example(ARL)
