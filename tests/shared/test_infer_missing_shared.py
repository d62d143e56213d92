"""The recipe that infers a missing text, on a few of the real stamps: from speech, pictures and both."""

from pathlib import Path

import pytest

from tiny_recipes import main_of


SHARED = Path(__file__).resolve().parents[3] / "shared"
if not SHARED.is_dir():
    pytest.skip("needs the developers' ../shared", allow_module_level=True)


def test_texts_are_inferred_from_speech_and_pictures(tmp_path):
    few, stamps = tmp_path / "stamps", SHARED / "data" / "tuxpaint-stamps-128"
    few.mkdir()
    for name in ("images", "speech_fr"):
        (few / name).symlink_to(stamps / name)
    head, *rows = (stamps / "metadata.csv").read_text().splitlines(keepends=True)
    chosen = [row for category in ("symbols", "food") for row in [x for x in rows if f",{category}," in x][:14]]
    (few / "metadata.csv").write_text("".join([head, *chosen]))
    asked = ["--data", "stamps", "--data_dir", few, "--given", "speech", "--speech_model", "tiny", "--small"]
    asked += ["--min_per_class", "12", "--latent_dim", "4", "--max_steps", "2", "--settings", "none.yaml"]
    arms = ["unimodal query", "masked autoencoder", "mean text"]
    report = main_of("infer_missing", tmp_path, *asked, "--report", "false", "--arms", *arms)
    metrics = {run["arm"]: run["metrics"] for run in report["runs"]}["masked autoencoder"]
    assert {"map", "map_from_image", "map_from_image_speech", "recall_at_5_from_image", "joint_map"} <= metrics.keys()
