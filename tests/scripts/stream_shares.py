"""Streams whose shares differ in length, on the processes of a torchrun: `stream_shares.py FOLDER`.

A sample's id is its first feature, so that what reaches the student can be told; its teacher's latent comes with it.
"""

import hf_colearn  # noqa: F401  (before transformers: the torchaudio guard)


# isort: split

import os
from pathlib import Path

import torch
from accelerate import PartialState
from datasets import IterableDataset
from transformers import TrainerCallback

import processes
import tiny
from hf_colearn import CoLearningForFeatureClassification, CoLearningTrainer, LatentColumn
from hf_colearn.models.configuration import FeatureBackboneConfig
from hf_colearn.utils.distributed import rank, world_size


ALPHA, RATE, DIM = 0.25, 0.05, 3
SHARDS = [8, 4, 6, 4, 6, 4]  # 20 and 12 samples of two processes


def sample(i):
    """Every fourth sample has no label, every third no latent."""
    numbers = torch.Generator().manual_seed(i)
    features = [float(i), *torch.randn(4, generator=numbers).tolist()]
    latent = torch.randn(DIM, generator=numbers).tolist()
    label = -100 if i % 4 == 3 else i % 5
    return {"features": features, "labels": label, "latents": None if i % 3 == 2 else latent}


def samples(shards, log):
    for shard in shards:
        for i in shard:
            with open(f"{log}-{rank()}", "a") as read:  # workers are processes of their own
                read.write(f"{i}\n")
            yield sample(i)


def stream(sizes, log="read"):
    """Ids from 0, in shards of these sizes; what is read of the source is written down."""
    starts = [sum(sizes[:k]) for k in range(len(sizes))]
    ids = [list(range(start, start + size)) for start, size in zip(starts, sizes, strict=True)]
    return IterableDataset.from_generator(samples, gen_kwargs={"shards": ids, "log": log})


def student(latent_dim=DIM, with_batch_norm=False):
    torch.manual_seed(0)
    config = FeatureBackboneConfig(feature_dim=5, hidden_dims=[6])
    model = CoLearningForFeatureClassification.from_backbone(config, latent_dim=latent_dim, num_labels=5)
    if with_batch_norm:
        model.backbone.layers.append(torch.nn.BatchNorm1d(1))  # of the one step
    return model


class Seen(TrainerCallback):
    """The ids of every micro-batch that trains the student, by epoch and optimizer step; of those that count."""

    def __init__(self, model, epochs):
        self.epochs, self.ids = epochs, []
        model.register_forward_pre_hook(self.look, with_kwargs=True)

    def look(self, model, args, kwargs):
        features, labels = kwargs["features"], kwargs["labels"]
        ids = features[:, 0].long()
        counts = bool((labels != -100).any()) or bool((ids % 4 == 3).all())
        self.ids[-1][-1] += [ids.tolist()] if counts else [[]]

    def on_epoch_begin(self, args, state, control, **kwargs):
        self.ids.append([])

    def on_step_begin(self, args, state, control, **kwargs):
        self.ids[-1].append([])

    def on_epoch_end(self, args, state, control, **kwargs):
        control.should_training_stop |= state.epoch >= self.epochs or len(self.ids) >= self.epochs


def noise(batch):
    """An augmentation that draws from torch's generator, and works in place."""
    batch["features"][:, 1:] += 0.1 * torch.randn_like(batch["features"][:, 1:])
    return batch


def run(dataset, folder, epochs=2, resume=None, model=None, augment=None, objective=None, **kwargs):
    model = student() if model is None else model
    seen = Seen(model, epochs)
    defaults = {
        "per_device_train_batch_size": 4,
        "max_steps": 100,
        "optim": "sgd",
        "learning_rate": RATE,
        "alpha": ALPHA,
    }
    fixed = {"max_grad_norm": 0.0, "latent_scaling": "none", "dataloader_pin_memory": False}
    trainer = CoLearningTrainer(
        model,
        tiny.arguments(folder, **{**defaults, **fixed, **kwargs}),
        train_dataset=dataset,
        bank=LatentColumn("latents", dim=DIM),
        augment=augment,
        objective=objective,
        callbacks=[seen],
    )
    trainer.train(resume_from_checkpoint=resume)
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    return {"epochs": seen.ids, "losses": losses, "weights": flat(model)}


def flat(model):
    return torch.cat([weight.detach().double().flatten() for weight in model.parameters()])


def by_hand(steps):
    """The student's weights after plain gradient steps on these samples, a list of ids a step."""
    model = student()
    optimizer = torch.optim.SGD(model.parameters(), RATE)
    for ids in steps:
        rows = [sample(i) for i in ids]
        outputs = model(features=torch.tensor([row["features"] for row in rows]))
        labels = torch.tensor([row["labels"] for row in rows])
        paired = [k for k, row in enumerate(rows) if row["latents"] is not None]
        targets = torch.tensor([rows[k]["latents"] for k in paired]).view(-1, DIM)
        task = (
            torch.nn.functional.cross_entropy(outputs.logits, labels)
            if (labels >= 0).any()
            else 0 * outputs.logits.sum()
        )
        latent = (outputs.latents[paired] - targets).square().mean() if paired else 0 * outputs.latents.sum()
        optimizer.zero_grad()
        ((1 - ALPHA) * task + ALPHA * latent).backward()
        optimizer.step()
    return flat(model)


def resumed(folder, **options):
    """A whole run of two epochs, and runs from its checkpoints with what each has read of the source."""
    options = {"epochs": 99, "max_steps": 10, "save_strategy": "steps", "save_steps": 4, "augment": noise, **options}
    whole = run(stream(SHARDS), folder, **options)
    found = {}
    for step in (4, 8):
        again = run(stream(SHARDS, f"read-after-{step}"), folder, resume=f"{folder}/checkpoint-{step}", **options)
        read = Path(f"read-after-{step}-{rank()}")
        found[step] = {**again, "read": [int(i) for i in read.read_text().split()]}
        read.unlink()
    return {"whole": whole, "again": found}


def batch_statistics(folder):
    model = student(with_batch_norm=True)
    ids = run(stream([12, 20]), folder, epochs=1, model=model)["epochs"]
    return {"epochs": ids, "batches": int(model.backbone.layers[-1].num_batches_tracked)}


CASES = {
    "uneven": lambda folder: run(stream([20, 12]), folder),
    "one shard a sample": lambda folder: run(stream([7]), folder, per_device_train_batch_size=2),
    "workers, shuffled, accumulated": lambda folder: run(
        stream([9, 5, 3, 8]).shuffle(seed=3, buffer_size=4),
        folder,
        per_device_train_batch_size=2,
        gradient_accumulation_steps=2,
        dataloader_num_workers=2,
    ),
    "batch statistics": batch_statistics,
    "resumed": resumed,
    "resumed, workers": lambda folder: resumed(folder, dataloader_num_workers=2),
}


def train(name, folder, processes=1):
    assert world_size() == processes
    os.chdir(folder)
    return CASES[name](str(folder / name.replace(" ", "_").replace(",", "")))


if __name__ == "__main__":
    PartialState(cpu=True)  # what is read is written down by process
    processes.write_cases(CASES, train)
