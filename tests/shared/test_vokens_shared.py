"""Vokens of the real stamps: captions split as the teacher splits them, and the recipe on them."""

import itertools
from pathlib import Path

import numpy as np
import pytest

import tiny_teachers
from hf_colearn.experiments.masked_lm import caption_dataset, reduced_tokenizer
from hf_colearn.experiments.vokens import load_captions
from hf_colearn.teachers.vokens import permuted_vokens, sentence_vokens
from tiny_recipes import main_of


SHARED = Path(__file__).resolve().parents[2].parent / "shared"
if not SHARED.is_dir():
    pytest.skip("needs the developers' ../shared", allow_module_level=True)

STAMPS = SHARED / "data" / "tuxpaint-stamps-128"
ARMS = ["MLM alone", "MLM + vokens"]


def test_real_captions_have_the_teachers_tokens_and_permuted_vokens_share_nothing():
    teacher = tiny_teachers.tokenizer()
    captions, left_out = load_captions("stamps", str(STAMPS), teacher, seed=0, max_tokens=16)
    train = captions["train"]
    assert (len(train), left_out) == (420, 14)
    student = reduced_tokenizer(teacher, train["text"], max_length=16)
    tokens = caption_dataset(student, train)["input_ids"][:]
    assert [student.convert_ids_to_tokens(ids) for ids in tokens] == [
        teacher.convert_ids_to_tokens(ids) for ids in teacher(list(train["text"]))["input_ids"]
    ]
    vokens = sentence_vokens(tokens, np.arange(len(tokens)) % 30, student.all_special_ids)
    permuted = permuted_vokens(vokens, tokens, num_vokens=30)
    alike = [
        one == other
        for ids, of_text in zip(tokens, permuted, strict=True)
        for (a, one), (b, other) in itertools.combinations(list(zip(ids, of_text, strict=True))[1:-1], 2)
        if a != b
    ]
    assert np.mean(alike) == pytest.approx(1 / 30, abs=0.02)  # of two types in a sentence, which had one id


def test_the_recipe_reads_the_stamps(tmp_path):
    quick = ["--small", "--max_steps", "2", "--logging_steps", "1", "--report", "false", "--labels_per_class", "2"]
    report = main_of("vokens", tmp_path, "--data", "stamps", "--data_dir", STAMPS, "--arms", *ARMS, *quick)
    assert report["samples"] == {"train": 120, "validation": 145, "test": 145}
    assert {run["arm"] for run in report["runs"]} == {*ARMS}
