"""What the loaders of tweets with a picture share: columns, incomplete samples, and mirrors on the Hub."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from datasets import ClassLabel, Dataset, DatasetDict, Features, Image, Value, load_dataset
from transformers.utils import logging

from hf_colearn.data.bad_samples import without_bad_samples
from hf_colearn.data.images import as_rgb
from hf_colearn.data.sample_ids import with_sample_ids
from hf_colearn.data.text import read_text
from hf_colearn.utils import distributed


logger = logging.get_logger(__name__)

SPLITS = {"train": ("train",), "validation": ("validation", "valid", "val", "dev"), "test": ("test",)}


class Tweet(NamedTuple):
    """A sample as a file lists it; `where` names file and line, `target` is what the label is about."""

    tweet_id: str
    text: str
    label: int
    image: Path
    where: str
    target: str | None = None


def tweets_of(
    name: str, splits: Mapping[str, Sequence[Tweet]], class_names: Sequence[str], skip_bad_samples: bool
) -> DatasetDict:
    """The datasets of listed tweets.

    Args:
        name (`str`): The dataset's, for messages.
        splits (`Mapping[str, Sequence[Tweet]]`): `train`, `validation` and `test`.
        class_names (`Sequence[str]`): In the order of their labels.
        skip_bad_samples (`bool`): Leaves out, with a warning that counts them, tweets without a picture or a text and,
            after reading each, those whose picture cannot be decoded.

    Returns:
        [`datasets.DatasetDict`]: With `image`, `text`, `target` where there is one, `label`, `tweet_id` and, in `train`,
        `sample_id`.

    Raises:
        ValueError: If a label is none of the classes', tweets are incomplete, or nothing remains of a split.
    """
    problems: list[str] = []
    built = DatasetDict()
    for split, tweets in splits.items():
        kept = []
        for tweet in tweets:
            if not 0 <= tweet.label < len(class_names):
                raise ValueError(
                    f"tweet '{tweet.tweet_id}' in {tweet.where} has label {tweet.label}: labels run from 0 "
                    f"({class_names[0]}) to {len(class_names) - 1} ({class_names[-1]})."
                )
            if not tweet.image.is_file():
                problems.append(f"tweet '{tweet.tweet_id}' in {tweet.where} has no picture '{tweet.image}'")
            elif not tweet.text.strip():
                problems.append(f"tweet '{tweet.tweet_id}' in {tweet.where} has no text")
            else:
                kept.append(tweet)
        if not kept:
            first = f"; the first: {problems[0]}" if problems else ""
            raise ValueError(f"no tweet of {name}'s {split} split has both picture and text{first}.")
        cells: dict[str, list[Any]] = {
            "image": [str(tweet.image) for tweet in kept],
            "text": [tweet.text for tweet in kept],
            "label": [tweet.label for tweet in kept],
            "tweet_id": [tweet.tweet_id for tweet in kept],
        }
        columns = {"image": Image(), "text": Value("string"), "label": ClassLabel(names=list(class_names))}
        if kept[0].target is not None:
            cells["target"], columns["target"] = [tweet.target for tweet in kept], Value("string")
        built[split] = Dataset.from_dict(cells, features=Features(columns, tweet_id=Value("string")))
    if problems and not skip_bad_samples:
        raise ValueError(
            f"{len(problems):,} tweets of {name} are incomplete; the first: {problems[0]}. Complete the folder, or leave "
            "them out with skip_bad_samples=True (published numbers are of all of them)."
        )
    if problems and distributed.rank() == 0:
        shown = "".join(f"\n  {problem}" for problem in problems[:3])
        logger.warning(f"{len(problems):,} tweets of {name} are incomplete and skipped:{shown}")
    return _finish(built, skip_bad_samples)


def tweets_of_hub(
    repo: str, config: str | None, num_classes: int, columns: Sequence[str], skip_bad_samples: bool
) -> DatasetDict:
    """Tweets of a dataset of the Hub, or of a folder that `datasets` reads, with the classes' names that it has.

    Args:
        repo (`str`): With train, validation and test splits.
        config (`str`, *optional*): One of its configurations.
        num_classes (`int`): To check the labels, which are numbers or a `ClassLabel`.
        columns (`Sequence[str]`): Those needed: `image`, `label` and texts.
        skip_bad_samples (`bool`): As of [`tweets_of`], by reading each.

    Raises:
        ValueError: If a split or a column is missing, or labels are others.
    """
    loaded = load_dataset(repo, config)
    built = DatasetDict()
    for split, names in SPLITS.items():
        found = [name for name in names if name in loaded]
        if not found:
            raise ValueError(
                f"'{repo}' has no {split} split (it has {sorted(loaded)}): pass the dataset's own folder."
            )
        part = loaded[found[0]].with_format(None)
        if missing := [column for column in columns if column not in part.column_names]:
            raise ValueError(
                f"'{repo}' has no column {', '.join(missing)} in '{found[0]}' (it has {part.column_names}): rename its "
                "columns, or pass the dataset's own folder."
            )
        labels = set(part.unique("label"))
        if not labels <= set(range(num_classes)):
            raise ValueError(f"'{repo}' has the labels {sorted(labels, key=str)}, not 0 to {num_classes - 1}.")
        built[split] = part.select_columns(list(columns)).cast_column("image", Image())
    return _finish(built, skip_bad_samples)


def _finish(splits: DatasetDict, skip_bad_samples: bool) -> DatasetDict:
    if skip_bad_samples:
        for name, split in splits.items():
            split, _ = without_bad_samples(split, as_rgb, "image")
            splits[name], _ = without_bad_samples(split, read_text, "text")
    splits["train"] = with_sample_ids(splits["train"])
    return splits
