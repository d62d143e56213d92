"""Training on a GPU: `python -m tests.benchmarks.gpu_throughput [--quick] [--students NAME ...] [--output FOLDER]`.

ResNet-50 and ViT-B/16 in bfloat16 autocast, compiled, batch 256, images in the GPU's memory: images/s and the share of
the device's peak for plain `Trainer`, for ours with a bank, and with BERT-large at every step as in the released code. It
also makes any wait for the GPU inside `CoLearningTrainer.compute_loss` an error, and sets look-ups in a bank of
1.28M x 1024 beside a step. `--quick` runs anywhere.
"""

import argparse
import gc
import os
from pathlib import Path

import numpy as np
import torch
import transformers
from torch.utils.flop_counter import FlopCounterMode
from transformers import BertConfig, PreTrainedConfig, ViTConfig

from hf_colearn import CoLearningTrainer
from tests.benchmarks import bank, online, step
from tests.benchmarks.encoding import minilm
from tests.benchmarks.report import machine, write_report
from tests.benchmarks.timing import Row, median_with_interval, paired
from tests.benchmarks.trainers import (
    LATENT_DIM,
    PROMPTS,
    Samples,
    Turn,
    colearning_trainer,
    make_arguments,
    make_bank,
    make_student,
    resnet50,
    vit_tiny,
)


STUDENTS = {"resnet50": ("ResNet-50, 224 px", resnet50), "vit_b16": ("ViT-B/16, 224 px", ViTConfig)}
H200_TFLOPS = 989.0  # dense bfloat16, NVIDIA's data sheet of H100 SXM and H200

NOTE_STEP = (
    "From one optimizer step to the next in two real `train()` loops that take turns, each waiting for the GPU at the end "
    "of every step; images in the GPU's memory, labels and targets from two data loader workers in both."
)
NOTE_ONLINE = online.NOTE + " The teacher runs in the main process, so neither loop has workers."
NOTE_PEAK = (
    "Operations of the student's forward and backward pass (`torch.utils.flop_counter`) at the median images/s, over "
    "{peak:,.0f} TFLOP/s (`--peak_tflops`); the optimizer, the loss and the teacher do not count."
)
NOTE_WAITS = "`torch.cuda.set_sync_debug_mode('error')` around `compute_loss`, from the third step on; not compiled."


def online_seconds(
    encoder, backbone: PreTrainedConfig, batch: int, timed_steps: int, pairs: int, device: str, **arguments
) -> np.ndarray:
    """Seconds of a step with the teacher online and with its bank, `(pairs, 2)`."""
    latents = make_bank(encoder.dim)

    def turn(pairing) -> Turn:
        student = make_student(backbone, encoder.dim, batch, device)
        return Turn(colearning_trainer(student, make_arguments(batch, timed_steps, **arguments), latents, pairing))

    return paired(turn(online.OnlineTeacher(encoder)), turn(PROMPTS), pairs)


def flops_per_image(backbone: PreTrainedConfig) -> int:
    """Of a forward and a backward pass, a multiplication and an addition as two; nothing is computed."""
    student = make_student(backbone, LATENT_DIM, 1, "meta").to("meta").train()
    with FlopCounterMode(display=False) as counter:
        outputs = student(labels=torch.zeros(1, dtype=torch.int64, device="meta"))
        (outputs.loss + outputs.latents.sum()).backward()
    return counter.get_total_flops()


def throughput_row(what: str, sizes: str, seconds: np.ndarray, batch: int, note: str) -> Row:
    values = median_with_interval(batch / seconds)
    return Row("gpu_throughput", what, sizes, *values, "images/s", f"{len(seconds)} turns", note=note)


def gain_row(what: str, sizes: str, seconds: np.ndarray, note: str, target: str = "") -> Row:
    """A row of the second's images/s over the first's, pair by pair."""
    ratios = median_with_interval(seconds[:, 0] / seconds[:, 1])
    return Row("gpu_throughput", what, sizes, *ratios, "x", f"{len(seconds)} pairs", target, note)


def peak_row(what: str, sizes: str, seconds: np.ndarray, flops_per_batch: float, peak_tflops: float) -> Row:
    shares = median_with_interval(100 * flops_per_batch / seconds / (peak_tflops * 1e12))
    note = NOTE_PEAK.format(peak=peak_tflops)
    return Row("gpu_throughput", what, sizes, *shares, "%", f"{len(seconds)} turns", note=note)


class GuardedTrainer(CoLearningTrainer):
    """Makes any wait for the GPU inside `compute_loss` an error, once the first steps have warmed everything up."""

    def compute_loss(self, *args, **kwargs):
        torch.cuda.set_sync_debug_mode("error" if self.state.global_step >= 2 else "default")
        try:
            return super().compute_loss(*args, **kwargs)
        finally:
            torch.cuda.set_sync_debug_mode("default")


