"""Data are named by what they are, commands by what works anywhere."""

import shutil
import sys
from pathlib import Path

import pytest
from datasets import ClassLabel, Dataset, Features, Value

from docstrings import run_example
from hf_colearn.corpora.avmnist import is_avmnist
from hf_colearn.corpora.iemocap import is_iemocap
from hf_colearn.experiments.info import ExperimentInfo, folder_name, named_data
from hf_colearn.utils.recipe_files import is_recipe, recipe_files, recipe_script


def pictures(count):
    features = Features({"label": ClassLabel(names=["cat", "dog"])})
    return Dataset.from_dict({"label": [i % 2 for i in range(count)]}, features=features)


def rows(count):
    return Dataset.from_dict({"spectrogram": [0] * count}, features=Features({"spectrogram": Value("int8")}))


def test_data_are_named_by_where_they_come_from_their_classes_and_counts(tmp_path):
    run_example(named_data)
    splits = {"train": pictures(1200), "validation": pictures(2), "test": pictures(4)}
    counts = "2 classes; 1,200 training, 2 validation and 4 test clips"
    assert named_data("CREMA-D", splits, "clips", "split by lists") == {
        "dataset_name": f"CREMA-D ({counts}; split by lists)",
        "dataset_type": "crema-d",
    }
    hub = named_data("CREMA-D", splits, "clips", hub_id="me/Pets")
    assert hub == {"dataset_name": f"me/Pets ({counts})", "dataset_type": "me/Pets"}
    mirror = named_data("CREMA-D", splits, "clips", hub_id=str(tmp_path))  # a folder of a mirror's files
    assert mirror["dataset_name"] == f"{tmp_path.name} ({counts})" and "/" not in mirror["dataset_type"]
    streams = {split: part.to_iterable_dataset() for split, part in splits.items()}  # nobody counts them
    assert named_data("me/pets", streams)["dataset_name"] == "me/pets (2 classes)"


def test_a_folder_is_named_by_its_last_part(tmp_path, monkeypatch):
    (tmp_path / "My Pets").mkdir()
    monkeypatch.chdir(tmp_path / "My Pets")
    assert {folder_name(path) for path in (".", "../My Pets", str(Path.cwd()), Path.cwd())} == {"My Pets"}
    assert named_data(folder_name("."), {"train": pictures(1)})["dataset_type"] == "my-pets"


# The counts of the releases: 7,380 utterances of six emotions, 60,000 and 10,000 pairs of digits.
@pytest.mark.parametrize(
    "is_published, sizes, expected",
    [
        (is_iemocap, (5000, 1000, 1380), True),
        (is_iemocap, (200, 40, 60), False),
        (is_avmnist, (55_000, 5_000, 10_000), True),
        (is_avmnist, (55_000, 5_000, 9_999), False),
        (is_avmnist, (700, 198, 899), False),
    ],
)
def test_published_numbers_are_of_the_whole_data_set(is_published, sizes, expected):
    splits = dict(zip(("train", "validation", "test"), map(rows, sizes), strict=True))
    assert is_published(splits) is expected


@pytest.mark.parametrize(
    "recipe, command",
    [
        ("stamps", "hf-colearn recipe stamps --run --seeds 2 --arms 'my arm' --data_dir pets"),
        ("pairs", "hf-colearn train --seeds 2 --arms 'my arm' --data_dir pets"),
    ],
)
def test_the_command_works_without_a_clone_and_names_no_folder_of_the_machine(recipe, command, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["x", "--seeds", "2", "--arms", "my arm", "--data_dir", "/home/me/pets"])
    info = ExperimentInfo(recipe, "Title", "image-classification", "pets", "pets", "paired")
    assert info.to_dict()["command"] == command and info.to_dict()["license"] is None
    monkeypatch.setattr("hf_colearn.experiments.info.world_size", lambda: 2)
    several = f"accelerate launch --num_processes 2 -m hf_colearn {command.removeprefix('hf-colearn ')}"
    assert info.to_dict()["command"] == several


def test_a_changed_copy_of_a_recipe_is_a_script_of_ones_own(tmp_path, monkeypatch):
    for file in recipe_files("stamps"):
        shutil.copy(file, tmp_path)
    script = tmp_path / "stamps.py"
    assert is_recipe(recipe_script("stamps")) and is_recipe(script)
    (tmp_path / "stamps.yaml").write_text("alpha: 0.7\n")
    assert not is_recipe(script) and not is_recipe(tmp_path / "mine.py")
    monkeypatch.setattr(sys, "argv", [str(script), "--seeds", "2"])
    entries = ExperimentInfo(None, "Title", "image-classification", "pets", "pets", "paired").to_dict()
    assert (entries["recipe"], entries["command"]) == (None, "python stamps.py --seeds 2")
