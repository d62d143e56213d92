"""Students of every backbone family: outputs, weights kept and saved, pooling, labels, what transformers offers."""

import copy
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn
from transformers import (
    AutoModel,
    BertTokenizer,
    DebertaV2Config,
    GPT2Config,
    ModernBertConfig,
    SwinConfig,
    ViTImageProcessor,
    Wav2Vec2FeatureExtractor,
    WhisperForConditionalGeneration,
    pipeline,
)

import families
import tiny
from families import AUDIO, FAMILIES, IMAGE, TEXT
from hf_colearn import (
    CoLearningForImageClassification,
    CoLearningForMultimodalClassification,
    CoLearningStudentConfig,
    FeatureBackboneConfig,
)
from hf_colearn.models.heads import task_loss
from hf_colearn.models.pooling import pool_outputs
from refusals import Refusals, assert_refused


every_family = pytest.mark.parametrize("family", FAMILIES)
both_heads = pytest.mark.parametrize("head", ["bottleneck", "auxiliary"])
both_norms = pytest.mark.parametrize("latent_norm", ["layernorm", "none"])

LABELS = torch.tensor([0, 2])
TRANSFORMER = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}


def same_state(found: nn.Module, wanted: nn.Module) -> bool:
    found, wanted = found.state_dict(), wanted.state_dict()
    return found.keys() == wanted.keys() and all(torch.equal(found[name], wanted[name]) for name in found)


# ---- outputs ----
@every_family
@both_heads
@both_norms
def test_gives_loss_logits_and_latents(family, head, latent_norm):
    student = families.student(family, head=head, latent_norm=latent_norm)
    inputs = families.inputs(family)
    with torch.no_grad():
        output = student(**inputs, labels=LABELS)
        assert output.logits.shape == (2, 3)
        assert output.latents.shape == (2, 24)
        log_p = output.logits.log_softmax(-1)
        torch.testing.assert_close(output.loss, -(log_p[0, 0] + log_p[1, 2]) / 2)
        assert student(**inputs).loss is None
    # A fresh LayerNorm leaves mean 0 and variance 1; without one the latent is what the Linear layer gives.
    standardised = torch.allclose(output.latents.std(-1, correction=0), torch.ones(2), atol=1e-2)
    assert standardised == (latent_norm == "layernorm")


@every_family
def test_the_classifier_of_a_bottleneck_reads_the_latent_and_nothing_else(family):
    student = families.student(family)
    with torch.no_grad():
        output = student(**families.inputs(family))
        expected = output.latents @ student.classifier.weight.T + student.classifier.bias
    torch.testing.assert_close(output.logits, expected)


def stock_features(family, stock, inputs):
    """What the stock classifier of a family reads, pooled as the student's default says: [B, H]."""
    if family == "whisper":
        return stock.encoder(**inputs).last_hidden_state.mean(1)
    outputs = stock.base_model(**inputs)
    if family in ("resnet", "convnext"):
        return outputs.pooler_output.flatten(1)
    hidden = outputs.last_hidden_state
    return hidden.mean(1) if FAMILIES[family][0] is AUDIO else hidden[:, 0]


@every_family
def test_the_latent_of_an_auxiliary_head_reads_the_features_that_the_stock_classifier_reads(family):
    student = families.stir(families.student(family, head="auxiliary", latent_norm="none"))
    inputs = families.inputs(family)
    with torch.no_grad():
        features = stock_features(family, student.backbone, inputs)
        torch.testing.assert_close(student(**inputs).latents, student.latent_head(features))


def test_an_auxiliary_head_can_read_the_pooler_that_the_stock_classifier_reads():
    student = families.student("bert", head="auxiliary", latent_norm="none", pooling="pooler")
    inputs = families.inputs("bert")
    with torch.no_grad():
        pooled = student.backbone.bert(**inputs).pooler_output
        torch.testing.assert_close(student(**inputs).latents, student.latent_head(pooled))


def test_an_auxiliary_head_keeps_a_pooler_that_the_stock_classifier_owns():
    config = DebertaV2Config(**TRANSFORMER, vocab_size=100)
    student = TEXT.from_backbone(config, latent_dim=4, num_labels=3, head="auxiliary").eval()
    inputs = families.inputs("bert")
    with torch.no_grad():
        assert torch.equal(student(**inputs).logits, student.backbone(**inputs).logits)


def test_a_speech_student_trains_when_layerdrop_takes_every_layer():
    student = AUDIO.from_backbone(tiny.wav2vec2(layerdrop=1.0), latent_dim=4, num_labels=3, head="auxiliary")
    assert student.train()(**families.inputs("wav2vec2"), labels=LABELS).latents.shape == (2, 4)


