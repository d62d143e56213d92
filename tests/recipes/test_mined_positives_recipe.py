"""The recipe of mined positives at small size: its arms, its choice of settings, and what it refuses."""

import pytest
import yaml

from tiny_corpora import write_table
from tiny_recipes import main_of


ARMS = ["labels alone", "own keys alone", "random neighbours", "mined positives"]
QUICK = ["--small", "--max_steps", "2", "--report", "false"]


def test_pictures_of_emoji_learn_from_the_neighbours_of_their_names(tmp_path):
    report = main_of("mined_positives", tmp_path, *QUICK, "--images_per_class", "4", "--arms", *ARMS)
    assert [(run["arm"], run["kind"]) for run in report["runs"]] == [
        ("labels alone, 1 label a class", "baseline"),
        ("own keys alone, 1 label a class", "null"),
        ("random neighbours, 1 label a class", "null"),
        ("mined positives, 1 label a class", "colearned"),
    ]


def test_settings_are_chosen_on_the_validation_part(tmp_path):
    stamps, settings = write_table(tmp_path / "stamps"), tmp_path / "settings.yaml"
    argv = ["--data", "stamps", "--data_dir", stamps, "--student", "image", "--min_per_class", "3", "--choose", "true"]
    with pytest.raises(FileNotFoundError):  # choosing leaves no report
        main_of("mined_positives", tmp_path, *QUICK, *argv, "--settings", settings, "--arms", "mined positives")
    (chosen,) = yaml.safe_load(settings.read_text())["stamps: image from text"].values()
    assert set(chosen) == {"alpha", "rate"}


def test_emoji_have_no_speech(tmp_path):
    with pytest.raises(ValueError, match="emoji have no speech, and speech from text needs it"):
        main_of("mined_positives", tmp_path, *QUICK, "--student", "speech")
