"""Anybody's pairs: which columns are what, labels of every form, test parts without leaks, every source; and bad data."""

import csv
import json

import numpy as np
import pytest
import soundfile
from datasets import Audio, ClassLabel, Dataset, DatasetDict, Features, List, Value
from PIL import Image as Picture

from docstrings import run_example
from hf_colearn.corpora.pair_columns import find_columns
from hf_colearn.corpora.pair_labels import read_labels
from hf_colearn.corpora.pairs import CLASS_NAMES, load_pairs
from hf_colearn.data.content_split import content_groups, cut_groups
from refusals import Refusals, assert_refused


refusals = Refusals()
TEXTS = [f"a thing of number {i}" for i in range(8)]
CLASSES = ["cat", "dog"] * 4


def write_pictures(folder, rows, names=("file_name", "text", "label"), files=None):
    """Pictures of one colour each with their `metadata.csv`."""
    folder.mkdir(parents=True, exist_ok=True)
    for i, row in enumerate(rows):
        if files is None or row[0] in files:
            Picture.new("RGB", (8, 8), (9 * i, 0, 0)).save(folder / row[0])
    with (folder / "metadata.csv").open("w", newline="") as file:
        csv.writer(file).writerows([names, *rows])
    return folder


def eight(folder, **kwargs):
    return write_pictures(folder, list(zip([f"{i}.png" for i in range(8)], TEXTS, CLASSES, strict=True)), **kwargs)


def table(**columns):
    return Dataset.from_dict(columns)


def written(folder, name="table.parquet", **columns):
    dataset = table(**columns)
    {".parquet": dataset.to_parquet, ".csv": dataset.to_csv, ".jsonl": dataset.to_json}[f".{name.split('.')[1]}"](
        folder / name
    )
    return folder / name


# ---- columns ----
@pytest.mark.parametrize(
    ("columns", "options", "expected"),
    [
        # name hints and the rest
        ({"features": [[1.0]] * 8, "text": TEXTS, "target": CLASSES}, {}, ("features", "features", "text", "text", "target")),
        # a caption that repeats is longer than the name of a class; an id is neither
        ({"vector": [[1.0]] * 8, "id": TEXTS, "note": ["a cat on a red mat"] * 8, "kind": CLASSES}, {},
         ("vector", "features", "note", "text", "kind")),
        # the numbers of a table are one input; a number with a label's name is none of them
        ({"height": [1.5] * 8, "width": [2] * 8, "caption": TEXTS, "score": [0.5] * 8}, {},
         ("height+width", "features", "caption", "text", "score")),
        # ... whether it is the label or not: it would tell it
        ({"height": [1.5] * 8, "target": [2] * 8, "caption": TEXTS}, {"label": "none"},
         ("height", "features", "caption", "text", None)),
        # words of pictures' files are pictures, whatever the column is called
        ({"file_path": [f"{i}.png" for i in range(8)], "words": TEXTS}, {}, ("file_path", "image", "words", "text", None)),
        # what is named goes first
        ({"en": TEXTS, "fr": TEXTS}, {"input": "en", "other": "fr"}, ("en", "text", "fr", "text", None)),
        ({"features": [[1.0]] * 8, "text": TEXTS, "target": CLASSES}, {"label": "none", "input": "text"},
         ("text", "text", "features", "features", None)),
        # of two texts the one with the name of one
        ({"v": [[1.0]] * 8, "text": TEXTS, "comment": TEXTS}, {}, ("v", "features", "text", "text", None)),
    ],
)  # fmt: skip
def test_columns_are_told_by_type_values_and_name(columns, options, expected):
    found = find_columns(table(**columns), **options)
    assert ("+".join(found.input), found.input_kind, found.other, found.other_kind, found.label) == expected


def test_pictures_and_sounds_are_inputs_before_texts():
    features = Features(clip=Audio(decode=False), transcript=Value("string"), label=ClassLabel(names=["a", "b"]))
    cells = {"clip": [{"bytes": b"", "path": None}] * 2, "transcript": ["one", "two"], "label": [0, 1]}
    found = find_columns(Dataset.from_dict(cells, features=features))
    assert (found.input, found.input_kind, found.other, found.label) == (("clip",), "audio", "transcript", "label")


