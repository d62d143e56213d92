"""Splits and subsets of a training set, by class."""

import numpy as np
from datasets import ClassLabel, Dataset, Features, Value

from hf_colearn.data.columns import check_columns


def cut_validation(
    dataset: Dataset, share_or_count: float | int, seed: int, label_column: str = "label"
) -> tuple[Dataset, Dataset]:
    """Cuts a validation split off a training set, with the same shares of the classes on both sides.

    Both sides keep the order and every column of the dataset. Ids survive: number the samples before the cut where the
    bank has a row for each of them all, or number the remaining training set after it for a bank of that one alone.

    Args:
        dataset ([`datasets.Dataset`]): With N samples.
        share_or_count (`float` or `int`): The validation split's share, between 0 and 1, or its number of samples.
        seed (`int`): Draws the split.
        label_column (`str`, *optional*, defaults to `"label"`): The labels' column.

    Returns:
        `tuple[Dataset, Dataset]`: What remains for training, and the validation split.

    Raises:
        ValueError: If a class has fewer than 2 samples, or a side would have fewer samples than there are classes.
    """
    check_columns(dataset, label_column)
    is_share = isinstance(share_or_count, float)
    if not (0 < share_or_count < 1 if is_share else share_or_count >= 1):
        raise ValueError(
            f"share_or_count={share_or_count} cuts no validation split: pass a share between 0 and 1, or a number of "
            "samples from 1."
        )
    labels = np.asarray(dataset.with_format("numpy").select_columns(label_column)[label_column][:])
    names, dense, counts = np.unique(labels, return_inverse=True, return_counts=True)
    if len(labels) and counts.min() < 2:
        name = names[counts.argmin()]
        if isinstance(dataset.features[label_column], ClassLabel):
            name = f"{name} ('{dataset.features[label_column].int2str(int(name))}')"
        raise ValueError(
            f"class {name} has 1 sample, which cannot be on both sides: remove the class, or add samples."
        )
    count = round(share_or_count * len(labels)) if is_share else share_or_count
    if not len(names) <= count <= len(labels) - len(names) or not count:
        raise ValueError(
            f"share_or_count={share_or_count} makes {count} validation samples of {len(labels)}: each side needs at least "
            f"one of each of the {len(names)} classes."
        )
    features = Features({"row": Value("int64"), "label": ClassLabel(num_classes=len(names))})
    rows = Dataset.from_dict({"row": np.arange(len(labels)), "label": dense}, features=features)
    cut = rows.train_test_split(test_size=count, stratify_by_column="label", seed=seed)
    train, validation = (dataset.select(np.sort(cut[side]["row"][:])) for side in ("train", "test"))
    return train, validation


def few_per_class(dataset: Dataset, labels_per_class: int, seed: int, label_column: str = "label") -> Dataset:
    """A random subset with the same number of samples of every class: the case of few labels.

    Args:
        dataset ([`datasets.Dataset`]): With integer labels.
        labels_per_class (`int`): Samples of every class, at least 1; no class has fewer.
        seed (`int`): Draws the subset.
        label_column (`str`, *optional*, defaults to `"label"`): The labels' column.
    """
    if labels_per_class < 1:
        raise ValueError(f"labels_per_class={labels_per_class} leaves nothing to learn from: pass at least 1.")
    labels = np.asarray(dataset.with_format("numpy").select_columns(label_column)[label_column][:])
    rng, kept = np.random.default_rng(seed), []
    for label in np.unique(labels):
        of_class = np.flatnonzero(labels == label)
        if len(of_class) < labels_per_class:
            raise ValueError(
                f"class {label} has {len(of_class)} samples, {labels_per_class} were asked for: take fewer per class."
            )
        kept.append(rng.choice(of_class, labels_per_class, replace=False))
    return dataset.select(np.sort(np.concatenate(kept)).tolist())
