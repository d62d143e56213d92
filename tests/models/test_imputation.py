"""Imputed latents: their arithmetic, what a fusion sees of them, saving, adapters, and what is refused."""

import math

import pytest
import torch
from torch import nn
from transformers import AutoModel

import families
import tiny_modalities
from docstrings import run_example
from hf_colearn import CoLearningForMultimodalClassification, CoLearningMultimodalConfig
from hf_colearn.hub.export import export_program
from hf_colearn.models.fusion import FUSIONS
from hf_colearn.models.imputation import (
    IMPUTATIONS,
    CentroidImputation,
    imputable,
    modulated,
    weighted_centroids,
)
from hf_colearn.models.lora import load_adapter, trained_layer, with_lora
from refusals import Refusals, assert_refused


CENTROIDS = torch.tensor([[[0.0, 0.0], [2.0, 2.0]], [[1.0, -1.0], [1.0, 3.0]]])  # of 2 modalities
MASK = torch.tensor([[True, True], [True, False], [False, True], [True, True]])
LABELS = torch.tensor([0, 2, 1, -100])


def imputation(centroids=CENTROIDS, modulation=False):
    made = CentroidImputation(centroids.shape[0], centroids.shape[2], centroids.shape[1], modulation)
    made.centroids.copy_(centroids)
    return made


def model(num_centroids=2, modulation=False, **kwargs):
    options = {"num_centroids": num_centroids, "modulation": modulation}
    made = tiny_modalities.model(imputation="centroids", imputation_options=options, **kwargs)
    made.imputation.centroids.copy_(torch.randn(len(made.modalities), num_centroids, 4))
    return made.eval()


def of_kind(kind, **kwargs):
    """With noise where it has some."""
    if kind == "centroids":
        return model(modulation=True, **kwargs)
    return tiny_modalities.model(imputation=kind, imputation_options={"hidden_dim": 5}, **kwargs).eval()


def inputs(samples=4, names=tiny_modalities.NAMES):
    drawn = torch.Generator().manual_seed(5)
    return {f"{name}_features": torch.randn(samples, 4, generator=drawn) for name in names}


# ---- arithmetic ----
def test_a_latent_is_the_mean_of_the_centroids_by_the_softmax_of_a_linear_layer():
    # logits (0, ln 3): weights 1/4 and 3/4; (0, 0) / 4 + 3 (2, 2) / 4 = (1.5, 1.5)
    logits_BK = torch.tensor([[0.0, math.log(3)]])
    torch.testing.assert_close(weighted_centroids(logits_BK, CENTROIDS[0]), torch.tensor([[1.5, 1.5]]))
    made = imputation()
    with torch.no_grad():
        for layer in made.weights:
            nn.init.zeros_(layer.weight)
            layer.bias.copy_(torch.tensor([0.0, math.log(3)]))
    means, scales, _ = made([torch.randn(1, 2), torch.randn(1, 2)], torch.ones(1, 2, dtype=torch.bool))
    # the second modality: (1, -1) / 4 + 3 (1, 3) / 4 = (1, 2)
    torch.testing.assert_close(torch.cat(means), torch.tensor([[1.5, 1.5], [1.0, 2.0]]))
    assert scales is None


def test_the_weights_read_the_mean_share_of_the_other_modalities_that_are_there():
    made = imputation(torch.tensor([[[0.0], [1.0]]]).repeat(3, 1, 1))
    with torch.no_grad():
        made.weights[0].weight.copy_(
            torch.tensor([[0.0, 0.0], [1.0, 10.0]])
        )  # logits 0 and z_1 + 10 z_2, or a half of it
        made.weights[0].bias.zero_()
    latents = [torch.tensor([[7.0], [7.0]]), torch.tensor([[1.0], [1.0]]), torch.tensor([[0.3], [0.3]])]
    means = made(latents, torch.tensor([[True, True, True], [False, True, False]])).means
    # both others: (1 + 3) / 2 = 2; one: 1. The centroids are 0 and 1, so the mean is the second weight.
    torch.testing.assert_close(means[0][:, 0], torch.tensor([2.0, 1.0]).sigmoid())