def waits_row(name: str, backbone, batch: int, timed_steps: int, device: str, **arguments) -> Row:
    """1 where `compute_loss` waits, else 0."""
    trainer = GuardedTrainer(
        model=make_student(backbone, LATENT_DIM, batch, device),
        args=make_arguments(batch, timed_steps, **arguments),
        train_dataset=Samples(),
        bank=make_bank(),
        pairing=PROMPTS,
    )
    waits = 0
    try:
        Turn(trainer)()
    except RuntimeError as error:
        if "synchronizing" not in str(error):
            raise
        print(f"{name}: {error}")
        waits = 1
    repeats = f"{timed_steps} steps"
    what = "compute_loss waits for the GPU"
    return Row("gpu_throughput", what, name, *[waits] * 3, "", repeats, "<= 0", NOTE_WAITS)


def rows(quick: bool, device: str, students: list[str], peak_tflops: float) -> list[Row]:
    """Eager before compiled: `torch_compile=True` leaves its mark in the environment of the process."""
    batch, timed_steps, pairs, stored = (4, 2, 2, 2_000) if quick else (256, 20, 12, 1_280_000)
    backbones = {"tiny ViT": vit_tiny} if quick else dict(STUDENTS[name] for name in students)
    eager = {"bf16": True, "use_cpu": device == "cpu", "dataloader_num_workers": 0 if quick else 2}
    compiled = {**eager, "torch_compile": True, "torch_compile_backend": "eager" if quick else "inductor"}
    result: list[Row] = []
    for name, backbone in backbones.items():
        if device == "cuda":
            sizes = f"{name}, batch {batch}, bf16, eager"
            result.append(waits_row(sizes, backbone(), batch, timed_steps, device, **eager))
    name, backbone = next(iter(backbones.items()))
    with bank.bank_on_disk(stored, LATENT_DIM) as folder:
        sizes = f"{stored:,} x {LATENT_DIM}, float32"
        result += bank.share_rows(folder, sizes, name, backbone(), batch, pairs, device, **eager)
    tokenizer = minilm().processor
    tiny_bert = BertConfig(hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64)
    teacher = online.random_bert(tiny_bert, tokenizer, device) if quick else online.bert_large(tokenizer, device)
    for name, backbone in backbones.items():
        sizes = f"{name}, batch {batch}, bf16, compiled"
        flops = flops_per_image(backbone()) * batch
        seconds = step.step_seconds(backbone(), batch, timed_steps, pairs, device, **compiled)
        result += [
            throughput_row("plain Trainer", sizes, seconds[:, 0], batch, NOTE_STEP),
            throughput_row("ours, with a bank", sizes, seconds[:, 1], batch, NOTE_STEP),
            gain_row("ours / plain, images/s", sizes, seconds, NOTE_STEP, ">= 0.98"),
            peak_row("plain Trainer, share of the peak", sizes, seconds[:, 0], flops, peak_tflops),
            peak_row("ours, share of the peak", sizes, seconds[:, 1], flops, peak_tflops),
        ]
        in_turn = {**compiled, "dataloader_num_workers": 0}  # a forked worker cannot use the GPU
        seconds = online_seconds(teacher, backbone(), batch, timed_steps, pairs, device, **in_turn)
        result += [
            throughput_row("BERT-large's size at every step", sizes, seconds[:, 0], batch, NOTE_ONLINE),
            gain_row("ours / BERT-large's size at every step, images/s", sizes, seconds, NOTE_ONLINE),
        ]
        print(*(row.as_dict() for row in result), sep="\n", flush=True)  # what is measured is not lost
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--quick", action="store_true", help="tiny sizes: shows that everything runs, and nothing else"
    )
    parser.add_argument("--students", nargs="+", choices=STUDENTS, default=list(STUDENTS), help="which to train")
    parser.add_argument(
        "--peak_tflops", type=float, default=H200_TFLOPS, help="dense bfloat16 TFLOP/s of the GPU's data sheet"
    )
    parser.add_argument("--output", type=Path, default=Path(__file__).parent, help="folder of RESULTS_GPU.md")
    args = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cpu" and not args.quick:
        raise SystemExit(
            "gpu_throughput measures on a GPU, and torch sees none here: run `python -m tests.benchmarks` instead."
        )
    transformers.logging.set_verbosity_error()
    gc.freeze()  # as in __main__.py
    load = os.getloadavg()[0]
    result = rows(args.quick, device, args.students, args.peak_tflops)
    command = "python -m tests.benchmarks.gpu_throughput" + " --quick" * args.quick
    print(write_report(result, machine(load), args.output, command, args.quick, "RESULTS_GPU"))


if __name__ == "__main__":
    main()
