"""The recipe of translation on a few stamps: its arms, what it prints of held-out targets, and its choice of settings."""

import json

import pytest
import yaml

from tiny_corpora import write_table
from tiny_recipes import main_of, write_vision_teacher


ARMS = ["labels alone", "cyclic, permuted pairs", "cyclic translation", "translation alone", "latent transfer"]


def test_a_picture_is_translated_into_its_sentence_and_back(tmp_path, capsys):
    stamps = write_table(tmp_path / "stamps")
    argv = ["--small", "--max_steps", "2", "--report", "false", "--data_dir", stamps, "--min_per_class", "3"]
    argv += ["--student", "image", "--labels_per_class", "1", "--arms"]
    vision = ["--image_model", write_vision_teacher(tmp_path / "vision")]
    report = main_of("translation", tmp_path, *argv, *ARMS, *vision)
    runs = {run["arm"].removesuffix(", 1 label a class"): run["metrics"] for run in report["runs"]}
    assert list(runs) == ARMS
    with_heads = {arm: sorted(name for name in metrics if "explained" in name) for arm, metrics in runs.items()}
    both = ["cycle_explained", "translation_explained"]
    assert with_heads == dict(zip(ARMS, ([], both, both, both[1:], []), strict=True))
    assert "translation explained" in capsys.readouterr().out
    student = json.loads((tmp_path / "runs/translation/student/config.json").read_text())
    assert "training_heads" not in student

    settings = tmp_path / "settings.yaml"
    with pytest.raises(FileNotFoundError):  # choosing leaves no report
        main_of(
            "translation", stamps, *argv, "cyclic translation", *vision, "--choose", "true", "--settings", settings
        )
    (chosen,) = yaml.safe_load(settings.read_text())["image from text"].values()
    assert set(chosen) == {"weight", "rate"}
