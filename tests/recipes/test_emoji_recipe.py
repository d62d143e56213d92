"""Emoji: pictures learn from their names, with few labels and many pairs."""

import pytest
from PIL import Image
from transformers import pipeline

from tiny_corpora import write_emoji
from tiny_recipes import main_of


ARMS = ["labels alone", "FixMatch", "permuted pairs", "teacher's soft labels", "latent + soft labels"]
QUICK = ["--small", "--max_steps", "2", "--logging_steps", "1", "--report", "false", "--labels_per_class", "2"]
FOODS, ANIMALS = ([f"{code:x}" for code in range(first, first + 14)] for first in (0x1F345, 0x1F420))


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("emoji_recipe")
    emoji = write_emoji(tmp_path_factory.mktemp("emoji"), {"animal": ANIMALS, "food": FOODS})
    return folder, main_of("emoji_l2v", folder, "--data_dir", emoji, "--arms", *ARMS, *QUICK)


def test_every_arm_is_tested_on_either_drawing(finished):
    runs = {run["arm"]: run["metrics"] for run in finished[1]["runs"]}
    assert sorted(runs) == sorted(f"{arm}, 2 labels a class" for arm in ARMS)
    for metrics in runs.values():
        assert 0 <= metrics["accuracy"] <= 1 and 0 <= metrics["accuracy_on_other_drawing"] <= 1
    assert finished[1]["samples"]["test"] == 11  # 40 % of 28


def test_the_student_classifies_pictures_by_the_stock_pipeline(finished):
    student = finished[0] / "runs" / "emoji_l2v" / "student"
    classify = pipeline("image-classification", str(student), device="cpu")
    assert {answer["label"] for answer in classify(Image.new("RGB", (72, 72), "white"))} == {"animal", "food"}
