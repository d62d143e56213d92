"""Runs of one's own: any model that Trainer trains, saved, refused where it must be, timed by its log, and shown in a line."""

import json
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from datasets import ClassLabel, Dataset, Features, List, Value
from peft import LoraConfig, get_peft_model
from torch import nn
from transformers import Trainer, TrainingArguments, ViTForImageClassification

import tiny
from hf_colearn import CoLearningTrainer, save_run
from hf_colearn.analysis.report import report
from hf_colearn.analysis.run import Run, Samples
from hf_colearn.analysis.timing import training_time
from hf_colearn.experiments.arms import run_folder
from refusals import Refusals, assert_refused


N = 24


@dataclass
class Output:
    """What is no mapping, as a model of one's own may return it."""

    logits: torch.Tensor
    loss: torch.Tensor | None = None


class Net(nn.Module):
    """A linear model without a configuration, whose output is of the wanted kind."""

    def __init__(self, kind="dict", outputs=3, shape=None):
        super().__init__()
        torch.manual_seed(0)
        self.kind, self.shape, self.body, self.head = kind, shape, nn.Linear(4, 5), nn.Linear(5, outputs)

    def forward(self, x, labels=None):
        z = self.body(x)
        y = self.head(z) if self.shape is None else self.head(z).reshape(self.shape)
        loss = y.square().mean()
        if self.kind == "tuple":
            return (y, z) if labels is None else (loss, y, z)
        if self.kind == "dataclass":
            return Output(y, loss)
        more = {"latents": z, "scalar": loss, "nothing": None} if self.kind == "latents" else {}
        return {"loss": loss, "scores" if self.kind == "no logits" else "logits": y, **more}


def data(labels, features=None):
    x = np.random.default_rng(0).normal(size=(len(labels), 4)).astype(np.float32)
    columns = {"x": List(Value("float32"))} | ({} if features is None else {"labels": features})
    known = Features(columns) if features is not None else None
    return Dataset.from_dict({"x": x.tolist(), "labels": list(labels)}, features=known).with_format("torch")


CLASSES = [i % 3 for i in range(N)]


def trainer_of(model, train=None, cls=Trainer, **options):
    arguments = tiny.arguments(cls=TrainingArguments) if cls is Trainer else tiny.arguments()
    return cls(model, arguments, train_dataset=train, **options)


def predicted(model, dataset):
    """By hand: all samples at once."""
    with torch.no_grad():
        return model.head(model.body(torch.stack([torch.as_tensor(x) for x in dataset["x"]]))).numpy()


# ---- any model ----
@pytest.mark.parametrize("cls", [Trainer, CoLearningTrainer])
@pytest.mark.parametrize("kind", ["dict", "tuple", "dataclass", "latents"])
def test_a_module_of_ones_own_is_scored_by_its_logits(kind, cls, tmp_path):
    model, test = Net(kind), data(CLASSES)
    run = save_run(trainer_of(model, test, cls), test, tmp_path / "run", "mine", "baseline")
    expected = predicted(model, test).argmax(axis=1)
    np.testing.assert_array_equal(run.predictions, expected)
    assert run.metrics["accuracy"] == pytest.approx(np.mean(expected == CLASSES))
    assert (run.problem_type, run.facts["class_names"], run.facts["num_train"]) == (
        "single_label_classification", ["0", "1", "2"], N,
    )  # fmt: skip
    again = Run.load(tmp_path / "run")
    assert (again.test.latents is None) == (kind != "latents") and repr(again) == repr(run)
    if kind == "latents":
        assert again.test.latents.shape == again.train.latents.shape == (N, 5)


@pytest.mark.parametrize("adapted", [False, True], ids=["stock", "PEFT"])
def test_a_stock_model_and_its_adapters_are_scored(adapted, tmp_path):
    model = ViTForImageClassification(tiny.vit(num_labels=10))
    if adapted:
        model = get_peft_model(model, LoraConfig(target_modules="all-linear", modules_to_save=["classifier"]))
    test = tiny.digits(16).remove_columns("sample_id")
    run = save_run(trainer_of(model), test, tmp_path / "run", "stock", "baseline")
    with torch.no_grad():
        expected = model(pixel_values=test["pixel_values"][:]).logits.argmax(dim=-1)
    np.testing.assert_array_equal(run.predictions, expected)
    assert run.facts["class_names"] == [str(i) for i in range(10)] and run.test.latents is None


