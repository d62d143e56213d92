"""What a terminal shows of finished runs, a recipe's or anybody's."""

import numpy as np
import pytest

from hf_colearn.analysis.report.by_modality import compare_parts, modality_table
from hf_colearn.analysis.report.summary import summary
from hf_colearn.analysis.run import Run, Samples
from hf_colearn.analysis.runs import compare_runs


def run_of(arm, kind, seed, metrics, modalities=(), modality=None):
    labels_N, latents_ND = np.array([0, 1]), np.zeros((2, 3), np.float32)
    test = Samples(labels_N, latents_ND, modality_latents=dict.fromkeys(modalities, latents_ND))
    facts = {} if modality is None else {"modality": modality}
    return Run(arm, kind, seed, metrics, [], 1.0, labels_N, labels_N, np.ones(2), test, facts=facts)


CE = {"accuracy": 0.5, "accuracy_image": 0.25, "accuracy_given_audio": 0.2, "accuracy_on_others": 0.9, "map": 0.1}


def test_the_table_by_modality_ends_with_the_fused_score_and_has_a_modality_alone_in_its_column():
    runs = [
        run_of("ce", "baseline", 0, CE, ("image", "audio")),
        run_of("ce", "baseline", 1, CE | {"accuracy": 0.6}, ("image", "audio")),
        run_of("image alone", "reference", 0, {"accuracy": 0.4, "map": 0.1}, modality="image"),
        run_of("image alone", "reference", 1, {"accuracy": 0.5, "map": 0.1}, modality="image"),
    ]
    table = """\
| arm         | image | given audio | fused |
| ----------- | ----- | ----------- | ----- |
| ce          | 25.00 | 20.00       | 55.00 |
| image alone | 45.00 | -           | -     |"""
    assert modality_table(runs) == table
    comparison = compare_runs(runs)
    text = summary(runs, comparison, {"title": "Digits", "dataset": "two of them", "published": "70 %"})
    assert text.startswith("Digits: two of them, 2 test samples\n\n") and text.endswith("\nPublished: 70 %")
    assert text.index(table) < text.index("By the head of 'image' alone") < text.index(comparison.table())


def test_a_run_of_an_earlier_version_does_not_say_its_modality_and_stands_among_the_fused_scores():
    runs = [
        run_of("ce", "baseline", 0, CE, ("image", "audio")),
        run_of("image alone", "reference", 0, {"accuracy": 0.4}),
    ]
    assert modality_table(runs).splitlines()[-1] == "| image alone | -     | -           | 40.00 |"


@pytest.fixture
def audio():
    """Against audio alone, in pp: ce -10, -12, -8, and constant +3, +5, +1; against ce, constant +13, +17, +9."""
    scores = {"ce": (0.50, 0.50, 0.50), "constant": (0.63, 0.67, 0.59), "misaligned pairs": (0.52, 0.55, 0.55)}
    kinds = {"ce": "baseline", "constant": "colearned", "misaligned pairs": "null"}
    both = ("image", "audio")
    joint = [
        run_of(arm, kinds[arm], seed, {"accuracy": 0.7, "accuracy_audio": score, "accuracy_given_audio": 0.1}, both)
        for arm, of_arm in scores.items()
        for seed, score in enumerate(of_arm)
    ]
    alone = [
        run_of("audio alone", "reference", seed, {"accuracy": score}, modality="audio")
        for seed, score in enumerate((0.60, 0.62, 0.58))
    ]
    return joint + alone


def test_a_modality_is_held_against_itself_alone_and_joint_arms_are_corrected_together(audio):
    """t with 2 degrees of freedom is 4.303 at 95 % and 6.205 at 97.5 %; errors are sd / sqrt(3).

    Both differences to audio alone have a standard deviation of 2 pp: errors of 1.155 pp, t of -8.66 (p 0.013) and 2.60
    (p 0.12), so ce is held against 0.05 / 2 (+- 7.17), and constant then against 0.05 (+- 4.97).
    """
    part, given = compare_parts(audio, "accuracy")
    assert (part.name, part.alone, given.name) == ("audio", "audio alone", "given audio")
    assert "Against 'audio alone' (60.00 %): no joint arm is better; " in part.verdict
    assert "worse: 'ce' -10.00 [-17.17, -2.83] pp; " in part.verdict
    assert "no reliable difference: 'constant' +3.00 [-1.97, +7.97] pp." in part.verdict
    header, *rows = part.rows()
    assert header[-1] == "vs 'audio alone' [pp]"
    assert [row[0] for row in rows] == ["ce", "constant", "misaligned pairs", "audio alone"]
    assert rows[-1][-1] == "-" and rows[1][4].startswith("+13.00") and rows[1][5].startswith("+9.00")


def test_a_modality_that_its_arms_make_better_is_said_to_be(audio):
    runs = [
        run_of(run.arm, run.kind, run.seed, run.metrics | {"accuracy_audio": 0.9 + run.seed / 100}, ("image", "audio"))
        if run.arm == "constant"
        else run
        for run in audio
    ]
    # +30, +29 and +34 pp: sd 2.646, error 1.528, t 20.3, so this is held against 0.05 / 2 (+- 9.48), and ce against 0.05.
    verdict = compare_parts(runs, "accuracy")[0].verdict
    assert "(60.00 %): better: 'constant' +31.00 [+21.52, +40.48] pp; " in verdict
    assert verdict.endswith("; worse: 'ce' -10.00 [-14.97, -5.03] pp.")


def test_students_of_one_modality_have_no_such_table():
    runs = [run_of("baseline", "baseline", 0, {"accuracy": 0.5}), run_of("taught", "colearned", 0, {"accuracy": 1.0})]
    assert modality_table(runs) is None and compare_parts(runs, "accuracy") == []
    comparison = compare_runs(runs)
    assert summary(runs, comparison, {}) == f"2 test samples\n\n{comparison.table()}\n{comparison.verdict}"
