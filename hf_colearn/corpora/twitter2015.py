"""Twitter-2015: tweets with a picture, and the sentiment towards something that they name.

Yu & Jiang, "Adapting BERT for Target-Oriented Multimodal Sentiment Classification" (IJCAI 2019): github.com/jefferyYu/TomBERT.
"""

import csv
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from datasets import DatasetDict

from hf_colearn.corpora.base import Sample, source_of, table_rows
from hf_colearn.corpora.tweets import tweet, tweets_of, tweets_of_hub


CLASSES = ("negative", "neutral", "positive")
_LISTS = {"train": "train.tsv", "validation": "dev.tsv", "test": "test.tsv"}


def load_twitter2015(
    data_dir: str | Path | None = None,
    repo: str | None = None,
    config: str | None = None,
    skip_bad_samples: bool = False,
) -> DatasetDict:
    """The targets of the tweets, 3,179 for training, 1,122 for validation and 1,037 for testing, in three classes.

    A tweet has a sample for everything that it names. The target enters as published, as the second of a pair of texts,
    with `$T$` in its place in the tweet: tokenize by `with_input_ids(..., pair_column="target")`.

    Args:
        data_dir (`str` or `Path`, *optional*): The folder with `twitter2015/{train,dev,test}.tsv` (or the files
            themselves) and `twitter2015_images/`.
        repo (`str`, *optional*): A mirror as a dataset of the Hub instead, with `image`, `text` (with `$T$`), `target` and
            `label` (0 negative, 1 neutral, 2 positive).
        config, skip_bad_samples: As [`~hf_colearn.corpora.sarcasm.load_sarcasm`] takes them.

    Returns:
        [`datasets.DatasetDict`]: `train`, `validation` and `test` with `image`, `text`, `target`, `label` and, in `train`,
        `sample_id`; from a folder with `tweet_id` (the picture's name), too.

    Raises:
        FileNotFoundError, ValueError: If a file is missing, a line has not five fields, or samples are incomplete.
    """
    source = source_of(data_dir, repo)
    if isinstance(source, str):
        columns = ("image", "text", "target", "label")
        return tweets_of_hub(source, config, len(CLASSES), columns, skip_bad_samples)
    folder = source / "twitter2015" if (source / "twitter2015").is_dir() else source
    splits = {split: _samples(folder / name, source / "twitter2015_images") for split, name in _LISTS.items()}
    return tweets_of("Twitter-2015", splits, CLASSES, skip_bad_samples, columns=("target",))


def _samples(file: Path, images: Path) -> Iterator[Sample]:
    rows = table_rows(
        file, "pass the folder that holds twitter2015/ as data_dir", delimiter="\t", quoting=csv.QUOTE_NONE
    )
    for where, row in islice(rows, 1, None):  # behind a header, which names four columns in the test file
        if len(row) != 5 or not row[1].strip().isdecimal():
            raise ValueError(f"{where} is no index, label, image, text and target between tabs ({row}): restore it.")
        _, label, image, text, target = row
        if "$T$" not in text or not target.strip():
            raise ValueError(f"{where} has no $T$ in its text, or no target ({text!r:.60}, {target!r:.20}).")
        yield tweet(Path(image).stem, text, int(label), images / image, where, CLASSES, target=target)
