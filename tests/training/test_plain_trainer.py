"""Without bank, objective, alpha and a model of ours, this is transformers' Trainer; and what it does not know of another
model it leaves alone where there is an objective, too."""

from functools import partial

import numpy as np
import pytest
import torch
from datasets import Dataset
from torch import nn
from transformers import BertConfig, GPT2Config, GPT2LMHeadModel, PreTrainedModel, Trainer, TrainingArguments
from transformers.modeling_outputs import ModelOutput

import tiny
from hf_colearn import CoLearningArguments, CoLearningTrainer, LatentMatching, regression_metrics


class OfUser(PreTrainedModel):
    """A model of the user's own, whose configuration has transformers' default of two labels."""

    config_class = BertConfig

    def __init__(self, loss, width=1):
        super().__init__(BertConfig())
        self.loss, self.layer, self.latent = loss, nn.Linear(4, width), nn.Linear(4, 24)
        self.seen = []
        self.post_init()

    def forward(self, x, labels=None, sample_id=None, views=None, teacher_latents=None, step=None, step_counts=None):
        columns = {"sample_id": sample_id, "views": views, "step": step, "step_counts": step_counts}
        self.seen.append({**columns, "teacher_latents": teacher_latents})
        logits = self.layer(x)
        loss = None if labels is None else self.loss(logits, labels)
        return ModelOutput(loss=loss, logits=logits, latents=self.latent(x))


