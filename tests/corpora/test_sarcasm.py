import json
import logging
from pathlib import Path

import pytest
from datasets import ClassLabel, Dataset, DatasetDict, Features, Value
from datasets import Image as ImageFeature

from hf_colearn.corpora.sarcasm import load_sarcasm
from hf_colearn.data.images import make_image_processor, with_pixel_values
from tiny_corpora import IDS, write_images, write_mirror
from tiny_teachers import tokenizer


# Lines of the released lists, the last two with words that tell the label.
TRAIN = [
    "['840006160660983809', '<user> thanks for showing up for our appointment today . ', 1]",
    "['854334602516733952', \"only a fan will get it . won 't it ? pic credit\", 0]",
    "['686365584699723776', 'man , so glad for the hope & change  [ pic ] # tcot <url>', 1]",
    "['905134014893195264', 'what a joke', 1]",
    "['813839301658697728', 'jokers and sarcasms stay\u2028here', 0]",
]
# The label by hashtag and the one by annotators, which is the one that counts.
VALID = ["['915657464401580032', 'whew ... that extra <num> miles', 1, 0]", "", "['1', 'irony', 1, 1]"]
TEST = ["['826526550937960449', 'such a deep meaningful conversation', 0, 1]"]


@pytest.fixture
def lists(tmp_path):
    folder = write_images(tmp_path / "sarcasm")
    (folder / "text").mkdir()
    for name, lines in (("train", TRAIN), ("valid2", VALID), ("test2", TEST)):
        (folder / "text" / f"{name}.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


@pytest.fixture
def objects(tmp_path):
    folder = write_images(tmp_path / "mmsd2")
    (folder / "text_json_final").mkdir()
    texts = {"train": IDS[:3], "valid": IDS[3:4], "test": IDS[4:]}
    for split, ids in texts.items():
        entries = [{"image_id": int(name), "text": f"a joke {name[-1]}", "label": i % 2} for i, name in enumerate(ids)]
        (folder / "text_json_final" / f"{split}.json").write_text(json.dumps(entries))
    return folder


# ---- what it gives ----


def test_lists_of_cai_lose_the_tweets_whose_words_tell_the_label(lists):
    sarcasm = load_sarcasm(lists)
    assert sarcasm["train"]["tweet_id"][:] == IDS[:3]
    assert sarcasm["train"]["text"][1] == "only a fan will get it . won 't it ? pic credit"
    assert (
        sarcasm["train"]["text"][2] == "jokers and sarcasms stay\u2028here"
    )  # whole words leak, and this is one line
    assert sarcasm["train"]["label"][:] == [1, 0, 0]
    assert sarcasm["train"]["sample_id"][:] == [0, 1, 2]
    assert sarcasm["train"].features["label"].names == ["not sarcastic", "sarcastic"]
    assert [image.size for image in sarcasm["train"]["image"][:]] == [(20, 10), (21, 10), (22, 10)]


def test_the_annotators_label_counts_where_there_are_two(lists):
    sarcasm = load_sarcasm(lists)
    assert sarcasm["validation"]["label"][:] == [0] and sarcasm["test"]["label"][:] == [1]
    assert sarcasm["validation"]["text"][:] == ["whew ... that extra <num> miles"]


def test_mmsd2_is_taken_as_it_is(objects):
    sarcasm = load_sarcasm(objects)
    assert sarcasm["train"]["text"][:] == ["a joke 9", "a joke 2", "a joke 8"]
    assert sarcasm["train"]["label"][:] == [0, 1, 0] and sarcasm["test"]["tweet_id"][:] == IDS[4:]


def test_of_several_folders_of_texts_one_has_to_be_named(lists, objects):
    (objects / "text_json_final").rename(lists / "text_json_final")
    with pytest.raises(ValueError, match="has the folders text, text_json_final: say which with texts='text'"):
        load_sarcasm(lists)
    assert load_sarcasm(lists, texts="text")["train"]["text"][0].startswith("<user> thanks")
    assert load_sarcasm(lists, texts="text_json_final")["train"]["text"][0] == "a joke 9"


def test_a_tweet_becomes_the_inputs_of_two_branches(lists):
    from hf_colearn.data.text import with_input_ids

    data = load_sarcasm(lists)["train"]
    data = with_pixel_values(data, make_image_processor(8)).rename_column("pixel_values", "image_pixel_values")
    data = with_input_ids(data, tokenizer(), label_column="labels", max_length=5)
    row = data[0]
    assert row["image_pixel_values"].shape == (3, 8, 8)
    assert len(row["input_ids"]) == 5 and row["labels"] == 1


# ---- a mirror ----


def test_a_mirror_keeps_its_own_names_of_the_classes(tmp_path):
    repo = write_mirror(tmp_path, ("train", "validation", "test"), ClassLabel(names=["no", "yes"]))
    sarcasm = load_sarcasm(repo=repo)
    assert isinstance(sarcasm, DatasetDict) and list(sarcasm) == ["train", "validation", "test"]
    assert sarcasm["validation"]["text"][:] == ["validation 0", "validation 1"]
    assert sarcasm["train"].column_names == ["image", "text", "label", "sample_id"]
    assert sarcasm["train"].features["label"].names == ["no", "yes"]
    assert sarcasm["train"][0]["image"].size == (20, 10)


def test_a_mirror_without_a_split_or_with_other_labels_is_refused(tmp_path):
    repo = write_mirror(tmp_path, ("train", "test"), Value("int64"))
    with pytest.raises(ValueError, match=r"has no validation split \(it has \['test', 'train'\]\)"):
        load_sarcasm(repo=repo)
    other = Path(repo) / "validation.parquet"
    cells = {"image": [None], "text": ["a"], "label": [2], "id": ["a"]}
    features = Features(image=ImageFeature(), text=Value("string"), label=Value("int64"), id=Value("string"))
    Dataset.from_dict(cells, features=features).to_parquet(other)
    with pytest.raises(ValueError, match=r"has the labels \[2\], not 0 to 1"):
        load_sarcasm(repo=repo)


# ---- what is missing ----


def test_missing_pictures_and_texts_are_an_error_or_counted(lists, caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("transformers"), "propagate", True)
    (lists / "dataset_image" / f"{IDS[1]}.jpg").unlink()
    train = lists / "text" / "train.txt"
    train.write_text(train.read_text(encoding="utf-8").replace("jokers and sarcasms stay\u2028here", "  "))
    with pytest.raises(
        ValueError, match=f"2 tweets of .* incomplete; the first: tweet '{IDS[1]}' in line 2 of .*train"
    ):
        load_sarcasm(lists)
    sarcasm = load_sarcasm(lists, skip_bad_samples=True)
    assert sarcasm["train"]["tweet_id"][:] == IDS[:1] and sarcasm["train"]["sample_id"][:] == [0]
    assert "2 tweets of the sarcasm data are incomplete and skipped" in caplog.text
    assert f"tweet '{IDS[2]}' in line 5 of" in caplog.text and "has no text" in caplog.text


def test_pictures_that_cannot_be_decoded_are_skipped_on_request(lists):
    (lists / "dataset_image" / f"{IDS[0]}.jpg").write_bytes(b"no jpeg")
    assert load_sarcasm(lists, skip_bad_samples=True)["train"]["tweet_id"][:] == IDS[1:3]


def test_no_picture_at_all_is_an_error_whatever_is_skipped(lists):
    for path in (lists / "dataset_image").iterdir():
        path.unlink()
    with pytest.raises(ValueError, match="no tweet of the sarcasm data's train split has both picture and text"):
        load_sarcasm(lists, skip_bad_samples=True)


def test_folders_and_files_that_are_missing_are_named(tmp_path, lists):
    with pytest.raises(FileNotFoundError, match="has none of the folders text, text_json_final, text_json_clean"):
        load_sarcasm(tmp_path)
    with pytest.raises(ValueError, match="texts='txt' is unknown"):
        load_sarcasm(lists, texts="txt")
    (lists / "text" / "test2.txt").unlink()
    with pytest.raises(FileNotFoundError, match="there is no '.*test2.txt'"):
        load_sarcasm(lists)


# ---- bad lines ----


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("['1', 'a']", "line 2 of .*valid2.txt' is no list of id, text and one or two labels"),
        ("['1', 'a', 1, 1", "line 2 of .* is no Python list"),
        ("__import__('os').abort()", "line 2 of .* is no Python list"),  # released code calls `eval`
        ("['1', 7, 1, 1]", "text 7 and label 1: a string and a number"),
        ("['1', 'a', 1, 2]", r"'1' in line 2 of .* has label 2: labels run from 0 \(not sarcastic\) to 1"),
        (f"['{IDS[0]}', 'again', 1, 1]", f"'{IDS[0]}' is in line 1 of .*train.txt' and in line 2 of .*valid2.txt'"),
    ],
)
def test_bad_lines_are_named_and_never_run(lists, line, message):
    (lists / "text" / "valid2.txt").write_text(f"{VALID[0]}\n{line}\n")
    with pytest.raises(ValueError, match=message):
        load_sarcasm(lists)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "valid.json' is no JSON"),
        ("{}", "valid.json' holds a dict, not a list"),
        ('[{"image_id": 1}]', "entry 1 of .*valid.json' has not image_id, text and label"),
    ],
)
def test_bad_json_is_named(objects, content, message):
    (objects / "text_json_final" / "valid.json").write_text(content)
    with pytest.raises(ValueError, match=message):
        load_sarcasm(objects)
