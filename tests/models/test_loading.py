"""Checkpoints that lack what is needed; what they may lack is in the tests of teachers."""

import pytest
from safetensors.torch import load_file, save_file
from transformers import CLIPConfig, CLIPModel

import tiny_teachers
from hf_colearn import CoLearningForMultimodalClassification, FeatureBackboneConfig
from refusals import Refusals, assert_refused


refusals = Refusals()


@refusals.case(
    ValueError, "lacks 1 weights of CLIPModel ('visual_projection.weight'", "Use a whole CLIP, or `from_backbones`"
)
def a_clip_without_a_projection(folder):
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}
    text, vision = sizes | {"vocab_size": 99}, sizes | {"image_size": 8, "patch_size": 4}
    tiny_teachers.seeded(CLIPModel, CLIPConfig(text_config=text, vision_config=vision)).save_pretrained(
        folder / "clip"
    )
    weights = load_file(folder / "clip" / "model.safetensors")
    del weights["visual_projection.weight"]
    save_file(weights, folder / "clip" / "model.safetensors", metadata={"format": "pt"})
    yield
    CoLearningForMultimodalClassification.from_clip(folder / "clip", num_labels=3)


@pytest.mark.parametrize(Refusals.NAMES, refusals.cases)
def test_it_is_refused(situation, error, texts, tmp_path):
    assert_refused(situation, error, texts, tmp_path)


@pytest.mark.filterwarnings("error:Initializing zero-element tensors")
def test_a_model_without_classes_is_made_and_loaded_without_a_warning(tmp_path):
    backbones = {"image": FeatureBackboneConfig(3), "text": FeatureBackboneConfig(4)}
    model = CoLearningForMultimodalClassification.from_backbones(backbones, 5, id2label={})
    model.save_pretrained(tmp_path)
    assert CoLearningForMultimodalClassification.from_pretrained(tmp_path).config.num_labels == 0
