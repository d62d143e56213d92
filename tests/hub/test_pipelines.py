"""Published students from the Hub, each in a process where the other ways are impossible: with `import hf_colearn`; with
`trust_remote_code=True` where hf_colearn cannot be imported; as stock exports where neither is. Logits and pipelines.
"""

import copy
import json
import math
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torchaudio
from PIL import Image
from transformers import AutoProcessor, Wav2Vec2FeatureExtractor, WhisperFeatureExtractor, pipeline
from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

import families
import tiny
from hf_colearn import CoLearningForAudioClassification
from hf_colearn.experiments.tiny_models import trained_tokenizer
from hf_colearn.models.grayscale import GrayscaleImageProcessor
from hf_colearn.models.lora import save_student, with_lora
from hf_colearn.models.spectrogram import SpectrogramFeatureExtractor
from hub_double import HubDouble, run_child


LABELS = {0: "cat", 1: "dog", 2: "owl"}
RATE = 22_050  # of the recordings; no student hears it
SENTENCES = ["a small owl sleeps", "the dog barks at a cat"]
TASKS = {
    "picture": "image-classification",
    "grey": "image-classification",
    "wave": "audio-classification",
    "whisper": "audio-classification",
    "spectrogram": "audio-classification",
    "text": "text-classification",
}
SIZE = {"height": 8, "width": 8}

# A machine whose torchaudio loads, as the guard lets it here, and that has no hf_colearn.
WITHOUT_HF_COLEARN = f"""
import runpy, sys
guard = {str(Path(__file__).parents[2] / "hf_colearn" / "utils" / "torchaudio_guard.py")!r}
runpy.run_path(guard)["import_torchaudio"]()
sys.modules["hf_colearn"] = None  # to import it fails, and to look for it finds nothing
"""

CHILD = """
import builtins, copy, json, sys
import numpy as np, torch, transformers
from peft import PeftModel
from PIL import Image
from transformers import pipeline

builtins.input = lambda *_: sys.exit("a question was asked at the terminal")
folder, tasks, suffix, trust = FOLDER, TASKS, SUFFIX, TRUST
pictures, waves = (np.load(f"{folder}/{name}.npy") for name in ("pictures", "waves"))
sentences = json.load(open(f"{folder}/sentences.json"))
logits, classes, found = {}, {}, {}

def keep(name, model):
    # Weights that are mapped from a file lie at any address, where a convolution may round otherwise: a copy's do not.
    with torch.no_grad():
        output = copy.deepcopy(model)(**torch.load(f"{folder}/{name}.pt", weights_only=True))
    logits[name] = output.logits
    if not suffix:
        logits[f"{name}'s latents"] = output.latents
    classes[name] = type(model).__module__

for name, task in tasks.items():
    repo = f"tester/{name}{suffix}"
    if name == "lora":
        auto = transformers.AutoModelForImageClassification
        keep(name, auto.from_pretrained(repo, trust_remote_code=trust))
        if suffix:
            continue
        logits["merged"] = logits["lora"]
        base = auto.from_pretrained(repo, subfolder="base", trust_remote_code=trust)
        keep(name, PeftModel.from_pretrained(base, repo, subfolder="adapter").eval())
        continue
    classify = pipeline(task, model=repo, trust_remote_code=trust)
    keep(name, classify.model)
    if task == "image-classification":
        raw = [Image.fromarray(picture) for picture in pictures]
        if name == "grey":
            raw = [picture.convert("L") for picture in raw]
            if suffix:  # a stock processor takes greys as arrays
                raw = [np.asarray(picture)[..., None] for picture in raw]
    elif task == "audio-classification":
        key = {True: "raw", None: "array"}[trust]
        raw = [{key: wave, "sampling_rate": 22050} for wave in waves]
    else:
        raw = sentences
    found[name] = [classify(raw[0], top_k=2), classify(raw, batch_size=2, top_k=3)]
    if trust:
        classify.save_pretrained(f"again/{name}")
torch.save(logits, OUT)
print(json.dumps([found, classes]))
"""

PUBLISH = """
from pathlib import Path
from huggingface_hub import HfApi

for folder in sorted(Path(FOLDER).iterdir()):
    if folder.is_dir():
        HfApi().create_repo(f"tester/{folder.name}")
        HfApi().upload_folder(repo_id=f"tester/{folder.name}", folder_path=folder)
"""

AUTO_PEFT = """
import os
from peft import AutoPeftModel
with torch.no_grad():
    adapted = AutoPeftModel.from_pretrained("tester/adapter", import_allowlist=["hf_colearn.models.student"])
    logits["auto"] = adapted.eval()(**torch.load(f"{FOLDER}/lora.pt", weights_only=True)).logits
torch.save(logits, OUT)
"""


