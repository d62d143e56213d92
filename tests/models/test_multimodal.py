"""The multimodal model: outputs, absent modalities, losses, students taken out, saving, and what transformers offers."""

import math
import os

import pytest
import torch
import torch.nn.functional as F
from peft import LoraConfig, get_peft_model
from torch import nn
from transformers import (
    AutoModel,
    CLIPConfig,
    CLIPModel,
    TimesformerConfig,
    VideoMAEConfig,
    VivitConfig,
)

import child_python
import families
import tiny
from hf_colearn import (
    CoLearningForAudioClassification,
    CoLearningForFeatureClassification,
    CoLearningForImageClassification,
    CoLearningForMultimodalClassification,
    CoLearningForSequenceClassification,
    CoLearningMultimodalConfig,
    FeatureBackboneConfig,
)
from hf_colearn.models.fusion import FUSIONS


every_fusion = pytest.mark.parametrize("fusion", FUSIONS)
LABELS = torch.tensor([0, 2, 1, 0])
NAMES = ("image", "text", "sound")


def backbones():
    return {
        "image": tiny.resnet(),
        "text": tiny.bert(),
        "sound": FeatureBackboneConfig(feature_dim=5, hidden_dims=[7]),
    }


def model(fusion="concat", seed=0, **options):
    torch.manual_seed(seed)
    options = {"latent_dim": 6, "num_labels": 3, **options}
    made = CoLearningForMultimodalClassification.from_backbones(backbones(), fusion=fusion, **options)
    return families.stir(made).eval()


def inputs(seed=0):
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(3, 100, (4, 7), generator=generator)
    return {
        "image_pixel_values": torch.randn(4, 1, 8, 8, generator=generator),
        "text_input_ids": ids,
        "text_attention_mask": torch.ones_like(ids),
        "sound_features": torch.randn(4, 3, 5, generator=generator),
    }


def mask(*absent):
    """All present but these (sample, modality)."""
    mask = torch.ones(4, 3, dtype=torch.bool)
    for sample, modality in absent:
        mask[sample, NAMES.index(modality)] = False
    return mask


def without_dropout(made):
    for module in made.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    return made


# ---- outputs ----
@every_fusion
def test_gives_fused_and_modality_outputs_and_every_subset(fusion):
    made = model(fusion)
    with torch.no_grad():
        output = made(**inputs(), labels=LABELS)
    assert list(output) == [
        *(
            "loss",
            "logits",
            "latents",
            "modality_logits",
            "modality_latents",
            "modality_mask",
            "subset_logits",
            "labels",
        )
    ]
    assert output.logits.shape == (4, 3)
    assert output.latents.shape == (4, 18 if fusion in ("concat", "evidential", "dynamic") else 6)
    for name, values in output.modality_latents.items():
        assert values.shape == (4, 6) and output.modality_logits[name].shape == (4, 3)
        classifier = made.encoders[name].classifier
        torch.testing.assert_close(output.modality_logits[name], classifier(values))
    assert tuple(output.modality_latents) == tuple(output.modality_logits) == made.modalities == NAMES
    assert output.modality_mask.dtype == torch.bool and output.modality_mask.all()
    assert list(output.subset_logits) == ["image", "text", "sound", "image_text", "image_sound", "text_sound"]
    torch.testing.assert_close(output.loss, F.cross_entropy(output.logits, LABELS))
    assert torch.equal(output.labels, LABELS)
    ignored = ["latents", "modality_latents", "imputed_latents", "joint_latents", "logit_scale", "labels"]
    ignored += ["training_outputs"]
    assert made.config.keys_to_ignore_at_inference == ignored


def test_training_gives_no_subsets_and_a_mask_only_where_something_may_be_absent():
    made = model().train()
    output = made(**inputs())
    assert output.modality_mask is None and output.subset_logits is None and output.loss is None
    assert made(**inputs(), modality_mask=mask()).modality_mask.all()
    only_image = {"image_pixel_values": inputs()["image_pixel_values"]}
    assert made(**only_image).modality_mask.tolist() == [[True, False, False]] * 4


@pytest.mark.parametrize("fusion", ["sum", "mmtm"])
def test_sum_is_the_mean_of_the_heads(fusion):
    with torch.no_grad():
        output = model(fusion)(**inputs())
    torch.testing.assert_close(output.logits, torch.stack(list(output.modality_logits.values())).mean(0))
    torch.testing.assert_close(output.latents, torch.stack(list(output.modality_latents.values())).mean(0))


