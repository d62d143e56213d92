"""Anybody's pairs from data to published student: each kind of labels, what was asked for in vain, and a stranger's path."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from datasets import Dataset
from PIL import Image
from transformers import pipeline

import child_python
from docstrings import run_example
from hf_colearn.analysis.runs import read_runs
from hf_colearn.corpora.pairs import load_pairs
from hf_colearn.evaluation.retrieval import retrieval_scores
from hf_colearn.experiments.pairs_arms import pair_arms, settled, without_pushing
from hf_colearn.experiments.pairs_students import pair_student
from hf_colearn.experiments.pairs_teachers import pair_bank, pair_teacher, partner_rows, sentences, true_pairs
from hf_colearn.teachers.where_paired import WherePaired
from hub_double import HubDouble, hub_env
from refusals import Refusals, assert_refused
from tiny_recipes import main_of, write_vision_teacher
from wheels import AWAY_FROM_THE_TREE, build_wheel, install_wheel


refusals = Refusals()
QUICK = ["--max_steps", "2", "--seeds", "1", "--report", "false", "--teacher", "tiny"]
COLOURS = {"red": (200, 20, 20), "green": (20, 200, 20), "blue": (20, 20, 200)}


def write_pictures(folder, count=24, without_text=()):
    """Coloured squares with a caption each, named after their colour."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    with (folder / "metadata.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["file_name", "caption", "colour"])
        for i in range(count):
            name = list(COLOURS)[i % 3]
            pixels = np.clip(COLOURS[name] + rng.normal(0, 40, (12, 12, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / f"{i}.png")
            writer.writerow([f"{i}.png", "" if i in without_text else f"square {i} of a {name} thing", name])
    return folder


def write_clips(folder, count=12):
    folder.mkdir()
    with (folder / "metadata.jsonl").open("w") as file:
        for i in range(count):
            soundfile.write(folder / f"{i}.wav", 0.5 * np.sin(np.arange(4000) * (1 + i) / 20), 8000)
            file.write(json.dumps({"file_name": f"{i}.wav", "transcript": f"tone {i} is sounding"}) + "\n")
    return folder


def table(folder, name="table.parquet", **columns):
    rng = np.random.default_rng(0)
    texts = [f"a row with number {i}" for i in range(24)]
    Dataset.from_dict({"features": rng.normal(size=(24, 3)).tolist(), "text": texts, **columns}).to_parquet(
        folder / name
    )
    return folder / name


def experiment(folder):
    return json.loads((folder / "runs/pairs/experiment.json").read_text())


# ---- each kind of labels ----
def test_pictures_of_which_few_have_a_label_learn_from_their_captions(tmp_path):
    pictures = write_pictures(tmp_path / "squares", without_text=(0, 1, 2, 12, 17))
    report = main_of("pairs", tmp_path, pictures, *QUICK, "--labels_per_class", "2", "--labelled_per_batch", "2")
    arms = ["labels alone", "FixMatch", "permuted pairs", "latent transfer", "teacher's soft labels"]
    assert [run["arm"] for run in report["runs"]] == [f"{arm}, 2 labels a class" for arm in arms]
    known = experiment(tmp_path)
    assert known["samples"] == {"train": 18, "test": 6} and known["dataset_type"] == "squares"
    assert any("of 18 training samples: blue, green, red" in line for line in known["found"])
    assert "samples" in known["teacher_check"]
    (transfer,) = [run for run in read_runs([tmp_path / "runs/pairs"])[0] if run.arm.startswith("latent transfer")]
    pairs = load_pairs(pictures)
    assert transfer.facts["num_labelled"] == 6 and transfer.facts["num_paired"] == int(pairs.paired.sum()) < 18
    student = tmp_path / "runs/pairs/student"
    card = (student / "README.md").read_text()
    assert "squares (image with text, 3 classes), 25% of every class cut off as test part with seed 0" in card
    assert "a tiny network of text with random weights, not trained" in card
    predicted = pipeline("image-classification", model=str(student))(str(pictures / "0.png"))
    assert {one["label"] for one in predicted} == set(COLOURS)


def test_clips_without_labels_make_an_encoder_that_is_tested_by_retrieval(tmp_path):
    clips = write_clips(tmp_path / "tones")
    report = main_of("pairs", tmp_path, clips, *QUICK)
    assert [run["arm"] for run in report["runs"]] == ["no training", "true pairs", "permuted pairs"]
    assert {*report["runs"][0]["metrics"]} == {"recall_at_1", "recall_at_5", "explained_variance"}
    runs, _ = read_runs([tmp_path / "runs/pairs"])
    taught = next(run for run in runs if run.arm == "true pairs")
    assert taught.labels.shape == taught.predictions.shape == (3, 64)
    assert taught.metrics == pytest.approx(retrieval_scores(taught.predictions, taught.labels))
    assert taught.facts["alpha"] == "ConstantAlpha({'latent': 1.0})"
    student = tmp_path / "runs/pairs/student"
    card = (student / "README.md").read_text()
    assert "An encoder of audio" in card and "ccuracy" not in card and "pipeline_tag: feature-extraction" in card
    assert json.loads((student / "config.json").read_text())["id2label"] == {}
    with pytest.raises(SystemExit) as ended:  # its card is checked by retrieval, too
        main_of("pairs", tmp_path, clips, *QUICK, "--check", student)
    assert ended.value.code == 0


def test_a_table_of_numbers_learns_values_in_units_of_their_spread(tmp_path, capsys):
    values = [100.0 + 10 * (i % 5) + 0.5 for i in range(24)]
    file = table(tmp_path, target=values)
    report = main_of("pairs", tmp_path, "--data_dir", file, *QUICK, "--alpha", "0.25", "--teacher_check", "false")
    assert [run["arm"] for run in report["runs"]] == ["baseline", "true pairs", "permuted pairs", "constant target"]
    pairs = load_pairs(file)
    kept = np.asarray(pairs.train["labels"][:])
    np.testing.assert_allclose([kept.mean(), kept.std()], [0, 1], atol=1e-6)
    assert "The student learns and predicts (value - 1" in capsys.readouterr().out
    runs, _ = read_runs([tmp_path / "runs/pairs"])
    assert "r2" in runs[0].metrics and runs[1].facts["alpha"] == "ConstantAlpha({'latent': 0.25})"
    assert not (tmp_path / "runs/pairs/student/preprocessor_config.json").exists()


def test_sentences_learn_from_pictures_with_a_teacher_of_a_folder(tmp_path):
    pictures = write_pictures(tmp_path / "squares")
    argv = ["--input", "caption", "--other", "image", *QUICK, "--teacher", write_vision_teacher(tmp_path / "vision")]
    main_of("pairs", tmp_path, pictures, *argv, "--arms", "baseline", "true pairs", "--lora", "true")
    student = tmp_path / "runs/pairs/student"
    card = (student / "README.md").read_text()
    assert "**Teacher:** vision, frozen" in card and str(tmp_path) not in card and "LoRA" in card
    assert (student / "adapter" / "adapter_model.safetensors").is_file()
    predicted = pipeline("text-classification", model=str(student))("square 3 of a blue thing")
    assert predicted[0]["label"] in COLOURS


def test_subfolders_of_classes_learn_from_sentences_about_them(tmp_path):
    for i in range(12):
        folder = tmp_path / "things" / ["wild_cat", "dog"][i % 2]
        folder.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), (20 * i, 0, 0)).save(folder / f"{i}.png")
    pairs = load_pairs(tmp_path / "things")
    assert sentences(pairs, "a photo of {name}") == ["a photo of dog", "a photo of wild cat"]
    encoder, _ = pair_teacher(pairs, "tiny")
    bank, rows = pair_bank(pairs, encoder, "a photo of {name}"), partner_rows(pairs)
    assert len(bank) == 2 and rows.tolist() == pairs.train["labels"][:]
    arms = pair_arms(pairs, rows, pair_student(pairs), None, None, None, seeds=1)
    assert [arm.name for arm in arms][-1] == "class vectors"


