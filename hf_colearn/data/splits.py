"""A validation split, cut from the training set."""

import numpy as np
from datasets import ClassLabel, Dataset, Features, Value


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
    if label_column not in dataset.column_names:
        raise ValueError(f"the dataset has no column '{label_column}' (it has {dataset.column_names}): name it.")
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