def test_the_columns_and_students_follow_the_backbones():
    made = model()
    text = ("input_ids", "attention_mask", "token_type_ids", "inputs_embeds")
    assert made.input_names == (
        "image_pixel_values",
        *(f"text_{column}" for column in text),
        *("sound_features", "sound_attention_mask"),
    )
    assert made.main_input_name == "image_pixel_values"
    speech = CoLearningForMultimodalClassification.from_backbones(
        {"speech": tiny.wav2vec2(), "words": tiny.whisper()}, latent_dim=4, num_labels=2
    )
    assert {type(encoder) for encoder in speech.encoders.values()} == {CoLearningForAudioClassification}
    assert speech.config.modalities["speech"].pooling == "mean"
    waves = torch.randn(2, 4000)
    assert speech(speech_input_values=waves, words_input_features=torch.randn(2, 80, 100)).logits.shape == (2, 2)


# ---- absent modalities ----
@every_fusion
def test_a_subset_is_what_a_forward_with_its_mask_gives(fusion):
    made = model(fusion)
    with torch.no_grad():
        subsets = made(**inputs()).subset_logits
        for subset, logits in subsets.items():
            absent = [(sample, name) for sample in range(4) for name in NAMES if name not in subset]
            torch.testing.assert_close(logits, made(**inputs(), modality_mask=mask(*absent)).logits)
        only_text = {name: value for name, value in inputs().items() if name.startswith("text")}
        torch.testing.assert_close(subsets["text"], made(**only_text).logits)  # inputs that are not passed are absent
    assert not torch.allclose(subsets["image"], subsets["text"])


@every_fusion
@pytest.mark.parametrize("training", [True, False])
def test_what_stands_in_the_place_of_an_absent_modality_changes_nothing(fusion, training):
    absent = [(1, "image"), (3, "image"), (0, "sound"), (1, "sound")]
    clean, dirty = inputs(), inputs()
    for sample, name in absent:
        dirty["image_pixel_values" if name == "image" else "sound_features"][sample] = math.nan
    outputs, statistics = [], []
    for batch in (clean, dirty):
        made = without_dropout(model(fusion)).train(training)
        output = made(**batch, modality_mask=mask(*absent), labels=LABELS)
        output.loss.backward()
        outputs.append((output.loss, output.logits, output.latents, *output.modality_logits.values()))
        outputs[-1] += tuple(parameter.grad for parameter in made.parameters() if parameter.grad is not None)
        statistics.append(dict(made.named_buffers()))
    assert all(torch.equal(a, b) for a, b in zip(*outputs, strict=True))
    assert all(torch.equal(value, statistics[1][name]) for name, value in statistics[0].items())
    assert torch.isfinite(outputs[0][0])


def test_an_encoder_normalises_by_the_samples_that_it_has():
    absent = [(1, "image"), (3, "image")]
    made = without_dropout(model("sum")).train()
    encoder = made.student("image")
    found = made(**inputs(), modality_mask=mask(*absent)).modality_logits["image"]
    expected = encoder(inputs()["image_pixel_values"][[0, 2]]).logits
    torch.testing.assert_close(found[[0, 2]], expected)
    running = {name: value for name, value in made.encoders["image"].named_buffers() if "running" in name}
    for name, value in encoder.named_buffers():
        if "running" in name:
            torch.testing.assert_close(running[name], value)


@every_fusion
def test_latents_of_absent_samples_are_zero_and_carry_no_gradient(fusion):
    made = model(fusion).train()
    output = made(**inputs(), modality_mask=mask((1, "image"), (2, "text")))
    assert output.modality_mask.tolist()[1:3] == [[False, True, True], [True, False, True]]
    image = output.modality_latents["image"]
    assert not image[1].any() and not output.modality_logits["image"][1].any() and image[0].any()
    image[1].sum().backward()
    assert not any(p.grad is not None and p.grad.any() for p in made.parameters())


def gradients(made, batch, **more):
    output = made.train()(**batch, **more)
    (output.loss if output.loss is not None else output.logits.sum()).backward()
    return {name: parameter.grad for name, parameter in made.named_parameters()}


