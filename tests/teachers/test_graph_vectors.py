"""Class vectors of graphs and of WordNet."""

import math

import numpy as np
import pytest
import torch

from docstrings import run_example
from hf_colearn import graph_vectors, permuted_classes, wordnet_vectors
from hf_colearn.teachers import graph_vectors as module
from refusals import Refusals, assert_refused


REFUSALS = Refusals()
case = REFUSALS.case
# Two triangles, abc and def, with a bridge from c to d.
TRIANGLES = [("a", "b"), ("b", "c"), ("a", "c"), ("d", "e"), ("e", "f"), ("d", "f"), ("c", "d")]


def cosine(one, other):
    return float(torch.cosine_similarity(one, other, dim=0))


@pytest.mark.parametrize("documented", [graph_vectors, wordnet_vectors, permuted_classes])
def test_examples_run(documented):
    run_example(documented)


def test_the_eigenvectors_of_a_path_are_those_of_the_closed_form():
    # a - b - c has degrees 1, 2, 1 and L = [[1, -s, 0], [-s, 1, -s], [0, -s, 1]] with s = 1 / sqrt 2. For 0 it has
    # (1, sqrt 2, 1) / 2, which is left out; for 1 (1, 0, -1) / sqrt 2; for 2 (1, -sqrt 2, 1) / 2, with the largest positive.
    vectors = graph_vectors([("a", "b"), ("c", "b")], dim=2)
    s = 1 / math.sqrt(2)
    expected = torch.tensor([[s, -0.5], [0, s], [-s, -0.5]])
    torch.testing.assert_close(torch.stack([vectors[name] for name in "abc"]), expected, atol=1e-6, rtol=0)


def test_commute_times_are_the_distances_of_their_vectors():
    # On the path a - b - c a walk from a to c and back takes 2 * |E| * R = 2 * 2 * 2 = 8 steps on average, to b 4. With the
    # entries divided by the roots of the degrees (1, 2, 1), squared distances times 2 |E| are these times.
    vectors = graph_vectors([("a", "b"), ("c", "b")], dim=None, commute_time=True)
    a, b, c = (vectors[name] / math.sqrt(degree) for name, degree in (("a", 1), ("b", 2), ("c", 1)))
    assert [4 * (a - other).square().sum().item() for other in (b, c)] == pytest.approx([4, 8], rel=1e-5)


def test_the_first_dimension_tells_two_groups_apart():
    vectors = graph_vectors(TRIANGLES, dim=1)
    signs = [vectors[name].sign().item() for name in "abcdef"]
    assert signs[:3] == [signs[0]] * 3 and signs[3:] == [-signs[0]] * 3


def test_every_form_of_the_edges_gives_the_same_vectors(tmp_path):
    neighbours: dict[str, list[str]] = {}
    for one, other in TRIANGLES:  # as networkx' `graph.adj`, either way round
        neighbours.setdefault(one, []).append(other)
        neighbours.setdefault(other, []).append(one)
    (tmp_path / "edges.csv").write_text("".join(f"{one},{other}\n" for one, other in TRIANGLES))
    (tmp_path / "edges.tsv").write_text("".join(f"{other}\t{one}\t1\n" for one, other in reversed(TRIANGLES)))
    expected = graph_vectors(TRIANGLES, dim=3)
    for edges in (neighbours, tmp_path / "edges.csv", str(tmp_path / "edges.tsv"), TRIANGLES * 2):
        assert {k: v.tolist() for k, v in graph_vectors(edges, 3).items()} == {
            k: v.tolist() for k, v in expected.items()
        }
    assert list(graph_vectors(TRIANGLES, 3, names=["e", "a"])) == ["e", "a"]


def test_a_weight_draws_nodes_together():
    # b hangs between a and c; the heavier edge decides whom it is like.
    vectors = graph_vectors([("a", "b", 9.0), ("b", "c", 1.0), ("c", "d", 9.0), ("a", "b", 0.5)], dim=1)
    assert vectors["a"] * vectors["b"] > 0 > vectors["b"] * vectors["c"]


def test_a_large_graph_has_the_eigenvectors_of_a_small_one(monkeypatch):
    rng = np.random.default_rng(0)
    ring = [(f"n{i:02d}", f"n{(i + 1) % 40:02d}", float(rng.uniform(0.5, 2))) for i in range(40)]
    dense = graph_vectors(ring, dim=4)
    monkeypatch.setattr(module, "_DENSE", 10)
    for name, vector_D in graph_vectors(ring, dim=4).items():
        torch.testing.assert_close(vector_D, dense[name], atol=1e-5, rtol=0)


# ---- WordNet ----
def test_vectors_of_wordnet_are_nearer_where_meanings_are():
    names = ["dog", "cat", "car", "lorry"]
    of_paths = wordnet_vectors(names)
    # d(dog, cat) = 4, as dog - canine - carnivore - feline - cat; d(car, truck) = 2 by motor vehicle
    assert of_paths["dog"][1].item() == pytest.approx(1 / 5) and of_paths["dog"][0].item() == 1
    for vectors in (
        of_paths,
        wordnet_vectors(names, "laplacian", dim=2),
        wordnet_vectors(names, "commute_time"),
    ):
        assert cosine(vectors["dog"], vectors["cat"]) > cosine(vectors["dog"], vectors["car"]) + 0.1
        assert cosine(vectors["car"], vectors["lorry"]) > cosine(vectors["lorry"], vectors["cat"]) + 0.1


