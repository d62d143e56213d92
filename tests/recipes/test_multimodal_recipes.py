"""The multimodal recipes of digits, stamps and tweets, on small data in the form that their users have."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import sklearn.datasets
import torch
from datasets import ClassLabel
from huggingface_hub import ModelCard
from peft import PeftModel
from PIL import Image
from transformers import AutoProcessor, AutoTokenizer, BertModel, ResNetModel
from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

import child_python
import processes
from hf_colearn import CoLearningForMultimodalClassification
from hf_colearn.corpora.audio_visual import frame_processor
from hf_colearn.corpora.av_digits import load_av_digits
from hf_colearn.corpora.image_audio import with_av_inputs
from hf_colearn.corpora.image_text import ImageTextOptions
from hf_colearn.corpora.sarcasm import CLASSES, load_sarcasm
from hf_colearn.corpora.twitter2015 import load_twitter2015
from hf_colearn.data.multimodal import check_modalities, only_modality
from hf_colearn.experiments.tiny_models import bert_tiny, resnet_tiny
from tiny_corpora import write_dtmf_digits, write_mirror, write_table
from tiny_recipes import DIGITS, QUICK, TWEETS, main_of
from tiny_teachers import tokenizer


ROOT = Path(__file__).parents[2]


def keys_of(metric, *modalities):
    """Of the fused prediction, of the heads and, by fusion, of each modality alone."""
    return {metric, *(f"{metric}_{name}" for name in modalities), *(f"{metric}_given_{name}" for name in modalities)}


def learns_alpha(report):
    """Alpha starts at a half and has moved after the first step, in the learned arm alone."""
    for run in report["runs"]:
        alphas = [entry["alpha"] for entry in run["history"] if "alpha" in entry]
        measured = [entry["hypergradient"] for entry in run["history"] if "hypergradient" in entry]
        if run["arm"] != "learned":
            assert not measured and set(alphas) <= {0.5}
            continue
        assert alphas[0] == 0.5 and alphas[1] != 0.5 and np.isfinite(measured).all()
        step = report["options"]["alpha_learning_rate"] * measured[0]
        assert alphas[1] == pytest.approx(0.5 - np.clip(step, -0.1, 0.1))  # max_step


# ---- digits ----
@pytest.fixture(scope="module", autouse=True)
def first_digits():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sklearn.datasets, "load_digits", processes.first_digits)
        yield


@pytest.fixture(scope="module")
def phones(tmp_path_factory):
    folder = tmp_path_factory.mktemp("phones")
    write_dtmf_digits(folder, clips_per_digit=42)  # by FSDD's rule, takes 0 to 4 of the seven are for testing
    return folder


ARMS = {"ce": "baseline", "learned": "colearned", "misaligned pairs": "null"}
ARMS |= {"image alone": "reference", "late ensemble": "reference"}


@pytest.fixture(scope="module")
def digits(phones, tmp_path_factory):
    folder = tmp_path_factory.mktemp("digits")
    asked = [*DIGITS, "--audio_dir", phones, "--arms", *ARMS]
    return folder, asked, main_of("av_digits", folder, *asked)


def test_digits_report_every_arm_by_modality_and_subset(digits):
    _, _, report = digits
    assert {run["arm"]: run["kind"] for run in report["runs"]} == ARMS
    assert report["processes"] == 1 and report["samples"]["test"] == 304  # half of 600 pictures, some again
    late = report["runs"][4]
    assert late["metrics"]["accuracy_image"] == late["metrics"]["accuracy_given_image"]
    assert [entry["step"] for entry in late["history"] if "loss" in entry] == [1, 2, 3]  # of 3, as ce has
    for run in (*report["runs"][:3], late):
        wanted = keys_of("accuracy", "image", "audio") | keys_of("map", "image", "audio")
        assert wanted <= set(run["metrics"])
        assert run is late or any(entry.get("eval_modality_gap_image_audio", -1) >= 0 for entry in run["history"])
    assert {"accuracy", "map"} <= set(report["runs"][3]["metrics"])
    assert not any("audio" in key or "given" in key for key in report["runs"][3]["metrics"])
    has_term = {run["arm"] for run in report["runs"] if any("loss_contrastive" in entry for entry in run["history"])}
    assert has_term == {"learned", "misaligned pairs"}
    learns_alpha(report)


def test_digits_leave_the_learned_arms_model_with_its_card(digits):
    folder, _, report = digits
    results = folder / "runs" / "av_digits"
    written = {str(path.relative_to(results)) for path in results.rglob("*") if path.is_file()}
    processors = {f"model/{name}/processor_config.json" for name in ("image", "audio")}
    assert {"model/model.safetensors", "model/colearning.json", "model/README.md", *processors} <= written
    card, metrics = ModelCard.load(results / "model" / "README.md"), report["runs"][1]["metrics"]
    named = {result.metric_type: result.metric_value for result in card.data.eval_results}
    measured = {key: value for key, value in metrics.items() if "excluded" not in key}
    assert [key in ("accuracy", "map") for key in measured] == [True, True, *[False] * 8]
    assert list(named)[-2:] == ["accuracy", "mean_average_precision"]  # fused last
    assert named == {{"map": "mean_average_precision"}.get(key, key): value for key, value in measured.items()}
    assert card.data.eval_results[0].dataset_name.startswith("AV-digits")
    for told in ("LearnedAlpha(", "ContrastiveAlignment(", *report["comparison"]["verdict"].splitlines()):
        assert told in card.text
    assert "from 0.500 at first to 0." in card.text and str(folder) not in card.text
    assert "--arms ce learned 'misaligned pairs' 'image alone' 'late ensemble'" in card.text


WITHOUT_US = """
import sys
for name in ("hf_colearn", "torchaudio"):
    sys.modules[name] = None
