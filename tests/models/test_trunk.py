"""The trunk's layers against those of transformers, its masks, and a student with a stem and the trunk in its backbone."""

import pytest
import torch
from transformers import AutoModelForImageClassification, BertConfig, BertModel, ViTConfig, ViTModel

from hf_colearn import CoLearningForImageClassification, CoLearningForSequenceClassification, TrunkBackboneConfig
from hf_colearn.hub.export import export_program
from hf_colearn.models.lora import with_lora
from hf_colearn.models.trunk import Trunk


SIZES = {"hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 8}
PATCHES = {"kind": "patches", "image_size": 4, "patch_size": 2, "num_channels": 1}
WORDS = {"kind": "tokens", "vocab_size": 9, "max_length": 6}
KINDS = ("vit", "bert")


def trunk(kind, causal=False, attention="sdpa"):
    torch.manual_seed(0)
    config = (ViTConfig if kind == "vit" else BertConfig)(**SIZES, initializer_range=0.3)
    config._attn_implementation = attention
    return Trunk(config, causal).eval()


def tokens(length=5):
    return torch.randn(2, length, 8, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("kind", KINDS)
def test_its_layers_are_those_of_a_checkpoint_that_they_are_taken_from(kind, tmp_path):
    torch.manual_seed(3)
    stock = (
        ViTModel(ViTConfig(**SIZES, image_size=4, patch_size=2)) if kind == "vit" else BertModel(BertConfig(**SIZES))
    ).eval()
    for parameter in stock.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    stock.save_pretrained(tmp_path)
    ours = trunk(kind)
    ours.load_layers(tmp_path)
    if kind == "bert":
        expected = stock.encoder(stock.embeddings.LayerNorm(tokens())).last_hidden_state
    else:
        expected = tokens()
        for layer in stock.layers:
            expected = layer(expected)
        expected = stock.layernorm(expected)
    torch.testing.assert_close(ours(tokens()), expected)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_causal_trunk_sees_no_later_token_and_another_one_all(kind, attention):
    changed = tokens()
    changed[:, 3:] = changed[:, 3:].flip(2)
    for causal in (True, False):
        ours = trunk(kind, causal, attention)
        before, after = ours(tokens())[:, :3], ours(changed)[:, :3]
        assert torch.allclose(before, after, atol=1e-6) == causal
        torch.testing.assert_close(ours(tokens()), trunk(kind, causal, "eager")(tokens()))


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_padding_is_seen_by_none(kind, causal):
    padded = torch.cat([tokens(), torch.full((2, 2, 8), 50.0)], dim=1)
    mask = torch.tensor([[1] * 5 + [0] * 2] * 2)
    ours = trunk(kind, causal)
    torch.testing.assert_close(ours(padded, mask)[:, :5], ours(tokens()))


def student(kind="vit", stem=PATCHES, **options):
    torch.manual_seed(0)
    config = TrunkBackboneConfig(stem, {**SIZES, "model_type": kind})
    made = CoLearningForImageClassification if stem is PATCHES else CoLearningForSequenceClassification
    return made.from_backbone(config, latent_dim=4, num_labels=3, **options).eval()


def images():
    return torch.randn(4, 1, 4, 4, generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize("kind", KINDS)
def test_a_student_of_a_stem_and_a_trunk_has_no_weight_without_a_gradient_and_is_saved(kind, tmp_path):
    given = student(kind, dense=True)
    output = given(images(), labels=torch.tensor([0, 1, 2, 0]), output_hidden_states=True)
    assert output.dense_latents.shape == (4, 4, 4) and len(output.hidden_states) == 3
    output.loss.backward()
    assert [name for name, weight in given.named_parameters() if weight.grad is None] == []
    given.save_pretrained(tmp_path)
    read = AutoModelForImageClassification.from_pretrained(tmp_path).eval()
    assert given.config.pooling == "mean"  # there is no CLS token
    assert torch.equal(read(images()).logits, given(images()).logits)


def test_it_is_exported_and_adapted_as_others_are(tmp_path):
    given = student(stem=WORDS)
    words = {"input_ids": torch.tensor([[1, 2, 3, 4, 5]] * 4)}
    words["attention_mask"] = torch.ones_like(words["input_ids"])
    program = torch.export.load(export_program(given, tmp_path / "words.pt2", words)).module()
    torch.testing.assert_close(program(**words), given(**words).logits)
    adapted = with_lora(student(), rank=1)
    trained = {name.split("backbone.")[-1] for name, weight in adapted.named_parameters() if weight.requires_grad}
    assert "trunk.layers.1.attention.q_proj.lora_A.default.weight" in trained
    with pytest.raises(ValueError, match="no AutoModelForImageClassification of 'colearning_trunk'"):
        student(latent_norm="none").to_transformers()


def test_a_larger_vocabulary_is_saved(tmp_path):
    given = student(stem=WORDS)
    given.resize_token_embeddings(12)
    given.save_pretrained(tmp_path)
    read = CoLearningForSequenceClassification.from_pretrained(tmp_path)
    assert read.get_input_embeddings().num_embeddings == read.config.backbone_config.stem["vocab_size"] == 12
    assert torch.equal(read.get_input_embeddings().weight, given.get_input_embeddings().weight)


@pytest.mark.parametrize("kind", KINDS)
def test_gradient_checkpointing_and_bfloat16_leave_the_gradient_as_it_is(kind):
    options = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0, "model_type": kind}
    gradients = []
    for dtype, saves in (("float32", False), ("float32", True), ("bfloat16", False)):
        torch.manual_seed(0)
        config = TrunkBackboneConfig(PATCHES, {**SIZES, **options})
        made = CoLearningForImageClassification.from_backbone(config, 4, 3, dtype=dtype).train()
        if saves:
            made.gradient_checkpointing_enable()
            assert made.is_gradient_checkpointing
        made(images(), labels=torch.tensor([0, 1, 2, 0])).loss.backward()
        gradients.append(made.backbone.stem.projection.weight.grad.float())
    torch.testing.assert_close(gradients[1], gradients[0])
    torch.testing.assert_close(gradients[2], gradients[0], atol=0.02, rtol=0.2)
