"""Tux Paint's stamps: pictures with a sentence in English and French, and a spoken French sentence. Real triples.

Source: Debian's package `tuxpaint-stamps-default` (Copyright 2002-2022 Bill Kendrick and contributors, mixed free licences).
"""

import csv
import io
from collections import Counter
from itertools import chain, compress
from pathlib import Path
from typing import Any, Literal

import numpy as np
import PIL.Image
from datasets import Audio, ClassLabel, DatasetDict, Image, Value

from hf_colearn.corpora.base import SPLITS, dataset_of, finish, warn
from hf_colearn.models.image_modes import to_rgb
from hf_colearn.utils.extras import extra


_COLUMNS = ("id", "category", "text_en", "text_fr")
_SIDE = 128  # pixels


# A row: stamp_id, label (its category), text_en, text_fr, image as `datasets.Image` stores it, and the path of audio.
Stamp = dict[str, Any]


def needs_stamps(data_dir: str | None) -> None:
    """Ends a recipe where no folder of stamps is given, with where they come from."""
    if data_dir is None:
        raise ValueError(
            "no data: apt-get install tuxpaint-stamps-default and pass --data_dir /usr/share/tuxpaint/stamps, or a folder "
            "with metadata.csv, images/ and speech_fr/."
        )


def load_stamps(
    data_dir: str | Path,
    seed: int = 0,
    text: Literal["en", "fr"] = "en",
    validation_share: float = 0.2,
    test_share: float = 0.2,
    min_per_class: int = 10,
) -> DatasetDict:
    """The stamps that have a picture in PNG and a French recording, 767 of Debian's 2022.06.04, split by what they show.

    They are read as Debian installs them, `{category}/.../{name}.png` (fitted into 128 x 128 pixels, on white) with
    `{name}.txt` and `{name}_desc_fr.ogg`, or from a folder with `metadata.csv`, `images/{id}.jpg` and
    `speech_fr/{id}.ogg`. Both number them by their paths, so that a seed splits both alike.

    Stamps whose sentences agree in either language, but for upper and lower case ("A frog." twice), are in one split, so
    that no split's text or speech is known from another. Categories are stratified as far as that allows.

    Args:
        data_dir (`str` or `Path`): The folder, such as `/usr/share/tuxpaint/stamps` after
            `apt-get install tuxpaint-stamps-default`. The 767 have 16 categories, from 247 symbols to 3 people.
        seed (`int`, *optional*, defaults to 0): Draws the split.
        text (`str`, *optional*, defaults to `"en"`): The language of `text`; with `"fr"`, text and speech say the same.
        validation_share, test_share (`float`, *optional*, defaults to 0.2): Of all stamps, up to a third each. Each is
            one fold of n, so that 0.2 and 0.25 are met, and 0.3 becomes a third.
        min_per_class (`int`, *optional*, defaults to 10): Categories with fewer stamps are left out and counted in the
            log: military (8), medical (4), natural forces (3) and people (3), which leaves 749 stamps of 12 categories.

    Returns:
        [`datasets.DatasetDict`]: `train`, `validation` and `test` with `image`, `text`, `audio` (`Audio(decode=False)`,
        French), `label`, `stamp_id` and, in `train`, `sample_id` (its row).

    Raises:
        FileNotFoundError, ValueError: If files are missing or damaged, or a category does not reach every split.
    """
    if text not in ("en", "fr"):
        raise ValueError(f"text='{text}' is unknown: choose 'en' or 'fr'.")
    folder = Path(data_dir)
    found = _from_table(folder) if (folder / "metadata.csv").is_file() else _from_tree(folder)
    stamps = _frequent(found, min_per_class, folder)
    categories = sorted({stamp["label"] for stamp in stamps})
    sides = _sides(stamps, validation_share, test_share, seed)
    features = {"image": Image(), "text": Value("string"), "audio": Audio(decode=False)}
    features |= {"label": ClassLabel(names=categories), "stamp_id": Value("string")}
    built = {}
    for split in SPLITS:
        rows = [stamp | {"text": stamp[f"text_{text}"]} for stamp in compress(stamps, sides == split)]
        if absent := sorted(set(categories) - {row["label"] for row in rows}):
            raise ValueError(
                f"the {split} split has no stamp of {', '.join(absent)}, which are too few things to share out: raise "
                f"min_per_class={min_per_class}, or the share of the split."
            )
        built[split] = dataset_of(rows, features)
    return finish(built)


# ---- the two forms ----
def _from_table(folder: Path) -> list[Stamp]:
    table = folder / "metadata.csv"
    stamps: dict[str, Stamp] = {}
    with table.open(encoding="utf-8", newline="") as file:
        rows = csv.DictReader(file)
        if missing := [name for name in _COLUMNS if name not in (rows.fieldnames or ())]:
            raise ValueError(f"'{table}' has no column {', '.join(missing)} (it has {rows.fieldnames}): restore it.")
        for row in rows:
            where = f"line {rows.line_num} of '{table}'"
            if empty := [name for name in _COLUMNS if not (row[name] or "").strip()]:
                raise ValueError(f"{where} has no {', '.join(empty)}: complete or remove it.")
            image, audio = folder / "images" / f"{row['id']}.jpg", folder / "speech_fr" / f"{row['id']}.ogg"
            for path in (image, audio):
                if not path.is_file():
                    raise ValueError(f"'{path}' of {where} is missing: restore the file, or remove the line.")
            stamp_id, category, text_en, text_fr = (row[name].strip() for name in _COLUMNS)
            if stamp_id in stamps:
                raise ValueError(f"'{table}' has id '{stamp_id}' more than once: number the stamps anew.")
            stamp = {"stamp_id": stamp_id, "label": category, "text_en": text_en, "text_fr": text_fr}
            stamps[stamp_id] = stamp | {"image": {"bytes": None, "path": str(image)}, "audio": audio}
    return list(stamps.values())


