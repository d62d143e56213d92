"""The recipe of missing modalities on real speech and handwriting, and on the real stamps."""

from pathlib import Path

import pytest

from tiny_recipes import main_of


SHARED = Path(__file__).resolve().parents[3] / "shared"
if not SHARED.is_dir():
    pytest.skip("needs the developers' ../shared", allow_module_level=True)

BRIEF = ["--max_steps", "2", "--logging_steps", "1", "--report", "false", "--settings", "none.yaml"]


def test_both_train_and_one_is_there_at_test(tmp_path):
    spoken = tmp_path / "spoken"
    spoken.mkdir()
    for speaker in ("george", "theo"):
        for take in range(9):  # of which 0 to 4 are for testing
            for digit in range(10):
                name = f"{digit}_{speaker}_{take}.wav"
                (spoken / name).symlink_to(SHARED / "data" / "fsdd" / "recordings" / name)
    report = main_of("missing_modality", tmp_path, "--audio_dir", spoken, *BRIEF, "--only", "audio")
    scores = {run["arm"]: run["metrics"] for run in report["runs"]}
    assert list(scores) == ["audio alone", "noise for the other", "trained with both"]
    assert report["metric"] == "accuracy_at_test"
    assert scores["audio alone"]["accuracy_at_test"] == scores["audio alone"]["accuracy"]
    assert scores["trained with both"]["accuracy_at_test"] == scores["trained with both"]["accuracy_audio"]


def test_stamps_lack_pictures_or_speech(tmp_path):
    few, stamps = tmp_path / "stamps", SHARED / "data" / "tuxpaint-stamps-128"
    few.mkdir()
    for name in ("images", "speech_fr"):
        (few / name).symlink_to(stamps / name)
    head, *rows = (stamps / "metadata.csv").read_text().splitlines(keepends=True)
    chosen = [row for category in ("symbols", "food") for row in [x for x in rows if f",{category}," in x][:15]]
    (few / "metadata.csv").write_text("".join([head, *chosen]))
    arms = [f"{name}, 50 complete samples (%)" for name in ("joint", "centroids", "late ensemble", "global mean")]
    asked = ["--data", "stamps", "--data_dir", few, "--shares", "50", "--num_centroids", "2", "--arms", *arms]
    report = main_of("missing_modality", tmp_path, *BRIEF, *asked)
    metrics = {run["arm"]: run["metrics"] for run in report["runs"]}[arms[1]]
    assert {"accuracy_given_image", "accuracy_given_speech", "imputation_mse_speech"} <= metrics.keys()
