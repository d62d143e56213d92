import numpy as np
import pytest
from scipy.stats import ttest_1samp

from hf_colearn.analysis.runs import read_runs
from hf_colearn.analysis.statistics.across_tests import tests_in_words as in_words
from hf_colearn.analysis.statistics.across_tests import tests_table as table_of
from hf_colearn.analysis.statistics.compare import Arm, compare
from tiny_corpora import write_dtmf_digits
from tiny_recipes import DIGITS, main_of


ARMS = {"ce": "baseline", "constant": "colearned", "image alone": "reference", "audio alone": "reference"}
TESTS = ("", "_on_cue_removed", "_on_cue_flipped", "_on_cue_followed")


# ---- the recipe ----


@pytest.fixture(scope="module")
def false_cue(tmp_path_factory):
    folder = tmp_path_factory.mktemp("false_cue")
    write_dtmf_digits(
        folder / "phones", clips_per_digit=42
    )  # by FSDD's rule, takes 0 to 4 of the seven are for testing
    # Longer than the other recipes' first steps: the images are to be learned, to see what from.
    asked = [*DIGITS, "--audio_dir", folder / "phones", "--arms", *ARMS, "--max_steps", "40", "--eval_steps", "40"]
    asked += ["--per_device_train_batch_size", "64", "--cue_strength", "1.0", "--report", "false"]
    main_of("false_cue", folder, *asked)
    runs, _ = read_runs([folder / "runs" / "false_cue"])
    return folder / "runs" / "false_cue", {run.arm: run for run in runs}


def accuracies(run):
    """On the four test sets."""
    return [run.metrics[f"accuracy{test}"] for test in TESTS]


def test_every_arm_is_scored_with_the_cue_without_it_and_against_it(false_cue):
    _, runs = false_cue
    assert {arm: run.kind for arm, run in runs.items()} == ARMS
    for run in runs.values():
        assert len(run.labels) == 899  # scikit-learn's digits, halved
        assert {f"{metric}{test}" for metric in ("accuracy", "map") for test in TESTS} <= set(run.metrics)


def test_sound_alone_is_as_right_wherever_the_images_cue_is(false_cue):
    right, removed, flipped, _ = accuracies(false_cue[1]["audio alone"])
    assert right == removed == flipped


def test_images_alone_are_right_by_the_cue_and_wrong_where_it_lies(false_cue):
    right, removed, flipped, followed = accuracies(false_cue[1]["image alone"])
    assert right > 0.8 and removed < right - 0.3 and flipped < right - 0.5
    assert followed > 2 * flipped  # of the other answers, most are the cue's


def test_what_is_seen_is_written_as_it_was_measured(false_cue):
    folder, runs = false_cue
    lines = (folder / "false_cue.md").read_text().splitlines()
    for arm, run in runs.items():
        row = next(line for line in lines if line.startswith(f"| {arm} "))
        shown = [float(cell) for cell in row.strip("| ").split("|")[1:]]
        assert shown == pytest.approx([100 * accuracy for accuracy in accuracies(run)], abs=0.006)
    right, _, flipped, _ = accuracies(runs["image alone"])
    moved = f" {100 * (flipped - right):+.2f} pp on cue flipped"
    assert any(line.startswith("image alone: ") and moved in line for line in lines)
    assert "With the cue flipped, against the label loss alone:" in lines


@pytest.mark.parametrize(
    "argv, error, message",
    [
        ([], ValueError, "no data: pass --audio_dir"),
        (["--small", "--patch_size", "14"], ValueError, "4 places for a patch of 14 pixels, and there are 10 classes"),
        (["--small", "--arms", "ce", "video alone"], ValueError, "there is no arm 'video alone'"),
    ],
)
def test_what_does_not_fit_is_refused_before_training(tmp_path, argv, error, message):
    with pytest.raises(error, match=message):
        main_of("false_cue", tmp_path, *argv)
    assert not (tmp_path / "runs").exists()


# ---- the table and the words ----


def comparison(**scores):
    kinds = ["baseline"] + ["reference"] * (len(scores) - 1)
    return compare([Arm(name, kind, of_arm) for (name, of_arm), kind in zip(scores.items(), kinds, strict=True)])


def test_the_table_holds_means_and_the_intervals_of_what_differs_between_seeds():
    on = {
        "test": comparison(ce=[0.9, 0.8], alone=[0.5, 0.5]),
        "cue|flipped": comparison(ce=[0.25, 0.25], alone=[0, 0]),
    }
    # Two seeds, a mean of 85 and a standard error of 5: 12.706 (Student's t of one degree of freedom) times 5 is 63.53.
    assert table_of(on).splitlines() == [
        "| arm   | test                  | cue\\|flipped |",
        "| ----- | --------------------- | ------------ |",
        "| ce    | 85.00 [21.47, 100.00] | 25.00        |",
        "| alone | 50.00                 | 0.00         |",
    ]


def test_moves_between_test_sets_are_paired_by_seed():
    ce, flipped = [0.9, 0.8, 0.7], [0.42, 0.3, 0.18]
    words = in_words({"test": comparison(ce=ce, alone=ce), "cue flipped": comparison(ce=flipped, alone=ce)})
    interval = ttest_1samp(np.subtract(flipped, ce), 0).confidence_interval(0.95)
    assert words.splitlines() == [
        f"ce: 80.00 % on test; -50.00 [{100 * interval.low:+.2f}, {100 * interval.high:+.2f}] pp on cue flipped.",
        "alone: 80.00 % on test; +0.00 pp on cue flipped.",
    ]


def test_one_seed_has_no_interval():
    on = {"test": comparison(ce=[0.9], alone=[0.5]), "flipped": comparison(ce=[0.2], alone=[0.6])}
    assert in_words(on).splitlines()[0] == "ce: 90.00 % on test; -70.00 pp on flipped."
    assert "| alone | 50.00 | 60.00   |" in table_of(on)


def test_test_sets_of_other_runs_are_refused():
    one, two = comparison(ce=[0.9], alone=[0.5]), comparison(ce=[0.9, 0.8], alone=[0.5, 0.5])
    with pytest.raises(ValueError, match=r"on 'flipped' are \{'ce': 2, 'alone': 2\}, and on 'test' \{'ce': 1"):
        table_of({"test": one, "flipped": two})
    with pytest.raises(ValueError, match="0 test sets are given, and at least 1"):
        table_of({})
    with pytest.raises(ValueError, match="1 test sets are given, and at least 2"):
        in_words({"test": one})
