"""InfoReg: the dominant encoder is drawn to where its epoch began, while its information grows."""

import math

import pytest
import torch

from balanced_runs import assert_cut_makes_no_difference, assert_resumes, incomplete
from docstrings import run_example
from hf_colearn import ContrastiveAlignment, InfoReg, LearnedAlpha
from hf_colearn.balance.info_reg import coefficients, growth
from hf_colearn.balance.method import encoder_parameters
from refusals import Refusals, assert_refused
from tiny_modalities import data, model, trainer


THREE = ("image", "audio", "text")
NAN = float("nan")


def betas(means, counts, on="dominant", grows=None):
    grows = [True] * len(means) if grows is None else grows
    found = coefficients(torch.tensor(means), torch.tensor(counts), torch.tensor(grows), 0.95, on)
    return found.tolist()


# ---- beta and growth ----


def test_beta_of_the_dominant_modality_grows_with_the_gap_of_the_sums():
    # Sums .9 + .7 = 1.6 and .4 + .4 = .8: gap .8, tanh .66404, exp 1.94263, times .95.
    assert betas([0.8, 0.4], [2.0, 2.0]) == pytest.approx([1.84549, 0], abs=1e-4)


def test_whichever_modality_is_dominant_is_regulated():
    # In the released code the branch of the second modality has the condition of the first: it would be (0, 0).
    assert betas([0.4, 0.8], [2.0, 2.0]) == pytest.approx([0, 1.84549], abs=1e-4)
    assert betas([0.6, 0.6], [2.0, 2.0]) == [0, 0]


def test_the_null_control_puts_the_same_beta_on_the_weaker_one_in_the_same_steps():
    assert betas([0.8, 0.4], [2.0, 2.0], "weaker") == pytest.approx([0, 1.84549], abs=1e-4)
    # The dominant one's growth decides in both.
    assert betas([0.8, 0.4], [2.0, 2.0], grows=[False, True]) == [0, 0]
    assert betas([0.8, 0.4], [2.0, 2.0], "weaker", grows=[False, True]) == [0, 0]
    assert betas([0.8, 0.4], [2.0, 2.0], "weaker", grows=[True, False])[1] > 0


def test_one_of_three_is_compared_with_the_mean_of_the_others_that_are_there():
    # .9 - (.5 + .3) / 2 = .5 over 2 samples: exp(tanh(1)) * .95.
    expected = 0.95 * math.exp(math.tanh(1.0))
    assert betas([0.5, 0.9, 0.3], [4.0, 2.0, 4.0]) == pytest.approx([0, expected, 0])
    assert betas([0.5, 0.9, 0.3], [4.0, 2.0, 4.0], "weaker") == pytest.approx([0, 0, expected])
    assert betas([0.4, 0.9, NAN], [4.0, 2.0, 0.0]) == pytest.approx([0, expected, 0])
    assert betas([NAN, 0.9, NAN], [0.0, 2.0, 0.0]) == [0, 0, 0]


def test_growth_is_of_means_over_ten_epochs():
    assert growth([]) == growth([0.3]) == 1
    assert growth([1.0, 3.0]) == pytest.approx(3 / 4)  # (4 - 1) / 4
    assert growth([1.0] * 11) == 0
    assert growth([1.0] * 10 + [2.0]) == pytest.approx(1 / 11)  # (11 - 10) / 11
    assert growth([2.0] + [1.0] * 10) == pytest.approx(-1 / 10)  # (10 - 11) / 10


# ---- gradients ----