def test_samples_without_a_partner_have_no_target(tmp_path):
    run_example(WherePaired)
    texts = [None if i % 3 == 0 else f"row {i}" for i in range(24)]
    pairs = load_pairs(table(tmp_path, text=texts, label=["a", "b"] * 12))
    encoder, _ = pair_teacher(pairs, "tiny")
    bank, rows = pair_bank(pairs, encoder, ""), partner_rows(pairs)
    targets = true_pairs(rows, pairs).targets(bank, np.arange(len(pairs.train)), 0, 0)
    assert torch.isnan(targets).all(dim=1).tolist() == [text is None for text in pairs.train["other"]]
    own = encoder.encode([text for text in pairs.train["other"] if text is not None])
    torch.testing.assert_close(targets[pairs.paired], own)


def test_a_learning_rate_that_is_asked_for_holds_for_a_tiny_student_too(tmp_path):
    pairs = load_pairs(table(tmp_path))
    arms = pair_arms(pairs, np.arange(18), pair_student(pairs), None, None, None, seeds=1)
    asked = {"per_device_train_batch_size": 4, "num_train_epochs": 40, "max_steps": -1}
    # 18 samples are 5 batches of 4, and 40 epochs of them 200 steps; without labels alpha is 1.
    for rate, is_tiny, expected in ((5e-5, True, 3e-3), (5e-5, False, 5e-5), (1e-2, True, 1e-2)):
        found = settled({**asked, "learning_rate": rate}, pairs, arms, is_tiny)
        assert (found["learning_rate"], found["max_steps"], found["alpha"]) == (expected, 200, 1.0)


