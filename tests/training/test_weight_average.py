"""The average of the weights: its arithmetic, and where it stands in for the model."""

import logging

import numpy as np
import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file
from transformers import TrainerCallback

import tiny
from hf_colearn import CoLearningArguments, CoLearningForImageClassification, CoLearningTrainer
from hf_colearn.training.argument_checks import arguments_fit
from hf_colearn.training.weight_average import WeightAverage, warn_of_initial_weights


DECAY = 0.6


def trainer(student=None, **kwargs):
    passed = {key: kwargs.pop(key) for key in ("callbacks", "compute_metrics", "eval_dataset") if key in kwargs}
    return CoLearningTrainer(
        tiny.student(tiny.resnet()) if student is None else student,
        tiny.arguments(**{"ema_decay": DECAY, "learning_rate": 1e-2, "max_steps": 6, **kwargs}),
        train_dataset=tiny.digits(64),
        bank=tiny.bank(),
        pairing=tiny.random_prompt(),
        **passed,
    )


class Weights(TrainerCallback):
    """The state of the model before training and after every step."""

    def __init__(self):
        self.steps = []

    def on_train_begin(self, args, state, control, model=None, **kwargs):
        self.steps = [state_of(model)]

    def on_step_end(self, args, state, control, model=None, **kwargs):
        self.steps.append(state_of(model))

    def average(self, step, decay=DECAY):
        """Worked out in double precision from the recurrence."""
        averages = {}
        for name, first in self.steps[0].items():
            if first.is_floating_point():
                averages[name] = first.double()
                for weights in self.steps[1 : step + 1]:
                    averages[name] = decay * averages[name] + (1 - decay) * weights[name].double()
            else:
                averages[name] = self.steps[step][name]
        return averages


def state_of(model):
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


def assert_same(found, expected):
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert torch.equal(found[name], value), name


def assert_close(found, expected):
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name].double(), value.double(), rtol=1e-5, atol=1e-6, msg=name)


def losses(run, key="loss"):
    return [entry[key] for entry in run.state.log_history if key in entry]


def test_the_average_follows_parameters_and_batch_statistics_by_the_recurrence():
    weights = Weights()
    run = trainer(callbacks=[weights])
    run.train()
    assert_close(state_of(run.model), weights.average(6))
    moved = [name for name in weights.steps[0] if "running_mean" in name or "latent_head" in name]
    for name in moved:
        assert not torch.allclose(weights.steps[6][name], run.model.state_dict()[name], rtol=1e-3)


def test_the_average_is_taken_once_an_optimizer_step_under_accumulation():
    weights = Weights()
    run = trainer(callbacks=[weights], per_device_train_batch_size=2, gradient_accumulation_steps=4)
    run.train()
    assert len(weights.steps) == 7
    assert_close(state_of(run.model), weights.average(6))


def test_the_raw_weights_train_as_without_an_average():
    ours, plain = Weights(), Weights()
    options = {"eval_strategy": "steps", "eval_steps": 2, "save_strategy": "steps", "save_steps": 3}
    runs = [
        trainer(ema_decay=decay, callbacks=[weights], eval_dataset=tiny.digits(16), **options)
        for decay, weights in ((DECAY, ours), (None, plain))
    ]
    for run in runs:
        run.train()
    assert losses(runs[0]) == losses(runs[1])
    for found, expected in zip(ours.steps, plain.steps, strict=True):
        assert_same(found, expected)
    assert losses(runs[0], "eval_loss") != losses(runs[1], "eval_loss")


