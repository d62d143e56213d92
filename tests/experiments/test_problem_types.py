"""Students with several labels and of regressions: trained with few labels, scored, compared, told on a card, published."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from datasets import Dataset
from huggingface_hub import ModelCard
from PIL import Image
from sklearn.datasets import load_diabetes
from sklearn.metrics import average_precision_score, r2_score
from transformers import EvalPrediction, pipeline
from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

import tiny
from hf_colearn import (
    CoLearningForMultimodalClassification,
    CoLearningTrainer,
    FeatureBackboneConfig,
    MultimodalCollator,
    classification_metrics,
    multi_label_metrics,
    regression_metrics,
    save_run,
)
from hf_colearn.analysis.runs import Run, compare_runs, main_metric, read_runs
from hf_colearn.experiments.runner import run_arms
from hf_colearn.experiments.scoring import check_tests
from hf_colearn.experiments.student_folder import check_student
from problem_types import INFO, PLANS, Problem, local_predictions, published_predictions


TRAIN = 300  # of 442 patients
NAMES = {0: "progresses fast", 1: "heavy", 2: "high s5"}


def a_problem(kind):
    """Real patients: a fifth of the training set has labels, and the first 5 patients of the test set have none."""
    table = load_diabetes()
    progression = (table.target - table.target.mean()) / table.target.std()
    seen = [0, 1, 3, 4, 5, 6, 7, 9]  # neither the body mass index (2) nor s5 (8), which the teacher has
    everything = table.data / table.data.std(axis=0)
    labels: list = progression.tolist()
    if kind == "multi_label_classification":
        labels = np.stack([progression > 0, everything[:, 2] > 0, everything[:, 8] > 0], axis=1).astype(float).tolist()
        labels[TRAIN + 20][1] = labels[0][2] = float("nan")
    hidden = [None if i % 5 and i < TRAIN or TRAIN <= i < TRAIN + 5 else label for i, label in enumerate(labels)]
    several = kind == "multi_label_classification"
    return Problem(
        everything[:TRAIN, seen], hidden[:TRAIN], everything[:TRAIN], everything[TRAIN:, seen], hidden[TRAIN:],
        num_labels=3 if several else 1,
        compute_metrics=multi_label_metrics() if several else regression_metrics(("mse", "pearson")),
        id2label=NAMES if several else None,
    )  # fmt: skip


@pytest.fixture(scope="module")
def experiments(tmp_path_factory):
    """The problem, the folder and the runs of both types."""
    folder = tmp_path_factory.mktemp("runs")
    problems = {kind: a_problem(kind) for kind in ("multi_label_classification", "regression")}
    return {kind: (problem, folder / kind, problem.run(folder / kind)) for kind, problem in problems.items()}


@pytest.fixture(params=["multi_label_classification", "regression"])
def experiment(request, experiments):
    return request.param, *experiments[request.param]


def test_a_run_keeps_labels_and_predictions_of_the_labelled_samples_and_is_read_back(experiment):
    kind, problem, folder, runs = experiment
    read, _ = read_runs([folder])
    assert [run.arm for run in read] == ["baseline", "teacher", "shuffled"]
    for run in read:
        assert run.problem_type == kind and len(run.labels) == 442 - TRAIN - 5 == len(run.test.latents)
        assert run.labels.shape == run.predictions.shape
        truth = np.array(problem.test_labels[5:], dtype=np.float32)
        if kind == "regression":
            np.testing.assert_array_equal(run.labels, truth)
            assert run.confidences is None and run.facts["class_names"] is None
            assert run.metrics["r2"] == pytest.approx(r2_score(run.labels, run.predictions))
        else:
            np.testing.assert_array_equal(run.labels, np.where(np.isnan(truth), -100, truth))
            np.testing.assert_array_equal(run.predictions, run.confidences > 0.5)
            each = [average_precision_score(truth[:, c], run.confidences[:, c]) for c in (0, 2)]
            known = ~np.isnan(truth[:, 1])
            each.append(average_precision_score(truth[known, 1], run.confidences[known, 1]))
            assert run.metrics["mean_average_precision"] == pytest.approx(np.mean(each))
            assert run.facts["class_names"] == [*NAMES.values()]


def test_labelled_and_paired_samples_are_counted(experiment):
    _, _, _, runs = experiment
    for run in runs:
        facts = {name: run.facts[name] for name in ("num_train", "num_labelled", "num_paired", "num_unlabelled")}
        paired = None if run.arm == "baseline" else TRAIN
        assert facts == {"num_train": 300, "num_labelled": 60, "num_paired": paired, "num_unlabelled": {"test": 5}}
        assert run.facts["num_test"] == 137
        assert (np.isnan(run.train.labels) | (run.train.labels == -100)).reshape(300, -1).all(axis=1).sum() == 240


def test_students_learn_and_arms_are_compared_on_what_is_better_the_higher(experiment):
    kind, _, _, runs = experiment
    metric, chance = ("r2", 0.1) if kind == "regression" else ("mean_average_precision", 0.55)
    comparison = compare_runs(runs, metric)
    assert [arm.scores[0] for arm in comparison.arms] == [run.metrics[metric] for run in runs]
    assert min(run.metrics[metric] for run in runs) > chance
    if kind == "regression":
        with pytest.raises(ValueError, match="metric='mse' is lower where it is better.*'r2'"):
            compare_runs(runs, "mse")
        assert main_metric(runs[0]) == "pearson"  # of mse, pearson and, which is always added, r2
        with pytest.raises(ValueError, match="scored on .'mse', 'num_unlabelled'., and arms are compared on"):
            main_metric(replace(runs[0], metrics={"mse": 1.0, "num_unlabelled": 3}))


def test_the_card_tells_what_the_student_is_and_what_it_learned_from(experiment):
    kind, _, folder, runs = experiment
    card = ModelCard.load(folder / "student" / "README.md")
    assert "60 of 300 samples labelled, 300 paired" in card.text and "(137 samples; 5 more have no label)" in card.text
    stated = {result.metric_type: result.metric_value for result in card.data.eval_results}
    if kind == "regression":
        assert {"r_squared", "mse", "pearsonr"} == stated.keys() and stated["mse"] == runs[1].metrics["mse"]
        assert "regression on precomputed features" in card.text
    else:
        assert stated["mean_average_precision"] == runs[1].metrics["mean_average_precision"]
        assert "multi-label classification of precomputed features" in card.text


def test_the_card_is_checked_against_the_student(experiment, capsys):
    _, problem, folder, _ = experiment

    def make_trainer(**changed):
        return problem.trainer(PLANS[0], **changed)

    with pytest.raises(SystemExit) as ended:
        check_student(str(folder / "student"), INFO.pipeline_tag, make_trainer, problem.split("test"))
    assert ended.value.code == 0, capsys.readouterr().out
    assert "The card says what was measured" in capsys.readouterr().out


def test_published_students_predict_the_same_where_they_are_loaded_back(experiments, tmp_path):
    students = {kind: (folder / "student", problem.test) for kind, (problem, folder, _) in experiments.items()}
    for kind, (known, logits) in published_predictions(students, tmp_path / "home").items():
        assert known == kind
        np.testing.assert_allclose(logits, local_predictions(*students[kind]), atol=1e-6)
        predicted = logits[5:, 0] if kind == "regression" else logits[5:] > 0
        np.testing.assert_allclose(predicted, experiments[kind][2][1].predictions, atol=1e-5)


@pytest.mark.parametrize(
    ("kind", "metrics", "way_out"),
    [
        ("regression", multi_label_metrics, "multi_label_metrics.*problem_type='regression': pass regression_metrics"),
        ("multi_label_classification", classification_metrics, "classification_metrics.*pass multi_label_metrics"),
    ],
)
def test_metrics_of_another_problem_type_are_refused_before_the_first_step(kind, metrics, way_out):
    trainer = replace(a_problem(kind), compute_metrics=metrics()).trainer(PLANS[0])
    with pytest.raises(ValueError, match=way_out):
        trainer.train()
    assert trainer.state.global_step == 0


def test_the_checkpoint_with_the_largest_error_is_not_taken_for_the_best():
    best = {
        "load_best_model_at_end": True,
        "metric_for_best_model": "mse",
        "eval_strategy": "steps",
        "save_strategy": "steps",
    }
    trainer = a_problem("regression").trainer(PLANS[0], **best, save_steps=20, eval_steps=20)
    with pytest.raises(
        ValueError, match="metric_for_best_model='mse' is better the lower it is.*greater_is_better=False"
    ):
        trainer.train()


def test_a_test_set_without_labels_is_refused_before_an_arm_is_trained():
    problem = a_problem("regression")
    nothing = problem.split("test").select(range(5))

    def make_trainer(plan, seed):
        raise AssertionError("an arm was built")

    with pytest.raises(ValueError, match="none of the 5 samples of 'test' has a label"):
        run_arms(PLANS, [0], make_trainer, nothing)
    check_tests({"test": problem.split("test")})


@pytest.mark.parametrize("kind", ["multi_label_classification", "regression"])
def test_a_pipeline_shows_what_the_card_says(kind):
    several = kind == "multi_label_classification"
    student = tiny.student(tiny.vit(num_channels=3), num_labels=3 if several else 1, problem_type=kind).eval()
    picture = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    processor = ViTImageProcessorPil(size={"height": 8, "width": 8})
    classify = pipeline("image-classification", model=student, image_processor=processor)
    found = {entry["label"]: entry["score"] for entry in classify(Image.fromarray(picture))}
    with torch.no_grad():
        logits = student(torch.from_numpy(picture).permute(2, 0, 1)[None] / 127.5 - 1).logits[0]
    expected = logits.sigmoid() if several else logits
    assert [found[f"LABEL_{i}"] for i in range(len(found))] == pytest.approx(expected.tolist(), abs=1e-4)


@pytest.mark.parametrize("head", ["bottleneck", "auxiliary"])
@pytest.mark.parametrize("kind", ["multi_label_classification", "regression"])
def test_a_stock_export_of_a_trained_student_has_its_problem_type_and_loss(kind, head):
    several = kind == "multi_label_classification"
    student = tiny.student(head=head, latent_norm="none", num_labels=2 if several else 1)
    digits = tiny.digits(8).with_format("torch")
    labels = [[float(x > 4), float(x % 2)] if several else float(x) for x in digits["labels"][:]]
    data = digits.remove_columns("labels").add_column("labels", labels)
    CoLearningTrainer(student, tiny.arguments(max_steps=1), train_dataset=data).train()
    stock = student.to_transformers()
    assert stock.config.problem_type == student.config.problem_type == kind
    batch = {"pixel_values": data["pixel_values"][:], "labels": torch.tensor(labels)}
    with torch.no_grad():
        assert stock(**batch).loss.item() == pytest.approx(student.eval()(**batch).loss.item(), rel=1e-5)


@pytest.mark.parametrize("kind", ["multi_label_classification", "regression"])
def test_a_multimodal_run_is_saved_with_the_metrics_of_its_modalities(kind, tmp_path):
    several = kind == "multi_label_classification"
    problem = a_problem(kind)
    data = Dataset.from_dict(
        {
            "left_features": problem.test[:, :4].astype(np.float32).tolist(),
            "right_features": [
                x.tolist() if i % 4 else None for i, x in enumerate(problem.test[:, 4:].astype(np.float32))
            ],
            "labels": problem.test_labels,
        }
    )
    model = CoLearningForMultimodalClassification.from_backbones(
        {name: FeatureBackboneConfig(feature_dim=4) for name in ("left", "right")},
        latent_dim=4,
        num_labels=3 if several else 1,
    )
    trainer = CoLearningTrainer(
        model, tiny.arguments(max_steps=2), train_dataset=data, compute_metrics=problem.compute_metrics,
        data_collator=MultimodalCollator({"left": None, "right": None}),
    )  # fmt: skip
    trainer.train()
    groups = {"age": ["old" if x > 0 else "young" for x in problem.test[:, 0]]}
    save_run(
        trainer,
        data,
        tmp_path / "run",
        "joint",
        "baseline",
        groups=groups,
        more_tests={"again": data.select(range(50))},
    )
    run = Run.load(tmp_path / "run")
    metric = "f1_micro" if several else "mse"
    assert {f"{metric}{part}" for part in ("", "_left", "_right", "_given_left", "_given_right", "_on_again")} <= {
        *run.metrics
    }
    assert run.facts["num_unlabelled"] == {"test": 5, "again": 5} and len(run.groups["age"]) == len(run.labels) == 137
    present = np.array([i % 4 > 0 for i in range(142)])[5:]
    np.testing.assert_array_equal(np.isfinite(run.test.modality_latents["right"]).all(axis=1), present)


def test_metrics_of_a_run_are_those_of_its_labelled_samples(experiment):
    kind, problem, _, runs = experiment
    run = runs[0]
    logits = run.predictions[:, None] if kind == "regression" else np.log(run.confidences / (1 - run.confidences))
    labels = np.where(run.labels == -100, np.nan, run.labels) if kind != "regression" else run.labels
    expected = problem.compute_metrics(EvalPrediction(logits, labels))
    assert {name: run.metrics[name] for name in expected} == pytest.approx(expected, abs=1e-5)
