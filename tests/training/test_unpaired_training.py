"""Training on unpaired data: the loss over a step's tasks, accumulation, epochs, evaluation, teachers, and what is refused."""

import numpy as np
import pytest
import torch
from transformers import default_data_collator

import tiny
from hf_colearn import (
    OGM,
    CoLearningForFeatureClassification,
    CoLearningForManyTasks,
    CoLearningTrainer,
    FeatureBackboneConfig,
    LearnedAlpha,
    Paired,
    TeacherBank,
    UnpairedBatches,
    classification_metrics,
)
from hf_colearn.teachers.where_paired import WherePaired
from mechanism_cases import copied, difference
from refusals import Refusals, assert_refused
from tiny_tasks import CLASSES, LATENT, SHAPES, SIZES, STEMS, TRUNK, data, losses, model, task_data, trainer


refusals = Refusals()
case = refusals.case


@pytest.mark.parametrize(Refusals.NAMES, refusals.cases)
def test_it_is_refused_before_anything_is_trained_or_written(situation, error, texts, tmp_path):
    assert_refused(situation, error, texts, tmp_path)


def first(name, count, unlabelled=()):
    return task_data(name, unlabelled).select(range(count))


def loss_of(of_model, name, rows):
    """The model's own loss of some samples of a task, times the task's weight."""
    rows = [{**row, "labels": -100 if row["labels"] is None else row["labels"]} for row in rows]
    column, _ = SHAPES[name]
    inputs = {column: torch.tensor([row[column] for row in rows])}
    return of_model(task=name, labels=torch.tensor([row["labels"] for row in rows]), **inputs).loss


# ---- the loss ----
def test_a_step_of_several_tasks_is_the_weighted_sum_of_their_means(tmp_path):
    # Four samples of each in two micro-batches of one step: L = mean of 4 digits + .5 (mean of the 3 spoken ones with a label).
    parts = {"digits": first("digits", 4), "spoken": first("spoken", 4, unlabelled=[1])}
    train = UnpairedBatches(parts, {"digits": 1, "spoken": 1}, every="micro_batch")
    run = trainer(tmp_path, train, model(spoken=0.5), gradient_accumulation_steps=2)
    assert run.train().global_step == 1
    # The same by hand: one step of SGD at a rate of .1 on the sum.
    expected = model(spoken=0.5).train()
    total = sum(loss_of(expected, name, part) for name, part in parts.items())
    total.backward()
    with torch.no_grad():
        for weight in expected.parameters():
            if weight.grad is not None:
                weight -= 0.1 * weight.grad
    assert difference(copied(run.model), copied(expected)) < 1e-6
    assert losses(run)[0]["loss"] == pytest.approx(total.item(), abs=1e-5)


@pytest.mark.parametrize("unlabelled", [(), (0, 3, 4)], ids=["all labelled", "some labelled"])
def test_eight_accumulated_batches_of_one_are_one_of_eight(tmp_path, unlabelled):
    whole, pieces = (
        trainer(
            tmp_path, data(unlabelled=unlabelled), per_device_train_batch_size=size, gradient_accumulation_steps=count
        )
        for size, count in ((8, 1), (1, 8))
    )
    whole.train(), pieces.train()
    # 12, 8 and 4 samples are 2, 1 and 1 steps of 8. Wine has a sixth of the steps, so that there are 6: 3, 2 and 1.
    assert len(losses(whole)) == 6
    for one, other in zip(losses(whole), losses(pieces), strict=True):
        assert other == pytest.approx(one, abs=1e-5)
    assert difference(copied(whole.model), copied(pieces.model)) < 1e-6


def test_the_logs_have_every_tasks_mean_over_its_labels(tmp_path):
    # With a learning rate of 0 the mean over an epoch's batches is the model's loss of all samples, 10 of 12 labelled ones.
    run = trainer(tmp_path, data(unlabelled=(0, 1)), model(spoken=0.5), learning_rate=0.0, logging_steps=6)
    run.train()
    (logged,) = losses(run)
    expected = {name: loss_of(run.model, name, task_data(name, (0, 1))).item() for name in SIZES}
    assert {name: logged[f"loss_{name}"] for name in SIZES} == pytest.approx(expected, abs=1e-5)


def teacher():
    """Of the digits alone, which have the ids 0 to 11."""
    bank = TeacherBank.from_latents(np.random.default_rng(0).normal(size=(SIZES["digits"], LATENT)).astype(np.float32))
    ids = np.arange(sum(SIZES.values()))
    return {"bank": bank, "pairing": WherePaired(Paired(np.where(ids < 12, ids, 0)), ids < 12)}


