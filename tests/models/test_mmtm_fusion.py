"""Channels that are exchanged between the stages of convolutional encoders, and the running means of their gates."""

import math

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModel, ConvNextV2Config, RegNetConfig, TimesformerConfig

import families
import tiny
from hf_colearn import CoLearningForMultimodalClassification, FeatureBackboneConfig
from hf_colearn.models.lora import with_lora
from hf_colearn.training.checkpoints import load_weights


SIZES = {"num_channels": 1, "hidden_sizes": [8, 16], "depths": [1, 1]}
BACKBONES = {
    "resnet": tiny.resnet,
    "regnet": lambda: RegNetConfig(**SIZES, embedding_size=8, groups_width=8),
    "convnext": tiny.convnext,
    "convnextv2": lambda: ConvNextV2Config(**SIZES, num_stages=2, patch_size=2),
}
LABELS = torch.tensor([0, 2, 1, 0])


def model(stages=(1, 2), first="resnet", second="resnet", seed=0, **options):
    torch.manual_seed(seed)
    backbones = {"image": BACKBONES[first](), "sound": BACKBONES[second]()}
    options = {
        "latent_dim": 6,
        "num_labels": 3,
        "fusion": "mmtm",
        "fusion_options": {"stages": list(stages)},
        **options,
    }
    return families.stir(CoLearningForMultimodalClassification.from_backbones(backbones, **options)).eval()


def inputs(seed=0, frames=None):
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randn(4, *([frames] if frames else []), 1, 8, 8, generator=generator)
    return {"image_pixel_values": pixels, "sound_pixel_values": torch.randn(4, 1, 12, 8, generator=generator)}


def mask(*absent):
    mask = torch.ones(4, 2, dtype=torch.bool)
    for sample, modality in absent:
        mask[sample, modality] = False
    return mask


# ---- between the stages ----
@pytest.mark.parametrize("frames", [None, 3])
@pytest.mark.parametrize(
    ("first", "second", "pooling"),
    [("resnet", "regnet", "pooler"), ("convnext", "convnextv2", "pooler"), ("convnext", "resnet", "mean")],
)
def test_with_gates_of_one_the_encoders_are_the_plain_ones(first, second, pooling, frames):
    made = model(first=first, second=second, poolings=dict.fromkeys(("image", "sound"), pooling))
    given = inputs(frames=frames)
    with torch.no_grad():
        gated = made(**given).modality_logits["image"]
        for exchange in made.fusion.exchanges:
            for layer in exchange.excitations:  # 2 sigmoid(0) = 1
                layer.weight.zero_()
                layer.bias.zero_()
        found = made(**given)
        for name in made.modalities:
            plain = made.student(name)(given[f"{name}_pixel_values"])
            torch.testing.assert_close(found.modality_logits[name], plain.logits)
            torch.testing.assert_close(found.modality_latents[name], plain.latents)
    assert not torch.allclose(gated, found.modality_logits["image"])


def test_each_channel_of_a_stage_is_scaled_by_what_both_maps_show():
    made, given = model(stages=[1]), inputs()
    exchange = made.fusion.exchanges[0]
    assert exchange.squeeze.weight.shape == (4, 16)  # (8 + 8) / 4 joint features
    backbones = [encoder.backbone for encoder in made.encoders.values()]
    with torch.no_grad():
        maps = [
            backbone.encoder.stages[0](backbone.embedder(pixels))
            for backbone, pixels in zip(backbones, given.values(), strict=True)
        ]
        shown = torch.cat([x.mean((2, 3)) for x in maps], dim=1)
        joint = (shown @ exchange.squeeze.weight.T + exchange.squeeze.bias).clamp(min=0)
        found = made(**given)
        for i, name in enumerate(made.modalities):
            layer = exchange.excitations[i]
            gates = 2 / (1 + torch.exp(-(joint @ layer.weight.T + layer.bias)))
            last = backbones[i].encoder.stages[1](maps[i] * gates[:, :, None, None])
            latents, logits = made.encoders[name].classify(last.mean((2, 3)))
            torch.testing.assert_close(found.modality_latents[name], latents)
            torch.testing.assert_close(found.modality_logits[name], logits)
    torch.testing.assert_close(found.logits, torch.stack(list(found.modality_logits.values())).mean(0))


