"""The recipe of language-shaped learning: emoji from packages, stamps from a folder, and data that it does not know."""

import json

import pytest

from tiny_corpora import write_table
from tiny_recipes import main_of


QUICK = ["--small", "--max_steps", "2", "--report", "false", "--image_size", "8", "--labels_per_class", "1"]
ARMS = ["labels alone", "shuffled captions", "language-shaped", "shuffled words"]


def test_emoji_learn_from_writing_their_names(tmp_path, capsys):
    report = main_of("language_shaped", tmp_path, *QUICK, "--arms", *ARMS)
    assert [run["arm"] for run in report["runs"]] == [f"{arm}, 1 label a class" for arm in ARMS]
    assert ["caption_nats" in run["metrics"] for run in report["runs"]] == [False, True, True, True]
    printed = capsys.readouterr().out
    assert "nats a caption" in printed and "written" in printed
    student = json.loads((tmp_path / "runs/language_shaped/student/config.json").read_text())
    assert "training_heads" not in student


def test_stamps_learn_from_writing_their_sentences(tmp_path):
    stamps = write_table(tmp_path / "stamps")
    argv = [
        "--data",
        "stamps",
        "--data_dir",
        stamps,
        "--min_per_class",
        "3",
        "--arms",
        "labels alone",
        "language-shaped",
    ]
    report = main_of("language_shaped", tmp_path, *QUICK, *argv)
    assert len(report["runs"]) == 2


@pytest.mark.parametrize(
    ("argv", "message"), [(["--data", "birds"], "data='birds' is unknown"), (["--data", "stamps"], "no data: apt-get")]
)
def test_data_that_are_not_there_are_refused(argv, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        main_of("language_shaped", tmp_path, *QUICK, *argv)
