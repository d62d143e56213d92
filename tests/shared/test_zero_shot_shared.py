"""Zero-shot on the real stamps: categories that are held out."""

from pathlib import Path

import pytest

from hf_colearn import CoLearningForFeatureClassification
from tiny_recipes import main_of


SHARED = Path(__file__).resolve().parents[2].parent / "shared"
if not SHARED.is_dir():
    pytest.skip("needs the developers' ../shared", allow_module_level=True)

STAMPS = SHARED / "data" / "tuxpaint-stamps-128"
# Random features, of the five categories with 50 stamps or more.
QUICK = ["--data", "stamps", "--data_dir", STAMPS, "--small", "--min_per_class", "50", "--max_steps", "2"]


def test_categories_of_stamps_are_held_out_by_the_seed(tmp_path):
    arms = ["learned vectors", "class names + pairs", "permuted vectors"]
    report = main_of("zero_shot", tmp_path, *QUICK, "--arms", *arms, "--report", "false", "--seeds", "2")
    assert {run["arm"] for run in report["runs"]} == set(arms) and len(report["runs"]) == 6
    student = CoLearningForFeatureClassification.from_pretrained(tmp_path / "runs" / "zero_shot" / "student")
    assert student.config.num_labels == 3 and "prompts" in student.config.class_vectors_from
