"""Learns alpha on one process or several: `learn_alpha.py FOLDER --batch 4 --processes 2`."""

import argparse
import json

import hf_colearn  # noqa: F401  (before transformers: the torchaudio guard)


# isort: split

import torch

import tiny
from hf_colearn import CoLearningForMultimodalClassification, CoLearningTrainer, ContrastiveAlignment, LearnedAlpha
from hf_colearn.data.multimodal import MultimodalCollator
from hf_colearn.utils.distributed import destroy_process_group, rank, world_size


def digits_in_halves(samples=128):
    """The upper half of a digit as one modality, its lower half as another."""

    def halves(batch):
        pixels = torch.as_tensor(batch["pixel_values"])
        return {"upper_pixel_values": pixels[:, :, :4], "lower_pixel_values": pixels[:, :, 4:]}

    return tiny.digits(samples).map(halves, batched=True, remove_columns="pixel_values").with_format("torch")


def train(folder, batch, **alpha_kwargs):
    torch.manual_seed(0)
    half = tiny.vit(image_size=(4, 8), patch_size=2)
    model = CoLearningForMultimodalClassification.from_backbones(
        {"upper": half, "lower": half}, latent_dim=16, num_labels=10, fusion="concat"
    )
    # Adam would blow up what rounding leaves of gradients that are zero (the keys' biases).
    arguments = tiny.arguments(folder, per_device_train_batch_size=batch, max_steps=9, optim="sgd", learning_rate=0.02)
    alpha = LearnedAlpha(
        "contrastive", interval=2, **{"solver": "neumann", "learning_rate": 0.02, "outer_split": 32, **alpha_kwargs}
    )
    trainer = CoLearningTrainer(
        model,
        arguments,
        train_dataset=digits_in_halves(),
        data_collator=MultimodalCollator({"upper": None, "lower": None}),
        objective=ContrastiveAlignment(0.5),
        alpha=alpha,
    )
    trainer.train()
    return trainer


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("folder")
    parser.add_argument("--batch", type=int)
    parser.add_argument("--processes", type=int)
    options = parser.parse_args()
    trainer = train(options.folder, options.batch)
    assert world_size() == options.processes
    found = {"history": trainer.state.log_history, "alpha": trainer.alpha.weights()}
    with open(f"{options.folder}/result-{rank()}.json", "w") as file:
        json.dump(found, file)
    destroy_process_group()
