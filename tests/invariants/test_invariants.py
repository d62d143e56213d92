"""What must never change: the plain Trainer at alpha 0, accumulation, processes, resume."""

import json
import signal
from pathlib import Path

import pytest
import torch
from transformers import Trainer, TrainingArguments

import processes
import tiny
from hf_colearn import CoLearningTrainer


SCRIPT = Path(__file__).parents[1] / "scripts" / "train_digits.py"


def plain_digits():
    return tiny.digits(64).remove_columns("sample_id")


def losses(history, key):
    return [entry[key] for entry in history if key in entry]


def plain_run(config, **kwargs):
    args = tiny.arguments(cls=TrainingArguments, **kwargs)
    run = Trainer(tiny.student(config), args, train_dataset=plain_digits())
    run.train()
    return run


@pytest.mark.parametrize("config", [tiny.vit, tiny.resnet])
@pytest.mark.parametrize("with_teacher", [False, True])
def test_alpha_zero_is_the_plain_trainer_to_the_last_bit(config, with_teacher):
    teacher = {"bank": tiny.bank(), "pairing": tiny.random_prompt()} if with_teacher else {}
    data = tiny.digits(64) if with_teacher else plain_digits()
    ours = CoLearningTrainer(tiny.student(config()), tiny.arguments(alpha=0.0), train_dataset=data, **teacher)
    ours.train()
    plain = plain_run(config())
    assert losses(ours.state.log_history, "loss") == losses(plain.state.log_history, "loss")
    assert losses(ours.state.log_history, "grad_norm") == losses(plain.state.log_history, "grad_norm")
    for (name, ours_weight), plain_weight in zip(
        ours.model.state_dict().items(), plain.model.state_dict().values(), strict=True
    ):
        assert torch.equal(ours_weight, plain_weight), name


def accumulated(batch, steps):
    run = CoLearningTrainer(
        tiny.student(),
        tiny.arguments(
            per_device_train_batch_size=batch,
            gradient_accumulation_steps=steps,
            alpha=0.4,
            optim="sgd",  # Adam would blow rounding up where a gradient is exactly zero (the keys' bias)
            learning_rate=0.1,
        ),
        train_dataset=tiny.digits(64),
        bank=tiny.bank(),
        pairing=tiny.random_prompt(),
    )
    run.train()
    return run


def test_one_batch_of_eight_equals_eight_accumulated_batches_of_one():
    whole, pieces = accumulated(8, 1), accumulated(1, 8)
    for key in ("loss", "loss_task", "loss_latent", "grad_norm"):
        assert losses(pieces.state.log_history, key) == pytest.approx(losses(whole.state.log_history, key), rel=1e-4)
    for name, weight in whole.model.state_dict().items():
        torch.testing.assert_close(pieces.model.state_dict()[name], weight, rtol=1e-4, atol=1e-5, msg=name)


def result(output_dir, rank=0):
    return json.loads((output_dir / f"result-{rank}.json").read_text())


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("uninterrupted")
    processes.forked(SCRIPT, folder, "--batch", 8, folder=folder)
    return folder


def test_two_processes_equal_one_on_the_same_global_batch(uninterrupted, tmp_path):
    processes.forked(SCRIPT, tmp_path, "--batch", 4, "--processes", 2, folder=tmp_path, processes=2)
    one, first, second = result(uninterrupted), result(tmp_path, 0), result(tmp_path, 1)
    assert first["weights"] == second["weights"]
    # Each process sees its half of the batch's targets.
    halves = [a + b for a, b in zip(first["targets"], second["targets"], strict=True)]
    assert halves == pytest.approx(one["targets"], abs=1e-5)
    for key in ("loss", "loss_task", "loss_latent", "alpha", "grad_norm"):
        assert losses(first["history"], key) == pytest.approx(losses(one["history"], key), rel=1e-5, abs=1e-5), key
    for name, total in one["weights"].items():
        if "k_proj.bias" not in name:  # cancels in the softmax, so that Adam moves it by the gradient's rounding alone
            assert first["weights"][name] == pytest.approx(total, rel=1e-5, abs=1e-4), name


@pytest.mark.parametrize(("kill_at", "last_checkpoint"), [(14, 12), (17, 15)])
def test_a_run_killed_in_mid_epoch_resumes_with_identical_losses(uninterrupted, tmp_path, kill_at, last_checkpoint):
    # 64 samples in batches of 8: an epoch has 8 steps, checkpoints come every 3.
    asked = [SCRIPT, tmp_path, "--batch", 8]
    processes.forked(*asked, "--kill_at", kill_at, folder=tmp_path, expect=-signal.SIGKILL)
    checkpoints = sorted(int(path.name.split("-")[1]) for path in tmp_path.glob("checkpoint-*"))
    assert checkpoints[-1] == last_checkpoint
    processes.forked(*asked, "--resume", folder=tmp_path)
    whole, resumed = result(uninterrupted), result(tmp_path)
    for key in ("loss", "loss_task", "loss_latent", "alpha", "grad_norm"):
        assert losses(resumed["history"], key) == losses(whole["history"], key), key
    assert resumed["targets"] == whole["targets"][last_checkpoint:]
    assert resumed["weights"] == whole["weights"]
