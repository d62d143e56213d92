"""Scaled banks, and the scale of the targets in training: from what the training samples are paired with."""

import json
import pickle

import numpy as np
import pytest
import torch
from sklearn.preprocessing import StandardScaler, normalize
from transformers import TrainerCallback

import tiny
from hf_colearn import (
    CoLearningTrainer,
    ConstantTarget,
    Mismatched,
    Noisy,
    Paired,
    PairedFraction,
    Pairing,
    Permuted,
    RandomPrototypes,
    Shuffled,
    Teacher,
    TeacherBank,
)
from hf_colearn.teachers.scaling import scaled_teachers


def latents(rows=10, dim=6, seed=0):
    """Means of 100 and deviations from 0.01 to 100, as no two teachers' are alike."""
    return (100 + np.geomspace(0.01, 100, dim) * np.random.default_rng(seed).normal(size=(rows, dim))).astype(
        np.float32
    )


def repeating_bank(values, index):
    """What inputs that repeat leave: distinct latents, and which of them every row has."""
    inputs = [f"input {i}" for i in range(len(values))]
    return TeacherBank(values, np.asarray(index), {"fingerprint": "by hand"}, inputs)


def everything(bank):
    return bank.lookup(range(len(bank))).numpy()


# ---- a bank ----
def test_standardized_latents_have_mean_0_and_deviation_1_over_the_distinct_ones_that_are_given():
    values, index = latents(5), [0, 0, 0, 1, 2, 3, 4, 4]

    scaled = repeating_bank(values, index).scaled("standardized", rows=[0, 1, 2, 3, 4])  # the latents 0, 1 and 2

    wanted = StandardScaler().fit(values[:3].astype(np.float64)).transform(values.astype(np.float64))
    np.testing.assert_allclose(everything(scaled), wanted[index], rtol=1e-4, atol=1e-5)
    assert scaled.lookup([0]).dtype == torch.float32
    repeated = everything(scaled)
    np.testing.assert_allclose(scaled.mean(), repeated.mean(axis=0), rtol=1e-4, atol=1e-6)  # of the scaled rows
    np.testing.assert_allclose(scaled.std(), repeated.std(axis=0), rtol=1e-4)


def test_all_rows_are_taken_where_none_are_given():
    bank = TeacherBank.from_latents(latents(400))

    scaled = everything(bank.scaled("standardized"))

    np.testing.assert_allclose(scaled, StandardScaler().fit_transform(latents(400).astype(np.float64)), atol=1e-5)
    assert np.array_equal(scaled, everything(bank.scaled("standardized", np.arange(400)[::-1])))


def test_a_dimension_that_is_constant_but_for_rounding_becomes_0():
    values = np.array([[1.0, 7.0, 0.0, 100.0], [3.0, 7.0, 0.0, 100.00001], [2.0, 8.0, 5.0, 101.0]], dtype=np.float32)

    scaled = TeacherBank.from_latents(values).scaled("standardized", [0, 1])

    assert everything(scaled).tolist() == [[-1, 0, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0]]


def test_unit_norm_latents_have_length_1():
    bank = TeacherBank.from_latents(1e-30 * latents())

    np.testing.assert_allclose(everything(bank.scaled("l2")), normalize(latents()), rtol=1e-5)


@pytest.mark.parametrize("rows, number", [([3], 1), ([2, 2], 1), ([], 0), ([4, 5], 2)])
def test_latents_without_variance_are_not_standardized(rows, number):
    bank = TeacherBank.from_latents(np.vstack([latents(5), latents(5)[4:]]))  # the rows 4 and 5 are the same

    with pytest.raises(
        ValueError, match=f"the {number} distinct ones .* have no variance: pass `latent_scaling='none'`"
    ):
        bank.scaled("standardized", rows)


def test_a_latent_of_zeros_has_no_unit_norm_and_is_named():
    values = latents(3)
    values[1] = 0

    with pytest.raises(ValueError, match="row 2 of the bank \\('input 1'\\) is 0 in every dimension"):
        repeating_bank(values, [0, 2, 1]).scaled("l2")


def test_other_words_and_rows_that_are_not_there_are_refused():
    with pytest.raises(ValueError, match="how='whitened' is unknown: choose one of standardized, l2, none"):
        tiny.bank().scaled("whitened")
    with pytest.raises(IndexError, match="row 10 is out of range: the bank has 10 rows"):
        tiny.bank().scaled("standardized", [0, 10])


