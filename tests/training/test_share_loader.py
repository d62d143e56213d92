"""Where a stream's loader is within an epoch: every kind of stream goes on with what would have come, or says why not."""

import copy
from types import SimpleNamespace

import pytest
from accelerate import Accelerator
from datasets import Dataset, IterableDataset, concatenate_datasets, interleave_datasets
from datasets.distributed import split_dataset_by_node

from hf_colearn.training import share_loader
from hf_colearn.training.share_loader import ShareLoader


def numbers(shards):
    for shard in shards:
        for number in shard:
            yield {"id": number}


def generated():
    """22 samples in shards of 7, 5, 6 and 4."""
    shards = [list(range(10 * k, 10 * k + size)) for k, size in enumerate((7, 5, 6, 4))]
    return IterableDataset.from_generator(numbers, gen_kwargs={"shards": shards})


def stored():
    return Dataset.from_dict({"id": list(range(22))}).to_iterable_dataset(num_shards=4)


def thrice(batch):
    return {"id": [100 * number + k for number in batch["id"] for k in range(3)]}


STREAMS = {
    "generated": generated,
    "stored, as tensors": lambda: stored().with_format("torch"),
    "numbered": lambda: generated().map(lambda row, i: {"id": 100 * row["id"] + i}, with_indices=True),
    "mapped in batches, as tensors": lambda: stored().map(thrice, batched=True, batch_size=4).with_format("torch"),
    "filtered": lambda: stored().filter(lambda row: row["id"] % 3 != 1),
    "interleaved": lambda: interleave_datasets([generated(), stored()]),
    "split by sample": lambda: split_dataset_by_node(generated(), 1, 3),
    "repeated": lambda: generated().repeat(2),
    "joined": lambda: concatenate_datasets([generated(), stored()]),
}


def loader(stream, epoch, workers=0):
    args = SimpleNamespace(dataloader_num_workers=workers)
    made = ShareLoader(
        copy.copy(stream), args, 4, lambda rows: [int(row["id"]) for row in rows], Accelerator(cpu=True)
    )
    made.set_epoch(epoch)
    return made


def goes_on(make, epoch, workers, step):
    """Whether a loader that starts at the state after some batches gives those that came after them."""
    states, whole, one = [], [], loader(make(), epoch, workers)
    for batch in one:
        whole.append(batch)
        states.append(copy.deepcopy(one.state_dict()))
    assert len(whole) > step + 1
    again = loader(make(), epoch, workers)
    again.load_state_dict(states[step])
    return list(again) == whole[step + 1 :]


@pytest.mark.parametrize("epoch", [0, 1])
@pytest.mark.parametrize("name", STREAMS)
def test_a_stream_goes_on_with_what_would_have_come(name, epoch):
    steps = (0,) if name == "split by sample" else (0, 2)
    assert all(goes_on(STREAMS[name], epoch, 0, step) for step in steps)


@pytest.mark.parametrize("name", ["numbered", "stored, as tensors"])
def test_in_workers_it_does_too(name):
    assert goes_on(STREAMS[name], 1, 2, 1)


@pytest.mark.parametrize(
    ("stream", "workers", "reason"),
    [
        (lambda: generated().shuffle(seed=0, buffer_size=4), 0, "shuffle buffer"),
        (lambda: stored().with_format("arrow").map(lambda table: table, batched=True), 0, "batches of tables"),
        (STREAMS["joined"], 2, "joins streams"),
        (lambda: interleave_datasets([generated(), stored()], probabilities=[0.5, 0.5], seed=0), 2, "at random"),
    ],
)
def test_one_whose_state_would_lose_samples_is_read_again_and_says_why(stream, workers, reason, tmp_path, monkeypatch):
    said = []
    monkeypatch.setattr(share_loader.logger, "warning", said.append)
    made = loader(stream(), 0, workers)
    made.save(str(tmp_path))
    assert not list(tmp_path.iterdir())
    assert made.resume(str(tmp_path), epoch=0) is None
    assert reason in said[0] and said[0].startswith("The stream is read again up to where the checkpoint was")


def test_the_first_batch_can_be_read_once_more_without_a_word_to_the_rest():
    made = loader(generated(), 0)
    batches = iter(made)
    assert next(batches) == made.first_batch() == [0, 1, 2, 3]
    assert next(batches) == [4, 5, 6, 10]


def test_an_empty_share_has_no_first_batch():
    assert loader(generated().filter(lambda row: False), 0).first_batch() is None
