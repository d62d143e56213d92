"""Training heads: their values, their life in checkpoints and adapters, and that no export has them."""

import copy
import json

import pytest
import torch
from peft import PeftModel
from torch import nn
from transformers import AutoConfig

import families
import tiny
from hf_colearn import CoLearningForMultimodalClassification, CoLearningStudentConfig, FeatureBackboneConfig
from hf_colearn.hub.export import export_program
from hf_colearn.models.features import CoLearningForFeatureClassification
from hf_colearn.models.lora import load_adapter, save_student, with_lora
from hf_colearn.models.multimodal_configuration import CoLearningMultimodalConfig
from hf_colearn.models.training_heads import decoder_teachers


HEADS = {"projector": 5, "probe": {"out_features": 3, "hidden_features": 4, "reads": "features"}}
DONE = {
    "probe": {"out_features": 3, "hidden_features": 4, "reads": "features"},
    "projector": {"out_features": 5, "hidden_features": None, "reads": "latents"},
}


def of_features(heads, seed=0, **kwargs):
    torch.manual_seed(seed)
    backbone = FeatureBackboneConfig(feature_dim=2)
    options = {"latent_norm": "none", "training_heads": heads, **kwargs}
    return CoLearningForFeatureClassification.from_backbone(backbone, latent_dim=2, num_labels=2, **options)


def multimodal(heads, fusion="concat", seed=0):
    torch.manual_seed(seed)
    backbones = {
        "audio": FeatureBackboneConfig(feature_dim=2),
        "text": FeatureBackboneConfig(feature_dim=3, hidden_dims=[4]),
    }
    return CoLearningForMultimodalClassification.from_backbones(
        backbones, latent_dim=2, num_labels=3, fusion=fusion, training_heads=heads
    )


def inputs(samples=2):
    generator = torch.Generator().manual_seed(0)
    widths = {"audio_features": 2, "text_features": 3}
    return {name: torch.randn(samples, width, generator=generator) for name, width in widths.items()}


@torch.no_grad()
def write(layer, weight, bias=0.0):
    layer.weight.copy_(torch.tensor(weight))
    layer.bias.fill_(bias)


# ---- values ----
def test_a_head_is_a_linear_layer_on_the_latents():
    student = of_features({"difference": 1})
    write(student.latent_head, [[2.0, 0.0], [0.0, 2.0]])
    write(student.training_heads["difference"], [[1.0, -1.0]], 0.5)
    for mode in (True, False):
        outputs = student.train(mode)(features=torch.tensor([[3.0, 1.0], [0.0, 4.0]]))
        # latents (6, 2) and (0, 8): 6 - 2 + 0.5 and 0 - 8 + 0.5
        assert {name: x.tolist() for name, x in outputs.training_outputs.items()} == {"difference": [[4.5], [-7.5]]}


def test_a_hidden_layer_has_gelu_and_may_read_the_pooled_features():
    student = of_features({"probe": {"out_features": 2, "hidden_features": 3, "reads": "features"}})
    probe = student.training_heads["probe"]
    assert [type(layer) for layer in probe] == [nn.Linear, nn.GELU, nn.Linear]
    write(probe[0], [[1.0, 0.0], [-1.0, 0.0], [0.0, 0.0]])
    write(probe[2], [[1.0, 1.0, 1.0], [1.0, -1.0, 0.0]], 1.0)
    # the mean of two steps is (1, 2); GELU(1) = 0.841345, GELU(-1) = -0.158655, GELU(0) = 0: 1 + 0.682689 and 1 + 1
    found = student(features=torch.tensor([[[0.0, 1.0], [2.0, 3.0]]])).training_outputs["probe"]
    torch.testing.assert_close(found, torch.tensor([[1.682689, 2.0]]), rtol=0, atol=1e-5)


@pytest.mark.parametrize("head", ["bottleneck", "auxiliary"])
def test_a_picture_student_has_heads_whatever_its_head(head):
    student = tiny.student(tiny.resnet(), head=head, training_heads=HEADS)
    assert student.training_heads["probe"][0].in_features == 16  # of the ResNet's last stage
    assert student.training_heads["projector"].in_features == 24
    outputs = student(pixel_values=torch.rand(2, 3, 1, 16, 16))  # two videos of three frames
    assert {name: tuple(x.shape) for name, x in outputs.training_outputs.items()} == {
        "probe": (2, 3),
        "projector": (2, 5),
    }


@pytest.mark.parametrize(("fusion", "width"), [("concat", 4), ("sum", 2), ("film", 2), ("mmtm", 2), ("lstm", 2)])
def test_a_multimodal_model_has_heads_on_its_fused_latents(fusion, width):
    model = multimodal({"projector": 5}, fusion)
    projector = model.training_heads["projector"]
    assert projector.in_features == width
    outputs = model(**inputs())
    torch.testing.assert_close(outputs.training_outputs["projector"], projector(outputs.latents))
    assert model.student("audio").config.training_heads == {}
    assert model.student("audio")(features=torch.randn(2, 2)).training_outputs is None


