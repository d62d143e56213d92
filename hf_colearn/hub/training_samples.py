"""How many training samples there are, and how many of them have a label and a target: for run folders, records and cards.

Shapes: N samples.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from datasets import Dataset

from hf_colearn.data.labels import label_column, labelled_rows
from hf_colearn.models.lora import base_model
from hf_colearn.objectives.objective import have_target
from hf_colearn.teachers.latent_column import LatentColumn
from hf_colearn.teachers.pairing import Pairing, holds_ids
from hf_colearn.teachers.sequence_bank import SequenceBank
from hf_colearn.teachers.teacher import Teacher
from hf_colearn.training.data_checks import sample_ids


_AT_ONCE, _SEQUENCES = 8192, 64  # targets that are looked up together


def problem_type_of(model: Any) -> str:
    """What a model's loss is of, as transformers infers it where the configuration does not say so before training."""
    config = getattr(base_model(model), "config", None)
    known, num_labels = getattr(config, "problem_type", None), getattr(config, "num_labels", None)
    return known or ("regression" if num_labels == 1 else "single_label_classification")


def training_samples(trainer: Any) -> dict[str, Any]:
    """`num_train`, `num_labelled` and `num_paired` of a trainer's training set, from its columns, and where a co-training has
    given labels `num_predicted`.

    `num_paired` is of the only teacher, a mapping by name of several, and None of none. What cannot be known without reading
    every sample, such as of a stream, is None.
    """
    dataset, args = trainer.train_dataset, trainer.args
    teachers = getattr(trainer, "teachers", {})  # a plain Trainer has none
    counts: dict[str, Any] = {"num_train": None, "num_labelled": None, "num_paired": None}
    if predicted := getattr(trainer, "predicted_labels", 0):
        counts["num_predicted"] = predicted
    if hasattr(dataset, "__len__"):
        counts["num_train"] = len(dataset)
    if not isinstance(dataset, Dataset):
        return counts
    if column := label_column(dataset):
        counts["num_labelled"] = int(labelled_rows(dataset, column).sum())
    ids = sample_ids(dataset, args.id_column) if teachers else None
    if ids is not None:
        paired = {name: _num_paired(teacher, ids, args.seed) for name, teacher in teachers.items()}
        counts["num_paired"] = paired if len(paired) > 1 else next(iter(paired.values()))
    return counts


def samples_in_words(counts: Mapping[str, Any]) -> str | None:
    """As in `24 of 1,200 samples labelled, 1,200 paired`; None where all are both, or it is not known."""
    everyone, labelled, paired = (counts.get(name) for name in ("num_train", "num_labelled", "num_paired"))
    each = paired if isinstance(paired, Mapping) else {"": paired}
    each = {name: count for name, count in each.items() if count is not None}
    predicted = counts.get("num_predicted", 0)
    if everyone is None or labelled is None or ({labelled, *each.values()} == {everyone} and not predicted):
        return None
    words = [
        f"{labelled:,} of {everyone:,} samples labelled" if labelled < everyone else f"{everyone:,} samples labelled"
    ]
    words += [f"{count:,} paired{' with ' if name else ''}{name}" for name, count in each.items()]
    words += [f"{predicted:,} labels predicted in co-training"] if predicted else []
    return ", ".join(words)


def _num_paired(teacher: Teacher, ids_N: np.ndarray, seed: int) -> int | None:
    if isinstance(teacher.bank, LatentColumn):
        return None  # every sample would have to be read
    if type(teacher.pairing).targets is Pairing.targets and not holds_ids(
        teacher.bank
    ):  # rows of latents, none is NaN
        return len(ids_N)
    at_once = _SEQUENCES if isinstance(teacher.bank, SequenceBank) else _AT_ONCE
    parts = np.array_split(ids_N, max(1, len(ids_N) // at_once))
    return sum(int(have_target(teacher.targets(part, 0, seed)).sum()) for part in parts)
