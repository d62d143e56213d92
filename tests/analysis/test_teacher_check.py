"""Spaces of which it is known whether one can teach the other; the command says what is wrong in one line."""

from dataclasses import replace

import numpy as np
import pytest
from datasets import Dataset

from docstrings import run_example
from hf_colearn import Paired, Teacher, TeacherBank, teacher_check
from hf_colearn.analysis.latents import transfer
from hf_colearn.analysis.statistics.estimates import Estimate
from hf_colearn.analysis.teacher_check import hit_table
from hf_colearn.cli import main


N, CLASSES, LABELLED = 300, 4, 40


def spaces(seed=0):
    """Classes, a space that shows them clearly, and one that shows the same among much that has nothing to do with them."""
    rng = np.random.default_rng(seed)
    y = np.arange(N) % CLASSES
    clear = np.eye(CLASSES)[y] + 0.15 * rng.normal(size=(N, CLASSES))
    noisy = np.concatenate([clear + 0.3 * rng.normal(size=clear.shape), 3 * rng.normal(size=(N, 40))], axis=1)
    return y, clear, noisy


def few(y):
    return np.where(np.arange(N) < LABELLED, y, -100)


@pytest.fixture(scope="module")
def helps():
    y, clear, noisy = spaces()
    return teacher_check(noisy, clear, few(y))


@pytest.fixture(scope="module")
def harms():
    y, clear, noisy = spaces()
    return teacher_check(clear, noisy, few(y))


def test_a_teacher_that_knows_more_is_likely_to_help_and_the_other_way_round_it_harms(helps, harms):
    check = helps
    assert check.verdict == "likely to help" and "can follow" in check.reason
    assert (check.samples, check.labelled, check.paired, check.unlabelled_pairs) == (N, LABELLED, N, N - LABELLED)
    assert check.teacher > 0.95 and check.student < 0.8 and check.advantage_over_null.low > 0
    assert check.alignment_p_value == 1 / 200 and not check.pairing_carries_label
    assert "40 of 300 labelled, 300 paired" in str(check) and str(check).endswith(check.sentence)

    assert harms.verdict == "will harm" and "knows less" in harms.reason


def test_without_new_information_a_teacher_cannot_help():
    y, clear, noisy = spaces()
    check = teacher_check(noisy, clear, y)
    assert check.verdict == "cannot help" and "all 300 samples are labelled" in check.reason
    paired = np.where(np.arange(N)[:, None] < LABELLED, clear, np.nan)
    check = teacher_check(noisy, paired, few(y))
    assert check.verdict == "cannot help" and "none of the 260 samples without a label has a pair" in check.reason
    assert (check.paired, check.unlabelled_pairs) == (LABELLED, 0)


def test_permuted_pairs_harm_and_a_student_that_cannot_follow_gains_nothing():
    y, clear, noisy = spaces()
    permuted = np.random.default_rng(1).permutation(N)
    check = teacher_check(noisy, clear[permuted], few(y))
    assert check.verdict == "will harm" and "no better than permuted ones" in check.reason

    # 200 labels, and 60 pairs, from which latents cannot be told in 44 dimensions: 30 labelled ones, 30 without a label.
    paired = (np.arange(N) < 30) | ((np.arange(N) >= 200) & (np.arange(N) < 230))
    check = teacher_check(noisy, np.where(paired[:, None], clear, np.nan), np.where(np.arange(N) < 200, y, -100))
    assert check.verdict == "cannot help" and "cannot follow" in check.reason
    assert check.following.high < 0 and (check.paired, check.unlabelled_pairs) == (60, 30)


def test_a_teacher_that_is_the_student_cannot_help():
    y, clear, noisy = spaces()
    check = teacher_check(clear, clear, few(y))
    assert check.verdict == "cannot help" and "knows no more than the student" in check.reason
    assert check.advantage.mean == 0 and check.explained_variance > 0.99


