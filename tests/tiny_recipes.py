"""Small real input for the recipes: teachers from configs, a folder of images; and what a LoRA student must hold."""

import json
import runpy
import sys
from pathlib import Path

import hf_colearn  # noqa: F401  (before transformers: the torchaudio guard)


# isort: split

import numpy as np
import pytest
import torch
from peft import PeftModel
from PIL import Image
from sklearn.datasets import load_sample_images
from transformers import (
    AutoModelForAudioClassification,
    AutoModelForImageClassification,
    AutoModelForSequenceClassification,
    Wav2Vec2FeatureExtractor,
    Wav2Vec2Model,
)
from transformers.models.resnet.modeling_resnet import ResNetModel
from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil
from transformers.utils import logging

from hf_colearn.experiments.tiny_models import resnet_tiny, wav2vec2_tiny


ROOT = Path(__file__).parents[1]


def write_audio_teacher(folder):
    torch.manual_seed(0)
    Wav2Vec2Model(wav2vec2_tiny()).save_pretrained(folder)
    Wav2Vec2FeatureExtractor(return_attention_mask=True).save_pretrained(folder)
    return str(folder)


def write_vision_teacher(folder):
    torch.manual_seed(0)
    ResNetModel(resnet_tiny()).save_pretrained(folder)
    ViTImageProcessorPil(size={"height": 28, "width": 28}).save_pretrained(folder)
    return str(folder)


def write_image_folder(folder, classes=3):
    """JPEGs of two photographs' corners, as ImageNet lies on disk: 8 a class to train on, 4 to test on."""
    photographs, rng = load_sample_images().images, np.random.default_rng(0)
    for split, count in (("train", 8), ("val", 4)):
        for label in range(classes):
            (Path(folder) / split / f"class_{label}").mkdir(parents=True)
            for number in range(count if (split, label) != ("train", 0) else count - 1):
                y, x = rng.integers(0, 200, 2)
                crop = photographs[label % 2][y : y + 100, x : x + 120]
                Image.fromarray(crop).save(Path(folder) / split / f"class_{label}" / f"{number}.jpg")
    return Path(folder)


def check_lora_student(folder):
    """Merged weights and adapters both load, and give the same logits."""
    architecture = json.loads((folder / "config.json").read_text())["architectures"][0]
    auto, inputs = {
        "CoLearningForImageClassification": (AutoModelForImageClassification, None),
        "CoLearningForAudioClassification": (AutoModelForAudioClassification, {"input_values": torch.randn(2, 8000)}),
        "CoLearningForSequenceClassification": (
            AutoModelForSequenceClassification,
            {"input_ids": torch.randint(5, 100, (2, 7))},
        ),
    }[architecture]
    merged = auto.from_pretrained(folder).eval()
    if inputs is None:
        config = merged.config.backbone_config
        size = getattr(config, "image_size", None) or 32
        inputs = {"pixel_values": torch.randn(2, config.num_channels, size, size)}
    adapted = PeftModel.from_pretrained(auto.from_pretrained(folder / "base"), folder / "adapter").eval()
    with torch.no_grad():
        torch.testing.assert_close(adapted(**inputs).logits, merged(**inputs).logits, rtol=1e-3, atol=1e-4)
    assert any("lora_" in name for name, _ in adapted.named_parameters())


# ---- brief runs of the multimodal recipes ----
QUICK = ["--small", "--max_steps", "3", "--eval_strategy", "steps", "--eval_steps", "3", "--save_strategy", "no"]
QUICK += ["--load_best_model_at_end", "false", "--per_device_train_batch_size", "8", "--dataloader_num_workers", "0"]
QUICK += ["--logging_steps", "1", "--alpha_interval", "1", "--report", "false"]
DIGITS = [*QUICK, "--spectrogram_size", "16"]
TWEETS = [*QUICK, "--image_size", "32"]


def main_of(name, folder, *argv):
    """Runs a recipe in this process, in a folder of its own, and reads its report."""
    verbosity = logging.get_verbosity()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("HF_COLEARN_DEBUG", "1")  # errors as they are, not as a line on stderr
        script = str(ROOT / "recipes" / f"{name}.py")
        patch.setattr(sys, "argv", [script, *map(str, argv)])
        try:
            runpy.run_path(script, run_name="__main__")
        finally:
            logging.set_verbosity(verbosity)  # a recipe's quiet terminal would hide the warnings of later tests
    return json.loads((folder / "runs" / name / "report.json").read_text())
