"""Dirichlet distributions of the modalities, combined by Dempster's rule."""

import itertools

import torch
import torch.nn.functional as F
from torch.distributions import Dirichlet

from hf_colearn.models.evidential_fusion import EvidentialFusion, combine, dirichlet


def by_beliefs(alpha1, alpha2):
    """The rule as it is published, over beliefs and uncertainties, one sample at a time."""
    sums = [float(alpha.sum()) for alpha in (alpha1, alpha2)]
    classes = len(alpha1)
    (b1, b2), (u1, u2) = (
        [((a - 1) / s) for a, s in zip((alpha1, alpha2), sums, strict=True)],
        [classes / s for s in sums],
    )
    conflict = sum(b1[i] * b2[j] for i, j in itertools.permutations(range(classes), 2))
    b, u = (b1 * b2 + b1 * u2 + b2 * u1) / (1 - conflict), u1 * u2 / (1 - conflict)
    return b * classes / u + 1, b, u


def test_two_views_are_combined_by_dempsters_rule():
    # b1 = (2, 0) / 4, u1 = 2/4; b2 = (0, 1) / 3, u2 = 2/3; K = 1/2 * 1/3 = 1/6, 1 - K = 5/6.
    # b = ((0 + 1/2 * 2/3 + 0), (0 + 0 + 1/3 * 1/2)) / (5/6) = (.4, .2), u = (1/2 * 2/3) / (5/6) = .4; S = 2 / .4 = 5.
    one, other = torch.tensor([3.0, 1.0]), torch.tensor([1.0, 2.0])
    alpha, b, u = by_beliefs(one, other)
    torch.testing.assert_close(b, torch.tensor([0.4, 0.2]))
    torch.testing.assert_close(torch.as_tensor(u), torch.tensor(0.4))
    torch.testing.assert_close(alpha, torch.tensor([3.0, 2.0]))
    assert combine(one, other).tolist() == [3, 2]
    assert combine(one, torch.ones(2)).tolist() == one.tolist()  # no evidence changes nothing


def test_three_views_may_come_in_any_order():
    views = [1 + 4 * torch.rand(4, generator=torch.Generator().manual_seed(i)) for i in range(3)]
    expected = by_beliefs(by_beliefs(views[0], views[1])[0], views[2])[0]
    for first, second, third in itertools.permutations(views):
        torch.testing.assert_close(combine(combine(first, second), third), expected)
        torch.testing.assert_close(combine(first, combine(second, third)), expected)


def fused(latents, logits, mask_BM, seed=0):
    torch.manual_seed(seed)
    return EvidentialFusion([4] * len(logits), latent_dim=2, num_labels=3).requires_grad_(False)(
        latents, logits, mask_BM
    )


def test_the_prediction_is_the_mean_of_the_distribution_of_all_views_and_the_pseudo_view():
    generator = torch.Generator().manual_seed(0)
    latents, logits = ([torch.randn(1, width, generator=generator) for _ in "ab"] for width in (2, 3))
    found_latents, found = fused(latents, logits, torch.ones(1, 2, dtype=torch.bool))
    assert torch.equal(found_latents, torch.cat(latents, dim=1))
    torch.manual_seed(0)
    views = [*logits, torch.nn.Linear(4, 3)(found_latents).detach()]
    alpha = torch.ones(3)
    for view in views:
        alpha = by_beliefs(alpha, F.softplus(view[0]) + 1)[0]
    torch.testing.assert_close(found.exp()[0], alpha)
    torch.testing.assert_close(found.softmax(-1)[0], Dirichlet(alpha).mean)
    torch.testing.assert_close(dirichlet(logits[0]), F.softplus(logits[0]) + 1)


def test_an_absent_modality_is_no_evidence_and_sums_are_in_float32():
    latents, logits = [torch.randn(2, 2) for _ in "ab"], [torch.randn(2, 3) for _ in "ab"]
    mask_BM = torch.tensor([[True, False], [False, False]])
    found = fused(latents, logits, mask_BM)[1].exp()
    torch.manual_seed(0)
    pseudo = torch.nn.Linear(4, 3)
    inputs_B4 = torch.stack([torch.cat([latents[0][0], torch.zeros(2)]), torch.zeros(4)])
    alpha_B3 = dirichlet(pseudo(inputs_B4).detach())
    torch.testing.assert_close(found[0], combine(alpha_B3[0], dirichlet(logits[0][0])))
    torch.testing.assert_close(found[1], alpha_B3[1])
    assert combine(found.bfloat16(), found.bfloat16()).dtype == dirichlet(logits[0].bfloat16()).dtype == torch.float32
