"""`hf-colearn encode`: what is typed is encoded, and what is wrong is told before the teacher is loaded."""

from pathlib import Path

import pytest
from datasets import Dataset, DatasetDict, load_dataset

import tiny_teachers
from hf_colearn.cli import main


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    """The folder of a tiny BERT."""
    folder = str(tmp_path_factory.mktemp("teachers") / "bert")
    tiny_teachers.bert_model().save_pretrained(folder)
    tiny_teachers.tokenizer().save_pretrained(folder)
    return folder


def test_a_saved_data_set_is_encoded_in_ranges_and_told_in_numbers(teacher, capsys):
    DatasetDict({"valid": Dataset.from_dict({"caption": ["a", "b", "a", None]})}).save_to_disk("saved")
    words = ["encode", "saved", "--teacher", teacher, "--column", "caption", "--output", "out", "--split", "valid"]
    words += ["--num_shards", "2", "--dtype", "int8", "--keep", "ids", "--pooling", "cls"]

    assert main(words) == 0
    told = capsys.readouterr().out.splitlines()

    assert told[:5] == [
        "output:    out",
        "shards:    2 encoded, 0 there before, of 2",
        "rows:      4, of which 3 have a latent",
        "distinct:  3 inputs, 100.0% of those rows",
        "latents:   32 numbers as int8 in 'teacher_latents'",
    ]
    rows = list(load_dataset("out", split="train", streaming=True))
    assert [sorted(row) for row in rows] == [["sample_id", "teacher_latents", "teacher_latents_scale"]] * 4
    assert [row["teacher_latents"] is None for row in rows] == [False, False, False, True]

    assert main([*words, "--part", "0/2"]) == 0
    assert "shards:    0 encoded, 1 there before, of 2" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--column", "captions"], "the source has no column 'captions': choose one of caption."),
        (["--split", "test"], "Available splits: ['train']"),
        (["--pooling", "max"], "pooling='max' is unknown: choose one of cls, mean"),
        (["--output", "file.csv"], "output='file.csv' is a file: pass a folder."),
        (["--private"], "--private is for a repository of the Hub, and 'out' is a folder"),
        (["--output", "me/x", "--private"], "There is no access token"),
        (["--output", "hf://datasets/me"], "output='me' is not of the form 'owner/name'"),
        (["--part", "3"], "part='3': pass such as '0/16' to '15/16'"),
    ],
)
def test_what_is_wrong_is_told_in_one_line_before_the_teacher_is_loaded(words, message, capsys, monkeypatch):
    monkeypatch.delenv("HF_TOKEN", raising=False)
    Path("file.csv").write_text("caption\na dog\n")

    with pytest.raises(SystemExit) as ended:
        main(["encode", "file.csv", "--teacher", "nowhere", "--column", "caption", "--output", "out", *words])

    told = capsys.readouterr().err.splitlines()
    assert ended.value.code == 2
    assert message in told[-1] and told[-1].startswith("hf-colearn encode: ")
    assert not Path("out").exists()
