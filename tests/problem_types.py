"""Arms of a student of precomputed features, trained in a second, from data to a published card: for every problem type."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset

import tiny
from hf_colearn import (
    CoLearningForFeatureClassification,
    CoLearningTrainer,
    FeatureBackboneConfig,
    Paired,
    Shuffled,
    TeacherBank,
)
from hf_colearn.analysis.runs import Run, main_metric, write_experiment
from hf_colearn.experiments.arms import ArmPlan, run_folder
from hf_colearn.experiments.info import ExperimentInfo
from hf_colearn.experiments.runner import run_arms, show_results
from hf_colearn.experiments.student_folder import keep_student
from hub_double import HubDouble, run_child


PLANS = [
    ArmPlan("baseline", "baseline"),
    ArmPlan("teacher", "colearned", Paired()),
    ArmPlan("shuffled", "null", Shuffled()),
]
INFO = ExperimentInfo(
    recipe="mine", title="A student", pipeline_tag="feature-classification", dataset_name="Some data",
    dataset_type="some-data", pairing="each sample with its own latent", teacher="privileged features",
)  # fmt: skip


@dataclass
class Problem:
    """What is learned: features `(N, F)` and labels of both splits, a teacher's latents `(N, D)` of the training samples."""

    train: np.ndarray
    train_labels: list[Any]
    latents: np.ndarray
    test: np.ndarray
    test_labels: list[Any]
    num_labels: int
    compute_metrics: Any
    id2label: dict[int, str] | None = None

    def split(self, name: str) -> Dataset:
        features, labels = (self.train, self.train_labels) if name == "train" else (self.test, self.test_labels)
        columns = {"features": features.astype(np.float32).tolist(), "labels": labels}
        return Dataset.from_dict(columns | ({"sample_id": range(len(features))} if name == "train" else {}))

    def trainer(self, plan: ArmPlan, seed: int = 0, **fields: Any) -> CoLearningTrainer:
        settings = {"max_steps": 40, "per_device_train_batch_size": 32, "learning_rate": 2e-2, "logging_steps": 20}
        settings["per_device_eval_batch_size"] = 512
        student = CoLearningForFeatureClassification.from_backbone(
            FeatureBackboneConfig(feature_dim=self.train.shape[1], hidden_dims=[16]), self.latents.shape[1],
            self.num_labels, id2label=self.id2label,
        )  # fmt: skip
        teacher = {"bank": TeacherBank.from_latents(self.latents), "pairing": plan.pairing} if plan.pairing else {}
        return CoLearningTrainer(
            student,
            tiny.arguments(**{**settings, "seed": seed, **fields}),
            train_dataset=self.split("train"),
            eval_dataset=self.split("test"),
            compute_metrics=self.compute_metrics,
            **teacher,
        )

    def run(self, folder: Path, seeds: tuple[int, ...] = (0,)) -> list[Run]:
        """All arms trained and scored, with their table and the kept student's card in the folder."""

        def keep(plan: ArmPlan, seed: int, trainer: CoLearningTrainer) -> None:
            if plan.kind == "colearned" and seed == seeds[0]:
                keep_student(trainer, None, folder / "student")

        runs = run_arms(PLANS, seeds, self.trainer, self.split("test"), keep, folder)
        known = {
            **INFO.to_dict(), "argv": [], "metric": main_metric(runs[0]), "source": "teacher",
            "teacher": next(run.facts["teacher"] for run in runs if run.facts["teacher"]),
            "student": {"folder": "student", "arm": "teacher"},
        }  # fmt: skip
        write_experiment(folder, known, [run_folder(folder, run.arm, run.seed) for run in runs])
        return show_results(folder, with_page=False)


PUBLISH = """
import json, torch
from pathlib import Path
from transformers import AutoModel
from hf_colearn.hub.publish import publish

found = {}
for name, (student, features) in json.loads(Path("students.json").read_text()).items():
    publish(student, f"tester/{name}")
    model = AutoModel.from_pretrained(f"tester/{name}", trust_remote_code=True)
    with torch.no_grad():
        logits = model(features=torch.tensor(features)).logits
    found[name] = [type(model).__module__.split(".")[0], model.config.problem_type, logits.tolist()]
print(json.dumps(found))
"""


def published_predictions(
    students: dict[str, tuple[Path, np.ndarray]], home: Path
) -> dict[str, tuple[str, np.ndarray]]:
    """The problem type and logits `(N, C)` of students that were published and loaded back by their own code.

    A student is given by its folder, and the features `(N, F)` that it shall see.
    """
    given = {name: [str(folder), x.astype(np.float32).tolist()] for name, (folder, x) in students.items()}
    home.mkdir(exist_ok=True)
    (home / "students.json").write_text(json.dumps(given))
    with HubDouble() as hub:
        found = run_child(PUBLISH, hub, home)
        assert hub.unhandled == [] and {module for module, _, _ in found.values()} == {"transformers_modules"}
    return {name: (problem, np.array(logits)) for name, (_, problem, logits) in found.items()}


def local_predictions(student: Path, features: np.ndarray) -> np.ndarray:
    """The logits of the same student as it lies in its folder."""
    model = CoLearningForFeatureClassification.from_pretrained(student)
    with torch.no_grad():
        return model(features=torch.from_numpy(features.astype(np.float32))).logits.numpy()
