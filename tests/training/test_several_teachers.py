"""Two teachers of different widths: a term and an alpha each, one learned solve for all, heads that only training needs."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

import processes
import tiny
from hf_colearn import CoLearningTrainer, ConstantAlpha, Paired, Teacher
from hf_colearn.hub.export import export_program
from scripts.two_teachers import AUDIO_DIM, TERMS, make_trainer, teachers


def logged(history, key):
    return [entry[key] for entry in history if key in entry]


def test_each_teacher_has_a_term_of_its_own_targets_worked_out_by_hand():
    digits, student = tiny.digits(64), tiny.student(training_heads={"latent_audio": AUDIO_DIM}).eval()
    with torch.no_grad():
        outputs = student(pixel_values=digits["pixel_values"][:])
        head = student.training_heads["latent_audio"]
        projected = outputs.latents @ head.weight.T + head.bias
    text = torch.from_numpy(np.random.default_rng(0).normal(size=(10, 24)).astype(np.float32))[digits["labels"][:]]
    audio = torch.from_numpy(np.random.default_rng(1).normal(size=(256, AUDIO_DIM)).astype(np.float32))[:64]
    run = CoLearningTrainer(
        student,
        tiny.arguments(per_device_train_batch_size=64, max_steps=1, latent_scaling="none"),
        train_dataset=digits,
        teachers=teachers(),
        alpha=ConstantAlpha({"latent_text": 0.2, "latent_audio": 0.3}),
    )
    run.train()
    (entry,) = [entry for entry in run.state.log_history if "loss" in entry]
    assert entry["loss_latent_text"] == pytest.approx((outputs.latents - text).square().mean().item(), rel=1e-5)
    assert entry["loss_latent_audio"] == pytest.approx((projected - audio).square().mean().item(), rel=1e-5)
    assert (entry["alpha_latent_text"], entry["alpha_latent_audio"]) == (0.2, 0.3)
    mixed = 0.5 * entry["loss_task"] + 0.2 * entry["loss_latent_text"] + 0.3 * entry["loss_latent_audio"]
    assert entry["loss"] == pytest.approx(mixed, rel=1e-5)


def test_the_arguments_alpha_is_shared_in_equal_parts():
    run = CoLearningTrainer(
        tiny.student(training_heads={"latent_audio": AUDIO_DIM}),
        tiny.arguments(alpha=0.6),
        train_dataset=tiny.digits(64),
        teachers=teachers(),
    )
    assert run.alpha.weights() == {"latent_text": 0.3, "latent_audio": 0.3}


def test_two_processes_learn_two_alphas_as_one_does(tmp_path):
    script = Path(__file__).parents[1] / "scripts" / "two_teachers.py"
    processes.forked(script, tmp_path, "--batch", 8, "--processes", 2, folder=tmp_path, processes=2)
    first, second = (json.loads((tmp_path / f"result-{rank}.json").read_text()) for rank in range(2))
    one = make_trainer(tmp_path / "one", 16)
    one.train()

    assert first["alpha"] == second["alpha"]
    assert first["weights"] == second["weights"]
    for key in ("loss", *(f"{kind}_{term}" for term in TERMS for kind in ("loss", "alpha", "hypergradient"))):
        expected = logged(one.state.log_history, key)
        rounding = 2e-3 if key.startswith("hypergradient") else 1e-4  # differences of float32 losses keep fewer digits
        assert logged(first["history"], key) == pytest.approx(expected, rel=rounding, abs=1e-4), key
    for term in TERMS:
        assert len(set(logged(first["history"], f"alpha_{term}"))) == 3, "each of its alphas moved at steps 2 and 4"
    moved = one.model.training_heads["latent_audio"].weight
    assert not torch.equal(
        moved, tiny.student(training_heads={"latent_audio": AUDIO_DIM}).training_heads[TERMS[1]].weight
    )


def test_a_resumed_run_is_the_uninterrupted_one(tmp_path):
    whole = make_trainer(tmp_path / "whole", 8, save_strategy="steps", save_steps=3)
    whole.train()
    resumed = make_trainer(tmp_path / "resumed", 8)
    resumed.train(resume_from_checkpoint=str(tmp_path / "whole" / "checkpoint-3"))
    for key in ("loss", *(f"{kind}_{term}" for term in TERMS for kind in ("loss", "alpha"))):
        assert logged(resumed.state.log_history, key) == logged(whole.state.log_history, key), key
    for name, weight in whole.model.state_dict().items():
        assert torch.equal(weight, resumed.model.state_dict()[name]), name


def test_the_exports_have_the_same_logits_and_no_heads(tmp_path):
    run = make_trainer(tmp_path / "out", 8, max_steps=2)
    run.train()
    student, pixels = run.model.eval(), tiny.digits(4)["pixel_values"][:]
    with torch.no_grad():
        expected = student(pixel_values=pixels).logits
        bare = student.without_training_heads()
        torch.testing.assert_close(bare(pixel_values=pixels).logits, expected)
    assert not [name for name in bare.state_dict() if "training_heads" in name]
    program = export_program(student, tmp_path / "student.pt2", {"pixel_values": pixels})
    exported = torch.export.load(program)
    torch.testing.assert_close(exported.module()(pixel_values=pixels), expected, rtol=1e-4, atol=1e-5)
    assert not [name for name in exported.state_dict if "training_heads" in name]


@pytest.mark.parametrize(
    ("kwargs", "error", "message"),
    [
        ({"teachers": {}}, TypeError, "teachers is empty: pass them by name"),
        ({"teachers": [Teacher(tiny.bank())]}, TypeError, "teachers is a list: pass them by name"),
        ({"teachers": {"text": tiny.bank()}}, TypeError, r"teachers\['text'\] is a TeacherBank: make a teacher"),
        ({"teachers": {"a-b": Teacher(tiny.bank())}}, ValueError, "cannot be called 'a-b'"),
        ({"teachers": {"text": Teacher(tiny.bank())}, "bank": tiny.bank()}, ValueError, "both give teachers"),
        (
            {"teachers": {"text": Teacher(tiny.bank()), "audio": Teacher(tiny.bank(dim=12))}}, ValueError,
            r"24 wide, the teacher's 12.*training_heads=\{'latent_audio': 12\}",
        ),
    ],
)  # fmt: skip
def test_teachers_that_do_not_fit_are_refused(kwargs, error, message):
    with pytest.raises(error, match=message):
        CoLearningTrainer(tiny.student(), tiny.arguments(), train_dataset=tiny.digits(16), **kwargs)


def test_a_pairing_of_one_teacher_is_checked_against_its_own_bank():
    some = {"text": Teacher(tiny.bank(), Paired(tiny.digits(64)["labels"])), "other": Teacher(tiny.bank(rows=32))}
    run = CoLearningTrainer(tiny.student(), tiny.arguments(), train_dataset=tiny.digits(64), teachers=some)
    with pytest.raises(ValueError, match="sample id 32 is paired with row 32, but the bank has 32 rows"):
        run.train()
