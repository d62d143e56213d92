"""The published transfers on small real data, on one process and on two."""

import json
import runpy
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image
from transformers import AutoImageProcessor, AutoModelForImageClassification, pipeline

import processes
import tiny_recipes
from hf_colearn.corpora.handwritten_digits import load_handwritten_digits
from hf_colearn.corpora.iemocap import EMOTIONS
from hf_colearn.experiments.options import parse_recipe
from hf_colearn.experiments.packaged_models import vision_teacher


ROOT = Path(__file__).parents[2]
QUICK = ["--small", "--num_train_epochs", "1", "--max_steps", "3", "--eval_strategy", "no", "--save_strategy", "no"]
QUICK += ["--report", "false", "--load_best_model_at_end", "false", "--per_device_train_batch_size", "16"]
QUICK += ["--per_device_eval_batch_size", "32"]  # two processes fill up their last batch, with the same samples again
# Recipe: its co-learned arms, the test samples, and what stands in for a teacher that takes long on a CPU. Of 600 pictures
# of digits, half are for testing, and of DTMF's tones 30 a digit; who has fewer of a digit repeats some.
RECIPES = {
    "imagenet_l2v": (["random prompts", "paired prompts"], 300, None),
    "iemocap_l2a": (["random prompts", "paired prompts"], 60, None),
    "iemocap_a2l": (["random other", "true pairing"], 60, tiny_recipes.write_audio_teacher),
    "avmnist_v2a": (["random other", "true pairing"], 304, tiny_recipes.write_vision_teacher),
    "avmnist_a2v": (["random other", "true pairing"], 304, tiny_recipes.write_audio_teacher),
}


def recipe(name):
    return ROOT / "recipes" / f"{name}.py"


def forked(name, *argv, **options):
    return processes.forked(recipe(name), *argv, load_digits=processes.first_digits, **options)


def main_of(name, monkeypatch, *argv):
    """Runs a recipe in this process, for what ends before anything is trained."""
    monkeypatch.setenv("HF_COLEARN_DEBUG", "1")  # errors as they are, not as a line on stderr
    monkeypatch.setattr(sys, "argv", [f"{name}.py", *argv])
    runpy.run_path(str(recipe(name)), run_name="__main__")


def arguments(name, folder):
    write_teacher = RECIPES[name][2]
    return [*QUICK, *([] if write_teacher is None else ["--teacher", write_teacher(folder / "teacher")])]


def report_of(folder, name):
    return json.loads((folder / "runs" / name / "report.json").read_text())


def check_report(folder, name, world_size, arms):
    report = report_of(folder, name)
    assert report["processes"] == world_size
    assert [run["arm"] for run in report["runs"]] == arms
    assert all(0 <= run["metrics"]["accuracy"] <= 1 for run in report["runs"])
    for run in report["runs"]:  # the baseline has no latent term, the other arms have it
        assert any("loss_latent" in entry for entry in run["history"]) == (run["kind"] != "baseline")
    return report


@pytest.fixture(scope="module", params=RECIPES)
def on_one_process(request, tmp_path_factory):
    name = request.param
    folder = tmp_path_factory.mktemp(name)
    arms = ["baseline", RECIPES[name][0][0], "class vectors"]
    asked = [*arguments(name, folder), "--logging_steps", "1", "--arms", *arms]
    return name, folder, arms, forked(name, *asked, folder=folder).stdout


def test_a_recipe_leaves_report_plots_and_a_student_with_its_card(on_one_process):
    name, folder, arms, output = on_one_process
    results = folder / "runs" / name
    written = {str(path.relative_to(results)) for path in results.rglob("*") if path.is_file()}
    expected = {"report.json", "student/README.md", "student/model.safetensors"}
    assert expected <= written
    assert not [path for path in written if path.endswith((".bin", ".pkl"))]
    report = check_report(folder, name, 1, arms)
    assert f"{RECIPES[name][1]} test samples" in output
    assert report["published"] is None and "Lee & Yoon" not in output  # these are not the published data
    for line in report["comparison"]["verdict"].splitlines():
        assert line in output
    card = (folder / "runs" / name / "student" / "README.md").read_text()
    co_learned = report["runs"][1]["metrics"]["accuracy"]
    assert f"value: {co_learned}" in card  # of the student that is saved: the first co-learned arm's
    assert str(ROOT) not in card


def test_the_saved_student_predicts_from_raw_input(on_one_process):
    name, folder, _, _ = on_one_process
    student = folder / "runs" / name / "student"
    if name == "avmnist_v2a":  # spectrograms: transformers has no processor for them
        model = AutoModelForImageClassification.from_pretrained(student)
        assert model(torch.randn(2, 1, 112, 112)).logits.shape == (2, 10)
        return
    if name == "avmnist_a2v":  # one channel: a pipeline would make it three
        model, processor = (
            auto.from_pretrained(student) for auto in (AutoModelForImageClassification, AutoImageProcessor)
        )
        assert model(**processor(images=[Image.new("L", (60, 50), 90)], return_tensors="pt")).logits.shape == (1, 10)
        return
    task, sample, classes = {
        "imagenet_l2v": ("image-classification", load_handwritten_digits()["test"][0]["image"], 10),
        "iemocap_l2a": ("audio-classification", torch.randn(16000).numpy(), 6),
        "iemocap_a2l": ("text-classification", "I told you so.", 6),
    }[name]

    import hf_colearn.models.student  # noqa: F401  (registers the students)

    found = pipeline(task, str(student), top_k=classes, device="cpu")(sample)
    found = found[0] if isinstance(found[0], list) else found
    names = {str(digit) for digit in range(10)} if classes == 10 else set(EMOTIONS)
    assert {entry["label"] for entry in found} == names
    assert sum(entry["score"] for entry in found) == pytest.approx(1, abs=1e-4)