import numpy as np
from PIL import Image
from transformers import AutoModel, AutoProcessor

folder = sys.argv[1]
image, audio = (AutoProcessor.from_pretrained(folder, subfolder=s, trust_remote_code=True) for s in ("image", "audio"))
pixels = image(Image.new("L", (28, 28), 99), return_tensors="pt")["pixel_values"]
sound = audio(np.random.default_rng(0).normal(size=8000), sampling_rate=8000, return_tensors="pt")["pixel_values"]
model = AutoModel.from_pretrained(folder, trust_remote_code=True)
print(tuple(model(image_pixel_values=pixels, audio_pixel_values=sound).logits.shape))
"""


def test_the_saved_digits_model_and_its_processors_load_where_hf_colearn_is_not(digits, tmp_path):
    folder = digits[0] / "runs" / "av_digits" / "model"
    env = os.environ | {"PYTHONPATH": "", "HF_MODULES_CACHE": str(tmp_path)}
    done = child_python.run(WITHOUT_US, str(folder), env=env, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "(1, 10)"


def test_the_saved_digits_model_gives_the_reported_numbers(digits, phones):
    folder, _, report = digits
    saved = folder / "runs" / "av_digits" / "model"
    model = CoLearningForMultimodalClassification.from_pretrained(saved).eval()
    processors = {name: AutoProcessor.from_pretrained(saved, subfolder=name) for name in ("image", "audio")}
    test = with_av_inputs(load_av_digits(phones), processors)["test"].with_format("torch")[:]
    inputs = {name: test[name] for name in ("image_pixel_values", "audio_pixel_values")}
    with torch.no_grad():
        whole, seen = model(**inputs), model(image_pixel_values=inputs["image_pixel_values"])
    metrics = report["runs"][1]["metrics"]
    for logits, key in (
        (whole.logits, "accuracy"),
        (whole.modality_logits["audio"], "accuracy_audio"),
        (seen.logits, "accuracy_given_image"),
    ):
        right = (logits.argmax(-1) == test["labels"]).double().mean().item()
        assert metrics[key] == pytest.approx(right, abs=1.5 / 304)  # a tie may fall otherwise in another batch


def test_finished_runs_are_read_back_and_others_are_refused_by_name(digits, phones, tmp_path):
    folder, asked, report = digits
    finished = {path: path.stat().st_mtime_ns for path in folder.rglob("run.json")}
    assert len(finished) == 5
    again = main_of("av_digits", folder, *asked, "--resume_from_checkpoint", "true")
    assert again["runs"] == report["runs"]
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("run.json")} == finished
    with pytest.raises(ValueError, match=r"learned.seed-0' has objective=.*0\.07.*, and .*0\.2.* is asked for now"):
        main_of("av_digits", folder, *asked, "--resume_from_checkpoint", "true", "--temperature", "0.2")


def test_two_processes_train_adapters_and_report_once(phones, tmp_path):
    asked = [*DIGITS, "--audio_dir", phones, "--arms", "ce", "learned", "--lora", "--alpha_outer_split", "0.1"]
    options = {"folder": tmp_path, "processes": 2, "load_digits": processes.first_digits}
    done = processes.forked(ROOT / "recipes" / "av_digits.py", *asked, **options)
    assert done.stdout.count("Written:") == 1
    report = json.loads((tmp_path / "runs" / "av_digits" / "report.json").read_text())
    assert report["processes"] == 2 and [run["arm"] for run in report["runs"]] == ["ce", "learned"]
    learns_alpha(report)

    saved = tmp_path / "runs" / "av_digits" / "model"  # merged weights, and adapters on their base
    merged, base = (CoLearningForMultimodalClassification.from_pretrained(x).eval() for x in (saved, saved / "base"))
    adapted = PeftModel.from_pretrained(base, saved / "adapter").eval()
    inputs = {"image_pixel_values": torch.randn(2, 1, 28, 28), "audio_pixel_values": torch.randn(2, 1, 16, 16)}
    with torch.no_grad():
        torch.testing.assert_close(adapted(**inputs).logits, merged(**inputs).logits, rtol=1e-3, atol=1e-4)
    adapters = {
        name.split(".encoders.")[1].split(".")[0] for name, _ in adapted.named_parameters() if "lora_A" in name
    }
    assert adapters == {"image", "audio"}


def test_label_fitting_goes_from_one_hot_to_uniform_labels(tmp_path):
    """Its smoke test as documented, without any data."""
    report = main_of("label_fitting", tmp_path, *DIGITS, "--smoothing", "0.5")
    assert [run["arm"] for run in report["runs"]] == ["one-hot", "smoothed 0.5", "uniform"]
    first = [next(entry["loss"] for entry in run["history"] if "loss" in entry) for run in report["runs"]]
    assert first[1] == pytest.approx((first[0] + first[2]) / 2, abs=1e-4)  # cross-entropy is linear in the labels
    uniform = [entry["loss"] for entry in report["runs"][2]["history"] if "loss" in entry]
    assert min(uniform) >= np.log(10)  # at least the labels' own entropy
    assert not any("loss_contrastive" in entry for run in report["runs"] for entry in run["history"])
    results = tmp_path / "runs" / "label_fitting"
    assert (results / "gaps.png").is_file()
    model = CoLearningForMultimodalClassification.from_pretrained(results / "model")
    assert model.config.fusion == "sum"  # late fusion


# ---- stamps ----
def test_stamps_are_seen_read_and_heard(tmp_path):
    stamps = write_table(tmp_path / "stamps")
    arms = ["ce", "learned", "text alone", "speech alone"]
    asked = ["--image_size", "16", "--seconds", "0.2", "--fusion", "lstm", "--text", "fr", "--seed", "3"]
    report = main_of("stamps", tmp_path, "--data_dir", stamps, *QUICK, *asked, "--arms", *arms)
    assert [run["arm"] for run in report["runs"]] == arms
    assert report["samples"] == {"train": 18, "validation": 6, "test": 6}
    pairs = {f"accuracy_given_{pair}" for pair in ("image_text", "image_speech", "text_speech")}
    assert keys_of("accuracy", "image", "text", "speech") | pairs <= set(report["runs"][0]["metrics"])
    assert {"accuracy", "macro_f1"} == set(report["runs"][2]["metrics"]) == set(report["runs"][3]["metrics"])
    learns_alpha(report)

    saved = tmp_path / "runs" / "stamps" / "model"
    model = CoLearningForMultimodalClassification.from_pretrained(saved).eval()
    assert model.modalities == ("image", "text", "speech") and model.config.id2label == {0: "animals", 1: "food"}
    assert model.config.fusion == "lstm"
    words = AutoTokenizer.from_pretrained(saved / "text")
    read = {f"text_{name}": cells for name, cells in words(["Un plat."], return_tensors="pt").items()}
    pixels = ViTImageProcessorPil.from_pretrained(saved / "image")([Image.new("RGB", (9, 9))], return_tensors="pt")
    with torch.no_grad():
        outputs = model(**read, image_pixel_values=pixels["pixel_values"])
    assert outputs.logits.shape == (1, 2) and outputs.modality_mask.tolist() == [[True, True, False]]


def test_stamps_without_a_label_are_pairs_of_a_weak_modality(tmp_path):
    """Of 18 stamps to train on, 3 of each of two categories are labelled; every loss of labels is over these."""
    stamps = write_table(tmp_path / "stamps")
    arms = ["ce", "alpha 0.3", "learned by modality", "speech alone", "late ensemble"]
    asked = ["--labels_per_class", "3", "--labelled_per_batch", "2", "--alphas", "0.3", "--alpha_outer_split", "0.4"]
    report = main_of("weak_modality", tmp_path, "--data_dir", stamps, *QUICK, *asked, "--arms", *arms)
    runs = {run["arm"]: run for run in report["runs"]}
    assert list(runs) == arms and report["student"] is None
    for arm, run in runs.items():
        labelled = 4 if arm.startswith("learned") else 6  # of 6, two fifths are for the alpha
        assert (run["num_labelled"], run["num_train"]) == (labelled, 18 - 6 + labelled), arm
    parts = keys_of("accuracy", "image", "text", "speech")
    assert parts <= set(runs["alpha 0.3"]["metrics"]) and parts <= set(runs["late ensemble"]["metrics"])
    assert {entry["alpha"] for entry in runs["alpha 0.3"]["history"] if "alpha" in entry} == {0.3}
    assert any("hypergradient" in entry for entry in runs["learned by modality"]["history"])


# ---- tweets ----
COLOURS = {0: (255, 0, 0), 1: (0, 0, 255), 2: (0, 255, 0)}
COUNTS = {"train": 12, "valid": 4, "test": 4}


def write_sarcasm(folder):
    """MMSD2.0's form: red pictures and plain words, or blue ones and "oh great"."""
    (folder / "dataset_image").mkdir(parents=True), (folder / "text_json_final").mkdir()
    number = 0
    for split, count in COUNTS.items():
        entries = []
        for i in range(count):
            number += 1
            Image.new("RGB", (40, 30), COLOURS[i % 2]).save(folder / "dataset_image" / f"{number}.jpg", quality=100)
            text = f"{('rain', 'oh great rain')[i % 2]} on day {number} of this very long week in town"
            entries.append({"image_id": number, "text": text, "label": i % 2})
        (folder / "text_json_final" / f"{split}.json").write_text(json.dumps(entries))
    return folder


