"""Language-shaped learning on the real stamps and their sentences."""

from pathlib import Path

import pytest
from some_stamps import write_some_stamps

from tiny_recipes import main_of


SHARED = Path(__file__).resolve().parents[2].parent / "shared"
if not SHARED.is_dir():
    pytest.skip("needs the developers' ../shared", allow_module_level=True)


def test_a_decoder_learns_the_sentences_of_stamps(tmp_path):
    argv = ["--small", "--max_steps", "25", "--report", "false", "--image_size", "16", "--data", "stamps"]
    stamps = write_some_stamps(SHARED / "data" / "tuxpaint-stamps-128", tmp_path / "stamps")
    argv += ["--data_dir", stamps, "--max_tokens", "8"]
    report = main_of("language_shaped", tmp_path, *argv, "--arms", "labels alone", "shuffled words", "language-shaped")
    nats = {run["arm"].partition(",")[0]: run["metrics"].get("caption_nats") for run in report["runs"]}
    # The order of the words is most of what so few updates learn of a sentence.
    assert nats["labels alone"] is None and nats["language-shaped"] < nats["shuffled words"]
