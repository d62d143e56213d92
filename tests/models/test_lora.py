"""LoRA students of every kind of backbone: what trains, and that adapter and merged weights both load back."""

import pytest
import torch
from peft import PeftModel
from transformers import (
    AutoModelForAudioClassification,
    AutoModelForImageClassification,
    AutoModelForSequenceClassification,
)

import families
import tiny
from hf_colearn import CoLearningForImageClassification
from hf_colearn.models.lora import save_student, with_lora


AUTO = {
    "vit": AutoModelForImageClassification,
    "resnet": AutoModelForImageClassification,
    "bert": AutoModelForSequenceClassification,
    "wav2vec2": AutoModelForAudioClassification,
}
every_family = pytest.mark.parametrize("family", AUTO)


def logits(model, family):
    with torch.no_grad():
        return model.eval()(**families.inputs(family, seed=20)).logits


def trained(family, steps=3):
    """A few steps in training mode, so that batch norms' running statistics move as well."""
    torch.manual_seed(0)
    model = with_lora(families.student(family), rank=2)
    optimizer = torch.optim.SGD([weight for weight in model.parameters() if weight.requires_grad], lr=0.5)
    for step in range(steps):
        model.train()(**families.inputs(family, seed=step), labels=torch.tensor([0, 1])).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return model


@every_family
def test_adapters_and_heads_train_and_the_backbone_stays(family):
    model = with_lora(families.student(family), rank=2)
    learning = {name for name, weight in model.named_parameters() if weight.requires_grad}
    assert any("lora_A" in name for name in learning)
    assert any("latent_head" in name for name in learning) and any("classifier" in name for name in learning)
    norms = ("normalization",)  # a ResNet's batch norms
    for name in learning:
        assert "lora_" in name or "modules_to_save" in name, name
        assert not ("backbone" in name and "modules_to_save" in name) or any(norm in name for norm in norms), name


@every_family
def test_the_adapter_on_its_base_gives_the_trained_logits_back(family, tmp_path):
    model = trained(family)
    expected = logits(model, family)
    save_student(model, None, tmp_path)
    base = AUTO[family].from_pretrained(tmp_path / "base")
    assert not torch.allclose(logits(base, family), expected, atol=1e-4)  # the base alone does not know the task
    torch.testing.assert_close(logits(PeftModel.from_pretrained(base, tmp_path / "adapter"), family), expected)


@every_family
def test_the_merged_student_gives_the_trained_logits_without_peft(family, tmp_path):
    model = trained(family)
    expected = logits(model, family)
    save_student(model, None, tmp_path)
    merged = AUTO[family].from_pretrained(tmp_path)
    assert not isinstance(merged, PeftModel) and not any("lora" in name for name, _ in merged.named_parameters())
    torch.testing.assert_close(logits(merged, family), expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(logits(model, family), expected)  # saving leaves the model as it was


def test_a_frozen_feature_encoder_gets_no_adapter():
    student = families.student("wav2vec2")
    student.freeze_feature_encoder()
    names = [name for name, _ in with_lora(student, rank=2).named_parameters() if "lora_" in name]
    assert names and not any("feature_extractor" in name for name in names)


def test_a_student_without_lora_is_saved_plain(tmp_path):
    student = CoLearningForImageClassification.from_backbone(tiny.vit(), latent_dim=4, num_labels=3)
    save_student(student, None, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_dir()) == []
    assert AutoModelForImageClassification.from_pretrained(tmp_path).config.latent_dim == 4
