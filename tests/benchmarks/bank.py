"""Look-ups in banks on disk, 1.28M x 1024 in float32 and two sizes in float16 and int8: resident memory, time beside a training
step, and what 100M rows take."""

import os
import shutil
import tempfile
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
import psutil
from transformers import PreTrainedConfig

from hf_colearn import TeacherBank
from hf_colearn.teachers.bank import FORMAT
from hf_colearn.teachers.bank_writing import write_bank
from hf_colearn.teachers.rows import row_bytes
from hf_colearn.teachers.stored_latents import stored_latents
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


NOTE_SIZES = (
    "256 random rows of a bank of four times the rows against as many of the smaller one, in turns. Where the file is in the "
    "page cache, a look-up does not depend on the number of rows; where it is not, on the disk and on how much of the file "
    "the page cache holds."
)
NOTE_LAW = (
    "The files' sizes per row, times 100M: N (2 D) bytes in float16 and N (D + 4) in int8, and the keys of the inputs."
)


@contextmanager
def bank_on_disk(rows: int, dim: int, dtype: str = "float32"):
    """A folder with a bank of random latents, gone afterwards."""
    needed, free = rows * row_bytes(dtype, dim), shutil.disk_usage(tempfile.gettempdir()).free
    if free < 1.2 * needed:
        raise SystemExit(
            f"the bank needs {needed / 1e9:.1f} GB in {tempfile.gettempdir()}, {free / 1e9:.1f} are free."
        )
    latents = np.random.default_rng(0).standard_normal((min(CHUNK, rows), dim), dtype=np.float32)
    values, scales = stored_latents(latents, dtype)

    def chunks():
        for start in range(0, rows, CHUNK):
            part = slice(0, min(CHUNK, rows - start))
            yield values[part], None if scales is None else scales[part]

    with tempfile.TemporaryDirectory(prefix="bank_") as name:
        folder = Path(name)
        write_bank(folder, chunks(), None, None, {"format": FORMAT, "fingerprint": "random", "num_rows": rows})
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


def size_rows(small: Path, large: Path, sizes: str, pairs: int) -> list[Row]:
    """The look-up in the larger bank over that in the smaller one, cold and warm, and the bytes of 100M rows."""
    generator, rows = np.random.default_rng(3), []
    for state in ("cold", "warm"):
        banks = []
        for folder in (small, large):
            drop_from_page_cache(folder)
            banks.append(TeacherBank.load(folder))
            if state == "warm":
                for path in folder.iterdir():
                    shutil.copyfile(path, os.devnull)

        def look_up(bank):
            drawn = generator.integers(len(bank), size=256)
            return timed(lambda: bank.lookup(drawn))

        seconds = paired(*(partial(look_up, bank) for bank in banks), pairs)
        what = f"look-up of 256, 4 N rows / N rows, {state}"
        rows.append(ratio_row("bank", what, sizes, seconds, "x", target="", note=NOTE_SIZES))
    gigabytes = sum(path.stat().st_size for path in large.iterdir()) / len(banks[1]) * 100e6 / 1e9
    rows.append(
        Row("bank", "100M rows on disk", sizes, gigabytes, gigabytes, gigabytes, "GB", "sizes of files", "", NOTE_LAW)
    )
    return rows


def rows(quick: bool) -> list[Row]:
    stored, lookups, pairs = (2_000, 50, 2) if quick else (1_280_000, 2_000, 12)
    student = ("tiny ViT", vit_tiny(), 2) if quick else ("ViT-S/16, 224 px", vit_small(), 8)
    sizes = f"{stored:,} x {LATENT_DIM}, float32"
    with bank_on_disk(stored, LATENT_DIM) as folder:
        found = [*memory_rows(folder, sizes, lookups, batch=256), *share_rows(folder, sizes, *student, pairs)]
    for dtype, number in (("float16", 500_000), ("int8", 1_000_000)):
        number = 1_000 if quick else number
        sizes = f"{4 * number:,} x {LATENT_DIM}, {dtype}"
        with (
            bank_on_disk(number, LATENT_DIM, dtype) as small,
            bank_on_disk(4 * number, LATENT_DIM, dtype) as large,
        ):
            found += size_rows(small, large, sizes, pairs=4 if quick else 40)
            if not quick:
                found += [*memory_rows(large, sizes, lookups, batch=256), *share_rows(large, sizes, *student, pairs)]
    return found
