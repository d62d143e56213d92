"""Symmetric InfoNCE against cross-entropies over all logits, and what the chunked form keeps in memory."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from hf_colearn.objectives.info_nce import info_nce


MASK = torch.tensor([True, True, False, True, True, False, True])
LABELS = torch.tensor([0, 0, 1, 1, 2, 0, 2])
FEW_LABELS = torch.tensor([-100, 1, -100, 1, 0, -100, 0])  # those without one are of nobody's class


def latents(size=7, dim=4, dtype=torch.float64):
    x, y = torch.randn(2, size, dim, generator=torch.Generator().manual_seed(0), dtype=dtype)
    return x.requires_grad_(), y.requires_grad_()


def by_hand(x, y, scale, mask=None, labels=None):
    """Row by row, in plain logarithms: slow, and written without a look at the library."""
    pairs = [i for i in range(len(x)) if mask is None or mask[i]]
    total = 0
    for i in pairs:
        negatives = [j for j in pairs if j != i and (labels is None or labels[j] != labels[i] or labels[i] == -100)]
        for one, others in ((x, y), (y, x)):
            logits = torch.stack([scale * F.cosine_similarity(one[i], others[j], dim=0) for j in [i, *negatives]])
            total = total - (logits[0] - logits.exp().sum().log()) / 2
    return total / len(pairs)


@pytest.mark.parametrize("direct", [False, True])
def test_two_pairs_by_hand(direct):
    # Both directions, both rows: logits 2 cos(0) = 2 for the partner and 2 cos(90 degrees) = 0 for the other one.
    loss = info_nce(torch.tensor([[3.0, 0.0], [0.0, 0.1]]), torch.tensor([[1.0, 0.0], [0.0, 7.0]]), 2.0, direct=direct)
    assert loss.item() == pytest.approx(math.log(1 + math.exp(-2)))


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
@pytest.mark.parametrize("direct", [False, True])
def test_it_is_the_mean_of_the_cross_entropies_both_ways(dtype, tolerance, direct):
    x, y = latents(33, 8, dtype)
    logits = F.normalize(x, dim=-1) @ F.normalize(y, dim=-1).T / 0.07
    own = torch.arange(33)
    expected = (F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)) / 2

    found = info_nce(x, y, 1 / 0.07, chunk=8, direct=direct)

    torch.testing.assert_close(found, expected, atol=tolerance, rtol=tolerance)
    for one, other in zip(torch.autograd.grad(found, (x, y)), torch.autograd.grad(expected, (x, y)), strict=True):
        torch.testing.assert_close(one, other, atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize("labels", [None, LABELS, FEW_LABELS])
@pytest.mark.parametrize("mask", [None, MASK])
@pytest.mark.parametrize("value", [3.0, 50.0])  # within a bound for the exponentials, and above it
@pytest.mark.parametrize("direct", [False, True])
def test_masks_and_labels_choose_pairs_and_negatives(mask, labels, value, direct):
    x, y = latents()
    scale = torch.tensor(value, dtype=torch.float64, requires_grad=True)
    expected = by_hand(x, y, scale, mask, labels)

    found = info_nce(x, y, scale, mask, labels, chunk=3, direct=direct)

    torch.testing.assert_close(found, expected)
    slopes = [torch.autograd.grad(loss, (x, y, scale)) for loss in (found, expected)]
    for one, other in zip(*slopes, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("labels", [None, LABELS])
@pytest.mark.parametrize("mask", [None, MASK])
def test_gradients_agree_with_finite_differences(mask, labels):
    scale = torch.tensor(3.0, dtype=torch.float64, requires_grad=True)
    inputs = (*latents(), scale)
    assert torch.autograd.gradcheck(lambda *values: info_nce(*values, mask, labels, chunk=2), inputs)
    assert torch.autograd.gradgradcheck(lambda *values: info_nce(*values, mask, labels, direct=True), inputs)


@pytest.mark.parametrize("chunk", [1, 2, 3, 5, 6, 7, 100])
def test_the_chunk_changes_nothing(chunk):
    x, y = latents()
    expected = info_nce(x, y, 5.0, MASK, LABELS, chunk=4)
    found = info_nce(x, y, 5.0, MASK, LABELS, chunk=chunk)
    torch.testing.assert_close(found, expected)
    for one, other in zip(torch.autograd.grad(found, (x, y)), torch.autograd.grad(expected, (x, y)), strict=True):
        torch.testing.assert_close(one, other)


def test_logits_made_anew_give_the_gradient_of_those_that_waited(monkeypatch):
    x, y = latents()
    waited = torch.autograd.grad(info_nce(x, y, 5.0, chunk=2), (x, y))
    monkeypatch.setattr("hf_colearn.objectives.info_nce._KEPT", 0)
    for one, other in zip(torch.autograd.grad(info_nce(x, y, 5.0, chunk=2), (x, y)), waited, strict=True):
        torch.testing.assert_close(one, other)


def test_order_of_the_pairs_and_of_the_modalities_changes_nothing():
    x, y = latents()
    order = torch.tensor([3, 6, 0, 2, 5, 1, 4])
    expected = info_nce(x, y, 5.0, MASK, LABELS)
    torch.testing.assert_close(info_nce(x[order], y[order], 5.0, MASK[order], LABELS[order]), expected)
    torch.testing.assert_close(info_nce(y, x, 5.0, MASK, LABELS), expected)
    assert info_nce(x, y[order], 5.0).item() != pytest.approx(info_nce(x, y, 5.0).item(), abs=1e-3)


@pytest.mark.parametrize("direct", [False, True])
def test_a_pair_that_does_not_count_may_hold_anything(direct):
    x, y = latents()
    expected = info_nce(x[MASK], y[MASK], 5.0)
    with torch.no_grad():
        x[~MASK], y[2] = torch.nan, torch.inf
    found = info_nce(x, y, 5.0, MASK, direct=direct)
    found.backward()
    torch.testing.assert_close(found, expected)
    for grad in (x.grad, y.grad):
        assert not grad[~MASK].any()
        assert grad[MASK].abs().sum(dim=1).min() > 0


@pytest.mark.parametrize("direct", [False, True])
@pytest.mark.parametrize("kept", [[], [3]])
def test_without_a_negative_loss_and_gradient_are_zero(kept, direct):
    x, y = latents()
    mask = torch.zeros(7, dtype=torch.bool)
    mask[kept] = True
    loss = info_nce(x, y, 5.0, mask, direct=direct)
    loss.backward()
    assert loss.item() == 0
    assert max(x.grad.abs().max(), y.grad.abs().max()) < (1e-14 if kept else 1e-300)


@pytest.mark.parametrize("scale", [39.9, 100.0, 1e4])
def test_a_low_temperature_neither_overflows_nor_underflows(scale):
    x, y = latents(64, 16, torch.float32)
    expected = [info_nce(z.double(), t.double(), scale, direct=True) for z, t in ((x, y), (x, -x), (x, x))]
    found = [info_nce(z, t, scale, chunk=10) for z, t in ((x, y), (x, -x), (x, x))]
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other.float(), rtol=1e-4, atol=1e-3)
        (slope,) = torch.autograd.grad(one, x)
        torch.testing.assert_close(slope, torch.autograd.grad(other, x)[0], rtol=1e-2, atol=1e-4 * scale)


@pytest.mark.parametrize("direct", [False, True])
def test_bfloat16_latents_are_compared_in_float32(direct):
    x, y = (z.detach().bfloat16().requires_grad_() for z in latents(40, 16, torch.float32))
    expected = info_nce(x.float(), y.float(), 10.0)
    with torch.autocast("cpu", torch.bfloat16):
        found = info_nce(x, y, 10.0, direct=direct)
    found.backward()
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(x.grad, torch.autograd.grad(expected, x)[0])  # rounded once, at the end


def test_the_gradient_can_be_taken_several_times_and_scaled():
    x, y = latents()
    loss = info_nce(x, y, 5.0)
    (once,) = torch.autograd.grad(loss, x, retain_graph=True)
    (again,) = torch.autograd.grad(3 * loss, x)
    torch.testing.assert_close(again, 3 * once)


def test_a_second_derivative_of_the_chunked_form_is_refused_with_the_way_out():
    x, y = latents()
    with pytest.raises(RuntimeError, match=r"create_graph=True.*ContrastiveAlignment\(direct=True\)"):
        torch.autograd.grad(info_nce(x, y, 5.0), x, create_graph=True)


def test_it_runs_within_a_compiled_function():
    x, y = latents(dtype=torch.float32)
    found = torch.compile(lambda x, y: info_nce(2 * x, y, 5.0, chunk=3) + 1, backend="aot_eager")(x, y)
    expected = info_nce(2 * x, y, 5.0) + 1
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(torch.autograd.grad(found, x), torch.autograd.grad(expected, x))


class Largest(TorchDispatchMode):
    """The most elements that any operation's result has."""

    elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        tensors = [leaf for leaf in tree_leaves(result) if isinstance(leaf, torch.Tensor)]
        self.elements = max([self.elements, *(tensor.numel() for tensor in tensors)])
        return result