@every_fusion
@pytest.mark.parametrize("weight", [0.0, 0.5])
def test_every_weight_gets_a_gradient_in_one_backward_so_that_plain_ddp_works(fusion, weight):
    made = model(fusion, modality_loss_weight=weight, learned_temperature=True)
    found = gradients(made, inputs(), labels=LABELS)
    assert [name for name, gradient in found.items() if gradient is None] == []
    idle = {name for name, gradient in found.items() if not gradient.any()}
    assert "log_scale" in idle  # nothing contrastive was asked for
    if fusion == "dynamic" and not weight:  # the modalities agree, so that the classifier predicts alone
        idle -= {f"encoders.{name}.classifier.weight" for name in NAMES}
    # A bias before a batch norm has none, and a softmax over keys knows no shift.
    assert not [name for name in idle - {"log_scale"} if not name.endswith(".bias") and "pooler" not in name]


@every_fusion
@pytest.mark.parametrize("labels", [LABELS, None])
def test_every_weight_gets_a_gradient_where_a_modality_is_absent_from_the_whole_batch(fusion, labels):
    found = gradients(model(fusion), inputs(), labels=labels, modality_mask=mask(*((i, "image") for i in range(4))))
    assert [name for name, gradient in found.items() if gradient is None] == []
    assert not any(found[name].any() for name in found if name.startswith("encoders.image"))


def test_a_sample_without_anything_still_gives_finite_logits():
    for fusion in FUSIONS:
        output = model(fusion)(**inputs(), modality_mask=mask(*((2, name) for name in NAMES)))
        assert output.logits.isfinite().all()


# ---- losses ----
def test_the_heads_losses_are_over_the_samples_that_have_the_modality():
    made = model("sum", modality_loss_weight=0.5)
    absent = [(1, "image"), *((i, "sound") for i in range(4))]
    with torch.no_grad():
        output = made(**inputs(), labels=LABELS, modality_mask=mask(*absent))
    image = F.cross_entropy(output.modality_logits["image"][[0, 2, 3]], LABELS[[0, 2, 3]])
    text = F.cross_entropy(output.modality_logits["text"], LABELS)
    torch.testing.assert_close(output.loss, F.cross_entropy(output.logits, LABELS) + 0.5 * (image + text) / 2)


@pytest.mark.parametrize("fusion", ["concat", "film", "lstm"])
def test_heads_that_nothing_reads_are_trained_as_probes_and_move_nothing_else(fusion):
    made = without_dropout(model(fusion)).train()
    output = made(**inputs(), labels=LABELS)
    plain = F.cross_entropy(output.logits, LABELS)
    torch.testing.assert_close(output.loss, plain, rtol=0, atol=0)
    probes = dict(made.probe_parameters())
    rest = {name: p for name, p in made.named_parameters() if name not in probes}
    expected = torch.autograd.grad(plain, rest.values(), retain_graph=True, allow_unused=True)
    own = sum(F.cross_entropy(logits, LABELS) for logits in output.modality_logits.values()) / 3
    expected_of_probes = torch.autograd.grad(own, probes.values(), retain_graph=True)
    output.loss.backward()
    assert len(probes) == 6
    for parameter, gradient in zip(rest.values(), expected, strict=True):
        torch.testing.assert_close(parameter.grad, gradient)
    for parameter, gradient in zip(probes.values(), expected_of_probes, strict=True):
        torch.testing.assert_close(parameter.grad, gradient)


@pytest.mark.parametrize(
    "options",
    [
        *({"fusion": name} for name in ("sum", "entropy", "evidential", "dynamic")),
        {"fusion": "concat", "modality_loss_weight": 0.1},
    ],
)
def test_heads_that_the_loss_reads_are_no_probes(options):
    assert list(model(**options).probe_parameters()) == []


def test_labels_may_be_soft_or_several_as_for_students():
    soft = torch.tensor([[0.5, 0.25, 0.25], [0.0, 0, 1], [1, 0, 0], [0.2, 0.2, 0.6]])
    with torch.no_grad():
        output = model("sum", problem_type="single_label_classification")(**inputs(), labels=soft)
        torch.testing.assert_close(output.loss, -(soft * output.logits.log_softmax(-1)).sum(-1).mean())
        several = model("sum", problem_type="multi_label_classification")(**inputs(), labels=soft.round())
    p = several.logits.sigmoid()
    torch.testing.assert_close(several.loss, -torch.where(soft.round() == 1, p, 1 - p).log().mean())


