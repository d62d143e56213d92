"""The fusions alone, on latents and logits whose fused prediction is worked out by hand."""

import math

import pytest
import torch
from transformers import AutoModel

import tiny
from docstrings import run_example
from hf_colearn import CoLearningForMultimodalClassification, FeatureBackboneConfig
from hf_colearn.hub.export import export_program
from hf_colearn.models.dynamic_fusion import disagreement
from hf_colearn.models.entropy_fusion import entropy_weights
from hf_colearn.models.evidential_fusion import combine
from hf_colearn.models.fusion import FUSIONS, check_fusion_options
from hf_colearn.models.modality_mask import drop_modalities, proper_subsets


ALL = torch.ones(1, 2, dtype=torch.bool)
FIRST, SECOND, NONE = (torch.tensor([[a, b]]) for a, b in ((True, False), (False, True), (False, False)))
LATENTS = [torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0, 5.0]])]
LOGITS = [torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 3.0]])]


def fusion(name, modalities=2, seed=0):
    torch.manual_seed(seed)
    made = FUSIONS[name]([4, 6, 3][:modalities], latent_dim=2, num_labels=2)
    made.reset_parameters()
    return made


def test_concat_classifies_the_latents_side_by_side():
    made = fusion("concat")
    fused, logits = made(LATENTS, LOGITS, ALL)
    assert fused.tolist() == [[1, 2, 3, 5]]
    torch.testing.assert_close(logits, fused @ made.classifier.weight.T + made.classifier.bias)
    assert made(LATENTS, LOGITS, SECOND)[0].tolist() == [[0, 0, 3, 5]]


def test_sum_is_the_mean_of_the_logits_that_are_present():
    made = fusion("sum")
    assert not list(made.parameters())
    fused, logits = made(LATENTS, LOGITS, ALL)
    assert fused.tolist() == [[2, 3.5]] and logits.tolist() == [[0.5, 1.5]]
    fused, logits = made(LATENTS, LOGITS, SECOND)
    assert fused.tolist() == [[3, 5]] and logits.tolist() == [[0, 3]]
    assert made(LATENTS, LOGITS, NONE)[1].tolist() == [[0, 0]]


def test_weighted_is_a_softmax_over_those_that_are_present():
    made = fusion("weighted")
    assert made(LATENTS, LOGITS, ALL)[1].tolist() == [[0.5, 1.5]]  # at first all count the same
    with torch.no_grad():
        made.scores_M.copy_(torch.tensor([math.log(3), 0.0]))  # shares of 3/4 and 1/4
    fused, logits = made(LATENTS, LOGITS, ALL)
    torch.testing.assert_close(logits, torch.tensor([[0.75, 0.75]]))
    torch.testing.assert_close(fused, torch.tensor([[1.5, 2.75]]))
    torch.testing.assert_close(made(LATENTS, LOGITS, SECOND)[1], torch.tensor([[0.0, 3.0]]))
    assert made(LATENTS, LOGITS, NONE)[1].tolist() == [[0, 0]]


def test_film_scales_and_shifts_the_first_modality_by_the_second():
    made = fusion("film")
    with torch.no_grad():  # scale: the sum of the second latent (8) in both places; shift: 10 and 20
        made.modulations[0].weight.copy_(torch.tensor([[1.0, 1], [1, 1], [0, 0], [0, 0]]))
        made.modulations[0].bias.copy_(torch.tensor([0.0, 0, 10, 20]))
    assert made(LATENTS, LOGITS, ALL)[0].tolist() == [[1 * 9 + 10, 2 * 9 + 20]]
    assert made(LATENTS, LOGITS, FIRST)[0].tolist() == [[1, 2]]  # no other: as it is
    assert made(LATENTS, LOGITS, SECOND)[0].tolist() == [[10, 20]]  # no first: the shift


def test_lstm_reads_the_latents_in_order_and_skips_those_that_are_absent():
    made = fusion("lstm", modalities=3)
    latents, logits = [*LATENTS, torch.tensor([[-1.0, 4.0]])], [*LOGITS, LOGITS[0]]
    reference = torch.nn.LSTM(2, 2, batch_first=True)
    for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
        getattr(reference, f"{name}_l0").data.copy_(getattr(made.cell, name))
    for present in ([0, 1, 2], [0, 2], [1]):
        mask_BM = torch.zeros(1, 3, dtype=torch.bool)
        mask_BM[0, present] = True
        expected = reference(torch.stack([latents[i] for i in present], dim=1))[1][0][0]
        torch.testing.assert_close(made(latents, logits, mask_BM)[0], expected)
    assert made(latents, logits, torch.zeros(1, 3, dtype=torch.bool))[0].tolist() == [[0, 0]]


def test_mmtm_gates_each_encoders_channels_by_what_all_encoders_show():
    made = fusion("mmtm")
    assert made.squeeze.weight.shape == (2, 10)  # (4 + 6) / 4 joint features
    pooled = [torch.randn(1, 4), torch.randn(1, 6)]
    with torch.no_grad():
        found = made.exchange(pooled, FIRST)
        joint = (torch.cat([pooled[0], torch.zeros(1, 6)], 1) @ made.squeeze.weight.T + made.squeeze.bias).clamp(min=0)
        layer = made.excitations[0]
        gates = 2 / (1 + torch.exp(-(joint @ layer.weight.T + layer.bias)))
        torch.testing.assert_close(found[0], gates * pooled[0])
        assert not torch.allclose(made.exchange(pooled, ALL)[0], found[0])