TARGETS = ("Lydia", "Tyga", "Pedro", "Cooperstown", "Sherlock Holmes")


def write_twitter(folder):
    """Every third tweet is the same tweet with the same picture, about something else."""
    (folder / "twitter2015").mkdir(parents=True), (folder / "twitter2015_images").mkdir()
    for label, colour in COLOURS.items():
        Image.new("RGB", (40, 30), colour).save(folder / "twitter2015_images" / f"{label}.jpg", quality=100)
    for split, count in (("train", 15), ("dev", 3), ("test", 6)):
        lines = ["index\t#1 Label\t#2 ImageID\t#3 String\t#3 String"]
        lines += [f"{i}\t{i % 3}\t{i % 3}.jpg\ta {i % 3} day that $T$ wins\t{TARGETS[i // 3]}" for i in range(count)]
        (folder / "twitter2015" / f"{split}.tsv").write_text("\n".join(lines) + "\n")
    return folder


WRITE = {"sarcasm_it": write_sarcasm, "twitter2015_it": write_twitter}
NAMES = {"sarcasm_it": list(CLASSES), "twitter2015_it": ["negative", "neutral", "positive"]}
FUSIONS = {
    "sarcasm_it": "film",
    "twitter2015_it": "mmtm",
}  # others: digits concat and sum, stamps lstm, the mirror weighted
SAMPLES = {
    "sarcasm_it": {"train": 12, "validation": 4, "test": 4},
    "twitter2015_it": {"train": 15, "validation": 3, "test": 6},
}


