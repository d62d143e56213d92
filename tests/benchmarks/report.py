"""RESULTS.md and results.json: the table, and the machine that it was measured on."""

import json
import os
import platform
from collections.abc import Sequence
from pathlib import Path

import psutil
import torch
import transformers

from tests.benchmarks.timing import Row, table


def machine(load_before: float) -> dict[str, str]:
    """What a reader needs to know of it; other programs show in the load (of one minute, before and after)."""
    return {
        "processor": f"{_processor()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads, "
        f"{psutil.virtual_memory().total / 2**30:.0f} GiB memory",
        "accelerator": torch.cuda.get_device_name() if torch.cuda.is_available() else "none",
        "software": f"Python {platform.python_version()}, torch {torch.__version__}, "
        f"transformers {transformers.__version__}, {platform.system()} {platform.release()}",
        "waiting threads": os.environ.get("OMP_WAIT_POLICY", "as OpenMP likes"),
        "load": f"{load_before:.1f} before, {os.getloadavg()[0]:.1f} after",
    }


def _processor() -> str:
    path = Path("/proc/cpuinfo")
    names = [line.split(":")[1].strip() for line in path.read_text().splitlines() if line.startswith("model name")]
    return names[0] if names else platform.processor()


def write_report(
    rows: Sequence[Row], facts: dict[str, str], folder: Path, command: str, quick: bool, name: str = "RESULTS"
) -> str:
    """Writes `NAME.md` and `name.json`, and returns the text of the first."""
    warning = (
        "**Tiny sizes (`--quick`): this shows that everything runs; the numbers mean nothing.**\n\n" if quick else ""
    )
    lines = "\n".join(f"- {name}: {fact}" for name, fact in facts.items())
    text = (
        f"# What co-learning costs\n\nWritten by `{command}`; do not edit.\n\n{warning}"
        "Two things that are compared take turns in one process (A B B A ...); the value is the median of the ratios, "
        "pair by pair, with the 95 % bootstrap interval of that median.\n\n"
        f"{lines}\n\n{table(rows, judge=not quick)}\n"
    )
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.md").write_text(text)
    results = {"quick": quick, "machine": facts, "rows": [row.as_dict() for row in rows]}
    (folder / f"{name.lower()}.json").write_text(json.dumps(results, indent=2) + "\n")
    return text
