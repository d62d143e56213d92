"""Unpaired data on real ones: pictures of stamps with sentences of others, and true pairs beside them."""

from pathlib import Path

import pytest
from some_stamps import write_some_stamps

from tiny_recipes import main_of


SHARED = Path(__file__).resolve().parents[2].parent / "shared"
if not SHARED.is_dir():
    pytest.skip("needs the developers' ../shared", allow_module_level=True)


def test_pictures_of_stamps_learn_beside_sentences(tmp_path):
    stamps = write_some_stamps(SHARED / "data" / "tuxpaint-stamps-128", tmp_path / "stamps")
    argv = ["--small", "--max_steps", "20", "--report", "false", "--data", "stamps", "--data_dir", stamps]
    argv += ["--teacher", "text", "--labels_per_class", "2"]
    arms = ["alone", "unpaired", "true pairs"]
    report = main_of("unpaired", tmp_path, *argv, "--arms", *arms)
    runs = {run["arm"]: run["metrics"]["accuracy"] for run in report["runs"]}
    assert list(runs) == arms
    assert runs["unpaired"] > 0.5  # two categories
