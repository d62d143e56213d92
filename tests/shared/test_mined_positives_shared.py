"""Mined positives on real stamps: spoken French learns from the neighbours of its English sentences."""

from pathlib import Path

import pytest
from short_whisper import write_short_whisper
from some_stamps import write_some_stamps

from tiny_recipes import main_of


SHARED = Path(__file__).resolve().parents[2].parent / "shared"
if not SHARED.is_dir():
    pytest.skip("needs the developers' ../shared", allow_module_level=True)


def test_neighbours_of_true_sentences_help_more_than_those_of_wrong_ones(tmp_path):
    whisper = write_short_whisper(
        str(SHARED / "models" / "whisper-tiny-en-encoder"), str(tmp_path / "whisper"), layers=1
    )
    stamps = write_some_stamps(SHARED / "data" / "tuxpaint-stamps-128", tmp_path / "stamps")
    argv = ["--small", "--max_steps", "30", "--report", "false", "--data", "stamps", "--data_dir", stamps]
    argv += ["--speech_model", whisper, "--seconds", "2", "--labels_per_class", "2"]
    arms = ["labels alone", "neighbours of permuted pairs", "mined positives"]
    report = main_of("mined_positives", tmp_path, *argv, "--arms", *arms)
    _, permuted, true = (run["metrics"]["accuracy"] for run in report["runs"])
    assert true > permuted
