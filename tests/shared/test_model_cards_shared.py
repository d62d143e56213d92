"""The multimodal models in `model_cards/` score on the real data what their cards say."""

from pathlib import Path

import pytest

import processes


ROOT = Path(__file__).parents[2]
DATA = ROOT.parent / "shared" / "data"
OPTIONS = {
    "av_digits": ["--audio_dir", DATA / "fsdd"],
    "stamps": ["--data_dir", DATA / "tuxpaint-stamps-128"],
}


@pytest.mark.skipif(not DATA.is_dir(), reason="needs ../shared/data")
@pytest.mark.parametrize("recipe", OPTIONS)
def test_a_multimodal_model_scores_what_its_card_says(recipe, tmp_path):
    model, options = ROOT / "model_cards" / recipe, OPTIONS[recipe]
    done = processes.checked(model, *options, recipes=ROOT / "recipes", folder=tmp_path)
    assert "The card says what was measured" in done.stdout