def test_the_gates_of_a_video_are_of_all_its_frames():
    made, given = model(), inputs()
    still = given | {"image_pixel_values": given["image_pixel_values"][:, None].expand(-1, 3, -1, -1, -1)}
    with torch.no_grad():
        torch.testing.assert_close(made(**still).logits, made(**given).logits)
        moving = inputs(frames=3)
        backwards = moving | {"image_pixel_values": moving["image_pixel_values"].flip(1)}
        torch.testing.assert_close(made(**backwards).logits, made(**moving).logits)


@pytest.mark.parametrize("training", [True, False])
def test_what_stands_in_the_place_of_an_absent_modality_changes_nothing(training):
    clean, dirty = inputs(frames=2), inputs(frames=2)
    dirty["image_pixel_values"][1] = math.nan
    outputs = []
    for batch in (clean, dirty):
        made = model().train(training)
        output = made(**batch, modality_mask=mask((1, 0), (2, 1)), labels=LABELS)
        output.loss.backward()
        outputs.append((output.logits, *(p.grad for p in made.parameters()), *made.buffers()))
    assert all(torch.equal(a, b) for a, b in zip(*outputs, strict=True)) and outputs[0][0].isfinite().all()


def test_an_absent_modality_shows_zeros_and_a_subset_is_a_forward_with_its_mask():
    made = model()
    with torch.no_grad():
        subsets = made(**inputs()).subset_logits
        for i, name in enumerate(("sound", "image")):
            masked = made(**inputs(), modality_mask=mask(*((sample, i) for sample in range(4))))
            torch.testing.assert_close(subsets[name], masked.logits)
            alone = made(**{key: value for key, value in inputs().items() if key.startswith(name)})
            torch.testing.assert_close(subsets[name], alone.logits)
        some = made(**inputs(), modality_mask=mask((1, 1))).modality_logits["image"]
        torch.testing.assert_close(some[1], subsets["image"][1])
        torch.testing.assert_close(some[[0, 2, 3]], made(**inputs()).modality_logits["image"][[0, 2, 3]])


@pytest.mark.parametrize("curated", [None, 0])
@pytest.mark.parametrize("absent", [(), (0,)])
def test_every_weight_gets_a_gradient_so_that_plain_ddp_works(absent, curated):
    made = model(modality_dropout=0.3).train()
    made.fusion.curated = curated
    gone = [(sample, modality) for modality in absent for sample in range(4)]
    made(**inputs(), labels=LABELS, modality_mask=mask(*gone)).loss.backward()
    assert [name for name, parameter in made.named_parameters() if parameter.grad is None] == []


def test_it_is_saved_and_loaded_in_bfloat16_with_its_means_in_float32(tmp_path):
    made = model()
    made.train()(**inputs())
    made.eval().save_pretrained(tmp_path)
    loaded = AutoModel.from_pretrained(tmp_path)
    assert loaded.config.fusion_options == {"stages": [1, 2]} and loaded.fusion.curated is None
    with torch.no_grad():
        assert torch.equal(loaded(**inputs()).logits, made(**inputs()).logits)
    half = AutoModel.from_pretrained(tmp_path, dtype="bfloat16")
    assert torch.equal(half.fusion.exchanges[1].gate_mean_1, made.fusion.exchanges[1].gate_mean_1)
    output = half.train()(**{key: value.bfloat16() for key, value in inputs().items()}, labels=LABELS)
    output.loss.backward()
    assert output.logits.dtype == torch.bfloat16 and half.fusion.exchanges[1].gate_mean_1.dtype == torch.float32


# ---- running means and curation ----
def pooled(**options):
    torch.manual_seed(0)
    backbones = {name: FeatureBackboneConfig(feature_dim=width) for name, width in (("image", 3), ("sound", 5))}
    options = {"latent_dim": 4, "num_labels": 3, "fusion": "mmtm", **options}
    return families.stir(CoLearningForMultimodalClassification.from_backbones(backbones, **options))


