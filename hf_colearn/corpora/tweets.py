"""What the loaders of tweets with a picture share: columns, what a tweet may lack, and mirrors on the Hub."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from datasets import ClassLabel, Dataset, DatasetDict, Image, Value

from hf_colearn.corpora.base import Sample, complete_splits, finish, hub_splits
from hf_colearn.data.images import as_rgb
from hf_colearn.data.text import read_text


def tweet(
    tweet_id: str, text: str, label: int, image: Path, where: str, class_names: Sequence[str], **columns: str
) -> Sample:
    """A listed tweet, or what it lacks; `where` names file and line.

    Raises:
        ValueError: If the label is none of the classes'.
    """
    if not 0 <= label < len(class_names):
        raise ValueError(
            f"tweet '{tweet_id}' in {where} has label {label}: labels run from 0 ({class_names[0]}) to "
            f"{len(class_names) - 1} ({class_names[-1]})."
        )
    if not image.is_file():
        return f"tweet '{tweet_id}' in {where} has no picture '{image}'"
    if not text.strip():
        return f"tweet '{tweet_id}' in {where} has no text"
    return {"image": str(image), "text": text, "label": label, "tweet_id": tweet_id, **columns}


def tweets_of(
    name: str,
    splits: Mapping[str, Iterable[Sample]],
    class_names: Sequence[str],
    skip_bad_samples: bool,
    columns: Sequence[str] = (),
) -> DatasetDict:
    """The datasets of listed tweets: `image`, `text`, `label`, `tweet_id`, further texts; `train` is numbered.

    Args:
        name (`str`): The corpus, for messages.
        splits (`Mapping[str, Iterable]`): Of `train`, `validation` and `test` what [`tweet`] gives.
        class_names (`Sequence[str]`): In the order of their labels.
        skip_bad_samples (`bool`): Leaves out, with a warning that counts them, tweets without a picture or a text and,
            after reading each, those whose picture cannot be decoded.
        columns (`Sequence[str]`, *optional*): The further columns.

    Raises:
        ValueError: If tweets are incomplete, or nothing remains of a split.
    """
    features = {"image": Image(), "text": Value("string"), "label": ClassLabel(names=list(class_names))}
    features |= {column: Value("string") for column in ("tweet_id", *columns)}
    built = complete_splits(name, "tweet", "both picture and text", splits, features, skip_bad_samples)
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
    splits = hub_splits(repo, columns, config)
    for split, part in splits.items():
        labels = set(part.unique("label"))
        if not labels <= set(range(num_classes)):
            raise ValueError(f"'{repo}' has the labels {sorted(labels, key=str)}, not 0 to {num_classes - 1}.")
        splits[split] = part.select_columns(list(columns)).cast_column("image", Image())
    return _finish(splits, skip_bad_samples)


def _finish(splits: Mapping[str, Dataset], skip_bad_samples: bool) -> DatasetDict:
    return finish(splits, {"image": as_rgb, "text": read_text}, skip_bad_samples)