@both_heads
def test_hidden_states_and_attentions_come_when_asked_for(head):
    student = families.student("vit", head=head, attn_implementation="eager")
    inputs = families.inputs("vit")
    plain = student(**inputs)
    assert plain.hidden_states is None and plain.attentions is None
    output = student(**inputs, output_hidden_states=True, output_attentions=True)
    assert [state.shape for state in output.hidden_states] == [(2, 5, 32)] * 2  # 2 x 2 patches and CLS, 1 layer
    assert [attention.shape for attention in output.attentions] == [(2, 2, 5, 5)]  # 2 heads


# ---- from a backbone ----
@both_heads
def test_the_callers_configuration_stays_as_it_was_and_two_students_can_share_it(head):
    config = tiny.vit()
    before = config.to_dict()
    first = IMAGE.from_backbone(config, latent_dim=4, num_labels=3, head=head)
    IMAGE.from_backbone(config, latent_dim=4, num_labels=5, head=head)
    assert config.to_dict() == before
    assert first.config.num_labels == 3
    assert first.config.backbone_config.num_labels == (3 if head == "auxiliary" else 2)


@every_family
@both_heads
def test_a_headless_checkpoint_keeps_its_weights(family, head, tmp_path):
    families.seed(3)
    families.stir(AutoModel.from_config(families.config(family))).save_pretrained(tmp_path)
    student = families.student(family, backbone=tmp_path, head=head)
    wanted = AutoModel.from_pretrained(tmp_path)
    wanted = wanted.get_encoder() if family == "whisper" else wanted
    encoder = student.backbone
    if head == "auxiliary":
        encoder = encoder.encoder if family == "whisper" else encoder.base_model
    found = encoder.state_dict()
    assert {name for name in wanted.state_dict() if name not in found} <= {"pooler.dense.weight", "pooler.dense.bias"}
    assert all(torch.equal(value, wanted.state_dict()[name]) for name, value in found.items())
    inputs = families.inputs(family)
    with torch.no_grad():
        assert torch.equal(encoder(**inputs).last_hidden_state, wanted(**inputs).last_hidden_state)


@both_heads
def test_a_whisper_student_keeps_the_encoder_of_a_speech_recognition_checkpoint(head, tmp_path):
    whisper = families.stir(WhisperForConditionalGeneration(tiny.whisper()))
    whisper.save_pretrained(tmp_path)
    student = families.student("whisper", backbone=str(tmp_path), head=head)
    assert same_state(student.backbone if head == "bottleneck" else student.backbone.encoder, whisper.model.encoder)


@every_family
def test_an_auxiliary_head_keeps_the_classifier_of_a_classification_checkpoint(family, tmp_path):
    stock = families.stock(family)
    stock.config.id2label, stock.config.label2id = {0: "a", 1: "b", 2: "c"}, {"a": 0, "b": 1, "c": 2}
    stock.save_pretrained(tmp_path)
    student = families.student(family, backbone=str(tmp_path), num_labels=None, head="auxiliary")
    inputs = families.inputs(family)
    with torch.no_grad():
        assert torch.equal(student(**inputs).logits, stock(**inputs).logits)
    assert student.config.id2label == {0: "a", 1: "b", 2: "c"}
    assert student.config.label2id == {"a": 0, "b": 1, "c": 2}


@pytest.mark.parametrize("family", ["vit", "resnet", "roberta", "wav2vec2"])
def test_another_number_of_labels_gets_a_fresh_classifier_on_the_same_encoder(family, tmp_path):
    stock = families.stock(family)
    stock.save_pretrained(tmp_path)
    student = families.student(family, backbone=str(tmp_path), num_labels=7, head="auxiliary")
    assert same_state(student.backbone.base_model, stock.base_model)
    assert student(**families.inputs(family)).logits.shape == (2, 7)
    assert student.backbone.config.num_labels == student.config.num_labels == 7
    last = [layer for layer in student.backbone.classifier.modules() if isinstance(layer, nn.Linear)][-1]
    assert 0 < last.weight.abs().max() < 0.5  # drawn, not left as memory was


def test_a_checkpoint_gives_a_student_in_evaluation_mode_and_a_configuration_one_in_training_mode(tmp_path):
    AutoModel.from_config(tiny.vit()).save_pretrained(tmp_path)
    assert not IMAGE.from_backbone(tmp_path, latent_dim=4).training
    assert IMAGE.from_backbone(tiny.vit(), latent_dim=4).training


