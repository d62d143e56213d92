"""Trains on streams on the processes of a torchrun and leaves a `result_<rank>.json` in the working folder.

Every scenario runs in the same processes, one after another. A sample's id is also its first pixel, so that what reaches
the student can be told.
"""

import hf_colearn  # noqa: F401  (before transformers: the torchaudio guard)


# isort: split

import json
from pathlib import Path

import torch
import torch.distributed as dist
from accelerate import PartialState
from datasets import IterableDataset
from datasets.distributed import split_dataset_by_node
from transformers import TrainerCallback

import tiny
from hf_colearn import CoLearningTrainer, Paired, classification_metrics
from hf_colearn.data.sample_ids import TARGETS


SAMPLES = 32


class Linear(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.latent, self.classifier = torch.nn.Linear(4, 24), torch.nn.Linear(24, 10)

    def forward(self, pixel_values, labels=None):
        latents = self.latent(pixel_values / SAMPLES)
        logits = self.classifier(latents)
        loss = None if labels is None else torch.nn.functional.cross_entropy(logits, labels)
        return {"loss": loss, "logits": logits, "latents": latents}


def samples(shards):
    for shard in shards:
        for i in shard:
            yield {"pixel_values": [float(i), 1.0, 2.0, 3.0], "labels": i % 10, "sample_id": i}


def stream(shards=4, sizes=None):
    """Ids from 0, in shards of equal or of given sizes."""
    sizes = [SAMPLES // shards] * shards if sizes is None else sizes
    starts = [sum(sizes[:k]) for k in range(len(sizes))]
    ids = [list(range(start, start + size)) for start, size in zip(starts, sizes, strict=True)]
    return IterableDataset.from_generator(samples, gen_kwargs={"shards": ids})


class Epochs(TrainerCallback):
    """The ids that trained in this process, an epoch a list, and whether each came with its own target."""

    def __init__(self, bank):
        self.bank, self.ids, self.matched = bank, [], True

    def on_epoch_begin(self, args, state, control, **kwargs):
        self.ids.append([])

    def __call__(self, batch):  # as an augmentation
        ids = batch["pixel_values"][:, 0].long()
        if self.ids:
            self.ids[-1] += ids.tolist()
        self.matched &= torch.equal(batch[TARGETS], self.bank.lookup(ids.numpy()))
        return batch


def train(dataset, steps=8, resume=None, **kwargs):
    bank = tiny.bank(rows=SAMPLES).scaled("none")
    seen = Epochs(bank)
    torch.manual_seed(0)
    defaults = {"per_device_train_batch_size": 4, "max_steps": steps, "dataloader_pin_memory": False}
    run = CoLearningTrainer(
        Linear(),
        tiny.arguments("out", **{**defaults, **kwargs}),
        train_dataset=dataset,
        bank=bank,
        pairing=Paired(),
        augment=seen,
        callbacks=[seen],
    )
    run.train(resume_from_checkpoint=resume)
    weights = sum(weight.double().sum().item() for weight in run.model.parameters())
    losses = [entry["loss"] for entry in run.state.log_history if "loss" in entry]
    return {"epochs": seen.ids, "matched": seen.matched, "weights": weights, "losses": losses}


def refused(dataset, **kwargs):
    try:
        train(dataset, **kwargs)
    except Exception as error:
        return f"{type(error).__name__}: {error}"


def resumed():
    """A run of two and a half epochs, and one that starts from its checkpoint in the middle of the second."""
    shuffled = {"seed": 3, "buffer_size": 8}
    whole = train(stream().shuffle(**shuffled), steps=10, save_strategy="steps", save_steps=3)
    again = train(stream().shuffle(**shuffled), steps=10, resume="out/checkpoint-6")
    return whole, again


def averaged(resume=None):
    """Batch statistics differ between the processes, and the model that is evaluated and kept does not."""
    run = CoLearningTrainer(
        tiny.student(tiny.resnet()),
        tiny.arguments(
            "ema",
            max_steps=6,
            ema_decay=0.5,
            layer_decay=0.5,
            lr_step_epochs=0.5,
            lr_scheduler_type="linear",
            channels_last=True,
            bf16=True,
            eval_strategy="steps",
            eval_steps=3,
            save_strategy="steps",
            save_steps=3,
            per_device_train_batch_size=4,
            gradient_accumulation_steps=2,
        ),
        train_dataset=tiny.digits(64),
        eval_dataset=tiny.digits(32),
        bank=tiny.bank(),
        pairing=tiny.random_prompt(),
        compute_metrics=classification_metrics(("accuracy",)),
    )
    run.train(resume_from_checkpoint=resume)
    during = [entry["eval_loss"] for entry in run.state.log_history if "eval_loss" in entry]
    state = {name: value.double().sum().item() for name, value in run.model.state_dict().items()}
    return {"during": during, "after": run.evaluate()["eval_loss"], "state": state}


def main():
    state = PartialState(cpu=True)
    rank, world = state.process_index, state.num_processes
    shuffled = stream().shuffle(seed=3, buffer_size=8)
    result = {
        "world_size": dist.get_world_size(),
        "whole": train(shuffled),
        "fewer shards than processes": train(stream(shards=1)),
        "workers": train(shuffled, dataloader_num_workers=2, dataloader_persistent_workers=True),
        "workers, one shard": train(stream(shards=1), dataloader_num_workers=2),
        "split": train(split_dataset_by_node(shuffled, rank, world)),
        "handed out": train(shuffled, accelerator_config={"dispatch_batches": True}),
        "uneven": train(stream(sizes=[20, 12]), steps=6),
        "uneven, accumulated": train(stream(sizes=[20, 12]), steps=2, gradient_accumulation_steps=2),
        "split for others": refused(split_dataset_by_node(shuffled, 0, 4)),
        "split and handed out": refused(
            split_dataset_by_node(shuffled, rank, world), accelerator_config={"dispatch_batches": True}
        ),
        "without a seed": refused(stream().shuffle(buffer_size=8)),
        "resumed": resumed(),
        "averaged": averaged(),
        "averaged, resumed": averaged("ema/checkpoint-3"),
    }
    Path(f"result_{rank}.json").write_text(json.dumps(result))
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
