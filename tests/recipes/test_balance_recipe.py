"""The recipe of balance methods, on features made of AV-digits."""

import json

import numpy as np
import pytest
import yaml
from datasets import Dataset, Video

from hf_colearn.corpora.av_digits import load_av_digits
from hf_colearn.corpora.image_audio import av_processors, with_av_inputs
from hf_colearn.experiments.balance_data import BalanceOptions, load_balance_data
from tiny_corpora import write_dtmf_digits
from tiny_recipes import main_of
from tiny_videos import needs_ffmpeg, ramp, tone, write_video


QUICK = ["--max_steps", "8", "--eval_steps", "4", "--logging_steps", "1", "--report", "false"]
QUICK += ["--per_device_train_batch_size", "16", "--hidden_dim", "8", "--latent_dim", "8"]
ARMS = {
    "ce": "baseline", "OGM-GE": "colearned", "MLA": "colearned", "OGM-GE, shuffled": "null",
    "image alone": "reference", "late ensemble": "reference",
}  # fmt: skip
SETTINGS = {"ce": {"rate": 0.3}, "OGM-GE": {"rate": 1.0, "alpha": 0.1}}


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    folder = tmp_path_factory.mktemp("phones")
    write_dtmf_digits(folder, clips_per_digit=42)  # by FSDD's rule, takes 0 to 4 of the seven are for testing
    return folder


@pytest.fixture(scope="module")
def features(digits, tmp_path_factory):
    """Of AV-digits, the pixels of pictures and spectrograms; two samples lack the sound."""
    folder = tmp_path_factory.mktemp("features") / "digits"
    folder.mkdir()
    for split, part in with_av_inputs(load_av_digits(digits), av_processors(8)).items():
        rows = slice(0, 64 if split != "test" else 40)
        columns = {name: part[f"{name}_pixel_values"][rows].flatten(1).numpy() for name in ("image", "audio")}
        columns["audio"][:2] = np.nan if split == "train" else columns["audio"][:2]
        if split != "validation":  # which is cut
            np.savez(folder / f"{split}.npz", **columns, label=part["labels"][rows].numpy())
    return folder


@pytest.fixture(scope="module")
def compared(features, tmp_path_factory):
    folder = tmp_path_factory.mktemp("compared")
    (folder / "mine.yaml").write_text(yaml.safe_dump({"features digits": SETTINGS}))
    asked = ["--features", features, "--settings", "mine.yaml", *QUICK, "--seeds", "2", "--arms", *ARMS]
    report = main_of("balance", folder, *asked)
    return folder / "runs" / "balance", report


def test_every_arm_is_trained_with_its_setting_and_reported_by_modality(compared):
    _, report = compared
    assert {run["arm"]: run["kind"] for run in report["runs"]} == ARMS and len(report["runs"]) == 2 * len(ARMS)
    logs = {run["arm"]: run["history"] for run in report["runs"]}
    methods = {run["arm"]: run["balance"] for run in report["runs"]}
    assert methods["ce"] is None and methods["OGM-GE"].startswith("OGM(alpha=0.1, noise=True")
    rates = {arm: max(entry.get("learning_rate", 0) for entry in log) for arm, log in logs.items()}
    assert rates["ce"] == pytest.approx(0.3 * 6e-3) and rates["OGM-GE"] == rates["MLA"] == pytest.approx(6e-3)
    assert all({"accuracy", "accuracy_image", "accuracy_audio"} <= set(run["metrics"]) for run in report["runs"][:4])
    assert any("balance_coefficient_image" in entry for entry in logs["OGM-GE"])
    assert not any(key.startswith("balance_") for entry in logs["ce"] for key in entry)
    assert report["samples"]["train"] + report["samples"]["validation"] == 64
    assert report["balance"] == [note for note in report["balance"] if "alone, and has it." in note] != []


def test_the_arms_of_a_seed_start_from_the_same_weights_and_see_the_same_samples(compared):
    """OGM scales gradients alone, so that the loss of its first step is that of the label loss."""
    first = {(run["arm"], run["seed"]): run["history"][0]["loss"] for run in compared[1]["runs"]}
    assert first["OGM-GE", 0] == first["ce", 0] == first["OGM-GE, shuffled", 0] != first["ce", 1]