@pytest.mark.parametrize(
    ("labels", "outputs", "problem", "metric"),
    [
        ([i / 7 for i in range(N)], 1, "regression", "r2"),
        ([[float(i % 2), float(i > 9)] for i in range(N)], 2, "multi_label_classification", "f1_macro"),
        ([[i / 7, -float(i)] for i in range(N)], 2, "regression", "r2"),
    ],
)
def test_without_a_configuration_the_labels_say_what_the_problem_is(labels, outputs, problem, metric, tmp_path):
    model, test = Net(outputs=outputs), data(labels)
    run = save_run(trainer_of(model), test, tmp_path / "run", "mine", "baseline")
    assert run.problem_type == problem and metric in run.metrics
    logits = predicted(model, test)
    expected = (logits > 0).astype(int) if problem.startswith("multi") else logits.squeeze()
    np.testing.assert_allclose(run.predictions, expected, rtol=1e-5)
    if problem == "regression":  # 1 - the mean squared error over the variance, the mean over the outputs
        true = np.array(labels).reshape(N, -1)
        by_hand = 1 - np.mean((logits - true) ** 2, axis=0) / true.var(axis=0)
        assert run.metrics["r2"] == pytest.approx(by_hand.mean(), rel=1e-4)


def test_classes_are_called_as_the_data_set_names_them(tmp_path):
    test = data(CLASSES, ClassLabel(names=["cat", "dog", "<emu>"]))
    run = save_run(trainer_of(Net()), test, tmp_path / "run", "mine", "baseline")
    assert run.facts["class_names"] == ["cat", "dog", "<emu>"]


def test_a_run_keeps_the_metrics_that_are_numbers_and_those_that_the_trainer_measures(tmp_path):
    def measure(evaluation):
        logits, _ = evaluation.predictions  # of the outputs as `trainer.evaluate` has them
        hits = logits.argmax(axis=1) == evaluation.label_ids
        return {"hits": hits.mean(), "by_class": [0.1, 0.2], "words": "x", "none": None, "undefined": float("nan")}

    trainer = trainer_of(Net("tuple"), compute_metrics=measure, preprocess_logits_for_metrics=lambda logits, _: logits)
    run = save_run(trainer, data(CLASSES), tmp_path / "run", "mine", "baseline")
    expected = trainer.evaluate(data(CLASSES))["eval_hits"]
    assert run.metrics["hits"] == expected and set(run.metrics) == {"hits", "undefined"}
    assert run.facts["metrics_without_a_number"] == ["by_class", "words", "none"]


# ---- refused ----
refusals = Refusals()


def save(folder, name="run", model=None, labels=CLASSES, arm="mine", kind="baseline", **options):
    return save_run(trainer_of(model or Net(), **options), data(labels), folder / "out" / name, arm, kind)


@refusals.case(ValueError, "of kind 'co-learned'", "did you mean 'colearned'?", "'null'", "'reference'")
def a_wrong_kind(folder):
    yield
    save(folder, kind="co-learned")


@refusals.case(ValueError, "arm='two\\nlines'", "a text of one line")
def an_arm_of_two_lines(folder):
    yield
    save(folder, arm="two\nlines")


@refusals.case(ValueError, "arm=''", "a text of one line")
def an_arm_without_a_name(folder):
    yield
    save(folder, arm="")


@refusals.case(
    ValueError, "holds the run of arm 'other' with seed 7", "arm 'mine' with seed 7", "runs/mine/mine/seed-7"
)
def a_folder_that_holds_another_run(folder):
    save(folder, arm="other")
    yield
    save(folder)


@refusals.case(ValueError, "arm 'mine' returns 'loss', 'scores'", "no 'logits' [N, C]")
def an_output_without_logits(folder):
    yield
    save(folder, model=Net("no logits"))


@refusals.case(ValueError, "logits of shape (24, 2, 3)", "one prediction a sample")
def a_prediction_a_token(folder):
    yield
    save(folder, model=Net(outputs=6, shape=(-1, 2, 3)))


@refusals.case(ValueError, "one logit a sample", "an output for each of the two classes")
def one_logit_for_two_classes(folder):
    yield
    save(folder, model=Net(outputs=1), labels=[i % 2 for i in range(N)])


@refusals.case(ValueError, "go from 0 to 4", "3 logits", "as many outputs as there are classes")
def a_label_beyond_the_logits(folder):
    yield
    save(folder, labels=[i % 5 for i in range(N)])