def test_evaluation_prediction_and_checkpoints_hold_the_average():
    weights, digits = Weights(), tiny.digits(16)

    class Predict(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            if state.global_step == 4:
                self.logits = run.predict(digits).predictions

    predict = Predict()
    run = trainer(
        callbacks=[weights, predict],
        eval_dataset=digits,
        eval_strategy="steps",
        eval_steps=4,
        save_strategy="steps",
        save_steps=4,
        output_dir="run",
    )
    run.train()
    saved = CoLearningForImageClassification.from_pretrained("run/checkpoint-4").eval()
    assert_close(state_of(saved), weights.average(4))
    with torch.no_grad():
        outputs = saved(pixel_values=digits["pixel_values"][:], labels=digits["labels"][:])
    np.testing.assert_allclose(predict.logits, outputs.logits.numpy(), rtol=1e-4, atol=1e-6)
    assert losses(run, "eval_loss")[0] == pytest.approx(outputs.loss.item(), rel=1e-4)
    assert_same(load_file("run/checkpoint-4/training_weights.safetensors"), weights.steps[4])
    # After training the model is its average, for everything that follows.
    run.save_model("final")
    assert_same(state_of(CoLearningForImageClassification.from_pretrained("final")), state_of(run.model))
    assert_close(state_of(run.model), weights.average(6))


def test_callbacks_at_the_end_of_an_evaluation_and_of_training_see_the_average():
    seen = []

    class Look(TrainerCallback):
        def on_evaluate(self, args, state, control, model=None, **kwargs):
            seen.append((state.global_step, state_of(model)))

        def on_train_end(self, args, state, control, model=None, **kwargs):
            seen.append((state.global_step, state_of(model)))

    weights = Weights()
    trainer(callbacks=[weights, Look()], eval_dataset=tiny.digits(16), eval_strategy="steps", eval_steps=4).train()
    assert [step for step, _ in seen] == [4, 6, 6]  # Trainer evaluates the last step, too
    for step, state in seen:
        assert_close(state, weights.average(step))


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_an_error_in_an_evaluation_leaves_the_raw_weights(error):
    def fail(prediction):
        raise error("on purpose")

    weights = Weights()
    run = trainer(
        callbacks=[weights],
        eval_dataset=tiny.digits(16),
        compute_metrics=fail,
        eval_strategy="steps",
        eval_steps=3,
    )
    with pytest.raises(error, match="on purpose"):
        run.train()
    assert_same(state_of(run.model), weights.steps[3])


def test_swapping_is_exact_and_nests():
    model = tiny.student(tiny.resnet()).to(torch.bfloat16)
    average = WeightAverage(model, 0.9)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.5)
    raw, storage = state_of(model), [parameter.data_ptr() for parameter in model.parameters()]
    with average.in_place():
        with average.in_place():
            inner = state_of(model)
        assert_same(state_of(model), inner)
        assert_same(inner, state_of(tiny.student(tiny.resnet()).to(torch.bfloat16)))  # not updated yet
    assert_same(state_of(model), raw)
    assert [parameter.data_ptr() for parameter in model.parameters()] == storage


def test_an_average_of_half_precision_weights_is_kept_in_single_precision():
    # 1 and then 1.0078125, its successor in bfloat16: at 0.999 the average moves by 7.8e-6, which bfloat16 would lose.
    model = torch.nn.Linear(1, 1, bias=False).to(torch.bfloat16)
    torch.nn.init.ones_(model.weight)
    average = WeightAverage(model, 0.999)
    torch.nn.init.constant_(model.weight, 1.0078125)
    for _ in range(1000):
        average.update()
    expected = 1 + 0.0078125 * (1 - 0.999**1000)
    assert average._averages["weight"].item() == pytest.approx(expected, rel=1e-5)


def test_a_step_that_fp16_skips_is_none():
    class Optimizer:
        step_was_skipped = True

    model = torch.nn.Linear(1, 1)
    average = WeightAverage(model, 0.5)
    before = average._averages["weight"].clone()
    with torch.no_grad():
        model.weight.add_(1)
    average.on_optimizer_step(None, None, None, optimizer=Optimizer())
    assert torch.equal(average._averages["weight"], before)


def test_frozen_weights_and_constants_are_left_alone():
    student = tiny.student()
    student.backbone.embeddings.requires_grad_(False)
    before = state_of(student)
    weights = Weights()
    run = trainer(student, callbacks=[weights])
    run.train()
    for name, value in state_of(run.model).items():
        if "embeddings" in name:
            assert torch.equal(value, before[name])
    assert_close(state_of(run.model), weights.average(6))


def test_the_best_checkpoints_average_is_loaded_at_the_end():
    scores, weights = iter([0.2, 0.9, 0.4]), Weights()
    run = trainer(
        callbacks=[weights],
        eval_dataset=tiny.digits(16),
        compute_metrics=lambda prediction: {"score": next(scores)},
        eval_strategy="steps",
        eval_steps=2,
        save_strategy="steps",
        save_steps=2,
        load_best_model_at_end=True,
        metric_for_best_model="score",
    )
    run.train()
    assert run.state.best_model_checkpoint.endswith("checkpoint-4")
    assert_close(state_of(run.model), weights.average(4))


def test_training_again_goes_on_from_the_average():
    weights = Weights()
    run = trainer(callbacks=[weights])
    run.train()
    after = state_of(run.model)
    run.train()
    assert_same(weights.steps[0], after)
    assert_close(state_of(run.model), weights.average(6))
    assert sum(isinstance(callback, WeightAverage) for callback in run.callback_handler.callbacks) == 0


def test_compiled_training_has_the_same_average():
    compiled = trainer(tiny.student(), torch_compile=True, torch_compile_backend="aot_eager")
    plain = trainer(tiny.student())
    compiled.train(), plain.train()
    assert_close(state_of(compiled.model), state_of(plain.model))


