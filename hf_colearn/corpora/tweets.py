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
    """A listed tweet, or what it lacks; `where` names file and line. Refuses a label that is none of the classes'."""
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
    """The datasets of what [`tweet`] gives: `image`, `text`, `label`, `tweet_id` and further columns of texts."""
    features = {"image": Image(), "text": Value("string"), "label": ClassLabel(names=list(class_names))}
    features |= {column: Value("string") for column in ("tweet_id", *columns)}
    built = complete_splits(name, "tweet", "both picture and text", splits, features, skip_bad_samples)
    return _finish(built, skip_bad_samples)


def tweets_of_hub(
    repo: str, config: str | None, num_classes: int, columns: Sequence[str], skip_bad_samples: bool
) -> DatasetDict:
    """Tweets of a mirror, with the classes' names that it has; `columns` are `image`, `label` and the texts."""
    splits = hub_splits(repo, columns, config)
    for split, part in splits.items():
        labels = set(part.unique("label"))
        if not labels <= set(range(num_classes)):
            raise ValueError(f"'{repo}' has the labels {sorted(labels, key=str)}, not 0 to {num_classes - 1}.")
        splits[split] = part.select_columns(list(columns)).cast_column("image", Image())
    return _finish(splits, skip_bad_samples)


def _finish(splits: Mapping[str, Dataset], skip_bad_samples: bool) -> DatasetDict:
    return finish(splits, {"image": as_rgb, "text": read_text} if skip_bad_samples else None)