def features(seed=0):
    generator = torch.Generator().manual_seed(seed)
    return {
        "image_features": torch.randn(4, 3, generator=generator),
        "sound_features": torch.randn(4, 5, generator=generator),
    }


def gates_of(made, batch, mask_BM):
    return made.fusion.eval().gates(list(batch.values()), mask_BM)


def means(made):
    return [getattr(made.fusion, f"gate_mean_{i}") for i in range(2)]


def test_each_modalitys_gates_have_a_running_mean_over_the_samples_that_have_it():
    made, batches = pooled(), [features(0), features(1)]
    masks = [mask((1, 0), (2, 1), (3, 1)), mask((0, 0))]
    with torch.no_grad():
        seen = [gates_of(made, batch, mask_BM) for batch, mask_BM in zip(batches, masks, strict=True)]
        made.train()
        for batch, mask_BM in zip(batches, masks, strict=True):
            made(**batch, modality_mask=mask_BM)
    for i, mean in enumerate(means(made)):
        # the first of 3 + 3 samples, the second of 2 + 4: not a mean of the batches' means, and each of its own gates
        present = torch.cat([gates[i][mask_BM[:, i]] for gates, mask_BM in zip(seen, masks, strict=True)])
        torch.testing.assert_close(mean, present.mean(0))
    assert made.fusion.gate_counts.tolist() == [6, 6]


def test_only_training_that_is_not_curated_moves_the_means_and_dropout_does_so_once():
    made = pooled(modality_dropout=0.5).train()
    made(**features())
    kept = [mean.clone() for mean in means(made)]
    assert made.fusion.gate_counts.tolist() == [4, 4]
    made.fusion.curated = 0
    made(**features(1))
    made.fusion.curated = None
    made.eval()(**features(1))
    assert all(torch.equal(a, b) for a, b in zip(means(made), kept, strict=True))


@pytest.mark.parametrize("curated", [0, 1])
def test_a_curated_modality_is_gated_by_its_own_mean_and_the_other_as_before(curated):
    made = pooled().train()
    made(**features(1))
    mask_BM, name, other = mask(), *[made.modalities[i] for i in (curated, 1 - curated)]
    with torch.no_grad():
        own = list(features().values())[curated] * means(made)[curated]
        expected = made.encoders[name].classify(own)[1]
        gates = gates_of(made, features(), mask_BM)[1 - curated]
        expected_of_other = made.encoders[other].classify(list(features().values())[1 - curated] * gates)[1]
        made.train().fusion.curated = curated
        found = made(**features()).modality_logits
        torch.testing.assert_close(found[name], expected)
        torch.testing.assert_close(found[other], expected_of_other)
        computed = made.eval()(**features()).modality_logits[name]
    assert not torch.allclose(computed, expected)  # evaluation is of the model as it predicts


def test_a_curated_stage_is_gated_by_its_mean():
    made = model(stages=[1]).train()
    made(**inputs(1))
    made.fusion.curated = 1
    means_of = dict(made.fusion.exchanges[0].named_buffers())
    encoder, pixels = made.encoders["sound"], inputs()["sound_pixel_values"]
    with torch.no_grad():
        maps = encoder.backbone.encoder.stages[0](encoder.backbone.embedder(pixels))
        last = encoder.backbone.encoder.stages[1](maps * means_of["gate_mean_1"][:, None, None])
        expected = encoder.classify(last.mean((2, 3)))[1]
        torch.testing.assert_close(made(**inputs()).modality_logits["sound"], expected)


def test_the_means_are_in_the_checkpoint_and_the_curated_modality_is_not(tmp_path):
    made = pooled().train()
    made(**features())
    made.fusion.curated = 1
    made.save_pretrained(tmp_path)
    assert "fusion.gate_mean_1" in load_file(tmp_path / "model.safetensors")
    loaded, resumed = AutoModel.from_pretrained(tmp_path), pooled()
    load_weights(resumed, str(tmp_path))
    for found in (loaded, resumed):
        assert all(torch.equal(a, b) for a, b in zip(means(found), means(made), strict=True))
        assert found.fusion.gate_counts.tolist() == [4, 4] and found.fusion.curated is None


