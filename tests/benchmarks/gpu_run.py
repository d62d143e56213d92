"""What the benchmarks of a GPU have in common: students and sizes, minutes, and a table that grows row by row."""

import argparse
import gc
import os
import sys
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from time import perf_counter

import torch
import transformers
from transformers import BertConfig, PreTrainedConfig, ViTConfig

from hf_colearn import FrozenEncoder
from tests.benchmarks import online
from tests.benchmarks.encoding import minilm
from tests.benchmarks.report import machine, write_report
from tests.benchmarks.timing import Row
from tests.benchmarks.trainers import resnet50, vit_tiny


STUDENTS = {"resnet50": ("ResNet-50, 224 px", resnet50), "vit_b16": ("ViT-B/16, 224 px", ViTConfig)}
H200_TFLOPS = 989.0  # dense bfloat16, NVIDIA's data sheet of H100 SXM and H200


@dataclass
class Setting:
    """What is measured where.

    Args:
        quick (`bool`): Tiny sizes, on a CPU as well.
        device (`str`): `"cuda"` or `"cpu"`.
        backbones (`dict`): Configurations of students by their names in the table.
        batch, steps, rounds (`int`): Samples of a step, timed steps of a turn, turns of each.
        end (`float`): When all must be over, of `perf_counter`.
        peak_tflops (`float`): Of the GPU's data sheet.
    """

    quick: bool
    device: str
    backbones: dict[str, PreTrainedConfig]
    batch: int
    steps: int
    rounds: int
    end: float
    peak_tflops: float

    def until(self, share: float) -> float:
        """When a share of the time that is left is over."""
        return perf_counter() + share * max(0.0, self.end - perf_counter())

    @cached_property
    def teacher(self) -> FrozenEncoder:
        """BERT-large's size, of random weights."""
        tokenizer = minilm().processor
        if not self.quick:
            return online.bert_large(tokenizer, self.device)
        tiny = BertConfig(hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64)
        return online.random_bert(tiny, tokenizer, self.device)

    def synchronize(self) -> None:
        if self.device == "cuda":
            torch.cuda.synchronize()

    def arguments(self) -> dict:
        """TrainingArguments of a run on the device, without logs."""
        return {"use_cpu": self.device == "cpu", "logging_steps": 10_000}

    def compiler(self) -> str:
        """A backend of `torch.compile`."""
        return "eager" if self.quick else "inductor"


Part = Callable[[Setting], Iterator[Row]]


def forget_compilation() -> None:
    """Takes away what `torch_compile=True` leaves in the environment, and what was compiled."""
    for name in ("ACCELERATE_DYNAMO_BACKEND", "ACCELERATE_DYNAMO_MODE"):
        os.environ.pop(name, None)
    torch.compiler.reset()
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def make_parser(description: str, name: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument(
        "--quick", action="store_true", help="tiny sizes: shows that everything runs, and nothing else"
    )
    parser.add_argument("--minutes", type=float, default=7, help="fewer turns where they would take longer")
    parser.add_argument("--students", nargs="+", choices=STUDENTS, default=list(STUDENTS), help="which to train")
    parser.add_argument(
        "--peak_tflops", type=float, default=H200_TFLOPS, help="dense bfloat16 TFLOP/s of the GPU's data sheet"
    )
    parser.add_argument("--output", type=Path, default=Path(__file__).parent, help=f"folder of {name}.md")
    return parser


def run(parts: dict[str, Part], description: str, name: str = "RESULTS_GPU") -> None:
    """Measures part after part, the most important first, and writes the table anew after every row.

    A part that fails, or for which no time is left, is named in the table, and the others go on.
    """
    args = make_parser(description, name).parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    program = Path(sys.argv[0]).stem
    if device == "cpu" and not args.quick:
        raise SystemExit(
            f"{program} measures on a GPU, and torch sees none here: run `python -m tests.benchmarks` instead."
        )
    transformers.logging.set_verbosity_error()
    gc.freeze()  # as in __main__.py
    backbones = {"tiny ViT": vit_tiny()} if args.quick else {k: make() for k, make in map(STUDENTS.get, args.students)}
    sizes = (4, 2, 2) if args.quick else (256, 10, 10)
    setting = Setting(
        args.quick, device, backbones, *sizes, perf_counter() + 60 * args.minutes, peak_tflops=args.peak_tflops
    )
    load, rows, left_out = os.getloadavg()[0], [], {}
    command = f"python -m tests.benchmarks.{program}" + " --quick" * args.quick

    def write() -> str:
        facts = machine(load) | {f"left out, {part}": why for part, why in left_out.items()}
        return write_report(rows, facts, args.output, command, args.quick, name)

    for part, measure in parts.items():
        try:
            if perf_counter() > setting.end:
                raise TimeoutError(f"no time was left of {args.minutes:g} minutes")
            for row in measure(setting):
                rows.append(row)
                write()
                print(f"{perf_counter() - setting.end + 60 * args.minutes:.0f} s: {row.as_dict()}", flush=True)
        except Exception as error:  # a GPU is lent for minutes: what else can be measured is
            left_out[part] = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
            traceback.print_exc()
        forget_compilation()
    print(write())
    if left_out:
        raise SystemExit(f"not all was measured: {left_out}")