def test_modality_dropout_is_of_the_fusion_alone_and_of_training_alone():
    made = without_dropout(model("concat", modality_dropout=0.6))
    with torch.no_grad():
        calm = made(**inputs())
        assert torch.equal(made(**inputs()).logits, calm.logits)
        for module in made.modules():  # batch norms as in evaluation, so that only the dropout differs
            module.training = not isinstance(module, nn.modules.batchnorm._BatchNorm)
        torch.manual_seed(0)
        found = made(**inputs())
        torch.manual_seed(0)
        again = made(**inputs())
    assert torch.equal(found.logits, again.logits)
    halves = torch.stack(found.latents.split(6, dim=1), dim=1)  # [B, M, D]
    is_kept = halves.abs().sum(-1) > 0
    assert not is_kept.all() and is_kept.any(1).all()
    for i, (name, latents) in enumerate(found.modality_latents.items()):
        torch.testing.assert_close(latents, calm.modality_latents[name])  # objectives see all of them
        torch.testing.assert_close(halves[is_kept[:, i], i], latents[is_kept[:, i]])
    assert found.modality_mask is None


def test_the_learned_temperature_is_the_scale_of_the_outputs():
    made = model(learned_temperature=True, temperature=0.1)
    with torch.no_grad():
        made.log_scale.fill_(math.log(10))
    torch.testing.assert_close(made(**inputs()).logit_scale, torch.tensor(10.0))
    with torch.no_grad():
        made.log_scale.fill_(math.log(500))
    scale = made(**inputs()).logit_scale
    assert scale.shape == () and scale.item() == pytest.approx(100)
    scale.backward()
    assert made.log_scale.grad.item() > 0  # so that it can come back
    assert model().forward(**inputs()).logit_scale is None
    fresh = CoLearningForMultimodalClassification.from_backbones(
        backbones(), latent_dim=2, num_labels=2, learned_temperature=True, temperature=0.05
    )
    assert fresh(**inputs()).logit_scale.item() == pytest.approx(20)


# ---- students ----
def test_a_modalitys_encoder_is_a_student_of_its_own(tmp_path):
    made = model("sum", id2label={0: "a", 1: "b", 2: "c"})
    given = inputs()
    expected = made(**given)
    classes = {
        "image": CoLearningForImageClassification,
        "text": CoLearningForSequenceClassification,
        "sound": CoLearningForFeatureClassification,
    }
    for name, student_class in classes.items():
        student = made.student(name)
        assert type(student) is student_class
        student.save_pretrained(tmp_path / name)
        own = {key.removeprefix(f"{name}_"): value for key, value in given.items() if key.startswith(name)}
        for found in (student, student_class.from_pretrained(tmp_path / name)):
            with torch.no_grad():
                output = found(**own, labels=LABELS)
            assert torch.equal(output.logits, expected.modality_logits[name])
            assert torch.equal(output.latents, expected.modality_latents[name])
            assert found.config.id2label == {0: "a", 1: "b", 2: "c"}
        with torch.no_grad():
            student.latent_head.weight.zero_()
        student.config.latent_norm = "layernorm"
    assert torch.equal(made(**given).logits, expected.logits)
    assert made.config.modalities["image"].latent_norm == "none"
    with pytest.raises(ValueError, match="no modality 'smell': the model has image, text, sound"):
        made.student("smell")


# ---- frames and features ----
@pytest.mark.parametrize("head", ["bottleneck", "auxiliary"])
def test_frames_go_through_an_image_backbone_one_by_one_and_are_averaged(head):
    student = families.student("vit", head=head, latent_norm="none")
    frames = torch.randn(2, 3, 1, 8, 8)
    with torch.no_grad():
        found = student(frames, labels=torch.tensor([0, 1]))
        singles = [student(frames[:, t]) for t in range(3)]
    # Without a norm everything after the pooled features is linear, so the mean goes through.
    torch.testing.assert_close(found.latents, torch.stack([single.latents for single in singles]).mean(0))
    torch.testing.assert_close(found.logits, torch.stack([single.logits for single in singles]).mean(0))


VIDEO = {
    "hidden_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "image_size": 16,
}


