"""Co-training on the processes of a torchrun: `co_train_two.py FOLDER`. Also a tiny co-training for other tests."""

import hf_colearn  # noqa: F401  (before transformers: the torchaudio guard)


# isort: split

import numpy as np
import torch
from datasets import Dataset

import processes
import tiny
from hf_colearn import CoLearningForFeatureClassification, FeatureBackboneConfig, co_train
from hf_colearn.utils.distributed import world_size


CLASSES, SAMPLES, WIDTH = 2, 24, 3


def pairs(labelled=4, samples=SAMPLES, seed=0, noise=0.7, **columns):
    """Two views that tell the class independently of each other; the first samples have a label, and all a hidden one."""
    rng, classes = np.random.default_rng(seed), np.arange(samples) % CLASSES
    views = {
        f"{view}_features": (np.eye(CLASSES, WIDTH)[classes] + noise * rng.normal(size=(samples, WIDTH))).astype(
            "float32"
        )
        for view in "ab"
    }
    labels = [int(label) if row < labelled else None for row, label in enumerate(classes)]
    found = Dataset.from_dict(
        {**views, "labels": labels, "hidden": classes, "sample_id": np.arange(samples), **columns}
    )
    return found.with_format("torch")


def student(seed=0):
    torch.manual_seed(seed)
    return CoLearningForFeatureClassification.from_backbone(FeatureBackboneConfig(feature_dim=WIDTH), 3, CLASSES)


def arguments(folder, **fields):
    sizes = {"per_device_train_batch_size": 4, "per_device_eval_batch_size": 16}
    brief = {"max_steps": 4, "learning_rate": 0.05, "logging_steps": 1, "dataloader_pin_memory": False}
    return tiny.arguments(folder / "out", **{**sizes, **brief, **fields})


def trained(folder, students=None, train=None, fields=None, **options):
    """A brief co-training of views `a` and `b`."""
    given = {"rounds": 2, "per_class": 2, "held_out": None, "report": False, "true_labels": "hidden"} | options
    students = {"a": student(), "b": student(1)} if students is None else students
    return co_train(students, pairs() if train is None else train, arguments(folder, **(fields or {})), **given)


def losses(result):
    """Of every fit, those that were logged."""
    return {
        view: {fit["round"]: [entry["loss"] for entry in fit["log"] if "loss" in entry] for fit in fits}
        for view, fits in result.fits.items()
    }


def train(name, folder, processes=1):
    """What a co-training came to with steps of four samples, on all processes together."""
    sizes = {"ddp_find_unused_parameters": False, "per_device_train_batch_size": 4 // processes}
    data = {"test_dataset": pairs(SAMPLES, seed=1), "held_out": pairs(8, 8, seed=2)}
    result = trained(folder / str(processes), fields=sizes, **data)
    assert world_size() == processes
    labels = {view: labels_N.tolist() for view, labels_N in result.labels.items()}
    probabilities = result.predict(pairs(0)).tolist()
    return {"labels": labels, "rounds": result.rounds, "losses": losses(result), "probabilities": probabilities}


if __name__ == "__main__":
    processes.write_cases(["two views"], train)
