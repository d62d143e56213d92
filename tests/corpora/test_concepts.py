"""Tables of concepts."""

import math

import pytest

from hf_colearn.corpora.concepts import load_concepts
from refusals import Refusals, assert_refused


REFUSALS = Refusals()
case = REFUSALS.case


def write(folder, text):
    (folder / "concepts.csv").write_text(text)
    return folder / "concepts.csv"


def test_a_table_has_the_classes_in_any_order_and_gaps_where_nothing_was_answered(tmp_path):
    table = load_concepts(write(tmp_path, 'class,"is it alive, or was it?",is it worn?\nfrog,1,\nhat,0.05,1\n'))
    assert table.questions == ("is it alive, or was it?", "is it worn?")
    answers_CQ = table.answers(["hat", "frog"])
    assert answers_CQ[0].tolist() == pytest.approx([0.05, 1])
    assert answers_CQ[1, 0] == 1 and math.isnan(answers_CQ[1, 1])
    assert list(table.rows) == ["frog", "hat"]


# ---- refusals ----
@case(ValueError, "no row of class 'bird' (it has frog)", "ask the questions of it")
def class_without_a_row(folder):
    table = load_concepts(write(folder, "class,alive\nfrog,1\n"))
    yield
    table.answers(["frog", "bird"])


@case(ValueError, "line 2 of", "answers 'alive' by 'yes'", "from 0 (no) to 1 (yes)")
def answer_that_is_no_number(folder):
    path = write(folder, "class,alive\nfrog,yes\n")
    yield
    load_concepts(path)


@case(ValueError, "answers 'alive' by '1.5'")
def answer_above_one(folder):
    path = write(folder, "class,alive\nfrog,1.5\n")
    yield
    load_concepts(path)


@case(ValueError, "line 3 of", "has 2 cells, of the class 'hat'", "each of the 2 questions")
def row_that_is_short(folder):
    path = write(folder, "class,alive,worn\nfrog,1,0\nhat,0\n")
    yield
    load_concepts(path)


@case(ValueError, "line 3 of", "of the class 'frog', which stands above")
def class_that_stands_twice(folder):
    path = write(folder, "class,alive\nfrog,1\nfrog,0\n")
    yield
    load_concepts(path)


@case(ValueError, "the header of", "['class', 'alive', 'alive']", "each once")
def question_that_stands_twice(folder):
    path = write(folder, "class,alive,alive\nfrog,1,1\n")
    yield
    load_concepts(path)


@case(ValueError, "no answer of 'worn'")
def question_that_nobody_answered(folder):
    path = write(folder, "class,alive,worn\nfrog,1,\n")
    yield
    load_concepts(path)


@case(ValueError, "no answer of 'hat'")
def class_that_nobody_was_asked_of(folder):
    path = write(folder, "class,alive\nfrog,1\nhat,\n")
    yield
    load_concepts(path)


@case(ValueError, "has no class")
def table_without_classes(folder):
    path = write(folder, "class,alive\n")
    yield
    load_concepts(path)


@case(FileNotFoundError, "there is no", "pass a csv")
def table_that_is_missing(folder):
    yield
    load_concepts(folder / "concepts.csv")


@pytest.mark.parametrize(Refusals.NAMES, REFUSALS.cases)
def test_what_is_no_table_of_concepts_is_refused_with_the_way_out(situation, error, texts, tmp_path):
    assert_refused(situation, error, texts, tmp_path)
