"""The README's snippets run as they stand."""

import re
from pathlib import Path

import numpy as np
from datasets import Dataset
from transformers import AutoModelForImageClassification

import tiny
from hf_colearn import TeacherBank, save_run
from hf_colearn.analysis.runs import Run, find_runs


README = (Path(__file__).parents[1] / "README.md").read_text()


def snippets():
    return re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)


def test_the_snippet_that_reuses_the_trainer_runs_and_is_short():
    reuse = next(snippet for snippet in snippets() if "bank=bank" in snippet)
    assert len([line for line in reuse.splitlines() if line.strip()]) <= 15
    names = {"train": tiny.digits(64).remove_columns("sample_id"), "test": tiny.digits(32)}
    exec(reuse, names)
    history = names["trainer"].state.log_history
    assert names["trainer"].state.global_step == 20
    assert {"eval_accuracy", "eval_loss"} <= set(history[-1])


def test_the_snippet_of_several_teachers_runs_after_the_first(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    first = next(snippet for snippet in snippets() if "bank=bank" in snippet)
    several = next(snippet for snippet in snippets() if "teachers=teachers" in snippet)
    latents = np.random.default_rng(0).normal(size=(96, 64)).astype(np.float32)
    names = {"train": tiny.digits(96).remove_columns("sample_id"), "test": tiny.digits(32), "speech_latents": latents}
    exec(first, names)
    exec(several, names)
    logged = {key for entry in names["trainer"].state.log_history for key in entry}
    assert {f"{kind}_latent_{name}" for kind in ("loss", "alpha") for name in ("text", "speech")} <= logged
    saved = AutoModelForImageClassification.from_pretrained("runs/two_teachers/student")
    assert saved.config.training_heads == {} and not [key for key in saved.state_dict() if "training_heads" in key]


def test_the_snippets_of_few_labels_and_of_scales_run_after_the_first(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    first, few, scale = (
        next(snippet for snippet in snippets() if text in snippet)
        for text in ("bank=bank", "labelled_per_batch", "soft_labels.scaled")
    )
    digits = tiny.digits(96).remove_columns("sample_id")
    rng = np.random.default_rng(0)
    names = {"train": digits, "test": tiny.digits(32), "caption_latents": rng.normal(size=(96, 384))}
    names |= {"features": digits["pixel_values"][:].flatten(1).numpy()}
    exec(first, names)
    exec(few, names)
    assert int((names["few"]["labels"][:] != -100).sum()) == 30 and "labelled" in capsys.readouterr().out
    assert names["trainer"].state.global_step == 20
    names |= {"bank": TeacherBank.from_latents(rng.normal(size=(8, 4))), "training_rows": [0, 1, 2]}
    names |= {"soft_labels": TeacherBank.from_latents(rng.random(size=(8, 3)))}
    exec(scale.replace("teachers =", "from hf_colearn import Teacher\nteachers ="), names)
    scaling = {name: teacher.bank.description["scaling"]["how"] for name, teacher in names["teachers"].items()}
    assert scaling == {"text": "standardized", "classes": "none"} and names["args"].latent_scaling == "none"


def test_the_snippet_of_several_modalities_runs():
    snippet = next(snippet for snippet in snippets() if "from_backbones(" in snippet)
    digits = tiny.digits(160).with_format("numpy")
    columns = {f"{name}_pixel_values": digits["pixel_values"][:] for name in ("image", "audio")}
    both = Dataset.from_dict({**columns, "labels": digits["labels"][:]})
    names = {"train": both.with_format("torch"), "test": both.select(range(40)).with_format("torch")}
    exec(snippet, names)
    assert {
        "eval_accuracy",
        "eval_accuracy_image",
        "eval_accuracy_given_audio",
        "eval_modality_gap_image_audio",
    } <= set(names["trainer"].state.log_history[-1])
    assert names["trainer"].alpha.updates == 4


def test_every_file_and_section_that_the_readme_links_to_exists():
    sections = {
        "#" + re.sub(r"[^\w -]", "", title).lower().replace(" ", "-")
        for title in re.findall(r"^#+ (.+)$", README, flags=re.MULTILINE)
    }
    for target in re.findall(r"\]\(([^)]+)\)", README):
        assert target in sections or (Path(__file__).parents[1] / target).exists(), target


def test_the_snippets_that_ask_whether_it_worked_run_after_a_training(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    reuse = next(snippet for snippet in snippets() if "bank=bank" in snippet)
    asked = next(snippet for snippet in snippets() if "save_run(" in snippet)
    names = {"train": tiny.digits(64).remove_columns("sample_id"), "test": tiny.digits(32)}
    exec(reuse, names)
    for arm, kind in (("plain", "baseline"), ("vectors", "null")):
        save_run(names["trainer"], names["test"], f"runs/mine/{arm}/seed-0", arm=arm, kind=kind)
    exec(asked, names)
    runs = find_runs(["runs/mine"])
    assert sorted(run.parent.name for run in runs) == ["plain", "prompts", "vectors"]
    kept = Run.load("runs/mine/prompts/seed-0")
    assert (kept.kind, kept.metrics["accuracy"]) == ("colearned", names["trainer"].evaluate()["eval_accuracy"])
    assert kept.train.targets.shape == kept.train.latents.shape == (64, 384)
    assert Path("runs/mine/report.html").is_file()
