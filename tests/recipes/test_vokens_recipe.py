"""Vokens: masked words of captions with the image of every word; how a student is scored."""

import numpy as np
import pytest
from datasets import ClassLabel, Dataset
from transformers import BertTokenizer, pipeline

import tiny_teachers
from hf_colearn.experiments.masked_lm import caption_dataset, probed, reduced_tokenizer
from hf_colearn.experiments.vokens import voken_arms
from tiny_corpora import write_emoji
from tiny_recipes import main_of


FOODS, ANIMALS = ([f"{code:x}" for code in range(first, first + 14)] for first in (0x1F345, 0x1F420))
ARMS = ["MLM alone", "MLM + vokens", "vokens permuted by type", "clusters of texts"]
QUICK = ["--small", "--max_steps", "2", "--logging_steps", "1", "--num_vokens", "4", "--report", "false"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("vokens_recipe")
    emoji = write_emoji(tmp_path_factory.mktemp("emoji"), {"animal": ANIMALS, "food": FOODS})
    return folder, main_of("vokens", folder, "--data_dir", emoji, "--arms", *ARMS, *QUICK)


def test_every_arm_is_scored_by_the_probe_and_by_masked_tokens(finished):
    runs = {run["arm"]: run["metrics"] for run in finished[1]["runs"]}
    assert sorted(runs) == sorted(ARMS)
    for metrics in runs.values():
        assert [*metrics] == ["accuracy", "accuracy_all_labels", "masked_accuracy", "masked_loss"]
        assert all(0 <= metrics[name] <= 1 for name in [*metrics][:3])
        assert metrics["masked_loss"] == pytest.approx(np.log(22), abs=1)  # of 22 words and pieces
    assert finished[1]["metric"] == "accuracy"
    references = finished[1]["accuracy_of_references"]
    assert references["bag of words"] == 1  # the names hold the category, "food 3"
    assert 0 <= references["the text teacher"] <= 1


def test_the_student_fills_masks_by_the_stock_pipeline(finished):
    student = finished[0] / "runs" / "vokens" / "student"
    answers = pipeline("fill-mask", str(student), device="cpu")("[MASK] 3")
    assert len(answers) == 5 and "training_heads" not in answers[0]
    assert 'pipeline("fill-mask"' in (student / "README.md").read_text()


def test_every_arm_has_as_many_settings_and_updates():
    arms = voken_arms()
    assert {len(arm.grid) for arm in arms} == {3}
    assert [arm.kind for arm in arms].count("null") == 2
    given = {"learning_rate": 1e-3, "max_steps": 7, "output_dir": "out", "report_to": "none"}
    assert {arm.arguments(given, seed=0).max_steps for arm in arms} == {7}
    assert [arm.arguments(given, seed=0).alpha for arm in arms] == [None, 0.8, 0.8, 0.8, 0.8]


def test_the_students_tokenizer_splits_captions_as_the_teachers():
    known, other = ["A frog sleeps.", "An Adelaide Rosella."], "A frog smokes."
    teacher = tiny_teachers.tokenizer()
    student = reduced_tokenizer(teacher, known)
    assert isinstance(student, BertTokenizer) and len(student) < 20
    for caption in known:
        assert student.tokenize(caption) == teacher.tokenize(caption)
    assert student.tokenize(other) == ["a", "frog", "[UNK]", "."]
    captions = Dataset.from_dict({"text": known, "label": [0, 1]}).cast_column("label", ClassLabel(names=["a", "b"]))
    rows = caption_dataset(student, captions)
    assert rows["category"][:] == [0, 1] and rows.features["category"].names == ["a", "b"]
    assert [len(ids) for ids in rows["input_ids"]] == [len(ids) for ids in teacher(known)["input_ids"]]


def test_a_probe_knows_the_labels_of_some_rows_alone():
    # Two clouds, right and left; labels of a row each are enough, and a class that none of them has is never told.
    features_NH = np.array([[5.0, 0.0], [4.0, 1.0], [-5.0, 0.0], [-4.0, 1.0]])
    labels_N = np.array([2, 0, 0, 1])  # of rows 0 and 2: right is 2, left is 0
    found_NC = probed(features_NH, np.array([0, 2]), labels_N, features_NH[[1, 3]], num_classes=3)
    assert found_NC.argmax(axis=1).tolist() == [2, 0]
    assert found_NC[:, 1].tolist() == [0, 0] and found_NC.sum(axis=1) == pytest.approx([1, 1])
