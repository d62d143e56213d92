"""A tiny trunk with three tasks of three modalities, two of which share a head, and their unpaired data. Also imported by child
processes.
"""

import hf_colearn  # noqa: F401  (before transformers: the torchaudio guard)


# isort: split

import numpy as np
import torch
from datasets import Dataset
from transformers import PrinterCallback

import tiny
from hf_colearn import CoLearningForManyTasks, CoLearningTrainer, UnpairedBatches


CLASSES, LATENT = 3, 4
SIZES = {"digits": 12, "spoken": 8, "wine": 4}
SHAPES = {
    "digits": ("image_pixel_values", (1, 4, 4)),
    "spoken": ("speech_pixel_values", (1, 3, 4)),
    "wine": ("wine_features", (5,)),
}
STEMS = {
    "image": {"kind": "patches", "image_size": 4, "patch_size": 2, "num_channels": 1},
    "speech": {"kind": "frames", "num_bands": 3, "max_length": 4, "patch_length": 2},
    "wine": {"kind": "table", "num_columns": 5},
}
TRUNK = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
DROPOUT = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}


def tasks(**weights):
    """The second one shares the head of the first."""
    found = {
        "digits": {"modalities": ["image"], "num_labels": CLASSES},
        "spoken": {"modalities": ["speech"], "num_labels": CLASSES, "head": "digits"},
        "wine": {"modalities": ["wine"], "num_labels": 2},
    }
    return {name: {**task, "weight": weights.get(name, 1.0)} for name, task in found.items()}


def model(names=tuple(SIZES), **weights):
    """The same weights in every call."""
    torch.manual_seed(0)
    chosen = {name: task for name, task in tasks(**weights).items() if name in names}
    stems = {task["modalities"][0]: STEMS[task["modalities"][0]] for task in chosen.values()}
    return CoLearningForManyTasks.from_stems(stems, chosen, {**TRUNK, **DROPOUT}, LATENT)


def task_data(name, unlabelled=()):
    """Random inputs with labels in turn."""
    (column, shape), count = SHAPES[name], SIZES[name]
    values = np.random.default_rng(len(name)).normal(size=(count, *shape)).astype(np.float32)
    labels = [None if row in unlabelled else row % (2 if name == "wine" else CLASSES) for row in range(count)]
    return Dataset.from_dict({column: values.tolist(), "labels": labels})


def data(names=tuple(SIZES), every="step", unlabelled=(), **kwargs):
    """In proportion to size: 3, 2 and 1 groups of 4 an epoch."""
    return UnpairedBatches({name: task_data(name, unlabelled) for name in names}, every=every, **kwargs)


PLAIN = {"optim": "sgd", "learning_rate": 0.1, "max_grad_norm": 0.0, "per_device_train_batch_size": 4}


def trainer(folder, train=None, of_model=None, **fields):
    """Of one epoch, six steps of four samples; `fields` are training arguments or what else the trainer takes."""
    fields = {**PLAIN, "num_train_epochs": 1, "max_steps": -1, **fields}
    of_trainer = {
        name: fields.pop(name)
        for name in ("eval_dataset", "objective", "teachers", "bank", "pairing", "alpha", "compute_metrics", "callbacks",
                     "compute_loss_func", "balance", "data_collator")
        if name in fields
    }  # fmt: skip
    run = CoLearningTrainer(
        model() if of_model is None else of_model,
        tiny.arguments(folder, **fields),
        train_dataset=data() if train is None else train,
        **of_trainer,
    )
    run.remove_callback(PrinterCallback)
    return run


def losses(run):
    """What was logged of the losses in every step."""
    logs = [entry for entry in run.state.log_history if "loss" in entry]
    return [{name: value for name, value in entry.items() if name.startswith("loss")} for entry in logs]
