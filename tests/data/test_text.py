"""Texts of a dataset as input_ids."""

import pytest
from datasets import Dataset
from transformers import DataCollatorWithPadding

import families
import tiny_teachers
from hf_colearn.data.text import with_input_ids


def texts(*cells):
    return Dataset.from_dict({"text": list(cells), "label": list(range(len(cells))), "who": ["x"] * len(cells)})


def test_texts_become_ids_of_their_own_length():
    tokenizer = tiny_teachers.tokenizer()

    found = with_input_ids(texts("hello there", "one"), tokenizer)

    assert set(found.column_names) == {"input_ids", "attention_mask", "token_type_ids", "labels", "who"}
    assert [ids.tolist() for ids in found["input_ids"]] == [
        tokenizer.convert_tokens_to_ids(["[CLS]", "hello", "there", "[SEP]"]),
        tokenizer.convert_tokens_to_ids(["[CLS]", "one", "[SEP]"]),
    ]
    assert found["labels"][:].tolist() == [0, 1]
    batch = DataCollatorWithPadding(tokenizer)([{k: v for k, v in row.items() if k != "who"} for row in found])
    assert batch["attention_mask"].tolist() == [[1, 1, 1, 1], [1, 1, 1, 0]]
    batch["input_ids"] %= 100  # the tiny student's vocabulary
    assert families.student("bert")(**batch).loss.isfinite()


def test_long_texts_lose_their_end():
    found = with_input_ids(texts("one two three four"), tiny_teachers.tokenizer(), max_length=4)

    assert found[0]["input_ids"].tolist() == tiny_teachers.tokenizer()("one two")["input_ids"]


@pytest.mark.parametrize(
    ("cells", "kwargs", "message"),
    [
        (["a"] * 1100 + [None], {}, r"the text in row 1100 is missing or empty \(None\)"),
        (["a", " \n"], {}, "the text in row 1 is missing or empty"),
        ([1, 2], {}, "row 0 holds 1 where a text should be: name the column of texts"),
        (["a"], {"column": "transcript"}, "no column 'transcript'.*'text', 'label', 'who'"),
        (["a"], {"label_column": "y"}, "no column 'y'"),
        ([], {}, "the dataset is empty, so there is no text"),
    ],
)
def test_what_is_no_text_is_refused(cells, kwargs, message):
    with pytest.raises(ValueError, match=message):
        with_input_ids(texts(*cells), tiny_teachers.tokenizer(), **kwargs)
