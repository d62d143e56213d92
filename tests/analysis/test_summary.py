"""What a terminal shows of finished runs, a recipe's or anybody's."""

import numpy as np

from hf_colearn.analysis.report.summary import modality_table, summary
from hf_colearn.analysis.runs import Run, Samples, compare_runs


def run_of(arm, kind, seed, metrics, modalities=()):
    labels_N, latents_ND = np.array([0, 1]), np.zeros((2, 3), np.float32)
    test = Samples(labels_N, latents_ND, modality_latents=dict.fromkeys(modalities, latents_ND))
    return Run(arm, kind, seed, metrics, [], 1.0, labels_N, labels_N, np.ones(2), test)


def test_the_table_by_modality_has_means_over_the_seeds_and_a_dash_where_an_arm_lacks_the_modality():
    ce = {"accuracy": 0.5, "accuracy_image": 0.25, "accuracy_given_audio": 0.2, "accuracy_on_others": 0.9, "map": 0.1}
    runs = [
        run_of("ce", "baseline", 0, ce, ("image", "audio")),
        run_of("ce", "baseline", 1, ce | {"accuracy": 0.6}, ("image", "audio")),
        run_of("image alone", "reference", 0, {"accuracy": 0.4, "map": 0.1}),
        run_of("image alone", "reference", 1, {"accuracy": 0.4, "map": 0.1}),
    ]
    table = """\
| arm         | fused | image | given audio |
| ----------- | ----- | ----- | ----------- |
| ce          | 55.00 | 25.00 | 20.00       |
| image alone | 40.00 | -     | -           |"""
    assert modality_table(runs) == table
    text = summary(runs, compare_runs(runs), {"title": "Digits", "dataset": "two of them", "published": "70 %"})
    assert text.startswith("Digits: two of them, 2 test samples\n\n") and text.endswith(f"{table}\nPublished: 70 %")


def test_students_of_one_modality_have_no_such_table():
    runs = [run_of("baseline", "baseline", 0, {"accuracy": 0.5}), run_of("taught", "colearned", 0, {"accuracy": 1.0})]
    assert modality_table(runs) is None
    comparison = compare_runs(runs)
    assert summary(runs, comparison, {}) == f"2 test samples\n\n{comparison.table()}\n{comparison.verdict}"