@both_heads
def test_options_reach_the_configuration_of_a_checkpoints_backbone(head, tmp_path):
    AutoModel.from_config(tiny.vit()).save_pretrained(tmp_path)
    student = IMAGE.from_backbone(tmp_path, latent_dim=4, num_labels=3, head=head, hidden_dropout_prob=0.25)
    assert [m.p for m in student.backbone.modules() if isinstance(m, nn.Dropout)].count(0.25) > 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"head": "side"}, "head='side'"),
        ({"latent_norm": "batchnorm"}, "latent_norm='batchnorm'"),
        ({"pooling": "max"}, "pooling='max'"),
        ({"latent_dim": 0}, "latent_dim=0"),
        ({"latent_dim": True}, "latent_dim=True"),
        ({"latent_dim": None}, "latent_dim is missing"),
        ({"num_labels": 3, "id2label": {0: "a", 1: "b"}}, "num_labels=3, but id2label names 2"),
        ({"revision": "main"}, "'revision'.* are options of a checkpoint"),
    ],
)
def test_refuses_what_it_does_not_know_and_names_the_value(options, message):
    with pytest.raises(ValueError, match=message):
        IMAGE.from_backbone(tiny.vit(), **{"latent_dim": 4, **options})


def test_a_stock_checkpoint_is_not_read_as_a_student(tmp_path):
    families.stock("vit").save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="architecture 'vit', not a co-learning student.*from_backbone"):
        IMAGE.from_pretrained(tmp_path)


# ---- saving and loading ----
@every_family
@both_heads
def test_a_saved_student_loads_with_identical_outputs_and_buffers(family, head, tmp_path):
    student = families.stir(families.student(family, head=head))
    student.save_pretrained(tmp_path)
    inputs = families.inputs(family)
    with torch.no_grad():
        expected = student(**inputs)
    weights = [path.name for path in tmp_path.iterdir() if path.suffix not in (".py", ".json")]
    assert weights == ["model.safetensors"]
    for loader in (type(student), type(student)._stock_class):
        loaded = loader.from_pretrained(tmp_path)
        assert type(loaded) is type(student)
        with torch.no_grad():
            found = loaded(**inputs)
        assert torch.equal(found.logits, expected.logits)
        assert torch.equal(found.latents, expected.latents)
        buffers = dict(loaded.named_buffers())  # also those that are in no checkpoint
        assert all(torch.equal(buffers.pop(name), value) for name, value in student.named_buffers())
        assert not buffers
        assert loaded.config.to_diff_dict().keys() == student.config.to_diff_dict().keys()


def test_a_saved_student_takes_another_number_of_labels_with_a_fresh_classifier(tmp_path):
    student = families.stir(families.student("vit"))
    student.save_pretrained(tmp_path)
    loaded = IMAGE.from_pretrained(tmp_path, num_labels=7, ignore_mismatched_sizes=True)
    assert same_state(loaded.backbone, student.backbone)
    assert same_state(loaded.latent_head, student.latent_head)
    # torch draws the weights of Linear(24, 7) from +-1 / sqrt(24) = +-0.2041
    assert 0 < loaded.classifier.weight.abs().max() <= 0.2042


def test_added_tokens_are_saved(tmp_path):
    student = families.student("bert")
    student.resize_token_embeddings(110)
    student.save_pretrained(tmp_path)
    loaded = TEXT.from_pretrained(tmp_path)
    assert torch.equal(loaded.get_input_embeddings().weight, student.get_input_embeddings().weight)
    assert loaded.get_input_embeddings().weight.shape == (110, 32)


# ---- pooling ----
def test_default_pooling_suits_the_backbone():
    found = {family: families.student(family).config.pooling for family in FAMILIES}
    assert found == {
        **dict.fromkeys(["resnet", "convnext"], "pooler"),
        **dict.fromkeys(["vit", "bert", "roberta", "distilbert"], "cls"),
        **dict.fromkeys(["wav2vec2", "hubert", "whisper", "ast"], "mean"),
    }
    swin = SwinConfig(image_size=32, embed_dim=8, depths=[1, 1], num_heads=[1, 1], window_size=4)
    assert IMAGE.from_backbone(swin, latent_dim=4).config.pooling == "pooler"  # it has no CLS token
    gpt2 = GPT2Config(n_embd=32, n_layer=1, n_head=2, vocab_size=100)
    assert TEXT.from_backbone(gpt2, latent_dim=4).config.pooling == "mean"  # its first token sees itself alone


@pytest.mark.parametrize("pooling", ["mean", "masked_mean"])
@pytest.mark.parametrize("family", ["bert", "roberta", "distilbert"])
def test_text_that_is_padded_gives_the_same_output(family, pooling):
    student = families.student(family, pooling=pooling)
    ids = families.inputs(family)["input_ids"][:1, :7]
    padded = F.pad(ids, (0, 5), value=student.config.backbone_config.pad_token_id)
    mask = F.pad(torch.ones_like(ids), (0, 5))
    with torch.no_grad():
        alone = student(input_ids=ids, attention_mask=torch.ones_like(ids))
        found = student(input_ids=padded, attention_mask=mask)
        unmasked = student(input_ids=padded, attention_mask=torch.ones_like(mask))
    torch.testing.assert_close(found.logits, alone.logits, atol=1e-5, rtol=0)
    torch.testing.assert_close(found.latents, alone.latents, atol=1e-5, rtol=0)
    assert (unmasked.latents - alone.latents).abs().max() > 1e-3  # the padding would matter


