"""Fusion where the modalities agree, the most confident of them where they do not."""

import math

import pytest
import torch

from hf_colearn.models.dynamic_fusion import DynamicFusion, disagreement, gate_is_open, most_confident
from hf_colearn.models.fusion import check_fusion_options


ALL = torch.ones(1, 2, dtype=torch.bool)
CERTAIN, EVEN = torch.tensor([[0.9, 0.1]]).log(), torch.tensor([[0.5, 0.5]]).log()
LATENTS = [torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0, 5.0]])]


def test_disagreement_is_the_largest_squared_distance_from_the_mean():
    # mean (.7, .3): (.9 - .7)^2 = (.5 - .7)^2 = .04 in both classes
    torch.testing.assert_close(disagreement([CERTAIN, EVEN], ALL), torch.tensor([[0.04, 0.04]]))
    # with (.2, .8): mean (.53333, .46667), distances .36667, .03333 and .33333
    far = torch.tensor([[0.2, 0.8]]).log()
    expected = torch.tensor([[0.13444, 0.00111, 0.11111]])
    mask_B3 = torch.ones(1, 3, dtype=torch.bool)
    torch.testing.assert_close(disagreement([CERTAIN, EVEN, far], mask_B3), expected, atol=1e-5, rtol=0)
    far = torch.full((1, 2), math.nan)
    mask_B3[0, 2] = False
    torch.testing.assert_close(disagreement([CERTAIN, EVEN, far], mask_B3), torch.tensor([[0.04, 0.04, 0]]))


def test_the_gate_is_decided_for_each_sample():
    d_BM = torch.tensor([[0.04, 0.04], [0.04, 0.09], [0.0, 0.0]])
    assert gate_is_open(d_BM).all()
    assert gate_is_open(d_BM, tau=0.1).tolist() == [True, False, True]  # .9 is not below .8
    assert gate_is_open(d_BM, gamma=0.04).tolist() == [False, False, True]  # below, and not equal


def test_an_open_gate_is_the_classifier_and_a_closed_one_the_most_confident_head():
    logits = [torch.cat([CERTAIN, EVEN, EVEN]), torch.cat([EVEN, EVEN, CERTAIN])]
    latents = [x.expand(3, 2) for x in LATENTS]
    made = DynamicFusion([4, 6], latent_dim=2, num_labels=2, tau=0.04)  # closed at a distance of .04, as 1 is above .8
    fused_BF, logits_BC = made(latents, logits, ALL.expand(3, 2))
    classified_BC = made.classifier(fused_BF)
    assert fused_BF[0].tolist() == [1, 2, 3, 5]
    torch.testing.assert_close(logits_BC, torch.cat([CERTAIN, classified_BC[1:2], CERTAIN]))
    opened = DynamicFusion([4, 6], latent_dim=2, num_labels=2)
    opened.load_state_dict(made.state_dict())
    assert torch.equal(opened(latents, logits, ALL.expand(3, 2))[1], classified_BC)


def test_the_most_confident_is_among_those_present():
    logits = [CERTAIN.expand(3, 2), EVEN.expand(3, 2)]
    mask_BM = torch.tensor([[True, True], [False, True], [False, False]])
    assert torch.equal(most_confident(logits, mask_BM), torch.cat([CERTAIN, EVEN, torch.zeros(1, 2)]))


def test_the_weights_of_both_ways_get_a_gradient_and_the_gate_gives_none():
    logits = [CERTAIN.clone().requires_grad_(), EVEN.clone().requires_grad_()]
    made = DynamicFusion([4, 6], latent_dim=2, num_labels=2)
    made(LATENTS, logits, ALL)[1].sum().backward()
    assert made.classifier.weight.grad.any() and not any(x.grad.any() for x in logits)


@pytest.mark.parametrize("options", [{"gamma": 0}, {"tau": -1.0}, {"tau": float("nan")}, {"gamma": True}])
def test_options_that_are_no_positive_numbers_are_refused(options):
    (name, value), *_ = options.items()
    with pytest.raises(ValueError, match=f"{name}={value!r}: pass a positive number"):
        check_fusion_options("dynamic", options)
