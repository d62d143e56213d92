"""The multimodal recipes on the real stamps and on real speech."""

import json
import runpy
import sys
from pathlib import Path

import pytest
from transformers.utils import logging


ROOT = Path(__file__).resolve().parents[2]
SHARED = ROOT.parent / "shared"
if not SHARED.is_dir():
    pytest.skip("needs the developers' ../shared", allow_module_level=True)

QUICK = ["--max_steps", "2", "--eval_strategy", "steps", "--eval_steps", "2", "--save_strategy", "no"]
QUICK += ["--load_best_model_at_end", "false", "--logging_steps", "1", "--alpha_interval", "1"]


def report_of(name, folder, *argv):
    verbosity = logging.get_verbosity()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(sys, "argv", [f"{name}.py", *map(str, argv), *QUICK, "--arms", "ce", "learned"])
        try:
            runpy.run_path(str(ROOT / "recipes" / f"{name}.py"), run_name="__main__")
        finally:
            logging.set_verbosity(verbosity)
    return json.loads((folder / "runs" / name / "report.json").read_text())


def check_arms(report):
    ce, learned = report["runs"]
    alphas = [entry["alpha"] for entry in learned["history"] if "alpha" in entry]
    assert alphas[0] == 0.5 != alphas[1] and not any("hypergradient" in entry for entry in ce["history"])
    assert ce["metrics"].keys() == learned["metrics"].keys()


def test_real_stamps_in_three_modalities(tmp_path):
    report = report_of("stamps", tmp_path, "--data_dir", SHARED / "data" / "tuxpaint-stamps-128")
    assert sum(report["samples"].values()) == 749  # of 767: 18 of four rare categories
    check_arms(report)
    parts = ("image", "text", "speech", "image_text", "image_speech", "text_speech")
    assert {f"accuracy_given_{part}" for part in parts} <= set(report["runs"][0]["metrics"])
    config = json.loads((tmp_path / "runs" / "stamps" / "model" / "config.json").read_text())
    assert len(config["id2label"]) == 12 and "symbols" in config["id2label"].values()


def test_real_spoken_digits_beside_handwritten_ones(tmp_path):
    fsdd = SHARED / "data" / "fsdd" / "recordings"
    options = ["--audio_dir", fsdd, "--spectrogram_size", "32", "--report", "false"]  # the stamps draw theirs
    report = report_of("av_digits", tmp_path, *options)
    # FSDD: 300 takes are its test set, fewer than the 899 images; 2,700 are for training and, a tenth, for choosing.
    assert report["samples"] == {"train": 2430, "validation": 270, "test": 899}
    check_arms(report)
    card = (tmp_path / "runs" / "av_digits" / "model" / "README.md").read_text()
    assert "AV-digits (10 classes; " in card and "; handwritten and spoken)" in card
