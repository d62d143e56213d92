"""The multimodal models in `model_cards/` score on the real data what their cards say."""

import subprocess
import sys
from pathlib import Path

import pytest


ROOT = Path(__file__).parents[2]
DATA = ROOT.parent / "shared" / "data"
OPTIONS = {
    "av_digits": ["--audio_dir", DATA / "fsdd"],
    "stamps": ["--data_dir", DATA / "tuxpaint-stamps-128"],
}


@pytest.mark.skipif(not DATA.is_dir(), reason="needs ../shared/data")
@pytest.mark.parametrize("recipe", OPTIONS)
def test_a_multimodal_model_scores_what_its_card_says(recipe):
    command = [sys.executable, "-m", "hf_colearn.cli", "card", f"model_cards/{recipe}", "--check", "--"]
    done = subprocess.run([*command, *map(str, OPTIONS[recipe])], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "The card says what was measured" in done.stdout
