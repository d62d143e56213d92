"""A co-learning step beside a plain `Trainer` step: the same student, weights, images, labels and arguments."""

import numpy as np
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import PreTrainedConfig, default_data_collator

from hf_colearn import Noisy
from hf_colearn.data.sample_ids import TARGETS
from hf_colearn.teachers.collator import TargetCollator
from hf_colearn.teachers.teacher import Teacher
from tests.benchmarks.timing import Row, median_with_interval, paired, ratio_row, timed
from tests.benchmarks.trainers import (
    IMAGES,
    LATENT_DIM,
    PROMPTS,
    Samples,
    Turn,
    colearning_trainer,
    make_arguments,
    make_bank,
    make_student,
    plain_trainer,
    resnet50,
    vit_small,
    vit_tiny,
)


NOTE_STEP = (
    "From one optimizer step to the next in two real `train()` loops that take turns of a few steps: batch, targets, "
    "forward, backward, clipping, AdamW, callbacks, logs. Images lie in memory and nothing runs in workers, so that "
    "co-learning's part weighs as much as it can; a small batch does the same."
)
NOTE_ADDED = (
    "Ours minus plain with a student so small that the difference stands out of the noise; batch, latent and bank are "
    "the same, and what is added does not depend on the backbone. The share is of the large one's median plain step."
)
NOTE_COLLATOR = (
    "Collating with targets minus without: a part of the step above, hidden where the data loader has workers."
)
NOTE_READS = (
    "Operations in `compute_loss` that hand a value to the host (`item`, `nonzero`); on a GPU each would make it wait. The "
    "losses of a run's first step are read once, to see whether they are finite; the step counted here comes after it."
)


def step_seconds(
    backbone: PreTrainedConfig, batch_size: int, timed_steps: int, pairs: int, device: str = "cpu", **arguments
) -> np.ndarray:
    """Seconds of a plain and of a co-learning step, `(pairs, 2)`, each the mean of a turn of `timed_steps`.

    `arguments` are TrainingArguments of both.
    """
    args = make_arguments(batch_size, timed_steps, **arguments)
    plain = plain_trainer(make_student(backbone, LATENT_DIM, batch_size, device), args)
    ours = colearning_trainer(make_student(backbone, LATENT_DIM, batch_size, device), args, make_bank())
    return paired(Turn(plain), Turn(ours), pairs)


def collator_seconds(pairing, batch_size: int, pairs: int) -> np.ndarray:
    """Seconds of collating a batch without and with targets, `(pairs, 2)`."""
    samples = Samples()
    ids = np.random.default_rng(0).integers(IMAGES, size=batch_size)
    features = [samples[int(i)] for i in ids]
    without = TargetCollator(default_data_collator, "sample_id")
    epoch = torch.zeros((), dtype=torch.int64)
    teachers = {TARGETS: Teacher(make_bank(), pairing)}
    with_targets = TargetCollator(default_data_collator, "sample_id", teachers, with_ids=True, epoch=epoch)
    return paired(lambda: timed(lambda: without(features)), lambda: timed(lambda: with_targets(features)), pairs)


class HostReads(TorchDispatchMode):
    """Counts the operations that hand a tensor's value, or a size that depends on it, to the host."""

    _READS = (torch.ops.aten._local_scalar_dense.default, torch.ops.aten.nonzero.default)

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += func in self._READS
        return func(*args, **(kwargs or {}))


def host_reads(batch_size: int = 2) -> int:
    """Of `CoLearningTrainer.compute_loss`."""
    student = make_student(vit_tiny(), LATENT_DIM, batch_size)
    trainer = colearning_trainer(student, make_arguments(batch_size, 1), make_bank())
    batch = next(iter(trainer.get_train_dataloader()))
    trainer.model.train()
    trainer.compute_loss(trainer.model, dict(batch))
    with HostReads() as reads:
        trainer.compute_loss(trainer.model, dict(batch))
    return reads.count


def difference_row(what: str, sizes: str, seconds: np.ndarray, step: float, note: str, target: str = "") -> Row:
    """A row of (second - first) as a share of a step."""
    shares = 100 * (seconds[:, 1] - seconds[:, 0]) / step
    return Row("step", what, sizes, *median_with_interval(shares), "%", f"{len(seconds)} pairs", target, note)


def rows(quick: bool, full: bool) -> list[Row]:
    """ViT-S (with `full`, ResNet-50 as well), and what the addition consists of."""
    batch, timed_steps, pairs = (2, 2, 2) if quick else (2, 4, 30)
    backbones = {"tiny ViT": vit_tiny()} if quick else {"ViT-S/16, 224 px": vit_small()}
    if full:
        backbones["ResNet-50, 224 px"] = resnet50()
    latent = f"D {LATENT_DIM}, float32"
    result, steps = [], []
    for name, backbone in backbones.items():
        seconds = step_seconds(backbone, batch, timed_steps, pairs)
        steps.append(float(np.median(seconds[:, 0])))
        sizes = f"{name}, batch {batch}, {latent}"
        result.append(
            ratio_row("step", "co-learning step / plain step", sizes, seconds, target="<= 1.02", note=NOTE_STEP)
        )
    share_of = f"of a step of {next(iter(backbones))}, batch {batch}, {latent}"
    seconds = step_seconds(vit_tiny(), batch, 10 * timed_steps, pairs)
    result.append(difference_row("what co-learning adds, alone", share_of, seconds, steps[0], NOTE_ADDED, "<= 2"))
    for name, pairing in (("RandomPrompt", PROMPTS), ("Noisy(RandomPrompt)", Noisy(PROMPTS))):
        seconds = collator_seconds(pairing, batch, 100 * pairs)
        result.append(difference_row(f"targets of {name} in the collator", share_of, seconds, steps[0], NOTE_COLLATOR))
    reads = host_reads()
    result.append(
        Row("step", "host reads in compute_loss", "tiny ViT", reads, reads, reads, "", "once", "<= 0", NOTE_READS)
    )
    return result
