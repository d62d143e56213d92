"""`to_transformers()`: the same logits from a stock model where hf_colearn does not exist, or a reasoned refusal.
`export_program()`: the same from a file that torch alone runs, whatever the batch and the length.
"""

import json
import os

import pytest
import torch
from torch import nn
from transformers import ViTMAEConfig, Wav2Vec2BertConfig

import child_python
import families
import tiny
from families import AUDIO, FAMILIES, IMAGE
from hf_colearn import CoLearningForMultimodalClassification, FeatureBackboneConfig
from hf_colearn.hub.export import export_program
from hf_colearn.models.lora import with_lora


# The options with which a bottleneck student of a family is claimed to be exact.
EXACT_BOTTLENECKS = {
    **{family: {} for family in ("vit", "resnet", "convnext", "wav2vec2", "hubert", "whisper")},
    "bert": {"pooling": "pooler"},
}
EXACT = [("auxiliary", family) for family in FAMILIES] + [("bottleneck", family) for family in EXACT_BOTTLENECKS]


def exportable(head: str, family: str, **kwargs):
    options = {"latent_norm": "none", **EXACT_BOTTLENECKS[family]} if head == "bottleneck" else {}
    return families.stir(families.student(family, head=head, **{**options, **kwargs}))


def fresh_inputs(family: str) -> dict[str, torch.Tensor]:
    """Other inputs than those that the export compares; speech with padding and its mask."""
    inputs = families.inputs(family, seed=11)
    if family in ("wav2vec2", "hubert"):
        inputs["attention_mask"] = torch.ones(2, 4000).long()
        inputs["attention_mask"][0, 1500:] = 0
    return inputs


CHILD = """
import sys
for name in ("hf_colearn", "torchaudio"):  # to import them fails, and to look for them finds nothing
    sys.modules[name] = None
import json, torch, transformers

logits = {}
for folder in json.loads(sys.argv[1]):
    auto, inputs = torch.load(f"{folder}/inputs.pt", weights_only=True)
    model = getattr(transformers, auto).from_pretrained(folder)
    with torch.no_grad():
        logits[folder] = model(**inputs).logits
    assert type(model).__module__.startswith("transformers.models."), type(model)
torch.save(logits, sys.argv[2])
"""


def test_exported_students_give_their_logits_where_hf_colearn_does_not_exist(tmp_path):
    expected = {}
    for head, family in EXACT:
        student, inputs, folder = exportable(head, family), fresh_inputs(family), tmp_path / f"{head}-{family}"
        student.to_transformers().save_pretrained(folder)
        assert not list(folder.glob("*.py"))
        torch.save((type(student)._stock_class.__name__, inputs), folder / "inputs.pt")
        with torch.no_grad():
            expected[str(folder)] = student(**inputs).logits
    arguments, env = [json.dumps(list(expected)), str(tmp_path / "logits.pt")], os.environ | {"PYTHONPATH": ""}
    done = child_python.run(CHILD, *arguments, env=env, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    found = torch.load(tmp_path / "logits.pt", weights_only=True)
    assert found.keys() == expected.keys() and len(found) == 17
    for folder, logits in expected.items():
        difference = (found[folder] - logits).abs().max().item()
        assert difference <= (0 if "auxiliary-" in folder else 1e-5), (folder, difference)


@pytest.mark.parametrize("head", ["auxiliary", "bottleneck"])
def test_an_export_carries_the_classes_and_the_problem_type(head):
    names = {"id2label": {0: "zero", 1: "one", 2: "two"}, "problem_type": "multi_label_classification"}
    stock = exportable(head, "vit", num_labels=None, **names).to_transformers()
    assert type(stock).__name__ == "ViTForImageClassification"
    assert not stock.training
    assert stock.config.id2label == {0: "zero", 1: "one", 2: "two"}
    assert stock.config.label2id == {"zero": 0, "one": 1, "two": 2}
    assert stock.config.problem_type == "multi_label_classification"


@pytest.mark.parametrize("head", ["auxiliary", "bottleneck"])
def test_a_bfloat16_student_exports_in_bfloat16(head):
    student = exportable(head, "vit", dtype="bfloat16")
    stock = student.to_transformers()
    assert stock.dtype == torch.bfloat16
    pixels = fresh_inputs("vit")["pixel_values"].bfloat16()
    with torch.no_grad():  # bfloat16 has 8 significant bits: 2^-8 = 0.004 a rounding
        torch.testing.assert_close(stock(pixels).logits, student(pixels).logits, atol=0.02, rtol=0.02)


def test_a_masked_mean_exports_where_the_stock_model_masks_as_well():
    student = families.student("wav2vec2", latent_norm="none", pooling="masked_mean")
    inputs = fresh_inputs("wav2vec2")
    with torch.no_grad():
        found, expected = student.to_transformers()(**inputs).logits, student(**inputs).logits
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


def test_a_wav2vec2_bert_student_exports():
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}
    config = Wav2Vec2BertConfig(**sizes, feature_projection_input_dim=16, vocab_size=30)
    student = families.stir(AUDIO.from_backbone(config, latent_dim=4, latent_norm="none")).eval()
    features, mask = torch.randn(2, 20, 16), torch.ones(2, 20).long()
    mask[1, 12:] = 0
    with torch.no_grad():
        expected = student(input_features=features, attention_mask=mask).logits
        found = student.to_transformers()(features, attention_mask=mask).logits
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("family", "options", "reason"),
    [
        ("vit", {}, "the LayerNorm between latent and classifier is not linear"),
        ("vit", {"latent_norm": "none", "pooling": "mean"}, "ViTForImageClassification gives other logits.*'mean'"),
        ("roberta", {"latent_norm": "none"}, "RobertaForSequenceClassification is not one Linear layer"),
        ("distilbert", {"latent_norm": "none"}, "DistilBertForSequenceClassification gives other logits"),
        ("bert", {"latent_norm": "none"}, "BertForSequenceClassification gives other logits.*pooling='cls'"),
        ("ast", {"latent_norm": "none"}, "ASTForAudioClassification gives other logits"),
        ("whisper", {"latent_norm": "none", "pooling": "masked_mean"}, "WhisperForAudioClassification gives other"),
    ],
)
def test_refuses_with_the_reason_and_changes_nothing(family, options, reason):
    student = families.stir(families.student(family, **options)).train()
    before = snapshot(student)
    with pytest.raises(ValueError, match=reason):
        student.to_transformers()
    assert_unchanged(student, before)