def test_without_heads_there_are_no_outputs_of_heads():
    assert of_features(None)(features=torch.randn(2, 2)).training_outputs is None
    assert multimodal({})(**inputs()).training_outputs is None


# ---- heads of heads, of positions, and decoders ----
def test_a_head_may_read_another_one_whatever_the_order_of_their_names():
    student = of_features({"back": {"out_features": 1, "reads": "there"}, "there": 2})
    assert list(student.training_heads) == ["back", "there"]
    write(student.latent_head, [[2.0, 0.0], [0.0, 2.0]])
    write(student.training_heads["there"], [[1.0, 1.0], [1.0, -1.0]])
    write(student.training_heads["back"], [[1.0, 3.0]], 0.5)
    found = student(features=torch.tensor([[3.0, 1.0]])).training_outputs
    # latents (6, 2), there (8, 4), back 8 + 12 + 0.5
    assert {name: x.tolist() for name, x in found.items()} == {"back": [[20.5]], "there": [[8.0, 4.0]]}


def test_a_head_of_dense_latents_gives_one_output_a_position():
    student = of_features({"frames": {"out_features": 1, "reads": "dense_latents"}, "whole": 1}, dense=True)
    for name in ("frames", "whole"):
        write(student.training_heads[name], [[1.0, -1.0]])
    write(student.latent_head, [[1.0, 0.0], [0.0, 1.0]])
    found = student(features=torch.tensor([[[5.0, 1.0], [2.0, 4.0]]])).training_outputs
    # 5 - 1 and 2 - 4; of their mean (3.5, 2.5) 1
    assert found["frames"].tolist() == [[[4.0], [-2.0]]] and found["whole"].tolist() == [[1.0]]


