"""What a callback of co-learning sees, changes, logs and remembers."""

import math

import pytest
import torch

import tiny
from hf_colearn import CoLearningCallback, CoLearningTrainer


class Recorder(CoLearningCallback):
    """Keeps what it is shown."""

    def __init__(self):
        self.batches, self.terms, self.trainers = [], [], []

    def setup(self, trainer):
        self.trainers.append(trainer)

    def on_outputs(self, outputs, batch, model, training):
        self.batches.append((training, outputs["latents"].shape[0], batch))

    def on_terms(self, terms):
        self.terms.append(sorted(terms))


def trainer(*callbacks, with_bank=True, folder="out", **fields):
    ours = {"bank": tiny.bank(), "pairing": tiny.random_prompt()} if with_bank else {}
    return CoLearningTrainer(
        tiny.student(), tiny.arguments(folder, **{"max_steps": 2, **fields}), train_dataset=tiny.digits(64),
        eval_dataset=tiny.digits(12), callbacks=list(callbacks), **ours,
    )  # fmt: skip


def test_outputs_of_training_and_evaluation_come_with_their_batch():
    seen = Recorder()
    run = trainer(seen, gradient_accumulation_steps=2)
    assert seen.trainers == [run]
    run.train()
    assert [(training, size) for training, size, _ in seen.batches] == [(True, 8)] * 4  # 2 steps of 2 micro-batches
    assert seen.terms == [["latent", "task"]] * 4
    for _, _, batch in seen.batches:
        assert batch.targets["teacher"].shape == (8, 24) and batch.paired["teacher"].all() and batch.labelled.all()
        torch.testing.assert_close(batch.labels, tiny.digits(64)["labels"][:][batch.sample_ids])
    seen.batches.clear()
    run.evaluate()
    assert [(training, size) for training, size, _ in seen.batches] == [(False, 8), (False, 4)]
    seen.batches.clear()
    run.predict(tiny.digits(5).remove_columns("labels"))
    assert [(size, batch.labels) for _, size, batch in seen.batches] == [(5, None)]


def test_a_baseline_shows_its_outputs_too_and_trains_as_without_callbacks():
    seen, plain = Recorder(), trainer(with_bank=False)
    run = trainer(seen, with_bank=False)
    run.train(), plain.train()
    assert [training for training, _, _ in seen.batches] == [True, True] and seen.terms == [["task"]] * 2
    assert all(map(torch.equal, run.model.parameters(), plain.model.parameters()))


def test_a_hook_on_an_output_scales_its_gradient():
    class Halved(CoLearningCallback):
        def on_outputs(self, outputs, batch, model, training):
            if training:
                outputs["logits"].register_hook(lambda gradient: gradient / 2)

    def gradient(*callbacks):
        run = trainer(*callbacks, with_bank=False)
        run.model.train()
        inputs = {name: value[:8] for name, value in tiny.digits(8)[:].items() if name != "sample_id"}
        run.compute_loss(run.model, inputs).backward()
        return run.model.classifier.weight.grad

    torch.testing.assert_close(gradient(Halved()), gradient() / 2)


def test_terms_can_be_replaced_before_alpha_weighs_them():
    class Tripled(CoLearningCallback):
        def on_terms(self, terms):
            return {**terms, "latent": 3 * terms["latent"]}

    first, second = trainer(max_steps=1), trainer(Tripled(), max_steps=1)
    first.train(), second.train()
    once, thrice = (run.state.log_history[0] for run in (first, second))
    assert thrice["loss_latent"] == pytest.approx(3 * once["loss_latent"])
    assert thrice["loss"] == pytest.approx(0.5 * once["loss_task"] + 1.5 * once["loss_latent"])


class Counter(CoLearningCallback):
    """Counts steps, in a tensor, and logs the count."""

    def __init__(self):
        self.count = torch.zeros(())

    def on_step_end(self, args, state, control, **kwargs):
        self.count += 1

    def metrics(self, training):
        return {"steps": self.count.item()}

    def state_dict(self):
        return {"count": self.count}

    def load_state_dict(self, state):
        self.count = state["count"]


def test_metrics_are_logged_with_the_evaluations_prefix_and_state_is_resumed(tmp_path):
    first = trainer(Counter(), folder=tmp_path, max_steps=4, save_strategy="steps", save_steps=2)
    first.train()
    first.evaluate()
    assert [entry["steps"] for entry in first.state.log_history if "steps" in entry] == [1, 2, 3, 4]
    assert first.state.log_history[-1]["eval_steps"] == 4

    two = [Counter(), Counter()]
    with pytest.raises(ValueError, match="holds the state of Counter.*and the run has Counter, Counter 2"):
        trainer(*two, folder=tmp_path, max_steps=4).train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
    with pytest.raises(ValueError, match="holds the state of Counter.*the run has ConstantAlpha"):
        trainer(folder=tmp_path, max_steps=4).train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
    resumed = trainer(Counter(), folder=tmp_path, max_steps=4)
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
    assert [entry["steps"] for entry in resumed.state.log_history if "steps" in entry] == [1, 2, 3, 4]


def test_a_callback_that_is_added_later_is_given_the_trainer_and_one_of_transformers_is_left_alone():
    run, seen = trainer(), Recorder()
    run.add_callback(seen)
    assert seen.trainers == [run]
    run.add_callback(Recorder)  # a class, as Trainer takes it
    assert run.callback_handler.callbacks[-1].trainers == [run]


# ---- losses that are no numbers ----
class Broken:
    """Its term is not finite in one micro-batch."""

    terms = ("latent",)

    def __init__(self, value, at):
        self.value, self.at, self.calls = value, at, -1  # the first call is of the trial batch

    def __call__(self, outputs, batch):
        self.calls += 1
        size = outputs["latents"].square().mean()
        return {"latent": size * self.value if self.calls == self.at else size}


@pytest.mark.parametrize(
    ("value", "at", "message"),
    [
        (math.nan, 1, r"the term 'latent' is not finite in the first step \(micro-batch 1 of it\)"),
        (math.inf, 1, "the term 'latent' is not finite in the first step"),
        (math.nan, 3, r"the term 'latent' is not finite since the last log \(micro-batch 3 of it\)"),
    ],
)
def test_a_term_that_is_no_number_stops_training_by_its_name(value, at, message):
    run = CoLearningTrainer(
        tiny.student(), tiny.arguments(max_steps=20, logging_steps=4), train_dataset=tiny.digits(64),
        bank=tiny.bank(), pairing=tiny.random_prompt(), objective=Broken(value, at),
    )  # fmt: skip
    with pytest.raises(FloatingPointError, match=message):
        run.train()
    assert run.state.global_step == (0 if at == 1 else 4)