@both_heads
@pytest.mark.parametrize("family", ["wav2vec2", "hubert"])
def test_audio_that_is_padded_gives_the_same_output(family, head):
    layout = {"feat_extract_norm": "layer", "do_stable_layer_norm": True}  # those whose processor gives a mask
    config = tiny.wav2vec2(**layout) if family == "wav2vec2" else families.hubert(**layout)
    student = families.student(family, backbone=config, head=head)
    wave = families.inputs(family)["input_values"][:1, :2500]
    padded, mask = F.pad(wave, (0, 1500)), F.pad(torch.ones(1, 2500).long(), (0, 1500))
    with torch.no_grad():
        alone = student(input_values=wave)
        found = student(input_values=padded, attention_mask=mask)
        unmasked = student(input_values=padded)
    torch.testing.assert_close(found.logits, alone.logits, atol=1e-5, rtol=0)
    torch.testing.assert_close(found.latents, alone.latents, atol=1e-5, rtol=0)
    assert (unmasked.latents - alone.latents).abs().max() > 1e-3


def test_whispers_mean_leaves_padded_frames_out():
    student = families.student("whisper", latent_norm="none", pooling="masked_mean")
    inputs = families.inputs("whisper")
    mask = torch.ones(2, 100).long()
    mask[1, 60:] = 0  # 100 frames become 50 tokens, of which 30 are not padding
    with torch.no_grad():
        hidden = student.backbone(**inputs).last_hidden_state
        pooled = torch.stack([hidden[0].mean(0), hidden[1, :30].mean(0)])
        found = student(**inputs, attention_mask=mask).latents
        torch.testing.assert_close(found, student.latent_head(pooled))


@pytest.mark.parametrize(
    ("family", "pooling", "mask", "message"),
    [
        ("resnet", "cls", None, "feature map.*use pooling='mean' or 'pooler'"),
        ("distilbert", "pooler", None, "DistilBertModel does not give"),
        ("wav2vec2", "masked_mean", None, "needs an attention mask"),
        ("resnet", "masked_mean", None, "needs an attention mask"),
        ("ast", "mean", torch.ones(2, 64), "marks 64 inputs, and ASTModel gives 62 tokens"),
    ],
)
def test_pooling_that_does_not_fit_says_what_to_use(family, pooling, mask, message):
    student = families.student(family, pooling=pooling)
    inputs = families.inputs(family)
    inputs.pop("attention_mask", None)
    with pytest.raises(ValueError, match=message):
        student(**inputs, **({} if mask is None else {"attention_mask": mask}))


def test_the_mean_of_a_feature_map_is_over_its_positions():
    class Outputs:
        last_hidden_state = torch.arange(8.0).reshape(1, 2, 2, 2)

    # channel 0 holds 0, 1, 2, 3 and channel 1 holds 4, 5, 6, 7
    assert pool_outputs(nn.Identity(), Outputs, "mean").tolist() == [[1.5, 5.5]]


# ---- labels ----
@pytest.mark.parametrize(
    "names",
    [
        {"id2label": {0: "zero", 1: "one", 2: "two"}},
        {"id2label": {"0": "zero", "1": "one", "2": "two"}},  # as JSON gives them
        {"label2id": {"zero": 0, "one": 1, "two": 2}},
        {"num_labels": 3, "id2label": {0: "zero", 1: "one", 2: "two"}},
    ],
)
@both_heads
def test_the_classes_names_agree(names, head, tmp_path):
    IMAGE.from_backbone(tiny.vit(), latent_dim=4, head=head, **names).save_pretrained(tmp_path)
    student = IMAGE.from_pretrained(tmp_path)
    configs = [student.config] + ([student.backbone.config] if head == "auxiliary" else [])
    for config in configs:
        assert config.num_labels == 3
        assert config.id2label == {0: "zero", 1: "one", 2: "two"}
        assert config.label2id == {"zero": 0, "one": 1, "two": 2}


def test_the_classes_names_come_from_the_backbone_unless_the_number_differs():
    names = {"id2label": {0: "cat", 1: "dog", 2: "emu"}, "label2id": {"cat": 0, "dog": 1, "emu": 2}}
    same = IMAGE.from_backbone(tiny.vit(**names), latent_dim=4)
    assert (same.config.id2label, same.config.label2id) == (names["id2label"], names["label2id"])
    other = IMAGE.from_backbone(tiny.vit(**names), latent_dim=4, num_labels=2)
    assert other.config.id2label == {0: "LABEL_0", 1: "LABEL_1"}


