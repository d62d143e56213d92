"""The card of the student that an experiment keeps says what this arm learned from, whatever the other arms had."""

import numpy as np
import pytest

import tiny
from hf_colearn import CoLearningTrainer, Consistency, SoftLabels, Teacher, TeacherBank
from hf_colearn.analysis.run import Run, Samples
from hf_colearn.analysis.runs import compare_all
from hf_colearn.experiments.info import ExperimentInfo
from hf_colearn.experiments.student_folder import finish_student, keep_student
from hf_colearn.hub.record import TrainingRecord


INFO = ExperimentInfo(
    "mine", "Mine", "image-classification", "pets (2 classes; 9 training and 4 test pictures)", "pets",
    pairing="every picture with its name", teacher="MiniLM, frozen",
)  # fmt: skip


def run_of(arm, kind, objective, accuracy):
    labels = np.array([0, 1, 1, 1])
    test = Samples(labels, np.zeros((4, 2)), np.zeros((4, 3)))
    metrics = {"accuracy": accuracy, "map_excluded_classes": 0}
    return Run(arm, kind, 0, metrics, [], 1.0, labels, labels, np.ones(4), test, facts={"objective": objective})


@pytest.mark.parametrize(
    ("objective", "teachers", "told", "not_told"),
    [
        (
            Consistency(), {}, "predictions of two views of a sample were pulled together, for which no teacher is needed",
            ["MiniLM", "latents were pulled", "every picture with its name", "Did the teacher help?"],
        ),
        (
            SoftLabels("classes"),
            {"classes": Teacher(TeacherBank.from_latents(np.full((10, 10), 0.1, dtype=np.float32)).scaled("none"))},
            "its predictions were pulled to the class probabilities of a frozen teacher",
            ["latents were pulled"],
        ),
    ],
    ids=["Consistency", "SoftLabels"],
)  # fmt: skip
def test_an_arm_is_told_with_its_own_objective_and_teacher(objective, teachers, told, not_told, tmp_path):
    trainer = CoLearningTrainer(
        tiny.student(),
        tiny.arguments(tmp_path),
        train_dataset=tiny.digits(10),
        objective=objective,
        teachers=teachers or None,
    )
    folder = tmp_path / "student"
    keep_student(trainer, None, folder)
    runs = [run_of("its arm", "colearned", repr(objective), 0.75), run_of("labels alone", "baseline", None, 0.5)]
    experiment = {
        **INFO.to_dict(), "argv": [], "metric": "accuracy", "teacher": {"teacher": "org/minilm"},
        "student": {"folder": "student", "arm": "its arm"},
    }  # fmt: skip
    finish_student(folder, runs, experiment, compare_all(runs))
    card, record = (folder / "README.md").read_text(), TrainingRecord.load(folder)
    assert told in card and [text for text in not_told if text in card] == []
    assert (record.teacher is None) == (not teachers) and record.scores == {"accuracy": 0.75}
    assert "Measured on pets (2 classes; 9 training and 4 test pictures), split `test` (4 samples)." in card
    assert "license" not in card.split("---")[1]
