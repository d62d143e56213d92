"""Bytes and hours of pairs by the billion, from rates: `python -m tests.benchmarks.plan [--quick] [--devices 64]`.

Measures what one process with one thread does here (encode, write and read latents, look up, train), and writes
RESULTS_PLAN.md: the rates, and what they come to. Everything else is arithmetic.
"""

import argparse
import tempfile
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
import transformers

from hf_colearn.teachers.stored_latents import stored_latents
from tests.benchmarks import bank
from tests.benchmarks.encoding import minilm
from tests.benchmarks.step import step_seconds
from tests.benchmarks.timing import timed
from tests.benchmarks.trainers import vit_small, vit_tiny


PARTS = ("encode", "store", "read", "look up", "train an epoch")
ITEM_BYTES = {"float32": 4, "float16": 2, "int8": 1}
CAPTION = "a small brown dog that runs along the beach after a red ball while two children watch from a blue towel"


@dataclass
class Rates:
    """What one process or device does a second.

    Args:
        encoded (`float`): Inputs of the teacher.
        written, read (`float`): Bytes of latents in Parquet shards.
        looked_up (`float`): Rows of a bank.
        trained (`float`): Samples of the student.
    """

    encoded: float
    written: float
    read: float
    looked_up: float
    trained: float


def latent_bytes(rows: int, dim: int, dtype: str) -> int:
    """What latents take; int8 has a float32 scale a row.

    >>> [latent_bytes(10**9, 1024, dtype) / 1e12 for dtype in ("float32", "float16", "int8")]
    [4.096, 2.048, 1.028]
    """
    return rows * (dim * ITEM_BYTES[dtype] + (4 if dtype == "int8" else 0))


def state_bytes(parameters: int, processes: int) -> int:
    """Weights, gradients and both moments of AdamW, float32, of a process among those that share them (FSDP2).

    >>> state_bytes(10**9, 1) / 1e9, state_bytes(10**9, 64) / 1e9
    (16.0, 0.25)
    """
    return 16 * parameters // processes


def gathered_bytes(batch: int, dim: int, processes: int) -> int:
    """All keys of a contrastive batch and their gradient, float32, where every process holds them at once.

    >>> gathered_bytes(1024, 1024, 64) / 1e6
    536.870912
    """
    return 2 * 4 * batch * dim * processes


def hours(pairs: int, dim: int, dtype: str, rates: Rates, devices: int) -> dict[str, float]:
    """Of every part, for one pass over the pairs.

    >>> rates = Rates(encoded=100, written=1e8, read=1e9, looked_up=1e5, trained=10)
    >>> {part: round(value, 2) for part, value in hours(10**9, 1024, "float16", rates, 64).items()}
    {'encode': 43.4, 'store': 0.09, 'read': 0.01, 'look up': 0.04, 'train an epoch': 434.03}
    """
    stored = latent_bytes(pairs, dim, dtype)
    seconds = (
        pairs / rates.encoded,
        stored / rates.written,
        stored / rates.read,
        pairs / rates.looked_up,
        pairs / rates.trained,
    )
    return {part: value / devices / 3600 for part, value in zip(PARTS, seconds, strict=True)}


def measured(quick: bool) -> Rates:
    """The medians of three to five, of one thread, as round as they are shown."""
    inputs, rows, dim, batch = (64, 500, 384, 256) if quick else (256, 50_000, 384, 256)
    torch.set_num_threads(1)
    encoder, generator = minilm(), np.random.default_rng(0)
    captions = [f"{CAPTION} {i}" for i in range(inputs)]
    values, _ = stored_latents(generator.standard_normal((rows, dim), dtype=np.float32), "float16")
    table = pa.table({"teacher_latents": pa.FixedSizeListArray.from_arrays(values.ravel(), dim)})

    def encode() -> None:
        for start in range(0, inputs, 64):
            encoder.encode(captions[start : start + 64])

    def of_five(call) -> float:
        return float(np.median([timed(call) for _ in range(5)]))

    with tempfile.TemporaryDirectory() as folder, bank.bank_on_disk(rows, dim) as of_bank:
        path, stored = Path(folder, "data.parquet"), bank.TeacherBank.load(of_bank)
        written = of_five(lambda: pq.write_table(table, path))
        read = of_five(lambda: pq.read_table(path, use_threads=False))
        looked_up = of_five(lambda: [stored.lookup(generator.integers(rows, size=batch)) for _ in range(20)])
    student, images, steps, pairs = (vit_tiny(), 2, 1, 2) if quick else (vit_small(), 8, 2, 3)
    step = float(np.median(step_seconds(student, images, steps, pairs)[:, 1]))
    written, read = round(table.nbytes / written, -6), round(table.nbytes / read, -6)
    return Rates(
        round(inputs / of_five(encode)), written, read, round(20 * batch / looked_up), round(images / step, 1)
    )


def tables(pairs: int, rates: Rates, devices: int) -> str:
    """Both tables in Markdown."""
    lines = ["| D | float32 | float16 | int8 |", "|---:|---:|---:|---:|"]
    for dim in (384, 1024):
        terabytes = (f"{latent_bytes(pairs, dim, dtype) / 1e12:.3g} TB" for dtype in ITEM_BYTES)
        lines.append(f"| {dim:,} | {' | '.join(terabytes)} |")
    of_one = (
        f"{rates.encoded:,.0f} inputs/s",
        f"{rates.written / 1e6:,.0f} MB/s",
        f"{rates.read / 1e6:,.0f} MB/s",
        f"{rates.looked_up:,.0f} rows/s",
        f"{rates.trained:,.1f} samples/s",
    )
    lines += ["", f"| part | one core, measured | {pairs:,} pairs on {devices} such |", "|---|---:|---:|"]
    for rate, (part, taken) in zip(of_one, hours(pairs, 384, "float16", rates, devices).items(), strict=True):
        lines.append(f"| {part} | {rate} | {taken:,.{0 if taken >= 10 else 2}f} h |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--quick", action="store_true", help="tiny sizes: shows that everything runs, and nothing else"
    )
    parser.add_argument("--devices", type=int, default=64, help="processes or devices that share the work")
    parser.add_argument("--pairs", type=float, default=1e9, help="how many")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent, help="folder of RESULTS_PLAN.md")
    args = parser.parse_args()
    transformers.logging.set_verbosity_error()
    start = perf_counter()
    text = tables(int(args.pairs), measured(args.quick), args.devices)
    title = f"# Pairs by the billion\n\nWritten by `python -m tests.benchmarks.plan{' --quick' * args.quick}`; do not edit.\n\n"
    note = (
        "Latents of the first table are uncompressed. Rates of the second are of one CPU core: teacher MiniLM-L6 on captions "
        "of some 25 tokens, D 384, float16 in Parquet and float32 in a bank, student ViT-S/16 at 224 px, latent objective."
    )
    args.output.mkdir(parents=True, exist_ok=True)
    (args.output / "RESULTS_PLAN.md").write_text(f"{title}{note}\n\n{text}\n")
    print(f"{text}\n{perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main()
