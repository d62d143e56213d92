import io
import logging
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from hf_colearn.corpora.stamps import load_stamps
from hf_colearn.data.audio import read_waveform
from hf_colearn.data.images import as_rgb
from tiny_corpora import STAMPS, write_rows, write_table, write_tree


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    return write_table(tmp_path_factory.mktemp("stamps") / "table")


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    return write_tree(tmp_path_factory.mktemp("stamps") / "tree")


def side_of(splits, column):
    """The splits that a sentence is in."""
    sides = {}
    for name, split in splits.items():
        for cell in split[column][:]:
            sides.setdefault(cell.casefold(), set()).add(name)
    return sides


# ---- what it gives ----


def test_a_stamp_is_its_picture_sentence_recording_and_category(table):
    splits = load_stamps(table, min_per_class=3)
    row = splits["train"][0]
    number = int(row["stamp_id"])
    assert list(row) == ["image", "text", "audio", "label", "stamp_id", "sample_id"]
    assert row["image"].getpixel((0, 0)) == pytest.approx((number, 0, 0), abs=3)
    assert row["text"] == STAMPS[number][1]
    assert splits["train"].features["label"].int2str(row["label"]) == STAMPS[number][0]
    wave_T, rate = read_waveform(row["audio"], 0)
    crossings = np.count_nonzero(np.diff(np.sign(wave_T)) > 0) / (len(wave_T) / rate)
    assert rate == 16000 and crossings == pytest.approx(200 + 10 * number, rel=0.05)
    assert splits["train"]["sample_id"][:] == list(range(len(splits["train"])))
    assert "sample_id" not in splits["test"].column_names


def test_french_sentences_are_had_on_request(table):
    row = load_stamps(table, min_per_class=3, text="fr")["test"][0]
    assert row["text"] == STAMPS[int(row["stamp_id"])][2]


def test_debians_tree_is_split_like_the_table_and_its_pictures_lie_on_white(table, tree):
    ours, theirs = load_stamps(table, min_per_class=3), load_stamps(tree, min_per_class=3)
    for split in ours:
        for column in ("stamp_id", "text", "label"):
            assert ours[split][column][:] == theirs[split][column][:]
    row = theirs["train"][0]
    image = np.asarray(as_rgb(row["image"], 0))
    assert image.shape == (128, 128, 3)
    assert (image[:32] == 255).all() and (image[96:] == 255).all()  # 200 x 100 becomes 128 x 64, in the middle
    assert (image[32:96] == (int(row["stamp_id"]), 0, 0)).all()


def test_what_is_transparent_is_white_whatever_its_colour(tmp_path):
    tree = write_tree(tmp_path / "tree")
    for path in tree.rglob("0*.png"):
        Image.new("LA", (64, 64), (0, 0)).save(path)
    assert (np.asarray(load_stamps(tree, min_per_class=3)["train"][0]["image"]) == 255).all()


# ---- the split ----


@pytest.mark.parametrize("seed", range(4))
def test_what_a_stamp_shows_is_in_one_split_only(table, seed):
    english, french = (load_stamps(table, seed, text, min_per_class=3) for text in ("en", "fr"))
    sides = side_of(english, "text")
    assert all(len(of_sentence) == 1 for of_sentence in sides.values())
    assert all(len(of_sentence) == 1 for of_sentence in side_of(french, "text").values())
    assert sides["a drake."] == sides["a duck."] == side_of(french, "text")["une cane."]


def test_categories_have_about_their_share_of_every_split(table):
    splits = load_stamps(table, min_per_class=3)
    assert [len(splits[split]) for split in ("train", "validation", "test")] == [18, 6, 6]
    for split, count in (("train", 9), ("validation", 3), ("test", 3)):
        assert Counter(splits[split]["label"][:]) == {0: count, 1: count}


