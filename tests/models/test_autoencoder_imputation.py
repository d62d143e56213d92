"""The joint masked autoencoder of latents: its arithmetic, what it reads, and what training hides."""

import pytest
import torch
from torch import nn

import tiny_modalities
from docstrings import run_example
from hf_colearn.models.autoencoder_imputation import AutoencoderImputation


def summing(vectors, scales, mask_probability=0.0):
    """Of latents one wide: the joint latent is the sum of what is read (far above 0, GELU passes it on), decoded by a scale."""
    made = AutoencoderImputation(len(vectors), 1, 1, 1, mask_probability).eval()
    with torch.no_grad():
        made.mask_vectors.copy_(torch.tensor(vectors)[:, None])
        made.encoder[0].weight.fill_(1.0)
        made.encoder[0].bias.zero_()
        for decoder, scale in zip(made.decoders, scales, strict=True):
            decoder.weight.fill_(scale)
            decoder.bias.fill_(1.0)
    return made


def test_a_latent_is_decoded_from_the_others_and_a_learned_vector_in_its_place():
    latents = [torch.tensor([[10.0], [10.0]]), torch.tensor([[20.0], [20.0]])]
    found = summing([8.0, 7.0], [3.0, -1.0])(latents, torch.tensor([[True, True], [True, False]]))
    # first sample: 3 (8 + 20) + 1 = 85 and -(10 + 7) + 1 = -16; the second modality of the other is absent: 3 (8 + 7) + 1
    torch.testing.assert_close(found.means[0], torch.tensor([[85.0], [46.0]]))
    torch.testing.assert_close(found.means[1], torch.tensor([[-16.0], [-16.0]]))
    torch.testing.assert_close(found.joint, torch.tensor([[30.0], [17.0]]))  # 10 + 20, and 10 + 7
    assert found.scales is None


@pytest.mark.parametrize("training", [True, False])
def test_neither_the_own_latent_nor_an_absent_one_is_read(training):
    torch.manual_seed(0)
    made = AutoencoderImputation(3, 4, 8, 2, 0.0).train(training)
    latents, mask = [torch.randn(2, 4) for _ in range(3)], torch.tensor([[True, True, True], [True, True, False]])
    expected = made(latents, mask)
    latents[2][1] = torch.nan  # absent
    changed = [latents[0] + 1, *latents[1:]]
    found = made(changed, mask)
    assert torch.equal(found.means[0], expected.means[0]) and not torch.equal(found.means[1], expected.means[1])
    assert all(mean.isfinite().all() for mean in found.means)


def test_training_hides_the_others_by_chance_but_for_one_and_evaluation_none():
    made = summing([0.0] * 3, [1.0] * 3, mask_probability=0.5)
    latents = [torch.full((4000, 1), value) for value in (10.0, 20.0, 40.0)]
    whole = torch.ones(4000, 3, dtype=torch.bool)
    assert made(latents, whole).means[0].unique().tolist() == [61.0]
    torch.manual_seed(0)
    read, counts = (made.train()(latents, whole).means[0] - 1).unique(return_counts=True)
    # Both others, where both draws are .5 or more: 1/4; else the one of the higher draw.
    assert read.tolist() == [20.0, 40.0, 60.0]
    assert (counts / 4000).tolist() == pytest.approx([0.375, 0.375, 0.25], abs=0.03)
    assert made(latents, whole).joint is None
    two = made([x[:100] for x in latents], torch.tensor([[True, True, False]] * 100)).means
    assert (two[0].unique().tolist(), two[2].unique().tolist()) == (
        [21.0],
        [11.0, 21.0, 31.0],
    )  # one other always stays


def test_a_model_gives_joint_latents_of_any_subset_in_evaluation_alone():
    net = tiny_modalities.model(imputation="autoencoder", imputation_options={"hidden_dim": 6})
    image, audio = torch.randn(3, 4), torch.randn(3, 4)
    both, alone = net.eval()(image_features=image, audio_features=audio), net(image_features=image)
    assert both.joint_latents.shape == (3, 6) and not torch.equal(alone.joint_latents, both.joint_latents)
    torch.testing.assert_close(alone.imputed_latents["audio"], both.imputed_latents["audio"])  # from the image in both
    read = nn.functional.gelu(net.imputation.encoder[0](torch.cat([*both.modality_latents.values()], dim=1)))
    torch.testing.assert_close(both.joint_latents, read)
    assert net.train()(image_features=image).joint_latents is None


def test_the_example_of_its_documentation_runs():
    run_example(AutoencoderImputation)