@pytest.mark.parametrize(
    ("config", "pooling"),
    [
        (VideoMAEConfig(**VIDEO, patch_size=8, num_frames=4, tubelet_size=2, use_mean_pooling=False), "mean"),
        (TimesformerConfig(**VIDEO, patch_size=8, num_frames=4), "cls"),
        (VivitConfig(**VIDEO, num_frames=4, tubelet_size=[2, 8, 8]), "cls"),
    ],
)
def test_a_video_backbone_takes_the_video_whole(config, pooling):
    made = CoLearningForMultimodalClassification.from_backbones(
        {"video": config, "audio": tiny.resnet()}, latent_dim=4, num_labels=2
    ).eval()
    assert made.config.modalities["video"].pooling == pooling
    frames = torch.randn(2, 4, 3, 16, 16)
    encoder = made.encoders["video"]
    with torch.no_grad():
        hidden = encoder.backbone(pixel_values=frames).last_hidden_state
        pooled = hidden.mean(1) if pooling == "mean" else hidden[:, 0]
        output = made(video_pixel_values=frames, audio_pixel_values=torch.randn(2, 1, 8, 8))
        torch.testing.assert_close(output.modality_latents["video"], encoder.latent_head(pooled))


def test_features_are_averaged_over_the_steps_that_count():
    student = CoLearningForFeatureClassification.from_backbone(
        FeatureBackboneConfig(feature_dim=2), latent_dim=3, num_labels=2, latent_norm="none"
    )
    features = torch.tensor([[[1.0, 2.0], [3.0, 4.0], [90.0, 90.0]]])
    with torch.no_grad():
        found = student(features=features, attention_mask=torch.tensor([[1, 1, 0]])).latents
        torch.testing.assert_close(found, student(features=torch.tensor([[2.0, 3.0]])).latents)
        torch.testing.assert_close(found, student.latent_head(torch.tensor([[2.0, 3.0]])))
    with pytest.raises(ValueError, match=r"shape \(1, 4\).*feature_dim=4"):
        student(features=torch.zeros(1, 4))
    with pytest.raises(ValueError, match="marks steps"):
        student(features=torch.zeros(1, 2), attention_mask=torch.ones(1, 2))
    with pytest.raises(ValueError, match="0 is no width"):
        FeatureBackboneConfig(feature_dim=3, hidden_dims=[0])
    with pytest.raises(ValueError, match="head='auxiliary'"):
        CoLearningForFeatureClassification.from_backbone(
            FeatureBackboneConfig(feature_dim=2), latent_dim=3, num_labels=2, head="auxiliary"
        )


def test_a_hidden_layer_of_features_is_linear_and_gelu():
    made = model()
    backbone = made.encoders["sound"].backbone
    features = inputs()["sound_features"]
    with torch.no_grad():
        found = backbone(features=features).last_hidden_state
        torch.testing.assert_close(found, F.gelu(backbone.layers[0](features)))


# ---- CLIP ----
@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}
    text = {**sizes, "vocab_size": 50, "bos_token_id": 48, "eos_token_id": 49, "pad_token_id": 1}
    config = CLIPConfig(text_config=text, vision_config={**sizes, "image_size": 8, "patch_size": 4}, projection_dim=12)
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("clip")
    made = families.stir(CLIPModel(config)).eval()
    made.save_pretrained(folder)
    return made, folder


def test_clip_gives_its_embeddings_as_latents_and_its_scale(clip):
    original, folder = clip
    made = CoLearningForMultimodalClassification.from_clip(folder, num_labels=3)
    assert not made.training and made.modalities == ("image", "text")
    ids = torch.randint(3, 40, (2, 6))
    ids[:, -1] = 49
    pixels = torch.randn(2, 3, 8, 8)
    with torch.no_grad():
        output = made(image_pixel_values=pixels, text_input_ids=ids)
        expected = original(pixel_values=pixels, input_ids=ids)
    for name, embeds in (("image", expected.image_embeds), ("text", expected.text_embeds)):
        torch.testing.assert_close(F.normalize(output.modality_latents[name]), embeds)
    torch.testing.assert_close(output.modality_latents["image"], original.get_image_features(pixels).pooler_output)
    torch.testing.assert_close(output.modality_latents["text"], original.get_text_features(ids).pooler_output)
    torch.testing.assert_close(output.logit_scale, original.logit_scale.exp())
    found = gradients(made, {"image_pixel_values": pixels, "text_input_ids": ids}, labels=LABELS[:2])
    assert [name for name, gradient in found.items() if gradient is None] == []


def test_clip_can_be_built_from_a_configuration_and_nothing_else_is_a_clip(clip, tmp_path):
    made = CoLearningForMultimodalClassification.from_clip(clip[0].config, num_labels=3, fusion="sum")
    assert made.training and made.config.latent_dim == 12 and made.config.learned_temperature
    AutoModel.from_config(tiny.vit()).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="is no CLIP.*'vit'"):
        CoLearningForMultimodalClassification.from_clip(str(tmp_path), num_labels=3)


