"""Handwritten digits of scikit-learn as a `datasets` dataset, for demos and smoke tests without a download."""

import numpy as np
from datasets import ClassLabel, DatasetDict, Image

from hf_colearn.corpora.base import dataset_of, finish
from hf_colearn.utils.extras import extra


DIGIT = ClassLabel(names=list("0123456789"))


def load_handwritten_digits(test_size: float = 0.5) -> DatasetDict:
    """The 1797 real handwritten digits of scikit-learn (8 x 8 pixels, 43 writers, UCI's test set), split by class.

    Args:
        test_size (`float`, *optional*, defaults to 0.5): The test split's share; the split itself never changes.

    Returns:
        [`datasets.DatasetDict`]: `train` and `test` with `image` (grayscale), `label` (0 to 9) and, in `train`, `sample_id`.
    """
    with extra("demo", "the digits come with scikit-learn"):
        from sklearn.datasets import load_digits
    digits = load_digits()
    pixels = np.round(digits.images * (255 / 16)).astype(np.uint8)
    rows = [{"image": image, "label": int(label)} for image, label in zip(pixels, digits.target, strict=True)]
    dataset = dataset_of(rows, {"image": Image(), "label": DIGIT})
    split = dataset.train_test_split(test_size=test_size, stratify_by_column="label", seed=0)
    split["train"] = split["train"].flatten_indices()
    return finish(split)
