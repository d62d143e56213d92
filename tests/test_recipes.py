"""The demo as its users start it: real digits, a real teacher, and what `accelerate launch` makes of it."""

import json
import sys
from pathlib import Path

import pytest

import processes


RECIPE = Path(__file__).parents[1] / "recipes" / "digits_l2v.py"
QUICK = ["--seeds", "2", "--max_steps", "4", "--labels_per_class", "2"]


def scores(folder):
    report = json.loads((folder / "runs/digits_l2v/report.json").read_text())
    return {(run["arm"], run["seed"]): run["metrics"]["accuracy"] for run in report["runs"]}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("digits")
    return folder, processes.forked(RECIPE, *QUICK, folder=folder).stdout


def test_the_demo_leaves_a_report_plots_and_a_student_with_its_card(finished):
    folder, output = finished
    written = {str(path.relative_to(folder / "runs/digits_l2v")) for path in folder.rglob("*") if path.is_file()}
    assert {"report.json", "report.html", "report.md", "student/README.md", "student/model.safetensors"} <= written
    assert not [name for name in written if name.endswith((".bin", ".pt", ".pth", ".pkl"))]
    report = json.loads((folder / "runs/digits_l2v/report.json").read_text())
    kinds = [arm["kind"] for arm in report["comparison"]["arms"]]
    assert kinds.count("baseline") == 1 and kinds.count("colearned") == 2 and kinds.count("null") == 4
    assert len(report["runs"]) == 14
    for line in report["comparison"]["verdict"].splitlines():
        assert line in output
    card = (folder / "runs/digits_l2v/student/README.md").read_text()
    of_student = scores(folder)["random prompts", 0]
    assert f"value: {of_student}" in card


def test_the_saved_student_classifies_an_image_in_a_fresh_process(finished):
    script = f"""
import hf_colearn
from hf_colearn.data.digits import load_handwritten_digits
from transformers import pipeline
classify = pipeline("image-classification", {str(finished[0] / "runs/digits_l2v/student")!r}, top_k=10)
found = classify(load_handwritten_digits()["test"][0]["image"])
print(sorted(entry["label"] for entry in found), round(sum(entry["score"] for entry in found), 4))
"""
    output = processes.start(sys.executable, "-c", script, folder=finished[0]).stdout
    assert output.splitlines()[-1] == f"{[str(i) for i in range(10)]} 1.0"


def test_accelerate_launch_gives_the_scores_of_plain_python(finished, tmp_path):
    processes.accelerate(RECIPE, *QUICK, "--arms", "baseline", "random prompts", folder=tmp_path)
    expected = {key: value for key, value in scores(finished[0]).items() if key[0] in ("baseline", "random prompts")}
    assert scores(tmp_path) == pytest.approx(expected)


def test_two_processes_report_once(tmp_path):
    asked = [*QUICK, "--arms", "baseline", "random prompts", "random vectors"]
    done = processes.accelerate(RECIPE, *asked, folder=tmp_path, processes=2)
    assert done.stdout.count("Written:") == 1
    report = json.loads((tmp_path / "runs/digits_l2v/report.json").read_text())
    assert report["processes"] == 2
    assert len(report["runs"]) == 6


def test_an_arm_that_does_not_exist_is_refused_before_training(tmp_path):
    done = processes.forked(RECIPE, "--arms", "baseline", "telepathy", folder=tmp_path, expect=1)
    assert "telepathy" in done.stderr and "random prompts" in done.stderr
    assert not (tmp_path / "runs").exists()