SINGLE, SEVERAL = "single_label_classification", "multi_label_classification"


@pytest.mark.parametrize(
    ("labels", "problem", "expected"),
    [  # logits (ln 3, 0): softmax (3/4, 1/4), sigmoid (3/4, 1/2)
        ([0, -100], None, math.log(4 / 3)),
        ([[0.5, 0.5], [math.nan, 1.0]], SINGLE, 0.5 * math.log(4 / 3) + 0.5 * math.log(4)),
        ([[1.0, -100.0], [math.nan, 0.0]], None, (math.log(4 / 3) + math.log(2)) / 2),
        ([[1, -100], [-100, -100]], SEVERAL, math.log(4 / 3)),
        ([[-100.0, math.nan], [0.0, math.nan]], "regression", ((math.log(3) + 100) ** 2 + math.log(3) ** 2) / 2),
    ],
)
def test_labels_that_are_missing_have_no_part_in_the_task_loss(labels, problem, expected):
    logits = torch.tensor([[math.log(3), 0.0]] * 2, requires_grad=True)
    assert task_loss(logits, torch.tensor(labels), problem).item() == pytest.approx(expected)
    is_class = isinstance(labels[0], int)
    none = torch.tensor([-100, -100]) if is_class else torch.full((2, 2), math.nan)
    loss = task_loss(logits, none, problem)
    (slope,) = torch.autograd.grad(loss, logits)
    assert loss.item() == 0 and not slope.any()


def test_task_loss_by_hand():
    zeros = torch.zeros(1, 2)
    # softmax(0, 0) = (1/2, 1/2), so every label and every mixture of labels costs ln 2
    for labels in (torch.tensor([1]), torch.tensor([[0.25, 0.75]]), torch.tensor([[0, 1]])):
        assert task_loss(zeros, labels, SINGLE).item() == pytest.approx(math.log(2))
    # softmax(ln 3, 0) = (3/4, 1/4): 0.25 ln(4/3) + 0.75 ln 4
    soft = task_loss(torch.tensor([[math.log(3), 0.0]]), torch.tensor([[0.25, 0.75]], dtype=torch.float64), SINGLE)
    assert soft.item() == pytest.approx(0.25 * math.log(4 / 3) + 0.75 * math.log(4))
    # sigmoid(ln 3) = 3/4 for a label that is on, and 1 - sigmoid(0) = 1/2 for one that is off
    multi = task_loss(torch.tensor([[math.log(3), 0.0]]), torch.tensor([[1, 0]]), "multi_label_classification")
    assert multi.item() == pytest.approx((math.log(4 / 3) + math.log(2)) / 2)
    # the same without a problem type: floats are several labels, as in transformers
    assert task_loss(torch.tensor([[math.log(3), 0.0]]), torch.tensor([[1.0, 0.0]]), None).item() == multi.item()
    # ((1 - 0)^2 + (3 - 1)^2) / 2 = 5/2, whether the labels are (B,) or (B, 1)
    for labels in (torch.tensor([0, 1]), torch.tensor([[0.0], [1.0]])):
        assert task_loss(torch.tensor([[1.0], [3.0]]), labels, "regression").item() == 2.5


def test_one_label_means_regression():
    student = IMAGE.from_backbone(tiny.vit(), latent_dim=4, num_labels=1)
    output = student(**families.inputs("vit"), labels=torch.tensor([0.5, -1.0]))
    expected = ((output.logits[0, 0] - 0.5) ** 2 + (output.logits[1, 0] + 1) ** 2) / 2
    torch.testing.assert_close(output.loss, expected)


@both_heads
def test_the_problem_type_of_a_student_decides_its_loss(head):
    student = families.student("vit", head=head, problem_type="multi_label_classification")
    labels = torch.tensor([[1, 0, 1], [0, 0, 0]])
    with torch.no_grad():
        output = student(**families.inputs("vit"), labels=labels)
    p = output.logits.sigmoid()
    right = torch.where(labels == 1, p, 1 - p)
    torch.testing.assert_close(output.loss, -right.log().mean())


def test_soft_labels_reach_the_loss_of_a_student():
    student = families.student("vit", problem_type=SINGLE)
    soft = torch.tensor([[0.5, 0.25, 0.25], [0.0, 0.0, 1.0]])
    with torch.no_grad():
        output = student(**families.inputs("vit"), labels=soft)
    torch.testing.assert_close(output.loss, -(soft * output.logits.log_softmax(-1)).sum(-1).mean())