@pytest.mark.parametrize("masked", [False, True])
def test_no_matrix_of_batch_times_batch_is_made_or_saved(masked):
    B, D, chunk = 512, 16, 32
    x, y = latents(B, D, torch.float32)
    mask, labels = (torch.arange(B) % 5 > 0, torch.arange(B) % 7) if masked else (None, None)

    def run(**options):
        saved = []
        with (
            Largest() as largest,
            torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t) or t, lambda t: t),
        ):
            info_nce(x, y, 5.0, mask, labels, **options).backward()
        return largest.elements, max(tensor.numel() for tensor in saved)

    assert run(chunk=chunk) == (chunk * B, B * D)
    made, kept = run(direct=True)
    assert made == kept == B * B


def test_at_most_five_eighths_of_the_logits_exist_at_once():
    B, D, chunk = 1024, 4, 16
    x, y = latents(B, D, torch.float32)

    def peak(**options):
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profiler:
            info_nce(x, y, 5.0, **options).backward()
        events = profiler.profiler.kineto_results.events()
        changes = sorted((event.start_ns(), event.nbytes()) for event in events if event.name() == "[memory]")
        held = highest = 0
        for _, size in changes:
            held += size
            highest = max(highest, held)
        return highest

    logits = 4 * B * B
    # 5/8 of the logits, four blocks (logits, slopes, and what an operation needs), and vectors of B x D and B.
    assert peak(chunk=chunk) < 0.625 * logits + 4 * chunk * B * 4 + 60 * B * D
    assert peak(direct=True) > 2 * logits


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"y_BD": torch.ones(6, 4)}, r"shapes \(7, 4\) and \(6, 4\) are no pairs"),
        ({"y_BD": torch.ones(7, 3)}, r"shapes \(7, 4\) and \(7, 3\) are no pairs"),
        ({"mask_B": MASK[:5]}, r"mask_B of shape \(5,\) does not fit 7 rows"),
        ({"labels_B": LABELS[:, None]}, r"labels_B of shape \(7, 1\) does not fit 7 rows"),
        ({"chunk": 0}, "chunk=0 rows"),
    ],
)
def test_what_does_not_fit_is_refused_by_its_value(change, message):
    with pytest.raises(ValueError, match=message):
        info_nce(**{"x_BD": torch.ones(7, 4), "y_BD": torch.ones(7, 4), "scale": 1.0, **change})