def test_a_seed_gives_one_split_and_another_seed_another(table):
    first, again, other = (load_stamps(table, seed, min_per_class=3)["test"]["stamp_id"][:] for seed in (0, 0, 1))
    assert first == again != other


def test_shares_set_the_sizes(table):
    splits = load_stamps(table, validation_share=0.25, test_share=0.2, min_per_class=3)
    assert [len(splits[split]) for split in ("train", "validation", "test")] == [16, 8, 6]  # 30 / 5, 24 / 3


def test_rare_categories_are_left_out_and_counted(table, caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("transformers"), "propagate", True)
    splits = load_stamps(table)
    assert splits["train"].features["label"].names == ["animals", "food"]
    assert "fewer than 10 stamps are left out: people (2)" in caplog.text
    assert sum(map(len, splits.values())) == 30


# ---- bad input ----


def test_bad_arguments_are_named(table):
    for arguments, message in (
        ({"text": "de"}, "text='de' is unknown: choose 'en' or 'fr'"),
        ({"test_share": 0.5}, "test_share=0.5 is too much"),
        ({"validation_share": 0.0}, "validation_share=0.0 is too much or nothing"),
        ({"min_per_class": 16}, "min_per_class=16 leaves 0 categories"),
        ({"min_per_class": 1}, r"1 in 5 of the stamps cannot hold any of 'people' \(2 stamps\)"),
        ({"test_share": 0.05, "min_per_class": 3}, r"1 in 20 of the stamps cannot hold any of '\w+' \(15 stamps\)"),
    ):
        with pytest.raises(ValueError, match=message):
            load_stamps(table, **arguments)


def test_a_category_that_shows_one_thing_cannot_be_in_every_split(tmp_path):
    stamps = [*STAMPS[:30], *[("stars", "A star.", "Une étoile.")] * 12]
    with pytest.raises(
        ValueError, match="the train split has no stamp of stars|validation split has no stamp of stars"
    ):
        load_stamps(write_table(tmp_path / "table", stamps))


def test_a_folder_without_stamps_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="holds no stamps, .* tuxpaint-stamps-default"):
        load_stamps(tmp_path)


def test_what_is_missing_is_named_with_its_line(tmp_path):
    folder = write_table(tmp_path / "table")
    (folder / "speech_fr" / "0003.ogg").unlink()
    with pytest.raises(ValueError, match="0003.ogg' of line 5 of .*metadata.csv' is missing"):
        load_stamps(folder)
    row = {"id": "0000", "category": "animals", "text_en": "A frog.", "text_fr": "Une grenouille."}
    write_rows(folder, [row, row])
    with pytest.raises(ValueError, match="has id '0000' more than once"):
        load_stamps(folder)
    write_rows(folder, [row, {**row, "id": "0001", "text_fr": " "}])
    with pytest.raises(ValueError, match="line 3 of .* has no text_fr"):
        load_stamps(folder)
    write_rows(folder, [{"id": "0000", "category": "animals"}])
    with pytest.raises(ValueError, match=r"has no column text_en, text_fr \(it has"):
        load_stamps(folder)


def test_a_text_without_french_is_named(tmp_path):
    tree = write_tree(tmp_path / "tree")
    (tree / "animals" / "cartoon" / "0002.txt").write_text("A frog.\nde.utf8=Ein Frosch.", encoding="utf-8")
    with pytest.raises(ValueError, match="0002.txt' has no English or no French line"):
        load_stamps(tree)


def test_pictures_are_stored_as_png_bytes_or_paths(table, tree):
    from datasets import Image as ImageFeature

    stored = load_stamps(tree, min_per_class=3)["test"].cast_column("image", ImageFeature(decode=False))[0]["image"]
    assert Image.open(io.BytesIO(stored["bytes"])).format == "PNG"
    stored = load_stamps(table, min_per_class=3)["test"].cast_column("image", ImageFeature(decode=False))[0]["image"]
    assert stored["bytes"] is None and stored["path"].endswith(".jpg")