def test_an_image_pipeline_gives_the_classes_names(tmp_path):
    student = families.student(
        "vit", tiny.vit(num_channels=3), num_labels=None, id2label={0: "zero", 1: "one", 2: "two"}
    )
    student.save_pretrained(tmp_path)
    processor = ViTImageProcessor(size={"height": 8, "width": 8})
    processor.save_pretrained(tmp_path)
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (12, 12, 3), dtype=np.uint8))
    found = pipeline("image-classification", model=str(tmp_path), device="cpu")(image)
    with torch.no_grad():
        p = student(**processor(image, return_tensors="pt")).logits.softmax(-1)[0]
    expected = dict(zip(["zero", "one", "two"], p.tolist(), strict=True))
    assert {answer["label"]: answer["score"] for answer in found} == pytest.approx(expected, abs=1e-6)


def test_a_text_pipeline_gives_the_classes_names(tmp_path):
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "good", "bad", "day"]
    tokenizer = BertTokenizer(vocab={word: index for index, word in enumerate(words)})
    student = families.student("bert", num_labels=None, id2label={0: "neutral", 1: "good", 2: "bad"})
    student.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    (found,) = pipeline("text-classification", model=str(tmp_path), device="cpu")("a good day", top_k=1)
    with torch.no_grad():  # [CLS] a good day [SEP]
        p = student(input_ids=torch.tensor([[2, 5, 6, 8, 3]])).logits.softmax(-1)[0]
    assert found["label"] == ["neutral", "good", "bad"][p.argmax()]
    assert found["score"] == pytest.approx(p.max().item(), abs=1e-6)


def test_an_audio_pipeline_gives_the_classes_names(tmp_path):
    student = families.student("wav2vec2", num_labels=None, id2label={0: "calm", 1: "glad", 2: "sad"})
    student.save_pretrained(tmp_path)
    extractor = Wav2Vec2FeatureExtractor(do_normalize=False)
    extractor.save_pretrained(tmp_path)
    wave = np.random.default_rng(0).normal(size=4000).astype(np.float32)
    found = pipeline("audio-classification", model=str(tmp_path), device="cpu")(wave)
    with torch.no_grad():
        p = student(input_values=torch.from_numpy(wave)[None]).logits.softmax(-1)[0]
    expected = dict(zip(["calm", "glad", "sad"], p.tolist(), strict=True))
    assert {answer["label"]: answer["score"] for answer in found} == pytest.approx(expected, abs=1e-6)


# ---- what transformers offers ----
@both_heads
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_the_attention_implementation_reaches_the_backbone(attention, head, tmp_path):
    AutoModel.from_config(tiny.vit()).save_pretrained(tmp_path / "backbone")
    options = {"latent_dim": 4, "num_labels": 3, "head": head, "attn_implementation": attention}
    student = IMAGE.from_backbone(tmp_path / "backbone", **options)
    student.save_pretrained(tmp_path / "student")
    loaded = IMAGE.from_pretrained(tmp_path / "student", attn_implementation=attention)
    for model in (IMAGE.from_backbone(tiny.vit(), **options), student, loaded):
        used = [m.config._attn_implementation for m in model.modules() if type(m).__name__ == "ViTAttention"]
        assert used == [attention]


def test_both_attention_implementations_agree(tmp_path):
    student = families.stir(families.student("bert"))
    student.save_pretrained(tmp_path)
    inputs = families.inputs("bert")
    with torch.no_grad():
        eager, sdpa = (
            TEXT.from_pretrained(tmp_path, attn_implementation=attention)(**inputs).logits
            for attention in ("eager", "sdpa")
        )
    torch.testing.assert_close(eager, sdpa, atol=1e-5, rtol=1e-5)


@both_heads
def test_bfloat16_weights_are_built_saved_and_loaded_and_the_loss_is_float32(head, tmp_path):
    student = families.student("vit", head=head, dtype="bfloat16")
    assert {parameter.dtype for parameter in student.parameters()} == {torch.bfloat16}
    inputs = {"pixel_values": families.inputs("vit")["pixel_values"].bfloat16()}
    output = student(**inputs, labels=LABELS)
    assert output.logits.dtype == output.latents.dtype == torch.bfloat16
    torch.testing.assert_close(output.loss, F.cross_entropy(output.logits.float(), LABELS), rtol=0, atol=0)
    student.save_pretrained(tmp_path)
    loaded = IMAGE.from_pretrained(tmp_path)
    assert loaded.dtype == torch.bfloat16
    assert torch.equal(loaded(**inputs).logits, output.logits)
    assert IMAGE.from_pretrained(tmp_path, dtype="float32").dtype == torch.float32