def test_further_classes_are_held_against_those_of_the_student():
    seen = wordnet_vectors(["dog", "cat"])
    lion = wordnet_vectors(["lion"], anchors=["dog", "cat"])["lion"]
    # lion - big cat - feline - carnivore - canine - dog, 1 / (1 + 5); and to cat from feline, 1 / (1 + 3)
    assert lion.tolist() == pytest.approx([1 / 6, 1 / 4]) and lion.shape == seen["dog"].shape


def test_a_sense_can_be_given():
    names, synsets = ["stork", "crane"], {"crane": "crane.n.05"}
    assert wordnet_vectors(names, synsets=synsets)["crane"][0] > wordnet_vectors(names)["crane"][0]  # not a novelist


# ---- the null control ----
@pytest.mark.parametrize("seed", range(5))
def test_no_class_keeps_its_vector_and_none_is_lost(seed):
    vectors = {name: torch.tensor([float(i)]) for i, name in enumerate("abcd")}
    permuted = permuted_classes(vectors, seed)
    assert list(permuted) == list(vectors) and sorted(v.item() for v in permuted.values()) == [0, 1, 2, 3]
    assert all(permuted[name] is not vectors[name] for name in vectors)
    assert permuted == permuted_classes(vectors, seed)


# ---- refusals ----
@case(ValueError, "2 parts", "that of 'a' with 3, that of 'x' with 2 nodes", "join them", "edges of one part")
def graph_in_two_parts(folder):
    yield
    graph_vectors([("x", "y"), ("a", "b"), ("b", "c")], dim=1)


@case(ValueError, "dim=3: a graph of 3 nodes has 2")
def more_dimensions_than_eigenvectors(folder):
    yield
    graph_vectors([("a", "b"), ("b", "c")], dim=3)


@case(ValueError, "'z' is no node", "add its edges")
def class_that_is_no_node(folder):
    yield
    graph_vectors([("a", "b")], dim=1, names=["a", "z"])


@case(ValueError, "edge 1 is 'bc'", "two names")
def edge_that_is_a_text(folder):
    yield
    graph_vectors([("a", "b"), "bc"], dim=1)


@case(ValueError, "joins 'b' and 3: nodes are names")
def node_that_is_no_name(folder):
    yield
    graph_vectors([("a", "b"), ("b", 3)], dim=1)


@case(ValueError, "joins 'b' with itself")
def edge_to_itself(folder):
    yield
    graph_vectors({"a": ["b"], "b": ["b"]}, dim=1)


@case(ValueError, "line 2 of", "edges.csv' has the weight 'much'")
def weight_that_is_no_number(folder):
    (folder / "edges.csv").write_text("a,b\nb,c,much\n")
    yield
    graph_vectors(folder / "edges.csv", dim=1)


@case(ValueError, "edge 0 has the weight -1.0")
def negative_weight(folder):
    yield
    graph_vectors([("a", "b", -1.0)], dim=1)


@case(ValueError, "edges.txt' is neither .csv nor .tsv")
def file_of_another_kind(folder):
    (folder / "edges.txt").write_text("a b\n")
    yield
    graph_vectors(folder / "edges.txt", dim=1)


@case(FileNotFoundError, "there is no", "edges.csv", "pass a file of edges")
def file_that_is_missing(folder):
    yield
    graph_vectors(folder / "edges.csv", dim=1)


@case(ValueError, "there is no edge")
def no_edges(folder):
    yield
    graph_vectors([], dim=1)


@case(ValueError, "kind='path' with dim=4", "have no dim")
def paths_with_a_dim(folder):
    yield
    wordnet_vectors(["dog", "cat"], dim=4)


@case(ValueError, "dim=None is for commute times", "pass a number below")
def eigenvectors_without_a_dim(folder):
    yield
    wordnet_vectors(["dog", "cat"], "laplacian")


@case(ValueError, "kind='wu_palmer' is unknown", "path, laplacian, commute_time")
def kind_that_is_unknown(folder):
    yield
    wordnet_vectors(["dog", "cat"], "wu_palmer")


@case(ValueError, "class 'smileys & co' is no noun", "synsets={'smileys & co'")
def class_that_is_no_noun(folder):
    yield
    wordnet_vectors(["dog", "smileys & co"])


@case(ValueError, "1 class has no other one")
def permutation_of_one_class(folder):
    yield
    permuted_classes({"a": torch.ones(1)}, 0)


@pytest.mark.parametrize(Refusals.NAMES, REFUSALS.cases)
def test_what_gives_no_vectors_is_refused_with_the_way_out(situation, error, texts, tmp_path):
    assert_refused(situation, error, texts, tmp_path)
