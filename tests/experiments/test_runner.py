"""Arms trained over seeds, scored, compared and written down."""

import json
import shutil

import numpy as np
import pytest
import torch

import tiny
from hf_colearn import CoLearningTrainer, RandomPrototypes, classification_metrics
from hf_colearn.analysis.report.summary import summary
from hf_colearn.analysis.runs import compare_runs, histories, read_runs, write_report
from hf_colearn.cli import main
from hf_colearn.experiments.arms import ArmPlan, pick, run_folder
from hf_colearn.experiments.runner import run_arms


PLANS = [
    ArmPlan("baseline", "baseline"),
    ArmPlan("prompts", "colearned", tiny.random_prompt()),
    ArmPlan("vectors", "null", RandomPrototypes(num_prototypes=10)),
]


@pytest.fixture(scope="module")
def experiment(tmp_path_factory):
    folder, starts = tmp_path_factory.mktemp("experiment"), {}

    def make_trainer(plan, seed):
        student = tiny.CoLearningForImageClassification.from_backbone(tiny.vit(), latent_dim=24, num_labels=10)
        starts[plan.name, seed] = student.latent_head.weight.detach().clone()
        teacher = {} if plan.pairing is None else {"bank": tiny.bank(), "pairing": plan.pairing}
        return CoLearningTrainer(
            student,
            tiny.arguments(folder / "out", max_steps=3, seed=seed),
            train_dataset=tiny.digits(32) if plan.pairing else tiny.digits(32).remove_columns("sample_id"),
            compute_metrics=classification_metrics(("accuracy",)),
            **teacher,
        )

    return run_arms(PLANS, [3, 4], make_trainer, tiny.digits(40)), starts


def test_all_arms_of_a_seed_start_from_the_same_weights_and_seeds_differ(experiment):
    _, starts = experiment
    for seed in (3, 4):
        assert torch.equal(starts["baseline", seed], starts["prompts", seed])
        assert torch.equal(starts["baseline", seed], starts["vectors", seed])
    assert not torch.equal(starts["baseline", 3], starts["baseline", 4])


def test_every_run_keeps_its_score_latents_and_history(experiment):
    runs, _ = experiment
    assert [(run.arm, run.seed) for run in runs] == [(plan.name, seed) for seed in (3, 4) for plan in PLANS]
    for run in runs:
        assert run.test.latents.shape == (40, 24) and np.isfinite(run.test.latents).all()
        np.testing.assert_array_equal(run.labels, tiny.digits(40)["labels"][:])
        assert run.metrics["accuracy"] * 40 == pytest.approx(round(run.metrics["accuracy"] * 40))


def test_the_comparison_and_the_report_hold_the_scores_of_the_runs(experiment, tmp_path):
    runs, _ = experiment
    comparison = compare_runs(runs)
    for arm in comparison.arms:
        assert arm.scores == [run.metrics["accuracy"] for run in runs if run.arm == arm.name]
    report = json.loads(write_report(tmp_path, runs, comparison, {"recipe": "tiny"}).read_text())
    assert report["recipe"] == "tiny"
    assert [entry["metrics"] for entry in report["runs"]] == [run.metrics for run in runs]
    assert {"python", "torch", "transformers", "hf_colearn"} <= set(report["installed"])


def test_the_command_shows_of_anybodys_runs_what_a_recipe_shows(experiment, tmp_path, capsys):
    runs, _ = experiment
    for run in runs:
        run.save(tmp_path / run.arm / f"seed-{run.seed}")
    assert main(["report", str(tmp_path), "--projections"]) == 0
    found, _ = read_runs([tmp_path])
    assert summary(found, compare_runs(found), {}) in capsys.readouterr().out


def test_the_baselines_only_loss_is_drawn_as_its_task_loss(experiment):
    runs, _ = experiment
    baseline = histories(runs)["baseline"]
    assert len(baseline) == 2
    assert all(entry["loss_task"] == entry["loss"] for history in baseline for entry in history)