@pytest.fixture(scope="module", params=WRITE)
def tweets(request, tmp_path_factory):
    name, folder = request.param, tmp_path_factory.mktemp(request.param)
    data = WRITE[name](folder / "data")
    arms = ["ce", "learned", "image alone", "text alone"]
    asked = ["--alpha_outer_split", "0.4", "--modality_dropout", "0.3", "--learned_temperature"]
    asked += ["--fusion", FUSIONS[name]]
    return name, folder, main_of(name, folder, "--data_dir", data, *TWEETS, *asked, "--arms", *arms)


def test_tweets_report_every_arm_by_modality(tweets):
    name, folder, report = tweets
    assert report["samples"] == SAMPLES[name]
    for run in report["runs"][:2]:
        assert keys_of("accuracy", "image", "text") | keys_of("macro_f1", "image", "text") == set(run["metrics"])
    assert [set(run["metrics"]) for run in report["runs"][2:]] == [{"accuracy", "macro_f1"}] * 2
    learns_alpha(report)
    results = folder / "runs" / name
    if name == "twitter2015_it":  # the target is read, too: the test texts are there twice, about two things
        latents = np.load(results / "text-alone" / "seed-0" / "arrays.npz")["test/latents"]
        assert len(np.unique(latents.round(4), axis=0)) == len(latents) == 6


