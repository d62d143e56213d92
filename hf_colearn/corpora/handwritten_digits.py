"""Handwritten digits of scikit-learn as a `datasets` dataset, for demos and first tries without a download."""

import numpy as np
from datasets import ClassLabel, Dataset, DatasetDict, Features, Image

from hf_colearn.data.sample_ids import with_sample_ids


def load_handwritten_digits(test_size: float = 0.5) -> DatasetDict:
    """The 1797 real handwritten digits of scikit-learn (8 x 8 pixels, 43 writers, UCI's test set), split by class.

    Args:
        test_size (`float`, *optional*, defaults to 0.5): The test split's share; the split itself never changes.

    Returns:
        [`datasets.DatasetDict`]: `train` and `test` with `image` (grey, 8 x 8), `label` (0 to 9) and, in `train`,
        `sample_id`.

    Raises:
        ImportError: If scikit-learn is missing.
    """
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise ImportError("the digits come with scikit-learn: pip install 'hf-colearn[demo]'") from error
    digits = load_digits()
    pixels = np.round(digits.images * (255 / 16)).astype(np.uint8)
    features = Features({"image": Image(), "label": ClassLabel(names=[str(digit) for digit in range(10)])})
    columns = {"image": list(pixels), "label": digits.target.tolist()}
    dataset = Dataset.from_dict(columns, features=features)
    split = dataset.train_test_split(test_size=test_size, stratify_by_column="label", seed=0)
    split["train"] = with_sample_ids(split["train"].flatten_indices())
    return split


def few_per_class(dataset: Dataset, labels_per_class: int, seed: int, label_column: str = "label") -> Dataset:
    """A random subset with the same number of samples of every class: the case of few labels.

    Args:
        dataset ([`datasets.Dataset`]): With integer labels.
        labels_per_class (`int`): How many samples of every class to keep, at least 1.
        seed (`int`): Draws the subset.
        label_column (`str`, *optional*, defaults to `"label"`): The labels' column.

    Raises:
        ValueError: If a class has fewer samples.
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
