import pytest
from datasets import Dataset, Features, Value
from datasets import Image as ImageFeature
from PIL import Image

from hf_colearn.corpora.twitter2015 import load_twitter2015
from hf_colearn.data.text import with_input_ids
from tiny_teachers import tokenizer


# Lines of the released files; the test file's header names four columns of five.
HEADER = "index\t#1 Label\t#2 ImageID\t#3 String\t#3 String"
FILES = {
    "train": [
        HEADER,
        "1\t1\t975807.jpg\tRT @ FundsOverBuns : $T$ went from pedophile to messing\tTyga",
        "2\t1\t430626.jpg\t$T$ , shellacked , and ready to be sent off to Cooperstown .\tPedro",
        '3\t2\t430626.jpg\t" Pedro , shellacked , and ready to be sent off to $T$ .\tCooperstown',
    ],
    "dev": [HEADER, "1\t0\t687741.jpg\t$T$\tSherlock Holmes"],
    "test": ["index\t#1 ImageID\t#2 String\t#2 String", "1\t2\t1739565.jpg\tCrazy hair day ! $T$ wins\tLydia"],
}
PICTURES = {"975807": 20, "430626": 21, "687741": 22, "1739565": 23}


@pytest.fixture
def twitter(tmp_path):
    folder = tmp_path / "IJCAI2019_data"
    (folder / "twitter2015").mkdir(parents=True)
    (folder / "twitter2015_images").mkdir()
    for name, lines in FILES.items():
        (folder / "twitter2015" / f"{name}.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    for name, width in PICTURES.items():
        Image.new("RGB", (width, 10)).save(folder / "twitter2015_images" / f"{name}.jpg")
    return folder


# ---- what it gives ----


def test_a_tweet_has_a_sample_for_every_target(twitter):
    data = load_twitter2015(twitter)
    assert [len(data[split]) for split in ("train", "validation", "test")] == [3, 1, 1]
    assert data["train"]["target"][:] == ["Tyga", "Pedro", "Cooperstown"]
    assert data["train"]["text"][2] == '" Pedro , shellacked , and ready to be sent off to $T$ .'
    assert data["train"]["tweet_id"][:] == ["975807", "430626", "430626"]
    assert [image.width for image in data["train"]["image"][:]] == [20, 21, 21]
    assert data["train"]["sample_id"][:] == [0, 1, 2]


def test_labels_are_negative_neutral_and_positive(twitter):
    data = load_twitter2015(twitter)
    assert data["train"]["label"][:] == [1, 1, 2]
    assert data["validation"].features["label"].int2str(data["validation"]["label"][0]) == "negative"
    assert data["test"].features["label"].int2str(data["test"]["label"][0]) == "positive"


def test_the_files_may_lie_beside_the_pictures(twitter):
    for path in list((twitter / "twitter2015").iterdir()):
        path.rename(twitter / path.name)
    (twitter / "twitter2015").rmdir()
    assert len(load_twitter2015(twitter)["train"]) == 3


def test_a_mirror_has_the_same_columns(tmp_path, twitter):
    picture = str(twitter / "twitter2015_images" / "975807.jpg")
    features = Features(
        {"image": ImageFeature(), "text": Value("string"), "target": Value("string"), "label": Value("int64")}
    )
    (tmp_path / "mirror").mkdir()
    for split in ("train", "validation", "test"):
        cells = {"image": [picture], "text": ["$T$ wins"], "target": [split], "label": [2]}
        Dataset.from_dict(cells, features=features).to_parquet(tmp_path / "mirror" / f"{split}.parquet")
    data = load_twitter2015(repo=str(tmp_path / "mirror"))
    assert data["test"][0]["target"] == "test" and data["test"][0]["image"].width == 20
    bare = Dataset.from_dict({"text": ["$T$ wins"], "label": [2]})
    bare.to_parquet(tmp_path / "mirror" / "test.parquet")
    for split in ("train", "validation"):
        bare.to_parquet(tmp_path / "mirror" / f"{split}.parquet")
    with pytest.raises(ValueError, match="has no column image, target in 'train'"):
        load_twitter2015(repo=str(tmp_path / "mirror"))


# ---- pairs of texts ----


def test_tweet_and_target_are_a_pair_as_published(twitter):
    ours = tokenizer()
    row = with_input_ids(load_twitter2015(twitter)["train"], ours, pair_column="target")[1]
    text = ours("$T$ , shellacked , and ready to be sent off to Cooperstown .")["input_ids"]
    target = ours("Pedro")["input_ids"]
    assert row["input_ids"].tolist() == text + target[1:]  # [CLS] text [SEP] target [SEP]
    assert row["token_type_ids"].tolist() == [0] * len(text) + [1] * (len(target) - 1)
    assert row["labels"] == 1 and set(row) >= {"image", "sample_id"} and "target" not in row


def test_what_is_too_long_loses_the_tweets_end_and_keeps_the_target(twitter):
    ours = tokenizer()
    data = with_input_ids(load_twitter2015(twitter)["train"], ours, max_length=9, pair_column="target")
    target = ours("Pedro")["input_ids"][1:]
    assert len(data[1]["input_ids"]) == 9 and data[1]["input_ids"].tolist()[-len(target) :] == target


def test_an_empty_text_or_a_missing_column_is_named(twitter):
    data = load_twitter2015(twitter)["train"]
    with pytest.raises(ValueError, match="has no column 'aspect'"):
        with_input_ids(data, tokenizer(), pair_column="aspect")
    empty = data.remove_columns("target").add_column("target", ["a", " ", "c"])
    with pytest.raises(ValueError, match=r"the text in row 1 is missing or empty \(' '\)"):
        with_input_ids(empty, tokenizer(), pair_column="target")


# ---- bad input ----


def test_missing_pictures_are_an_error_or_skipped(twitter):
    (twitter / "twitter2015_images" / "430626.jpg").unlink()
    with pytest.raises(
        ValueError, match="2 tweets of Twitter-2015 are incomplete; the first: tweet '430626' in line 3"
    ):
        load_twitter2015(twitter)
    assert load_twitter2015(twitter, skip_bad_samples=True)["train"]["target"][:] == ["Tyga"]


def test_a_missing_file_is_named(twitter):
    (twitter / "twitter2015" / "dev.tsv").unlink()
    with pytest.raises(FileNotFoundError, match="there is no '.*dev.tsv'"):
        load_twitter2015(twitter)
    with pytest.raises(
        ValueError, match="pass the dataset's folder, or the id of a dataset of the Hub, one of the two"
    ):
        load_twitter2015()


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("2\t1\t687741.jpg\tno target", "line 3 of .*dev.tsv' is no index, label, image, text and target"),
        ("2\tx\t687741.jpg\t$T$\ta", "line 3 of .* is no index, label"),
        ("2\t3\t687741.jpg\t$T$\ta", r"line 3 of .* has label 3: labels run from 0 \(negative\) to 2 \(positive\)"),
        ("2\t1\t687741.jpg\tText\ta", r"line 3 of .* has no \$T\$ in its text"),
        ("2\t1\t687741.jpg\t$T$\t ", "line 3 of .* has no .* target"),
    ],
)
def test_bad_lines_are_named(twitter, line, message):
    (twitter / "twitter2015" / "dev.tsv").write_text("\n".join([*FILES["dev"], line]))
    with pytest.raises(ValueError, match=message):
        load_twitter2015(twitter)
