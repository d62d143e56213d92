"""Vokens: clusters of images for every token, of the sentence's image or of the nearest one; and what a null control leaves."""

import itertools

import numpy as np
import pytest

from hf_colearn import TeacherBank
from hf_colearn.teachers.sequence_bank import SequenceBank
from hf_colearn.teachers.vokens import Clusters, permuted_vokens, retrieved_vokens, sentence_vokens, text_means
from refusals import Refusals, assert_refused


CLS, SEP = 1, 2
SPECIAL = [0, CLS, SEP]


def test_clusters_are_of_directions_from_the_mean():
    # centred at (5, 5): two to the right, however far, and two up
    latents_ND = np.array([[6.0, 5.0], [9.0, 5.0], [5.0, 6.0], [5.0, 9.0], [0.0, 0.0]])
    latents_ND[4] = 5 * 5 - latents_ND[:4].sum(axis=0)  # (0, 0): so that the mean is (5, 5)
    clusters = Clusters(latents_ND, 3)
    assert clusters.mean_D.tolist() == [5.0, 5.0]
    right, up, away = (clusters.ids_N[[0, 1]], clusters.ids_N[[2, 3]], clusters.ids_N[[4]])
    assert len({*right}) == len({*up}) == 1 and len({*right, *up, *away}) == 3
    assert clusters.nearest(np.array([[5.1, 5.0], [4.0, 7.0], [-100.0, -99.0]])).tolist() == [right[0], up[0], away[0]]


def test_a_token_has_the_image_of_its_sentence():
    vokens = sentence_vokens([[CLS, 7, 8, SEP], [CLS, 7, SEP]], np.array([4, 1]), SPECIAL)
    assert vokens == [[-100, 4, 4, -100], [-100, 1, -100]]


def pairs():
    """Texts whose tokens point in one direction of the teacher's space each, and images that are twice their mean, rotated."""
    direction = {10: (4.0, 0.0), 11: (0.0, 4.0), 12: (-4.0, 0.0), 13: (0.0, -4.0)}
    texts = [[CLS, *tokens, SEP] for tokens in itertools.product(direction, repeat=2)]
    latents = [[direction.get(token, (99.0, 99.0)) for token in tokens] for tokens in texts]
    means = np.array([[np.mean(of_text[1:-1], axis=0)] for of_text in latents])[:, 0]
    images_ND = 2 * means @ np.array([[0.0, 1.0], [-1.0, 0.0]])
    return texts, SequenceBank.from_sequences(np.array(latents, dtype=np.float32)), means, images_ND


def test_a_token_has_the_image_that_is_nearest_to_it_in_its_context():
    texts, tokens, means, images_ND = pairs()
    np.testing.assert_allclose(text_means(texts, tokens, SPECIAL), means)  # special tokens have no part
    corners = np.array([[0.0, 8.0], [-8.0, 0.0], [0.0, -8.0], [8.0, 0.0]])  # what the four tokens are mapped to
    clusters = Clusters(corners, 4)
    images = TeacherBank.from_latents(images_ND)
    vokens = retrieved_vokens(texts, tokens, clusters, SPECIAL, images)
    expected = [[-100, *(clusters.ids_N[token - 10] for token in of_text[1:-1]), -100] for of_text in texts]
    assert vokens == expected
    # without a map they lie a quarter turn away, so each is nearest to the corner of another one
    own = retrieved_vokens(texts, tokens, clusters, SPECIAL, None)
    assert all(a != b for one, two in zip(vokens, own, strict=True) for a, b in zip(one[1:-1], two[1:-1], strict=True))


def test_permuted_vokens_tell_the_contexts_of_a_type_apart_and_no_images_of_different_types():
    rng = np.random.default_rng(0)
    texts = [[CLS, *rng.permutation(np.arange(3, 43))[:6].tolist(), SEP] for _ in range(400)]
    images = rng.integers(0, 10, size=400)
    vokens = sentence_vokens(texts, images, SPECIAL)
    permuted = permuted_vokens(vokens, texts, num_vokens=10)
    assert permuted == permuted_vokens(vokens, texts, num_vokens=10) != permuted_vokens(vokens, texts, 10, seed=1)
    seen: dict[tuple[int, int], set[int]] = {}
    for of_text, before, after in zip(texts, vokens, permuted, strict=True):
        assert after[0] == after[-1] == -100
        for token, one, other in zip(of_text[1:-1], before[1:-1], after[1:-1], strict=True):
            seen.setdefault((token, one), set()).add(other)
    assert {len(others) for others in seen.values()} == {1}  # a type and an image: one id
    by_type = {token: [next(iter(seen[key])) for key in seen if key[0] == token] for token, _ in seen}
    assert all(len({*others}) == len(others) for others in by_type.values())  # other images: other ids
    # two tokens of a sentence shared its image's id, and now do by chance, once in 10
    alike = [a == b for after in permuted for a, b in itertools.combinations(after[1:-1], 2)]
    assert np.mean(alike) == pytest.approx(0.1, abs=0.03)


# ---- refusals ----
refusals = Refusals()


@refusals.case(ValueError, "num_clusters=6 of 5 latents", "at most as many clusters")
def more_clusters_than_images(folder):
    yield
    Clusters(np.eye(5), 6)


@refusals.case(ValueError, "text 1 has 4 tokens for the student and 3 for the teacher", "from the teacher's tokenizer")
def other_tokens(folder):
    tokens = SequenceBank.from_sequences([np.ones((3, 2)), np.ones((3, 2))])
    yield
    retrieved_vokens([[CLS, 7, SEP], [CLS, 7, 8, SEP]], tokens, Clusters(np.eye(2), 2), SPECIAL, None)


@refusals.case(ValueError, "2 texts, and `image_of_text` of 3", "pass one a text")
def an_image_too_many(folder):
    yield
    sentence_vokens([[CLS, 7, SEP], [CLS, 8, SEP]], [0, 1, 2], SPECIAL)


@refusals.case(ValueError, "text 0 has special tokens alone", "leave it out")
def an_empty_caption(folder):
    tokens = SequenceBank.from_sequences([np.ones((2, 2))])
    yield
    text_means([[CLS, SEP]], tokens, SPECIAL)


@pytest.mark.parametrize(Refusals.NAMES, refusals.cases)
def test_it_is_refused(situation, error, texts, tmp_path):
    assert_refused(situation, error, texts, tmp_path)
