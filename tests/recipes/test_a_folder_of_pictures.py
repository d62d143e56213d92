"""A folder of somebody's pictures through the recipe of ImageNet: every name and number that it leaves is of these pictures.

Eight classes of emoji, drawn from OpenMoji's font: trained on, reported, published to a Hub, and classified from there.
"""

import json
import re

import pytest
import yaml

import processes
from hf_colearn.corpora.emoji import load_emoji
from hf_colearn.hub.record import TrainingRecord
from hub_double import HubDouble, run_child
from tiny_recipes import ROOT


RECIPE = ROOT / "recipes" / "imagenet_l2v.py"
PER_CLASS = {"train": 20, "test": 5}
NAMED = "emoji8 (8 classes; 144 training, 16 validation and 40 test pictures)"  # a tenth of 160 validates
FALSE = re.compile(r"ImageNet-1k|ILSVRC|77\.83|78\.54|apache")
PUBLISH_AND_CLASSIFY = """
import json
from pathlib import Path
from transformers import pipeline
from hf_colearn.hub.publish import publish

url = publish(RUNS, "tester/emoji8").url
classify = pipeline("image-classification", model="tester/emoji8", top_k=8)
pictures = sorted(Path(PICTURES).glob("*/*.png"))
found = classify([str(path) for path in pictures])
right = [best["label"] == path.parent.name for path, (best, *_) in zip(pictures, found, strict=True)]
print(json.dumps([url, sum(right), len(right), sorted(entry["label"] for entry in found[0])]))
"""


def write_emoji(folder):
    """25 emoji of each of 8 categories as PNG files, in folders as ImageNet's: 200 pictures."""
    data = load_emoji(size=32, seed=0)
    for split, name in (("train", "train"), ("test", "val")):
        labels = data[split]["label"][:]
        for label, category in enumerate(data[split].features["label"].names):
            rows = [row for row, other in enumerate(labels) if other == label][: PER_CLASS[split]]
            of_class = folder / name / category.lower().replace(" & ", "_and_")
            of_class.mkdir(parents=True)
            for row in data[split].select(rows):
                row["image"].save(of_class / f"{row['emoji']}.png")
    return folder


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("emoji")
    pictures = write_emoji(folder / "emoji8")
    asked = ["--small", "--data_dir", pictures, "--arms", "baseline", "random prompts", "--num_train_epochs", "8"]
    asked += [
        "--student",
        "resnet_tiny",
        "--drop_path",
        "0",
        "--learning_rate",
        "1e-2",
        "--ema_decay",
        "0.5",
        "--mixup",
        "0",
    ]
    asked += ["--label_smoothing", "0", "--per_device_train_batch_size", "16"]
    asked += ["--template", "a photo of {name}"]
    done = processes.forked(RECIPE, *asked, folder=folder)
    return pictures, folder / "runs" / "imagenet_l2v", done.stdout


def test_table_report_record_and_card_name_these_pictures_and_no_others(finished):
    pictures, runs, output = finished
    report = json.loads((runs / "report.json").read_text())
    record = TrainingRecord.load(runs / "student")
    card = (runs / "student" / "README.md").read_text()
    index = yaml.safe_load(card.split("---")[1])["model-index"][0]["results"][0]
    classes = sorted(path.name for path in (pictures / "train").iterdir())
    assert NAMED in output and report["dataset"] == NAMED and record.dataset["name"] == NAMED
    assert index["dataset"] == {"name": NAMED, "type": "emoji8", "split": "test"}
    assert report["samples"] == {"train": 144, "validation": 16, "test": 40} and record.dataset["samples"] == 40
    assert report["published"] is None and "license" not in card.split("---")[1]
    assert list(json.loads((runs / "student" / "config.json").read_text())["id2label"].values()) == classes
    assert f"8 classes: `{classes[0]}`, `{classes[1]}`" in card
    measured = report["runs"][1]["metrics"]["accuracy"]
    assert record.scores["accuracy"] == index["metrics"][0]["value"] == measured
    command = "hf-colearn recipe imagenet_l2v --run --small --data_dir emoji8 "
    for page in ("report.html", "report.md", "report.json", "student/README.md", "student/colearning.json"):
        text = (runs / page).read_text()
        assert not FALSE.findall(text) and str(pictures.parent) not in text, page
        assert NAMED in text and (command in text or page == "student/colearning.json"), page


def test_the_card_is_checked_on_these_pictures(finished, tmp_path):
    pictures, runs, _ = finished
    asked = [
        "--small",
        "--data_dir",
        pictures,
        "--drop_path",
        "0",
        "--student",
        "resnet_tiny",
        "--check",
        runs / "student",
    ]
    done = processes.forked(RECIPE, *asked, folder=tmp_path)
    assert "The card says what was measured (within 0.013, half of one of 40 test samples)." in done.stdout


def test_a_published_student_gets_as_many_pictures_right_as_its_card_says(finished, tmp_path):
    pictures, runs, _ = finished
    places = f"RUNS, PICTURES = {str(runs)!r}, {str(pictures / 'val')!r}\n"
    with HubDouble() as hub:
        url, right, number, labels = run_child(places + PUBLISH_AND_CLASSIFY, hub, tmp_path / "home")
    assert url.endswith("/tester/emoji8")
    assert number == 40 and right > 8  # 5 by chance
    assert right / number == pytest.approx(TrainingRecord.load(runs / "student").scores["accuracy"])
    assert labels == sorted(path.name for path in (pictures / "val").iterdir())
