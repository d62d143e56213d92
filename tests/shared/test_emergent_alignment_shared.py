"""Emergent alignment on the real stamps: sentences find speech through pictures."""

from pathlib import Path

import pytest
from short_whisper import write_short_whisper
from some_stamps import write_some_stamps

from tiny_recipes import main_of


SHARED = Path(__file__).resolve().parents[2].parent / "shared"
if not SHARED.is_dir():
    pytest.skip("needs the developers' ../shared", allow_module_level=True)


def test_pictures_bring_sentences_and_speech_of_stamps_together(tmp_path):
    whisper = write_short_whisper(
        str(SHARED / "models" / "whisper-tiny-en-encoder"), str(tmp_path / "whisper"), layers=1
    )
    stamps = write_some_stamps(SHARED / "data" / "tuxpaint-stamps-128", tmp_path / "stamps", per_category=18)
    argv = ["--small", "--max_steps", "40", "--report", "false", "--data_dir", stamps, "--settings", "none.yaml"]
    argv += ["--speech_model", whisper, "--seconds", "2", "--arms", "query alone", "emergent alignment"]
    report = main_of("emergent_alignment", tmp_path, *argv)
    baseline, aligned = (run["metrics"] for run in report["runs"])
    # Of pairs that were trained on, other samples are found beyond chance.
    chance = aligned["text_to_speech_recall_at_5_by_chance"]
    assert aligned["image_to_speech_recall_at_5"] > chance and baseline["image_to_text_recall_at_5"] > chance
