"""A bank encoded by two processes: each encodes a share, together they write what one would, and they fail together."""

import json
from pathlib import Path

import pytest
import torch

import processes
import tiny_teachers
from hf_colearn import TeacherBank
from scripts.encode_bank import TEXTS


SCRIPT = Path(__file__).parents[1] / "scripts" / "encode_bank.py"


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """What the two processes saw, scenario by scenario."""
    folder = tmp_path_factory.mktemp("two")
    bert = tiny_teachers.bert_model()
    bert.pooler = None
    bert.save_pretrained(folder / "no_pooler")
    tiny_teachers.tokenizer().save_pretrained(folder / "no_pooler")
    processes.forked(SCRIPT, folder=folder, processes=2)
    results = [json.loads((folder / f"result_{rank}.json").read_text()) for rank in range(2)]
    assert [result["world_size"] for result in results] == [2, 2]
    return results


def test_each_process_encodes_a_share_and_the_bank_is_that_of_one(results):
    alone = TeacherBank.encode(tiny_teachers.bert(), TEXTS, "alone", batch_size=2, show_progress=False)

    first, second = (result["fresh"] for result in results)

    # 11 distinct texts in batches of 2 are 6 batches, the last of 1: numbers 0, 2, 4 and 1, 3, 5.
    assert (first["sizes"], second["sizes"]) == ([2, 2, 2], [2, 2, 1])
    for found in (first, second):
        torch.testing.assert_close(torch.tensor(found["latents"]), alone.lookup(range(22)), atol=1e-6, rtol=0)
        assert found["left"] == []


def test_a_bank_in_the_cache_costs_no_process_a_forward_pass(results):
    assert [result["cached"]["sizes"] for result in results] == [[], []]
    assert [result["cached"]["latents"] for result in results] == [result["fresh"]["latents"] for result in results]


def test_a_process_without_a_share_gets_the_bank_too(results):
    wanted = tiny_teachers.bert().encode(TEXTS[:1])

    for result in results:
        torch.testing.assert_close(torch.tensor(result["more processes than batches"]["latents"]), wanted)


def test_weights_that_are_random_but_unused_do_not_part_the_processes(results):
    wanted = tiny_teachers.bert("cls").encode(TEXTS)

    for result in results:
        torch.testing.assert_close(torch.tensor(result["random pooler"]["latents"]), wanted, atol=1e-5, rtol=1e-5)


def test_an_input_that_one_process_cannot_decode_stops_all_of_them_at_once(results):
    first, second = (result["undecodable"] for result in results)

    assert second["error"].startswith("ValueError: teacher input 1 is no image that can be decoded")
    assert first["error"].startswith("OtherProcessFailed: process 1 failed: ValueError: teacher input 1 is no image")
    # Process 0's share are 31 images of 0.05 s each; it stops as soon as it sees that process 1 has failed.
    assert len(first["sizes"]) < 16
    assert max(first["seconds"], second["seconds"]) < 10
    assert first["left"] == second["left"] == []


def test_a_file_that_one_process_lacks_stops_all_of_them(results):
    first, second = (result["missing on one process"] for result in results)

    assert second["error"].startswith("ValueError: teacher input 1 cannot be read")
    assert first["error"].startswith(
        "OtherProcessFailed: process 1 failed: ValueError: teacher input 1 cannot be read"
    )
    assert max(first["seconds"], second["seconds"]) < 10


def test_processes_with_other_inputs_are_refused(results):
    first, second = (result["other inputs"] for result in results)

    assert second["error"].startswith("ValueError: this process has other inputs or another teacher than the main")
    assert first["error"].startswith("OtherProcessFailed: process 1 failed: ValueError: this process has other inputs")
    assert first["left"] == second["left"] == []


def test_processes_are_in_step_after_their_failures(results):
    wanted = tiny_teachers.vit().encode(tiny_teachers.images(61)[:5])

    for result in results:
        torch.testing.assert_close(torch.tensor(result["afterwards"]["latents"]), wanted, atol=1e-5, rtol=1e-5)
