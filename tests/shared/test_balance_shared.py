"""The recipe of balance methods on real speech, and the features of the real stamps."""

import json
from pathlib import Path

import pytest

from hf_colearn.corpora.stamps import load_stamps
from hf_colearn.experiments.frozen_features import stamp_features
from tiny_recipes import main_of


ROOT = Path(__file__).resolve().parents[2]
SHARED = ROOT.parent / "shared"
if not SHARED.is_dir():
    pytest.skip("needs the developers' ../shared", allow_module_level=True)


def test_real_speech_and_handwriting_through_convolutions_that_exchange_channels(tmp_path):
    spoken = tmp_path / "spoken"
    spoken.mkdir()
    for speaker in ("george", "theo"):
        for take in range(9):  # of which 0 to 4 are for testing
            for digit in range(10):
                name = f"{digit}_{speaker}_{take}.wav"
                (spoken / name).symlink_to(SHARED / "data" / "fsdd" / "recordings" / name)
    asked = ["--audio_dir", spoken, "--av_backbone", "resnet_tiny", "--spectrogram_size", "16", "--latent_dim", "8"]
    asked += ["--max_steps", "4", "--eval_steps", "4", "--logging_steps", "1", "--report", "false"]
    asked += ["--per_device_train_batch_size", "8", "--methods", "ogm", "greedy", "--settings", "none.yaml"]
    report = main_of("balance", tmp_path, *asked, "--arms", "ce", "OGM-GE", "Greedy, mmtm", "ce, mmtm")
    assert report["samples"]["test"] == 899
    scores = {run["arm"]: set(run["metrics"]) for run in report["runs"]}
    assert all({"accuracy", "accuracy_image", "accuracy_audio"} <= metrics for metrics in scores.values())
    # 'ce' and OGM have the same first step; the fusion with channel exchange is another function.
    first = {run["arm"]: run["history"][0]["loss"] for run in report["runs"]}
    assert first["ce"] == first["OGM-GE"] and first["ce, mmtm"] == first["Greedy, mmtm"] != first["ce"]
    numbers = json.loads((tmp_path / "runs" / "balance" / "balance.json").read_text())
    assert set(numbers["to_label_loss"]) == {"OGM-GE", "Greedy, mmtm"} and not numbers["to_late_ensemble"]


def test_stamps_are_features_of_picture_sentence_and_speech():
    raw = load_stamps(SHARED / "data" / "tuxpaint-stamps-128")
    few = {"train": raw["train"].select(range(3)), "test": raw["test"].select(range(2))}
    data = stamp_features(few)
    assert {split: len(part) for split, part in data.items()} == {"train": 3, "test": 2}
    shapes = {name: tuple(value.shape) for name, value in data["train"][0].items()}
    assert shapes == {"labels": (), "speech_features": (128,), "image_features": (1280,), "text_features": (384,)}
    assert data["test"]["labels"][:].tolist() == few["test"]["label"][:]
