"""Unpaired data: one data set a task, of whichever modality, and batches that are of one task each.

Shapes: T tasks, N samples of all of them.
"""

import bisect
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from torch.utils.data import Sampler
from transformers import PreTrainedTokenizerBase, default_data_collator

from hf_colearn.data.columns import check_dataset
from hf_colearn.data.labels import MissingLabels
from hf_colearn.utils.checks import is_number


TASK_NAME = "task"  # the entry of a sample, and of a batch, that names its task
EVERY = ("step", "micro_batch")


class UnpairedBatches(torch.utils.data.Dataset):
    r"""The training sets of several tasks, whose samples have nothing to do with each other: no row of one is paired with a
    row of another. [`CoLearningTrainer`] trains a [`CoLearningForManyTasks`] on them.

    Every batch is of one task. **Shares.** A task has \\(w_t / \sum_s w_s\\) of an epoch's groups of batches, as near as whole
    groups allow. With `every="step"` a group is an optimizer step: all its micro-batches, on all processes, so
    that 8 micro-batches of 1 are one of 8. With `every="micro_batch"` it is one batch of every process, and an optimizer step
    has those of several tasks: of two tasks of one weight and 2 micro-batches a step, one each. Groups of a task follow each
    other at even distances, from a start that is drawn: group k of g is at (k + u) / g of the epoch, u uniform in [0, 1).

    **Epoch.** The shortest in which every task is passed once: the one that is largest for its weight just so, and the others
    again and again. Every pass over a task's samples is shuffled anew, and a batch in which one ends is filled from the next,
    so that all batches are full. Tasks and samples follow from (seed, epoch) alone: a resumed run sees those that it would
    have seen, and two processes together those of one with twice the batch.

    A sample is a dictionary of its columns and `"task"`. Of a task's labels any may be missing. Sample ids, where there is a
    teacher, are numbers of all tasks' samples in their order; or those of the column `id_column`, where the data sets have
    one. A teacher of some tasks alone is paired by [`~hf_colearn.teachers.where_paired.WherePaired`].

    Args:
        datasets (`dict[str, datasets.Dataset]`): The training set of every task, by the model's names of them, with columns
            `{modality}_{input}` and `labels`. Transforms and formats are each one's own.
        weights (`dict[str, float]`, *optional*): Of every task, above 0. By default its number of samples to the power of
            `1 / temperature`.
        every (`str`, *optional*, defaults to `"step"`): What is of one task, `"step"` or `"micro_batch"`.
        temperature (`float`, *optional*, defaults to 1): 1 draws in proportion to size, a larger one more evenly (Arivazhagan
            et al., 2019, https://arxiv.org/abs/1907.05019).
        id_column (`str`, *optional*, defaults to `"sample_id"`): `CoLearningArguments.id_column`.

    Raises:
        TypeError: If something else than data sets by name, or a stream, is given.
        ValueError: If weights are none of the tasks', a data set is empty, or tasks share sample ids.

    Example:

    ```python
    >>> from datasets import Dataset
    >>> from hf_colearn import UnpairedBatches

    >>> digits = Dataset.from_dict({"image_pixel_values": [[0.0], [1.0]], "labels": [0, 1]})
    >>> spoken = Dataset.from_dict({"speech_features": [[2.0]], "labels": [1]})
    >>> data = UnpairedBatches({"digits": digits, "spoken": spoken}, weights={"digits": 1, "spoken": 1})
    >>> data[2]
    {'speech_features': [2.0], 'labels': 1, 'task': 'spoken', 'sample_id': 2}
    >>> data.groups_of_epoch(group_size=1)  # "digits" is passed once
    {'digits': 2, 'spoken': 2}
    ```
    """

    def __init__(
        self,
        datasets: Mapping[str, Dataset],
        weights: Mapping[str, float] | None = None,
        every: str = "step",
        temperature: float = 1.0,
        id_column: str = "sample_id",
    ):
        self.datasets = _checked(datasets)
        if every not in EVERY:
            raise ValueError(f"every={every!r} says nothing of batches: pass 'step' or 'micro_batch'.")
        if not is_number(temperature) or not temperature > 0:
            raise ValueError(f"temperature={temperature!r} is no number above 0: pass 1, or more to draw evenly.")
        if weights is not None:
            _check_weights(weights, self.datasets)
        self.every, self.id_column = every, id_column
        sizes = {task: len(dataset) for task, dataset in self.datasets.items()}
        drawn = {task: size ** (1 / temperature) for task, size in sizes.items()} if weights is None else weights
        total = sum(drawn.values())
        self.shares = {task: drawn[task] / total for task in self.datasets}
        self._ends = list(itertools.accumulate(sizes.values()))
        self._numbers = _check_ids(self.datasets, id_column)

    def __len__(self) -> int:
        return self._ends[-1]

    def rows(self, task: str) -> range:
        """The indices of a task's samples."""
        place = list(self.datasets).index(task)
        return range(self._ends[place] - len(self.datasets[task]), self._ends[place])

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[dict[str, Any]]:
        """The samples of a batch; those of one task are read together."""
        found: list[dict[str, Any]] = []
        for place, group in itertools.groupby(indices, lambda index: bisect.bisect_right(self._ends, index)):
            task = list(self.datasets)[place]
            dataset, first, rows = self.datasets[task], self.rows(task).start, list(group)
            for index, sample in zip(rows, dataset.__getitems__([row - first for row in rows]), strict=True):
                number = {self.id_column: index} if self._numbers else {}
                found.append({**sample, TASK_NAME: task, **number})
        return found

    def groups_of_epoch(self, group_size: int, multiple: int = 1) -> dict[str, int]:
        """How many groups of so many samples every task has in an epoch, which together are a multiple of that number."""
        passes = {task: -(-len(dataset) // group_size) for task, dataset in self.datasets.items()}
        total = max(passes[task] / share for task, share in self.shares.items())
        groups = {task: round(share * total) for task, share in self.shares.items()}
        while sum(groups.values()) % multiple:  # to the one that has least of its share
            lacks = {task: share * (sum(groups.values()) + 1) - groups[task] for task, share in self.shares.items()}
            groups[max(lacks, key=lambda task: lacks[task])] += 1
        return groups

    @property
    def sample_ids(self) -> np.ndarray | None:
        """Those of all samples, `(N,)`; None where they are no column of integers."""
        if self._numbers:
            return np.arange(len(self))
        ids = np.concatenate([_ids(dataset, self.id_column) for dataset in self.datasets.values()])
        return ids if np.issubdtype(ids.dtype, np.integer) else None

    @staticmethod
    def evaluation(datasets: Mapping[str, Dataset]) -> "dict[str, UnpairedBatches]":
        """The evaluation sets of tasks as `eval_dataset` takes them: metrics are named `eval_{task}_accuracy`, and so on.
        `trainer.evaluate` and `predict` take one of them."""
        return {task: UnpairedBatches({task: dataset}) for task, dataset in _checked(datasets).items()}


def _checked(datasets: Any) -> dict[str, Dataset]:
    if not isinstance(datasets, Mapping) or not datasets:
        raise TypeError(
            f"the data of tasks are {'empty' if datasets == {} else f'a {type(datasets).__name__}'}: pass one data set each by "
            "name, such as {'digits': digits, 'spoken': spoken}."
        )
    for task, dataset in datasets.items():
        try:
            check_dataset(dataset)
        except TypeError as error:
            raise TypeError(f"of the task '{task}' {error}") from None
        if not len(dataset):
            raise ValueError(f"the data set of the task '{task}' is empty: look at its split, filter or selection.")
        if TASK_NAME in dataset.column_names:
            raise ValueError(
                f"the data set of the task '{task}' has a column '{TASK_NAME}', which is the name of the task in a batch: "
                "rename or remove it."
            )
    return dict(datasets)


def _check_weights(weights: Any, datasets: Mapping[str, Dataset]) -> None:
    names = ", ".join(map(repr, datasets))
    if not isinstance(weights, Mapping) or set(weights) != set(datasets):
        raise ValueError(f"weights={weights!r} are not one number each of the tasks {names}.")
    for task, weight in weights.items():
        if not is_number(weight) or not 0 < weight < float("inf"):
            raise ValueError(
                f"the task '{task}' has the weight {weight!r}: pass a number above 0, or leave the task out of the data."
            )


def _check_ids(datasets: Mapping[str, Dataset], column: str) -> bool:
    """Whether the samples are numbered here; a column of ids must be every task's, and an id of one task alone."""
    having = [task for task, dataset in datasets.items() if column in dataset.column_names]
    if not having:
        return True
    if without := [task for task in datasets if task not in having]:
        raise ValueError(
            f"the task '{having[0]}' has a column '{column}' and '{without[0]}' has none: remove it, so that the samples of "
            "all tasks are numbered in their order, or number all, each sample by an id of its own."
        )
    seen: dict[str, np.ndarray] = {}
    for task, dataset in datasets.items():
        ids = _ids(dataset, column)
        for other, others in seen.items():
            if len(shared := np.intersect1d(ids, others)):
                raise ValueError(
                    f"'{other}' and '{task}' both have a sample with {column}={shared[0]}, and one id has one target: remove "
                    f"the column, `dataset.remove_columns('{column}')`, so that the samples of all tasks are numbered in their "
                    "order, or add to the ids of one."
                )
        seen[task] = ids
    return False


def _ids(dataset: Dataset, column: str) -> np.ndarray:
    return np.asarray(dataset.select_columns(column).with_format("numpy")[column][:])


class UnpairedSampler(Sampler[int]):
    """Orders the samples of [`UnpairedBatches`] so that every group of them is of one task.

    Args:
        data ([`UnpairedBatches`]): Of which `every` says what a group is.
        batch_size (`int`): Of one process.
        processes (`int`): That batches are handed out to in turn; 1 where they are split between them.
        accumulation (`int`): Micro-batches of an optimizer step.
        seed (`int`): Of the order.
        epoch (`torch.Tensor` of shape `()`): The current epoch, from 0; it is read when an epoch begins.
    """

    def __init__(
        self, data: UnpairedBatches, batch_size: int, processes: int, accumulation: int, seed: int, epoch: torch.Tensor
    ):
        of_step = data.every == "step"
        self._size = batch_size * processes * (accumulation if of_step else 1)
        self._data, self._seed, self._epoch = data, seed, epoch
        self._groups = data.groups_of_epoch(self._size, 1 if of_step else accumulation)

    def __len__(self) -> int:
        return self._size * sum(self._groups.values())

    def __iter__(self) -> Iterator[int]:
        epoch = int(self._epoch)
        samples = [
            _passes(self._data.rows(task), np.random.default_rng([self._seed, epoch, place]))
            for place, task in enumerate(self._data.datasets)
        ]
        for task in self._order(np.random.default_rng([self._seed, epoch])):
            yield from itertools.islice(samples[task], self._size)

    def _order(self, rng: np.random.Generator) -> np.ndarray:
        """The task of every group, by number."""
        counts = list(self._groups.values())
        places = [(np.arange(count) + rng.random()) / count for count in counts]
        return np.repeat(np.arange(len(counts)), counts)[np.argsort(np.concatenate(places), kind="stable")]


def _passes(rows: range, rng: np.random.Generator) -> Iterator[int]:
    """All rows again and again, every time in another order."""
    while True:
        yield from (rows.start + rng.permutation(len(rows))).tolist()


class UnpairedCollator:
    """Makes a batch of one task's samples, with its name as `task`, which `forward` reads.

    [`CoLearningTrainer`] uses it by itself where it is given no collator, or one for all tasks.

    Args:
        collators (`dict[str, Callable | None]`, *optional*): By task; None, as for a task that is not named, stacks what can be
            stacked. A collator sees the columns as they are: a text that is to be padded has a
            [`MultimodalCollator`]`({"text": DataCollatorWithPadding(tokenizer)})`.
        default (`Callable`, *optional*): For tasks that are not named.

    Raises:
        ValueError: When called, if the samples are of several tasks, or of none.

    Example:

    ```python
    >>> from hf_colearn import UnpairedCollator

    >>> collator = UnpairedCollator()
    >>> batch = collator([{"task": "spoken", "speech_features": [2.0], "labels": 1}])
    >>> batch["task"], batch["labels"].tolist(), batch["speech_features"].tolist()
    ('spoken', [1], [[2.0]])
    ```
    """

    def __init__(self, collators: Mapping[str, Callable | None] | None = None, default: Callable | None = None):
        for task, collator in (collators or {}).items():
            if isinstance(collator, PreTrainedTokenizerBase) or not (collator is None or callable(collator)):
                raise TypeError(
                    f"the collator of the task '{task}' is a {type(collator).__name__}: pass a function, such as "
                    "`MultimodalCollator({'text': DataCollatorWithPadding(tokenizer)})`, or None, which stacks."
                )
        self.collators, self.default = dict(collators or {}), default or default_data_collator

    def __call__(self, features: list[dict[str, Any]]) -> dict[str, Any]:
        tasks = sorted({str(feature.get(TASK_NAME)) for feature in features})
        if len(tasks) > 1 or TASK_NAME not in features[0]:
            found = f"of the tasks {', '.join(tasks)}" if len(tasks) > 1 else "without a task"
            raise ValueError(
                f"a batch has samples {found}, and the model computes one task at a time: train on `UnpairedBatches`, and "
                "evaluate the tasks one by one, `eval_dataset=UnpairedBatches.evaluation({...})`."
            )
        collate = self.collators.get(tasks[0]) or self.default
        return {
            TASK_NAME: tasks[0],
            **collate([{k: v for k, v in feature.items() if k != TASK_NAME} for feature in features]),
        }


class MissingLabelsByTask(MissingLabels):
    """[`MissingLabels`] of every task: what is written in the place of a label that is None.

    Args:
        data ([`UnpairedBatches`]): Whose samples are collated.
        regressions (`Sequence[str]`): The tasks whose labels are numbers, among which -100 is one.
    """

    def __init__(self, data: UnpairedBatches, regressions: Sequence[str] = ()):
        self._of_task = {task: MissingLabels(dataset, task in regressions) for task, dataset in data.datasets.items()}

    def filled(self, features: list[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
        """The samples of a batch with a number for every label that is None."""
        missing = self._of_task.get(features[0].get(TASK_NAME, ""))
        return features if missing is None else missing.filled(features)