@pytest.mark.parametrize("how", ["standardized", "l2", "none"])
def test_a_bank_says_how_it_is_scaled_wherever_it_goes_and_is_scaled_once(how):
    bank = repeating_bank(latents(), [*range(10), 0])
    scaled = bank.scaled(how)
    scaled.save("saved")

    for found in (scaled, pickle.loads(pickle.dumps(scaled)), TeacherBank.load("saved")):
        assert np.array_equal(everything(found), everything(scaled))
        assert (found.scaling, found.inputs, found.fingerprint) == (how, bank.inputs, scaled.fingerprint)
        assert f"scaling='{how}'" in repr(found)
        assert found.description["scaling"] == scaled.description["scaling"]
        with pytest.raises(ValueError, match=f"the bank has scaling='{how}', and 'l2' is asked for"):
            found.scaled("l2")
    assert bank.scaling == "none" and "scaling" not in bank.description
    assert (scaled.fingerprint == bank.fingerprint) == (how == "none")  # other latents have another one


def test_the_description_tells_scalings_apart_and_stays_small():
    bank = TeacherBank.from_latents(latents(5000))
    descriptions = [bank.scaled("standardized", rows).description for rows in (None, range(4999), range(1, 5000))]

    known = descriptions[0]["scaling"]
    assert (known["how"], known["num_distinct"], known["bank"]) == ("standardized", 5000, bank.fingerprint)
    assert len({description["fingerprint"] for description in descriptions}) == 3
    assert json.loads(json.dumps(descriptions)) == descriptions and len(json.dumps(known)) < 200


# ---- teachers ----
IDS, OWN_ROWS = np.array([0, 1, 2, 5]), [7, 6, 5, 0, 0, 4]  # the samples in training see the rows 7, 6, 5 and 4


class ByEpoch(Pairing):
    """Other rows in every epoch."""

    def rows(self, bank, sample_ids, epoch, seed):
        return (sample_ids + epoch) % len(bank)


class Zeros(Pairing):
    """Something else than rows of the bank."""

    def targets(self, bank, sample_ids, epoch, seed):
        return torch.zeros(len(sample_ids), bank.dim)


@pytest.mark.parametrize(
    "pairing, rows",
    [
        (Paired(OWN_ROWS), [7, 6, 5, 4]),
        (Paired(), [0, 1, 2, 5]),
        (Shuffled(OWN_ROWS), [7, 6, 5, 4]),  # as of the pairing that it alters, in which every row has a sample
        (Mismatched(Paired(OWN_ROWS), 1), [7, 6, 5, 4]),
        (PairedFraction(Noisy(Paired(OWN_ROWS)), 0.5), [7, 6, 5, 4]),
        (Permuted(Paired(OWN_ROWS), OWN_ROWS), [7, 6, 5, 4]),
        (tiny.random_prompt(10), range(10)),
        (ByEpoch(), range(10)),
        (Zeros(), range(10)),
        (ConstantTarget(), range(10)),
        (RandomPrototypes([1, 2, 1, 2, 1, 2]), range(10)),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Pairing) else None,
)
def test_the_statistics_are_of_what_the_training_samples_are_paired_with(pairing, rows):
    bank = tiny.bank(10)

    teachers = scaled_teachers({"text": Teacher(bank, pairing)}, IDS, "standardized", seed=3)

    assert list(teachers) == ["text"] and teachers["text"].pairing is pairing
    assert np.array_equal(everything(teachers["text"].bank), everything(bank.scaled("standardized", list(rows))))


def test_without_ids_all_rows_count():
    teacher = Teacher(tiny.bank(), Paired(OWN_ROWS))

    for ids in (None, np.zeros(0, dtype=np.int64)):
        found = scaled_teachers({"t": teacher}, ids, "standardized", 0)["t"]
        assert np.array_equal(everything(found.bank), everything(tiny.bank().scaled("standardized")))


def test_a_bank_that_was_scaled_before_stays_as_it_is():
    before = {how: Teacher(tiny.bank().scaled(how), Paired()) for how in ("l2", "none")}

    after = scaled_teachers({**before, "new": Teacher(tiny.bank())}, IDS, "standardized", 0)

    assert {name: teacher.bank.scaling for name, teacher in after.items()} == {
        "l2": "l2",
        "none": "none",
        "new": "standardized",
    }
    assert after["l2"] is before["l2"] and after["none"] is before["none"]
    assert scaled_teachers(after, IDS, "l2", 0) == after
    assert scaled_teachers({"t": Teacher(tiny.bank())}, IDS, "none", 0)["t"].bank.scaling == "none"


