"""Translation on the real stamps: spoken French is translated into the English sentence, and back."""

from pathlib import Path

import pytest
from short_whisper import write_short_whisper
from some_stamps import write_some_stamps

from tiny_recipes import main_of


SHARED = Path(__file__).resolve().parents[2].parent / "shared"
if not SHARED.is_dir():
    pytest.skip("needs the developers' ../shared", allow_module_level=True)


def test_speech_is_translated_into_sentences_of_stamps(tmp_path):
    whisper = write_short_whisper(
        str(SHARED / "models" / "whisper-tiny-en-encoder"), str(tmp_path / "whisper"), layers=1
    )
    stamps = write_some_stamps(SHARED / "data" / "tuxpaint-stamps-128", tmp_path / "stamps")
    argv = ["--small", "--max_steps", "30", "--report", "false", "--data_dir", stamps]
    argv += ["--speech_model", whisper, "--seconds", "2"]
    arms = ["labels alone", "cyclic, permuted pairs", "cyclic translation"]
    report = main_of("translation", tmp_path, *argv, "--arms", *arms)
    _, permuted, true = (run["metrics"] for run in report["runs"])
    assert true["cycle_explained"] > 0  # below the error of the mean
    assert true["translation_recall_at_5"] > permuted["translation_recall_at_5"]
