"""The recipe of emergent alignment on a few stamps: its arms, what it prints beside chance, and its choice of settings."""

import pytest
import yaml

from tiny_corpora import write_table
from tiny_recipes import main_of, write_vision_teacher


def test_sentences_ask_for_speech_through_pictures(tmp_path, capsys):
    argv = ["--small", "--max_steps", "2", "--report", "false", "--min_per_class", "3", "--seconds", "1"]
    argv += ["--data_dir", write_table(tmp_path / "stamps"), "--settings", tmp_path / "settings.yaml"]
    argv += ["--image_model", write_vision_teacher(tmp_path / "vision")]
    arms = ["--arms", "query alone", "emergent alignment"]
    with pytest.raises(FileNotFoundError):  # choosing leaves no report
        main_of("emergent_alignment", tmp_path, *argv, "--choose", "true", *arms[::2])
    chosen = yaml.safe_load((tmp_path / "settings.yaml").read_text())["text to speech through image"]
    assert set(chosen["emergent alignment"]) == {"rate", "temperature"}

    report = main_of("emergent_alignment", tmp_path, *argv)
    assert {run["arm"]: run["kind"] for run in report["runs"]} == {
        "query alone": "baseline", "permuted pairs": "null", "pairs by class": "null",
        "emergent alignment": "colearned", "direct pairs": "reference",
    }  # fmt: skip
    assert report["metric"] == "text_to_speech_recall_at_5"
    metrics = report["runs"][3]["metrics"]
    sentences = report["samples"]["test"]
    assert metrics["text_to_speech_recall_at_1_by_chance"] == pytest.approx(1 / sentences)
    assert {"text_to_speech_map_by_class", "text_to_speech_map_by_class_by_chance"} <= set(metrics)
    assert {name for name in metrics if "text_to_speech" not in name} == {
        f"{pair}_recall_at_5" for pair in ("speech_to_text", "image_to_text", "image_to_speech")
    }
    assert "by chance" in capsys.readouterr().out
