"""WordNet's nouns: the real files, and what is refused."""

import pytest

from hf_colearn.corpora.wordnet import WordNet
from refusals import Refusals, assert_refused


REFUSALS = Refusals()
case = REFUSALS.case


@pytest.fixture(scope="module")
def wordnet():
    return WordNet()


def write_wordnet(folder):
    """Nouns in the files' form, with another end of line: a1 is a kind of b, and a2 an instance of b."""
    folder.mkdir(exist_ok=True)
    licence = "  1 a licence  \r\n"
    words = [("a", "2 1 @ 2 0 00000010 00000020"), ("b", "1 1 ~ 1 0 00000030"), ("c", "1 0 1 0 00000040")]
    (folder / "index.noun").write_text(licence + "".join(f"{word} n {rest}  \r\n" for word, rest in words), newline="")
    synsets = [
        ("10", "02 a 0 other 0 001 @ 00000030 n 0000 | the first a"),
        ("20", "01 a 0 001 @i 00000030 n 0000 | the second @ a"),
        ("30", "01 b 0 000 | above both"),
        ("40", "01 c 0 000 | of no other"),
    ]
    lines = (f"000000{number} 03 n {rest}  \r\n" for number, rest in synsets)
    (folder / "data.noun").write_text(licence + "".join(lines), newline="")
    return folder


def test_a_way_up_and_down_is_as_long_as_wordnet_has_it(wordnet):
    # dog - canine - carnivore - feline - cat, as NLTK's documentation has it: 1 / (1 + 4)
    assert wordnet.path_similarity("dog.n.01", "cat.n.01") == pytest.approx(0.2)
    assert wordnet.path_similarity("dog.n.01", "dog.n.01") == 1
    assert wordnet.hypernyms("dog.n.01") == ["canine.n.02", "domestic_animal.n.01"]
    # By domestic_animal it is 2 steps to animal, and by canine, carnivore, placental, mammal ... 7.
    assert wordnet.ancestors("dog.n.01")["animal.n.01"] == 2
    assert wordnet.hypernyms("entity.n.01") == []


def test_a_name_has_its_most_frequent_sense_or_the_one_that_is_given(wordnet):
    assert wordnet.synsets_of(["Frog", "ice cream", "merry-go-round", "Crane"]) == {
        "Frog": "frog.n.01",
        "ice cream": "ice_cream.n.01",
        "merry-go-round": "merry-go-round.n.01",  # written so in WordNet, too
        "Crane": "crane.n.01",  # an author
    }
    assert wordnet.synsets_of(["crane", "x & y"], {"x & y": "Pond.n.01", "crane": "crane.n.05"}) == {
        "crane": "crane.n.05",
        "x & y": "pond.n.01",
    }
    assert wordnet.hypernyms("crane.n.05") == ["wading_bird.n.01"]


def test_the_edges_above_some_senses_reach_the_root_once_each(wordnet):
    edges = wordnet.edges(["dog.n.01", "cat.n.01"])
    assert len(edges) == len(set(edges))
    assert {("dog.n.01", "canine.n.02"), ("cat.n.01", "feline.n.01")} < set(edges)
    assert {above for _, above in edges} - {below for below, _ in edges} == {"entity.n.01"}


def test_any_folder_of_the_files_is_read_whatever_its_ends_of_line(tmp_path):
    wordnet = WordNet(write_wordnet(tmp_path / "wordnet"))
    assert wordnet.senses("a") == ["a.n.01", "a.n.02"]
    assert wordnet.hypernyms("a.n.01") == wordnet.hypernyms("a.n.02") == ["b.n.01"]  # a kind of it, an instance of it
    assert wordnet.path_similarity("a.n.01", "a.n.02") == pytest.approx(1 / 3)
    assert wordnet.path_similarity("a.n.01", "c.n.01") == 0


# ---- refusals ----
@case(ValueError, "class 'Food & Drink' is no noun of WordNet", "synsets={'Food & Drink': 'crane.n.05'}", "leave")
def name_that_is_no_noun(folder):
    wordnet = WordNet(write_wordnet(folder / "wordnet"))
    yield
    wordnet.synsets_of(["a", "Food & Drink"])


@case(ValueError, "'a.n.03' is no noun of WordNet", "'a' has a.n.01, a.n.02")
def sense_that_is_not_there(folder):
    wordnet = WordNet(write_wordnet(folder / "wordnet"))
    yield
    wordnet.synsets_of(["a"], {"a": "a.n.03"})


@case(ValueError, "'dog' is no noun of WordNet", "as in 'crane.n.05'")
def sense_without_a_number(folder):
    wordnet = WordNet(write_wordnet(folder / "wordnet"))
    yield
    wordnet.hypernyms("dog")


@case(ValueError, "classes 'a' and 'A' are both a.n.01", "synsets={'A': ...}")
def two_classes_of_one_sense(folder):
    wordnet = WordNet(write_wordnet(folder / "wordnet"))
    yield
    wordnet.synsets_of(["a", "A"])


@case(ValueError, "synsets has 'z', which is no class", "a, b")
def sense_of_no_class(folder):
    wordnet = WordNet(write_wordnet(folder / "wordnet"))
    yield
    wordnet.synsets_of(["a", "b"], {"z": "a.n.01"})


@case(FileNotFoundError, "index.noun'", "pass the folder of WordNet's files")
def folder_without_the_files(folder):
    yield
    WordNet(folder)


@case(ValueError, "is no file of WordNet's nouns", "pass the folder")
def file_of_something_else(folder):
    (write_wordnet(folder / "wordnet") / "data.noun").write_text("name,value\n")
    yield
    WordNet(folder / "wordnet")


@pytest.mark.parametrize(Refusals.NAMES, REFUSALS.cases)
def test_what_wordnet_does_not_hold_is_refused_with_the_way_out(situation, error, texts, tmp_path):
    assert_refused(situation, error, texts, tmp_path)