# ---- checkpoints ----
def test_pretrained_backbones_keep_their_weights(tmp_path):
    families.seed(3)
    bert = families.stir(AutoModel.from_config(tiny.bert()))
    bert.save_pretrained(tmp_path)
    made = CoLearningForMultimodalClassification.from_backbones(
        {"image": tiny.resnet(), "text": str(tmp_path)},
        latent_dim=4,
        num_labels=3,
        backbone_kwargs={"text": {"hidden_dropout_prob": 0.25}},
    )
    assert not made.training
    state = made.encoders["text"].backbone.state_dict()
    assert all(torch.equal(value, bert.state_dict()[name]) for name, value in state.items())
    assert any(isinstance(m, nn.Dropout) and m.p == 0.25 for m in made.encoders["text"].modules())


@every_fusion
def test_a_saved_model_loads_with_identical_outputs(fusion, tmp_path):
    made = model(fusion, learned_temperature=True, id2label={0: "a", 1: "b", 2: "c"}, latent_norm="layernorm")
    made.save_pretrained(tmp_path)
    with torch.no_grad():
        expected = made(**inputs())
    assert [path.name for path in tmp_path.iterdir() if path.suffix not in (".py", ".json")] == ["model.safetensors"]
    for loader in (CoLearningForMultimodalClassification, AutoModel):
        loaded = loader.from_pretrained(tmp_path)
        assert type(loaded) is CoLearningForMultimodalClassification and loaded.modalities == NAMES
        with torch.no_grad():
            found = loaded(**inputs())
        assert torch.equal(found.logits, expected.logits) and torch.equal(found.logit_scale, expected.logit_scale)
        for name in NAMES:
            assert torch.equal(found.modality_latents[name], expected.modality_latents[name])
        assert loaded.config.to_dict() == {**made.config.to_dict(), "_name_or_path": str(tmp_path)} or (
            loaded.config.to_diff_dict() == made.config.to_diff_dict()
        )


def test_another_number_of_labels_reaches_every_head(tmp_path):
    model("weighted").save_pretrained(tmp_path)
    loaded = AutoModel.from_pretrained(tmp_path, num_labels=5, ignore_mismatched_sizes=True)
    output = loaded(**inputs())
    assert output.logits.shape == (4, 5) and output.modality_logits["text"].shape == (4, 5)
    assert loaded.student("text").config.num_labels == 5


IN_A_FRESH_PROCESS = """
import sys
for name in ("hf_colearn", "torchaudio"):  # to import them fails, and to look for them finds nothing
    sys.modules[name] = None
import torch, transformers
model = transformers.AutoModel.from_pretrained(sys.argv[1], trust_remote_code=True)
assert type(model).__module__.startswith("transformers_modules."), type(model).__module__
with torch.no_grad():
    outputs = model(**torch.load(sys.argv[2], weights_only=True))
    torch.save({"logits": outputs.logits, **outputs.training_outputs}, sys.argv[3])
"""


def test_a_saved_model_gives_identical_outputs_in_a_process_without_hf_colearn(tmp_path):
    projector = {"projector": {"out_features": 4, "hidden_features": 5}}
    made = model("evidential", shared_classifier=True, training_heads=projector)
    made.save_pretrained(tmp_path / "model")
    code = "\n".join(path.read_text() for path in (tmp_path / "model").glob("*.py"))
    assert "import hf_colearn" not in code and "\nfrom hf_colearn" not in code
    torch.save(inputs(), tmp_path / "inputs.pt")
    arguments = [str(tmp_path / name) for name in ("model", "inputs.pt", "logits.pt")]
    done = child_python.run(IN_A_FRESH_PROCESS, *arguments, env=os.environ | {"PYTHONPATH": ""}, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    with torch.no_grad():
        outputs, expected = torch.load(tmp_path / "logits.pt"), made(**inputs())
    assert torch.equal(outputs["logits"], expected.logits)
    assert torch.equal(outputs["projector"], expected.training_outputs["projector"])


def test_a_checkpoint_of_another_kind_is_not_read_as_a_multimodal_model(tmp_path):
    families.student("vit").save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="'colearning_student', not a multimodal model.*from_backbones"):
        CoLearningForMultimodalClassification.from_pretrained(tmp_path)