# ---- labels ----
@pytest.mark.parametrize(
    ("cells", "problem", "names", "values"),
    [
        ([7, 3, -100, 7], "single", {0: "3", 1: "7"}, [1, 0, -100, 1]),
        ([7.0, 3.0, None, 7.0], "single", {0: "3", 1: "7"}, [1, 0, -100, 1]),  # a table with gaps
        (["b ", "a", "", None], "single", {0: "a", 1: "b"}, [1, 0, -100, -100]),
        ([True, False, None, True], "single", {0: "False", 1: "True"}, [1, 0, -100, 1]),
        ([0.5, None, 2.0, 1.0], "regression", None, [0.5, np.nan, 2.0, 1.0]),
        ([["x", "y"], ["x"], None, []], "multi", {0: "x", 1: "y"}, [[1, 1], [1, 0], [np.nan, np.nan], [0, 0]]),
        (
            [[1, 0], [0, 1], [1, 1], None],
            "multi",
            {0: "LABEL_0", 1: "LABEL_1"},
            [[1, 0], [0, 1], [1, 1], [np.nan] * 2],
        ),
    ],
)
def test_labels_of_every_form(cells, problem, names, values):
    found = read_labels({"train": table(label=cells)}, "label")
    assert found.problem_type.startswith(problem) and found.names == names
    np.testing.assert_array_equal(found.by_split["train"], np.array(values))


def test_a_named_class_that_nobody_has_is_none_and_minus_one_is_no_label():
    features = Features(label=ClassLabel(names=["a", "b", "c"]))
    found = read_labels({"train": Dataset.from_dict({"label": [2, 0, -1]}, features=features)}, "label")
    assert found.names == {0: "a", 1: "c"} and found.by_split["train"].tolist() == [1, 0, -100]


# ---- splits ----
def test_groups_are_joined_by_any_content():
    run_example(content_groups)
    # 0-1 by input, 1-2 by partner, 4-5 by partner; nothing is shared by "nothing".
    assert content_groups(list("aabcde"), ["u", "x", "x", None, "z", "z"]).tolist() == [0, 0, 0, 1, 2, 2]


def test_a_cut_takes_whole_groups_of_every_class_and_leaves_the_unlabelled():
    groups, classes = np.array([0, 0, 1, 1, 2, 3, 4, 5, 6, 7]), np.array([0, 0, 0, 0, 1, 1, 1, 1, -100, -100])
    in_test = cut_groups(groups, classes, 0.5, seed=3)
    assert sorted(classes[in_test].tolist()) == [0, 0, 1, 1]
    assert {groups[i] for i in np.flatnonzero(in_test)}.isdisjoint(groups[~in_test])
    assert len({tuple(cut_groups(groups, classes, 0.5, seed)) for seed in range(9)}) > 1  # drawn by the seed