def make_students():
    """Students with weights that no initialisation gives, the processor that is published with each, and what it reads."""
    names = {"num_labels": None, "id2label": LABELS}
    seen = CoLearningForAudioClassification.from_backbone(
        tiny.resnet(), latent_dim=24, id2label=LABELS, latent_norm="none"
    )
    of_family = {
        "picture": families.student("vit", tiny.vit(num_channels=3), head="auxiliary", **names),
        "grey": families.student("resnet", latent_norm="none", **names),
        "wave": families.student("wav2vec2", latent_norm="none", **names),
        "whisper": families.student("whisper", head="auxiliary", **names),
        "spectrogram": seen.eval(),
        "text": families.student("bert", head="auxiliary", **names),
    }
    processors = {
        "picture": ViTImageProcessorPil(size=SIZE),
        "grey": GrayscaleImageProcessor(size=SIZE),
        "wave": Wav2Vec2FeatureExtractor(),
        "whisper": WhisperFeatureExtractor(chunk_length=1),
        "spectrogram": SpectrogramFeatureExtractor(size=(16, 12), sampling_rate=8000, n_fft=512),
        "text": trained_tokenizer(SENTENCES, vocab_size=90),
    }
    students = {name: families.stir(student) for name, student in of_family.items()}
    for weight in students["spectrogram"].latent_head.parameters():
        weight.data.mul_(0.01)  # or the softmax of these random weights is 1 for one class, and tells nothing
    return students, processors