# ---- resume ----
def lora():
    config = LoraConfig(r=2, target_modules=["convolution"], modules_to_save=["latent_head", "classifier"])
    student = tiny.student(tiny.resnet())
    torch.manual_seed(1)
    return get_peft_model(student, config)


STUDENTS = {
    "resnet": lambda: tiny.student(tiny.resnet()),
    "vit": tiny.student,
    "bfloat16": lambda: tiny.student(tiny.resnet()).to(torch.bfloat16),
    "lora": lora,
}


@pytest.mark.parametrize("name", STUDENTS)
def test_a_resumed_run_equals_an_uninterrupted_one(name):
    make, weights, again = STUDENTS[name], Weights(), Weights()
    options = {
        "save_strategy": "steps",
        "save_steps": 3,
        "eval_strategy": "steps",
        "eval_steps": 3,
        "eval_dataset": tiny.digits(16),
    }
    options["bf16"] = name == "bfloat16"  # else its weights would not take the pixels
    whole = trainer(make(), callbacks=[weights], output_dir="run", **options)
    whole.train()
    resumed = trainer(make(), callbacks=[again], output_dir="again", **options)
    resumed.train(resume_from_checkpoint="run/checkpoint-3")
    for found, expected in zip(again.steps, weights.steps[3:], strict=True):
        assert_same(found, expected)
    assert_same(state_of(resumed.model), state_of(whole.model))
    for key in ("loss", "eval_loss"):
        assert losses(resumed, key) == losses(whole, key)


def test_adapters_are_saved_averaged_and_load_so():
    weights = Weights()
    run = trainer(lora(), callbacks=[weights], output_dir="run", save_strategy="steps", save_steps=4)
    run.train()
    loaded = PeftModel.from_pretrained(tiny.student(tiny.resnet()), "run/checkpoint-4")
    expected = weights.average(4)
    adapters = [name for name in expected if "lora_" in name or "modules_to_save" in name]
    assert len(adapters) > 6
    for name in adapters:
        torch.testing.assert_close(loaded.state_dict()[name].double(), expected[name], rtol=1e-5, atol=1e-6)


def test_a_checkpoint_and_a_run_must_both_have_an_average_or_neither():
    options = {"save_strategy": "steps", "save_steps": 3, "max_steps": 3}
    trainer(output_dir="with", **options).train()
    trainer(output_dir="without", ema_decay=None, **options).train()
    with pytest.raises(ValueError, match="checkpoint-3' was written with `ema_decay`.*resume with"):
        trainer(ema_decay=None).train(resume_from_checkpoint="with/checkpoint-3")
    with pytest.raises(ValueError, match="checkpoint-3' has no training_weights.safetensors: it was written without"):
        trainer().train(resume_from_checkpoint="without/checkpoint-3")


def test_the_average_of_another_model_is_refused(tmp_path):
    WeightAverage(frozen(), 0.5).save(tmp_path)
    with pytest.raises(ValueError, match="other weights frozen: only one of the two has 'backbone.embedder"):
        WeightAverage(tiny.student(tiny.resnet()), 0.5).load(tmp_path)
    with pytest.raises(ValueError, match=r"only one of the two has 'classifier.weight' of shape \(10, 24\)"):
        student = tiny.student(tiny.resnet(), latent_dim=32)
        student.backbone.embedder.requires_grad_(False)
        WeightAverage(student, 0.5).load(tmp_path)


def frozen():
    student = tiny.student(tiny.resnet())
    student.backbone.embedder.requires_grad_(False)
    return student


# ---- refused, warned of ----
def test_weights_that_deepspeed_shards_are_refused():
    with pytest.raises(ValueError, match="ema_decay=0.9 needs whole weights on every process, and DeepSpeed"):
        arguments_fit(CoLearningArguments("out", ema_decay=0.9), False, False, "DeepSpeed")


def test_an_average_that_is_slow_for_the_runs_length_is_warned_of(caplog):
    package = logging.getLogger("hf_colearn")
    package.addHandler(caplog.handler)
    try:
        trainer(ema_decay=0.99, max_steps=2).train()
        # 0.99^2 = 0.9801; 0.05^(1/2) = 0.2236.
        assert "ema_decay=0.99 over 2 steps: at the end the average still holds 98%" in caplog.text
        assert "lower ema_decay to 0.2236 or less" in caplog.text
        caplog.clear()
        warn_of_initial_weights(0.99, 299)  # 0.99^299 = 0.0495
        assert not caplog.text
        warn_of_initial_weights(0.99, 298)  # 0.05003
        assert "298 steps" in caplog.text
    finally:
        package.removeHandler(caplog.handler)
