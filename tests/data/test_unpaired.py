"""Unpaired data: which task and samples every batch has, the epoch, the order, ids and collation."""

import numpy as np
import pytest
import torch
from datasets import Dataset, IterableDataset
from torch.utils.data import DataLoader

from docstrings import run_example
from hf_colearn import MultimodalCollator, UnpairedBatches, UnpairedCollator
from hf_colearn.data.unpaired import MissingLabelsByTask, UnpairedSampler


def task(count, start=0, **columns):
    """`x_features` are the number of the sample, from a start."""
    return Dataset.from_dict(
        {"x_features": [[float(start + i)] for i in range(count)], "labels": [0] * count, **columns}
    )


def of(sizes, weights=None, every="step", **kwargs):
    return UnpairedBatches({name: task(count) for name, count in sizes.items()}, weights, every, **kwargs)


def groups(data, size, batch_size=1, processes=1, accumulation=1, seed=0, epoch=0):
    """The samples of an epoch, group by group of so many."""
    sampler = UnpairedSampler(data, batch_size, processes, accumulation, seed, torch.tensor(epoch))
    order = list(sampler)
    assert len(order) == len(sampler)
    return [order[i : i + size] for i in range(0, len(order), size)]


def tasks(data, found):
    """The task of every group, which must be one."""
    names = [{data[row]["task"] for row in group} for group in found]
    assert all(len(of_group) == 1 for of_group in names)
    return [of_group.pop() for of_group in names]


@pytest.mark.parametrize("documented", [UnpairedBatches, UnpairedCollator])
def test_the_example_of_the_docstring_runs(documented):
    run_example(documented)


# ---- shares and epochs ----
@pytest.mark.parametrize(
    ("sizes", "weights", "expected"),
    [
        # Groups of 4: a is 3 passes of 4, b 1. In proportion to size a has 12/16, so 3 / .75 = 4 groups: 3 and 1.
        ({"a": 12, "b": 4}, None, {"a": 3, "b": 1}),
        # Halves: 3 / .5 = 6 groups, b is passed 3 times.
        ({"a": 12, "b": 4}, {"a": 1, "b": 1}, {"a": 3, "b": 3}),
        # b needs 1 / .1 = 10 groups and a 3 / .9 = 3.3: in 10 a is passed 3 times.
        ({"a": 12, "b": 4}, {"a": 9, "b": 1}, {"a": 9, "b": 1}),
        # 10 samples are 3 groups, the last one filled from the second pass.
        ({"a": 10}, None, {"a": 3}),
    ],
)
def test_an_epoch_passes_every_task_once_at_least(sizes, weights, expected):
    assert of(sizes, weights).groups_of_epoch(4) == expected


def test_temperature_draws_more_evenly_than_in_proportion_to_size():
    # 16 and 4 samples: by size .8 and .2; of their square roots, 4 and 2, two thirds and a third.
    assert of({"a": 16, "b": 4}).shares == pytest.approx({"a": 0.8, "b": 0.2})
    assert of({"a": 16, "b": 4}, temperature=2).shares == pytest.approx({"a": 2 / 3, "b": 1 / 3})


def test_groups_are_made_up_to_whole_steps_by_who_lacks_most():
    # 3 groups of a and 2 of b (shares .6, .4) are 5; a multiple of 2 is 6, of which .6 are 3.6 and .4 are 2.4: one more a.
    assert of({"a": 3, "b": 2}, every="micro_batch").groups_of_epoch(1, multiple=2) == {"a": 4, "b": 2}