def test_the_saved_model_reads_a_tweet_and_its_picture(tweets):
    name, folder, _ = tweets
    saved = folder / "runs" / name / "model"
    model = CoLearningForMultimodalClassification.from_pretrained(saved).eval()
    assert list(model.config.id2label.values()) == NAMES[name] and model.modalities == ("image", "text")
    assert model.config.fusion == FUSIONS[name] and model.config.learned_temperature
    words, processor = (
        AutoTokenizer.from_pretrained(saved / "text"),
        ViTImageProcessorPil.from_pretrained(saved / "image"),
    )
    text = {
        f"text_{key}": cells
        for key, cells in words(["oh great", "a day in town"], padding=True, return_tensors="pt").items()
    }
    pixels = processor([Image.new("RGB", (50, 20), "red")] * 2, return_tensors="pt")["pixel_values"]
    assert (
        pixels.shape == (2, 3, 32, 32)
        and words.pad_token_id == model.config.modalities["text"].backbone_config.pad_token_id
    )
    with torch.no_grad():
        both, read = model(image_pixel_values=pixels, **text), model(**text)
    assert both.logits.shape == (2, len(NAMES[name])) and (read.logits[0] != read.logits[1]).any()
    torch.testing.assert_close(both.subset_logits["text"], read.logits)