# ---- what transformers offers ----
def test_the_attention_of_each_encoder_and_of_all_can_be_chosen(tmp_path):
    def used(made):
        return {name: encoder.backbone.config._attn_implementation for name, encoder in made.encoders.items()}

    parts = {"image": tiny.vit(), "text": tiny.bert()}
    options = {"latent_dim": 4, "num_labels": 3}
    make = CoLearningForMultimodalClassification.from_backbones
    made = make(parts, attn_implementation={"text": "eager"}, **options)
    assert used(made) == {"image": "sdpa", "text": "eager"}
    assert used(make(parts, attn_implementation="eager", **options)) == {"image": "eager", "text": "eager"}
    made.save_pretrained(tmp_path)
    loaded = AutoModel.from_pretrained(tmp_path, attn_implementation={"image": "eager"})
    assert used(loaded) == {"image": "eager", "text": "sdpa"}
    with pytest.raises(ValueError, match="attn_implementation names \\['sound'\\]"):
        make(parts, attn_implementation={"sound": "eager"}, **options)


def test_bfloat16_weights_are_built_saved_and_loaded(tmp_path):
    made = model("film", dtype="bfloat16", learned_temperature=True)
    assert {parameter.dtype for parameter in made.parameters()} == {torch.bfloat16}
    batch = {k: v.bfloat16() if v.is_floating_point() else v for k, v in inputs().items()}
    output = made(**batch, labels=LABELS, modality_mask=mask((1, "image")))
    torch.testing.assert_close(output.loss, F.cross_entropy(output.logits.float(), LABELS), rtol=0, atol=0)
    made.save_pretrained(tmp_path)
    assert {p.dtype for p in AutoModel.from_pretrained(tmp_path).parameters()} == {torch.bfloat16}
    assert {p.dtype for p in AutoModel.from_pretrained(tmp_path, dtype="float32").parameters()} == {torch.float32}


@every_fusion
def test_autocast_takes_absent_modalities_and_gives_gradients(fusion):
    made = model(fusion).train()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        whole = {key: value for key, value in inputs().items() if not key.startswith("image")}
        output = made(**whole, labels=LABELS, modality_mask=mask((0, "text"), *((i, "image") for i in range(4))))
    assert output.loss.dtype == torch.float32
    output.loss.backward()
    assert all(parameter.grad is not None for parameter in made.parameters())


def test_gradient_checkpointing_gives_the_same_gradients():
    plain = gradients(without_dropout(model("sum")), inputs(), labels=LABELS)
    made = without_dropout(model("sum"))
    made.gradient_checkpointing_enable()
    for name, gradient in gradients(made, inputs(), labels=LABELS).items():
        torch.testing.assert_close(gradient, plain[name])
    assert made.is_gradient_checkpointing


def test_lora_trains_adapters_and_heads_and_saves_them(tmp_path):
    config = LoraConfig(r=2, target_modules=["query", "value"], modules_to_save=["latent_head", "classifier"])
    made = get_peft_model(model(), config)
    assert torch.equal(made.eval()(**inputs()).logits, model()(**inputs()).logits)
    before = {name: p.detach().clone() for name, p in made.named_parameters()}
    optimizer = torch.optim.SGD([p for p in made.parameters() if p.requires_grad], lr=0.1)
    for _ in range(2):
        optimizer.zero_grad()
        made.train()(**inputs(), labels=LABELS).loss.backward()
        optimizer.step()
    moved = {name for name, p in made.named_parameters() if not torch.equal(p, before[name])}
    assert moved == {name for name, p in made.named_parameters() if p.requires_grad}
    assert sum("lora_" in name for name in moved) == 4
    made.save_pretrained(tmp_path)
    base = model()
    for target, source in zip(base.buffers(), made.get_base_model().buffers(), strict=True):
        target.data.copy_(source)  # running statistics are not in an adapter
    loaded = type(made).from_pretrained(base, tmp_path).eval()
    with torch.no_grad():
        torch.testing.assert_close(loaded(**inputs()).logits, made.eval()(**inputs()).logits)


def test_more_than_five_modalities_give_singles_and_all_but_one():
    made = CoLearningForMultimodalClassification.from_backbones(
        {f"m{i}": FeatureBackboneConfig(feature_dim=2) for i in range(6)}, latent_dim=2, num_labels=2, fusion="sum"
    ).eval()
    subsets = made(**{f"m{i}_features": torch.randn(3, 2) for i in range(6)}).subset_logits
    assert list(subsets)[:6] == [f"m{i}" for i in range(6)]
    assert list(subsets)[6] == "m0_m1_m2_m3_m4" and len(subsets) == 12


