"""The arms of many tasks: equal updates a task, permuted labels, and scores of every task by its own model."""

import numpy as np
import pytest
import torch

import tiny
from hf_colearn import UnpairedBatches
from hf_colearn.experiments.many_tasks import (
    APART,
    SHUFFLED,
    THEN_ALONE,
    TOGETHER,
    ManyTasks,
    Task,
    fits_of,
    many_tasks_arms,
    shuffled,
    tasks_run,
)


TRUNK = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
STEPS = 8


def task(name, shift):
    """60 rows of two columns, of which the first tells the two classes."""
    rng, labels_N = np.random.default_rng(len(name)), np.arange(60) % 2
    rows_NF = np.stack([labels_N * 4 + shift, rng.normal(size=60)], axis=1)
    stem = {"kind": "table", "num_columns": 2}
    return Task.of({name: stem}, labels_N, ["low", "high"], **{f"{name}_features": rows_NF})


@pytest.fixture(scope="module")
def many():
    return ManyTasks({"near": task("near", 0), "far": task("far", 50)}, TRUNK, 4, labels_per_class=4, split_seed=0)


def few(many):
    return {name: part.select(range(8)) for name, part in many.train.items()}


def test_every_task_has_as_many_updates_of_the_model_that_is_scored_on_it_in_every_arm(many):
    updates = {}
    for arm in many_tasks_arms():
        fits = fits_of(arm.method, few(many), STEPS, seed=0)
        before = [fit for fit in fits if not fit.scored]
        updates[arm.name] = {
            name: sum(each.steps / len(each.data) for each in ([*before, fit] if fit.goes_on else [fit]))
            for fit in fits
            for name in fit.scored
        }
    assert updates == dict.fromkeys((APART, SHUFFLED, THEN_ALONE, TOGETHER), {"near": 4, "far": 4})


def test_of_the_null_control_only_the_scored_task_has_its_own_labels(many):
    given = few(many)
    for fit in fits_of(SHUFFLED, given, STEPS, seed=0):
        for name, part in fit.data.items():
            same = torch.equal(part["labels"][:], given[name]["labels"][:])
            assert same == (name in fit.scored)
            assert torch.equal(part[:][f"{name}_features"], given[name][:][f"{name}_features"])
            assert sorted(part["labels"][:].tolist()) == sorted(given[name]["labels"][:].tolist())
    assert not torch.equal(shuffled(given["near"], 0)["labels"][:], shuffled(given["near"], 1)["labels"][:])


@pytest.mark.parametrize("arm", many_tasks_arms(), ids=lambda arm: arm.name)
def test_a_run_is_scored_by_the_mean_over_the_tasks(many, arm, tmp_path):
    trainer = many.make_trainer(arm, tiny.arguments(tmp_path, max_steps=STEPS, learning_rate=0.03))
    trainer.train()
    test = UnpairedBatches(many.test)
    run = tasks_run(trainer, test, arm.name, arm.kind)
    means = [run.metrics[f"accuracy_on_{name}"] for name in ("near", "far")]
    assert run.metrics["accuracy"] == pytest.approx(np.mean(means))
    assert trainer.evaluate(many.test)["eval_accuracy"] == run.metrics["accuracy"]
    hits_N = run.labels == run.predictions
    assert hits_N[run.groups["task"] == "far"].mean() == pytest.approx(means[1])
    assert run.facts["class_names"] == ["near: low", "near: high", "far: low", "far: high"]
    assert len({id(model) for model in trainer.models.values()}) == (1 if arm.name == TOGETHER else 2)
    assert trainer.state.log_history[-1]["step"] == sum(fit.steps for fit in trainer.fits)


def test_too_few_steps_are_refused(many):
    with pytest.raises(ValueError, match="max_steps=3 are shared by 2 tasks: pass at least 4"):
        fits_of(APART, few(many), 3, seed=0)
