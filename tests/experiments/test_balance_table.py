"""The table of a comparison of balance methods, worked out by hand, and what a step costs."""

import json
import time

import numpy as np
import pytest
from transformers import TrainerState

from hf_colearn.analysis.run import Run, Samples
from hf_colearn.experiments.balance import BalanceArm
from hf_colearn.experiments.balance_table import BalanceTable
from hf_colearn.experiments.cost import STEP_SECONDS, StepCost, step_seconds


# accuracy by seed, and seconds a step
SCORES = {
    "ce": ("baseline", [0.50, 0.52, 0.54], [1.0, 2.0, 4.0]),
    "OGM-GE": ("colearned", [0.60, 0.64, 0.62], [1.1, 2.4, 8.0]),
    "Greedy, mmtm": ("colearned", [0.50, 0.51, 0.53], [2.0, 2.0, 2.0]),
    "ce, mmtm": ("reference", [0.40, 0.42, 0.44], [1.0, 1.0, 1.0]),
    "image alone": ("reference", [0.45, 0.45, 0.46], [0.5, 0.5, 0.5]),
    "late ensemble": ("reference", [0.55, 0.56, 0.57], [0.5, 0.5, 0.5]),
    "late ensemble, as long": ("reference", [0.61, 0.62, 0.63], [0.5, 0.5, 0.5]),
}
PLANS = [
    BalanceArm(
        name,
        kind,
        modality="image" if name == "image alone" else None,
        model={"fusion": "mmtm" if "mmtm" in name else "concat"},
    )
    for name, (kind, *_) in SCORES.items()
]


def run(arm, kind, score, seconds, seed):
    labels = np.zeros(4, dtype=int)
    latents = {"image": np.zeros((4, 2)), "audio": np.zeros((4, 2))}
    facts = {"modality": "image"} if arm == "image alone" else {}
    heads = {} if facts else {"accuracy_image": score - 0.1, "accuracy_audio": 0.3}
    test = Samples(labels, np.zeros((4, 2)), modality_latents={} if facts else latents)
    history = [{"step": 5, STEP_SECONDS: seconds}]
    return Run(
        arm, kind, seed, {"accuracy": score, **heads}, history, 1.0, labels, labels, np.ones(4), test, facts=facts
    )


@pytest.fixture(scope="module")
def table():
    runs = [
        run(arm, kind, scores[seed], seconds[seed], seed)
        for seed in range(3)
        for arm, (kind, scores, seconds) in SCORES.items()
    ]
    return BalanceTable(PLANS, runs, ["Greedy has another fusion."])


def test_an_arm_is_held_against_the_label_loss_with_its_own_fusion(table):
    gains = {name: estimate.mean for name, estimate in table.to_label_loss().items()}
    # OGM-GE: (.10 + .12 + .08) / 3; Greedy against 'ce, mmtm': (.10 + .09 + .09) / 3
    assert gains["OGM-GE"] == pytest.approx(0.10) and gains["Greedy, mmtm"] == pytest.approx(0.28 / 3)
    assert "ce" not in gains and "ce, mmtm" not in gains


def test_late_ensembles_of_equal_updates_and_the_best_are_references_and_methods_are_corrected(table):
    assert table.late == ["late ensemble", "late ensemble, as long"]
    # OGM-GE at equal total updates: (.05 + .08 + .05) / 3
    assert table.to_late_ensemble("late ensemble")["OGM-GE"].mean == pytest.approx(0.06)
    gains = table.to_late_ensemble("late ensemble, as long")
    assert gains["OGM-GE"].mean == pytest.approx(0.0) and gains["Greedy, mmtm"].mean == pytest.approx(-0.32 / 3)
    # Holm with two methods: the smaller p is held against .05 / 2, a bracket of 97.5 %.
    assert gains["Greedy, mmtm"].confidence == pytest.approx(0.975) and gains["Greedy, mmtm"].is_loss
    assert gains["OGM-GE"].confidence == pytest.approx(0.95) and not gains["OGM-GE"].is_gain
    assert gains["image alone"].confidence == pytest.approx(0.95)  # a reference is shown, not judged


def test_what_a_step_costs_is_the_median_of_ratios_by_seed(table):
    steps = table.steps()
    # OGM-GE: 1.1 / 1, 2.4 / 2, 8 / 4; Greedy: 2 / 1, 2 / 2, 2 / 4
    assert steps["OGM-GE"] == pytest.approx(1.2) and steps["Greedy, mmtm"] == 1.0 and steps["ce"] == 1.0


def test_the_table_has_all_arms_by_modality_and_says_which_are_better(table, tmp_path):
    header, *rows = table.rows()
    assert header[:5] == ["arm", "kind", "accuracy [%]", "image", "audio"]
    late = ["vs late ensemble [pp]", "vs late ensemble, as long [pp]"]
    assert header[5:] == ["vs ce [pp]", *late, "step", "setting"]
    by_name = {row[0]: row for row in rows}
    assert by_name["ce"][2:6] == ["52.00", "42.00", "30.00", "-"]
    assert by_name["image alone"][2:5] == ["-", "45.33", "-"]  # in the column of its modality
    said = table.text()
    assert "Of 2 methods better than the label loss (ce): OGM-GE +10.00" in said
    assert "Of 2 methods better than 'late ensemble, as long': none." in said and "Greedy has another fusion." in said
    page, numbers = table.write(tmp_path, "Balance")
    assert page.read_text().startswith("# Balance\n") and "\n| OGM-GE  " in page.read_text()
    written = json.loads(numbers.read_text())
    assert list(written["to_late_ensemble"]) == table.late and written["steps"]["OGM-GE"] == pytest.approx(1.2)


def test_one_seed_claims_nothing():
    runs = [run(arm, kind, scores[0], seconds[0], 0) for arm, (kind, scores, seconds) in SCORES.items()]
    assert "better" not in BalanceTable(PLANS, runs).text()


# ---- the cost of a step ----
def test_a_step_is_of_all_students_of_a_late_ensemble():
    """3 steps of 1 s and 2 of 6 s: 15 s / 5."""
    history = [{"step": 3, STEP_SECONDS: 1.0}, {"step": 4, "loss": 0.1}, {"step": 5, STEP_SECONDS: 6.0}]
    assert step_seconds(history) == 3.0 and np.isnan(step_seconds([{"step": 4}]))


def test_evaluations_are_no_part_of_a_step(monkeypatch):
    """Steps end at 1 s and 2 s; an evaluation goes on until 12 s, the last step until 13 s: 3 s of 3 steps."""
    clock = iter([0.0, 1.0, 2.0, 12.0, 12.0, 13.0, 13.0])
    monkeypatch.setattr(time, "process_time", lambda: next(clock))
    cost, state = StepCost(), TrainerState(global_step=0, log_history=[{}])
    cost.on_train_begin(None, state, None)
    cost.on_step_end(None, state, None)
    cost.on_step_end(None, state, None)
    cost.on_evaluate(None, state, None)
    cost.on_step_end(None, state, None)
    state.global_step = 3
    cost.on_train_end(None, state, None)
    assert state.log_history[-1] == {STEP_SECONDS: 1.0}
