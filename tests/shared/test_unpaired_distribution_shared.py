"""Distributions without pairs on the real stamps: speech, and a bag of sentences."""

from pathlib import Path

import pytest
from short_whisper import write_short_whisper
from some_stamps import write_some_stamps

from tiny_recipes import main_of


SHARED = Path(__file__).resolve().parents[2].parent / "shared"
if not SHARED.is_dir():
    pytest.skip("needs the developers' ../shared", allow_module_level=True)


def test_speech_is_trained_with_a_bag_of_sentences(tmp_path):
    whisper = write_short_whisper(
        str(SHARED / "models" / "whisper-tiny-en-encoder"), str(tmp_path / "whisper"), layers=1
    )
    stamps = write_some_stamps(SHARED / "data" / "tuxpaint-stamps-128", tmp_path / "stamps")
    argv = ["--small", "--max_steps", "10", "--report", "false", "--data", "stamps", "--data_dir", stamps]
    argv += ["--student", "speech", "--speech_model", whisper, "--seconds", "2", "--samples_per_class", "6"]
    arms = ["labels alone", "distribution by class, permuted", "distribution by class"]
    report = main_of("unpaired_distribution", tmp_path, *argv, "--arms", *arms)
    assert [run["arm"].removesuffix(", 2 labels a class") for run in report["runs"]] == arms