def test_it_says_where_the_pairing_carries_the_label(helps):
    y, clear, noisy = spaces()
    bank = TeacherBank.from_latents(np.eye(CLASSES))  # a latent a class
    check = teacher_check(noisy, bank, few(y), Paired(y))
    assert check.pairing_carries_label and "The pairing itself carries the label" in str(check)
    # Drawn by class: latents of another sample of the class.
    other = np.concatenate([np.roll(np.flatnonzero(y == c), 7) for c in range(CLASSES)])
    rows = np.empty(N, dtype=int)
    rows[np.concatenate([np.flatnonzero(y == c) for c in range(CLASSES)])] = other
    by_class = teacher_check(noisy, clear[rows], few(y))
    assert by_class.within_class_p_value > 0.05 >= helps.within_class_p_value
    assert "Within classes" in str(by_class) and "Within classes" not in str(helps)


def test_one_label_a_class_is_undecided_but_permuted_pairs_are_still_seen():
    y, clear, noisy = spaces()
    labels = [int(label) if i < CLASSES else None for i, label in enumerate(y)]
    check = teacher_check(noisy, clear, labels)
    assert check.verdict == "undecided" and "label two of every class" in check.reason
    assert teacher_check(noisy, clear[np.random.default_rng(1).permutation(N)], labels).verdict == "will harm"
    labels[CLASSES : 4 * CLASSES] = [label % 3 for label in range(3 * CLASSES)]  # class 3 alone keeps its single label
    assert "Left out: the labels of 1 classes that have a single one." in teacher_check(noisy, clear, labels).notes


def test_values_and_several_labels_are_probed_by_explained_variance():
    y, clear, noisy = spaces()
    missing = np.arange(N) >= LABELLED
    value = np.where(missing, np.nan, y.astype(float))
    hot = np.eye(CLASSES)[y]
    hot[missing, 1] = -100
    for labels in (value, hot):
        check = teacher_check(noisy, clear, labels)
        assert (check.measure, check.labelled, check.verdict) == ("R2", LABELLED, "likely to help")
        assert check.teacher > 0.8


def test_datasets_banks_and_pairings_say_the_same_as_arrays(helps):
    y, clear, noisy = spaces()
    rows = np.random.default_rng(0).permutation(N)  # sample i sees row rows[i]
    stored = np.empty_like(clear)
    stored[rows] = clear
    names = [None if i >= LABELLED else f"class {label}" for i, label in enumerate(y)]
    dataset = Dataset.from_dict({"features": noisy, "labels": names, "sample_id": np.arange(N)[::-1].copy()})
    teacher = Teacher(TeacherBank.from_latents(stored), Paired(rows[::-1].copy()))
    found = teacher_check(dataset, teacher)
    assert found.verdict == helps.verdict and found.student == helps.student and found.teacher == helps.teacher
    assert found.explained_variance == pytest.approx(helps.explained_variance, abs=1e-4)  # a bank holds float32


def test_labels_of_held_out_folds_are_never_seen():
    """Random labels are predicted at chance; a probe that saw them would reach 1, with so many dimensions."""
    rng = np.random.default_rng(0)
    y = rng.permutation(np.arange(80) % 2)
    x = transfer.principal_components(rng.normal(size=(120, 200)))
    labelled = transfer.Labelled(np.arange(80), np.arange(80, 120), np.eye(2)[y], y)
    scores = transfer.held_out_scores(x, x, labelled, 5, 4, 0)
    for found in (scores.student, scores.self_training, scores.teacher):
        assert found.shape == (4, 80) and 0.3 < found.mean() < 0.7


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": [0, 1]}, "2 labels for 300 samples"),
        ({"labels": [-100] * N}, "0 of 300 samples are labelled, of 0 classes"),
        ({"labels": [0] * N}, "300 of 300 samples are labelled, of 1 classes"),
        ({"labels": [1.0, np.nan] * 150}, "4 labelled samples that differ"),
        ({"labels": None}, "there are no labels"),
        ({"teacher": np.zeros((3, 2))}, r"shape \(3, 2\), and there are 300 samples"),
        ({"teacher": np.where(np.eye(N, 4) == 1, np.nan, 0)}, "4 of 300 latents hold NaN or infinite values in part"),
        ({"features": np.full((N, 2), np.inf)}, "300 of 300 features hold NaN"),
        ({"features": np.zeros(N)}, r"shape \(300,\): pass \[N, D\]"),
        ({"pairing": Paired()}, "the teacher is an array"),
        ({"confidence": 90}, "confidence=90 is no level"),
    ],
)
def test_what_cannot_be_checked_is_refused_by_name(change, message):
    y, clear, noisy = spaces()
    with pytest.raises(ValueError, match=message):
        teacher_check(**{"features": noisy, "teacher": clear, "labels": few(y)} | change)


