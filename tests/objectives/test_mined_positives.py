"""Neighbours as positives, the loss of several positives against plain logarithms, and what its chunks keep in memory."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from docstrings import run_example
from hf_colearn.objectives.mined_positives import NONE, mined_info_nce, nearest_neighbours


IDS = torch.tensor([0, 1, 2, 3, 4, 1, 5, 0, 6])  # two of samples 0 and 1
COUNTS = torch.tensor([True, True, True, False, True, True, True, True, True])
OWN, MINED = torch.tensor([0, 1, 2, 4]), torch.tensor([[1, 8], [2, NONE], [NONE, NONE], [7, 5]])


def vectors(dtype=torch.float64):
    drawn = torch.randn(len(OWN) + len(IDS), 3, generator=torch.Generator().manual_seed(0), dtype=dtype)
    return drawn[: len(OWN)].requires_grad_(), drawn[len(OWN) :]


def by_hand(q, k, temperature):
    """Query by query, in plain logarithms."""
    losses = []
    for row, own in enumerate(OWN.tolist()):
        others = [j for j in range(len(k)) if COUNTS[j] and IDS[j] != IDS[own]]
        exps = {j: (F.cosine_similarity(q[row], k[j], dim=0) / temperature).exp() for j in (own, *others)}
        positives = [own, *(j for j in MINED[row].tolist() if j != NONE)]
        losses.append(-(sum(exps[j] for j in positives) / sum(exps.values())).log())
    return torch.stack(losses)


def loss(q, k, temperature=1.0, chunk=512):
    return mined_info_nce(q, k, OWN, MINED, IDS[OWN], IDS, COUNTS, temperature, chunk)


@pytest.mark.parametrize(("mined", "expected"), [(NONE, 0.55144), (1, 0.23818)])
def test_similarities_of_1_0_and_0(mined, expected):
    # -log(e / (e + 2)) = log(1 + 2 / e) = .55144, and with one of the zeros a positive -log((e + 1) / (e + 2)) = .23818
    k, ids = torch.eye(3), torch.arange(3)
    found = mined_info_nce(3 * k[:1], k, ids[:1], torch.tensor([[mined]]), ids[:1], ids, ids >= 0, temperature=1.0)
    assert found.item() == pytest.approx(expected, abs=5e-6)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
@pytest.mark.parametrize("temperature", [0.07, 1.0])
def test_it_is_the_share_of_the_positives_in_the_sum_of_all(temperature, dtype, tolerance):
    q, k = vectors(dtype)
    found, expected = loss(q, k, temperature, chunk=3), by_hand(q, k, temperature)
    torch.testing.assert_close(found, expected, atol=tolerance, rtol=tolerance)
    slopes = [torch.autograd.grad(each.sum(), q)[0] for each in (found, expected)]
    torch.testing.assert_close(*slopes, atol=tolerance, rtol=10 * tolerance)


def test_gradients_of_first_and_second_order_agree_with_finite_differences():
    q, k = vectors()
    assert torch.autograd.gradcheck(lambda q: loss(q, k, chunk=3), [q])
    assert torch.autograd.gradgradcheck(lambda q: loss(q, k, chunk=3), [q])


def test_neighbours_are_the_nearest_of_other_samples_that_count():
    # At 0, 1, 4, ..., 64 degrees; lengths do not matter. Row 7 is of the same sample as row 0, and row 3 does not count.
    angles = torch.arange(9) ** 2 * math.pi / 180
    y = torch.stack([angles.cos(), angles.sin()], dim=1) * torch.linspace(1, 5, 9)[:, None]
    rows = torch.tensor([0, 4, 8])
    found = nearest_neighbours(y[rows], y, IDS[rows], IDS, COUNTS, neighbours=3, chunk=2)
    assert found.tolist() == [[1, 2, 4], [5, 2, 1], [7, 6, 5]]


def test_missing_neighbours_are_none():
    y = torch.eye(2)
    found = nearest_neighbours(y[:1], y, IDS[:1], IDS[:2], torch.tensor([True, False]), neighbours=5)
    assert found.tolist() == [[NONE, NONE]]


@pytest.mark.parametrize("documented", [nearest_neighbours, mined_info_nce], ids=lambda each: each.__name__)
def test_the_example_is_right(documented):
    run_example(documented)


class _Largest(TorchDispatchMode):
    """The largest number of elements of any tensor that is made."""

    def __init__(self):
        super().__init__()
        self.elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        made = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(made):
            if isinstance(tensor, torch.Tensor):
                self.elements = max(self.elements, tensor.numel())
        return made


def test_no_tensor_is_larger_than_a_chunk_of_logits():
    batch, keys, chunk = 64, 256, 8
    q, k = torch.randn(batch, 4, requires_grad=True), torch.randn(keys, 4)
    own, ids, counts = torch.arange(batch), torch.arange(keys), torch.ones(keys, dtype=torch.bool)
    with _Largest() as largest:
        mined = nearest_neighbours(q.detach(), k, own, ids, counts, neighbours=2, chunk=chunk)
        mined_info_nce(q, k, own, mined, own, ids, counts, 0.07, chunk=chunk).sum().backward()
    assert largest.elements == chunk * keys