def test_recall_counts_a_partner_that_others_share_and_ties_are_no_hits():
    run_example(retrieval_scores)
    targets = np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
    # Sample 0 finds a target of its own partner; 2 finds its own; 3 finds the other side, its own one last of three others.
    latents = np.array([[2.0, 0.0], [1.0, 0.1], [0.0, 3.0], [0.0, 1.0]])
    found = retrieval_scores(latents, targets, ["x", "x", "y", "z"])
    assert found["recall_at_1"] == 0.75 and found["recall_at_5"] == 1.0
    assert found["explained_variance"] == pytest.approx(1 - (1 + 0.01 + 4 + 4) / 4)  # sum |z - t|^2 over sum |t|^2
    # Without names 0 and 1 are different partners with equal targets: a tie.
    assert retrieval_scores(latents, targets)["recall_at_1"] == 0.25


# ---- asked for in vain ----
def labelled(folder, **columns):
    return load_pairs(table(folder, **{"label": ["a", "b"] * 12, **columns}))


@refusals.case(ValueError, "--student google/vit", "Leave --student out")
def a_pretrained_student_of_features(folder):
    pairs = labelled(folder)
    yield
    pair_student(pairs, "google/vit")


@refusals.case(ValueError, "--teacher gpt: column 'other'", "Leave --teacher out")
def a_teacher_of_features(folder):
    pairs = load_pairs(table(folder, other=np.eye(24).tolist()), "text", "other")
    yield
    pair_teacher(pairs, "gpt")


@refusals.case(ValueError, "column 'audio', is audio, of which no package ships a model", "openai/whisper-tiny.en")
def a_teacher_of_sounds_that_nobody_named(folder):
    pairs = load_pairs(write_clips(folder / "clips"), "transcript", "audio")
    yield
    pair_teacher(pairs, None)


@refusals.case(ValueError, "--labels_per_class 5", "no labels a class: leave it out")
def a_number_of_labels_where_there_are_none(folder):
    pairs = load_pairs(table(folder))
    yield
    pair_arms(pairs, np.arange(18), pair_student(pairs), None, [5], None, 1)


@refusals.case(ValueError, "--alpha 0.5: the data have no labels", "leave it out")
def a_share_of_the_loss_for_labels_where_there_are_none(folder):
    pairs = load_pairs(table(folder))
    yield
    settled({"alpha": 0.5, "max_steps": 5, "learning_rate": 1e-3}, pairs, [], is_tiny=True)


