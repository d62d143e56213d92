"""Logits weighted by each head's certainty of the sample."""

import math

import torch

from hf_colearn.models.entropy_fusion import EntropyFusion, entropy_weights


ALL = torch.ones(1, 2, dtype=torch.bool)
CERTAIN, EVEN = torch.tensor([[0.9, 0.1]]).log(), torch.tensor([[0.5, 0.5]]).log()
LATENTS = [torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0, 5.0]])]


def fusion(**options):
    return EntropyFusion([4, 6], latent_dim=2, num_labels=2, **options)


def test_a_certain_head_weighs_more():
    # H(.9, .1) = .325083 and H(.5, .5) = .693147: exp(.693147 - .325083) = 1.444938 to 1, so 1.444938 / 2.444938 = .59099.
    torch.testing.assert_close(entropy_weights([CERTAIN, EVEN], ALL), torch.tensor([[0.59099, 0.40901]]))
    fused, logits = fusion()(LATENTS, [CERTAIN, EVEN], ALL)
    torch.testing.assert_close(logits, 0.59099 * CERTAIN + 0.40901 * EVEN)
    torch.testing.assert_close(fused, torch.tensor([[1 + 2 * 0.40901, 2 + 3 * 0.40901]]))


def test_the_entropy_is_over_the_classes_and_not_over_the_batch():
    generator = torch.Generator().manual_seed(0)
    logits = [3 * torch.randn(5, 3, generator=generator) for _ in "ab"]
    together = fusion()(logits, logits, ALL.expand(5, 2))[1]
    alone = [fusion()(*2 * [[x[i : i + 1] for x in logits]], ALL)[1] for i in range(5)]
    torch.testing.assert_close(together, torch.cat(alone))
    # The released order, a softmax over the batch: a sample alone has a probability of 1 in each class, so no entropy.
    assert not torch.allclose(entropy_weights(logits, ALL.expand(5, 2)), torch.full((5, 2), 0.5), atol=0.05)


def test_absent_modalities_weigh_nothing_and_the_largest_entropy_is_of_those_present():
    mask_BM = torch.tensor([[True, False, True], [False, True, False], [False, False, False]])
    logits = [CERTAIN.expand(3, 2), torch.full((3, 2), math.nan), EVEN.expand(3, 2)]
    logits[1][1] = EVEN
    expected = torch.tensor([[0.59099, 0, 0.40901], [0, 1, 0], [0, 0, 0]])
    torch.testing.assert_close(entropy_weights(logits, mask_BM), expected)


def test_fixed_weights_are_equal_and_no_weights_carry_a_gradient():
    _, logits = fusion(weights="fixed")(LATENTS, [CERTAIN, EVEN], ALL)
    torch.testing.assert_close(logits, (CERTAIN + EVEN) / 2)
    certain = CERTAIN.clone().requires_grad_()
    fusion()(LATENTS, [certain, EVEN], ALL)[1][0, 0].backward()
    torch.testing.assert_close(certain.grad, torch.tensor([[0.59099, 0]]))  # the weight itself, and nothing through it
