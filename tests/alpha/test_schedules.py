"""Alpha: its values by hand, its state, and its epochs through real training runs."""

import json
import math

import pytest
from transformers import TrainerControl, TrainerState

import tiny
from hf_colearn import CoLearningTrainer, ConstantAlpha, FittedAlpha, HeuristicAlpha
from hf_colearn.alpha.alpha import check_weights


# The curve that was fitted to learned weights and released: ascending, t in epochs.
RELEASED = [2.04623704e-1, 3.35472727e-3, 1.22989557e-4, -2.92947416e-6, 2.23835486e-8, -5.39717505e-11]

# 1 - exp(-1/t): 1 - 1/e, 1 - 1/sqrt(e), 1 - 1/e^(1/3)
HEURISTIC = {1: 0.632121, 2: 0.393469, 3: 0.283469}


@pytest.fixture
def warnings(caplog):
    """The warnings that a fitted alpha has logged."""
    return lambda: [record.getMessage() for record in caplog.records if record.name == "hf_colearn.alpha.schedules"]


# ---- values ----
def test_a_constant_alpha_weighs_its_term():
    assert ConstantAlpha(0.3).weights() == {"latent": 0.3}
    assert ConstantAlpha(1, term="contrastive").weights() == {"contrastive": 1.0}
    assert ConstantAlpha({"latent": 0.25, "contrastive": 0.75}).weights() == {"latent": 0.25, "contrastive": 0.75}


def test_the_weights_of_a_constant_alpha_cannot_be_changed_from_outside():
    given = {"latent": 0.3}
    alpha = ConstantAlpha(given)
    given["latent"] = 0.9
    alpha.weights()["latent"] = 0.9
    assert alpha.weights() == {"latent": 0.3}


@pytest.mark.parametrize("alpha", [-0.1, 1.1, math.nan, math.inf, {"latent": 0.5, "other": -0.01}])
def test_an_alpha_outside_0_to_1_is_refused_by_its_value(alpha):
    value = alpha["other"] if isinstance(alpha, dict) else alpha
    with pytest.raises(ValueError, match=f"alpha={value} for the term '.*' is outside"):
        ConstantAlpha(alpha)


def test_weights_that_sum_to_more_than_1_are_refused():
    with pytest.raises(ValueError, match="sum to 1.2, which leaves a negative weight"):
        ConstantAlpha({"latent": 0.6, "contrastive": 0.6})
    check_weights(dict.fromkeys("abcdefghij", 0.1))  # 0.1 ten times is 0.99... or 1.00..., and is 1


def test_the_heuristic_by_hand():
    alpha = HeuristicAlpha()
    for t, expected in HEURISTIC.items():
        assert alpha.value(t) == pytest.approx(expected, abs=1e-6)
    assert alpha.value(1000) == pytest.approx(1e-3 - 0.5e-6, abs=1e-9)  # 1/t - 1/2t^2 + ...
    assert alpha.weights() == {"latent": alpha.value(1)}  # before training: the first epoch's
    assert list(HeuristicAlpha(term="contrastive").weights()) == ["contrastive"]


def test_a_fitted_alpha_by_hand():
    alpha = FittedAlpha([0.1, 0.02, 0.003])
    assert alpha.value(1) == pytest.approx(0.123)
    assert alpha.value(10) == pytest.approx(0.1 + 0.2 + 0.3)
    assert alpha.weights() == {"latent": pytest.approx(0.123)}


def test_the_released_polynomial_is_clipped_where_it_leaves_0_to_1_with_one_warning(warnings):
    alpha = FittedAlpha(RELEASED)
    values = {t: alpha.value(t) for t in range(1, 177)}
    # t = 1: 0.204623704 + 0.003354727 + 0.000122990 - 0.000002929 + 0.000000022
    assert values[1] == pytest.approx(0.208098514, abs=1e-8)
    # t = 100: 0.204623704 + 0.335472727 + 1.22989557 - 2.92947416 + 2.23835486 - 0.539717505
    assert values[100] == pytest.approx(0.539155196, abs=1e-7)
    # In exact arithmetic: 0.996803 at 176, 1.000197 at 177, 0.995206 at 190 and below 0 from 227 on.
    assert values[176] == pytest.approx(0.996803, abs=1e-6)
    assert all(0 < value < 1 for value in values.values())
    assert warnings() == []
    assert [alpha.value(t) for t in (177, 178, 227, 400)] == [1, 1, 0, 0]
    assert alpha.value(190) == pytest.approx(0.995206, abs=1e-6)
    (message,) = warnings()
    assert "in epoch 177 with 1.0002" in message


def test_a_fitted_alpha_is_clipped_at_1_as_well(warnings):
    assert FittedAlpha([0.5, 0.5]).value(2) == 1.0  # 1.5
    assert "with 1.5" in warnings()[0]


@pytest.mark.parametrize("coefficients", [[], [0.1, math.nan], [math.inf]])
def test_coefficients_that_define_no_polynomial_are_refused(coefficients):
    with pytest.raises(ValueError, match="do not define a polynomial"):
        FittedAlpha(coefficients)


