"""Objects that are used again: every run that does not resume starts anew, and a resumed one goes on exactly."""

import functools

import numpy as np
import optuna
import pytest
import torch
from datasets import Dataset
from transformers import PrinterCallback

import tiny
from hf_colearn import (
    CoLearningCallback,
    CoLearningForFeatureClassification,
    CoLearningTrainer,
    FeatureBackboneConfig,
    FittedAlpha,
    HeuristicAlpha,
    LabelAlignment,
    LatentMatching,
    LearnedAlpha,
    TeacherBank,
)
from refusals import Refusals, assert_refused


REFUSALS = Refusals()
case = REFUSALS.case


@pytest.mark.parametrize(Refusals.NAMES, REFUSALS.cases)
def test_what_cannot_work_is_refused_with_the_way_out(situation, error, texts, tmp_path):
    assert_refused(situation, error, texts, tmp_path)


def samples(count=48, seed=0) -> Dataset:
    """Of 3 classes, `features` (6,); the ids of another seed's samples are others."""
    columns = {"features": np.random.default_rng(seed).normal(size=(count, 6)).astype(np.float32).tolist()}
    return Dataset.from_dict(
        columns | {"labels": [i % 3 for i in range(count)], "sample_id": range(100 * seed, 100 * seed + count)}
    )


@functools.cache
def bank() -> TeacherBank:
    return TeacherBank.from_latents(np.random.default_rng(1).normal(size=(200, 4)).astype(np.float32))


def student():
    torch.manual_seed(0)
    return CoLearningForFeatureClassification.from_backbone(
        FeatureBackboneConfig(feature_dim=6), latent_dim=4, num_labels=3
    )


def trainer(alpha=None, callbacks=(), from_init=None, folder="out", **kwargs):
    """Of two epochs of 6 steps (of 4 where an alpha is learned), of which the last are not logged."""
    names = ("train_dataset", "eval_dataset", "objective", "bank", "data_collator")
    ours = {"train_dataset": samples(), "bank": bank(), **{name: kwargs.pop(name) for name in names if name in kwargs}}
    model = {"model": student()} if from_init is None else {"model_init": from_init}
    defaults = {"max_steps": -1, "num_train_epochs": 2, "logging_steps": 5, "learning_rate": 0.05}
    run = CoLearningTrainer(
        args=tiny.arguments(folder, **{**defaults, **kwargs}), alpha=alpha, callbacks=list(callbacks), **model, **ours
    )
    run.remove_callback(PrinterCallback)
    return run


def trained(run, **kwargs):
    run.train(**kwargs)
    return run


def outcome(run):
    """The weights, and all logs without times and what is of a session alone."""
    of_session = ("train_runtime", "train_samples_per_second", "train_steps_per_second", "train_loss")
    logs = [
        {name: value for name, value in entry.items() if name not in of_session} for entry in run.state.log_history
    ]
    return [weight.detach().clone() for weight in run.model.parameters()], logs


def assert_same(one, other):
    assert one[1] == other[1]
    assert all(map(torch.equal, one[0], other[0]))


class Worn(CoLearningCallback):
    """Weighs the task by what halves with every step, in place, and logs it."""

    def __init__(self):
        self.left = torch.ones(())

    def on_step_end(self, args, state, control, **kwargs):
        self.left *= 0.5

    def on_terms(self, terms):
        return {**terms, "task": self.left * terms["task"]}

    def metrics(self, training):
        return {"left": self.left.item()}

    def state_dict(self):
        return {"left": self.left}

    def load_state_dict(self, state):
        self.left = state["left"]


ALPHAS = {
    "heuristic": HeuristicAlpha,
    "learned": lambda: LearnedAlpha("latent", interval=2, outer_split=16),
}


# ---- another run ----
@pytest.mark.parametrize("kind", ALPHAS)
def test_objects_that_are_used_again_train_as_fresh_ones(kind):
    used = ALPHAS[kind](), [Worn(), LabelAlignment()]
    trained(trainer(*used, seed=1))
    again, fresh = trainer(*used), trainer(ALPHAS[kind](), [Worn(), LabelAlignment()])
    assert_same(outcome(trained(again)), outcome(trained(fresh)))
    assert outcome(again)[1][0]["left"] == 0.5**5


