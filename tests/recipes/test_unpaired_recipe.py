"""The recipe of unpaired data: its smoke test, its choice of settings, and what it refuses."""

import pytest
import yaml

from tiny_recipes import main_of


QUICK = ["--small", "--max_steps", "2", "--logging_steps", "1", "--report", "false", "--max_clips", "40"]
ARMS = ["alone", "unpaired", "unpaired, labels permuted"]


def test_arms_are_tested_on_pictures_alone_and_settings_are_chosen(tmp_path):
    report = main_of("unpaired", tmp_path, *QUICK, "--arms", *ARMS)
    runs = {run["arm"]: run["metrics"] for run in report["runs"]}
    assert list(runs) == ARMS
    assert report["samples"] == {"train": 599, "validation": 299, "test": 899}

    settings, empty = tmp_path / "settings.yaml", tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(FileNotFoundError):  # choosing leaves no report
        main_of("unpaired", empty, *QUICK, "--arms", "alone", "--choose", "true", "--settings", settings)
    (chosen,) = yaml.safe_load(settings.read_text())["digits: image with speech"].values()
    assert set(chosen) == {"rate"}


def test_digits_have_no_sentences(tmp_path):
    with pytest.raises(ValueError, match="data='digits' has no image and text: of digits image and speech"):
        main_of("unpaired", tmp_path, *QUICK, "--teacher", "text")