def test_one_centroid_is_the_global_mean_whatever_the_others_are():
    made = imputation(CENTROIDS[:, 1:])
    means = made([torch.randn(5, 2), torch.randn(5, 2)], torch.ones(5, 2, dtype=torch.bool)).means
    assert torch.equal(means[0], torch.full((5, 2), 2.0))


def test_noise_has_the_learned_scale_and_the_imputed_latent_as_its_mean():
    mean_BD, scale_BD = torch.tensor([[2.0, -1.0]]), torch.tensor([[0.5, 0.0]])
    torch.manual_seed(0)
    noise_BD = torch.randn(1, 2)
    torch.manual_seed(0)
    torch.testing.assert_close(modulated(mean_BD, scale_BD), torch.stack([2 + noise_BD[:, 0], -torch.ones(1)], dim=1))
    scales = imputation(modulation=True)([torch.randn(3, 2)] * 2, torch.ones(3, 2, dtype=torch.bool)).scales
    torch.testing.assert_close(scales[0], torch.full((3, 2), 0.1))


def test_training_sees_noise_and_evaluation_its_mean():
    made = model(modulation=True)
    only_image = {"image_features": inputs()["image_features"]}
    assert torch.equal(made(**only_image).logits, made(**only_image).logits)
    made.train()
    torch.manual_seed(0)
    first = made(**only_image)
    assert not torch.equal(first.logits, made(**only_image).logits)
    assert torch.equal(first.imputed_latents["audio"], made(**only_image).imputed_latents["audio"])
    torch.manual_seed(0)
    assert torch.equal(first.logits, made(**only_image).logits)


def test_the_example_of_its_documentation_runs():
    run_example(CentroidImputation)


def test_which_latents_could_be_imputed():
    mask_BM = torch.tensor([[True, True, False], [True, False, False]])
    assert imputable(mask_BM).tolist() == [[True, True, False], [False] * 3]


# ---- what the fusion sees ----
@pytest.mark.parametrize("kind", IMPUTATIONS)
def test_the_fusion_reads_what_is_there_and_what_is_imputed_and_the_mask_says_what_was_there(kind):
    made = of_kind(kind)
    output = made(**inputs(), modality_mask=MASK)
    here, imputed = output.modality_latents, output.imputed_latents
    seen = [torch.where(MASK[:, i, None], here[name], imputed[name]) for i, name in enumerate(made.modalities)]
    torch.testing.assert_close(output.latents, torch.cat(seen, dim=1))
    torch.testing.assert_close(output.logits, made.fusion.classifier(torch.cat(seen, dim=1)))
    assert torch.equal(output.modality_mask, MASK) and not here["audio"][1].any()
    alone = made(image_features=inputs()["image_features"]).logits
    torch.testing.assert_close(output.subset_logits["image"][[0, 1, 3]], alone[[0, 1, 3]])
    # Sample 2 has no image: nothing is seen, nothing imputed, and the classifier's bias is what remains.
    torch.testing.assert_close(output.subset_logits["image"][2], made.fusion.classifier.bias)


@pytest.mark.parametrize("kind, fusion", [*(("centroids", fusion) for fusion in FUSIONS), ("autoencoder", "sum")])
def test_every_fusion_imputes_and_gives_all_parameters_a_gradient(kind, fusion):
    made = of_kind(kind, fusion=fusion, modality_dropout=0.5).train()
    torch.manual_seed(0)
    made(**inputs(), modality_mask=MASK, labels=LABELS).loss.backward()
    assert [name for name, weight in made.named_parameters() if weight.grad is None] == []
    made.zero_grad()
    made.config.modality_dropout = 0.0
    made(**inputs(), labels=torch.full_like(LABELS, -100)).loss.backward()  # nothing is missing, and nothing labelled
    assert [name for name, weight in made.named_parameters() if weight.grad is None] == []
    made.eval()
    alone, whole = made(audio_features=inputs()["audio_features"]), made(**inputs())
    torch.testing.assert_close(alone.logits, whole.subset_logits["audio"])