def test_tweets_start_from_pretrained_backbones(tmp_path):
    """A learning rate of 0 leaves them as they were, so that they can be told from those of a fresh model."""
    data, words = write_twitter(tmp_path / "data"), tokenizer()
    torch.manual_seed(1)
    stock = {"text": BertModel(bert_tiny(vocab_size=len(words))), "image": ResNetModel(resnet_tiny())}
    for modality, model in stock.items():
        model.save_pretrained(tmp_path / modality)
    words.save_pretrained(tmp_path / "text")
    ViTImageProcessorPil(image_mean=[0.2] * 3, image_std=[0.5] * 3).save_pretrained(tmp_path / "image")
    asked = ["--text_backbone", tmp_path / "text", "--image_backbone", tmp_path / "image", "--learning_rate", "0"]
    main_of("twitter2015_it", tmp_path, "--data_dir", data, *TWEETS, *asked, "--arms", "ce", "constant")
    saved = tmp_path / "runs" / "twitter2015_it" / "model"
    model = CoLearningForMultimodalClassification.from_pretrained(saved)
    for modality, backbone in stock.items():
        ours = dict(model.encoders[modality].backbone.named_parameters())
        theirs = {key: value for key, value in backbone.named_parameters() if key in ours}
        assert len(theirs) == len(ours)
        assert all(torch.equal(ours[key], value) for key, value in theirs.items())
    assert ViTImageProcessorPil.from_pretrained(saved / "image").image_mean == (0.2, 0.2, 0.2)
    assert AutoTokenizer.from_pretrained(saved / "text").get_vocab() == words.get_vocab()


def test_a_mirror_is_read_instead_of_a_folder(tmp_path):
    mirror = write_mirror(tmp_path, ("train", "validation", "test"), ClassLabel(names=["no", "yes"]))
    asked = ["--fusion", "weighted", "--objective", "distribution", "--arms", "ce", "heuristic"]
    report = main_of("sarcasm_it", tmp_path, "--hub_id", mirror, *TWEETS, *asked)
    assert any("loss_distribution" in entry for entry in report["runs"][1]["history"])
    assert report["samples"] == {"train": 2, "validation": 2, "test": 2}
    model = CoLearningForMultimodalClassification.from_pretrained(tmp_path / "runs" / "sarcasm_it" / "model")
    assert model.config.id2label == {0: "no", 1: "yes"} and model.config.fusion == "weighted"


def test_a_tweet_becomes_tokens_once_and_pixels_whenever_it_is_read(tmp_path):
    words, options = tokenizer(), ImageTextOptions(max_tokens=6, image_size=8)
    splits = load_sarcasm(write_sarcasm(tmp_path / "data"))
    data = options.inputs(splits, frame_processor(8), words)
    row = data["test"][0]
    entry = json.loads((tmp_path / "data" / "text_json_final" / "test.json").read_text())[0]
    assert set(row) == {
        "image_pixel_values", "text_input_ids", "text_token_type_ids", "text_attention_mask", "labels"
    }  # fmt: skip
    assert row["text_input_ids"] == words(entry["text"])["input_ids"][:5] + [words.sep_token_id]
    red = [(1 - 0.485) / 0.229, -0.456 / 0.224, -0.406 / 0.225]  # ImageNet's mean and deviation
    assert row["image_pixel_values"].shape == (3, 8, 8)
    assert row["image_pixel_values"].mean(dim=(1, 2)).tolist() == pytest.approx(red, abs=0.05)
    assert row["labels"] == 0 and data["train"][5]["sample_id"] == 5 and data["train"][5]["labels"] == 1

    for part in data.values():
        check_modalities(part, ("image", "text"))
    assert set(only_modality(data["test"], "image")[0]) == {"pixel_values", "labels"}
    assert only_modality(data["train"], "text")[3]["sample_id"] == 3
    pictures = tmp_path / "data" / "dataset_image"
    Image.fromarray(np.arange(1200, dtype=np.uint8).reshape(30, 40)).save(pictures / "1.jpg")
    train = data["train"]
    assert not torch.equal(train[0]["image_pixel_values"], train[0]["image_pixel_values"])  # another crop
    test = options.inputs({"test": splits["train"]}, frame_processor(8), words)["test"]
    assert torch.equal(test[0]["image_pixel_values"], test[0]["image_pixel_values"])
    (pictures / "1.jpg").write_bytes(b"no jpeg")
    with pytest.raises(ValueError, match=r"in row .*1\.jpg \('.*1\.jpg'\) cannot be decoded"):
        train[0]
    assert only_modality(train, "text")[0]["labels"] == 0  # reads no picture