def test_two_processes_train_a_lora_student_and_report_once(tmp_path):
    name = (
        "iemocap_l2a"  # of audio; adapters of images and of texts are trained by the multimodal and the other recipes
    )
    arms = ["baseline", RECIPES[name][0][1]]
    asked = [*arguments(name, tmp_path), "--lora", "--logging_steps", "1", "--arms", *arms]
    done = forked(name, *asked, folder=tmp_path, processes=2)
    assert done.stdout.count("Written:") == 1
    check_report(tmp_path, name, 2, arms)
    tiny_recipes.check_lora_student(tmp_path / "runs" / name / "student")


def test_the_packaged_vision_teacher_is_the_default_of_avmnist():
    options_class = runpy.run_path(str(recipe("avmnist_v2a")))["Options"]
    options, _ = parse_recipe(options_class, str(recipe("avmnist_v2a")), ["--small"])
    teacher = vision_teacher(options.teacher, options.pooling)  # 50 ms a picture: tests/experiments encode few by it
    assert teacher.description()["teacher"] == "efficientnet-lite0"


# ---- ImageNet's own ways in ----
SPLITS = {"train": 18, "validation": 6, "test": 12}


@pytest.fixture(scope="module")
def image_folder(tmp_path_factory):
    return tiny_recipes.write_image_folder(tmp_path_factory.mktemp("images"))


def imagenet(*extra):
    tiny_student = ["--student", "vit_tiny", "--num_validation", "6", "--per_device_train_batch_size", "4"]
    return [recipe("imagenet_l2v"), *QUICK, *tiny_student, *extra]


def test_imagenet_streams_on_two_processes_with_all_kinds_of_arms(image_folder, tmp_path):
    arms = ["baseline", "random prompts", "paired prompts", "class vectors", "permuted pairing"]
    options = ["--data_dir", str(image_folder), "--streaming", "--shuffle_buffer", "8", "--logging_steps", "1"]
    processes.forked(*imagenet(*options, "--arms", *arms), folder=tmp_path, processes=2)
    report = check_report(tmp_path, "imagenet_l2v", 2, arms)
    assert len(report["comparison"]["arms"]) == 5


def test_a_corrupt_image_stops_the_recipe_by_name_or_is_counted_and_skipped(tmp_path):
    folder = tiny_recipes.write_image_folder(tmp_path / "images")
    (folder / "train" / "class_0" / "broken.jpg").write_bytes(b"no image")  # the 24th image to train on
    command = imagenet("--data_dir", folder, "--arms", "baseline", "random prompts")
    command += ["--max_steps", "8", "--eval_strategy", "epoch"]  # every image comes by
    assert "broken.jpg" in processes.forked(*command, folder=tmp_path, expect=2).stderr
    said = processes.forked(*command, "--skip_bad_samples", folder=tmp_path).stderr
    assert "samples of column 'image' are skipped" in said and "broken.jpg" in said
    told = report_of(tmp_path, "imagenet_l2v")  # 24 images, 6 of them for validation, and 12 to test on
    assert sum(told["skipped"].values()) == 1
    assert told["samples"] == {split: count - told["skipped"][split] for split, count in SPLITS.items()}


# ---- what is refused, before any teacher is asked ----
@pytest.mark.parametrize(
    "name, extra, message",
    [
        ("iemocap_a2l", ["--small", "--arms", "baseline", "true pair"], "there is no arm 'true pair'"),
        ("avmnist_v2a", [], "pass --data_dir"),
        ("avmnist_a2v", [], "pass --data_dir"),
        ("avmnist_a2v", ["--data_dir", "nowhere"], "pass --audio_dir"),
        ("iemocap_l2a", ["--small", "--test_session", "9"], "test_session=9"),
        ("iemocap_a2l", ["--data_dir", "nowhere"], "nowhere"),
        ("iemocap_l2a", ["--small", "--alpha", "2"], "alpha"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(name, extra, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        main_of(name, monkeypatch, *extra, "--teacher", "no/such-teacher")


def test_a_stream_without_max_steps_is_refused(image_folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="--max_steps"):
        main_of("imagenet_l2v", monkeypatch, "--data_dir", str(image_folder), "--streaming", "--bf16", "false")
    with pytest.raises(ValueError, match="--eval_strategy no"):  # or the Hub's whole stream would be read every time
        main_of("imagenet_l2v", monkeypatch, "--streaming", "--max_steps", "9", "--bf16", "false")