# ---- epochs and state ----
def epochs(alpha, n, start=0.0):
    """The weights that `alpha` gives in `n` epochs of a run that begins, or goes on, at epoch `start`."""
    state, control = TrainerState(epoch=start), TrainerControl()
    alpha.on_train_begin(None, state, control)
    found = []
    for _ in range(n):
        alpha.on_epoch_begin(None, state, control)
        found.append(alpha.weights()["latent"])
    return found


@pytest.mark.parametrize(("start", "first"), [(0.0, 1), (None, 1), (0.5, 1), (0.999, 1), (1.0, 2), (1.5, 2), (2.0, 3)])
def test_a_schedule_begins_in_the_epoch_where_the_run_goes_on(start, first):
    alpha = HeuristicAlpha()
    assert epochs(alpha, 2, start) == [alpha.value(first), alpha.value(first + 1)]


def test_the_weights_can_be_read_before_the_first_epoch_begins():
    alpha = HeuristicAlpha()
    alpha.on_train_begin(None, TrainerState(epoch=0.0), TrainerControl())
    assert alpha.weights()["latent"] == pytest.approx(HEURISTIC[1], abs=1e-6)


@pytest.mark.parametrize("make", [HeuristicAlpha, lambda: FittedAlpha(RELEASED), lambda: ConstantAlpha(0.3)])
def test_the_state_goes_through_json_and_comes_back(make):
    alpha, again = make(), make()
    for _ in range(3):
        alpha.on_epoch_begin(None, TrainerState(), TrainerControl())
    again.load_state_dict(json.loads(json.dumps(alpha.state_dict())))
    assert again.weights() == alpha.weights()
    assert again.state_dict() == alpha.state_dict()


def test_the_state_of_a_schedule_is_its_epoch():
    alpha = HeuristicAlpha()
    alpha.load_state_dict({"t": 2})
    assert alpha.weights()["latent"] == pytest.approx(HEURISTIC[2], abs=1e-6)
    assert alpha.state_dict() == {"t": 2}


def train(folder, resume=None, alpha=None, **kwargs):
    """Three epochs of three steps; alpha after every step."""
    schedule = {} if alpha is not None else {"alpha_schedule": "heuristic"}
    trainer = CoLearningTrainer(
        tiny.student(),
        tiny.arguments(folder, max_steps=9, save_strategy="steps", save_steps=1, **schedule, **kwargs),
        train_dataset=tiny.digits(24),
        bank=tiny.bank(),
        pairing=tiny.random_prompt(),
        alpha=alpha,
    )
    trainer.train(resume_from_checkpoint=resume)
    return [entry["alpha"] for entry in trainer.state.log_history if "alpha" in entry]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A whole run with the heuristic, that left a checkpoint after every step."""
    folder = tmp_path_factory.mktemp("heuristic")
    return folder, train(folder)


def test_a_run_counts_epochs_from_1(run):
    expected = [HEURISTIC[t] for t in (1, 1, 1, 2, 2, 2, 3, 3, 3)]
    assert run[1] == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("step", [2, 3, 5, 6])  # in the middle of an epoch and at its end, in the first and the second
def test_a_resumed_run_goes_on_with_the_alpha_of_the_uninterrupted_one(run, step, tmp_path):
    folder, expected = run
    assert train(tmp_path, resume=str(folder / f"checkpoint-{step}")) == expected


def test_a_resumed_fitted_alpha_goes_on_in_its_epoch(tmp_path):
    # 0.1 t: 0.1, 0.2, 0.3
    train(tmp_path / "first", alpha=FittedAlpha([0.0, 0.1]))
    resumed = train(tmp_path / "second", str(tmp_path / "first" / "checkpoint-4"), FittedAlpha([0.0, 0.1]))
    assert resumed == pytest.approx([0.1] * 3 + [0.2] * 3 + [0.3] * 3)


def test_a_second_run_with_the_same_alpha_begins_anew(tmp_path):
    alpha = FittedAlpha([0.0, 0.1])
    assert train(tmp_path / "first", alpha=alpha) == train(tmp_path / "second", alpha=alpha)


def test_the_released_alpha_is_what_their_label_weight_leaves_and_is_clipped_with_one_warning(caplog):
    alpha = FittedAlpha.released("contrastive")
    for t in (1, 60, 150, 176):
        label = sum(c * t**power for power, c in enumerate(RELEASED))
        assert alpha.value(t) == pytest.approx(1 - label, abs=1e-9)
    assert not caplog.records
    assert alpha.value(177) == alpha.value(180) == 0.0  # their label weight is above 1 there
    assert len(caplog.records) == 1 and "epoch 177" in caplog.text


def test_alphas_tell_what_they_are():
    assert repr(HeuristicAlpha("contrastive")) == "HeuristicAlpha('contrastive')"
    assert repr(FittedAlpha([0.5, 0.1], "latent")) == "FittedAlpha([0.5, 0.1], 'latent')"
