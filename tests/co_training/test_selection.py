"""Which predictions become labels, worked out by hand, and what views make of each other's."""

import numpy as np
import pytest

from docstrings import run_example
from hf_colearn.co_training import selection
from hf_colearn.co_training.selection import Selection, exchanged


#                        class 0 of .9 .8 .7 .6, class 1 of .95 .55
PROBABILITIES = np.array([[0.7, 0.3], [0.9, 0.1], [0.05, 0.95], [0.6, 0.4], [0.8, 0.2], [0.45, 0.55]])
ALL = np.ones(6, dtype=bool)
NONE = -100


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ({"per_class": 1}, [NONE, 0, 1, NONE, NONE, NONE]),
        ({"per_class": 3}, [0, 0, 1, NONE, 0, 1]),
        # Of four predictions of class 0 the more confident half, of two of class 1 one.
        ({"share": 0.5}, [NONE, 0, 1, NONE, 0, NONE]),
        ({"share": 0.1}, [NONE, 0, 1, NONE, NONE, NONE]),  # rounded up
        ({"threshold": 0.8}, [NONE, 0, 1, NONE, 0, NONE]),
        ({"threshold": 0.6, "per_class": 2}, [NONE, 0, 1, NONE, 0, NONE]),
    ],
)
def test_the_most_confident_of_every_predicted_class_are_selected(rule, expected):
    assert Selection(**rule)(PROBABILITIES, ALL).tolist() == expected


def test_only_candidates_with_a_prediction_are_selected_and_the_first_of_equals():
    probabilities = np.array([[0.9, 0.1], [np.nan, np.nan], [0.8, 0.2], [0.8, 0.2]])
    candidates = np.array([False, True, True, True])
    assert Selection(per_class=1)(probabilities, candidates).tolist() == [NONE, NONE, 0, NONE]


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ({}, "nothing says which predictions become labels: pass per_class=10"),
        ({"per_class": 3, "share": 0.5}, "share=0.5 and per_class=3 are two rules"),
        ({"threshold": 0.9, "share": 0.5}, "share=0.5 and threshold=0.9 are two rules"),
        ({"per_class": 0}, "per_class=0"),
        ({"share": 1.2}, "share=1.2 adds no prediction"),
        ({"threshold": 1.0}, "threshold=1.0 is no probability to reach"),
    ],
)
def test_a_rule_that_is_none_is_refused(rule, message):
    with pytest.raises(ValueError, match=message):
        Selection(**rule)


def sure(*classes):
    """Probabilities of .9 for these classes of three, .6 for those that are negative."""
    values = np.full((len(classes), 3), 0.05)
    for row, label in enumerate(classes):
        values[row] = (0.2, 0.2, 0.2) if label < 0 else values[row]
        values[row, abs(label)] = 0.6 if label < 0 else 0.9
    return values


def test_a_view_gains_what_the_others_select_and_never_its_own():
    pools = dict.fromkeys("ab", np.array([True, True, True, False]))
    gained, conflicts = exchanged({"a": sure(0, 1, -2, 0), "b": sure(1, -1, 2, 0)}, pools, Selection(threshold=0.8))
    # Row 0: the views disagree. Row 1: a alone is sure, so b gains it; row 2: b alone. Row 3 has a label.
    assert gained["a"].tolist() == [NONE, NONE, 2, NONE] and gained["b"].tolist() == [NONE, 1, NONE, NONE]
    assert conflicts == {"a": 1, "b": 1}


def test_a_single_view_gains_its_own():
    gained, _ = exchanged({"a": sure(0, -1)}, {"a": np.ones(2, dtype=bool)}, Selection(threshold=0.8))
    assert gained["a"].tolist() == [0, NONE]


def test_of_three_views_each_gains_the_labels_of_all_others_where_none_disagree():
    found = {"a": sure(0, 0, -1, 2), "b": sure(-1, 0, 1, 0), "c": sure(-1, 1, -1, -1)}
    gained, conflicts = exchanged(found, dict.fromkeys("abc", np.ones(4, dtype=bool)), Selection(threshold=0.8))
    # Row 1: b and c disagree; row 3: a and b do.
    assert {view: of.tolist() for view, of in gained.items()} == {
        "a": [NONE, NONE, 1, NONE],
        "b": [0, NONE, NONE, NONE],
        "c": [0, NONE, 1, NONE],
    }
    assert conflicts == {"a": 2, "b": 2, "c": 2}


def test_a_view_without_a_student_yet_selects_nothing_and_gains():
    gained, _ = exchanged({"a": sure(0)}, dict.fromkeys("ab", np.ones(1, dtype=bool)), Selection(per_class=1))
    assert gained["b"].tolist() == [0] and gained["a"].tolist() == [NONE]


@pytest.mark.parametrize("documented", [Selection, selection.with_own_labels])
def test_the_examples_of_the_rules_run(documented):
    run_example(documented)