def test_a_bfloat16_student_keeps_the_precision_of_rotary_positions(tmp_path):
    tokens = {f"{name}_token_id": index for index, name in enumerate(["pad", "bos", "eos", "cls", "sep"])}
    config = ModernBertConfig(**TRANSFORMER, vocab_size=100, **tokens)
    student = TEXT.from_backbone(config, latent_dim=4, num_labels=3, dtype="bfloat16").eval()
    student.save_pretrained(tmp_path)
    inputs = families.inputs("bert")
    with torch.no_grad():
        assert torch.equal(TEXT.from_pretrained(tmp_path)(**inputs).logits, student(**inputs).logits)
    assert {buffer.dtype for buffer in student.buffers()} == {torch.float32}


def test_dtype_auto_is_that_of_the_checkpoint(tmp_path):
    AutoModel.from_config(tiny.vit(), dtype=torch.bfloat16).save_pretrained(tmp_path)
    assert IMAGE.from_backbone(tmp_path, latent_dim=4, dtype="auto").dtype == torch.bfloat16
    assert IMAGE.from_backbone(tmp_path, latent_dim=4).dtype == torch.float32


def training_gradients(student, family) -> dict[str, torch.Tensor | None]:
    """The gradients of one training step on loss and latents."""
    families.seed(5)
    output = student.train()(**families.inputs(family), labels=LABELS)
    (output.loss + output.latents.pow(2).mean() + output.latents.mean()).backward()
    return {name: parameter.grad for name, parameter in student.named_parameters() if parameter.requires_grad}


@both_heads
@pytest.mark.parametrize("family", ["vit", "bert", "wav2vec2", "whisper"])
def test_gradient_checkpointing_computes_layers_twice_and_gives_the_same_gradients(family, head):
    runs = 0

    def count(*args):
        nonlocal runs
        runs += 1

    student = families.student(family, head=head)
    (attention,) = [module for name, module in student.named_modules() if name.endswith((".attention", ".self_attn"))]
    attention.register_forward_hook(count)
    plain = training_gradients(student, family)
    assert runs == 1
    student.zero_grad()
    student.gradient_checkpointing_enable()
    checkpointed = training_gradients(student, family)
    assert runs == 3  # one more in the forward pass and one in the backward pass
    assert student.is_gradient_checkpointing
    for name, gradient in plain.items():
        torch.testing.assert_close(checkpointed[name], gradient)


def test_a_backbone_without_gradient_checkpointing_says_so():
    with pytest.raises(ValueError, match="does not support.*checkpointing"):
        families.student("resnet").gradient_checkpointing_enable()


@every_family
@both_heads
@both_norms
def test_every_weight_gets_a_gradient_so_that_plain_ddp_works(family, head, latent_norm):
    gradients = training_gradients(families.student(family, head=head, latent_norm=latent_norm), family)
    assert [name for name, gradient in gradients.items() if gradient is None] == []


def test_a_speech_student_without_spec_augment_has_one_weight_without_a_gradient():
    # The exception: transformers makes the embedding of masked frames whether or not frames are masked.
    config = tiny.wav2vec2(layerdrop=0.0, apply_spec_augment=False)
    gradients = training_gradients(families.student("wav2vec2", config), "wav2vec2")
    assert [name for name, gradient in gradients.items() if gradient is None] == ["backbone.masked_spec_embed"]


@both_heads
@pytest.mark.parametrize("family", ["wav2vec2", "hubert"])
def test_freezing_the_feature_encoder_leaves_the_rest_to_train(family, head):
    student = families.student(family, head=head)
    student.freeze_feature_encoder()
    frozen = [name for name, parameter in student.named_parameters() if not parameter.requires_grad]
    assert frozen and all(".feature_extractor." in name for name in frozen)
    assert frozen == [name for name, _ in student.named_parameters() if ".feature_extractor." in name]


@both_heads
@pytest.mark.parametrize("family", ["vit", "resnet", "bert"])
def test_a_compiled_student_gives_equal_outputs_in_one_graph(family, head):
    if not torch._dynamo.is_dynamo_supported():
        pytest.skip("torch.compile does not run on this platform")
    torch._dynamo.reset()
    student = families.student(family, head=head)
    compiled = torch.compile(student, backend="aot_eager", fullgraph=True)
    inputs = families.inputs(family)
    with torch.no_grad():
        expected, found = student(**inputs, labels=LABELS), compiled(**inputs, labels=LABELS)
    for name in ("loss", "logits", "latents"):
        torch.testing.assert_close(found[name], expected[name])


def test_a_student_that_has_run_can_be_copied():
    student = families.student("vit", head="auxiliary")
    inputs = families.inputs("vit")
    expected = student(**inputs)
    assert torch.equal(copy.deepcopy(student)(**inputs).latents, expected.latents)