def test_a_teacher_of_one_task_gives_the_others_no_target(tmp_path):
    run = trainer(tmp_path, of_model=model(), **teacher(), alpha=None, learning_rate=0.0, logging_steps=6)
    run.train()
    (logged,) = losses(run)
    # The task's loss is the mean over all 24 labels of an epoch, the term's over the 12 digits.
    by_task = {name: loss_of(run.model, name, task_data(name)).item() for name in SIZES}
    assert logged["loss_task"] == pytest.approx(sum(SIZES[n] * by_task[n] for n in SIZES) / 24, abs=1e-5)
    column, _ = SHAPES["digits"]
    latents = run.model(task="digits", image_pixel_values=torch.tensor(task_data("digits")[column])).latents
    targets = run.teachers["teacher"].targets(np.arange(12), 0, 0)
    expected = ((latents - targets) ** 2).mean().item()
    assert logged["loss_latent"] == pytest.approx(expected, abs=1e-5)


# ---- epochs ----
@pytest.mark.parametrize(("fields", "steps", "epochs"), [({"num_train_epochs": 2}, 12, 2), ({"max_steps": 9}, 9, 1.5)])
def test_epochs_and_steps_agree(tmp_path, fields, steps, epochs):
    # Of 12, 8 and 4 samples 3, 2 and 1 steps of 4: an epoch has 6.
    run = trainer(tmp_path, **fields)
    run.train()
    assert (run.state.global_step, run.state.epoch) == (steps, epochs)


def test_weights_of_tasks_that_are_not_drawn_stay_as_they_are(tmp_path):
    before = copied(model())
    run = trainer(tmp_path, data(("digits", "spoken")), optim="adamw_torch", weight_decay=0.1, learning_rate=0.01)
    run.train()
    moved = {name for name, weight in copied(run.model).items() if not torch.equal(weight, before[name])}
    assert not {name for name in moved if name.startswith(("stems.wine", "heads.wine"))}
    assert moved >= {"stems.image.modality_H", "stems.speech.modality_H", "heads.digits.classifier.weight"}


# ---- evaluation ----
def test_every_task_is_evaluated_by_its_name(tmp_path):
    tests = {name: task_data(name, unlabelled=(1,)) for name in SIZES}
    run = trainer(
        tmp_path,
        eval_dataset=UnpairedBatches.evaluation(tests),
        compute_metrics=classification_metrics(("accuracy",)),
        eval_strategy="epoch",
    )
    run.train()
    logged = next(entry for entry in run.state.log_history if "eval_wine_accuracy" in entry)
    predicted = run.predict(UnpairedBatches({"wine": tests["wine"]}))
    assert predicted.predictions.shape == (4, 2)
    assert predicted.metrics["test_accuracy"] == logged["eval_wine_accuracy"]
    assert logged["eval_wine_loss"] == pytest.approx(loss_of(run.model, "wine", tests["wine"]).item(), abs=1e-5)
    assert any("eval_digits_accuracy" in entry for entry in run.state.log_history)


# ---- what is refused ----
def features(folder, train=None, **kwargs):
    student = CoLearningForFeatureClassification.from_backbone(
        FeatureBackboneConfig(feature_dim=5), latent_dim=4, num_labels=2
    )
    return CoLearningTrainer(
        student,
        tiny.arguments(folder / "out", max_steps=1),
        train_dataset=data() if train is None else train,
        **kwargs,
    )


def of_both(folder, lacking):
    """A task of pictures and sounds, of which some sounds are missing."""
    torch.manual_seed(0)
    task = {"both": {"modalities": ["image", "speech"], "num_labels": CLASSES}}
    stems = {name: STEMS[name] for name in ("image", "speech")}
    sounds = task_data("spoken")["speech_pixel_values"][:]
    columns = (
        task_data("digits")
        .select(range(8))
        .add_column("speech_pixel_values", [None if row in lacking else sound for row, sound in enumerate(sounds)])
    )
    two = CoLearningForManyTasks.from_stems(stems, task, TRUNK, LATENT)
    return trainer(folder, UnpairedBatches({"both": columns}), two)


def test_a_task_of_several_modalities_is_trained(tmp_path):
    run = of_both(tmp_path, lacking=())
    assert run.train().global_step == 2  # 8 samples
    assert "loss_both" in run.state.log_history[0]


@case(ValueError, "of the task 'both': 2 of 8 samples lack one of image, speech", "a task of one modality")
def samples_without_one_of_the_tasks_modalities(folder):
    run = of_both(folder / "out", lacking=(1, 5))
    yield
    run.train()


def without_labels():
    return task_data("wine").map(lambda row: {"labels": -100})


