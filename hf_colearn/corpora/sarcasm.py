"""Multimodal sarcasm detection: tweets with a picture that are sarcastic or not.

Cai et al., "Multi-Modal Sarcasm Detection in Twitter with Hierarchical Fusion Model" (ACL 2019), as in
github.com/headacheboy/data-of-multimodal-sarcasm-detection; and MMSD2.0 of Qin et al. (Findings of ACL 2023), as in
github.com/JoeYing1019/MMSD2.0.
"""

import ast
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from datasets import DatasetDict

from hf_colearn.corpora.base import Sample, source_of
from hf_colearn.corpora.tweets import tweet, tweets_of, tweets_of_hub


CLASSES = ("not sarcastic", "sarcastic")
# A tweet with one of these words is left out, as by the released `codes/loadData.py` of Cai et al.: they give the label away.
LEAKING = frozenset(
    ("sarcasm", "sarcastic", "irony", "ironic", "joke", "jokes", "humor", "humour", "reposting", "exgag", "<url>")
)

_LISTS = {  # of a folder of texts: Cai et al.'s lists, MMSD2.0's objects
    ".txt": {"train": "train.txt", "validation": "valid2.txt", "test": "test2.txt"},
    ".json": {"train": "train.json", "validation": "valid.json", "test": "test.json"},
}
_TEXTS = {"text": ".txt", "text_json_final": ".json", "text_json_clean": ".json"}


def load_sarcasm(
    data_dir: str | Path | None = None,
    repo: str | None = None,
    config: str | None = None,
    texts: str | None = None,
    skip_bad_samples: bool = False,
) -> DatasetDict:
    """The tweets, 19,816 for training, 2,410 for validation and 2,409 for testing.

    Of Cai et al.'s lists, tweets with one of the words in `LEAKING` are left out, which is how those numbers come about,
    and the label is the last one of a line: the hashtag's in training, the annotators' elsewhere, as in the released code.
    MMSD2.0 is taken as it is: without hashtags and emojis, and with doubtful tweets annotated again.

    Args:
        data_dir (`str` or `Path`, *optional*): The folder with `dataset_image/{id}.jpg` and the texts.
        repo (`str`, *optional*): A mirror as a dataset of the Hub instead, with `image`, `text` and `label` (0 or 1).
        config (`str`, *optional*): The mirror's configuration, where it has several.
        texts (`str`, *optional*): The folder of texts: `"text"` (Cai et al.), `"text_json_final"` (MMSD2.0) or
            `"text_json_clean"` (Cai et al.'s, as MMSD2.0 ships them); by default the one that is there.
        skip_bad_samples (`bool`, *optional*, defaults to `False`): Leaves out and counts tweets without a picture or a
            text and, after reading each, those whose picture cannot be decoded.

    Returns:
        [`datasets.DatasetDict`]: `train`, `validation` and `test` with `image`, `text`, `label` and, in `train`,
        `sample_id`; from a folder with `tweet_id`, too.

    Raises:
        FileNotFoundError, ValueError: If texts are missing, ambiguous, listed twice or damaged, or tweets incomplete.
    """
    source = source_of(data_dir, repo)
    if isinstance(source, str):
        return tweets_of_hub(source, config, len(CLASSES), ("image", "text", "label"), skip_bad_samples)
    folder, images = source / _name_of_texts(source, texts), source / "dataset_image"
    seen: dict[str, str] = {}
    splits = {split: _samples(folder / name, images, seen) for split, name in _LISTS[_TEXTS[folder.name]].items()}
    return tweets_of("the sarcasm data", splits, CLASSES, skip_bad_samples)


def _name_of_texts(folder: Path, texts: str | None) -> str:
    known, found = ", ".join(_TEXTS), [name for name in _TEXTS if (folder / name).is_dir()]
    if texts is not None and texts not in _TEXTS:
        raise ValueError(f"texts='{texts}' is unknown: choose one of {known}.")
    if texts is None and not found:
        raise FileNotFoundError(f"'{folder}' has none of the folders {known}: pass the parent of one as data_dir.")
    if texts is None and len(found) > 1:
        raise ValueError(f"'{folder}' has the folders {', '.join(found)}: say which with texts='{found[0]}'.")
    return texts or found[0]


def _samples(file: Path, images: Path, seen: dict[str, str]) -> Iterator[Sample]:
    """The tweets of a list; `seen` holds where every tweet of the splits so far is listed."""
    if not file.is_file():
        raise FileNotFoundError(f"there is no '{file}': complete the folder.")
    for where, tweet_id, text, label in (_objects if file.suffix == ".json" else _lists)(file):
        if not isinstance(text, str) or not isinstance(label, int):
            raise ValueError(
                f"{where} has text {text!r:.60} and label {label!r:.20}: a string and a number are expected."
            )
        name = str(tweet_id)
        if name in seen:
            raise ValueError(f"tweet '{name}' is in {seen[name]} and in {where}: remove one of them.")
        seen[name] = where
        yield tweet(name, text, label, images / f"{name}.jpg", where, CLASSES)


def _lists(file: Path) -> Iterator[tuple[str, Any, Any, Any]]:
    """Place, id, text and label of the tweets in Cai et al.'s form, without the leaking ones."""
    with file.open(encoding="utf-8", newline="\n") as lines:  # tweets hold other separators of lines
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            where = f"line {number} of '{file}'"
            try:
                entry = ast.literal_eval(line.strip())
            except (ValueError, SyntaxError) as error:
                raise ValueError(f"{where} is no Python list ({line[:60]!r}): restore the file.") from error
            if not isinstance(entry, list) or len(entry) not in (3, 4):
                raise ValueError(f"{where} is no list of id, text and one or two labels ({line[:60]!r}): restore it.")
            if LEAKING.isdisjoint(str(entry[1]).split()):
                yield where, entry[0], entry[1], entry[-1]


def _objects(file: Path) -> Iterator[tuple[str, Any, Any, Any]]:
    """The same in MMSD2.0's form."""
    try:
        entries = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"'{file}' is no JSON ({error}): restore it.") from error
    if not isinstance(entries, list):
        raise ValueError(f"'{file}' holds a {type(entries).__name__}, not a list of tweets: restore it.")
    for number, entry in enumerate(entries, start=1):
        where = f"entry {number} of '{file}'"
        if not isinstance(entry, dict) or not {"image_id", "text", "label"} <= entry.keys():
            raise ValueError(f"{where} has not image_id, text and label ({str(entry)[:60]}): restore the file.")
        yield where, entry["image_id"], entry["text"], entry["label"]