def test_a_decoder_is_called_where_it_is_given_captions_and_reads_what_it_is_told(tmp_path):
    heads = {
        "captions": {"vocab_size": 5, "hidden_size": 3, "reads": "projector"},
        "french": {"vocab_size": 7, "teacher": "other"},
        "projector": 4,
    }
    student = of_features(heads).train()
    assert student.config.training_heads["french"] == {
        "hidden_size": 128, "teacher": "other", "reads": "latents", "vocab_size": 7,
    }  # fmt: skip
    assert decoder_teachers(student) == {"captions": "captions", "french": "other"}
    assert decoder_teachers(of_features({"projector": 4})) == decoder_teachers(nn.Linear(1, 1)) == {}
    features, ids = torch.randn(2, 2), torch.tensor([[1, 2, 3], [1, 4, -100]])
    assert list(student(features=features).training_outputs) == ["projector"]
    found = student(features=features, training_inputs={"captions": ids}).training_outputs
    assert {name: tuple(x.shape) for name, x in found.items()} == {"captions": (2, 2, 5), "projector": (2, 4)}
    expected = student.training_heads["captions"](found["projector"], ids)
    torch.testing.assert_close(found["captions"], expected)
    student.save_pretrained(tmp_path)
    loaded, report = type(student).from_pretrained(tmp_path, output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"]
    given = loaded(features=features, training_inputs={"captions": ids}).training_outputs["captions"]
    torch.testing.assert_close(given, found["captions"])


# ---- training ----
@pytest.mark.parametrize("make", [of_features, multimodal])
def test_a_seed_gives_the_other_weights_the_same_values_with_and_without_heads(make):
    without, with_heads = make(None).state_dict(), make({"projector": 4}).state_dict()
    assert len(with_heads) == len(without) + 2
    assert all(torch.equal(with_heads[name], weight) for name, weight in without.items())


@pytest.mark.parametrize("make", [of_features, multimodal])
def test_a_head_that_no_loss_reads_gets_a_gradient_of_zero_for_plain_ddp(make):
    model = make({"projector": {"out_features": 4, "hidden_features": 3}}).train()
    plain = make(None).train()
    if make is of_features:
        batch = {"features": torch.randn(2, 2), "labels": torch.tensor([0, 1])}
    else:
        batch = {"audio_features": torch.randn(2, 2), "labels": torch.tensor([0, 1])}  # and no text at all
    found, expected = model(**batch).loss, plain(**batch).loss
    assert torch.equal(found, expected)
    found.backward()
    assert all(weight.grad is not None for weight in model.parameters())
    assert all(not weight.grad.any() for weight in model.training_heads.parameters())


def test_the_optimizer_sees_the_parameters_in_the_same_order_after_loading(tmp_path):
    student = of_features(HEADS)
    student.save_pretrained(tmp_path)
    loaded = CoLearningForFeatureClassification.from_pretrained(tmp_path)
    assert list(dict(loaded.named_parameters())) == list(dict(student.named_parameters()))


# ---- files ----
@pytest.mark.parametrize("make", [of_features, multimodal])
def test_heads_are_saved_and_loaded(make, tmp_path):
    heads = HEADS if make is of_features else {"projector": 5}
    model = make(heads).eval()
    model.save_pretrained(tmp_path)
    loaded, report = type(model).from_pretrained(tmp_path, output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"]
    batch = {"features": torch.randn(2, 2)} if make is of_features else inputs()
    expected = model(**batch).training_outputs
    assert expected.keys() == heads.keys()
    for name, found in loaded(**batch).training_outputs.items():
        assert torch.equal(found, expected[name])
    assert loaded.config.training_heads == model.config.training_heads


def test_heads_that_a_checkpoint_lacks_are_drawn_as_the_others(tmp_path):
    of_features(None).save_pretrained(tmp_path)
    config = AutoConfig.from_pretrained(tmp_path)
    config.training_heads = {"wide": {"out_features": 4000, "hidden_features": None, "reads": "latents"}}
    loaded, report = CoLearningForFeatureClassification.from_pretrained(
        tmp_path, config=config, output_loading_info=True
    )
    assert report["missing_keys"] == {"training_heads.wide.weight", "training_heads.wide.bias"}
    weight = loaded.training_heads["wide"].weight  # uniform within 1 / sqrt(2)
    assert weight.abs().max() <= 0.7072 and abs(weight.std() - 0.7071 / 3**0.5) < 0.01


@pytest.mark.parametrize("make", [of_features, multimodal])
def test_a_configuration_without_heads_does_not_mention_them(make, tmp_path):
    heads = {"projector": 5}
    make(None).save_pretrained(tmp_path)
    assert "training_heads" not in (tmp_path / "config.json").read_text()
    model = make(heads)
    copied = model.without_training_heads()
    copied.save_pretrained(tmp_path)
    assert "training_heads" not in (tmp_path / "config.json").read_text()
    assert list(model.training_heads) == ["projector"] and model.config.training_heads  # the model keeps its own
    batch = {"features": torch.randn(2, 2)} if make is of_features else inputs()
    outputs = copied(**batch)
    assert outputs.training_outputs is None and torch.equal(outputs.logits, model(**batch).logits)
    assert not any("training_heads" in name for name in copied.state_dict())


@pytest.mark.parametrize("head", ["bottleneck", "auxiliary"])
def test_exports_have_no_heads(head, tmp_path):
    student = tiny.student(tiny.resnet(), head=head, latent_norm="none", training_heads=HEADS).eval()
    pixels = torch.rand(2, 1, 16, 16)
    stock = student.to_transformers()
    assert not any("training_heads" in name for name in stock.state_dict())
    torch.testing.assert_close(stock(pixels).logits, student(pixels).logits, rtol=1e-4, atol=1e-5)
    program = torch.export.load(export_program(student, tmp_path / "student.pt2", {"pixel_values": pixels}))
    assert not any("training_heads" in name for name in program.state_dict)
    assert list(student.training_heads) == ["probe", "projector"]


def test_a_multimodal_program_has_no_heads(tmp_path):
    model = multimodal({"projector": 5}).eval()
    program = torch.export.load(export_program(model, tmp_path / "model.pt2", inputs()))
    assert not any("training_heads" in name for name in program.state_dict)


@pytest.mark.parametrize("lora", [False, True])
def test_a_published_student_has_no_heads(lora, tmp_path):
    model = tiny.student(tiny.vit(), training_heads=HEADS)
    model = with_lora(model, 2).eval() if lora else model.eval()
    families.stir(model)
    save_student(model, None, tmp_path)
    files = [path for path in tmp_path.rglob("*.json")]
    assert len(files) == (3 if lora else 1)
    assert not any("training_heads" in path.read_text() for path in files)
    pixels = torch.rand(2, 1, 8, 8)
    with torch.no_grad():
        expected = model(pixel_values=pixels)
        loaded = type(tiny.student()).from_pretrained(tmp_path)
        torch.testing.assert_close(loaded(pixels).logits, expected.logits, rtol=1e-4, atol=1e-5)
        if lora:
            base = type(tiny.student()).from_pretrained(tmp_path / "base")
            adapted = PeftModel.from_pretrained(base, tmp_path / "adapter").eval()
            torch.testing.assert_close(adapted(pixel_values=pixels).logits, expected.logits, rtol=1e-4, atol=1e-5)
    assert expected.training_outputs.keys() == HEADS.keys()  # the model that trains keeps them


# ---- adapters ----
def test_adapters_train_heads_whole_and_save_them(tmp_path):
    model = with_lora(multimodal({"projector": {"out_features": 5, "hidden_features": 4}}), 2)
    trainable = [name for name, weight in model.named_parameters() if weight.requires_grad and "training" in name]
    prefix = "base_model.model.training_heads.projector.modules_to_save.default"
    assert trainable == [f"{prefix}.{i}.{kind}" for i in (0, 2) for kind in ("weight", "bias")]
    model.train()(**inputs(), labels=torch.tensor([0, 1])).training_outputs["projector"].square().sum().backward()
    assert all(model.get_parameter(name).grad.any() for name in trainable)
    families.stir(model)
    model.eval().save_pretrained(tmp_path)
    loaded = load_adapter(multimodal({"projector": {"out_features": 5, "hidden_features": 4}}), tmp_path).eval()
    for name in trainable:
        assert torch.equal(loaded.get_parameter(name), model.get_parameter(name))


# ---- mistakes ----
@pytest.mark.parametrize(
    ("heads", "message"),
    [
        ({"my head": 3}, "'my head' cannot name a training head: it must be an identifier"),
        ({"class": 3}, "'class' cannot name a training head"),
        ({"items": 3}, "'items' cannot name a training head: nn.ModuleDict has that attribute"),
        ({"training": 3}, "'training' cannot name a training head"),
        ({1: 3}, "'1' cannot name a training head"),
        ({"a": 0}, "out_features=0 of training head 'a' is no width: pass at least 1"),
        ({"a": "wide"}, "out_features='wide' of training head 'a'"),
        ({"a": {"out_features": 3, "hidden_features": True}}, "hidden_features=True of training head 'a'"),
        ({"a": {}}, r"training head 'a' has the fields \[\]: pass out_features"),
        ({"a": {"out_features": 3, "hidden": 4}}, r"has the fields \['out_features', 'hidden'\]"),
        ({"a": {"out_features": 3, "reads": "logits"}}, "'a' reads 'logits': .* reads latents or features"),
        ({"a": {"out_features": 3, "reads": "a"}}, "'a' reads 'a': .* reads latents or features"),
        (
            {"a": {"out_features": 3, "reads": "b"}, "b": {"out_features": 3, "reads": "a"}},
            "the training heads a -> b -> a read each other",
        ),
        ({"a": {"out_features": 3, "reads": "d"}, "b": 2}, r"reads 'd': .* or another head \(b\)"),
        (
            {"a": {"out_features": 3, "reads": "b"}, "b": {"vocab_size": 9}},
            "'a' reads 'b': a head of this model reads",
        ),
        ({"a": {"out_features": 3, "reads": "dense_latents"}}, "'a' reads 'dense_latents': .* latents or features"),
        ({"latents": 3}, "'latents' cannot name a training head: heads read what the model calls so"),
        ({"a": {"vocab_size": 0}}, "vocab_size=0 of training head 'a' is no width"),
        ({"a": {"vocab_size": 9, "out_features": 3}}, "'a' has the fields .* of a decoder, vocab_size, hidden_size"),
        ({"a": {"vocab_size": 9, "teacher": 3}}, "teacher=3 of training head 'a'"),
        ([("a", 3)], r"training_heads=\[\('a', 3\)\]: pass a dict"),
    ],
)
def test_what_no_head_can_be_is_named(heads, message):
    with pytest.raises(ValueError, match=message):
        CoLearningStudentConfig(tiny.vit(), latent_dim=4, training_heads=heads)


def test_a_decoder_begins_with_one_vector():
    heads = {"a": {"vocab_size": 9, "reads": "dense_latents"}}
    with pytest.raises(ValueError, match="'a' is a decoder, which begins with one vector: let it read latents"):
        CoLearningStudentConfig(tiny.vit(), latent_dim=4, dense=True, training_heads=heads)


def test_a_multimodal_model_has_heads_on_its_latents_alone():
    with pytest.raises(ValueError, match="'a' is a decoder of captions, which a student has and this model does not"):
        multimodal({"a": {"vocab_size": 9}})
    with pytest.raises(ValueError, match="'a' reads 'features': a head of this model reads latents"):
        multimodal({"a": {"out_features": 3, "reads": "features"}})
    config = copy.deepcopy(multimodal(None).config)
    config.modalities["text"].training_heads = of_features({"a": 3}).config.training_heads
    with pytest.raises(
        ValueError, match=r"'text' has training heads \['a'\]: .* pass training_heads to the model's own"
    ):
        CoLearningMultimodalConfig(modalities=config.modalities, latent_dim=2)


def test_a_configuration_holds_every_field_in_the_order_of_the_names():
    assert CoLearningStudentConfig(tiny.vit(), latent_dim=4, training_heads=HEADS).training_heads == DONE
    assert list(DONE) == ["probe", "projector"]
    described = json.loads(CoLearningStudentConfig(tiny.vit(), latent_dim=4, training_heads=HEADS).to_json_string())
    assert described["training_heads"] == DONE
