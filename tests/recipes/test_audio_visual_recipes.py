"""The recipes of videos with sound and of gestures, on small trees in their datasets' own form."""

import json
import runpy
import shutil
import sys
from pathlib import Path

import pytest
import soundfile
import torch
from datasets import Dataset, Video
from transformers import VideoMAEConfig, VideoMAEImageProcessorPil, VideoMAEModel
from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil
from transformers.utils import logging

from hf_colearn import CoLearningForMultimodalClassification
from hf_colearn.corpora.cremad import CODES
from hf_colearn.corpora.kinetics_sounds import CLASSES
from hf_colearn.experiments.options import parse_recipe
from tiny_videos import needs_ffmpeg, ramp, tone, write_video


ROOT = Path(__file__).parents[2]
RECIPES = ("cremad_av", "kinetics_sounds_av", "vggsound_av", "nvgesture")
QUICK = ["--small", "--max_steps", "2", "--eval_strategy", "steps", "--eval_steps", "2", "--save_strategy", "no"]
QUICK += ["--load_best_model_at_end", "false", "--per_device_train_batch_size", "4", "--dataloader_num_workers", "0"]
QUICK += ["--image_size", "32", "--logging_steps", "1", "--alpha_interval", "1", "--alpha_outer_split", "0.2"]
QUICK += ["--report", "false"]
MODALITIES = {name: ("video", "audio") for name in RECIPES} | {"nvgesture": ("rgb", "flow", "depth")}


# ---- the datasets in miniature: two classes that differ in brightness and pitch ----
@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clips")
    for label in (0, 1):
        frames, sound = ramp(12) // 2 + 100 * label, tone(300 + 500 * label, 0.5)
        write_video(folder / f"{label}.mp4", frames, sound)
        write_video(folder / f"{label}.avi", frames)
        soundfile.write(folder / f"{label}.wav", sound, 16_000)
    return folder


def write_cremad(folder, clips):
    (folder / "VideoFlash").mkdir(), (folder / "AudioWAV").mkdir()
    for split, actors in (("train", range(1001, 1011)), ("test", (1011, 1012))):
        lines = []
        for actor in actors:
            for label, code in ((0, "NEU"), (1, "ANG")):
                clip = f"{actor}_DFA_{code}_XX"
                shutil.copy(clips / f"{label}.mp4", folder / "VideoFlash" / f"{clip}.mp4")
                shutil.copy(clips / f"{label}.wav", folder / "AudioWAV" / f"{clip}.wav")
                lines.append(f"{clip},{code}")
        (folder / f"{split}.csv").write_text("\n".join(lines))


def write_kinetics(folder, clips):
    for split, count in (("train", 10), ("val", 1), ("test", 2)):
        lines = ["label,youtube_id,time_start,time_end,split,is_cc"]
        for number in range(count):
            for label, name in ((0, "bowling"), (1, "tap dancing")):
                shutil.copy(clips / f"{label}.mp4", folder / f"{split}{number}{label}_000000_000010.mp4")
                lines.append(f"{name},{split}{number}{label},0,10,{split},0")
        (folder / f"{split}.csv").write_text("\n".join(lines))


def write_vggsound(folder, clips):
    lines = []
    for split, count in (("train", 20), ("test", 2)):  # a twentieth of 40 training clips is one of each class
        for number in range(count):
            for label, name in ((0, "waterfall burbling"), (1, "people marching")):
                shutil.copy(clips / f"{label}.mp4", folder / f"{split}{label}_{number:06d}.mp4")
                lines.append(f"{split}{label},{number},{name},{split}")
    (folder / "vggsound.csv").write_text("\n".join(lines))


def write_nvgesture(folder, clips):
    for split, count in (("train", 10), ("test", 2)):
        lines = []
        for number in range(count):
            for label in (0, 1):
                clip = f"Video_data/class_{label + 1:02d}/{split}{number}_r0"
                (folder / clip).mkdir(parents=True)
                for sensor in ("color", "depth"):
                    shutil.copy(clips / f"{label}.avi", folder / clip / f"sk_{sensor}.avi")
                lines.append(f"path:./{clip} depth:sk_depth:1:12 color:sk_color:0:11 label:{label + 1}")
        (folder / f"nvgesture_{split}_correct_cvpr2016_v2.lst").write_text("\n".join(lines))


WRITE = dict(zip(RECIPES, (write_cremad, write_kinetics, write_vggsound, write_nvgesture), strict=True))
NAMES = {
    "cremad_av": list(CODES.values()),
    "kinetics_sounds_av": list(CLASSES),
    "vggsound_av": ["people marching", "waterfall burbling"],
    "nvgesture": [str(number) for number in range(1, 26)],
}
SAMPLES = {  # train without a tenth (VGGSound: a twentieth) of it, that tenth (Kinetics: its own), and test
    "cremad_av": {"train": 18, "validation": 2, "test": 4},
    "kinetics_sounds_av": {"train": 20, "validation": 2, "test": 4},
    "vggsound_av": {"train": 38, "validation": 2, "test": 4},
    "nvgesture": {"train": 18, "validation": 2, "test": 4},
}


