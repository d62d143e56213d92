"""Runs all benchmarks and writes one table: `python -m tests.benchmarks [--quick] [--full] ...`."""

import argparse
import gc
import os
from pathlib import Path
from time import perf_counter

import transformers

from tests.benchmarks import (
    alpha,
    analysis,
    bank,
    contrastive,
    encode_job,
    encoding,
    loading,
    online,
    scaling,
    step,
    stream_latents,
    trunk,
)
from tests.benchmarks.report import machine, write_report


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--quick", action="store_true", help="tiny sizes: shows that everything runs, and nothing else"
    )
    parser.add_argument("--full", action="store_true", help="ResNet-50 as well")
    parser.add_argument(
        "--images_per_second", type=float, default=3000, help="what one GPU trains on, for the cores that feed it"
    )
    parser.add_argument("--only", nargs="+", help="names of the benchmarks to run; all by default")
    parser.add_argument(
        "--output", type=Path, default=Path(__file__).parent, help="folder of RESULTS.md, results.json"
    )
    return parser


def main() -> None:
    args = make_parser().parse_args()
    transformers.logging.set_verbosity_error()
    gc.freeze()  # every `Trainer.train` collects garbage, and would look through all that was imported: 0.4 s
    start, load = perf_counter(), os.getloadavg()[0]
    benchmarks = {
        "step": lambda: step.rows(args.quick, args.full),
        "online": lambda: online.rows(args.quick),
        "encoding": lambda: encoding.rows(args.quick),
        "encode_job": lambda: encode_job.rows(args.quick),
        "bank": lambda: bank.rows(args.quick),
        "stream_latents": lambda: stream_latents.rows(args.quick),
        "contrastive": lambda: contrastive.rows(args.quick),
        "trunk": lambda: trunk.rows(args.quick),
        "alpha": lambda: alpha.rows(args.quick),
        "analysis": lambda: analysis.rows(args.quick),
        "loading": lambda: loading.rows(args.quick, args.images_per_second),
        "scaling": lambda: scaling.rows(args.quick),
    }
    unknown = [name for name in args.only or [] if name not in benchmarks]
    if unknown:
        raise SystemExit(f"there is no benchmark '{unknown[0]}': choose among {', '.join(benchmarks)}.")
    rows = []
    too_slow = ["scaling"] if args.quick else []  # three processes import everything
    for name in args.only or [name for name in benchmarks if name not in too_slow]:
        rows += benchmarks[name]()
        print(f"{name}: done after {perf_counter() - start:.0f} s", flush=True)
    command = "python -m tests.benchmarks" + " --quick" * args.quick + " --full" * args.full
    command += "".join(f" {word}" for word in ["--only", *args.only]) if args.only else ""
    print(write_report(rows, machine(load), args.output, command, args.quick))


if __name__ == "__main__":
    main()