@refusals.case(ValueError, "a sentence about its class, and without a label it has none", "add a column of texts")
def few_labels_with_sentences_about_classes(folder):
    for name in ("cat", "dog"):
        (folder / "pets" / name).mkdir(parents=True)
        for i in range(4):
            Image.new("RGB", (8, 8), (30 * i, ord(name[0]), 0)).save(folder / "pets" / name / f"{i}.png")
    pairs = load_pairs(folder / "pets")
    yield
    pair_arms(pairs, np.zeros(6, int), pair_student(pairs), None, [1], None, 1)


@refusals.case(ValueError, "there is no arm 'true pair'", "'true pairs'")
def an_arm_that_is_not_there(folder):
    pairs = labelled(folder)
    yield
    pair_arms(pairs, np.arange(18), pair_student(pairs), ["true pair"], None, None, 1)


@refusals.case(ValueError, "--template 'a photo'", "write {name}")
def a_template_without_a_place(folder):
    pairs = labelled(folder)
    yield
    sentences(pairs, "a photo")


@refusals.case(ValueError, "--hub_model_id=None is not of the form 'owner/name'", "me/digits")
def pushing_without_a_name(folder):
    yield
    without_pushing({"push_to_hub": True, "hub_model_id": None})


@refusals.case(ValueError, "all labels of the training split are 2.5", "nothing to learn")
def values_that_are_all_equal(folder):
    path = table(folder, target=[2.5] * 24)
    yield
    load_pairs(path)


@pytest.mark.parametrize(Refusals.NAMES, refusals.cases)
def test_what_cannot_be_trained_is_refused(situation, error, texts, tmp_path):
    assert_refused(situation, error, texts, tmp_path)


# ---- a stranger's path ----
TRAIN = """
import json
from hf_colearn.cli import main

trained = main(["train", PICTURES, "--arms", "baseline", "true pairs", "--max_steps", "2", "--seeds", "1", "--report", "false",
                "--push_to_hub", "true", "--hub_model_id", "tester/squares"])
reported = main(["report", "runs/pairs", "--projections"])
files = [module.__file__ for module in list(sys.modules.values()) if getattr(module, "__file__", None)]
print(json.dumps({"status": [trained, reported], "files": files}))
"""
LOAD = """
import json
from transformers import pipeline

classify = pipeline("image-classification", model="tester/squares", trust_remote_code=True)
print(json.dumps({"found": classify(PICTURE), "class": type(classify.model).__name__, "ours": [m for m in sys.modules if
                  m.split(".")[0] == "hf_colearn"]}))
"""


def test_from_the_wheel_alone_to_a_published_student_that_loads_without_it(tmp_path):
    for name in ("source", "wheel", "site", "trainer", "user"):
        (tmp_path / name).mkdir()
    install_wheel(build_wheel(tmp_path / "source", tmp_path / "wheel"), tmp_path / "site")
    pictures = write_pictures(tmp_path / "squares", count=60)
    names = f"PICTURES, PICTURE = {str(pictures)!r}, {str(pictures / '0.png')!r}\n"
    with HubDouble() as hub:
        told = []
        for folder, path, script in (("trainer", str(tmp_path / "site"), TRAIN), ("user", "", LOAD)):
            env = hub_env(hub, tmp_path / f"{folder}_home") | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
            done = child_python.run(AWAY_FROM_THE_TREE + names + script, env=env, cwd=tmp_path / folder)
            assert done.returncode == 0, done.stderr
            told.append(json.loads(done.stdout.splitlines()[-1]))
        assert hub.unhandled == []
        files = hub.files("tester/squares")
    trained, loaded = told
    assert trained["status"] == [0, 0]
    ours = [file for file in trained["files"] if "hf_colearn" in Path(file).parts]
    assert len(ours) > 20 and all(file.startswith(str(tmp_path / "site")) for file in ours)
    assert {"README.md", "model.safetensors", "colearning.json"} <= set(files)
    assert (tmp_path / "trainer/runs/pairs/report.html").is_file()
    assert loaded["class"] == "CoLearningForImageClassification" and loaded["ours"] == []
    assert {entry["label"] for entry in loaded["found"]} == set(COLOURS)