def main_of(name, monkeypatch, *argv):
    verbosity = logging.get_verbosity()
    monkeypatch.setenv("HF_COLEARN_DEBUG", "1")  # errors as they are, not as a line on stderr
    monkeypatch.setattr(sys, "argv", [f"{name}.py", *map(str, argv)])
    try:
        runpy.run_path(str(ROOT / "recipes" / f"{name}.py"), run_name="__main__")
    finally:
        logging.set_verbosity(verbosity)  # a recipe's quiet terminal would hide the warnings of later tests


@pytest.fixture(scope="module", params=RECIPES)
def finished(request, clips, tmp_path_factory):
    """A recipe's folder of results and its report, after three arms of two steps."""
    name, folder = request.param, tmp_path_factory.mktemp(request.param)
    WRITE[name](folder, clips)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        arms = ["ce", "learned", f"{MODALITIES[name][0]} alone"]
        main_of(name, patch, "--data_dir", folder, *QUICK, "--arms", *arms)
    results = folder / "runs" / name
    return name, results, json.loads((results / "report.json").read_text())


@needs_ffmpeg
def test_a_recipe_reports_every_arm_by_modality(finished):
    name, results, report = finished
    first, *others = MODALITIES[name]
    metric = "macro_f1" if name == "nvgesture" else "map"
    assert [run["arm"] for run in report["runs"]] == ["ce", "learned", f"{first} alone"]
    assert report["samples"] == SAMPLES[name]
    for run in report["runs"][:2]:
        parts = ["", *(f"_{x}" for x in (first, *others)), *(f"_given_{x}" for x in (first, *others))]
        assert {f"{kind}{part}" for kind in ("accuracy", metric) for part in parts} <= set(run["metrics"])
    alone = report["runs"][2]["metrics"]
    assert {"accuracy", metric} <= set(alone) and not any(other in key for key in alone for other in others)
    written = {str(path.relative_to(results)) for path in results.rglob("*")}
    assert {"report.json", "model/README.md", "model/model.safetensors"} <= written


@needs_ffmpeg
def test_alpha_is_learned_on_clips_that_are_read_lazily(finished):
    _, _, report = finished
    ce, learned, alone = (run["history"] for run in report["runs"])
    alphas = [entry["alpha"] for entry in learned if "alpha" in entry]
    assert alphas[0] == 0.5 and len(alphas) == 2 and alphas[1] != 0.5  # moved after the first step
    assert all(entry["hypergradient_cost"] > 0 for entry in learned if "hypergradient" in entry)
    assert not any("alpha" in entry for entry in [*ce, *alone])
    assert any("loss_contrastive" in entry for entry in learned)


@needs_ffmpeg
def test_the_saved_model_predicts_from_all_and_from_one_modality(finished):
    name, results, report = finished
    model = CoLearningForMultimodalClassification.from_pretrained(results / "model").eval()
    assert model.modalities == MODALITIES[name] and list(model.config.id2label.values()) == NAMES[name]
    shapes = {"video": (1, 3, 32, 32), "audio": (1, 257, 188), "rgb": (8, 3, 32, 32), "flow": (8, 2, 32, 32)}
    shapes |= {"depth": (8, 1, 32, 32)}
    inputs = {f"{key}_pixel_values": torch.randn(2, *shapes[key]) for key in model.modalities}
    with torch.no_grad():
        whole, part = model(**inputs), model(**dict([next(iter(inputs.items()))]))
    assert whole.logits.shape == part.logits.shape == (2, len(NAMES[name]))
    torch.testing.assert_close(whole.subset_logits[model.modalities[0]], part.logits)
    processor = ViTImageProcessorPil.from_pretrained(results / "model" / model.modalities[0])
    assert processor.size["height"] == 32 and report["options"]["video_backbone"].endswith("_tiny")


# ---- what a clip becomes ----
@needs_ffmpeg
@pytest.mark.parametrize(
    "name, video, audio",
    [
        # Times are 1 + seconds * rate // hop, frequencies n_fft // 2 + 1: 1 + 66,150 // 353 and 257 in CREMA-D.
        ("cremad_av", (1, 3, 224, 224), (1, 257, 188)),
        ("kinetics_sounds_av", (3, 3, 224, 224), (1, 257, 313)),
        ("vggsound_av", (3, 3, 224, 224), (1, 129, 626)),
    ],
)
def test_the_published_inputs_and_networks_are_what_the_yaml_asks_for(
    name, video, audio, clips, tmp_path, monkeypatch
):
    WRITE[name](tmp_path, clips)
    script = ROOT / "recipes" / f"{name}.py"
    recipe = runpy.run_path(str(script))
    options, training = parse_recipe(recipe["Options"], str(script), ["--data_dir", str(tmp_path)])
    load = next(value for key, value in recipe.items() if key.startswith("load_"))
    data = options.inputs(load(tmp_path), options.processor(recipe["RESNETS"]))
    for split in ("train", "test"):
        sample = data[split][0]
        assert sample["video_pixel_values"].shape == video and sample["audio_pixel_values"].shape == audio
    model = options.make_model(options.backbones(recipe["RESNETS"]), num_labels=6)
    # ResNet-18 has 11,176,512 weights without its classifier (torchvision's count); of one channel, 2 * 64 * 7 * 7 fewer.
    counts = [sum(x.numel() for x in model.encoders[key].backbone.parameters()) for key in model.modalities]
    assert counts == [11_176_512, 11_176_512 - 2 * 64 * 49]
    assert (options.optimizer, options.fusion, training["alpha_solver"]) == ("sgd", "concat", "neumann")
    assert (training["learning_rate"], training["weight_decay"]) == (1e-2, 1e-4)