@pytest.mark.parametrize("modalities", [2, 3])
@pytest.mark.parametrize("name", FUSIONS)
def test_what_stands_in_the_place_of_an_absent_modality_is_not_read(name, modalities):
    made = fusion(name, modalities)
    mask_BM = torch.rand(6, modalities, generator=torch.Generator().manual_seed(1)) < 0.5
    clean, dirty = (
        [torch.randn(6, 2, generator=torch.Generator().manual_seed(i)) for i in range(modalities)] for _ in "ab"
    )
    for i, values in enumerate(dirty):
        values[~mask_BM[:, i]] = math.nan
    values = made(clean, clean, mask_BM)
    found = made(dirty, dirty, mask_BM)
    assert all(torch.equal(a, b) for a, b in zip(found, values, strict=True))
    assert found[1].shape == (6, 2) and found[1].isfinite().all()


def test_modality_dropout_leaves_one_and_never_one_that_is_absent():
    here = torch.tensor([[True, True, True], [False, True, True], [False, False, True]]).repeat(20_000, 1)
    torch.manual_seed(0)
    kept = drop_modalities(here, 0.5)
    assert not (kept & ~here).any()
    assert kept.any(1).all()
    # Of three, each stays with 1/2, plus a third of the 1/8 where all would go: 13/24. Of two: 1/2 + 1/8. Of one: always.
    rates = [kept[row::3].float().mean(0) for row in range(3)]
    torch.testing.assert_close(rates[0], torch.full((3,), 13 / 24), atol=0.015, rtol=0)
    torch.testing.assert_close(rates[1], torch.tensor([0, 0.625, 0.625]), atol=0.015, rtol=0)
    torch.testing.assert_close(rates[2], torch.tensor([0.0, 0, 1]))


def test_subsets_are_all_of_a_few_modalities_and_singles_and_all_but_one_of_many():
    assert proper_subsets(2) == [(0,), (1,)]
    assert proper_subsets(3) == [(0,), (1,), (2,), (0, 1), (0, 2), (1, 2)]
    assert len(proper_subsets(5)) == 30
    assert [len(subset) for subset in proper_subsets(6)] == [1] * 6 + [5] * 6


@pytest.mark.parametrize("function", [entropy_weights, disagreement, combine])
def test_the_examples_of_the_functions_run(function):
    run_example(function)


# ---- options ----
def test_options_reach_the_fusion_and_come_back_with_the_checkpoint(tmp_path):
    features = {name: FeatureBackboneConfig(feature_dim=6) for name in ("image", "text")}
    make = CoLearningForMultimodalClassification.from_backbones
    made = make(features, latent_dim=2, num_labels=2, fusion="mmtm", fusion_options={"ratio": 6})
    assert made.fusion.squeeze.weight.shape == (2, 12)
    made.save_pretrained(tmp_path)
    loaded = AutoModel.from_pretrained(tmp_path)
    assert loaded.config.fusion_options == {"ratio": 6} and loaded.fusion.squeeze.weight.shape == (2, 12)
    assert "fusion_options" not in make(features, latent_dim=2, num_labels=2).config.to_dict()


@pytest.mark.parametrize(
    ("fusion", "options", "error", "message"),
    [
        ("mmtm", {"rate": 4}, ValueError, r"names \['rate'\], and fusion='mmtm' knows none.*its options are ratio"),
        ("sum", {"ratio": 4}, ValueError, r"names \['ratio'\].*fusion='sum'.*it has no options"),
        ("mmtm", {"ratio": 0}, ValueError, "ratio=0: the joint vector is"),
        ("mmtm", [4], TypeError, r"fusion_options=\[4\] is a list: pass a dict"),
    ],
)
def test_options_that_a_fusion_does_not_know_are_refused(fusion, options, error, message):
    with pytest.raises(error, match=message):
        check_fusion_options(fusion, options)
    modalities = {name: FeatureBackboneConfig(feature_dim=6) for name in ("image", "text")}
    with pytest.raises(error, match=message):
        CoLearningForMultimodalClassification.from_backbones(
            modalities, latent_dim=2, num_labels=2, fusion=fusion, fusion_options=options
        )


# ---- export ----
@pytest.mark.parametrize(
    ("fusion", "backbone", "shape", "options"),
    [
        ("dynamic", lambda: FeatureBackboneConfig(feature_dim=4), (4,), {"tau": 0.1}),
        ("mmtm", tiny.resnet, (1, 8, 8), {"stages": [1]}),  # of which the example has one modality
    ],
)
def test_an_exported_program_predicts_the_same_for_other_batch_sizes(fusion, backbone, shape, options, tmp_path):
    torch.manual_seed(0)
    names, column = ("one", "two"), "features" if fusion == "dynamic" else "pixel_values"
    made = CoLearningForMultimodalClassification.from_backbones(
        {name: backbone() for name in names},
        latent_dim=4,
        num_labels=3,
        fusion=fusion,
        fusion_options=options,
        shared_classifier=True,
    ).eval()
    batch = {f"{name}_{column}": torch.randn(5, *shape) for name in names[: 1 if fusion == "mmtm" else 2]}
    path = export_program(made, tmp_path / "model.pt2", {name: value[:2] for name, value in batch.items()})
    with torch.no_grad():
        found = torch.export.load(path).module()(**batch)
        torch.testing.assert_close(found, made(**batch).logits, atol=1e-5, rtol=1e-5)