def test_a_configuration_comes_back_from_its_dictionary():
    config = families.student("vit", pooling="mean", latent_norm="none").config
    again = CoLearningStudentConfig.from_dict(config.to_dict())
    assert again.to_dict() == config.to_dict()
    assert type(again.backbone_config) is type(config.backbone_config)


@both_heads
def test_return_dict_is_understood_as_by_stock_models(head):
    student = families.student("vit", head=head)
    inputs = families.inputs("vit")
    output = student(**inputs, labels=LABELS, return_dict=True)
    assert list(output) == ["loss", "logits", "latents"]
    as_tuple = student(**inputs, labels=LABELS, return_dict=False)
    assert isinstance(as_tuple, tuple)
    assert all(torch.equal(found, value) for found, value in zip(as_tuple, output.values(), strict=True))


# ---- a classifier with a hidden layer, as published for IEMOCAP's audio student ----
def test_the_classifiers_hidden_layer_reads_the_latent(tmp_path):
    torch.manual_seed(0)
    student = CoLearningForImageClassification.from_backbone(
        tiny.vit(), latent_dim=6, num_labels=3, latent_norm="none", classifier_dim=5
    ).eval()
    pixels = torch.randn(2, 1, 8, 8)
    with torch.no_grad():
        output = student(pixels)
        first, _, last = student.classifier
        by_hand = torch.nn.functional.gelu(output.latents @ first.weight.T + first.bias) @ last.weight.T + last.bias
    assert first.weight.shape == (5, 6) and last.weight.shape == (3, 5)
    torch.testing.assert_close(output.logits, by_hand)
    # In torch's own scheme, as every head: uniform within 1 / sqrt(fan-in), biases included.
    assert 0 < first.bias.abs().max() <= 6**-0.5 and 0 < last.bias.abs().max() <= 5**-0.5

    student.save_pretrained(tmp_path)
    loaded = CoLearningForImageClassification.from_pretrained(tmp_path).eval()
    with torch.no_grad():
        torch.testing.assert_close(loaded(pixels).logits, output.logits)
    with pytest.raises(ValueError, match="hidden layer.*classifier_dim=5"):
        student.to_transformers()


@pytest.mark.parametrize("value, message", [(0, "classifier_dim=0"), (1.5, "classifier_dim=1.5")])
def test_a_classifier_dim_that_is_no_width_is_refused(value, message):
    with pytest.raises(ValueError, match=message):
        CoLearningForImageClassification.from_backbone(tiny.vit(), latent_dim=6, num_labels=3, classifier_dim=value)


def test_an_auxiliary_head_has_no_classifier_to_widen():
    with pytest.raises(ValueError, match="bottleneck"):
        CoLearningForImageClassification.from_backbone(
            tiny.vit(), latent_dim=6, num_labels=3, head="auxiliary", classifier_dim=4
        )


# ---- bad input ----
REFUSALS = Refusals()
case = REFUSALS.case


@pytest.mark.parametrize(Refusals.NAMES, REFUSALS.cases)
def test_bad_input_is_refused_with_the_way_out(situation, error, texts, tmp_path):
    assert_refused(situation, error, texts, tmp_path)


def build(backbone=None, **options):
    return IMAGE.from_backbone(tiny.vit() if backbone is None else backbone, **{"latent_dim": 4, **options})


@case(TypeError, "backbone is a ViTModel", "`model.config`")
def a_model_for_a_backbone(folder):
    yield
    build(AutoModel.from_config(tiny.vit()))


@case(TypeError, "backbone is the class ViTConfig", "a Hub id or the folder of a checkpoint")
def the_class_of_a_configuration(folder):
    yield
    build(type(tiny.vit()))


@case(ValueError, "num_labels=0 is no number of classes", "at least 1")
def a_student_of_no_classes(folder):
    yield
    build(num_labels=0)


@case(ValueError, "num_labels='ten' is no number of classes", "a whole number")
def a_number_of_classes_in_words(folder):
    yield
    build(num_labels="ten")


@case(TypeError, "id2label is a list", "`id2label=dict(enumerate(names))`")
def names_of_classes_in_a_list(folder):
    yield
    build(id2label=["cat", "dog"])


@case(TypeError, "modality_dropout='0.1' is a str", "pass a number")
def a_dropout_that_is_a_text(folder):
    yield
    configs = {name: FeatureBackboneConfig(feature_dim=2) for name in ("one", "two")}
    CoLearningForMultimodalClassification.from_backbones(configs, 2, num_labels=2, modality_dropout="0.1")


def test_a_number_of_classes_of_numpy_is_one():
    assert build(num_labels=np.array([0, 2, 1]).max() + 1).config.num_labels == 3