def test_one_table_has_all_arms_against_both_references_and_what_a_step_costs(compared):
    folder, report = compared
    page, numbers = (folder / "balance.md").read_text(), json.loads((folder / "balance.json").read_text())
    assert page.startswith("# Modality balance: digits (10 classes; ") and "vs ce [pp]" in page
    scores = {arm: [r["metrics"]["accuracy"] for r in report["runs"] if r["arm"] == arm] for arm in ARMS}
    assert list(numbers["to_late_ensemble"]) == ["late ensemble"] and "vs late ensemble [pp]" in page
    for other, found in {"ce": numbers["to_label_loss"], **numbers["to_late_ensemble"]}.items():
        assert found["MLA"]["mean"] == pytest.approx(np.mean(np.subtract(scores["MLA"], scores[other])), abs=1e-9)
    assert numbers["steps"]["ce"] == 1 and all(ratio > 0 for ratio in numbers["steps"].values())
    assert numbers["settings"]["OGM-GE"] == SETTINGS["OGM-GE"]


def test_settings_are_chosen_on_validation_by_the_same_budget(features, tmp_path, capsys):
    """Without labels that make sense in the test file, the choice is the same: it is not read."""
    other = tmp_path / "digits"
    other.mkdir()
    (other / "train.npz").write_bytes((features / "train.npz").read_bytes())
    with np.load(features / "test.npz") as test:
        np.savez(other / "test.npz", **{**test, "label": (test["label"] + 1) % 10})
    chosen = []
    for folder in (features, other):
        asked = ["--features", folder, "--choose", "true", "--settings", "mine.yaml", *QUICK, "--max_steps", "4"]
        with pytest.raises(FileNotFoundError, match="report.json"):  # of the helper: no report is written
            main_of("balance", tmp_path, *asked, "--arms", "ce", "OGM-GE")
        chosen.append(
            (yaml.safe_load((tmp_path / "mine.yaml").read_text()), capsys.readouterr().out.split("Written")[0])
        )
    assert chosen[0] == chosen[1] and not (tmp_path / "runs" / "balance" / "balance.md").exists()
    settings, printed = chosen[0]
    assert set(settings["features digits"]) == {"ce", "OGM-GE"}
    assert printed.count("\nce ") == printed.count("\nOGM-GE ") == 4 and printed.count(" *") >= 2


def test_digits_are_the_pixels_of_pictures_and_spectrograms(digits):
    data = load_balance_data(BalanceOptions(audio_dir=str(digits), spectrogram_size=8))
    assert data.modalities == ("image", "audio") and set(data.inputs) == {"train", "validation", "test"}
    shapes = {key: tuple(value.shape) for key, value in data.inputs["train"][0].items()}
    assert shapes == {"image_features": (784,), "audio_features": (64,), "labels": ()}
    assert len(data.groups["speaker"]) == len(data.inputs["test"]) == 899
    assert data.make_model(BalanceOptions(latent_dim=8), fusion="mmtm").fusion.stages == ()  # of pooled features


@needs_ffmpeg
def test_clips_are_trained_by_the_protocol_of_their_data(tmp_path):
    clips = []
    for label in (0, 1):
        file = tmp_path / f"{label}.mp4"
        write_video(file, ramp(12) // 2 + 100 * label, tone(300 + 500 * label, 0.5))
        clips.append({"bytes": file.read_bytes(), "path": "clip.mp4"})
    for split, count in (("train", 10), ("test", 2)):
        cells = {"video": clips * count, "label": ["NEU", "ANG"] * count}
        mirror = Dataset.from_dict(cells).cast_column("video", Video(decode=False))
        mirror.to_parquet(tmp_path / "mirror" / f"{split}-00000-of-00001.parquet")
    asked = ["--data", "cremad", "--hub_id", tmp_path / "mirror", "--small", "--image_size", "32", "--max_steps", "2"]
    asked += ["--eval_strategy", "steps", "--eval_steps", "2", "--save_steps", "2", "--save_strategy", "steps"]
    asked += ["--dataloader_num_workers", "0", "--per_device_train_batch_size", "4", "--report", "false"]
    asked += ["--methods", "greedy", "--settings", "none.yaml", "--arms", "ce", "Greedy, mmtm"]
    with pytest.raises(FileNotFoundError, match="balance/report.json"):  # of the helper, which knows one name
        main_of("balance", tmp_path, *asked)
    report = json.loads((tmp_path / "runs" / "balance_cremad" / "report.json").read_text())
    assert [run["arm"] for run in report["runs"]] == ["ce", "Greedy, mmtm"]
    assert report["options"]["optimizer"] == "sgd" and report["options"]["learning_rate"] == 1e-2
    assert report["samples"] == {"train": 18, "validation": 2, "test": 4}
    assert report["dataset"].startswith("mirror (6 classes; 18 training, 2 validation and 4 test clips")
