"""Two real processes with 64 pairs each are one process with 128: losses and the gradients that DDP averages."""

from pathlib import Path

import pytest
import torch

import processes
from mechanism_cases import assert_two_are_one
from scripts.align_two import (
    CACHED,
    CASES,
    SAMPLES,
    TwoTowers,
    cached,
    gradients,
    hessian_products,
    of_pairs,
    presence,
    retrieval,
)


SCRIPT = Path(__file__).parents[1] / "scripts" / "align_two.py"


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """What the two processes found, case by case."""
    folder = tmp_path_factory.mktemp("two")
    processes.forked(SCRIPT, folder=folder, processes=2)
    results = [torch.load(folder / f"result_{rank}.pt") for rank in range(2)]
    assert [result["world_size"] for result in results] == [2, 2]
    return results


@pytest.mark.parametrize("case", CASES)
def test_two_processes_have_the_loss_and_the_gradients_of_one(results, case):
    alone = gradients(case, TwoTowers(), slice(0, SAMPLES))

    found = [result[case] for result in results]

    # What a process logs is averaged over the processes; the contrastive loss is the same on both already.
    torch.testing.assert_close((found[0]["loss"] + found[1]["loss"]) / 2, alone["loss"], atol=1e-5, rtol=1e-5)
    assert found[0]["loss"].equal(found[1]["loss"]) == (case != "distribution")
    names = {"image.weight", "image.bias", "audio.weight", "audio.bias"}
    assert {name for name, grad in alone.items() if grad.any()} - {"loss", "log_scale"} == names
    assert ("log_scale" in alone) == (case != "distribution")
    for result in found:
        for name in alone.keys() - {"loss"}:
            torch.testing.assert_close(result[name], alone[name], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.float64, 1e-12)])
def test_keys_that_are_gathered_in_parts_give_the_loss_and_the_gradients_of_one_process(results, dtype, tolerance):
    loss, *alone = of_pairs(slice(0, SAMPLES), dtype)

    (first_loss, *first), (second_loss, *second) = (result["pairs"][dtype] for result in results)

    assert first_loss.equal(second_loss)
    torch.testing.assert_close(first_loss, loss, rtol=tolerance, atol=0)
    # Twice what one process has, of which DDP takes the mean.
    found = [torch.cat([one, other]) / 2 for one, other in zip(first[:2], second[:2], strict=True)]
    for grad, expected in zip([*found, (first[2] + second[2]) / 2], alone, strict=True):
        torch.testing.assert_close(grad, expected, rtol=0, atol=tolerance * expected.abs().max().item())


def test_the_masks_of_the_two_processes_are_unequal():
    counts = [presence("unequal masks", slice(start, start + 64)).all(dim=1).sum().item() for start in (0, 64)]
    assert counts[0] < counts[1] < 64
    assert presence("a mask on one process", slice(64, 128)) is None


def test_negatives_come_from_the_other_process(results):
    halves = [gradients("plain", TwoTowers(), slice(start, start + 64))["loss"] for start in (0, 64)]
    # Twice as many negatives make it about log 2 harder.
    assert results[0]["plain"]["loss"] > sum(halves) / 2 + 0.5


def test_second_derivatives_of_the_direct_form_pass_through_both_processes(results):
    alone = hessian_products(TwoTowers(), slice(0, SAMPLES))

    first, second = (result["hessian"] for result in results)

    for product, one, other in zip(alone, first, second, strict=True):
        torch.testing.assert_close((one + other) / 2, product, atol=1e-5, rtol=1e-4)


def test_batches_of_unequal_sizes_stop_every_process_with_the_sizes(results):
    for result in results:
        assert result["unequal"].startswith("ValueError: the processes have batches of [64, 63] samples")
        assert "dataloader_drop_last=True" in result["unequal"]


def test_modalities_find_each_other_in_an_evaluation_of_two_processes_as_in_one(results):
    alone = retrieval(4)
    assert alone["eval_image_to_audio_recall_at_1_by_chance"] == pytest.approx(1 / 7)  # no row fills up the last batch
    assert all(result["retrieval"] == pytest.approx(alone) for result in results)


@pytest.mark.parametrize("name", CACHED)
def test_chunks_of_two_processes_are_one_batch_of_one_and_reduce_gradients_once_a_step(results, name, tmp_path):
    found = [result["cached"] for result in results]
    assert_two_are_one(found, name, lambda: cached(name, tmp_path))
    assert [of_process[name]["reductions"] for of_process in found] == [2, 2]