def test_a_checkpoint_from_before_there_were_means_loads_with_means_of_one(tmp_path):
    made = pooled()
    state = {name: value for name, value in made.state_dict().items() if "gate_" not in name}
    made.save_pretrained(tmp_path, state_dict=state)
    made.fusion.gate_mean_0.fill_(0.5)
    loaded, report = AutoModel.from_pretrained(tmp_path, output_loading_info=True)
    load_weights(made, str(tmp_path))
    assert not any(report.values())
    for found in (loaded, made):
        assert all((mean == 1).all() for mean in means(found)) and found.fusion.gate_counts.tolist() == [0, 0]


def test_the_weights_of_an_exchange_are_told_from_those_of_the_main_branches():
    made = model()
    by_id = {id(parameter): name for name, parameter in made.named_parameters()}
    for i in range(2):
        names = {by_id[id(parameter)] for parameter in made.fusion.bypass_parameters(i)}
        layers = [f"fusion.exchanges.{k}.{part}" for k in range(2) for part in ("squeeze", f"excitations.{i}")]
        assert names == {f"{layer}.{key}" for layer in layers for key in ("weight", "bias")}


def test_adapters_take_the_exchange_and_its_means_and_can_be_curated():
    adapted = with_lora(model(), 2).train()
    base = adapted.get_base_model()
    adapted(**inputs())
    counts = base.fusion.exchanges[0].gate_counts.clone()
    assert counts.tolist() == [4, 4]
    base.fusion.curated = 0
    adapted(**inputs(), labels=LABELS).loss.backward()
    assert torch.equal(base.fusion.exchanges[0].gate_counts, counts)
    assert all(p.grad is not None for p in adapted.parameters() if p.requires_grad)


# ---- bad input ----
@pytest.mark.parametrize(
    ("backbones", "stages", "message"),
    [
        (
            (tiny.resnet, tiny.bert),
            [1],
            r"stages=\[1\], and the backbone 'bert' of 'sound' does not run stage by stage",
        ),
        (
            (tiny.resnet, TimesformerConfig),
            [1],
            "'timesformer' of 'sound'.*resnet, regnet, convnext.*leave stages out",
        ),
        ((tiny.resnet, tiny.resnet), [3], r"stages=\[3\]: the backbones' stages are 1 to 2"),
        ((tiny.resnet, tiny.convnext), [0, 1], r"stages=\[0, 1\]: the backbones' stages are 1 to 2"),
        ((tiny.resnet, tiny.convnext), [2, 1], r"stages=\[2, 1\]: pass the numbers of stages in ascending order"),
        ((tiny.resnet, tiny.convnext), [], r"stages=\[\]: pass the numbers"),
        ((tiny.resnet, tiny.convnext), 1, "stages=1: pass the numbers"),
    ],
)
def test_stages_that_the_backbones_do_not_have_are_refused(backbones, stages, message):
    backbones = dict(zip(("image", "sound"), (make() for make in backbones), strict=True))
    with pytest.raises(ValueError, match=message):
        CoLearningForMultimodalClassification.from_backbones(
            backbones, latent_dim=4, num_labels=3, fusion="mmtm", fusion_options={"stages": stages}
        )


def test_backbones_with_different_numbers_of_stages_are_refused():
    other = tiny.resnet()
    other.hidden_sizes, other.depths = [8, 8, 8], [1, 1, 1]
    with pytest.raises(ValueError, match="different numbers of stages, {'image': 2, 'sound': 3}"):
        CoLearningForMultimodalClassification.from_backbones(
            {"image": tiny.resnet(), "sound": other},
            latent_dim=4,
            num_labels=3,
            fusion="mmtm",
            fusion_options={"stages": [1]},
        )