class Meanwhile(CoLearningCallback):
    """Does something when the first epoch of a run ends."""

    def __init__(self, what):
        self.what = what

    def on_epoch_end(self, args, state, control, **kwargs):
        if state.epoch == 1:
            self.what()


def test_an_alpha_of_two_trainers_is_of_the_one_that_trains():
    shared, other = ALPHAS["learned"](), []
    run = trained(trainer(shared, [Meanwhile(lambda: other.append(trainer(shared, seed=1)))]))
    assert_same(outcome(run), outcome(trained(trainer(ALPHAS["learned"]()))))
    assert other[0].alpha is shared


@case(ValueError, "this LearnedAlpha is used in another run", "give each an object of its own")
def an_alpha_of_a_run_within_another(folder):
    shared = ALPHAS["learned"]()
    inner = trainer(shared, folder=folder / "out", seed=1)
    run = trainer(shared, [Meanwhile(inner.train)], folder=folder / "out")
    yield
    run.train()


def test_a_second_training_of_a_model_that_is_made_anew_is_the_first():
    # What is measured at step 6 is not logged in the first run, and may not be in the second one's log of step 5.
    run = trainer(LearnedAlpha("latent", interval=6, outer_split=16), [Worn()], from_init=student)
    first = outcome(trained(run))
    assert_same(outcome(trained(run)), first)


def test_a_warning_of_a_clipped_polynomial_is_given_in_every_run(caplog):
    alpha = FittedAlpha([1.5])
    for _ in range(2):
        trained(trainer(alpha, max_steps=2))
        assert "FittedAlpha leaves [0, 1]" in caplog.text
        caplog.clear()


# ---- another training set, another model ----
@pytest.mark.parametrize("learned", [False, True])
def test_a_training_set_that_is_assigned_later_is_the_one_that_trains(learned):
    run = trainer(ALPHAS["learned"]() if learned else None)
    run.train_dataset = samples(36, seed=1)  # ids from 100 on
    trained(run)
    assert run.state.max_steps == (
        6 if learned else 10
    )  # 2 epochs of 36 samples, or of the 20 that the outer split leaves
    if learned:
        ids = run.train_dataset["sample_id"][:], run.outer_dataset["sample_id"][:]
        assert sorted([*ids[0], *ids[1]]) == list(range(100, 136))


def test_alpha_gives_back_what_it_has_cut_off():
    run = trainer(None, alpha_schedule="learned", alpha_outer_split=0.25)
    assert (len(run.train_dataset), len(run.outer_dataset)) == (36, 12)
    run._set_alpha(LearnedAlpha("latent", outer_split=16))
    assert (len(run.train_dataset), len(run.outer_dataset)) == (32, 16)
    run._set_alpha(HeuristicAlpha())
    assert (len(run.train_dataset), run.outer_dataset) == (48, None)


def test_a_model_that_is_made_anew_has_the_problem_type_that_the_labels_tell():
    several = samples().remove_columns("labels").add_column("labels", [[1, 0, i % 2] for i in range(48)])
    run = trained(trainer(from_init=student, train_dataset=several, max_steps=1))
    assert run.model.config.problem_type == "multi_label_classification"


# ---- resuming ----
@pytest.mark.parametrize("kind", ALPHAS)
def test_a_resumed_run_of_a_used_object_goes_on_exactly(kind, tmp_path):
    saving = {"folder": tmp_path, "save_strategy": "steps", "save_steps": 5}
    used = ALPHAS[kind](), [Worn()]
    whole = outcome(trained(trainer(*used, **saving)))
    assert_same(outcome(trained(trainer(*used), resume_from_checkpoint=str(tmp_path / "checkpoint-5"))), whole)


def test_a_finished_run_that_is_resumed_trains_no_step(tmp_path):
    run = trained(trainer(ALPHAS["learned"](), [Worn()], folder=tmp_path, save_strategy="epoch"))
    weights, alpha = outcome(run)[0], run.alpha.weights()
    trained(run, resume_from_checkpoint=True)
    assert all(map(torch.equal, outcome(run)[0], weights))
    assert run.alpha.weights() == alpha != {"latent": 0.5}