def test_hits_are_counted_over_what_was_predicted(helps, harms):
    unsure = replace(helps, verdict="undecided")
    up, flat, down = Estimate(0.1, 0.05, 0.15), Estimate(0.0, -0.1, 0.1), Estimate(-0.1, -0.2, -0.05)
    table = hit_table({"a": (helps, up, up), "b": (helps, up, flat), "c": (harms, down, down), "d": (unsure, up, up)})
    cells = [[cell.strip() for cell in line.strip("| ").split("|")] for line in table.splitlines()[2:6]]
    assert [[row[0], *row[4:]] for row in cells] == [
        ["a", "helped", "yes"],
        ["b", "no gain", "no"],
        ["c", "harmed", "yes"],
        ["d", "helped", "-"],
    ]
    assert table.endswith("Hits: 2 of 3 predictions; 1 undecided.")


def test_the_example_of_the_docstring():
    run_example(teacher_check)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Banks of both spaces, and labels with the teacher's row of every sample."""
    folder = tmp_path_factory.mktemp("check")
    y, clear, noisy = spaces()
    TeacherBank.from_latents(noisy).save(folder / "features")
    TeacherBank.from_latents(clear[::-1].copy()).save(folder / "teacher")
    lines = [f"{label if i < LABELLED else ''},{N - 1 - i if i else ''},{N + i}" for i, label in enumerate(y)]
    (folder / "labels.csv").write_text("\n".join(["labels,row,wrong", *lines]))
    (folder / "short.csv").write_text("labels\n1\n")
    (folder / "broken.json").write_text("{")
    return folder


def test_the_command_prints_the_table_and_the_sentence(files, capsys):
    command = [
        "check",
        "--features",
        "features",
        "--teacher",
        "teacher",
        "--labels",
        "labels.csv",
        "--row_column",
        "row",
    ]
    assert main([str(files / word) if (files / word).exists() else word for word in command]) == 0
    out = capsys.readouterr().out
    assert "40 of 300 labelled, 299 paired" in out and out.splitlines()[-1].startswith("Likely to help: ")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"--features": "nowhere"}, "'nowhere' holds no teacher bank"),
        ({"--labels": "nowhere.csv"}, "there is no file 'nowhere.csv'"),
        ({"--labels": "features"}, "there is no file"),
        ({"--labels": "features/bank.txt"}, "there is no file"),
        ({"--labels": "short.csv"}, "has 1 rows"),
        ({"--labels": "broken.json"}, "cannot be read as .json"),
        ({"--label_column": "y"}, "the dataset has no column 'y'"),
        ({"--row_column": "wrong"}, "column 'wrong'"),
        ({"--row_column": "r"}, "the dataset has no column 'r'"),
        ({"--confidence": "7"}, "confidence=7.0"),
    ],
)
def test_the_command_tells_what_is_wrong_in_one_line(files, change, message, capsys):
    options = {"--features": "features", "--teacher": "teacher", "--labels": "labels.csv"} | change
    words = [word for option in options.items() for word in option]
    assert main(["check", *(str(files / word) if (files / word).exists() else word for word in words)]) == 2
    out, err = capsys.readouterr()
    assert err.startswith("hf-colearn: ") and message in err and err.count("\n") == 1 and not out