def test_refuses_a_backbone_that_has_no_stock_classifier():
    mae = ViTMAEConfig(hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64, image_size=32)
    student = IMAGE.from_backbone(mae, latent_dim=4, latent_norm="none")
    with pytest.raises(ValueError, match="no AutoModelForImageClassification of 'vit_mae' to export to"):
        student.to_transformers()


def snapshot(student):
    state = {name: value.clone() for name, value in student.state_dict().items()}
    return state, [module.training for module in student.modules()], student.config.to_dict()


def assert_unchanged(student, before):
    state, modes, config = before
    assert student.state_dict().keys() == state.keys()
    assert all(torch.equal(value, state[name]) for name, value in student.state_dict().items())
    assert [module.training for module in student.modules()] == modes
    assert student.config.to_dict() == config


@pytest.mark.parametrize(("head", "family"), [("auxiliary", "vit"), ("bottleneck", "resnet"), ("bottleneck", "bert")])
def test_the_student_is_left_as_it_was(head, family, tmp_path):
    student = exportable(head, family).train()
    next(module for module in student.modules() if isinstance(module, (nn.BatchNorm2d, nn.Dropout))).eval()
    before = snapshot(student)
    stock = student.to_transformers()
    stock.save_pretrained(tmp_path)
    stock.config.num_labels = 9
    families.stir(stock)
    assert_unchanged(student, before)


def test_the_export_of_a_weighted_layer_sum_is_refused_for_a_bottleneck():
    config = tiny.wav2vec2(layerdrop=0.0, use_weighted_layer_sum=True)
    student = AUDIO.from_backbone(config, latent_dim=4, latent_norm="none")
    with pytest.raises(ValueError, match="gives other logits"):
        student.to_transformers()


# ---- programs of torch.export ----
def two_modalities(fusion):
    backbones = {"image": tiny.resnet(), "text": tiny.bert(), "sound": FeatureBackboneConfig(feature_dim=5)}
    model = CoLearningForMultimodalClassification.from_backbones(
        backbones, latent_dim=6, num_labels=3, fusion=fusion, learned_temperature=True
    )
    return families.stir(model).eval()


def multimodal_inputs(batch, length, seed=0):
    """Of all modalities but the sound, of which the example has steps."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(3, 100, (batch, length), generator=generator)
    mask = torch.ones_like(ids)
    mask[0, length // 2 :] = 0
    pixels = torch.randn(batch, 1, 8, 8, generator=generator)
    return {"image_pixel_values": pixels, "text_input_ids": ids, "text_attention_mask": mask}


def sized_inputs(family, batch, length, seed):
    """Inputs of another batch size and, where there is one, of another length, with padding."""
    if family == "multimodal":
        return multimodal_inputs(batch, length, seed)
    sample = families.inputs(family, seed)
    inputs = {name: torch.cat([value] * batch)[:batch] for name, value in sample.items()}
    if family in ("wav2vec2", "bert"):
        inputs = {name: torch.cat([value] * 9, dim=1)[:, :length].clone() for name, value in inputs.items()}
        first = next(iter(inputs.values()))
        inputs["attention_mask"] = torch.ones_like(first, dtype=torch.long)
        inputs["attention_mask"][0, 2 * length // 3 :] = 0
    return inputs


# (batch, length) of the example that the program is recorded with, and of what it is then run on.
SIZES = {
    "vit": [(2, 0), (1, 0), (7, 0)],
    "resnet": [(1, 0), (5, 0)],
    "bert": [(2, 12), (1, 3), (5, 40)],
    "wav2vec2": [(2, 4000), (3, 1700), (1, 12_345)],
    "whisper": [(2, 0), (3, 0)],
    "multimodal": [(2, 10), (1, 7), (4, 31)],
}

PROGRAMS = """
import sys
for name in ("hf_colearn", "transformers"):  # to import them fails
    sys.modules[name] = None
