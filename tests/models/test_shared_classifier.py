"""One linear layer as the head of all modalities: its weights are tied, saved once, and copied into a student."""

import copy

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file
from transformers import AutoModel

from hf_colearn import CoLearningForMultimodalClassification, FeatureBackboneConfig
from hf_colearn.models.lora import load_adapter, save_student, with_lora
from hf_colearn.training.checkpoints import load_weights


LABELS = torch.tensor([0, 2, 1])
NAMES = ("audio", "text", "pose")


def model(seed=0, **options):
    torch.manual_seed(seed)
    backbones = {name: FeatureBackboneConfig(feature_dim=4, hidden_dims=[4]) for name in NAMES}
    options = {"latent_dim": 3, "num_labels": 3, "shared_classifier": True, **options}
    return CoLearningForMultimodalClassification.from_backbones(backbones, **options)


def inputs():
    generator = torch.Generator().manual_seed(1)
    return {f"{name}_features": torch.randn(3, 4, generator=generator) for name in NAMES}


def is_one(made):
    heads = [made.encoders[name].classifier for name in NAMES]
    return all(head.weight is heads[0].weight and head.bias is heads[0].bias for head in heads)


def test_the_head_is_one_layer_that_all_modalities_logits_come_from():
    made = model(fusion="sum")
    assert is_one(made) and not is_one(model(shared_classifier=False))
    with torch.no_grad():
        made.encoders["text"].classifier.bias.fill_(5)
        output = made(**inputs())
    for name in NAMES:
        expected = output.modality_latents[name] @ made.encoders["audio"].classifier.weight.T + 5
        torch.testing.assert_close(output.modality_logits[name], expected)
    assert sum("classifier" in name for name, _ in made.named_parameters()) == 2


@pytest.mark.parametrize("fusion", ["sum", "concat"])
def test_its_gradient_is_the_sum_over_the_modalities(fusion):
    made = model(fusion=fusion)
    apart = model(fusion=fusion, shared_classifier=False)
    apart.load_state_dict(made.state_dict())
    for each in (made, apart):
        each(**inputs(), labels=LABELS).loss.backward()
    gradients = [apart.encoders[name].classifier.weight.grad for name in NAMES]
    torch.testing.assert_close(made.encoders["pose"].classifier.weight.grad, sum(gradients))
    names = [name for name, _ in made.probe_parameters()]
    assert names == ([] if fusion == "sum" else [f"encoders.audio.classifier.{key}" for key in ("weight", "bias")])


def test_it_is_saved_once_and_one_again_after_loading(tmp_path):
    made = model().eval()
    made.save_pretrained(tmp_path)
    kept = [name for name in load_file(tmp_path / "model.safetensors") if "encoders" in name and "classifier" in name]
    assert kept == ["encoders.audio.classifier.bias", "encoders.audio.classifier.weight"]
    loaded, report = AutoModel.from_pretrained(tmp_path, output_loading_info=True)
    assert is_one(loaded) and not any(report.values())
    resumed = model(seed=1).eval()
    load_weights(resumed, str(tmp_path))
    for found in (loaded, resumed):
        assert is_one(found)
        torch.testing.assert_close(found(**inputs()).modality_logits, made(**inputs()).modality_logits, rtol=0, atol=0)
    assert "shared_classifier" not in model(shared_classifier=False).config.to_dict()  # as earlier code wrote it


def test_a_student_has_a_copy_of_its_own(tmp_path):
    made = model()
    student = made.student("text")
    assert torch.equal(student.classifier.weight, made.encoders["text"].classifier.weight)
    with torch.no_grad():
        student.classifier.weight.zero_()
    assert made.encoders["audio"].classifier.weight.any()
    student.save_pretrained(tmp_path)
    assert not type(student).from_pretrained(tmp_path).classifier.weight.any()


def test_adapters_train_one_copy_and_come_back_as_one(tmp_path):
    adapted = with_lora(model(fusion="sum"), 2)
    assert is_one(adapted.get_base_model())
    before = adapted.get_base_model().encoders["pose"].classifier.weight.clone()
    adapted(**inputs(), labels=LABELS).loss.backward()
    torch.optim.SGD([p for p in adapted.parameters() if p.requires_grad], lr=0.1).step()
    assert not torch.equal(adapted.get_base_model().encoders["pose"].classifier.weight, before)
    expected = adapted.eval()(**inputs()).logits
    save_student(adapted, None, tmp_path)
    base = CoLearningForMultimodalClassification.from_pretrained(tmp_path / "base")
    loaded = load_adapter(base, tmp_path / "adapter", is_trainable=True)
    assert is_one(loaded.get_base_model()) and is_one(copy.deepcopy(loaded).merge_and_unload())
    torch.testing.assert_close(loaded(**inputs()).logits, expected)
    torch.testing.assert_close(AutoModel.from_pretrained(tmp_path)(**inputs()).logits, expected)


def test_copies_that_adapters_made_are_named_and_tied_again():
    made = model(fusion="sum")
    adapted = get_peft_model(made, LoraConfig(r=1, target_modules=["0"], modules_to_save=["classifier"])).train()
    with pytest.raises(ValueError, match="hold weights of their own now.*with_lora.*tie_classifiers"):
        adapted(**inputs())
    made.tie_classifiers()
    adapted(**inputs(), labels=LABELS).loss.backward()
    assert is_one(made)


def test_a_head_with_a_hidden_layer_is_not_shared():
    config = copy.deepcopy(model().config)
    config.modalities["text"].classifier_dim = 7
    with pytest.raises(ValueError, match="classifier_dim=7 of 'text'.*Leave classifier_dim out"):
        type(config)(modalities=config.modalities, latent_dim=3, shared_classifier=True)
    with pytest.raises(TypeError, match="shared_classifier=1 is a int"):
        model(shared_classifier=1)
