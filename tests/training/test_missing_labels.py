"""Samples without a label or a target through the trainer: data sets, evaluation, problem types, sampling, augmentation."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from datasets import Dataset, List, Value
from transformers.modeling_outputs import ModelOutput

import tiny
from hf_colearn import (
    CoLearningForFeatureClassification,
    CoLearningTrainer,
    ConstantAlpha,
    Paired,
    PairedFraction,
    TeacherBank,
    with_sample_ids,
)
from hf_colearn.data.augmentation import ImageAugmentation
from hf_colearn.data.labels import labelled_rows
from hf_colearn.models.configuration import FeatureBackboneConfig
from hf_colearn.training.sampler import LabelledSampler


RNG = np.random.default_rng(0)
FEATURES = RNG.normal(size=(32, 6)).astype(np.float32)


def features(labels, feature=None):
    data = with_sample_ids(Dataset.from_dict({"features": FEATURES[: len(labels)], "labels": labels}))
    return data if feature is None else data.cast_column("labels", feature)


def student(num_labels=3, **kwargs):
    torch.manual_seed(0)
    return CoLearningForFeatureClassification.from_backbone(
        FeatureBackboneConfig(6, [8]), latent_dim=4, num_labels=num_labels, **kwargs
    )


def trainer(labels, model=None, teacher=True, **kwargs):
    names = ("eval_dataset", "alpha", "augment", "callbacks")
    ours = {name: kwargs.pop(name) for name in names if name in kwargs}
    if teacher:
        latents = np.random.default_rng(1).normal(size=(len(labels), 4))
        ours |= {"bank": TeacherBank.from_latents(latents)}
    data = labels if isinstance(labels, Dataset) else features(labels)
    return CoLearningTrainer(model or student(), tiny.arguments(**kwargs), train_dataset=data, **ours)


def first_task_loss(run):
    run.train()
    return run.state.log_history[0]["loss_task"]


# ---- what no label is ----
ONE_STEP = {"max_steps": 1, "per_device_train_batch_size": 32, "learning_rate": 0.0}


def logits_of(model, rows):
    with torch.no_grad():
        return model(features=torch.from_numpy(FEATURES[rows])).logits


@pytest.mark.parametrize("style", [None, "torch", "numpy"])
@pytest.mark.parametrize("missing", [None, -100])
def test_classes_may_be_missing(missing, style):
    labels = [i % 3 if i < 5 else missing for i in range(32)]
    run = trainer(features(labels).with_format(style), **ONE_STEP)
    expected = F.cross_entropy(logits_of(student(), range(5)), torch.tensor(labels[:5]))
    assert first_task_loss(run) == pytest.approx(expected.item(), rel=1e-5)
    assert run.model.config.problem_type == "single_label_classification"


@pytest.mark.parametrize("missing", [None, math.nan, -100.0])
def test_several_labels_may_be_missing_one_by_one_and_are_no_softmax(missing):
    labels = [[1.0, 0.0, missing], [missing, 1.0, 1.0], [missing] * 3] + [None] * 29
    if missing is not None:
        labels[3:] = [[missing] * 3] * 29
    run = trainer(features(labels, List(Value("float32"))), **ONE_STEP)
    p = logits_of(student(), range(2)).sigmoid().numpy()
    expected = -np.log([p[0, 0], 1 - p[0, 1], p[1, 1], p[1, 2]]).mean()
    assert first_task_loss(run) == pytest.approx(expected, rel=1e-5)
    assert run.model.config.problem_type == "multi_label_classification"


@pytest.mark.parametrize("missing", [None, math.nan])
@pytest.mark.parametrize("number", [float, int])
def test_targets_of_a_regression_may_be_missing(missing, number):
    if number is int and missing is not None:
        pytest.skip("a column of integers holds no NaN")
    labels = [missing, number(-100), *[missing] * 29, number(2)]  # -100 is a number here
    run = trainer(labels, student(1), **ONE_STEP)
    outputs = logits_of(student(1), [1, 31])[:, 0].numpy()
    expected = np.mean((outputs - [-100, 2]) ** 2)
    assert first_task_loss(run) == pytest.approx(expected, rel=1e-5)
    assert run.model.config.problem_type == "regression"


@pytest.mark.parametrize(
    ("labels", "num_labels", "problem", "message"),
    [
        (
            [[1.0, 0.5]],
            2,
            None,
            "2 labels in column 'labels' are none that problem_type='multi_label_classification' takes",
        ),
        ([[1.0, 0.5]], 2, None, "such as 0.5: it takes 0, 1, and -100 or NaN for none"),
        ([[1.0, 0.0]], 3, None, "are 2 a sample, and the student has num_labels=3"),
        ([math.inf], 1, None, "none that problem_type='regression' takes, such as inf"),
        ([[1.0, 2.0]], 1, "regression", "are 2 a sample, and the student has num_labels=1"),
        (
            [-100],
            3,
            None,
            "none of the 2 samples has a label in column 'labels', and the task's loss has a weight of 0.5",
        ),
        ([None], 3, None, "none of the 2 samples has a label"),
    ],
)
def test_labels_that_do_not_fit_are_refused_before_training(labels, num_labels, problem, message):
    data = features(labels * 2) if labels[0] is not None else features(labels * 2, Value("int64"))
    with pytest.raises(ValueError, match=message):
        trainer(data, student(num_labels, problem_type=problem)).train()


def test_pairs_alone_are_enough_where_alpha_is_one():
    unlabelled = features([None] * 32, Value("int64"))
    runs = [
        trainer(data, alpha=ConstantAlpha(1.0), max_steps=6, learning_rate=0.05)
        for data in (unlabelled, unlabelled.remove_columns("labels"))
    ]
    for run in runs:
        run.train()
        latent = [entry["loss_latent"] for entry in run.state.log_history if "loss_latent" in entry]
        assert latent[-1] < latent[0] and run.state.log_history[0]["loss_task"] == 0
    for one, other in zip(*(run.model.parameters() for run in runs), strict=True):
        assert torch.equal(one, other)
    with pytest.raises(ValueError, match="returns no `loss`"):
        trainer(unlabelled.remove_columns("labels"), alpha=ConstantAlpha(0.9)).train()


# ---- evaluation ----
def test_evaluation_leaves_out_what_has_no_label_and_prediction_keeps_it(caplog):
    labels = [i % 3 if i < 20 else -100 for i in range(32)]
    run = trainer([0, 1, 2] * 4, eval_dataset=features(labels), per_device_eval_batch_size=8, max_steps=1)
    run.train()
    expected = F.cross_entropy(logits_of(run.model.eval(), range(20)), torch.tensor(labels[:20]))
    assert run.evaluate()["eval_loss"] == pytest.approx(expected.item(), rel=1e-5)
    assert run.predict(features(labels)).predictions.shape == (32, 3)
    run.eval_dataset = features([-100] * 4)
    with pytest.raises(ValueError, match="none of the 4 samples of the evaluation set has a label"):
        run.train()


# ---- two streams ----
def drawn(is_labelled, epoch=0, batch=8, labelled=2, seed=0):
    sampler = LabelledSampler(np.array(is_labelled), batch, labelled, seed, torch.tensor(epoch))
    order = np.array(list(sampler))
    assert len(order) == len(sampler)
    return order.reshape(-1, batch)


def test_every_batch_has_so_many_labelled_samples_and_an_epoch_is_a_pass_over_the_longer_stream():
    is_labelled = np.arange(35) < 5
    batches = drawn(is_labelled)  # 30 unlabelled samples, 6 a batch: 5 batches; 10 labelled ones of 5
    assert batches.shape == (5, 8)
    assert (is_labelled[batches].sum(axis=1) == 2).all()
    assert sorted(batches[~is_labelled[batches]]) == list(range(5, 35))
    assert np.bincount(batches[is_labelled[batches]]).tolist() == [2] * 5
    assert not (is_labelled[batches].argmax(axis=1) == 0).all()  # not always the first of its batch
    assert not np.array_equal(batches, drawn(is_labelled, epoch=1))
    assert np.array_equal(batches, drawn(is_labelled))
    # 40 labelled, 2 unlabelled: 20 batches of the labelled stream, and the unlabelled one as often as it takes.
    assert drawn(np.arange(42) < 40).shape == (20, 8)


class Seen(CoLearningTrainer):
    def compute_loss(self, model, inputs, *args, **kwargs):
        if model.training:
            self.seen = [*getattr(self, "seen", []), inputs["sample_ids"].tolist()]
        return super().compute_loss(model, inputs, *args, **kwargs)


def seen(folder, resume=None, **kwargs):
    data = features([i % 3 if i < 6 else -100 for i in range(32)])
    bank = TeacherBank.from_latents(np.random.default_rng(1).normal(size=(32, 4)))
    options = {"labelled_per_batch": 2, "save_strategy": "steps", "save_steps": 3, "max_steps": 8, **kwargs}
    run = Seen(student(), tiny.arguments(folder, **options), train_dataset=data, bank=bank)
    run.train(resume_from_checkpoint=resume)
    return run


def test_the_trainer_draws_two_streams_and_a_resumed_run_goes_on_with_them(tmp_path):
    whole = seen(tmp_path)
    assert len(whole.seen) == 8 and all(sum(i < 6 for i in batch) == 2 for batch in whole.seen)
    unlabelled = [
        i for batch in whole.seen[:5] for i in batch if i >= 6
    ]  # 26 of them, 6 a batch: an epoch is 5 batches
    assert set(unlabelled) == set(range(6, 32))
    assert whole.seen[5:8] != whole.seen[:3]  # another order in the second epoch
    resumed = seen(tmp_path, resume=str(tmp_path / "checkpoint-6"))
    assert resumed.seen == whole.seen[6:]
    for one, other in zip(whole.model.parameters(), resumed.model.parameters(), strict=True):
        assert torch.equal(one, other)


def test_two_streams_need_labelled_and_unlabelled_samples():
    for labels, message in (([0, 1, 2] * 4, "12 of 12 have a label"), ([None] * 12, "0 of 12 have a label")):
        data = features(labels, Value("int64"))
        with pytest.raises(ValueError, match=message):
            trainer(data, labelled_per_batch=2, alpha=ConstantAlpha(1.0)).train()
    for count in (0, 8, 2.5):
        with pytest.raises(ValueError, match=f"labelled_per_batch={count}"):
            tiny.arguments(labelled_per_batch=count)


# ---- augmentation ----
class TwoRows:
    """Twice the rows: the second time without labels, as a strong view."""

    needs_sample_ids = True

    def __call__(self, batch):
        size = len(batch["labels"])
        doubled = {name: torch.cat([value, value]) for name, value in batch.items()}
        doubled["labels"][size:] = -100
        doubled["views"] = torch.arange(2).repeat_interleave(size)
        return doubled


class Views:
    terms = ("views",)

    def __call__(self, outputs, batch):
        self.batch = batch
        return {"views": outputs["logits"][batch.views == 1].square().mean()}


def test_an_augmentation_may_make_several_views_of_a_sample():
    objective = Views()
    run = CoLearningTrainer(
        student(), tiny.arguments(max_steps=1), train_dataset=features([0, 1, 2, -100] * 4), augment=TwoRows(),
        objective=objective,
    )  # fmt: skip
    run.train()
    batch = objective.batch
    assert batch.views.tolist() == [0] * 8 + [1] * 8
    assert batch.sample_ids[:8].tolist() == batch.sample_ids[8:].tolist()
    assert batch.labelled.sum() == batch.step_counts["labelled"]


def test_mixup_with_missing_labels_is_a_mean_over_the_mixed_samples_that_have_one():
    digits = tiny.digits(8).with_format("numpy")
    labels = digits["labels"][:].tolist()[:6] + [-100, -100]  # the first two are mixed with the last two
    data = digits.remove_columns("labels").add_column("labels", labels).with_format("torch")
    mixing = ImageAugmentation(10, [0.0], [1.0], magnitude=0, erasing=0, cutmix=0, mixup=1.0, label_smoothing=0)
    found = []
    for accumulation in (1, 4):
        run = CoLearningTrainer(
            tiny.student(), tiny.arguments(max_steps=1, per_device_train_batch_size=8 // accumulation,
            gradient_accumulation_steps=accumulation, optim="sgd", train_sampling_strategy="sequential"),
            train_dataset=data, augment=mixing, bank=tiny.bank(8), pairing=PairedFraction(Paired(), 0.5),
        )  # fmt: skip
        run.train()
        assert all(weight.isfinite().all() for weight in run.model.parameters())
        found.append(run.state.log_history[0]["loss_task"])
    assert all(1 < loss < 5 for loss in found)


def test_a_resumed_run_augments_as_the_uninterrupted_one(tmp_path):
    def run(resume=None):
        options = {"save_strategy": "steps", "save_steps": 2, "max_steps": 4, "gradient_accumulation_steps": 2}
        made = CoLearningTrainer(
            tiny.student(), tiny.arguments(tmp_path, **options), train_dataset=tiny.digits(64), bank=tiny.bank(),
            pairing=tiny.random_prompt(), augment=lambda batch: {**batch, "pixel_values": batch["pixel_values"]
            + torch.randn(())},
        )  # fmt: skip
        made.train(resume_from_checkpoint=resume)
        return made.model

    whole, resumed = run(), run(str(tmp_path / "checkpoint-2"))
    for one, other in zip(whole.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(one, other)


# ---- labels of other models ----
class TokenClassifier(torch.nn.Module):
    """A model of a user's own, with a label a token."""

    def __init__(self):
        super().__init__()
        self.embedding, self.classifier = torch.nn.Embedding(9, 4), torch.nn.Linear(4, 3)

    def forward(self, input_ids, labels=None):
        latents_BTD = self.embedding(input_ids)
        logits_BTC = self.classifier(latents_BTD)
        loss = None if labels is None else F.cross_entropy(logits_BTC.flatten(0, 1), labels.flatten())
        return ModelOutput(loss=loss, logits=logits_BTC, latents=latents_BTD.mean(1))