class TupleOfUser(nn.Module):
    """No `PreTrainedModel`, and outputs without names."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 3)

    def forward(self, x, labels=None):
        logits = self.layer(x)
        return (logits,) if labels is None else (nn.functional.cross_entropy(logits, labels), logits, 2 * logits)


def numbers(logits, labels):
    return nn.functional.mse_loss(logits[:, 0], labels.float())


def counts(logits, labels):
    return nn.functional.poisson_nll_loss(logits[:, 0], labels.float())


def ignoring_minus_one(logits, labels):
    return nn.functional.cross_entropy(logits, labels, ignore_index=-1)


def table(labels, **columns):
    x = torch.randn(len(labels), 4, generator=torch.Generator().manual_seed(0))
    return Dataset.from_dict({"x": x.tolist(), "labels": labels, **columns}).with_format("torch")


def run(cls, model, data, resume=None, **kwargs):
    torch.manual_seed(0)
    fields = kwargs.pop("fields", {})
    arguments = CoLearningArguments if cls is CoLearningTrainer else TrainingArguments
    args = tiny.arguments(cls=arguments, **{"max_steps": 2, "per_device_train_batch_size": 4, **fields})
    trainer = cls(model(), args, train_dataset=data, eval_dataset=data, **kwargs)
    trainer.train(resume_from_checkpoint=resume)
    return trainer


def losses(trainer):
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


@pytest.mark.parametrize(
    ("loss", "width", "labels"),
    [
        (numbers, 1, [0.5, -2.25, 3.0, 1e3] * 2),
        (counts, 1, [0, 7, 250, 3] * 2),
        (ignoring_minus_one, 5, [-1, 4, 0, 3] * 2),
        (numbers, 1, [-100.0, 2.0, 5.0, 0.0] * 2),
    ],
)
def test_a_models_own_targets_are_its_own_affair(loss, width, labels):
    def model():
        return OfUser(loss, width)

    data = table(labels)
    ours, plain = run(CoLearningTrainer, model, data), run(Trainer, model, data)
    assert losses(ours) == pytest.approx(losses(plain), abs=0, nan_ok=True) and len(losses(ours)) == 2
    assert ours.evaluate()["eval_loss"] == pytest.approx(plain.evaluate()["eval_loss"], abs=0, nan_ok=True)
    teacher = {"bank": tiny.bank(8), "objective": LatentMatching()}
    run(CoLearningTrainer, model, table(labels, sample_id=list(range(8))), **teacher)


def test_what_a_models_forward_names_reaches_it():
    columns = {"sample_id": list(range(8)), "views": [[1, 2]] * 8, "step": [3] * 8, "step_counts": [4] * 8}
    data = table([0.0] * 8, **columns, teacher_latents=[[0.5]] * 8)

    def seen(cls, **kwargs):
        found = run(cls, lambda: OfUser(numbers), data, **kwargs).model.seen
        return [
            {name: value.tolist() for name, value in batch.items()} for batch in found if batch["views"] is not None
        ]

    plain = seen(Trainer)
    assert len(plain) == 2 and all(len(batch["sample_id"]) == 4 for batch in plain)
    assert seen(CoLearningTrainer) == plain
    with_teacher = seen(CoLearningTrainer, bank=tiny.bank(8))[-2:]  # before training a batch is looked at
    for batch, expected in zip(with_teacher, plain, strict=True):
        assert {name: batch[name] for name in columns} == {name: expected[name] for name in columns}


def test_outputs_named_latents_are_predicted_where_there_is_no_co_learning():
    data = table([0.0] * 8)
    ours, plain = (run(cls, lambda: OfUser(numbers), data).predict(data) for cls in (CoLearningTrainer, Trainer))
    logits, latents = ours.predictions
    assert logits.shape == (8, 1) and latents.shape == (8, 24)
    assert (latents == plain.predictions[1]).all()


def test_labels_that_a_users_collator_makes_are_what_it_makes_them():
    def collate(samples):
        marks = {"a": 0, "b": 1, None: -100}
        pixels = torch.stack([torch.as_tensor(sample["pixel_values"]) for sample in samples])
        return {"pixel_values": pixels, "labels": torch.tensor([marks[sample["labels"]] for sample in samples])}

    digits = tiny.digits(8).remove_columns("labels").add_column("labels", ["a", "b", "a", "b"] * 2)
    student = run(CoLearningTrainer, lambda: tiny.student(num_labels=2), digits, data_collator=collate)
    assert student.state.global_step == 2
    bad = digits.map(lambda row: {"labels": "c"})
    with pytest.raises(KeyError, match="c"):
        run(CoLearningTrainer, lambda: tiny.student(num_labels=2), bad, data_collator=collate)


@pytest.mark.parametrize("taught", [False, True])
def test_labels_of_a_form_that_the_model_alone_knows_train_and_are_saved(taught, tmp_path):
    def boxes(logits, labels):
        return 0 * logits.mean() + sum(label["boxes"].sum() for label in labels)

    def collate(samples):
        batch = {"x": torch.stack([sample["x"] for sample in samples])}
        stacked = [torch.stack([box["corner"] for box in sample["labels"]]) for sample in samples]
        return {**batch, "labels": [{"boxes": boxes} for boxes in stacked]}

    data = table([[{"corner": [1.0, 1.5], "class": 3}, {"corner": [0.0, 0.5], "class": 4}]] * 8)
    data, teacher = (data.add_column("sample_id", range(8)), {"bank": tiny.bank(8)}) if taught else (data, {})
    fields = {"output_dir": str(tmp_path), "save_strategy": "steps", "save_steps": 1}
    trained = run(CoLearningTrainer, lambda: OfUser(boxes), data, data_collator=collate, fields=fields, **teacher)
    loss = "loss_task" if taught else "loss"
    assert trained.state.log_history[0][loss] == 12  # 4 samples a batch, 1 + 1.5 + 0 + 0.5 each
    resumed = run(
        CoLearningTrainer, lambda: OfUser(boxes), data, data_collator=collate, resume=str(tmp_path / "checkpoint-1"),
        fields=fields, **teacher,
    )  # fmt: skip
    assert resumed.state.global_step == 2


def test_what_is_the_best_checkpoint_is_for_the_user_to_say():
    fields = {"metric_for_best_model": "negative_mse", "greater_is_better": True}
    trained = run(CoLearningTrainer, lambda: OfUser(numbers), table([1.0] * 8), fields=fields)
    assert trained.state.global_step == 2
    with pytest.raises(ValueError, match="better the lower it is"):
        run(
            CoLearningTrainer, lambda: tiny.student(num_labels=1), tiny.digits(8), compute_metrics=regression_metrics(),
            fields={"metric_for_best_model": "mse", "greater_is_better": True},
        )  # fmt: skip


@pytest.mark.parametrize("accumulated", [2, 3])
def test_a_stream_that_is_shorter_than_a_step_is_refused(accumulated, tmp_path):
    stream = table([0.0] * 4).to_iterable_dataset()
    fields = {"gradient_accumulation_steps": accumulated, "output_dir": str(tmp_path)}
    with pytest.raises(ValueError, match=f"has 1 batches, .*gradient_accumulation_steps={accumulated}.*repeat"):
        run(CoLearningTrainer, lambda: OfUser(numbers), stream, fields=fields)
    assert list(tmp_path.iterdir()) == []
    longer = run(CoLearningTrainer, lambda: OfUser(numbers), stream.repeat(accumulated), fields=fields)
    assert longer.state.global_step == 2


def three_classes(cls=OfUser):
    return TupleOfUser() if cls is TupleOfUser else OfUser(nn.functional.cross_entropy, 3)


def none_is_two(samples):
    labels = [2 if sample["labels"] is None else sample["labels"] for sample in samples]
    return {"x": torch.stack([torch.as_tensor(sample["x"]) for sample in samples]), "labels": torch.tensor(labels)}


def of_tuples(samples):
    return {"x": torch.stack([x for x, _ in samples]), "labels": torch.stack([label for _, label in samples])}


CLASSES = [0, 1, 2, 1, 0, 2, 2, 1]
TOKENS = Dataset.from_dict({"input_ids": [[5, 6, 7, 8]] * 8, "labels": [[5, -100, 7, 8], [-100, -100, -100, 8]] * 4})
VARIANTS = {
    "outputs without names": (partial(three_classes, TupleOfUser), lambda: table(CLASSES), {}, {}),
    "a list of samples": (three_classes, lambda: [dict(row) for row in table(CLASSES)], {}, {}),
    "samples that are tuples": (
        three_classes, lambda: [(row["x"], row["labels"]) for row in table(CLASSES)], {}, {"data_collator": of_tuples}
    ),
    "labels that a collator fills in": (
        three_classes, lambda: table([None, 1, 0, 1, 0, None, 0, 1]).with_format(None), {},
        {"data_collator": none_is_two},
    ),
    "a stream": (three_classes, lambda: table(CLASSES * 2).to_iterable_dataset(), {"gradient_accumulation_steps": 2}, {}),
    "labels a token": (
        lambda: GPT2LMHeadModel(GPT2Config(n_embd=8, n_layer=1, n_head=2, vocab_size=20, n_positions=8)),
        lambda: TOKENS, {"gradient_accumulation_steps": 2, "per_device_train_batch_size": 2}, {},
    ),
    "label smoothing": (three_classes, lambda: table(CLASSES), {"label_smoothing_factor": 0.2}, {}),
    "a loss of one's own": (
        three_classes, lambda: table(CLASSES), {"gradient_accumulation_steps": 2, "per_device_train_batch_size": 2},
        {"compute_loss_func": lambda outputs, labels, num_items_in_batch=None: numbers(outputs["logits"], labels) / 3},
    ),
    "columns that nobody names": (
        three_classes, lambda: table(CLASSES, sample_id=list(range(8))), {"remove_unused_columns": False}, {}
    ),
    "batches kept apart": (three_classes, lambda: table(CLASSES), {"eval_do_concat_batches": False}, {}),
}  # fmt: skip


@pytest.mark.parametrize("variant", VARIANTS)
def test_logs_weights_and_predictions_are_those_of_trainer(variant):
    model, data, fields, kwargs = VARIANTS[variant]
    fields = {"report_to": "none", **fields}
    ours, plain = (run(cls, model, data(), fields=fields, **kwargs) for cls in (CoLearningTrainer, Trainer))
    assert losses(ours) == losses(plain) and len(losses(ours)) == 2
    for (name, weight), expected in zip(
        ours.model.state_dict().items(), plain.model.state_dict().values(), strict=True
    ):
        assert torch.equal(weight, expected), name
    test = TOKENS if variant == "labels a token" else data()
    assert same(ours.predict(test)[:2], plain.predict(test)[:2])


def same(one, other):
    if isinstance(one, (tuple, list)):
        return len(one) == len(other) and all(same(*pair) for pair in zip(one, other, strict=True))
    return np.array_equal(one, other)