@refusals.case(ValueError, "there is no arm 'text techer'", "did you mean 'text teacher'?")
def an_arm_that_was_not_trained(folder):
    runs = [made(arm, kind) for arm, kind in (("plain", "baseline"), ("text teacher", "colearned"))]
    yield
    report(runs, folder / "out", arms=["plain", "text techer"])


@refusals.case(ValueError, "are both of arm 'plain' with seed 42", "the argument `seed` of its trainer")
def two_runs_of_one_seed(folder):
    for i in range(2):
        made("plain", "baseline", seed=42).save(folder / "out" / f"seed-{i}")
    yield
    report(folder / "out")


@refusals.case(ValueError, "nothing was measured in arm 'plain', seed 0", "a `compute_metrics`")
def runs_without_a_metric(folder):
    made("plain", "baseline", metrics={}).save(folder / "out" / "run")
    yield
    report(folder / "out")


def made(arm, kind, seed=0, metrics=None, history=(), **facts):
    labels = np.array(CLASSES)
    metrics = {"accuracy": 0.5 + seed / 100} if metrics is None else metrics
    return Run(
        arm, kind, seed, metrics, list(history), float("nan"), labels, labels, None, Samples(labels), facts=facts
    )  # fmt: skip


@pytest.mark.parametrize(Refusals.NAMES, refusals.cases)
def test_it_is_refused(situation, error, texts, tmp_path):
    assert_refused(situation, error, texts, tmp_path)


def test_a_run_of_the_same_arm_and_seed_is_replaced(tmp_path):
    for score in (0.2, 0.6):
        made("mine", "null", metrics={"accuracy": score}).save(tmp_path)
    assert Run.load(tmp_path).metrics == {"accuracy": 0.6}


# ---- time ----
def ended(step, runtime, rate):
    return {"step": step, "train_runtime": runtime, "train_steps_per_second": rate}


@pytest.mark.parametrize(
    ("history", "expected"),
    [
        ([{"step": 5, "loss": 1.0}], None),
        ([ended(40, 8.0, 5.0)], (8.0, 0.0, 40, 40)),
        # 100 steps, of which this call made 40 in 8 s with an evaluation of 2 s; that at step 60 was before it
        (
            [{"step": 60, "eval_runtime": 3.0}, {"step": 80, "eval_x_runtime": 2.0}, ended(100, 8.0, 5.0)],
            (6.0, 2.0, 40, 100),
        ),
        # two calls, the second a continuation, and an evaluation after all
        ([ended(40, 8.0, 5.0), ended(60, 4.0, 5.0), {"step": 60, "eval_runtime": 9.0}], (12.0, 0.0, 60, 60)),
        ([ended(3, 3000.0, 0.001)], (3000.0, 0.0, 3, 3)),  # a rate that is rounded to 0.001
    ],
)
def test_time_is_what_the_log_has_of_training_alone(history, expected):
    found = training_time(history)
    values = None if found is None else (found.seconds, found.evaluation, found.steps, found.all_steps)
    assert values == expected and (found is None or found.is_whole == (found.steps == found.all_steps))


def test_a_resumed_run_says_which_part_of_it_was_timed(tmp_path):
    arguments = tiny.arguments(
        tmp_path / "out", cls=TrainingArguments, max_steps=4, save_strategy="steps", save_steps=3
    )
    train = data(CLASSES)
    Trainer(Net(), arguments, train_dataset=train).train()
    trainer = Trainer(Net(), arguments, train_dataset=train)
    trainer.train(resume_from_checkpoint=str(tmp_path / "out" / "checkpoint-3"))
    run = save_run(trainer, train, tmp_path / "run", "mine", "baseline")
    runtime = next(entry["train_runtime"] for entry in run.history if "train_runtime" in entry)
    assert run.seconds == runtime and (training_time(run.history).steps, training_time(run.history).all_steps) == (
        1,
        4,
    )


# ---- in a line ----
def test_runs_samples_and_reports_are_shown_in_a_line(tmp_path):
    run = made("mine", "null", 3, {"accuracy": 0.5, "f1": 0.25, "map": 0.125, "top5": 1.0, "num_unlabelled": 7})
    assert repr(run) == "Run('mine', 'null', seed 3: accuracy 0.5000, f1 0.2500, map 0.1250, ..., 24 test samples)"
    z_ND = np.zeros((24, 5))
    assert repr(Samples(run.labels, z_ND, z_ND)) == "Samples(24 samples, latents (24, 5), targets (24, 5))"
    found = report([made("plain", "baseline"), made("mine", "colearned")], tmp_path, methods=())
    assert repr(found) == f"Report('{tmp_path / 'report.html'}'): One seed, so no claim: +0.00 pp over the baseline."
    assert all(len(repr(section)) < 90 for section in found.sections)