def expected_inputs(pictures, waves, processors):
    """What each student is to read of the first raw input, worked out here."""
    pixels = torch.from_numpy(pictures[0]).permute(2, 0, 1)[None] / 255
    heard = {rate: torchaudio.functional.resample(torch.from_numpy(waves[0]), RATE, rate) for rate in (8000, 16_000)}
    wave = heard[16_000]
    mel = torchaudio.transforms.MelSpectrogram(8000, 512, 200, hop_length=8000 // 11, n_mels=16, pad_mode="constant")
    padded = torch.zeros(8000)
    padded[: len(heard[8000])] = heard[8000]
    decibel = torchaudio.transforms.AmplitudeToDB("power", 80.0)(mel(padded)[None, :, :12])
    return {
        "picture": {"pixel_values": (pixels - 0.5) / 0.5},
        # All three channels of these pictures are equal.
        "grey": {"pixel_values": (pixels[:, :1] - 0.5) / 0.5},
        "wave": {"input_values": ((wave - wave.mean()) / (wave.var(unbiased=False) + 1e-7).sqrt())[None]},
        "whisper": processors["whisper"](wave.numpy(), sampling_rate=16_000, return_tensors="pt"),
        "spectrogram": {"pixel_values": ((decibel - decibel.mean()) / decibel.std())[None]},
        "text": processors["text"](SENTENCES[0], return_tensors="pt"),
    }


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """The folders of students, their exports and a LoRA student; raw inputs, and the logits that are to come back."""
    folder = tmp_path_factory.mktemp("published")
    rng = np.random.default_rng(0)
    pictures = np.repeat(rng.integers(0, 256, (2, 8, 8, 1), dtype=np.uint8), 3, axis=3)
    waves = rng.normal(0, 0.1, (2, RATE // 2)).astype(np.float32)
    np.save(folder / "pictures.npy", pictures), np.save(folder / "waves.npy", waves)
    (folder / "sentences.json").write_text(json.dumps(SENTENCES))
    students, processors = make_students()
    inputs = {name: dict(values) for name, values in expected_inputs(pictures, waves, processors).items()}
    for name, student in students.items():
        student.save_pretrained(folder / name), processors[name].save_pretrained(folder / name)
        if name != "spectrogram":
            student.to_transformers().save_pretrained(folder / f"{name}-stock")
            stock = ViTImageProcessorPil(size=SIZE, image_mean=[0.5], image_std=[0.5])
            (stock if name == "grey" else processors[name]).save_pretrained(folder / f"{name}-stock")
    lora = families.stir(with_lora(families.student("vit", latent_norm="none", num_labels=None, id2label=LABELS), 2))
    save_student(lora.eval(), None, folder / "lora")
    merged = students["lora"] = type(lora.get_base_model()).from_pretrained(folder / "lora")
    merged.to_transformers().save_pretrained(folder / "lora-stock")
    (folder / "lora" / "adapter").rename(folder / "adapter")  # also as a repository of its own, on its base
    (folder / "lora" / "adapter").mkdir()
    for path in (folder / "adapter").iterdir():
        (folder / "lora" / "adapter" / path.name).write_bytes(path.read_bytes())
    description = json.loads((folder / "adapter" / "adapter_config.json").read_text())
    (folder / "base").mkdir()
    for path in (folder / "lora" / "base").iterdir():
        (folder / "base" / path.name).write_bytes(path.read_bytes())
    (folder / "adapter" / "adapter_config.json").write_text(
        json.dumps({**description, "base_model_name_or_path": "tester/base"})
    )
    inputs["lora"] = families.inputs("vit", seed=4)
    for name, values in inputs.items():
        torch.save(values, folder / f"{name}.pt")
    with torch.no_grad():
        outputs = {name: student(**inputs[name]) for name, student in students.items()}
        outputs["merged"], outputs["lora"] = outputs["lora"], lora(**inputs["lora"])
    logits = {name: output.logits for name, output in outputs.items()}
    logits |= {f"{name}'s latents": outputs[name].latents for name in TASKS}
    return folder, logits


@pytest.fixture(scope="module")
def hub():
    with HubDouble() as hub:
        yield hub
        assert hub.unhandled == []


def in_child(hub, published, home, script, suffix="", trust=None, tasks=TASKS, before=""):
    """What the pipelines found, the models' modules, and the logits."""
    out = home / "logits.pt"
    values = {"FOLDER": str(published[0]), "OUT": str(out), "SUFFIX": suffix, "TRUST": trust, "TASKS": tasks}
    assignments = "".join(f"{name} = {value!r}\n" for name, value in values.items())
    found, classes = run_child(before + assignments + script, hub, home)
    return found, classes, torch.load(out, weights_only=True)


@pytest.fixture(scope="module")
def with_hf_colearn(hub, published, tmp_path_factory):
    home = tmp_path_factory.mktemp("with_hf_colearn")
    script = PUBLISH + CHILD.replace("print(", AUTO_PEFT + "print(")
    return in_child(hub, published, home, script, tasks={**TASKS, "lora": ""}, before="import hf_colearn\n")


@pytest.fixture(scope="module")
def with_trust(hub, published, with_hf_colearn, tmp_path_factory):
    home, tasks = tmp_path_factory.mktemp("with_trust"), {**TASKS, "lora": ""}
    return *in_child(hub, published, home, CHILD, trust=True, tasks=tasks, before=WITHOUT_HF_COLEARN), home


@pytest.fixture(scope="module")
def stock(hub, published, with_hf_colearn, tmp_path_factory):
    tasks = {**{name: task for name, task in TASKS.items() if name != "spectrogram"}, "lora": ""}
    home = tmp_path_factory.mktemp("stock")
    return in_child(hub, published, home, CHILD, suffix="-stock", tasks=tasks, before=WITHOUT_HF_COLEARN)


@pytest.mark.parametrize("way", ["with_hf_colearn", "with_trust"])
def test_a_published_student_gives_identical_logits(way, published, request):
    classes, logits = request.getfixturevalue(way)[1:3]
    package = {"with_hf_colearn": "hf_colearn.models.", "with_trust": "transformers_modules."}[way]
    assert {name for name in TASKS} < classes.keys()
    assert all(classes[name].startswith(package) for name in TASKS)
    for name, expected in published[1].items():
        assert torch.equal(logits[name], expected), name
    assert (logits["merged"] - logits["lora"]).abs().max() < 1e-4


@pytest.mark.parametrize("name", TASKS)
def test_what_was_saved_with_the_remote_code_comes_back_with_its_processor(name, with_trust, published):
    classify = pipeline(TASKS[name], model=str(with_trust[3] / "again" / name))
    assert type(classify.model).__module__ == "hf_colearn.models.student"
    inputs = torch.load(published[0] / f"{name}.pt", weights_only=True)
    with torch.no_grad():
        assert torch.equal(copy.deepcopy(classify.model)(**inputs).logits, published[1][name])
    original = published[0] / name
    for configuration in ("preprocessor_config.json", "processor_config.json", "tokenizer.json"):
        if (original / configuration).exists():
            assert json.loads((original / configuration).read_text()) == json.loads(
                (with_trust[3] / "again" / name / configuration).read_text()
            )


def test_an_adapter_finds_its_published_base(with_hf_colearn, published):
    assert torch.equal(with_hf_colearn[2]["auto"], published[1]["lora"])


def test_a_published_export_gives_the_logits_as_a_stock_model(stock, published):
    _, classes, logits = stock
    assert all(module.startswith("transformers.models.") for module in classes.values())
    for name, found in logits.items():
        expected = published[1]["merged" if name == "lora" else name]
        exact = name in ("picture", "whisper", "text")  # auxiliary heads; the others fold two linear layers into one
        torch.testing.assert_close(found, expected, atol=0 if exact else 1e-5, rtol=0 if exact else 1e-5)
    assert not [path for path in published[0].glob("*-stock/*.py")]


@pytest.mark.parametrize("way", ["with_hf_colearn", "with_trust", "stock"])
@pytest.mark.parametrize("name", TASKS)
def test_pipelines_read_raw_inputs_and_name_the_classes(name, way, published, request):
    found = request.getfixturevalue(way)[0]
    if name == "spectrogram" and way == "stock":
        assert name not in found  # transformers has no audio classifier over an image backbone
        return
    two, batch = found[name]
    scores = published[1][name][0].softmax(0).tolist()
    ranked = sorted(zip(LABELS.values(), scores, strict=True), key=lambda pair: -pair[1])
    for single, count in ((two, 2), (batch[0], 3)):
        assert [(entry["label"], pytest.approx(entry["score"], abs=1e-4)) for entry in single] == ranked[:count]
    assert math.isclose(sum(entry["score"] for entry in batch[1]), 1, abs_tol=1e-5)
    assert batch[1] != batch[0]


# ---- processors ----
def test_a_grey_processor_takes_grey_pictures_of_every_kind():
    processor = GrayscaleImageProcessor(size={"height": 2, "width": 3})
    levels = np.array([[0, 51, 102], [153, 204, 255]], dtype=np.uint8)
    expected = torch.tensor([[[[-1, -0.6, -0.2], [0.2, 0.6, 1]]]])  # (level / 255 - 0.5) / 0.5
    grey = Image.fromarray(levels)
    for picture in (
        grey,
        grey.convert("RGB"),
        grey.convert("RGBA"),
        grey.convert("LA"),
        levels[..., None],
        levels[None],
    ):
        pixels = processor(picture, return_tensors="pt")["pixel_values"]
        torch.testing.assert_close(pixels, expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("processor", [GrayscaleImageProcessor(size=SIZE), SpectrogramFeatureExtractor()])
def test_a_processor_of_ours_comes_back_without_a_question_about_its_code(processor, published, tmp_path, monkeypatch):
    monkeypatch.setattr("builtins.input", lambda *_: sys.exit("a question was asked at the terminal"))
    shutil.copy(published[0] / "grey" / "config.json", tmp_path)  # what `AutoProcessor` looks at as well
    assert [Path(file).name for file in processor.save_pretrained(tmp_path)] == ["processor_config.json"]
    for trust in (None, False, True):
        again = AutoProcessor.from_pretrained(tmp_path, trust_remote_code=trust)
        assert type(again) is type(processor)
        assert again.to_dict() == processor.to_dict()


@pytest.mark.parametrize(
    ("picture", "message"),
    [
        (Image.new("RGB", (4, 5), "red"), "the image, of 3 channels 5 x 4, has colours.*image.convert"),
        (np.stack([np.zeros((5, 4), np.uint8), *[np.ones((5, 4), np.uint8)] * 2]), "3 channels 5 x 4, has colours"),
    ],
)
def test_colours_are_not_averaged_to_greys(picture, message):
    with pytest.raises(ValueError, match=message):
        GrayscaleImageProcessor(size=SIZE)(picture)


NOISE = np.random.default_rng(0).normal(size=8000).astype(np.float32)


@pytest.mark.parametrize(
    ("wave", "rate", "message"),
    [
        (NOISE, 16_000, "sampling_rate=16000, and the student takes 8000 Hz: resample"),
        (NOISE, None, "sampling_rate=None, and the student takes 8000 Hz"),
        (
            np.stack([NOISE, NOISE]),
            8000,
            r"clip 0 is a waveform of shape \(2, 8000\), and the student takes one channel",
        ),
        ([NOISE, NOISE[:0]], 8000, r"clip 1 is a waveform of shape \(0,\)"),
        ((NOISE * 1000).astype(np.int16), 8000, "clip 0 has samples of int16: pass floats"),
        (np.full(800, np.nan), 8000, "clip 0 has samples that are NaN or infinite"),
        (np.concatenate([np.zeros(8000), NOISE]), 8000, "the first 1.0 s of clip 0 are silent"),
    ],
)
def test_a_wrong_waveform_is_named(wave, rate, message):
    with pytest.raises(ValueError, match=message):
        SpectrogramFeatureExtractor(size=(16, 12), sampling_rate=8000, n_fft=512)(wave, sampling_rate=rate)


def test_an_audio_student_over_an_image_backbone_exports_to_an_image_classifier():
    student = families.stir(
        CoLearningForAudioClassification.from_backbone(tiny.resnet(), 24, id2label=LABELS, head="auxiliary")
    ).eval()
    pixels = families.inputs("resnet", seed=3)["pixel_values"]
    stock = student.to_transformers()
    assert type(stock).__name__ == "ResNetForImageClassification"
    assert stock.config.id2label == LABELS
    with torch.no_grad():
        assert torch.equal(stock(pixels).logits, student(pixel_values=pixels).logits)
