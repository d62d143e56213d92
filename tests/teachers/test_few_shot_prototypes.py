"""Prototypes of a few images and of text."""

import pytest
import torch

from docstrings import run_example
from hf_colearn import few_shot_prototypes
from hf_colearn.teachers.few_shot_prototypes import text_to_latents
from refusals import Refusals, assert_refused


REFUSALS = Refusals()
case = REFUSALS.case


@pytest.mark.parametrize("documented", [few_shot_prototypes, text_to_latents])
def test_examples_run(documented):
    run_example(documented)


@pytest.mark.parametrize(
    ("weight", "expected"),
    [
        (1, 2.5),  # images 0 and 2 have the mean 1, the text gives 4: (1 + 4) / 2
        (0, 1.0),  # images alone
        (3, 3.25),  # (1 + 3 * 4) / 4
    ],
)
def test_a_prototype_is_the_weighted_mean_of_images_and_text(weight, expected):
    images = torch.tensor([[0.0], [9.0], [2.0]])
    generated = {"owl": torch.tensor([[3.0], [5.0]]), "cat": torch.tensor([[9.0]])}
    prototypes = few_shot_prototypes(images, ["owl", "cat", "owl"], generated, weight)
    assert {name: vector.item() for name, vector in prototypes.items()} == {"owl": expected, "cat": 9.0}


def test_without_text_it_is_the_mean_of_the_images():
    prototypes = few_shot_prototypes(torch.tensor([[0.0, 1.0], [2.0, 3.0]]), ["owl", "owl"])
    assert prototypes["owl"].tolist() == [1, 2]


def test_text_of_the_class_helps_one_image_and_text_of_another_class_harms_it():
    # Two new classes at (1, 0) and (0, 1), one image of each halfway towards the other; text says 4 times as much.
    images, classes = torch.tensor([[0.6, 0.4], [0.4, 0.6]]), ["owl", "cat"]
    text = {"owl": torch.tensor([[4.0, 0.0]]), "cat": torch.tensor([[0.0, 4.0]])}
    wrong = {"owl": text["cat"], "cat": text["owl"]}
    owl = torch.tensor([1.0, 0.0])

    def margin(generated):  # how much nearer an owl is to the owl's prototype
        of = few_shot_prototypes(images, classes, generated)
        return float(torch.cosine_similarity(owl, of["owl"], 0) - torch.cosine_similarity(owl, of["cat"], 0))

    assert margin(text) > margin(None) > 0 > margin(wrong)


def test_a_linear_relation_of_text_and_latents_is_found_by_its_pairs():
    torch.manual_seed(0)
    map_ED, text_NE = torch.randn(3, 2), torch.randn(60, 3)
    generate = text_to_latents(text_NE, text_NE @ map_ED + 0.5)
    new_ME = torch.randn(4, 3)
    torch.testing.assert_close(generate(new_ME), new_ME @ map_ED + 0.5, atol=0.05, rtol=0)


# ---- refusals ----
@case(ValueError, "class 'cat' has no generated latents", "leave `generated` out")
def class_without_text(folder):
    yield
    few_shot_prototypes(torch.zeros(2, 1), ["owl", "cat"], {"owl": torch.ones(1, 1)})


@case(ValueError, "the texts of 'owl' are of shape (1, 3)", "width 2")
def text_of_another_width(folder):
    yield
    few_shot_prototypes(torch.zeros(1, 2), ["owl"], {"owl": torch.ones(1, 3)})


@case(ValueError, "text_weight=-1", "0, which is images alone")
def negative_weight(folder):
    yield
    few_shot_prototypes(torch.zeros(1, 2), ["owl"], {"owl": torch.ones(1, 2)}, text_weight=-1)


@case(ValueError, "latents of shape (2, 1) for 1 samples")
def sample_without_a_class(folder):
    yield
    few_shot_prototypes(torch.zeros(2, 1), ["owl"])


@case(ValueError, "a latent of the images of 'owl' is not finite")
def latent_that_is_missing(folder):
    yield
    few_shot_prototypes(torch.full((1, 2), torch.nan), ["owl"])


@case(ValueError, "(3, 1) and latents of (2, 1) are no pairs")
def unequal_pairs(folder):
    yield
    text_to_latents(torch.zeros(3, 1), torch.zeros(2, 1))


@pytest.mark.parametrize(Refusals.NAMES, REFUSALS.cases)
def test_what_gives_no_prototypes_is_refused_with_the_way_out(situation, error, texts, tmp_path):
    assert_refused(situation, error, texts, tmp_path)