@needs_ffmpeg
def test_gestures_from_a_pretrained_video_model_keep_its_weights_where_the_channels_fit(clips, tmp_path, monkeypatch):
    write_nvgesture(tmp_path, clips)
    size = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}
    stock = VideoMAEModel(VideoMAEConfig(**size, image_size=32, patch_size=8, num_frames=16))
    stock.save_pretrained(tmp_path / "videomae")
    VideoMAEImageProcessorPil(image_mean=[0.2] * 3, image_std=[0.5] * 3).save_pretrained(tmp_path / "videomae")

    argv = ["--data_dir", tmp_path, *QUICK, "--arms", "ce", "constant", "--max_steps", "1", "--learning_rate", "0"]
    main_of("nvgesture", monkeypatch, *argv, "--video_backbone", tmp_path / "videomae")

    folder = tmp_path / "runs" / "nvgesture" / "model"
    model = CoLearningForMultimodalClassification.from_pretrained(folder)
    key = "embeddings.patch_embeddings.projection.weight"
    for name in ("rgb", "depth"):  # a step of learning rate 0 moves nothing
        torch.testing.assert_close(model.encoders[name].backbone.get_parameter(key), stock.get_parameter(key))
        assert list(ViTImageProcessorPil.from_pretrained(folder / name).image_mean) == [0.2] * 3
    flow = model.encoders["flow"].backbone
    assert flow.get_parameter(key).shape == (32, 2, 2, 8, 8) and flow.config.num_frames == 8  # not the checkpoint's 16


# ---- what is refused ----
@pytest.mark.parametrize("name", RECIPES)
def test_without_data_a_recipe_says_what_to_pass(name, monkeypatch):
    with pytest.raises(ValueError, match="no data: pass --data_dir"):
        main_of(name, monkeypatch, "--small")


@pytest.mark.parametrize("name", RECIPES)
def test_an_unknown_arm_is_refused_before_any_data_is_read(name, monkeypatch):
    with pytest.raises(ValueError, match="there is no arm 'image alone'"):
        main_of(name, monkeypatch, "--data_dir", "nowhere", "--arms", "ce", "image alone")


@pytest.mark.parametrize(
    "name, argv, message",
    [
        ("cremad_av", ["--data_dir", "nowhere"], "there is no folder 'nowhere'"),
        ("cremad_av", ["--data_dir", ".", "--hub_id", "some/one"], "one of the two"),
        ("cremad_av", ["--data_dir", ".", "--split", "sentence"], "split='sentence'"),
        ("kinetics_sounds_av", ["--data_dir", ".", "--test_split", "train"], "test_split='train'"),
        ("vggsound_av", ["--data_dir", "."], "vggsound.csv"),
        ("nvgesture", ["--data_dir", "."], "nvGesture_v1"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(name, argv, message, monkeypatch):
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        main_of(name, monkeypatch, *argv)


@needs_ffmpeg
def test_kinetics_without_labelled_tests_validates_on_a_tenth_of_its_training_clips(clips, tmp_path, monkeypatch):
    write_kinetics(tmp_path, clips)
    argv = [
        "--data_dir",
        tmp_path,
        *QUICK,
        "--arms",
        "ce",
        "constant",
        "--max_steps",
        "1",
        "--test_split",
        "validation",
    ]
    main_of("kinetics_sounds_av", monkeypatch, *argv)
    report = json.loads((tmp_path / "runs" / "kinetics_sounds_av" / "report.json").read_text())
    assert report["samples"] == {"train": 18, "validation": 2, "test": 2}


@needs_ffmpeg
def test_a_mirror_of_the_hub_trains_without_a_folder(clips, tmp_path, monkeypatch):
    content = [(clips / f"{label}.mp4").read_bytes() for label in (0, 1)]
    for split, count in (("train", 20), ("test", 2)):
        cells = {"video": [{"bytes": x, "path": "clip.mp4"} for x in content] * count, "label": ["NEU", "ANG"] * count}
        mirror = Dataset.from_dict(cells).cast_column("video", Video(decode=False))
        mirror.to_parquet(tmp_path / "mirror" / f"{split}-00000-of-00001.parquet")

    main_of("cremad_av", monkeypatch, "--hub_id", tmp_path / "mirror", *QUICK, "--arms", "ce", "audio alone")

    report = json.loads((tmp_path / "runs" / "cremad_av" / "report.json").read_text())
    assert report["samples"] == {"train": 36, "validation": 4, "test": 4}
    assert [run["arm"] for run in report["runs"]] == ["ce", "audio alone"]
