"""The step benchmark on a GPU: `python -m tests.benchmarks.gpu_step [--quick] [--output FOLDER]`.

ViT-S/16 and ResNet-50 in bfloat16 autocast, batch 256, eager and compiled; images in the GPU's memory, targets made by
two workers as in a real run. It also makes any wait for the GPU inside `CoLearningTrainer.compute_loss` an error, sets
look-ups in a bank of 1.28M x 1024 beside the step, and the teacher online beside the bank.
"""

import argparse
import os
from pathlib import Path

import torch
import transformers

from hf_colearn import CoLearningTrainer
from tests.benchmarks import bank, online, step
from tests.benchmarks.encoding import minilm
from tests.benchmarks.report import machine, write_report
from tests.benchmarks.timing import Row, ratio_row
from tests.benchmarks.trainers import (
    LATENT_DIM,
    PROMPTS,
    Samples,
    Turn,
    make_arguments,
    make_bank,
    make_student,
    resnet50,
    vit_small,
    vit_tiny,
)


NOTE_STEP = (
    "From one optimizer step to the next in two real `train()` loops that take turns, each waiting for the GPU at the "
    "end; images in the GPU's memory, labels and targets from two data loader workers in both."
)
NOTE_WAITS = "`torch.cuda.set_sync_debug_mode('error')` around `compute_loss`, from the third step on."


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
    return Row(
        "gpu_step",
        "compute_loss waits for the GPU",
        name,
        *[waits] * 3,
        "",
        f"{timed_steps} steps",
        "<= 0",
        NOTE_WAITS,
    )


def rows(quick: bool, device: str = "cuda") -> list[Row]:
    """Eager before compiled: `torch_compile=True` leaves its mark in the environment of the process."""
    batch, timed_steps, pairs, stored = (4, 2, 3, 20_000) if quick else (256, 10, 30, 1_280_000)
    backbones = {"tiny ViT": vit_tiny} if quick else {"ViT-S/16, 224 px": vit_small, "ResNet-50, 224 px": resnet50}
    eager = {"bf16": True, "use_cpu": device == "cpu", "dataloader_num_workers": 2}
    result = []
    for mode, arguments in (("eager", eager), ("compiled", {**eager, "torch_compile": True})):
        for name, backbone in backbones.items():
            seconds = step.step_seconds(backbone(), batch, timed_steps, pairs, device, **arguments)
            sizes = f"{name}, batch {batch}, bf16, {mode}"
            result.append(
                ratio_row(
                    "gpu_step", "co-learning step / plain step", sizes, seconds, target="<= 1.02", note=NOTE_STEP
                )
            )
            print(result[-1].as_dict(), flush=True)
            if mode == "eager":
                result.append(waits_row(sizes, backbone(), batch, timed_steps, device, **arguments))
        if mode == "eager":
            name, backbone = next(iter(backbones.items()))
            with bank.bank_on_disk(stored, LATENT_DIM) as folder:
                sizes = f"{stored:,} x {LATENT_DIM}, float32"
                result += bank.share_rows(folder, sizes, name, backbone(), batch, pairs, device, **arguments)
            teacher = online.bert_large(minilm().processor, device)
            in_turn = {
                **arguments,
                "dataloader_num_workers": 0,
            }  # the teacher on the GPU cannot run in a forked worker
            result.append(
                online.online_row("BERT-large's size", teacher, name, backbone(), batch, pairs, device, **in_turn)
            )
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--quick", action="store_true", help="tiny sizes: shows that everything runs, and nothing else"
    )
    parser.add_argument("--output", type=Path, default=Path(__file__).parent, help="folder of RESULTS_GPU.md")
    args = parser.parse_args()
    if not torch.cuda.is_available():
        raise SystemExit(
            "gpu_step measures on a GPU, and torch sees none here: run `python -m tests.benchmarks` instead."
        )
    transformers.logging.set_verbosity_error()
    load = os.getloadavg()[0]
    result = rows(args.quick)
    print(
        write_report(
            result, machine(load), args.output, "python -m tests.benchmarks.gpu_step", args.quick, "RESULTS_GPU"
        )
    )


if __name__ == "__main__":
    main()