def test_null_controls_are_of_the_scaled_bank():
    bank = TeacherBank.from_latents(latents(4000))
    teachers = {
        "constant": Teacher(bank, ConstantTarget()),
        "vectors": Teacher(bank, RandomPrototypes(np.arange(4000))),
    }

    scaled = scaled_teachers(teachers, np.arange(4000), "standardized", 0)

    np.testing.assert_allclose(scaled["constant"].targets(IDS, 0, 0), 0, atol=1e-6)
    vectors = scaled["vectors"].targets(np.arange(4000), 0, 0)
    np.testing.assert_allclose(vectors.mean(dim=0), 0, atol=0.06)  # 4000 draws: a deviation of 0.016
    np.testing.assert_allclose(vectors.std(dim=0), 1, atol=0.05)


def test_ids_that_a_pairing_cannot_serve_and_banks_that_cannot_be_scaled_are_refused():
    with pytest.raises(ValueError, match="sample id 6 is out of range: `rows` holds 6 entries"):
        scaled_teachers({"t": Teacher(tiny.bank(), Shuffled(OWN_ROWS))}, np.array([6]), "standardized", 0)

    class OfOnesOwn:
        dim = 3

        def lookup(self, rows):
            return torch.zeros(len(rows), 3)

    with pytest.raises(TypeError, match="bank is a OfOnesOwn that has no `scaled`: pass latent_scaling='none'"):
        scaled_teachers({"t": Teacher(OfOnesOwn())}, IDS, "l2", 0)
    assert scaled_teachers({"t": Teacher(OfOnesOwn())}, IDS, "none", 0)["t"].dim == 3


# ---- training ----
class PredictsTheMean(torch.nn.Module):
    """A student whose latents are 0, the mean of standardized targets."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def forward(self, pixel_values, labels=None):
        zeros = self.weight * torch.zeros(len(pixel_values), 6)
        return {"loss": zeros.sum(), "logits": zeros[:, :2], "latents": zeros}


def trainer(rows=range(16), callbacks=(), model_init=None, **fields):
    """One step on all 16 samples, paired with 16 of 40 rows."""
    args = tiny.arguments(per_device_train_batch_size=16, max_steps=1, **fields)
    return CoLearningTrainer(
        None if model_init else PredictsTheMean(), args, model_init=model_init, callbacks=list(callbacks),
        train_dataset=tiny.digits(16), eval_dataset=tiny.digits(8),
        bank=TeacherBank.from_latents(latents(40)), pairing=Paired(rows),
    )  # fmt: skip


# The mean square of the targets: by definition 1 where they are standardized, 1 / D where their length is 1.
MEAN_SQUARES = {"standardized": 1, "l2": 1 / 6, "none": (latents(40)[:16].astype(np.float64) ** 2).mean()}


@pytest.mark.parametrize("how", MEAN_SQUARES)
def test_training_scales_by_the_arguments_and_again_alike(how):
    run = trainer(latent_scaling=how)
    run.train()
    first = run.bank.description

    run.train()

    losses = [log["loss_latent"] for log in run.state.log_history if "loss_latent" in log]
    assert losses == pytest.approx([MEAN_SQUARES[how]], rel=1e-5)
    assert run.bank.scaling == how and run.bank.description == first


def test_targets_are_standardized_by_default_over_the_training_samples_rows():
    run = trainer(rows=range(24, 40))
    run.train()

    assert run.state.log_history[0]["loss_latent"] == pytest.approx(1, rel=1e-5)


def test_every_trial_of_a_search_scales_by_its_own_arguments():
    optuna = pytest.importorskip("optuna")
    seen = {}

    class Watch(TrainerCallback):
        def on_log(self, args, state, control, logs=None, **kwargs):
            if "loss_latent" in logs:
                seen[args.latent_scaling] = logs["loss_latent"]

    run = trainer(callbacks=[Watch()], model_init=PredictsTheMean, eval_strategy="steps", eval_steps=1)
    run.hyperparameter_search(
        hp_space=lambda trial: {"latent_scaling": trial.suggest_categorical("latent_scaling", list(MEAN_SQUARES))},
        backend="optuna",
        n_trials=3,
        sampler=optuna.samplers.GridSampler({"latent_scaling": list(MEAN_SQUARES)}),
    )

    assert seen == pytest.approx(MEAN_SQUARES, rel=1e-5)