# ---- the order ----
@pytest.mark.parametrize(("every", "size", "expected"), [("step", 12, 2), ("micro_batch", 4, 6)])
def test_a_step_or_a_micro_batch_of_all_processes_is_of_one_task(every, size, expected):
    # 2 samples, 2 processes, 3 micro-batches: a step has 12 samples and a micro-batch 4. In equal parts a, of 12, is passed
    # once and b as often: 1 step each, or 3 micro-batches each.
    data = of({"a": 12, "b": 7}, {"a": 1, "b": 1}, every)
    found = groups(data, size, 2, 2, 3)
    assert len(found) == expected
    assert sorted(tasks(data, found)) == ["a"] * (expected // 2) + ["b"] * (expected // 2)


def test_every_pass_is_whole_and_shuffled_anew():
    data = of({"a": 6, "b": 2}, {"a": 1, "b": 1})
    found = groups(data, 2, 2)
    by_task = {
        name: [
            row for group, of_group in zip(found, tasks(data, found), strict=True) if of_group == name for row in group
        ]
        for name in "ab"
    }
    assert sorted(by_task["a"]) == [0, 1, 2, 3, 4, 5]
    assert [sorted(by_task["b"][i : i + 2]) for i in (0, 2, 4)] == [[6, 7]] * 3
    orders = {tuple(groups(of({"a": 6}), 6, 6, epoch=epoch)[0]) for epoch in range(4)}
    assert len(orders) == 4


def test_a_batch_in_which_a_pass_ends_is_filled_from_the_next():
    first, second = groups(of({"a": 5}), 3, 3)
    assert sorted(first + second[:2]) == [0, 1, 2, 3, 4]
    assert second[2] in range(5)


def test_tasks_take_turns_at_even_distances():
    # Shares of 2/3 and 1/3: whatever the phases, every three groups that begin with the epoch have two of a and one of b.
    data = of({"a": 8, "b": 4}, {"a": 2, "b": 1})
    for seed in range(5):
        order = tasks(data, groups(data, 1, seed=seed))
        assert [sorted(order[i : i + 3]) for i in range(0, 12, 3)] == [["a", "a", "b"]] * 4


def test_the_order_follows_from_seed_and_epoch_alone():
    data = of({"a": 6, "b": 5}, {"a": 1, "b": 1})
    np.random.seed(1)
    once = groups(data, 1, seed=3, epoch=2)
    torch.rand(3), np.random.rand(2)
    assert groups(data, 1, seed=3, epoch=2) == once
    assert groups(data, 1, seed=3, epoch=1) != once
    assert groups(data, 1, seed=4, epoch=2) != once


def test_two_processes_see_together_what_one_with_twice_the_batch_sees():
    data = of({"a": 12, "b": 8}, {"a": 1, "b": 1})
    assert groups(data, 4, batch_size=2, processes=2) == groups(data, 4, batch_size=4)
    assert groups(data, 4, batch_size=1, processes=2, accumulation=2) == groups(data, 4, batch_size=4)


# ---- samples ----
def test_samples_name_their_task_and_are_numbered_over_all_tasks():
    data = of({"a": 2, "b": 3})
    assert [data[i]["task"] for i in range(5)] == ["a", "a", "b", "b", "b"]
    assert [data[i]["sample_id"] for i in range(5)] == data.sample_ids.tolist() == [0, 1, 2, 3, 4]
    assert data[3]["x_features"] == [1.0]
    assert list(data.rows("b")) == [2, 3, 4]
    assert data.__getitems__([4, 0]) == [data[4], data[0]]


def test_ids_of_ones_own_are_kept():
    data = UnpairedBatches({"a": task(2, sample_id=[7, 3]), "b": task(1, sample_id=[5])})
    assert [data[i]["sample_id"] for i in range(3)] == data.sample_ids.tolist() == [7, 3, 5]


def test_formats_and_transforms_are_those_of_each_task():
    one = task(2).with_format("torch")
    other = task(2).with_transform(
        lambda rows: {"x_features": [[9.0]] * len(rows["x_features"]), "labels": rows["labels"]}
    )
    data = UnpairedBatches({"a": one, "b": other})
    assert data[0]["x_features"].tolist() == [0.0]
    assert isinstance(data[0]["x_features"], torch.Tensor)
    assert data[2]["x_features"] == [9.0]


@pytest.mark.parametrize("workers", [0, 1])
def test_a_loader_reads_batches_of_one_task(workers):
    data = of({"a": 4, "b": 2}, {"a": 1, "b": 1})
    sampler = UnpairedSampler(data, 2, 1, 1, 0, torch.tensor(0))
    loader = DataLoader(data, 2, sampler=sampler, collate_fn=UnpairedCollator(), num_workers=workers)
    batches = list(loader)
    assert sorted(batch["task"] for batch in batches) == ["a", "a", "b", "b"]
    assert all(batch["x_features"].shape == (2, 1) for batch in batches)


# ---- collation ----
def test_every_task_has_its_collator():
    def twice(features):
        return {"x_features": 2 * torch.tensor([feature["x_features"] for feature in features])}

    collate = UnpairedCollator({"a": twice, "b": None})
    data = of({"a": 1, "b": 1, "c": 1})
    found = [collate([{k: v for k, v in data[i].items() if k != "labels"}]) for i in range(3)]
    assert [(batch["task"], batch["x_features"].tolist()) for batch in found] == [
        ("a", [[0.0]]),
        ("b", [[0.0]]),
        ("c", [[0.0]]),
    ]
    assert collate([{"task": "a", "x_features": [3.0]}])["x_features"].tolist() == [[6.0]]


def test_a_modalitys_collator_pads_within_a_task():
    def padded(features):
        length = max(len(feature["input_ids"]) for feature in features)
        return {"input_ids": torch.tensor([f["input_ids"] + [0] * (length - len(f["input_ids"])) for f in features])}

    collate = UnpairedCollator({"names": MultimodalCollator({"text": padded})})
    batch = collate([{"task": "names", "text_input_ids": ids, "labels": 1} for ids in ([5], [6, 7])])
    assert batch["text_input_ids"].tolist() == [[5, 0], [6, 7]]
    assert batch["labels"].tolist() == [1, 1]


def test_labels_that_are_none_become_what_counts_as_none_of_their_task():
    classes = Dataset.from_dict({"labels": [1, None]})
    numbers = Dataset.from_dict({"labels": [1, None]})
    missing = MissingLabelsByTask(UnpairedBatches({"a": classes, "b": numbers}), regressions=["b"])
    filled = [missing.filled([{"task": name, "labels": label} for label in (1, None)]) for name in "ab"]
    assert [sample["labels"] for sample in filled[0]] == [1, -100]
    assert filled[1][0]["labels"] == 1.0
    assert np.isnan(filled[1][1]["labels"])


# ---- what is refused ----
@pytest.mark.parametrize(
    ("make", "error", "texts"),
    [
        (lambda: UnpairedBatches({}), TypeError, ["empty", "one data set each"]),
        (lambda: UnpairedBatches(task(1)), TypeError, ["a Dataset", "by name"]),
        (lambda: UnpairedBatches({"a": IterableDataset.from_generator(list)}), TypeError, ["'a'", "stream"]),
        (lambda: UnpairedBatches({"a": task(0)}), ValueError, ["'a' is empty"]),
        (lambda: UnpairedBatches({"a": task(1, task=["x"])}), ValueError, ["column 'task'", "rename"]),
        (lambda: of({"a": 1, "b": 1}, {"a": 1}), ValueError, ["weights={'a': 1}", "'a', 'b'"]),
        (lambda: of({"a": 1, "b": 1}, {"a": 1, "b": 0}), ValueError, ["'b' has the weight 0", "leave the task out"]),
        (lambda: of({"a": 1}, every="epoch"), ValueError, ["every='epoch'", "'step' or 'micro_batch'"]),
        (lambda: of({"a": 1}, temperature=0), ValueError, ["temperature=0"]),
        (
            lambda: UnpairedBatches({"a": task(2, sample_id=[0, 1]), "b": task(2, sample_id=[5, 1])}),
            ValueError,
            ["'a' and 'b'", "sample_id=1", "remove_columns('sample_id')"],
        ),
        (
            lambda: UnpairedBatches({"a": task(1, sample_id=[0]), "b": task(1)}),
            ValueError,
            ["'a' has a column 'sample_id' and 'b' has none", "remove it"],
        ),
        (lambda: UnpairedCollator({"a": 3}), TypeError, ["'a' is a int", "None"]),
        (
            lambda: UnpairedCollator()([of({"a": 1, "b": 1})[i] for i in range(2)]),
            ValueError,
            ["tasks a, b", "UnpairedBatches.evaluation"],
        ),
        (lambda: UnpairedCollator()([{"labels": 1}]), ValueError, ["without a task"]),
    ],
)  # fmt: skip
def test_what_cannot_work_is_refused_with_the_way_out(make, error, texts):
    with pytest.raises(error) as caught:
        make()
    assert [text for text in texts if text not in str(caught.value)] == [], str(caught.value)
