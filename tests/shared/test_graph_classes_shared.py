"""The recipe of graph classes on the two drawings of the real emoji."""

from pathlib import Path

import pytest

from tiny_recipes import main_of, write_vision_teacher


SHARED = Path(__file__).resolve().parents[3] / "shared"
if not SHARED.is_dir():
    pytest.skip("needs the developers' ../shared", allow_module_level=True)


def test_all_subgroups_of_the_folder_have_a_sense_and_a_row_of_concepts(tmp_path):
    asked = ["--data_dir", SHARED / "data" / "emoji-64", "--drawing", "twemoji", "--max_steps", "2", "--seeds", "1"]
    asked += ["--image_model", write_vision_teacher(tmp_path / "encoder"), "--report", "false"]
    report = main_of(
        "graph_classes", tmp_path, *asked, "--arms", "ordinary head", "WordNet paths", "concepts as targets"
    )
    assert report["samples"]["test"] == 435 and len(report["runs"]) == 3