@pytest.mark.parametrize("dropout, calls", [(0.0, 1), (0.5, 2)])
def test_training_imputes_once_and_twice_where_the_fusion_sees_less(dropout, calls):
    made, found = of_kind("autoencoder", modality_dropout=dropout).train(), []
    made.imputation.register_forward_hook(lambda module, args, output: found.append(output))
    made(**inputs(), labels=LABELS)
    assert len(found) == calls


def test_heads_read_imputed_latents_where_the_fusion_reads_the_heads():
    made = model(fusion="sum")
    output = made(image_features=inputs()["image_features"])
    of_audio = made.encoders["audio"].classifier(output.imputed_latents["audio"])
    torch.testing.assert_close(output.logits, (output.modality_logits["image"] + of_audio) / 2)
    assert not output.modality_logits["audio"].any()


def test_a_model_without_imputation_is_what_it_was_and_one_with_it_is_that_where_all_is_there():
    plain, with_it = tiny_modalities.model().eval(), model()
    assert not {"imputation", "imputation_options"} & plain.config.to_dict().keys()
    assert not any("imputation" in name for name in plain.state_dict())
    state = with_it.state_dict()
    assert all(torch.equal(weight, state[name]) for name, weight in plain.state_dict().items())
    expected, found = plain(**inputs()), with_it(**inputs())
    assert torch.equal(expected.logits, found.logits) and "imputed_latents" not in expected
    assert not torch.equal(expected.subset_logits["image"], found.subset_logits["image"])
    features = inputs()["image_features"]
    assert torch.equal(plain.student("image")(features).logits, with_it.student("image")(features).logits)


def test_autocast_to_bfloat16_stays_close():
    made = model(fusion="evidential")
    expected = made(**inputs(), modality_mask=MASK).logits
    with torch.autocast("cpu", torch.bfloat16):
        found = made(**inputs(), modality_mask=MASK).logits
    torch.testing.assert_close(found.float(), expected, atol=0.05, rtol=0.05)


# ---- saving ----
@pytest.mark.parametrize("kind", IMPUTATIONS)
def test_an_imputation_is_saved_loaded_and_exported(kind, tmp_path):
    made = families.stir(of_kind(kind)).eval()
    made.save_pretrained(tmp_path)
    only_image = {"image_features": inputs()["image_features"]}
    expected = made(**only_image).logits
    for loaded in (
        CoLearningForMultimodalClassification.from_pretrained(tmp_path),
        AutoModel.from_pretrained(tmp_path),
    ):
        assert loaded.config.imputation_options == made.config.imputation_options
        assert all(torch.equal(weight, loaded.state_dict()[name]) for name, weight in made.state_dict().items())
        assert torch.equal(loaded.eval()(**only_image).logits, expected)
    program = torch.export.load(export_program(made, tmp_path / "model.pt2", only_image)).module()
    torch.testing.assert_close(program(**only_image), expected)


def test_adapters_train_the_imputation_whole_and_keep_its_centroids(tmp_path):
    made = model()
    made.save_pretrained(tmp_path / "base")
    adapted = with_lora(made, rank=2)
    inside = trained_layer(adapted.get_base_model().imputation)
    inside.centroids.add_(1)
    adapted.train()(**inputs(), modality_mask=MASK, labels=LABELS).loss.backward()
    assert inside.weights[0].weight.grad is not None
    expected = adapted.eval()(**inputs(), modality_mask=MASK).logits
    adapted.save_pretrained(tmp_path / "adapter")
    base = CoLearningForMultimodalClassification.from_pretrained(tmp_path / "base")
    loaded = load_adapter(base, tmp_path / "adapter").eval()
    torch.testing.assert_close(loaded(**inputs(), modality_mask=MASK).logits, expected)
    torch.testing.assert_close(loaded.merge_and_unload()(**inputs(), modality_mask=MASK).logits, expected)