# ---- what tries again ----
def test_a_run_that_begins_again_with_smaller_batches_begins_with_the_first_alpha():
    run = trainer(ALPHAS["learned"](), auto_find_batch_size=True, logging_steps=1, per_device_train_batch_size=16)
    sizes = []

    def full(module, args, kwargs):
        if module.training:
            sizes.append(len(kwargs["features"]))
        if sizes == [16, 16, 16]:
            raise RuntimeError("CUDA out of memory.")

    run.model.register_forward_pre_hook(full, with_kwargs=True)
    trained(run)
    assert sizes[:3] == [16, 16, 16] and max(sizes[3:]) < 16
    assert [entry["alpha"] for entry in run.state.log_history if "alpha" in entry][:2] == [0.5, 0.5]


def search(run, values, backend="optuna"):
    """The last logs of trials of every one of the values, by name."""
    ((name, options),) = values.items()
    logs = []

    class Keep(CoLearningCallback):
        def on_train_end(self, args, state, control, **kwargs):
            logs.append((getattr(args, name), outcome(run)[1][0]))

    run.add_callback(Keep())
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    run.hyperparameter_search(
        hp_space=lambda trial: {name: trial.suggest_categorical(name, options)}, backend=backend,
        n_trials=len(options), direction="minimize", sampler=optuna.samplers.GridSampler(values),
    )  # fmt: skip
    return dict(logs)


def test_trials_of_a_search_share_an_alpha_and_each_starts_anew():
    run = trainer(ALPHAS["learned"](), from_init=student, eval_dataset=samples(12, 2))
    found = search(run, {"weight_decay": [0.0, 1e-30]})  # alike but for their name
    assert found[0.0] == found[1e-30]


def test_a_search_reaches_the_objective_that_the_arguments_make():
    run = trainer(from_init=student, eval_dataset=samples(12, 2), latent_scaling="none", logging_steps=1, max_steps=1)
    found = search(run, {"latent_loss": ["mse", "cosine"]})
    for loss, logs in found.items():
        of_one = trained(
            trainer(from_init=student, latent_scaling="none", logging_steps=1, max_steps=1, latent_loss=loss)
        )
        assert logs["loss_latent"] == outcome(of_one)[1][0]["loss_latent"]


@case(ValueError, "HeuristicAlpha is among the `callbacks`", "weighs nothing", "alpha=HeuristicAlpha(...)")
def an_alpha_among_the_callbacks(folder):
    yield
    trainer(callbacks=[HeuristicAlpha()], folder=folder / "out")


def searching(folder, values, **kwargs):
    return lambda: search(
        trainer(from_init=student, folder=folder / "out", eval_dataset=samples(12, 2), **kwargs), values
    )


@case(ValueError, "the search sets alpha=0.2", "alpha=HeuristicAlpha", "Leave `alpha=` out")
def a_search_over_alpha_beside_an_object(folder):
    run = searching(folder, {"alpha": [0.2]}, alpha=HeuristicAlpha())
    yield
    run()


@case(ValueError, "the search sets latent_loss='cosine'", "objective=LatentMatching", "Leave `objective=` out")
def a_search_over_the_loss_of_a_given_objective(folder):
    run = searching(folder, {"latent_loss": ["cosine"]}, objective=LatentMatching("mse"))
    yield
    run()


@case(ValueError, "the search sets alpha=0.2", "there is no bank", "Pass `bank=`")
def a_search_over_the_alpha_of_a_baseline(folder):
    run = searching(folder, {"alpha": [0.2]}, bank=None)
    yield
    run()


@case(ValueError, "ema_decay=1.5 is outside (0, 1)", "such as 0.9999")
def a_search_over_a_decay_above_one(folder):
    run = searching(folder, {"ema_decay": [1.5]})
    yield
    run()


@case(ValueError, "labels in column 'labels' are out of range, such as 7", "num_labels=3")
def a_search_with_labels_that_the_model_does_not_have(folder):
    wrong = samples().remove_columns("labels").add_column("labels", [7] * 48)
    run = searching(folder, {"learning_rate": [0.1]}, train_dataset=wrong)
    yield
    run()
