"""Learns alpha for every problem type, on one process or several: `alpha_of_problems.py FOLDER --processes 2`.

Two thirds of the samples have a label, and every batch has as many labelled as unlabelled ones.
"""

import argparse
import json

import hf_colearn  # noqa: F401  (before transformers: the torchaudio guard)


# isort: split

import numpy as np
import torch
from datasets import Dataset

import tiny
from hf_colearn import (
    CoLearningForFeatureClassification,
    CoLearningTrainer,
    FeatureBackboneConfig,
    LearnedAlpha,
    TeacherBank,
)
from hf_colearn.utils.distributed import destroy_process_group, rank, world_size


SAMPLES, BATCH = 48, 8
FEATURES_NF = np.random.default_rng(0).normal(size=(SAMPLES, 6)).astype(np.float32)
PROBLEMS = {  # the labels, the outputs, and what the student is told
    "classes": ([i % 3 for i in range(SAMPLES)], 3, {}),
    "several labels": ([[i % 2 * 1.0, (i % 3 == 0) * 1.0, 1.0] for i in range(SAMPLES)], 3, {}),
    "numbers": ([[float(a), float(b)] for a, b in FEATURES_NF[:, :2]], 2, {"problem_type": "regression"}),
    "soft labels": ([[0.2, 0.3, 0.5]] * SAMPLES, 3, {"problem_type": "single_label_classification"}),
}


def learn(problem, folder, processes=1):
    """The logs of four steps, and alpha after them."""
    labels, num_labels, kwargs = PROBLEMS[problem]
    columns = {
        "features": FEATURES_NF.tolist(),
        "labels": [None if i % 3 == 0 else label for i, label in enumerate(labels)],
        "sample_id": range(SAMPLES),
    }
    torch.manual_seed(0)
    student = CoLearningForFeatureClassification.from_backbone(
        FeatureBackboneConfig(feature_dim=6), latent_dim=4, num_labels=num_labels, **kwargs
    )
    latents = np.random.default_rng(5).normal(size=(SAMPLES, 4)).astype(np.float32)
    arguments = tiny.arguments(
        folder, max_steps=4, logging_steps=4, optim="sgd", learning_rate=0.05,
        per_device_train_batch_size=BATCH // processes, labelled_per_batch=BATCH // processes // 2,
    )  # fmt: skip
    trainer = CoLearningTrainer(
        student, arguments, train_dataset=Dataset.from_dict(columns), bank=TeacherBank.from_latents(latents),
        alpha=LearnedAlpha("latent", interval=2, outer_split=16, solver="neumann", hessian="exact"),
    )  # fmt: skip
    trainer.train()
    logs = trainer.state.log_history[0]
    names = ("loss_task", "loss_latent", "hypergradient")
    return {**{name: logs[name] for name in names}, "alpha": trainer.alpha.weights()["latent"]}


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("folder")
    parser.add_argument("--processes", type=int)
    options = parser.parse_args()
    found = {problem: learn(problem, options.folder, options.processes) for problem in PROBLEMS}
    assert world_size() == options.processes
    with open(f"{options.folder}/problems-{rank()}.json", "w") as file:
        json.dump(found, file)
    destroy_process_group()
