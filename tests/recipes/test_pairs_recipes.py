"""The recipes of unlabelled pairs on small data: stamps in their users' form, and digits with tones."""

import json

import pytest
import yaml
from safetensors.torch import load_file
from transformers import WhisperModel

import tiny
import tiny_teachers
from tiny_corpora import write_table
from tiny_recipes import main_of, write_vision_teacher


QUICK = ["--small", "true", "--max_steps", "2", "--views", "1", "--report", "false"]
ARMS = ["--arms", "labels alone", "FixMatch", "latent transfer"]


def arms_of(report):
    return {run["arm"] for run in report["runs"]}


def test_a_picture_learns_from_its_sentence_at_several_budgets(tmp_path):
    stamps = write_table(tmp_path / "stamps")
    argv = [*QUICK, "--data_dir", stamps, "--student", "image", "--teacher", "text", "--min_per_class", "3"]
    argv += ["--image_model", write_vision_teacher(tmp_path / "vision")]
    report = main_of("stamps_pairs", tmp_path, *argv, *ARMS, "--labels_per_class", "1", "2")
    levels = ("1 label a class", "2 labels a class")
    assert arms_of(report) == {f"{arm}, {level}" for arm in ARMS[1:] for level in levels}
    student = tmp_path / "runs/stamps_pairs/student"
    assert json.loads((student / "config.json").read_text())["backbone_config"]["standardized"] is True
    assert (student / "model.safetensors").stat().st_size < 5e6

    settings = tmp_path / "settings.yaml"
    with pytest.raises(FileNotFoundError):  # choosing leaves no report
        choice = ["--choose", "true", "--settings", settings, "--arms", "FixMatch"]
        main_of("stamps_pairs", stamps, *argv, *choice)
    assert list(yaml.safe_load(settings.read_text())["image from text"]) == ["FixMatch"]


def test_a_spoken_digit_learns_from_written_ones_with_adapters(tmp_path):
    WhisperModel(tiny.whisper()).save_pretrained(tmp_path / "whisper")
    tiny_teachers.whisper_extractor().save_pretrained(tmp_path / "whisper")
    models = ["--speech_model", tmp_path / "whisper", "--image_model", write_vision_teacher(tmp_path / "vision")]
    argv = [*QUICK, *ARMS, *models, "--max_samples", "40", "--labels_per_class", "1"]
    argv += ["--lora", "true", "--optimizer", "sgd"]
    assert arms_of(main_of("digits_pairs", tmp_path, *argv)) == {f"{arm}, 1 label a class" for arm in ARMS[1:]}
    adapter = load_file(next(tmp_path.rglob("student/adapter/adapter_model.safetensors")))
    assert any("lora_A" in name for name in adapter)
