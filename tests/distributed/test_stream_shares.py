"""Two real processes with shares of a stream that differ in length: every sample once an epoch, in the steps of one process."""

from itertools import pairwise
from pathlib import Path

import pytest
import torch

import processes
from scripts.stream_shares import SHARDS, by_hand


SCRIPT = Path(__file__).parents[1] / "scripts" / "stream_shares.py"
SAMPLES = {"uneven": 32, "one shard a sample": 7, "workers, shuffled, accumulated": 25}


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    return processes.cases_of_two(SCRIPT, tmp_path_factory.mktemp("shares"))


def found(ranks, name):
    both = [result[name] for result in ranks]
    assert "error" not in both[0], both[0]["error"]
    return both


def joined(first, second):
    """The ids of every optimizer step over both processes, by epoch."""
    return [
        [sum(one + other, []) for one, other in zip(*epoch, strict=True)] for epoch in zip(first, second, strict=True)
    ]


@pytest.mark.parametrize("name", SAMPLES)
def test_every_sample_is_seen_exactly_once_an_epoch_and_the_steps_are_those_of_one_process(ranks, name):
    first, second = found(ranks, name)
    epochs = joined(first["epochs"], second["epochs"])

    assert len(epochs) == 2
    for steps in epochs:
        assert sorted(sum(steps, [])) == list(range(SAMPLES[name]))
    assert torch.equal(first["weights"], second["weights"])
    torch.testing.assert_close(first["weights"], by_hand(sum(epochs, [])), rtol=1e-5, atol=1e-6)


def test_a_process_whose_share_has_ended_goes_on_with_what_does_not_count(ranks):
    first, second = found(ranks, "uneven")
    # 20 and 12 samples in batches of 4.
    assert [len(step[0]) for step in first["epochs"][0]] == [4, 4, 4, 4, 4]
    assert [len(step[0]) for step in second["epochs"][0]] == [4, 4, 4, 0, 0]


def test_batch_statistics_are_of_samples_that_count(ranks):
    # The main process, whose statistics all have, ends after 3 of 5 batches.
    assert [result["batches"] for result in found(ranks, "batch statistics")][0] == 3


@pytest.mark.parametrize("name", ["resumed", "resumed, workers"])
def test_a_resumed_run_sees_the_samples_that_would_have_come_and_reads_no_shard_again_that_is_done(ranks, name):
    starts = [sum(SHARDS[:k]) for k in range(len(SHARDS) + 1)]
    shards = [set(range(*ends)) for ends in pairwise(starts)]
    for result in found(ranks, name):
        steps = sum(result["whole"]["epochs"], [])
        assert len(steps) == 10  # 5 an epoch, of which the process with 12 samples has 3
        for step, again in result["again"].items():
            assert sum(again["epochs"], []) == steps[step:]
            assert again["losses"] == result["whole"]["losses"]
            assert torch.equal(again["weights"], result["whole"]["weights"])
        # Step 8 is within the second epoch, the last.
        read, seen = set(result["again"][8]["read"]), sum(sum(steps[5:8], []), [])
        if not sum(sum(steps[8:], []), []):
            assert len(read) <= 4  # a first batch for what goes on when the share has ended
        elif name == "resumed":
            done = set().union(*(shard for shard in shards if shard <= set(seen[:-1])))
            assert done and not done & read
