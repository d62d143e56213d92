"""Twitter-2015: tweets with a picture, and the sentiment towards something that they name.

Yu & Jiang, "Adapting BERT for Target-Oriented Multimodal Sentiment Classification" (IJCAI 2019), in the form of
github.com/jefferyYu/TomBERT.
"""

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from datasets import Dataset, DatasetDict

from hf_colearn.corpora.tweets import Tweet, tweets_of, tweets_of_hub
from hf_colearn.corpora.video_clips import one_source
from hf_colearn.data.text import read_text


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
    with `$T$` in its place in the tweet: tokenize by [`with_pair_input_ids`].

    Args:
        data_dir (`str` or `Path`, *optional*): The folder with `twitter2015/{train,dev,test}.tsv` (or the files
            themselves) and `twitter2015_images/`.
        repo (`str`, *optional*): A mirror as a dataset of the Hub instead, with `image`, `text` (with `$T$`), `target` and
            `label` (0 negative, 1 neutral, 2 positive).
        config (`str`, *optional*): The mirror's configuration, where it has several.
        skip_bad_samples (`bool`, *optional*, defaults to `False`): Leaves out, with a warning that counts them, samples
            without a picture or a text and, after reading each, those whose picture cannot be decoded.

    Returns:
        [`datasets.DatasetDict`]: `train`, `validation` and `test` with `image`, `text`, `target`, `label` and, in `train`,
        `sample_id`; from a folder with `tweet_id` (the picture's name), too.

    Raises:
        FileNotFoundError: If a file is missing.
        ValueError: If a line has not five fields, a text no `$T$`, or samples are incomplete.

    Example:

    ```python
    >>> from hf_colearn.corpora.twitter2015 import load_twitter2015

    >>> twitter = load_twitter2015("data/IJCAI2019_data")  # doctest: +SKIP
    ```
    """
    source = one_source(data_dir, repo)
    if isinstance(source, str):
        columns = ("image", "text", "target", "label")
        return tweets_of_hub(source, config, len(CLASSES), columns, skip_bad_samples)
    folder = source / "twitter2015" if (source / "twitter2015").is_dir() else source
    splits = {split: list(_read(folder / name, source / "twitter2015_images")) for split, name in _LISTS.items()}
    return tweets_of("Twitter-2015", splits, CLASSES, skip_bad_samples)


def _read(file: Path, images: Path) -> Iterator[Tweet]:
    if not file.is_file():
        raise FileNotFoundError(f"there is no '{file}': pass the folder that holds twitter2015/ as data_dir.")
    with file.open(encoding="utf-8", newline="") as lines:
        rows = csv.reader(lines, delimiter="\t", quoting=csv.QUOTE_NONE)
        next(rows, None)  # a header, which names four columns in the test file
        for row in rows:
            where = f"line {rows.line_num} of '{file}'"
            if len(row) != 5 or not row[1].strip().isdecimal():
                raise ValueError(
                    f"{where} is no index, label, image, text and target between tabs ({row}): restore the file."
                )
            _, label, image, text, target = row
            if "$T$" not in text or not target.strip():
                raise ValueError(f"{where} has no $T$ in its text, or no target ({text!r:.60}, {target!r:.20}).")
            yield Tweet(Path(image).stem, text, int(label), images / image, where, target)


def with_pair_input_ids(
    dataset: Dataset,
    tokenizer: Any,
    column: str = "text",
    pair_column: str = "target",
    label_column: str = "label",
    max_length: int | None = None,
) -> Dataset:
    """Tokenizes pairs of texts once, each at its own length, as [`~hf_colearn.data.text.with_input_ids`] does single ones.

    Args:
        dataset ([`datasets.Dataset`]): With two columns of texts.
        tokenizer: The student's; BERT's gives `[CLS] text [SEP] target [SEP]`.
        column, pair_column (`str`, *optional*): The texts' columns, which are dropped.
        label_column (`str`, *optional*, defaults to `"label"`): The labels' column, which becomes `labels`.
        max_length (`int`, *optional*): In tokens of both together; the longer text loses its end. The tokenizer's own
            limit by default.

    Returns:
        [`datasets.Dataset`]: With `input_ids`, what else the tokenizer gives, `labels` and every other column, in torch
        format.

    Raises:
        ValueError: If a column is missing, or a text is missing or empty; it names the row.
    """
    for name in (column, pair_column, label_column):
        if name not in dataset.column_names:
            raise ValueError(f"the dataset has no column '{name}' (it has {dataset.column_names}): name it.")

    def preprocess(texts: list[Any], targets: list[Any], rows: list[int]) -> dict[str, Any]:
        for text, target, row in zip(texts, targets, rows, strict=True):
            read_text(text, row)
            read_text(target, row)
        return dict(tokenizer(texts, targets, truncation="longest_first", max_length=max_length))

    dataset = dataset.with_format(None)
    dataset = dataset if label_column == "labels" else dataset.rename_column(label_column, "labels")
    mapped = dataset.map(
        preprocess,
        batched=True,
        with_indices=True,
        input_columns=[column, pair_column],
        remove_columns=[column, pair_column],
        desc="Tokenizing",
    )
    return mapped.with_format("torch")
