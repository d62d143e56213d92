"""Training on a GPU: `python -m tests.benchmarks.gpu_throughput [--quick] [--minutes 7] [--students NAME ...]`.

ResNet-50 and ViT-B/16 in bfloat16 autocast, compiled, batch 256, images in the GPU's memory: images/s and the share of
the device's peak for plain `Trainer`, for ours with a bank, and with BERT-large at every step as in the released code. Then
what a step is made of (gpu_step.py), and look-ups in a bank of 1.28M x 1024 beside a step. `--quick` runs anywhere.
"""

from collections.abc import Iterator

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import PreTrainedConfig

from tests.benchmarks import bank, gpu_step, online
from tests.benchmarks.gpu_run import Setting, forget_compilation, run
from tests.benchmarks.timing import Row, in_turn, median_with_interval
from tests.benchmarks.trainers import (
    LATENT_DIM,
    Turn,
    colearning_trainer,
    make_arguments,
    make_bank,
    make_student,
    plain_trainer,
)


NOTE_STEP = (
    "From one optimizer step to the next in three real `train()` loops that take turns with one student, which is compiled "
    "once; the clock is read when the GPU has ended the step before the first timed one, and the last. Images in the GPU's "
    "memory, labels and targets from two data loader workers. The online teacher runs in the main process, whose loop has "
    "no workers: tokenizer and forward pass on the batch's prompts at every step, as in the code released with Lee & Yoon "
    "(ICLR 2025)."
)
NOTE_PEAK = (
    "Operations of the student's forward and backward pass (`torch.utils.flop_counter`) at the median images/s, over "
    "{peak:,.0f} TFLOP/s (`--peak_tflops`); the optimizer, the loss and the teacher do not count."
)
NOTE_GRAPHS = (
    "`torch._dynamo`'s count after all turns less that after the first turn of each: 0 says that none was slow by it."
)


def flops_per_image(backbone: PreTrainedConfig) -> int:
    """Of a forward and a backward pass, a multiplication and an addition as two; nothing is computed."""
    student = make_student(backbone, LATENT_DIM, 1, "meta").to("meta").train()
    with FlopCounterMode(display=False) as counter:
        outputs = student(labels=torch.zeros(1, dtype=torch.int64, device="meta"))
        (outputs.loss + outputs.latents.sum()).backward()
    return counter.get_total_flops()


def turns(setting: Setting, backbone: PreTrainedConfig) -> list[Turn]:
    """Of plain `Trainer`, ours, and ours with the teacher online, with one student."""
    student = make_student(backbone, setting.teacher.dim, setting.batch, setting.device)
    compiled = {"bf16": True, "torch_compile": True, "torch_compile_backend": setting.compiler()}
    both = {**setting.arguments(), **compiled}
    with_workers = {} if setting.quick else {"dataloader_num_workers": 2}
    args = make_arguments(setting.batch, setting.steps, **both, **with_workers)
    alone = make_arguments(setting.batch, setting.steps, **both)  # a forked worker cannot use the GPU
    return [
        Turn(plain_trainer(student, args)),
        Turn(colearning_trainer(student, args, make_bank(setting.teacher.dim))),
        Turn(
            colearning_trainer(student, alone, make_bank(setting.teacher.dim), online.OnlineTeacher(setting.teacher))
        ),
    ]


def graphs() -> int:
    """How many were compiled since they were forgotten."""
    return torch._dynamo.utils.counters["stats"]["unique_graphs"]


def row(what: str, sizes: str, values: np.ndarray, unit: str, target: str = "", note: str = NOTE_STEP) -> Row:
    repeats = f"{len(values)} turns"
    return Row("gpu_throughput", what, sizes, *median_with_interval(values), unit, repeats, target, note)


def student_rows(setting: Setting, share: float, name: str, backbone: PreTrainedConfig) -> Iterator[Row]:
    """One student's; what the first turns compile is not counted."""
    forget_compilation()
    until, flops, sizes = (
        setting.until(share),
        flops_per_image(backbone),
        f"{name}, batch {setting.batch}, bf16, compiled",
    )
    calls = turns(setting, backbone)
    for call in calls:
        call()
    compiled = graphs()
    plain, ours, with_teacher = setting.batch / in_turn(calls, setting.rounds, warmup=0, until=until).T
    recompiled = np.array([graphs() - compiled])
    note = NOTE_PEAK.format(peak=setting.peak_tflops)
    percent = 100 * flops / (setting.peak_tflops * 1e12)
    yield row("ours / plain, images/s", sizes, ours / plain, "x", ">= 0.98")
    yield row("plain Trainer", sizes, plain, "images/s")
    yield row("ours, with a bank", sizes, ours, "images/s")
    yield row("BERT-large's size at every step", sizes, with_teacher, "images/s")
    yield row("ours / BERT-large's size at every step, images/s", sizes, ours / with_teacher, "x")
    yield row("plain Trainer, share of the peak", sizes, percent * plain, "%", note=note)
    yield row("ours, share of the peak", sizes, percent * ours, "%", note=note)
    yield row("graphs compiled in the turns", sizes, recompiled, "", "<= 0", NOTE_GRAPHS)


def rows(setting: Setting) -> Iterator[Row]:
    """Compiling takes about a minute a student, and the turns take some of the time that is left."""
    for left, (name, backbone) in zip(range(len(setting.backbones), 0, -1), setting.backbones.items(), strict=True):
        yield from student_rows(setting, 2 / 3 / left, name, backbone)


def bank_rows(setting: Setting) -> Iterator[Row]:
    """Writing the bank's 5 GB takes most of it."""
    stored, pairs = (2_000, 2) if setting.quick else (1_280_000, 6)
    name, backbone = next(iter(setting.backbones.items()))
    with bank.bank_on_disk(stored, LATENT_DIM) as folder:
        sizes = f"{stored:,} x {LATENT_DIM}, float32"
        asked = {**setting.arguments(), "bf16": True}
        yield from bank.share_rows(folder, sizes, name, backbone, setting.batch, pairs, setting.device, **asked)


if __name__ == "__main__":
    run({"throughput": rows, "step": gpu_step.rows, "bank": bank_rows}, __doc__.splitlines()[0])