def refused(error, *texts, name, **fields):
    """A case of a trainer of the tiny tasks with these fields, made of what the functions give."""

    def situation(folder):
        yield
        made = {
            key: value() if callable(value) and key != "compute_loss_func" else value for key, value in fields.items()
        }
        trainer(folder / "out", **made).train()

    situation.__name__ = name
    case(error, *texts)(situation)


@case(
    ValueError, "tasks 'digits', 'spoken', 'wine'", "CoLearningForFeatureClassification has no task", "data.datasets["
)
def unpaired_data_for_a_student(folder):
    run = features(folder)
    yield
    run.train()


@case(ValueError, "the evaluation set is of the tasks 'wine'", "has no task")
def unpaired_evaluation_of_a_student(folder):
    run = features(
        folder,
        task_data("wine").rename_column("wine_features", "features"),
        eval_dataset=UnpairedBatches.evaluation({"wine": task_data("wine")}),
    )
    yield
    run.train()


refused(ValueError, "is a Dataset", "'digits', 'spoken', 'wine'", "UnpairedBatches({'task': dataset})",
        name="one_data_set_for_many_tasks", train=lambda: task_data("digits"))  # fmt: skip
refused(ValueError, "evaluation set is a Dataset", "UnpairedBatches.evaluation(",
        name="one_evaluation_set_for_many_tasks", eval_dataset=lambda: task_data("digits"))  # fmt: skip
refused(ValueError, "are measured one by one", "UnpairedBatches.evaluation(",
        name="an_evaluation_set_of_all_tasks", eval_dataset=data)  # fmt: skip
refused(ValueError, "'heard'", "the model has 'digits', 'spoken', 'wine'",
        name="a_task_that_the_model_lacks", train=lambda: UnpairedBatches({"heard": task_data("spoken")}))  # fmt: skip
refused(ValueError, "of the task 'wine'", "such as 2", "num_labels=2",
        name="a_label_beyond_a_tasks_classes",
        train=lambda: UnpairedBatches({"wine": task_data("wine").map(lambda row: {"labels": 2})}))  # fmt: skip
refused(ValueError, "of the task 'spoken'", "'speech' has no column", "image_pixel_values",
        name="another_modalitys_columns", train=lambda: UnpairedBatches({"spoken": task_data("digits")}))  # fmt: skip
refused(ValueError, "the task 'wine' has a label", "train with an objective", name="a_task_without_labels",
        train=lambda: UnpairedBatches({"digits": task_data("digits"), "wine": without_labels()}))  # fmt: skip
refused(ValueError, "labelled_per_batch=2", "a task of the labelled samples",
        name="streams_of_labelled_samples", labelled_per_batch=2)  # fmt: skip
refused(ValueError, "train_sampling_strategy='sequential'", "leave it out",
        name="an_order_of_ones_own", train_sampling_strategy="sequential")  # fmt: skip
refused(ValueError, "dispatch_batches=True", "leave it out",
        name="batches_from_the_main_process", accelerator_config={"dispatch_batches": True})  # fmt: skip
refused(ValueError, "label_smoothing_factor=0.1", "leave it out", name="smoothed_labels", label_smoothing_factor=0.1)
refused(
    ValueError, "compute_loss_func", "leave it out", name="a_loss_of_ones_own", compute_loss_func=lambda *_, **__: 0
)
refused(
    TypeError,
    "LearnedAlpha",
    "UnpairedBatches",
    name="a_learned_alpha",
    alpha=lambda: LearnedAlpha("latent"),
    **teacher(),
)
refused(TypeError, "OGM", "CoLearningForMultimodalClassification", name="a_balance_method", balance=OGM)
refused(ValueError, "id_column='stamp'", "UnpairedBatches(..., id_column='stamp')",
        name="ids_of_another_column", id_column="stamp", **teacher())  # fmt: skip
refused(ValueError, "sample id 12", "12 rows",
        name="a_teacher_without_a_row_for_every_task", bank=teacher()["bank"], pairing=Paired)  # fmt: skip


@case(ValueError, "a batch has samples of the tasks digits, spoken", "UnpairedBatches.evaluation")
def a_prediction_of_several_tasks(folder):
    run = trainer(folder / "out")
    yield
    run.predict(data(("digits", "spoken")))


def test_a_collator_for_all_tasks_leaves_a_batch_its_task(tmp_path):
    run = trainer(tmp_path, data(("digits",)), data_collator=default_data_collator)
    batch = next(iter(run.get_train_dataloader()))
    assert batch["task"] == "digits"
    assert batch["image_pixel_values"].shape == (4, 1, 4, 4)
