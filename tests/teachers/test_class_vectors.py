"""Class vectors of prompts, descriptions, pictures and banks."""

import numpy as np
import pytest
import torch
from PIL import Image

import tiny_teachers
from docstrings import run_example
from hf_colearn import TeacherBank
from hf_colearn.teachers.class_vectors import centred, class_means, class_vectors
from refusals import Refusals, assert_refused


@pytest.fixture(scope="module")
def bert():
    return tiny_teachers.bert()


def unit(latents):
    return latents / latents.norm(dim=-1, keepdim=True)


@pytest.mark.parametrize("documented", [class_vectors, class_means, centred])
def test_the_examples_run(documented):
    run_example(documented)


def test_a_names_vector_is_the_mean_of_its_prompts_directions(bert):
    found = class_vectors(bert, ["car", "cat"], templates=("a {name}", "{name} {name}, a {name}"))
    expected = unit(bert.encode(["a cat", "cat cat, a cat"])).mean(dim=0)
    assert list(found) == ["car", "cat"]
    torch.testing.assert_close(found["cat"], expected)


def test_descriptions_are_encoded_as_they_are_and_one_text_is_a_description(bert):
    found = class_vectors(bert, {"cat": ["it purrs", "it hunts mice"], "car": "it has {name} wheels"})
    torch.testing.assert_close(found["cat"], unit(bert.encode(["it purrs", "it hunts mice"])).mean(dim=0))
    torch.testing.assert_close(found["car"], unit(bert.encode(["it has {name} wheels"]))[0])


def test_pictures_are_prototypes_where_the_teacher_sees():
    vit = tiny_teachers.vit()
    red, blue = (Image.new("RGB", (8, 8), colour) for colour in ("red", "blue"))
    found = class_vectors(vit, {"red": [red], "both": [red, blue]})
    torch.testing.assert_close(found["both"], unit(vit.encode([red, blue])).mean(dim=0))


def test_class_means_of_a_bank_skip_rows_without_a_class():
    bank = TeacherBank.from_latents(torch.tensor([[0.0, 1.0], [2.0, 1.0], [4.0, 0.0], [50.0, 50.0]]))
    # cat: ((0 + 2) / 2, (1 + 1) / 2); car: (4, 0); the last row is of no class.
    found = class_means(bank, np.array([0, 0, 1, -100]), ["cat", "car"])
    assert {name: vector.tolist() for name, vector in found.items()} == {"cat": [1, 1], "car": [4, 0]}
    # Of length 1 the rows are (0, 1) and (2, 1) / sqrt(5).
    scaled = class_means(bank.scaled("l2"), np.array([0, 0, 1, -100]), ["cat", "car"])
    torch.testing.assert_close(scaled["cat"], torch.tensor([1 / 5**0.5, (1 + 1 / 5**0.5) / 2]))


def test_centring_by_the_seen_classes_does_not_depend_on_the_others():
    seen = {"cat": torch.tensor([9.0, 1.0]), "car": torch.tensor([7.0, -1.0])}
    # The mean of cat and car is (8, 0).
    for tram in ([0.0, 0.0], [3.0, 4.0]):
        found = centred({**seen, "tram": torch.tensor(tram)}, ["cat", "car"])
        assert found["cat"].tolist() == [1, 1] and found["tram"].tolist() == [tram[0] - 8, tram[1]]
    assert centred(seen)["car"].tolist() == [-1, -1]


refusals = Refusals()


def refused(error, message, *more, call):
    """A situation with a tiny teacher."""

    def situation(folder):
        yield
        call()

    situation.__name__ = message
    refusals.case(error, message, *more)(situation)


BANK = TeacherBank.from_latents(torch.eye(3))
refused(TypeError, "classes='cat'", "tuple", call=lambda: class_vectors(tiny_teachers.bert(), "cat"))
refused(ValueError, "no class", "['cat', 'car']", call=lambda: class_vectors(tiny_teachers.bert(), []))
refused(ValueError, "'cat' is named twice", call=lambda: class_vectors(tiny_teachers.bert(), ["cat", "cat"]))
refused(ValueError, "'a thing' has no {name}", call=lambda: class_vectors(tiny_teachers.bert(), ["cat"], ["a thing"]))
refused(ValueError, "'car' has no input", call=lambda: class_vectors(tiny_teachers.bert(), {"cat": "it", "car": []}))
refused(ValueError, "takes vision", "{'cat': [...]", call=lambda: class_vectors(tiny_teachers.vit(), ["cat"]))
refused(ValueError, "class 'car' has no row", call=lambda: class_means(BANK, [0, 0, 2], ["cat", "car", "bus"]))
refused(ValueError, "label 2 is none of 2", "-100", call=lambda: class_means(BANK, [0, 1, 2], ["cat", "car"]))
refused(ValueError, "3 rows", "shape (2,)", call=lambda: class_means(BANK, [0, 1], ["cat", "car"]))
refused(ValueError, "class 'bus' has no vector", call=lambda: centred({"cat": torch.ones(2)}, ["bus", "cat"]))
refused(ValueError, "at least 2 names", call=lambda: centred({"cat": torch.ones(2)}))


@pytest.mark.parametrize(Refusals.NAMES, refusals.cases)
def test_it_is_refused(situation, error, texts, tmp_path):
    assert_refused(situation, error, texts, tmp_path)