def _from_tree(folder: Path) -> list[Stamp]:
    stamps: list[Stamp] = []
    for image in sorted(folder.rglob("*.png")):
        audio, text = image.with_name(f"{image.stem}_desc_fr.ogg"), image.with_suffix(".txt")
        if not (audio.is_file() and text.is_file()):
            continue  # mirrored pictures, and those without a recording
        # The first line is English, and others are such as "fr.utf8=Une grenouille."
        english, *others = text.read_text(encoding="utf-8").splitlines() or [""]
        french = [line.removeprefix("fr.utf8=") for line in others if line.startswith("fr.utf8=")]
        if not (english.strip() and french and french[0].strip()):
            raise ValueError(f"'{text}' has no English or no French line ('fr.utf8='): install the package again.")
        category, cell = image.relative_to(folder).parts[0], {"bytes": _on_white(image), "path": None}
        stamp = {"stamp_id": f"{len(stamps):04d}", "label": category, "image": cell, "audio": audio}
        stamps.append(stamp | {"text_en": english.strip(), "text_fr": french[0].strip()})
    if not stamps:
        raise FileNotFoundError(
            f"'{folder}' holds no stamps, neither a metadata.csv nor pictures in PNG with their texts and French "
            "recordings: pass '/usr/share/tuxpaint/stamps', where Debian's package tuxpaint-stamps-default puts them."
        )
    return stamps


def _on_white(path: Path) -> bytes:
    """A transparent picture as an opaque PNG of 128 x 128 pixels, made smaller where it is larger, in the middle."""
    with PIL.Image.open(path) as file:
        opaque = to_rgb(file)
    opaque.thumbnail((_SIDE, _SIDE))
    square = PIL.Image.new("RGB", (_SIDE, _SIDE), "white")
    square.paste(opaque, ((_SIDE - opaque.width) // 2, (_SIDE - opaque.height) // 2))
    encoded = io.BytesIO()
    square.save(encoded, "PNG")
    return encoded.getvalue()


def _frequent(stamps: list[Stamp], min_per_class: int, folder: Path) -> list[Stamp]:
    counts = Counter(stamp["label"] for stamp in stamps)
    rare = [f"{category} ({count})" for category, count in counts.items() if count < min_per_class]
    if len(counts) - len(rare) < 2:
        raise ValueError(
            f"min_per_class={min_per_class} leaves {len(counts) - len(rare)} categories of '{folder}' ({dict(counts)}): "
            "lower it."
        )
    if rare:
        warn(f"categories with fewer than {min_per_class} stamps are left out: {', '.join(rare)}.")
    return [stamp for stamp in stamps if counts[stamp["label"]] >= min_per_class]


# ---- the split ----
def _sides(stamps: list[Stamp], validation_share: float, test_share: float, seed: int) -> np.ndarray:
    """The split of every stamp."""
    for name, share in {"validation_share": validation_share, "test_share": test_share}.items():
        if not 0 < share <= 1 / 3:
            raise ValueError(f"{name}={share} is too much or nothing: pass a share above 0, up to a third.")
    sides = np.full(len(stamps), "validation")
    labels, groups = np.array([stamp["label"] for stamp in stamps]), _groups(stamps)
    test_N = _one_fold(labels, groups, round(1 / test_share), seed)
    sides[test_N] = "test"
    rest = np.flatnonzero(~test_N)
    validation_N = _one_fold(labels[rest], groups[rest], round((1 - test_share) / validation_share), seed)
    sides[rest[~validation_N]] = "train"
    return sides


def _one_fold(labels: np.ndarray, groups: np.ndarray, folds: int, seed: int) -> np.ndarray:
    """Whether a stamp is in the first of so many folds, which have about the same share of every category."""
    with extra("report", "the split needs scikit-learn"):
        from sklearn.model_selection import StratifiedGroupKFold
    rare = Counter(labels.tolist()).most_common()[-1]
    if rare[1] < folds:
        raise ValueError(
            f"a split of 1 in {folds} of the stamps cannot hold any of '{rare[0]}' ({rare[1]} stamps): pass a larger share "
            "or a higher min_per_class."
        )
    splitter = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
    _, fold = next(iter(splitter.split(labels, labels, groups)))
    return np.isin(np.arange(len(labels)), fold)


def _groups(stamps: list[Stamp]) -> np.ndarray:
    """A number for what each stamp shows: the same where the sentences of either language agree, through others too."""
    from scipy.sparse import coo_array  # scikit-learn brings it
    from scipy.sparse.csgraph import connected_components

    pairs = [(("en", stamp["text_en"].casefold()), ("fr", stamp["text_fr"].casefold())) for stamp in stamps]
    numbers = {sentence: number for number, sentence in enumerate(dict.fromkeys(chain.from_iterable(pairs)))}
    english, french = ([numbers[pair[side]] for pair in pairs] for side in (0, 1))
    links = coo_array((np.ones(len(stamps)), (english, french)), shape=(len(numbers), len(numbers)))
    return connected_components(links, directed=False)[1][english]
