"""Emoji: which ones, their pictures from a font or a folder, their names, and the split."""

import numpy as np
import pytest

from hf_colearn.corpora.emoji import load_emoji
from tiny_corpora import EMOJI, EMOJI_COLOURS, write_emoji


@pytest.fixture(scope="module")
def drawn():
    return load_emoji(size=24)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_emoji(tmp_path_factory.mktemp("emoji"))


def everything(splits, column):
    return [value for part in (splits["train"], splits["test"]) for value in part[column][:]]


# ---- from packages ----


def test_the_packages_have_1372_emoji_of_one_code_point_in_eight_categories(drawn):
    assert (len(drawn["train"]), len(drawn["test"])) == (823, 549)  # 40 % of 1,372 is 548.8
    assert drawn["train"].features["label"].names == [
        "Activities", "Animals & Nature", "Food & Drink", "Objects", "People & Body", "Smileys & Emotion", "Symbols",
        "Travel & Places",
    ]  # fmt: skip
    codes = everything(drawn, "emoji")
    assert len(set(codes)) == len(codes) and all(int(code, 16) for code in codes)  # no sequence, none in both
    assert not {"1f3c1", "1f9b0"} & set(codes)  # a flag and a component
    assert drawn["train"]["sample_id"][:] == list(range(823)) and "sample_id" not in drawn["test"].column_names


def test_names_are_in_words(drawn):
    names = dict(zip(everything(drawn, "emoji"), everything(drawn, "text"), strict=True))
    assert (names["1f431"], names["1f6e9"]) == ("cat face", "small airplane")
    assert len(set(names.values())) == 1372


def test_every_emoji_is_drawn_as_itself_in_colour(drawn):
    pictures = {
        code: np.asarray(image)
        for part in (drawn["train"], drawn["test"])
        for code, image in zip(part["emoji"], part["image"], strict=True)
    }
    assert {picture.shape for picture in pictures.values()} == {(24, 24, 3)}
    assert min((picture < 128).any(axis=2).sum() for picture in pictures.values()) > 5  # none is blank
    assert len({picture.tobytes() for picture in pictures.values()}) == 1372  # nor a box for a missing glyph
    assert (pictures["1f431"].max(axis=2).astype(int) - pictures["1f431"].min(axis=2)).max() > 100
    assert all((pictures["1f431"][row, column] == 255).all() for row in (0, -1) for column in (0, -1))  # on white


def test_names_come_in_other_languages(folder):
    splits = load_emoji(folder, language="fr", min_per_class=4, test_share=0.5)
    names = dict(zip(everything(splits, "emoji"), everything(splits, "text"), strict=True))
    assert (names["1f434"], names["2615"]) == ("tête de cheval", "boisson chaude")


# ---- from a folder ----


def test_a_folder_gives_a_test_in_either_drawing(folder):
    splits = load_emoji(folder, "twemoji", min_per_class=4, test_share=0.5, size=8)
    assert splits["test"]["emoji"][:] == splits["test_shift"]["emoji"][:]
    for split, drawing in (("train", "twemoji"), ("test", "twemoji"), ("test_shift", "noto")):
        assert len(splits[split]) == 4
        picture = np.asarray(splits[split][0]["image"])
        assert (picture[:4] == EMOJI_COLOURS[drawing][:3]).all() and (picture[4:7] == 255).all()
    assert sorted(everything(splits, "emoji")) == sorted(
        code.removesuffix("-fe0f") for code in sum(EMOJI.values(), [])
    )
    assert sorted(everything(splits, "text"))[:4] == [f"animal {i}" for i in range(4)]


def test_the_split_is_stratified_and_drawn_by_the_seed(folder):
    first, again, *others = (
        load_emoji(folder, min_per_class=4, test_share=0.5, seed=seed) for seed in (0, 0, 1, 2, 3)
    )
    assert first["train"]["emoji"][:] == again["train"]["emoji"][:]
    assert any(first["train"]["emoji"][:] != other["train"]["emoji"][:] for other in others)
    assert sorted(first["train"]["label"][:]) == sorted(first["test"]["label"][:]) == [0, 0, 1, 1]


def test_classes_may_be_subgroups_and_rare_ones_are_left_out(folder):
    splits = load_emoji(folder, classes="subgroup", min_per_class=2, test_share=0.5)
    assert splits["train"].features["label"].names == ["animal-small", "food-small"]
    with pytest.raises(ValueError, match="min_per_class=5 leaves 0 classes.*'animal-small': 4"):
        load_emoji(folder, classes="subgroup", min_per_class=5)


# ---- bad input ----


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"classes": "tags"}, "classes='tags' is unknown: choose 'category' or 'subgroup'"),
        ({"drawing": "apple"}, "drawing='apple' is unknown: choose 'noto' or 'twemoji'"),
        ({"language": "la"}, "language='la' is unknown: choose one of en, "),
        ({"test_share": 1}, "test_share=1 cuts no test split"),
    ],
)
def test_bad_arguments_are_named(folder, arguments, message):
    with pytest.raises(ValueError, match=message):
        load_emoji(folder, **{"min_per_class": 4, **arguments})


def test_what_a_folder_lacks_is_named_with_its_line(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"there is no '.*metadata.csv': pass the folder"):
        load_emoji(tmp_path)
    folder = write_emoji(tmp_path)
    (folder / "twemoji" / "1f436.png").unlink()
    with pytest.raises(ValueError, match="1f436.png' of line 3 of '.*metadata.csv' is missing"):
        load_emoji(folder)
    (folder / "metadata.csv").write_text("file_name,label_text,category,subgroup\n1f436.png,dog, ,animal\n")
    with pytest.raises(ValueError, match="line 2 of '.*' has no category"):
        load_emoji(folder)
    (folder / "metadata.csv").write_text("file_name,category\n")
    with pytest.raises(ValueError, match="has no column label_text, subgroup"):
        load_emoji(folder)
