"""The recipe of co-training: digits with tones for speech, and a few stamps whose sentences a frozen language model reads."""

import json

import pytest

from hf_colearn.experiments.co_training import CoTrainingOptions, load_digit_pairs
from tiny_corpora import write_dtmf_digits, write_table
from tiny_recipes import main_of, write_vision_teacher


QUICK = ["--small", "--max_steps", "2", "--report", "false"]


@pytest.fixture(scope="module")
def tones(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tones")
    write_dtmf_digits(folder, clips_per_digit=42)  # takes 0 to 6 of six phones
    return folder


def test_digits_are_paired_by_class_and_each_is_trained_on_once(tones):
    pairs = load_digit_pairs(str(tones), "speech", seed=0, most=30)
    for split, (features, labels) in pairs.items():
        assert {view: of.shape for view, of in features.items()} == {"speech": (30, 320), "image": (30, 64)}, split
        assert len(labels) == 30
    assert len(features["image"].unique(dim=0)) == 30


def test_the_student_of_the_scored_view_is_kept(tones, tmp_path):
    argv = [*QUICK, "--data_dir", tones, "--max_samples", "40", "--labels_per_class", "1"]
    report = main_of("co_training", tmp_path, *argv, "--arms", "labels alone", "co-training")
    scored = {"accuracy", "macro_f1", "image_accuracy", "ensemble_accuracy"}
    assert {run["arm"]: set(run["metrics"]) for run in report["runs"]} == {
        f"{arm}, 1 label a class": scored for arm in ("labels alone", "co-training")
    }
    config = json.loads((tmp_path / "runs" / "co_training" / "model" / "config.json").read_text())
    assert config["backbone_config"]["feature_dim"] == 320


def test_settings_are_chosen_for_a_scored_view_and_its_partner():
    assert CoTrainingOptions().comparison == "digits, speech with image"
    with pytest.raises(ValueError, match="choose at one number, such as 2"):
        CoTrainingOptions(choose=True, settings="mine.yaml").plans("co_training.py", with_prompts=False)


def test_sentences_of_stamps_are_read_by_a_frozen_language_model(tmp_path):
    argv = [*QUICK, "--data", "stamps", "--data_dir", write_table(tmp_path / "stamps"), "--min_per_class", "3"]
    argv += ["--image_model", write_vision_teacher(tmp_path / "vision"), "--labels_per_class", "1"]
    arms = ["labels alone", "permuted sentences", "co-training with prompts"]
    report = main_of("co_training", tmp_path, *argv, "--arms", *arms)
    with_sentences = ["sentence_accuracy" in run["metrics"] for run in report["runs"]]
    assert with_sentences == [False, True, True]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"data": "cats"}, "data='cats' is unknown: choose digits or stamps"),
        ({"student": "text"}, "the digits have no text"),
        ({"data": "stamps", "student": "image"}, "image from image is no pair"),
    ],
)
def test_views_that_are_not_there_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        CoTrainingOptions(**options)