def test_the_same_text_or_picture_is_never_on_both_sides(tmp_path):
    # 24 samples of 2 classes, every text twice, in two spellings.
    rows = [(f"{i}.png", f"Text {i // 2}" if i % 2 else f"text  {i // 2}", "ab"[i // 12]) for i in range(24)]
    pairs = load_pairs(write_pictures(tmp_path / "data", rows), test_share=0.3)
    texts = {split: {t.lower().split()[1] for t in part["other"]} for split, part in pairs.splits.items()}
    assert texts["train"].isdisjoint(texts["test"]) and len(pairs.test) == 8  # round(.3 * 12) = 4 of each class
    assert pairs.split == "30% of every class cut off as test part with seed 0, no input or partner on both sides"


def test_where_classes_share_a_text_pictures_alone_are_kept_apart(tmp_path):
    rows = [(f"{i}.png", f"a picture of a {'cat' if i % 2 else 'dog'}", "ab"[i % 2]) for i in range(12)]
    pairs = load_pairs(write_pictures(tmp_path / "data", rows))
    assert (len(pairs.train), len(pairs.test)) == (8, 4) and "partners repeat too much" in pairs.split


def test_splits_of_the_data_stay_and_what_they_share_is_counted(tmp_path):
    for split, texts in (("train", TEXTS), ("test", [TEXTS[0].upper(), "another", None, "else"])):
        labels = CLASSES[: len(texts)]
        cells = [[float(i), 100.0 * len(texts)] for i in range(len(texts))]
        table(features=cells, text=texts, label=labels).to_parquet(tmp_path / f"{split}.parquet")
    pairs = load_pairs(tmp_path)
    assert pairs.split == "splits of the data" and pairs.train["sample_id"][:] == list(range(8))
    assert pairs.notes == ("1 of 4 test samples have a partner that is in 'train', too.",)


# ---- sources ----
def test_every_form_of_a_table_gives_the_same_pairs(tmp_path):
    columns = {"height": [1.0 * i for i in range(8)], "width": [2.0] * 8, "text": TEXTS, "label": CLASSES}
    whole = table(**columns)
    sources = [written(tmp_path, f"t.{ending}", **columns) for ending in ("parquet", "csv", "jsonl")]
    whole.save_to_disk(tmp_path / "saved")
    DatasetDict({"train": whole}).save_to_disk(tmp_path / "dict")
    (tmp_path / "shards").mkdir()
    for i in range(2):
        whole.shard(2, i, contiguous=True).to_parquet(tmp_path / "shards" / f"train-{i}.parquet")
    found = [load_pairs(source) for source in [*sources, tmp_path / "saved", tmp_path / "dict", tmp_path / "shards"]]
    assert [pairs.source for pairs in found] == ["t.parquet", "t.csv", "t.jsonl", "saved", "dict", "shards"]
    for pairs in found:
        assert pairs.train.to_dict() == found[0].train.to_dict() and pairs.input_kind == "features"
    assert len(found[0].train) == 6 and len(found[0].train["input"][0]) == 2


def test_a_folder_of_pictures_with_captions_says_what_it_is(tmp_path):
    pairs = load_pairs(eight(tmp_path / "pets"))
    assert str(pairs).splitlines() == [
        "data:     pets: 6 in train, 2 in test; 25% of every class cut off as test part with seed 0, no input or partner on "
        "both sides",
        "input:    image (column 'image')",
        "partner:  text (column 'text'), of 6 training samples",
        "labels:   classes (column 'label'), of 6 training samples: cat, dog",
    ]
    assert pairs.title == "pets: images learn from texts" and pairs.names == {0: "cat", 1: "dog"}
    assert pairs.description.startswith("pets (image with text, 2 classes), 25% of every class cut off")
    assert pairs.train[0]["input"]["path"].endswith(".png")


def test_class_subfolders_alone_are_read_as_sentences_about_classes(tmp_path):
    for name in ("cat", "dog"):
        (tmp_path / "pets" / name).mkdir(parents=True)
        for i in range(4):
            Picture.new("RGB", (8, 8), (20 * i, 90 * len(name), ord(name[0]))).save(
                tmp_path / "pets" / name / f"{i}.png"
            )
    pairs = load_pairs(tmp_path / "pets")
    assert (pairs.other_kind, pairs.names, len(pairs.test)) == (CLASS_NAMES, {0: "cat", 1: "dog"}, 2)
    assert "a sentence about the class" in str(pairs)


def test_subfolders_are_classes_where_a_metadata_file_has_none(tmp_path):
    rows = [(f"{name}/{i}.png", f"{name} number {i}") for name in ("cat", "dog") for i in range(4)]
    for name in ("cat", "dog"):
        (tmp_path / "pets" / name).mkdir(parents=True)
    pairs = load_pairs(write_pictures(tmp_path / "pets", rows, names=("file_name", "text")))
    assert pairs.names == {0: "cat", 1: "dog"} and pairs.columns.label == "subfolder" and pairs.other_kind == "text"


def test_clips_with_transcripts_and_a_table_that_names_files(tmp_path):
    (tmp_path / "clips").mkdir()
    for i in range(8):
        soundfile.write(tmp_path / "clips" / f"{i}.wav", np.sin(np.arange(800) * (i + 1) / 9), 8000)
    rows = [(f"{i}.wav", TEXTS[i], CLASSES[i]) for i in range(8)]
    with (tmp_path / "clips" / "metadata.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("file_name", "transcript", "label"), *rows])
    of_folder = load_pairs(tmp_path / "clips")
    assert (of_folder.input_kind, of_folder.columns.other) == ("audio", "transcript")
    wav = [f"clips/{i}.wav" for i in range(8)]
    of_table = load_pairs(written(tmp_path, "clips.csv", wav=wav, transcript=TEXTS, label=CLASSES))
    assert [c["path"] for c in of_table.test["input"]] == [c["path"] for c in of_folder.test["input"]]


def test_missing_partners_and_labels_are_counted(tmp_path):
    texts, labels = [None, "  ", *TEXTS[2:]], [*CLASSES[:6], None, None]
    pairs = load_pairs(
        written(tmp_path, features=[[1.0 * i] for i in range(8)], text=texts, label=labels), test_share=0.34
    )
    assert (len(pairs.train), int(pairs.labelled.sum()), int(pairs.paired.sum())) == (
        6,
        4,
        pairs.paired.tolist().count(True),
    )
    # Samples without a label stay in training, and both of them have a text.
    assert pairs.paired.tolist().count(False) + sum(text is None for text in pairs.test["other"]) == 2


def test_samples_that_cannot_be_read_are_left_out_on_request(tmp_path):
    folder = eight(tmp_path / "pets")
    (folder / "3.png").write_bytes(b"no picture")
    (folder / "4.png").unlink()
    pairs = load_pairs(folder, skip_bad_samples=True)
    assert len(pairs.train) + len(pairs.test) == 6


def test_max_samples_keeps_one_of_every_class(tmp_path):
    labels = ["rare", *["often"] * 19]
    cells = {"features": [[1.0 * i] for i in range(20)], "text": [f"text {i}" for i in range(20)], "label": labels}
    pairs = load_pairs(written(tmp_path, **cells), max_samples=4)
    assert len(pairs.train) == 4 and set(pairs.train["labels"][:]) == {0, 1} and len(pairs.test) == 1
    assert pairs.notes == ("Of 15 training samples at most 4 are taken (--max_samples).",)


# ---- bad data ----
def load(folder, _source="table.parquet", **columns):
    """Writes a table, and loads it after the situation's `yield`."""
    options = columns.pop("options", {})
    path = written(folder, _source, **columns)
    yield
    load_pairs(path, **options)


VECTORS = [[1.0 * i] for i in range(8)]


@refusals.case(FileNotFoundError, "no file or folder 'pictrues'", "a folder of pictures or clips")
def a_source_that_is_not_there(folder):
    yield
    load_pairs("pictrues")


@refusals.case(FileNotFoundError, "'nobody/nothing' is no file or folder here", "owner/name")
def a_dataset_that_the_hub_does_not_give(folder):
    yield
    load_pairs("nobody/nothing")


@refusals.case(ValueError, "cannot be read (the folder is empty)", "metadata.csv")
def an_empty_folder(folder):
    (folder / "data").mkdir()
    yield
    load_pairs(folder / "data")


@refusals.case(ValueError, "it ends in '.xyz'", ".parquet")
def a_file_of_no_known_form(folder):
    (folder / "data.xyz").write_text("?")
    yield
    load_pairs(folder / "data.xyz")


@refusals.case(ValueError, "broken.parquet' cannot be read", "pass a dataset of the Hub")
def a_broken_file(folder):
    (folder / "broken.parquet").write_bytes(b"PAR1")
    yield
    load_pairs(folder / "broken.parquet")


@refusals.case(FileNotFoundError, "1 of 8 files of 'train' are not there", "5.png", "--skip_bad_samples")
def a_file_that_the_metadata_name(folder):
    eight(folder / "pets", files={f"{i}.png" for i in range(8) if i != 5})
    yield
    load_pairs(folder / "pets")


@refusals.case(ValueError, "'text' (text), 'vector' (features) could each be the other modality", "--other text")
def two_columns_for_the_other_modality(folder):
    eight(folder / "pets", names=("file_name", "text", "label"))
    rows = [json.dumps({"file_name": f"{i}.png", "text": TEXTS[i], "vector": [1.0, i]}) for i in range(8)]
    (folder / "pets" / "metadata.csv").unlink()
    (folder / "pets" / "metadata.jsonl").write_text("\n".join(rows))
    yield
    load_pairs(folder / "pets")


@refusals.case(ValueError, "'en' (text), 'de' (text) could each be the input", "--input en --other de")
def two_columns_for_the_input(folder):
    yield from load(folder, en=TEXTS, de=TEXTS[::-1])


@refusals.case(ValueError, "'colour' and 'shape' could each be the label", "--label colour")
def two_columns_for_the_label(folder):
    yield from load(folder, features=VECTORS, text=TEXTS, colour=["red", "blue"] * 4, shape=["round", "square"] * 4)


@refusals.case(ValueError, "no column 'captoin' for --other", "did you mean 'caption'?")
def a_mistyped_column(folder):
    yield from load(folder, features=VECTORS, caption=TEXTS, options={"other": "captoin"})


@refusals.case(ValueError, "no column of another modality beside 'features'", "--other")
def nothing_but_an_input(folder):
    yield from load(folder, features=VECTORS, label=[0, 1] * 4)


@refusals.case(ValueError, "a single class in the training split, 'cat' (8 samples)", "--label none")
def one_class_alone(folder):
    yield from load(folder, features=VECTORS, text=TEXTS, label=["cat"] * 8)


@refusals.case(ValueError, "every class has a single distinct sample", "split 'test'")
def classes_of_one_sample(folder):
    yield from load(folder, features=VECTORS, text=TEXTS, label=[f"class {i}" for i in range(8)])


@refusals.case(
    ValueError, "'bird' of column 'label' is in the split 'test' 1 times and never in 'train'", "Move samples"
)
def a_class_that_is_tested_alone(folder):
    table(features=VECTORS, text=TEXTS, label=CLASSES).to_parquet(folder / "train.parquet")
    table(features=[[1.5]], text=["a bird"], label=["bird"]).to_parquet(folder / "test.parquet")
    yield
    load_pairs(folder)


@refusals.case(ValueError, "none of the 2 samples of the test split has a label", "--test_share 0.25", "--label none")
def labels_in_training_alone(folder):
    table(features=VECTORS, text=TEXTS, label=CLASSES).to_parquet(folder / "train.parquet")
    features = Features(features=List(Value("float64")), text=Value("string"), label=Value("string"))
    cells = {"features": [[9.0], [10.0]], "text": ["x", "y"], "label": [None, None]}
    Dataset.from_dict(cells, features=features).to_parquet(folder / "test.parquet")
    yield
    load_pairs(folder)


@refusals.case(ValueError, "row 3 of 'features' in 'train' has 2 numbers where others have 1", "one width")
def features_of_two_widths(folder):
    yield from load(folder, features=[*VECTORS[:3], [1.0, 2.0], *VECTORS[4:]], text=TEXTS)


@refusals.case(ValueError, "row 2 of the features (height, width) in 'train' lacks a number", "fill it")
def a_number_that_is_missing(folder):
    yield from load(folder, height=[1.0, 2.0, None, *[4.0] * 5], width=[1.0] * 8, text=TEXTS)


@refusals.case(ValueError, "none of the 6 training samples has a partner in column 'text'", "--other")
def a_column_of_partners_that_is_empty(folder):
    yield from load(
        folder, features=VECTORS, text=[" "] * 8, options={"other": "text", "label": "none", "test_share": 0.2}
    )


@refusals.case(ValueError, "test_share=1.5 cuts no test part", "between 0 and 1")
def a_share_above_one(folder):
    yield from load(folder, features=VECTORS, text=TEXTS, options={"test_share": 1.5})


@refusals.case(ValueError, "problem_type='classes' is unknown", "single_label_classification")
def a_problem_of_no_known_type(folder):
    yield from load(folder, features=VECTORS, text=TEXTS, label=CLASSES, options={"problem_type": "classes"})


@pytest.mark.parametrize(Refusals.NAMES, refusals.cases)
def test_data_that_cannot_be_pairs_are_refused(situation, error, texts, tmp_path):
    assert_refused(situation, error, texts, tmp_path)
