"""Look-ups in a bank of 1.28M x 1024 on disk: resident memory, and time beside a training step."""

import os
import shutil
import tempfile
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import psutil
from transformers import PreTrainedConfig

from hf_colearn import TeacherBank
from hf_colearn.teachers.bank import FORMAT
from hf_colearn.teachers.bank_writing import write_bank
from tests.benchmarks.timing import Row, in_a_fresh_process, paired, ratio_row, timed
from tests.benchmarks.trainers import (
    LATENT_DIM,
    Turn,
    make_arguments,
    make_student,
    plain_trainer,
    vit_small,
    vit_tiny,
)


MB = 1_000_000
CHUNK = 10_000  # rows
NOTE_MEMORY = (
    "In a fresh process, from before the bank is opened: the kernel's peak of the resident memory (pages of the file "
    "included), while look-ups of random rows run, first from a page cache without the file, then from a filled one. "
    "`private` is what stays at the end without the pages of the file (USS)."
)
NOTE_SHARE = (
    "A look-up of as many rows as the step has samples, taking turns with steps of a plain `Trainer` in one process. "
    "`cold`: the file was dropped from the page cache before, so that nearly every row comes from the disk."
)


@contextmanager
def bank_on_disk(rows: int, dim: int):
    """A folder with a bank of random latents, gone afterwards."""
    needed, free = rows * dim * 4, shutil.disk_usage(tempfile.gettempdir()).free
    if free < 1.2 * needed:
        raise SystemExit(
            f"the bank needs {needed / 1e9:.1f} GB in {tempfile.gettempdir()}, {free / 1e9:.1f} are free."
        )
    generator = np.random.default_rng(0)
    chunks = (
        (generator.standard_normal((min(CHUNK, rows - start), dim), dtype=np.float32), None)  # no scales
        for start in range(0, rows, CHUNK)
    )
    with tempfile.TemporaryDirectory(prefix="bank_") as name:
        folder = Path(name)
        write_bank(folder, chunks, None, None, {"format": FORMAT, "fingerprint": "random", "num_rows": rows})
        yield folder


def drop_from_page_cache(folder: Path) -> None:
    """Linux only; pages that a process has mapped stay."""
    for path in folder.iterdir():
        with open(path, "rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def peak_resident(reset: bool = False) -> int:
    """Bytes, as the kernel kept them since the last reset; Linux only."""
    if reset:
        Path("/proc/self/clear_refs").write_text("5")
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


def _memory(folder: Path, lookups: int, batch: int) -> dict[str, float]:
    """Runs in the fresh process; megabytes that were added."""
    generator, process = np.random.default_rng(1), psutil.Process()
    TeacherBank.from_latents(np.ones((8, LATENT_DIM))).lookup(np.zeros(batch, dtype=np.int64))  # imports, allocators
    before = process.memory_full_info()
    peak_resident(reset=True)
    bank = TeacherBank.load(folder)
    peaks = {}
    for state in ("cold", "warm"):
        for _ in range(lookups):
            bank.lookup(generator.integers(len(bank), size=batch))
        peaks[state] = (peak_resident() - before.rss) / MB
    return {**peaks, "private": (process.memory_full_info().uss - before.uss) / MB}


def memory_rows(folder: Path, sizes: str, lookups: int, batch: int) -> list[Row]:
    drop_from_page_cache(folder)
    added = in_a_fresh_process(_memory, folder, lookups, batch)
    repeats = f"{2 * lookups:,} look-ups of {batch}"
    return [
        Row("bank", f"resident memory added, {what}", sizes, value, value, value, "MB", repeats, target, NOTE_MEMORY)
        for what, value, target in (
            ("peak", max(added["cold"], added["warm"]), "<= 100"),
            ("private", added["private"], ""),
        )
    ]


def share_rows(
    folder: Path,
    sizes: str,
    student: str,
    backbone: PreTrainedConfig,
    batch: int,
    pairs: int,
    device: str = "cpu",
    **arguments,
) -> list[Row]:
    """The look-up's time over the step's, cold and warm."""
    generator, rows = np.random.default_rng(2), []
    args = make_arguments(batch, timed_steps=1, **arguments)
    step = Turn(plain_trainer(make_student(backbone, LATENT_DIM, batch, device), args))
    for state in ("cold", "warm"):
        if state == "cold":
            drop_from_page_cache(folder)
        else:
            for path in folder.iterdir():  # reads it into the page cache
                shutil.copyfile(path, os.devnull)
        bank = TeacherBank.load(folder)

        def look_up(bank=bank):
            drawn = generator.integers(len(bank), size=batch)
            return timed(lambda: bank.lookup(drawn))

        against = f"{sizes}; {batch} rows against {student}, batch {batch}"
        seconds = paired(step, look_up, pairs)
        rows.append(
            ratio_row("bank", f"look-up / step, {state}", against, seconds, "%", target="<= 1", note=NOTE_SHARE)
        )
    return rows


def rows(quick: bool) -> list[Row]:
    stored, lookups, pairs = (2_000, 50, 2) if quick else (1_280_000, 2_000, 12)
    student = ("tiny ViT", vit_tiny(), 2) if quick else ("ViT-S/16, 224 px", vit_small(), 8)
    sizes = f"{stored:,} x {LATENT_DIM}, float32"
    with bank_on_disk(stored, LATENT_DIM) as folder:
        return [*memory_rows(folder, sizes, lookups, batch=256), *share_rows(folder, sizes, *student, pairs)]
