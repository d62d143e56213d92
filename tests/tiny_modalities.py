"""Tiny models of several modalities on features, and trainers that balance them. Also imported by child processes."""

import numpy as np
import torch
from datasets import Dataset
from transformers import PrinterCallback

import tiny
from hf_colearn import CoLearningForMultimodalClassification, CoLearningTrainer, FeatureBackboneConfig


NAMES = ("image", "audio")


def data(samples=16, names=NAMES, classes=3, width=4, **columns):
    """Gaussian features `{name}_features` `(samples, width)` and labels at random."""
    drawn = np.random.default_rng(0)
    features = {f"{name}_features": drawn.normal(size=(samples, width)).astype(np.float32) for name in names}
    labels = drawn.integers(0, classes, samples)
    return Dataset.from_dict({**features, "labels": labels, **columns}).with_format("torch")


def model(names=NAMES, classes=3, width=4, **kwargs):
    """The same weights in every call; `kwargs` as of `from_backbones`."""
    torch.manual_seed(0)
    backbones = {name: FeatureBackboneConfig(width, [5]) for name in names}
    return CoLearningForMultimodalClassification.from_backbones(
        backbones, **{"latent_dim": 4, "num_labels": classes, **kwargs}
    )


def trainer(balance, net=None, dataset=None, folder="out", **fields):
    """A trainer of `balance`; `fields` are of the arguments, or what else the trainer takes."""
    names = (
        "objective",
        "alpha",
        "eval_dataset",
        "callbacks",
        "compute_metrics",
        "compute_loss_func",
        "data_collator",
    )
    ours = {key: fields.pop(key) for key in names if key in fields}
    net = model() if net is None else net
    dataset = data() if dataset is None else dataset
    run = CoLearningTrainer(net, tiny.arguments(folder, **fields), train_dataset=dataset, balance=balance, **ours)
    run.remove_callback(PrinterCallback)
    return run
