"""Co-training on real data: written and spoken digits, and stamps whose sentences a frozen MiniLM reads."""

from pathlib import Path

import pytest
from some_stamps import write_some_stamps

from hf_colearn import PromptedTexts
from hf_colearn.corpora.stamps import load_stamps
from hf_colearn.experiments.packaged_models import PACKAGED_LANGUAGE, language_teacher
from tiny_recipes import main_of


SHARED = Path(__file__).resolve().parents[2].parent / "shared"
if not SHARED.is_dir():
    pytest.skip("needs the developers' ../shared", allow_module_level=True)


def test_written_and_spoken_digits_teach_each_other(tmp_path):
    clips = tmp_path / "clips"
    clips.mkdir()
    for take in (0, 5, 6, 7, 8):
        for path in (SHARED / "data" / "fsdd" / "recordings").glob(f"*_{take}.wav"):
            (clips / path.name).symlink_to(path)
    argv = [
        "--data_dir",
        clips,
        "--labels_per_class",
        "2",
        "--max_samples",
        "200",
        "--rounds",
        "2",
        "--max_steps",
        "90",
    ]
    arms = ["labels alone", "self-training", "permuted pairs", "co-training"]
    report = main_of("co_training", tmp_path, *argv, "--report", "false", "--arms", *arms)
    alone, own, permuted, co_trained = (run["metrics"]["accuracy"] for run in report["runs"])
    assert co_trained > max(alone, own) + 0.1 and permuted < own


def test_minilm_knows_the_category_of_a_stamp_by_its_sentence(tmp_path):
    folder = write_some_stamps(SHARED / "data" / "tuxpaint-stamps-128", tmp_path / "stamps")
    stamps = load_stamps(folder)["test"]
    view = PromptedTexts(language_teacher(PACKAGED_LANGUAGE, "mean"), stamps.features["label"].names)
    told = view.probabilities(stamps.select_columns("text")).argmax(axis=1)
    assert (told == stamps["label"][:]).mean() > 0.7  # of two, half of them by chance
