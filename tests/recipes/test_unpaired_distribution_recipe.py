"""The recipe of distributions without pairs, on emoji of a font and on a few stamps: its arms, and what it refuses."""

import pytest
import yaml

from tiny_corpora import write_table
from tiny_recipes import main_of, write_vision_teacher


QUICK = ["--small", "--max_steps", "2", "--report", "false"]
ARMS = ["labels alone", "Gaussian cloud", "distribution by class, permuted", "random prompts"]


def test_pictures_of_emoji_learn_from_names_without_pairs(tmp_path):
    report = main_of("unpaired_distribution", tmp_path, *QUICK, "--samples_per_class", "4", "--arms", *ARMS)
    runs = {run["arm"].removesuffix(", 2 labels a class"): run for run in report["runs"]}
    assert list(runs) == ARMS
    assert len({run["metrics"]["accuracy"] for run in runs.values()}) > 1


def test_settings_of_stamps_are_chosen_on_validation(tmp_path):
    stamps, settings = write_table(tmp_path / "stamps"), tmp_path / "settings.yaml"
    argv = [*QUICK, "--data", "stamps", "--data_dir", stamps, "--min_per_class", "3", "--labels_per_class", "1"]
    argv += ["--samples_per_class", "2", "--image_model", write_vision_teacher(tmp_path / "vision")]
    argv += ["--distance", "mmd", "--choose", "true", "--settings", settings]
    with pytest.raises(FileNotFoundError):  # choosing leaves no report
        main_of("unpaired_distribution", tmp_path, *argv, "--arms", "distribution")
    (chosen,) = yaml.safe_load(settings.read_text())["stamps, image"].values()
    assert set(chosen) == {"weight", "rate"}


@pytest.mark.parametrize(
    "argv, message",
    [
        (["--student", "speech"], "student='speech' is unknown: choose one of image"),
        (["--data", "digits"], "data='digits' is unknown: choose one of emoji, stamps"),
        (["--data", "stamps", "--teacher", "speech"], "teacher='speech' is unknown: choose one of text"),
        (["--distance", "energy"], "distance='energy' is unknown"),
    ],
)
def test_what_it_cannot_compare_is_refused_before_data_are_read(tmp_path, argv, message):
    with pytest.raises(ValueError, match=message):
        main_of("unpaired_distribution", tmp_path, *argv)