# ---- bad input ----
@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["image"], "at least two"),
        (["image", "my text"], "'my text' cannot name"),
        (["image", ""], "'' cannot name"),
        (["image", "image_rgb"], "'image' begins the columns of 'image_rgb'"),
        (["image", "labels"], "'labels' cannot name"),
        (["image", "modality"], "'modality' cannot name"),
        (["image", "dtype"], "'dtype' cannot name"),
    ],
)
def test_names_that_make_columns_unclear_are_refused(names, message):
    with pytest.raises(ValueError, match=message):
        CoLearningForMultimodalClassification.from_backbones(
            {name: FeatureBackboneConfig(feature_dim=2) for name in names}, latent_dim=2, num_labels=2
        )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"fusion": "max"}, "fusion='max' is unknown: choose one of concat, sum"),
        ({"latent_dim": 0}, "latent_dim=0"),
        ({"modality_dropout": 1.0}, "modality_dropout=1.0"),
        ({"modality_loss_weight": -1}, "modality_loss_weight=-1"),
        ({"learned_temperature": True, "temperature": 0.0}, "temperature=0.0 is no temperature"),
        ({"learned_temperature": True, "temperature": 0.001}, "temperature=0.001 is below 0.01"),
        ({"temperature": 0.5}, "temperature=0.5 is the initial value of a learned temperature"),
        ({"poolings": {"smell": "mean"}}, "poolings names \\['smell'\\]"),
        ({"num_labels": None}, "number of classes is missing"),
        ({"dtype": "auto"}, "dtype='auto'"),
        ({"latent_norm": "batch"}, "latent_norm='batch'"),
    ],
)
def test_values_that_do_not_fit_are_refused_by_name(options, message):
    with pytest.raises(ValueError, match=message):
        model(**options)


def test_latents_that_do_not_meet_are_refused():
    parts = {name: model().config.modalities[name] for name in NAMES}
    parts["text"].latent_dim = 7
    with pytest.raises(ValueError, match="latent_dim=6, but the latents of 'text' are 7 wide"):
        CoLearningMultimodalConfig(modalities=parts, latent_dim=6)


@pytest.mark.parametrize("fusion", ["entropy", "evidential", "dynamic"])
def test_outputs_that_are_no_classes_are_refused_where_probabilities_of_classes_are_read(fusion):
    message = f"problem_type='multi_label_classification' with fusion='{fusion}'.*such as 'sum'"
    with pytest.raises(ValueError, match=message):
        model(fusion, problem_type="multi_label_classification")
    made = model(fusion)
    with pytest.raises(ValueError, match=message):
        made.set_problem_type("multi_label_classification")
    assert made.config.problem_type is None and made.encoders["text"].config.problem_type is None
    with pytest.raises(ValueError, match="problem_type='regression'"):
        model(fusion, num_labels=1)


def test_inputs_that_do_not_fit_are_refused():
    made, given = model(), inputs()
    with pytest.raises(TypeError, match="'smell_input_ids' is no input of this model, which takes image_pixel_values"):
        made(**given, smell_input_ids=given["text_input_ids"])
    with pytest.raises(TypeError, match="'image_input_ids' is no input"):
        made(**given, image_input_ids=given["text_input_ids"])
    with pytest.raises(ValueError, match="nothing to classify: pass inputs of image or text or sound"):
        made(labels=LABELS)
    given["sound_features"] = given["sound_features"][:3]
    with pytest.raises(ValueError, match="disagree.*image_pixel_values: 4.*sound_features: 3.*labels: 4"):
        made(**given, labels=LABELS)
    with pytest.raises(ValueError, match=r"modality_mask has shape \(4, 2\)"):
        made(**inputs(), modality_mask=torch.ones(4, 2, dtype=torch.bool))
    with pytest.raises(ValueError, match="none of the 4 samples any modality"):
        made(**inputs(), modality_mask=torch.zeros(4, 3, dtype=torch.bool))
    given.pop("sound_features")
    with pytest.raises(ValueError, match="3 of 4 samples have 'sound', and it has no inputs"):
        made(**given, modality_mask=mask((1, "sound")))
