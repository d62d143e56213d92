"""Curves of seen and unseen classes, from the facts of runs to the report."""

import json

import numpy as np
import pytest

from hf_colearn.analysis.plots.style import arm_styles
from hf_colearn.analysis.plots.zero_shot import BEYOND, plot_seen_unseen
from hf_colearn.analysis.report.merged_results import MergedResults
from hf_colearn.analysis.report.reporting import SECTIONS
from hf_colearn.analysis.report.zero_shot import curve_as_fact, curve_of_fact, section_zero_shot
from hf_colearn.analysis.run import Run, Samples
from hf_colearn.evaluation.zero_shot import SeenUnseenCurve


GATES = np.array([0.0, 0.5, np.inf])


def curve(seen, unseen, gates=GATES):
    return SeenUnseenCurve(gates, np.array(seen), np.array(unseen))


def make_run(arm, kind, seed, of):
    labels = np.arange(12) % 3
    metrics, facts = {"unseen_accuracy": float(of.unseen[0])}, {"zero_shot": curve_as_fact(of)}
    return Run(arm, kind, seed, metrics, [], 1.0, labels, labels, np.full(12, 0.8), Samples(labels), facts=facts)


def test_a_panel_has_a_line_an_arm_of_means_over_seeds_with_infinity_right_of_1():
    arms = {
        "names": [curve([0, 0.4, 0.8], [0.4, 0.2, 0]), curve([0, 0.6, 0.8], [0.6, 0.2, 0])],
        "random": [curve([0, 0.1, 0.8], [0.2, 0.1, 0])],
    }
    figure = plot_seen_unseen(arms)
    unseen, harmonic, seen = figure.axes
    # Means in percent: unseen (40 + 60) / 2; harmonic 2 x .4 x .2 / .6 = .267 and 2 x .6 x .2 / .8 = .3, together 28.3.
    assert list(unseen.lines[0].get_ydata()) == pytest.approx([50, 20, 0])
    assert list(harmonic.lines[0].get_ydata()) == pytest.approx([0, 100 * (4 / 15 + 0.3) / 2, 0])
    assert list(seen.lines[1].get_ydata()) == pytest.approx([0, 10, 80])
    assert list(seen.lines[0].get_xdata()) == [0, 0.5, BEYOND]
    assert {text.get_text() for text in seen.texts} == {"names", "random"}


@pytest.mark.parametrize(
    ("arms", "message"),
    [
        ({}, "no curve to draw"),
        ({"names": []}, "arm 'names' has no curve"),
        ({"names": [curve([0, 1, 1], [1, 0, 0]), curve([0], [1], GATES[:1])]}, "other gates than the first"),
    ],
)
def test_curves_that_cannot_be_drawn_together_are_refused(arms, message):
    with pytest.raises(ValueError, match=message):
        plot_seen_unseen(arms)


def test_a_curve_survives_json():
    kept = json.loads(json.dumps(curve_as_fact(curve([0, 0.5, 1], [1, 0.5, 0])), allow_nan=False))
    again = curve_of_fact(kept)
    assert again.gates.tolist() == GATES.tolist() and again.unseen.tolist() == [1, 0.5, 0]


def test_the_report_tells_of_unseen_classes_where_runs_have_them():
    runs = [
        make_run(arm, kind, seed, curve([0, high, 0.75], [high, high / 2, 0]))
        for seed in (0, 1, 2)
        for arm, kind, high in (("learned", "baseline", 0.1), ("names", "colearned", 0.5 + seed / 10))
    ]
    styles = arm_styles({"learned": "baseline", "names": "colearned"})
    section = section_zero_shot(MergedResults(runs, None, styles, "unseen_accuracy", ["names"], "teacher", ()))
    # Unseen: (50 + 60 + 70) / 3; seen at infinity: 75. Harmonic at gate .5: u = s / 2, so 2 s / 3: 33.3, 40 and 46.7.
    assert list(section.tables[0].rows[1])[:4] == ["names", "60.0", "75.0", "40.0"]
    assert [picture.name for picture in section.pictures] == ["zero_shot"] and len(section.notes) == 1
    assert section.pictures[0].is_wide  # three panels take the page's width
    for run in runs:
        run.facts = {}
    assert section_zero_shot(MergedResults(runs, None, styles, "unseen_accuracy", ["names"], "teacher", ())) is None
    assert section_zero_shot in SECTIONS