@pytest.mark.parametrize("teacher", [False, True])
def test_labels_a_token_of_any_length_train_another_model(teacher):
    data = with_sample_ids(Dataset.from_dict({"input_ids": [[1, 2, 3], [4]] * 8, "labels": [[0, 1, 2], [2]] * 8}))

    def padded(samples):
        def column(name, filler):
            return torch.tensor([list(sample[name]) + [filler] * (3 - len(sample[name])) for sample in samples])

        return {"input_ids": column("input_ids", 0), "labels": column("labels", -100)}

    kwargs = {"bank": TeacherBank.from_latents(np.random.default_rng(0).normal(size=(16, 4)))} if teacher else {}
    run = CoLearningTrainer(
        TokenClassifier(), tiny.arguments(max_steps=2), train_dataset=data, data_collator=padded, **kwargs
    )
    run.train()
    assert run.state.global_step == 2


def test_a_list_of_whatever_length_has_a_label_where_one_entry_is_known():
    labels = [[0, -100], [-100], [], None, [None, 1], [None]]
    data = Dataset.from_dict({"labels": labels})
    assert labelled_rows(data, "labels").tolist() == [True, False, False, False, True, False]
    assert labelled_rows(Dataset.from_dict({"labels": [[[0], [-100]], [[-100]]]}), "labels").tolist() == [True, False]
    assert labelled_rows(Dataset.from_dict({"labels": ["a", None]}), "labels").tolist() == [True, False]