# ---- what is refused ----
refusals = Refusals()


@refusals.case(ValueError, "imputation='mean' is unknown", "centroids")
def an_imputation_that_is_none(folder):
    yield
    tiny_modalities.model(imputation="mean")


@refusals.case(ValueError, "imputation_options names ['clusters']", "'centroids' are num_centroids, modulation")
def an_option_that_is_none(folder):
    yield
    tiny_modalities.model(imputation="centroids", imputation_options={"clusters": 3})


@refusals.case(ValueError, "names ['num_centroids']", "'autoencoder' are hidden_dim, num_layers, mask_probability")
def an_option_of_the_other_kind(folder):
    yield
    tiny_modalities.model(imputation="autoencoder", imputation_options={"num_centroids": 3})


@refusals.case(ValueError, "imputation_options={'num_centroids': 3} without an imputation", "imputation='centroids'")
def options_of_nothing(folder):
    yield
    tiny_modalities.model(imputation_options={"num_centroids": 3})


@refusals.case(ValueError, "num_centroids=0 of the imputation", "at least 1")
def no_centroid(folder):
    yield
    tiny_modalities.model(imputation="centroids", imputation_options={"num_centroids": 0})


@refusals.case(TypeError, "modulation=0.1 is a float", "pass a bool")
def a_modulation_that_is_a_number(folder):
    yield
    tiny_modalities.model(imputation="centroids", imputation_options={"modulation": 0.1})


@refusals.case(ValueError, "hidden_dim=0 of the imputation", "at least 1")
def an_autoencoder_of_no_width(folder):
    yield
    tiny_modalities.model(imputation="autoencoder", imputation_options={"hidden_dim": 0})


@refusals.case(ValueError, "num_layers=True of the imputation", "at least 1")
def an_autoencoder_of_no_layers(folder):
    yield
    tiny_modalities.model(imputation="autoencoder", imputation_options={"num_layers": True})


@refusals.case(ValueError, "mask_probability=1 is no probability", "0 to below 1")
def an_autoencoder_that_hides_everything(folder):
    yield
    tiny_modalities.model(imputation="autoencoder", imputation_options={"mask_probability": 1})


@refusals.case(TypeError, "imputation_options=3 is a int", "pass a dict")
def options_that_are_a_number(folder):
    yield
    tiny_modalities.model(imputation="centroids", imputation_options=3)


@refusals.case(ValueError, "'imputation' cannot name a modality", "Choose another name")
def a_modality_of_that_name(folder):
    yield
    CoLearningMultimodalConfig({"imputation": {}, "audio": {}}, 4)


@refusals.case(ValueError, "leaves sample 1 of 4 without any modality", "leave such samples out")
def a_sample_of_which_everything_is_missing(folder):
    made, mask = model(), MASK.clone()
    mask[1] = False
    yield
    made(**inputs(), modality_mask=mask)


@refusals.case(ValueError, "leaves none of the 4 samples any modality", "pass some")
def a_batch_of_which_everything_is_missing(folder):
    made = model()
    yield
    made(**inputs(), modality_mask=torch.zeros_like(MASK))


@refusals.case(ValueError, "imputation='centroids' has no centroids yet", "ModalityCentroids()")
def training_without_centroids(folder):
    made = tiny_modalities.model(imputation="centroids").train()
    yield
    made(**inputs(), modality_mask=MASK)


@pytest.mark.parametrize(Refusals.NAMES, refusals.cases)
def test_it_is_refused(situation, error, texts, tmp_path):
    assert_refused(situation, error, texts, tmp_path)