import json, torch

found = {}
for folder in json.loads(sys.argv[1]):
    files = {"labels.json": ""}
    program = torch.export.load(f"{folder}/model.pt2", extra_files=files)
    assert json.loads(files["labels.json"]) == {"0": "LABEL_0", "1": "LABEL_1", "2": "LABEL_2"}, files
    run = program.module()
    found[folder] = [run(**inputs) for inputs in torch.load(f"{folder}/inputs.pt", weights_only=True)]
torch.save(found, sys.argv[2])
"""


def test_programs_give_their_students_logits_for_other_sizes_where_only_torch_exists(tmp_path):
    expected = {}
    for number, (family, sizes) in enumerate(SIZES.items()):
        head = ("auxiliary", "bottleneck")[number % 2]
        student = (
            two_modalities("concat") if family == "multimodal" else families.stir(families.student(family, head=head))
        )
        folder, inputs = tmp_path / family, [sized_inputs(family, *size, seed=9) for size in sizes]
        folder.mkdir()
        assert export_program(student, folder, inputs[0]) == folder / "model.pt2"
        torch.save(inputs, folder / "inputs.pt")
        with torch.no_grad():
            expected[str(folder)] = [student(**batch).logits for batch in inputs]
    arguments, env = [json.dumps(list(expected)), str(tmp_path / "logits.pt")], os.environ | {"PYTHONPATH": ""}
    done = child_python.run(PROGRAMS, *arguments, env=env, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    found = torch.load(tmp_path / "logits.pt", weights_only=True)
    for folder, logits in expected.items():
        for ours, theirs in zip(found[folder], logits, strict=True):
            torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)


def weights_of(path):
    return {name.removeprefix("model."): value for name, value in torch.export.load(path).state_dict.items()}


def test_a_program_leaves_out_what_only_training_uses(tmp_path):
    student = families.student("resnet", head="auxiliary")
    before = snapshot(student)
    weights = weights_of(export_program(student, tmp_path / "student.pt2", families.inputs("resnet")))
    assert weights.keys() == student.backbone.state_dict().keys()  # no latent head, no norm
    assert_unchanged(student, before)


@pytest.mark.parametrize(("fusion", "heads"), [("concat", False), ("weighted", True)])
def test_a_multimodal_program_leaves_out_temperature_absent_modalities_and_idle_heads(fusion, heads, tmp_path):
    model, inputs = two_modalities(fusion), multimodal_inputs(2, 10)
    inputs = {name: value for name, value in inputs.items() if name.startswith("image")}
    before = {name: value.clone() for name, value in model.state_dict().items()}
    weights = weights_of(export_program(model, tmp_path / "model.pt2", inputs))
    assert "log_scale" in before and "log_scale" not in weights
    assert any(name.startswith("encoders.image.backbone.") for name in weights)
    assert not any(name.startswith("encoders.text.backbone.") for name in weights)
    assert ("encoders.image.classifier.weight" in weights) == heads
    assert model.state_dict().keys() == before.keys()
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_a_training_student_is_exported_as_it_evaluates(tmp_path):
    student = families.student("resnet").train()
    inputs = families.inputs("resnet")
    run = torch.export.load(export_program(student, tmp_path / "student.pt2", inputs)).module()
    assert student.training
    with torch.no_grad():
        torch.testing.assert_close(run(**inputs), student.eval()(**inputs).logits, atol=1e-5, rtol=1e-5)


class Undecided(IMAGE):
    """Gives other logits every time."""

    def classify(self, pooled_BH):
        return super().classify(pooled_BH + torch.rand_like(pooled_BH))


@pytest.mark.parametrize(
    ("student", "inputs", "error", "message"),
    [
        (
            lambda: families.student("vit"),
            {},
            ValueError,
            "pass one batch of what the student takes, some of pixel_values",
        ),
        (
            lambda: families.student("vit"),
            {**families.inputs("vit"), "labels": torch.zeros(2)},
            ValueError,
            r"the example inputs are \['pixel_values', 'labels'\]",
        ),
        (
            lambda: families.student("bert"),
            {"input_ids": torch.ones(2, 3).long()},
            ValueError,
            r"'input_ids' is of shape \(2, 3\): pass an example of at least 4 steps",
        ),
        (lambda: with_lora(families.student("vit"), 2), families.inputs("vit"), TypeError, "merge_and_unload"),
        (
            lambda: Undecided.from_backbone(tiny.vit(), latent_dim=4, num_labels=3),
            families.inputs("vit"),
            ValueError,
            "gives other logits than the student on inputs of shape .*so it is not saved",
        ),
    ],
)
def test_what_cannot_be_exported_is_refused_and_nothing_written(student, inputs, error, message, tmp_path):
    with pytest.raises(error, match=message):
        export_program(student(), tmp_path, inputs)
    assert not list(tmp_path.iterdir())
