"""Training streams: on two processes, by the ids that trained; resumed; and refused early."""

import json
from pathlib import Path

import pytest
from datasets import ClassLabel, Features, IterableDataset, List, Value
from datasets.distributed import split_dataset_by_node

import processes
import tiny
from hf_colearn import CoLearningTrainer
from scripts import stream_ids


SCRIPT = Path(__file__).parents[1] / "scripts" / "stream_ids.py"


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    """What the two processes of `stream_ids.py` saw."""
    folder = tmp_path_factory.mktemp("streams")
    done = processes.forked(SCRIPT, folder=folder, processes=2)
    found = [json.loads((folder / f"result_{rank}.json").read_text()) for rank in (0, 1)]
    assert [result["world_size"] for result in found] == [2, 2]
    found[0]["log"] = done.stderr
    return found


@pytest.mark.parametrize(
    "scenario", ["whole", "fewer shards than processes", "workers", "workers, one shard", "split", "handed out"]
)
def test_two_processes_see_every_sample_of_an_epoch_exactly_once(ranks, scenario):
    first, second = (result[scenario]["epochs"] for result in ranks)
    assert len(first) == len(second) == 2
    for one, other in zip(first, second, strict=True):
        assert len(one) == len(other) == 16
        assert sorted(one + other) == list(range(32))
    assert ranks[0][scenario]["weights"] == ranks[1][scenario]["weights"]


@pytest.mark.parametrize("scenario", ["whole", "workers", "split"])
def test_a_shuffle_buffer_shuffles_anew_every_epoch(ranks, scenario):
    for result in ranks:
        first, second = result[scenario]["epochs"]
        assert sorted(first) == sorted(second) and first != second


def test_a_stream_that_the_user_has_split_gives_the_same_as_a_whole_one(ranks):
    for result in ranks:
        assert result["split"] == result["whole"]


def test_every_sample_comes_with_its_own_target(ranks):
    for result in ranks:
        for scenario in ("whole", "fewer shards than processes", "workers", "split", "uneven"):
            assert result[scenario]["matched"], scenario


def test_with_uneven_shards_all_processes_end_an_epoch_together(ranks):
    # 20 and 12 samples in batches of 4: the second process has 3 batches, so 3 of the first one's 5 are used.
    for result, ids in zip(ranks, (range(12), range(20, 32)), strict=True):
        assert result["uneven"]["epochs"] == [[*ids], [*ids]]
    # By two an optimizer step, 2 of them: the third has none to go with.
    for result, ids in zip(ranks, (range(8), range(20, 28)), strict=True):
        assert result["uneven, accumulated"]["epochs"] == [[*ids], [*ids]]


def test_dropped_samples_are_counted_and_logged_once_an_epoch(ranks):
    # Read and not used: a batch of 4 of the first process; or by two, both its batches and the third of the second one.
    # Each run of two epochs ends with the last step, so that only the first one's end is met.
    counts = [line.split("ended with ")[1].split()[0] for line in ranks[0]["log"].splitlines() if "ended with" in line]
    assert counts == ["4", "12"]


def test_a_stream_that_does_not_fit_the_processes_is_refused_on_all(ranks):
    for rank, result in enumerate(ranks):
        assert f"split for process 0 of 4, and this is process {rank} of 2" in result["split for others"]
        assert "dispatch_batches=True" in result["split and handed out"]
        assert "process 1 shuffles the stream in another order" in result["without a seed"]


def test_two_processes_resume_a_stream_in_its_second_epoch_with_the_samples_that_would_have_come(ranks):
    for result in ranks:
        whole, again = result["resumed"]  # 4 steps an epoch, from step 6 of 10
        assert again["epochs"] == [whole["epochs"][1][8:], whole["epochs"][2]]
        assert again["losses"] == whole["losses"] and again["weights"] == whole["weights"]


def test_averaged_batch_statistics_agree_over_processes(ranks):
    first, second = (result["averaged"] for result in ranks)
    assert first["state"] == second["state"]
    assert first["after"] == first["during"][-1] == second["after"]
    for result in ranks:
        assert result["averaged, resumed"] == result["averaged"]


# ---- one process ----
@pytest.mark.parametrize("workers", [0, 2])
def test_one_process_resumes_in_the_middle_of_any_epoch(workers):
    def run(resume=None):
        shuffled = stream_ids.stream().shuffle(seed=3, buffer_size=8)
        options = {"save_strategy": "steps", "save_steps": 5, "dataloader_num_workers": workers}
        return stream_ids.train(shuffled, steps=20, resume=resume, gradient_accumulation_steps=1, **options)

    whole = run()
    assert [len(ids) for ids in whole["epochs"]] == [32, 32, 16]  # 8 steps an epoch
    for step in (5, 15):
        again = run(f"out/checkpoint-{step}")
        done = 4 * step
        assert sum(again["epochs"], []) == sum(whole["epochs"], [])[done:]
        assert len(again["epochs"][0]) == 32 - done % 32
        assert again["losses"] == whole["losses"] and again["weights"] == whole["weights"]


def test_an_accumulation_that_the_epochs_end_cuts_short_is_dropped_with_its_gradients():
    # 8 batches by three: two steps an epoch, and two batches that belong to none.
    run = stream_ids.train(stream_ids.stream(), steps=4, gradient_accumulation_steps=3)
    assert run["epochs"] == [[*range(24)], [*range(24)]]
    assert len(run["losses"]) == 4


def test_a_stream_split_for_two_processes_is_refused_on_one():
    with pytest.raises(ValueError, match="split for process 1 of 2, and this is process 0 of 1"):
        stream_ids.train(split_dataset_by_node(stream_ids.stream(), 1, 2))


def described(**columns):
    """A stream that knows its columns."""

    features = {
        "pixel_values": List(List(List(Value("float32")))),
        "labels": Value("int64"),
        "sample_id": Value("int64"),
    }
    features = Features({name: kind for name, kind in {**features, **columns}.items() if kind is not None})
    rows = [{name: row[name].tolist() for name in features} for row in tiny.digits(16)]
    # It names no module: `datasets` would hash all of the package with it.
    return IterableDataset.from_generator(lambda: iter(rows), features=features)


def test_what_shows_without_reading_a_stream_shows_before_training():
    def train(dataset, pairing):
        bank = tiny.bank()
        CoLearningTrainer(
            tiny.student(), tiny.arguments("fresh"), train_dataset=dataset, bank=bank, pairing=pairing
        ).train()

    with pytest.raises(ValueError, match="the stream has no column 'sample_id'.*'pixel_values', 'labels'"):
        train(described(sample_id=None), tiny.random_prompt())
    with pytest.raises(ValueError, match="names 12 classes, but the student has num_labels=10"):
        train(described(labels=ClassLabel(num_classes=12)), tiny.random_prompt())
    with pytest.raises(ValueError, match="draws from 7 prompts, but the bank has 10 rows"):
        train(described(), tiny.random_prompt(7))
    assert not any(Path("fresh").iterdir())
    train(described(), tiny.random_prompt())


def test_a_stream_without_ids_whose_columns_are_unknown_is_refused_at_its_first_batch():
    with pytest.raises(ValueError, match="the training samples have no column 'sample_id'"):
        stream_ids.train(stream_ids.stream().map(lambda row: {"x": 1}, remove_columns="sample_id"))