def test_a_target_enters_as_the_second_of_a_pair(tmp_path):
    words = tokenizer()
    data = ImageTextOptions(image_size=8).inputs(
        load_twitter2015(write_twitter(tmp_path / "data")), frame_processor(8), words, "target"
    )
    row, pair = data["test"][4], words("a 1 day that $T$ wins", "Tyga")
    assert row["text_input_ids"] == pair["input_ids"] and row["text_token_type_ids"] == pair["token_type_ids"]
    assert sum(row["text_token_type_ids"]) == len(words("Tyga")["input_ids"]) - 1 and row["labels"] == 1


# ---- what is refused, before any data is read ----
RECIPES = ("av_digits", "stamps", "label_fitting", "sarcasm_it", "twitter2015_it")


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_without_data_says_what_to_pass(name, tmp_path):
    wanted = {"av_digits": "--audio_dir", "label_fitting": "--audio_dir"}.get(name, "--data_dir")
    small = [] if wanted == "--audio_dir" else ["--small"]
    with pytest.raises(ValueError, match=f"no data: .*pass {wanted}"):
        main_of(name, tmp_path, *small)
    if name == "stamps":
        with pytest.raises(ValueError, match="apt-get install tuxpaint-stamps-default .* /usr/share/tuxpaint/stamps"):
            main_of(name, tmp_path)


@pytest.mark.parametrize("name", RECIPES)
def test_an_unknown_arm_is_refused_first(name, tmp_path):
    with pytest.raises(ValueError, match="there is no arm 'depth alone'"):
        main_of(name, tmp_path, "--arms", "depth alone")


@pytest.mark.parametrize(
    ("name", "argv", "error", "message"),
    [
        ("av_digits", ["--temperature", "0"], ValueError, "temperature=0"),
        ("stamps", ["--objective", "x"], ValueError, "objective='x' is unknown"),
        ("stamps", ["--arms", "learned"], ValueError, "baseline"),
        ("stamps", ["--data_dir", "."], FileNotFoundError, "holds no stamps"),
        ("sarcasm_it", ["--alpha", "2"], ValueError, "alpha"),
        ("sarcasm_it", ["--lora", "--learned_temperature"], ValueError, "learned_temperature=True is frozen"),
        ("sarcasm_it", ["--small", "--data_dir", "."], FileNotFoundError, "none of the folders text, text_json_final"),
        ("sarcasm_it", ["--small", "--data_dir", ".", "--texts", "txt"], ValueError, "texts='txt' is unknown"),
        ("twitter2015_it", ["--small", "--data_dir", ".", "--hub_id", "a/b"], ValueError, "one of the two"),
        ("twitter2015_it", ["--small", "--data_dir", "."], FileNotFoundError, "train.tsv"),
        ("label_fitting", ["--small", "--smoothing", "1.5"], ValueError, r"share=1.5 is outside \[0, 1\]"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused_by_name(name, argv, error, message, tmp_path):
    with pytest.raises(error, match=message):
        main_of(name, tmp_path, *argv)