def test_arms_are_picked_by_name():
    assert pick(PLANS, None) == PLANS
    assert [plan.name for plan in pick(PLANS, ["vectors", "baseline"])] == ["baseline", "vectors"]
    with pytest.raises(ValueError, match="no arm 'nothing'.*'prompts'"):
        pick(PLANS, ["nothing"])


# ---- runs that are taken up again ----
def resumable(folder, trained, max_steps=3, learning_rate=5e-3):
    def make_trainer(plan, seed):
        student = tiny.CoLearningForImageClassification.from_backbone(tiny.vit(), latent_dim=24, num_labels=10)
        teacher = {} if plan.pairing is None else {"bank": tiny.bank(), "pairing": plan.pairing}
        args = tiny.arguments(
            run_folder(folder, plan.name, seed), max_steps=max_steps, seed=seed, learning_rate=learning_rate,
            save_strategy="steps", save_steps=1,
        )  # fmt: skip
        data = tiny.digits(32) if plan.pairing else tiny.digits(32).remove_columns("sample_id")
        metrics = classification_metrics(("accuracy",))
        return CoLearningTrainer(student, args, train_dataset=data, compute_metrics=metrics, **teacher)

    def remember(plan, seed, trainer):
        trained.append((plan.name, seed))

    return make_trainer, remember


def test_finished_runs_are_read_back_and_an_interrupted_one_goes_on(tmp_path):
    trained: list = []
    make_trainer, remember = resumable(tmp_path, trained)
    test = tiny.digits(40)
    whole = run_arms(PLANS[:2], [3], make_trainer, test, remember, folder=tmp_path)
    # As a machine that failed in the second arm leaves it: two of three steps, no scores.
    second = run_folder(tmp_path, PLANS[1].name, 3)
    (second / "run.json").unlink()
    shutil.rmtree(second / "checkpoint-3")
    trained.clear()

    again = run_arms(PLANS[:2], [3], make_trainer, test, remember, folder=tmp_path, resume=True)

    assert trained == [("prompts", 3)]
    assert again[1].history[-1]["step"] == 3 and (second / "run.json").is_file()
    for run, expected in zip(again, whole, strict=True):
        assert run.metrics == expected.metrics and run.seed == expected.seed
        np.testing.assert_array_equal(run.test.latents, expected.test.latents)
        np.testing.assert_array_equal(run.labels, expected.labels)
    losses = [[entry.get("loss_task") for entry in runs[1].history if "loss" in entry] for runs in (whole, again)]
    assert losses[0] == losses[1]


def test_a_finished_run_of_other_arguments_is_refused_by_name(tmp_path):
    make_trainer, _ = resumable(tmp_path, [])
    run_arms(PLANS[:2], [3], make_trainer, tiny.digits(40), folder=tmp_path)
    make_trainer, _ = resumable(tmp_path, [], learning_rate=1e-3)
    with pytest.raises(ValueError, match="learning_rate=0.005.*0.001"):
        run_arms(PLANS[:2], [3], make_trainer, tiny.digits(40), folder=tmp_path, resume=True)


def test_a_finished_run_of_an_earlier_version_lacks_only_what_was_not_there(tmp_path):
    trained: list = []
    make_trainer, remember = resumable(tmp_path, trained)
    run_arms(PLANS[:2], [3], make_trainer, tiny.digits(40), remember, folder=tmp_path)
    for plan in PLANS[:2]:
        path = run_folder(tmp_path, plan.name, 3) / "run.json"
        content = json.loads(path.read_text())
        del content["identity"]["lr_step_epochs"], content["facts"]["teacher"]
        path.write_text(json.dumps(content))
    run_arms(PLANS[:2], [3], make_trainer, tiny.digits(40), remember, folder=tmp_path, resume=True)
    assert trained == [("baseline", 3), ("prompts", 3)]


def test_without_resume_everything_is_trained_anew(tmp_path):
    trained: list = []
    make_trainer, remember = resumable(tmp_path, trained)
    for _ in range(2):
        run_arms(PLANS[:2], [3], make_trainer, tiny.digits(40), remember, folder=tmp_path)
    assert trained == [("baseline", 3), ("prompts", 3)] * 2
