"""Two teachers of different widths with a learned alpha each: `two_teachers.py FOLDER --batch 4 --processes 2`."""

import argparse
import json

import hf_colearn  # noqa: F401  (before transformers: the torchaudio guard)


# isort: split


import tiny
from hf_colearn import CoLearningTrainer, LearnedAlpha, Paired, Teacher
from hf_colearn.utils.distributed import destroy_process_group, rank, world_size


TERMS = ("latent_text", "latent_audio")
AUDIO_DIM = 12


def teachers():
    """The text teacher has the student's width and a latent a class, the audio teacher another and one a sample."""
    labels = tiny.digits(256)["labels"]
    return {"text": Teacher(tiny.bank(), Paired(labels)), "audio": Teacher(tiny.bank(256, AUDIO_DIM, seed=1))}


def make_trainer(folder, batch, **kwargs):
    # SGD, for Adam would blow up what rounding leaves of gradients that are zero (the keys' biases).
    fields = {"per_device_train_batch_size": batch, "max_steps": 6, "optim": "sgd", "learning_rate": 0.02, **kwargs}
    return CoLearningTrainer(
        tiny.student(training_heads={"latent_audio": AUDIO_DIM}),
        tiny.arguments(folder, **fields),
        train_dataset=tiny.digits(128),
        teachers=teachers(),
        alpha=LearnedAlpha(TERMS, interval=2, solver="neumann", learning_rate=0.02, outer_split=32),
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("folder")
    parser.add_argument("--batch", type=int)
    parser.add_argument("--processes", type=int)
    options = parser.parse_args()
    trainer = make_trainer(options.folder, options.batch)
    trainer.train()
    assert world_size() == options.processes
    weights = {name: weight.double().sum().item() for name, weight in trainer.model.state_dict().items()}
    found = {"history": trainer.state.log_history, "alpha": trainer.alpha.weights(), "weights": weights}
    with open(f"{options.folder}/result-{rank()}.json", "w") as file:
        json.dump(found, file)
    destroy_process_group()
