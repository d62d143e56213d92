"""One SGD step on eight samples of which some have a label and some a target, in micro-batches and processes.

torchrun --nproc_per_node 2 tests/scripts/step_means.py OUT
"""

import sys
from pathlib import Path


sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parents[2]))

import tiny  # noqa: E402  (before transformers: the torchaudio guard)


# isort: split
import numpy as np  # noqa: E402
import torch  # noqa: E402
from accelerate import PartialState  # noqa: E402
from datasets import Dataset  # noqa: E402

from hf_colearn import (  # noqa: E402
    CoLearningForMultimodalClassification,
    CoLearningTrainer,
    ConstantAlpha,
    MultimodalCollator,
    TeacherBank,
)
from hf_colearn.teachers.pairing import Pairing  # noqa: E402
from hf_colearn.utils.distributed import destroy_process_group  # noqa: E402


COUNTS = (1, 4, 8)  # of 8 samples
CASES = [(8, 8), (8, 0), (8, 1), (4, 8), (4, 4), (1, 8), (1, 1), (1, 0), (0, 8), (0, 1), (0, 0)]  # labelled and paired
ON_TWO = [(8, 1), (4, 4), (1, 8), (0, 1)]
MODALITIES = ("upper", "lower")
COLLATOR = MultimodalCollator(dict.fromkeys(MODALITIES))


class FirstPaired(Pairing):
    """A target for the samples of the highest ids, so that the labelled ones are others."""

    def __init__(self, count):
        self.count = count

    def rows(self, bank, sample_ids, epoch, seed):
        return sample_ids

    def targets(self, bank, sample_ids, epoch, seed):
        has_one = torch.from_numpy(sample_ids >= 8 - self.count)
        return torch.where(has_one[:, None], super().targets(bank, sample_ids, epoch, seed), torch.nan)


def data(labelled):
    digits = tiny.digits(8).with_format("numpy")
    labels = np.where(np.arange(8) < labelled, digits["labels"][:], -100)
    return digits.remove_columns("labels").add_column("labels", labels.tolist()).with_format("torch")


def bank():
    return TeacherBank.from_latents(np.random.default_rng(1).normal(size=(8, 24)).astype(np.float32))


def step(labelled, paired, batch, accumulation=1, alpha=0.4, folder="out", **kwargs):
    """The weights after one step of SGD with a learning rate of 0.5, and the log of it."""
    run = CoLearningTrainer(
        tiny.student(),
        arguments(folder, batch, accumulation, **kwargs.pop("arguments", {})),
        train_dataset=data(labelled),
        bank=bank(),
        pairing=FirstPaired(paired),
        alpha=ConstantAlpha(1.0 if labelled == 0 else alpha),
        **kwargs,
    )
    return trained(run)


def arguments(folder, batch, accumulation, **kwargs):
    plain = {"optim": "sgd", "learning_rate": 0.5, "max_grad_norm": 0.0, "max_steps": 1}
    sizes = {"per_device_train_batch_size": batch, "gradient_accumulation_steps": accumulation}
    return tiny.arguments(folder, **{**plain, **sizes, "latent_scaling": "none", **kwargs})


def multimodal_data(labelled):
    """Upper and lower halves of digits; the first sample has no lower half, the last no upper one."""
    whole = data(labelled).with_format("numpy")[:]
    halves = {"upper": whole["pixel_values"][:, :, :4].tolist(), "lower": whole["pixel_values"][:, :, 4:].tolist()}
    halves["lower"][0] = halves["upper"][7] = None
    columns = {f"{name}_pixel_values": half for name, half in halves.items()}
    return Dataset.from_dict({**columns, "labels": whole["labels"]})


def multimodal(weight=0.5):
    torch.manual_seed(0)
    half = tiny.vit(image_size=(4, 8), patch_size=2)
    return CoLearningForMultimodalClassification.from_backbones(
        dict.fromkeys(MODALITIES, half), latent_dim=16, num_labels=10, modality_loss_weight=weight
    )


def multimodal_step(labelled, batch, accumulation=1, weight=0.5, folder="out"):
    run = CoLearningTrainer(
        multimodal(weight),
        arguments(folder, batch, accumulation),
        train_dataset=multimodal_data(labelled),
        data_collator=COLLATOR,
    )
    return trained(run)


def trained(run):
    run.train()
    weights = {name: weight.detach().clone() for name, weight in run.model.state_dict().items()}
    return weights, run.state.log_history[0]


def main():
    folder = Path(sys.argv[1])
    assert PartialState(cpu=True).num_processes == 2
    found = {case: step(*case, batch=4, folder=folder) for case in ON_TWO}
    found |= {labelled: multimodal_step(labelled, batch=4, folder=folder) for labelled in COUNTS[:2]}
    torch.save(found, folder / f"steps-{PartialState().process_index}.pt")
    destroy_process_group()


if __name__ == "__main__":
    main()