# ---- the page ----
def test_a_page_has_no_empty_section_and_times_of_the_log(tmp_path):
    runs = []
    for seed in (0, 1):
        logs = [{"step": s, "epoch": s / 4, "loss": 1 / s} for s in range(1, 9)]
        half = [{"step": 8, "eval_loss": 1.0, "eval_runtime": 1.0}, ended(8, 5.0, 1.6)]
        runs += [made("plain", "baseline", seed, history=[*logs, *half], problem_type="single_label_classification")]
        resumed = ended(16, 4.0, 2.0)  # 8 of 16 steps
        runs += [made("taught", "colearned", seed, {"accuracy": 0.6, "undefined": float("nan")}, [*logs, resumed])]
    found = report(runs, tmp_path, methods=())
    page, text = (tmp_path / "report.html").read_text(), (tmp_path / "report.md").read_text()
    for told in (page.split("</style>")[1], text):
        assert "How to repeat it" not in told and str(tmp_path) not in told
        assert "None" not in told and "nan" not in told and "undefined" not in told
    json.loads((tmp_path / "report.json").read_text(), parse_constant=lambda word: pytest.fail(word))
    cost = next(section for section in found.sections if section.name == "cost")
    assert cost.tables[0].header == ["arm", "time [s]", "time / baseline", "parameters", "accuracy [%]"]
    assert [row[1:3] for row in cost.tables[0].rows] == [
        ["4.0", "1.00"],
        ["4.0", "-"],
    ]  # 5 s less an evaluation of 1 s
    assert cost.notes == ["'taught' was resumed: its time is that of 8 of 16, 8 of 16 steps, and no ratio is told."]
    latents = next(section for section in found.sections if section.name == "latents")
    assert "return no 'latents'" in latents.lead and not latents.tables


def test_a_level_that_all_arms_have_is_in_the_subtitle_and_not_in_their_names(tmp_path):
    sweep = {"variable": "labels a class", "level": 5}
    kinds = {"plain": "baseline", "taught": "colearned"}
    runs = [made(f"{arm}, 5 labels a class", kind, s, sweep=sweep) for s in (0, 1) for arm, kind in kinds.items()]
    found = report([*runs, *(made("oracle", "reference", s) for s in (0, 1))], tmp_path, methods=())
    assert [arm.name for arm in found.comparison.arms] == ["plain", "taught", "oracle"]
    assert (
        '<p class="soft">5 labels a class; 24 test samples; 3 arms, seeds 0, 1</p>'
        in (tmp_path / "report.html").read_text()
    )
    assert found.summary.startswith("5 labels a class, 24 test samples")
    assert "sweep" not in [section.name for section in found.sections]  # of a single level
    assert json.loads((tmp_path / "report.json").read_text())["runs"][0]["arm"] == "plain, 5 labels a class"


def test_losses_that_are_measured_otherwise_have_an_axis_each_and_all_figures_one_x_axis(tmp_path):
    objectives = {"squared": "LatentMatching(loss='mse', reduction='mean')"}
    objectives |= {"cosine": "LatentMatching(loss='cosine', reduction='mean')"}
    logs = [
        {"step": s, "epoch": s / 4, "loss": 1.0, "loss_task": 1.0, "loss_latent": 2.0, "alpha": 0.5} for s in (4, 8)
    ]
    teacher = {"scaling": {"how": "standardized"}}
    runs = [made("plain", "baseline", history=[{"step": 40, "epoch": 9.0, "loss": 1.0}])]
    runs += [made(arm, "colearned", history=logs, objective=how, teacher=teacher) for arm, how in objectives.items()]
    found = report(runs, tmp_path, methods=())
    training = next(section for section in found.sections if section.name == "training")
    axes = {picture.name: picture.figure.axes[0] for picture in training.pictures}
    assert list(axes) == ["loss_task", "loss_latent", "loss_latent_2", "alpha"]
    assert axes["loss_latent"].get_ylabel() == "mean squared error [standardized latents]"
    assert axes["loss_latent_2"].get_ylabel() == "1 - cosine of latents and targets"
    assert {axis.get_xlabel() for axis in axes.values()} == {"optimizer step"}
    assert all(axis.get_xlim() == pytest.approx((-0.8, 40.8)) for axis in axes.values())