class Watched(InfoReg):
    """Keeps the encoders' weights, gradients before and after, and the term's difference from the epoch's start."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.steps, self.beginnings = [], []

    def on_epoch_begin(self, args, state, control, model=None, **kwargs):
        super().on_epoch_begin(args, state, control, model=model, **kwargs)
        self.beginnings.append(copied(model, "data"))

    def on_gradients(self, model):
        weights, before = copied(model, "data"), copied(model, "grad")
        super().on_gradients(model)
        self.steps.append((weights, before, copied(model, "grad"), len(self.beginnings) - 1))


def copied(net, part):
    return {name: [getattr(x, part).clone() for x in found] for name, found in encoder_parameters(net).items()}


def watched(steps=4, **kwargs):
    """Of 8 samples in batches of 4: an epoch has two steps."""
    method = Watched(**kwargs)
    run = trainer(method, dataset=data(8), max_steps=steps, per_device_train_batch_size=4, learning_rate=0.02)
    run.train()
    logs = [{name: entry[f"balance_coefficient_{name}"] for name in ("image", "audio")}
            for entry in run.state.log_history[:-1]]  # fmt: skip
    return method, logs


@pytest.mark.parametrize("on", ["dominant", "weaker"])
def test_the_gradient_is_drawn_to_the_start_of_the_epoch_in_one_encoder_alone(on):
    method, logs = watched(on=on)
    moved = 0
    for (weights, before, after, epoch), beta in zip(method.steps, logs, strict=True):
        assert sorted(value > 0 for value in beta.values()) == [False, True]
        for name, value in beta.items():
            parts = zip(weights[name], before[name], after[name], method.beginnings[epoch][name], strict=True)
            for weight, plain, found, start in parts:
                torch.testing.assert_close(found, plain + value * (weight - start), atol=1e-7, rtol=1e-5)
                moved += int(not torch.equal(found, plain))
    assert moved  # in the second steps of the epochs


def test_both_arms_regulate_in_the_same_steps():
    for first, second in zip(watched(1)[1], watched(1, on="weaker")[1], strict=True):
        assert sorted(first.values()) == sorted(second.values()) and first != second


def test_the_trace_is_the_mean_squared_gradient_of_an_epoch_without_the_term():
    method, _ = watched(steps=5)
    for epoch in (0, 1):
        for place, name in enumerate(("image", "audio")):
            found = [sum(x.square().sum().item() for x in before[name])
                     for _, before, _, of_epoch in method.steps if of_epoch == epoch]  # fmt: skip
            assert method._traces[epoch][place] == pytest.approx(sum(found) / 2, rel=1e-5)


def test_every_pass_over_a_stream_is_an_epoch():
    method = Watched()
    stream = data(8).to_iterable_dataset()
    trainer(method, dataset=stream, max_steps=4, per_device_train_batch_size=4, learning_rate=0.02).train()
    first, second = (starts["image"][0] for starts in method.beginnings)
    assert len(method._traces) == 1 and not torch.equal(first, second)
    assert torch.equal(method.state_dict()["start"]["image"][0], second)


def test_it_ends_where_nothing_grows_and_keeps_no_weights_then():
    method, logs = watched(steps=6, threshold=0.9)  # of the second of two traces the growth is about a half
    assert [max(beta.values()) > 0 for beta in logs] == [True] * 4 + [False] * 2
    assert method.state_dict()["start"] == {}


def test_the_loss_is_that_of_the_fused_and_of_every_modality():
    run = trainer(InfoReg(), net := model(), data(8), max_steps=1, learning_rate=0.0)
    run.train()
    samples = data(8)[:]
    outputs = net.eval()(**{name: value for name, value in samples.items() if name != "labels"})
    losses = [torch.nn.functional.cross_entropy(x, samples["labels"]) for x in
              (outputs.logits, *outputs.modality_logits.values())]  # fmt: skip
    assert run.state.log_history[0]["loss"] == pytest.approx(sum(losses).item(), rel=1e-4)


# ---- runs ----


@pytest.mark.parametrize("missing", [False, True])
def test_a_step_is_the_same_however_it_is_cut(missing):
    # An epoch has two steps, of which the second has the term.
    assert_cut_makes_no_difference(InfoReg, steps=2, **(incomplete(16) if missing else {"dataset": data(16)}))


def test_a_run_resumed_within_an_epoch_is_drawn_to_where_the_epoch_began(tmp_path):
    fields = {"dataset": data(24), "steps": 7, "save": 5}  # an epoch has 3 steps
    whole, resumed = assert_resumes(lambda: InfoReg(beta=5.0), tmp_path, **fields)
    assert len(whole._traces) == 2 and whole._traces == resumed._traces

    class Forgets(InfoReg):
        def load_state_dict(self, state):
            super().load_state_dict({**state, "epoch": None})

    with pytest.raises(AssertionError):
        assert_resumes(lambda: Forgets(beta=5.0), tmp_path, **fields)


def test_a_run_resumed_at_the_end_of_an_epoch_knows_the_traces(tmp_path):
    assert_resumes(lambda: InfoReg(beta=5.0, threshold=0.45), tmp_path, save=4)


def test_clipping_does_not_change_what_it_reads():
    found = []
    for norm in (0.0, 1e-3):
        method = InfoReg()
        run = trainer(method, max_steps=1, max_grad_norm=norm)
        run.train()
        found.append((run.state.log_history[0]["balance_coefficient_image"], method._squares_M.tolist()))
    assert found[0] == found[1]


# ---- what is refused ----

refusals = Refusals()


@refusals.case(ValueError, "beta=0", "above 0")
def a_beta_of_nothing(folder):
    yield
    InfoReg(beta=0)


@refusals.case(ValueError, "threshold=1", "below 1")
def a_threshold_that_no_epoch_reaches(folder):
    yield
    InfoReg(threshold=1)


@refusals.case(ValueError, "on='audio'", "dominant, weaker")
def a_modality_by_name(folder):
    yield
    InfoReg(on="audio")


@refusals.case(ValueError, "LearnedAlpha", "constant alpha")
def an_alpha_that_is_learned(folder):
    yield
    trainer(InfoReg(), folder=folder / "out", objective=ContrastiveAlignment(), alpha=LearnedAlpha("contrastive"))


@pytest.mark.parametrize(Refusals.NAMES, refusals.cases)
def test_it_is_refused(situation, error, texts, tmp_path):
    assert_refused(situation, error, texts, tmp_path)


def test_its_example_runs():
    run_example(InfoReg)
