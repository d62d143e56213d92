"""The demo as its users start it: real digits, a real teacher, and what `accelerate launch` makes of it."""

import json
import os
import shutil
from pathlib import Path

import pytest

import child_python
import processes
from hf_colearn.hub.record import TrainingRecord


RECIPE = Path(__file__).parents[2] / "recipes" / "digits_l2v.py"
QUICK = ["--seeds", "2", "--max_steps", "4", "--labels_per_class", "2"]
ARMS = ["baseline", "random prompts", "class vectors"]  # of which a page is made


def scores(folder):
    report = json.loads((folder / "runs/digits_l2v/report.json").read_text())
    return {(run["arm"], run["seed"]): run["metrics"]["accuracy"] for run in report["runs"]}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("digits")
    return folder, processes.forked(RECIPE, *QUICK, "--arms", *ARMS, folder=folder).stdout


def test_the_demo_leaves_a_report_plots_and_a_student_with_its_card(finished):
    folder, output = finished
    written = {str(path.relative_to(folder / "runs/digits_l2v")) for path in folder.rglob("*") if path.is_file()}
    assert {"report.json", "report.html", "report.md", "student/README.md", "student/model.safetensors"} <= written
    assert not [name for name in written if name.endswith((".bin", ".pt", ".pth", ".pkl"))]
    report = json.loads((folder / "runs/digits_l2v/report.json").read_text())
    assert [arm["kind"] for arm in report["comparison"]["arms"]] == ["baseline", "colearned", "null"]
    assert len(report["runs"]) == 6
    for line in report["comparison"]["verdict"].splitlines():
        assert line in output
    of_student = scores(folder)["random prompts", 0]
    assert f"value: {of_student}" in (folder / "runs/digits_l2v/student/README.md").read_text()


def test_the_record_beside_the_student_tells_how_it_was_trained(finished):
    record = TrainingRecord.load(finished[0] / "runs/digits_l2v/student")
    assert (record.recipe, record.argv, record.arm, record.seed) == (
        "digits_l2v",
        [*QUICK, "--arms", *ARMS],
        "random prompts",
        0,
    )
    assert record.scores["accuracy"] == scores(finished[0])["random prompts", 0]
    assert record.dataset | {"name": ""} == {"name": "", "type": "sklearn-digits", "split": "test", "samples": 899}
    assert (record.alpha, record.terms) == ("ConstantAlpha({'latent': 0.3})", ["latent"])
    # 4 steps of 20 samples in batches of 50: an epoch each, and a log at every step
    assert record.alpha_history == [{"epoch": float(t), "alpha": 0.3} for t in (1, 2, 3, 4)]
    assert record.arguments["max_steps"] == 4 and record.arguments["latent_reduction"] == "sum"
    assert record.teacher["pooling"] == "mean" and record.teacher["num_rows"] == 10 and record.seconds > 0
    assert str(finished[0]) not in (finished[0] / "runs/digits_l2v/student/colearning.json").read_text()


def test_the_card_is_checked_by_measuring_the_student_again(finished, tmp_path):
    student = tmp_path / "student"
    shutil.copytree(finished[0] / "runs/digits_l2v/student", student)
    done = processes.forked(RECIPE, *QUICK, "--check", student, folder=tmp_path)
    assert "The card says what was measured (within 0.00056, half of one of 899 test samples)." in done.stdout
    assert not (tmp_path / "runs").exists()
    accuracy = TrainingRecord.load(student).scores["accuracy"]
    card = (student / "README.md").read_text()
    (student / "README.md").write_text(card.replace(f"value: {accuracy}", f"value: {accuracy + 0.03}"))
    done = processes.forked(RECIPE, "--check", student, folder=tmp_path, expect=1)
    said = f"accuracy: the model-index says {accuracy + 0.03:.6g}, and {accuracy:.6g} was measured."
    assert said in done.stdout
    done = processes.forked(RECIPE, "--check", tmp_path / "nobody", folder=tmp_path, expect=2)
    assert "nobody' is neither a folder nor a student" in done.stderr and "Traceback" not in done.stderr


def test_the_saved_student_classifies_an_image_in_a_fresh_process(finished):
    script = f"""
import hf_colearn
from hf_colearn.corpora.handwritten_digits import load_handwritten_digits
from transformers import pipeline
classify = pipeline("image-classification", {str(finished[0] / "runs/digits_l2v/student")!r}, top_k=10)
found = classify(load_handwritten_digits()["test"][0]["image"])
print(sorted(entry["label"] for entry in found), round(sum(entry["score"] for entry in found), 4))
"""
    done = child_python.run(script, env=os.environ | {"PYTHONPATH": processes.PYTHONPATH}, cwd=finished[0])
    assert done.stdout.splitlines()[-1] == f"{[str(i) for i in range(10)]} 1.0"


def test_accelerate_launch_on_two_processes_reports_once_with_the_scores_of_plain_python(finished, tmp_path):
    asked = [*QUICK, "--seeds", "1", "--no_report", "--arms", *ARMS]
    done = processes.accelerate(RECIPE, *asked, folder=tmp_path, processes=2)
    assert done.stdout.count("Written:") == 1
    report = json.loads((tmp_path / "runs/digits_l2v/report.json").read_text())
    assert report["processes"] == 2
    kinds = [arm["kind"] for arm in report["comparison"]["arms"]]
    assert kinds == ["baseline", "colearned", "null"] and len(report["runs"]) == 3
    # Batch norm is over half a batch each, which moves 8 of 899 samples; the arms are 90 apart.
    mine, plain = scores(tmp_path), scores(finished[0])
    assert {(arm, 0): mine[arm, 0] for arm in ARMS} == pytest.approx(
        {(arm, 0): plain[arm, 0] for arm in ARMS}, abs=0.03
    )


def test_an_arm_that_does_not_exist_is_refused_before_training_in_one_line_a_process(tmp_path):
    done = processes.forked(RECIPE, "--arms", "baseline", "telepathy", folder=tmp_path, expect=2, processes=2)
    said = "there is no arm 'telepathy': choose among 'baseline', 'random prompts'"
    main, other = [line for line in done.stderr.splitlines() if "telepathy" in line]
    # Under a launcher the other one has ended before it comes to that.
    assert main.startswith(f"digits_l2v: {said}") and other.startswith(f"digits_l2v (process 1): {said}")
    assert "Traceback" not in done.stderr and not (tmp_path / "runs").exists()