def test_chosen_arms_are_those_of_the_tables_of_classes_and_all_are_compared(tmp_path):
    scores = {
        "plain": ("baseline", 0.5),
        "weak": ("colearned", 0.6),
        "strong": ("colearned", 0.7),
        "noise": ("null", 0.5),
    }
    runs = [made(arm, kind, s, {"accuracy": score + s / 100}) for s in (0, 1) for arm, (kind, score) in scores.items()]
    headers = []
    for chosen in (None, ["weak", "plain"]):
        found = report(runs, tmp_path, methods=(), arms=chosen)
        assert [row[0] for row in found.sections[0].tables[0].rows] == list(scores)
        headers.append(next(s for s in found.sections if s.name == "fairness").tables[1].header[3:])
    assert headers[0] == ["strong [%]", "change [pp]", "noise [%]", "change [pp]"]  # the best of each kind
    assert headers[1] == ["arm [%]", "change [pp]"]


def test_too_few_samples_for_the_bins_of_calibration_are_told_once(tmp_path):
    labels, few = np.array(CLASSES[:12]), Samples(np.array(CLASSES[:12]))
    arms = [made("plain", "baseline"), made("taught", "colearned"), made("noise", "null")]
    changes = {"labels": labels, "predictions": labels, "confidences": np.full(12, 0.5), "test": few}
    found = report([replace(run, **changes) for run in arms], tmp_path, methods=())
    notes = next(section for section in found.sections if section.name == "fairness").notes
    told = [note for note in notes if "alibration" in note]
    assert told == ["No calibration: its 15 bins need as many test samples, and there are 12."]


def test_any_class_names_are_told_apart_and_drawn(tmp_path, recwarn):
    names = ["<script>alert(1)</script>", "US$ and C$ \N{FOX FACE}", "crane", "crane", "x" * 60, "a\nb", "", "\u732b"]
    labels = np.arange(80) % 8
    runs = []
    for arm, kind in (("plain", "baseline"), ("taught $x", "colearned")):
        z_ND = np.random.default_rng(len(arm)).normal(size=(80, 3)) + labels[:, None]
        runs.append(made(arm, kind, class_names=names))
        runs[-1].labels = runs[-1].predictions = labels
        runs[-1].test = Samples(labels, z_ND)
    found = report(runs, tmp_path, methods=("pca",))
    page = (tmp_path / "report.html").read_text()
    assert "<script" not in page and "&lt;script&gt;" in page
    fairness = next(section for section in found.sections if section.name == "fairness")
    rows = [row[0] for row in fairness.tables[-1].rows]
    assert sorted(rows) == sorted(
        [names[0], names[1], "crane (2)", "crane (3)", "x" * 39 + "…", "a b", "(6)", "\u732b"]
    )  # fmt: skip
    assert not [warning for warning in recwarn if "Glyph" in str(warning.message)]
    assert not [note for section in found.sections for note in section.notes if "No picture" in note]
    assert "Figures spell the characters of 'US$ and C$ \N{FOX FACE}'" in found.sections[0].notes[0]
    drawn = next(section for section in found.sections if section.name == "latents").pictures[0].figure
    assert "US\\$ and C\\$ fox face" in [text.get_text() for text in drawn.legends[0].texts]


def test_arms_of_any_script_have_a_folder_each():
    names = ["text teacher", "\u732b", "\u72ac", "\N{FOX FACE}", "\N{CAT FACE}", ".."]
    folders = [run_folder("runs", name, 0) for name in names]
    assert folders[0] == Path("runs/text-teacher/seed-0") and len(set(folders)) == len(names)
    assert all(folder.parent.parent == Path("runs") for folder in folders)


def test_classes_that_nobody_has_named_are_no_other_classes(tmp_path):
    names = (["cat", "dog", "emu"], ["LABEL_0", "LABEL_1", "LABEL_2"], ["0", "1", "2"])
    arms = (("plain", "baseline"), ("taught", "colearned"), ("noise", "null"))
    runs = [made(*arm, class_names=of_arm) for arm, of_arm in zip(arms, names, strict=True)]
    assert report(runs, tmp_path, methods=()).comparison is not None
