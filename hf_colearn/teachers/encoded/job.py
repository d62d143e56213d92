"""Encoding a data set: its shards over the processes of a run, or over a Ray cluster, and the manifest at the end.

No process waits for another one while it encodes, so that one that is killed loses the shard that it was at.
"""

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from datasets import Dataset, IterableDataset
from tqdm.auto import tqdm

from hf_colearn.teachers.encoded.manifest import Manifest
from hf_colearn.teachers.encoded.outputs import FolderOutput, Output
from hf_colearn.teachers.encoded.plan import EncodingOptions, EncodingPlan
from hf_colearn.teachers.encoded.shard import encode_shard
from hf_colearn.teachers.encoded.source import Source
from hf_colearn.teachers.encoder import FrozenEncoder
from hf_colearn.utils import distributed
from hf_colearn.utils.checks import check_choice


ENGINES = ("accelerate", "ray")


@dataclass(frozen=True)
class Part:
    """The shards of one of several runs that write to one output: those whose number is `index` modulo `of`."""

    index: int = 0
    of: int = 1

    @classmethod
    def parse(cls, text: str) -> "Part":
        """Of `"3/16"`, the fourth of sixteen."""
        index, slash, of = text.partition("/")
        if not (slash and index.isdecimal() and of.isdecimal() and int(index) < int(of)):
            raise ValueError(f"part='{text}': pass such as '0/16' to '15/16', of sixteen runs.")
        return cls(int(index), int(of))

    def shards(self, num_shards: int) -> range:
        return range(self.index, num_shards, self.of)


@dataclass(frozen=True)
class Encoded:
    """What a run has come to.

    Args:
        manifest ([`Manifest`] or `None`): None while other runs have shards to encode.
        encoded (`int`): How many shards this run has encoded.
        skipped (`int`): How many of its shards were there.
        missing (`int`): How many shards of other runs are not there yet.
        seconds (`float`): How long it took.
    """

    manifest: Manifest | None
    encoded: int
    skipped: int
    missing: int
    seconds: float


def encode_dataset(
    source: str | os.PathLike | IterableDataset | Dataset,
    encoder: FrozenEncoder,
    column: str,
    output: str | os.PathLike | Output,
    *,
    split: str = "train",
    name: str | None = None,
    revision: str | None = None,
    keep: str = "all",
    id_column: str = "sample_id",
    dtype: str = "float32",
    latent_column: str = "teacher_latents",
    batch_size: int = 64,
    num_shards: int | None = None,
    engine: str = "accelerate",
    workers: int | None = None,
    show_progress: bool = True,
) -> Manifest:
    """Writes a data set with a teacher's latents in a column, one Parquet file a shard; what `hf-colearn encode` does.

    Every distinct input of a shard is encoded once; a row without an input has no latent. Processes take turns at the shards.
    Repeated, it encodes the shards that are not there, and another teacher, source or option is refused.

    Args:
        source: See [`~hf_colearn.teachers.encoded.source.Source.open`].
        encoder ([`FrozenEncoder`]): The teacher, on each process its own.
        column (`str`): Its inputs: texts; images or their paths; sounds or their paths.
        output (`str` or [`~hf_colearn.teachers.encoded.outputs.Output`]): A folder that all processes see.
        split, name, revision, num_shards: See [`~hf_colearn.teachers.encoded.source.Source.open`].
        keep, id_column, dtype, latent_column, batch_size: See [`~hf_colearn.teachers.encoded.plan.EncodingOptions`].
        engine (`str`, *optional*, defaults to `"accelerate"`): The processes of the run, or `"ray"`: a Ray cluster, where one
            is running, else this machine.
        workers (`int`, *optional*): Of `engine="ray"`: processes; by default one a GPU of the cluster, or one a core.
        show_progress (`bool`, *optional*, defaults to `True`): Whether the main process draws a progress bar.

    Returns:
        [`Manifest`]: On every process.

    Raises:
        ValueError: If the source, an option or a row is wrong, or the output is of another job; before anything is written,
            where that does not depend on the rows.
        OSError: If the disk is full or the folder cannot be written.
        OtherProcessFailed: If another process failed, and why; its shards are missing.

    Example:

    ```python
    teacher = FrozenEncoder.from_pretrained("sentence-transformers/all-MiniLM-L6-v2")
    encode_dataset("me/pairs", teacher, "caption", "pairs-with-latents", dtype="float16")
    train = load_dataset("pairs-with-latents", split="train", streaming=True)
    ```
    """
    options = EncodingOptions(column, keep, id_column, dtype, latent_column, batch_size)
    with distributed.raise_on_all_ranks():
        opened = Source.open(source, split, name, revision, num_shards)
        options.check(opened)
        place = FolderOutput(output) if isinstance(output, (str, os.PathLike)) else output
    manifest = encode_source(
        opened, encoder, options, place, engine=engine, workers=workers, show_progress=show_progress
    ).manifest
    assert manifest is not None  # one part has all shards
    return manifest


def encode_source(
    source: Source,
    encoder: FrozenEncoder,
    options: EncodingOptions,
    output: Output,
    part: Part | None = None,
    engine: str = "accelerate",
    workers: int | None = None,
    show_progress: bool = True,
) -> Encoded:
    """As [`encode_dataset`], of a part of the shards where several runs share them; the last run writes the manifest."""
    start, is_main = time.monotonic(), distributed.rank() == 0
    with distributed.raise_on_all_ranks():
        _check_engine(engine, workers)
        plan = EncodingPlan.of(source, options, encoder)
        mine = (part or Part()).shards(source.num_shards)
    main_job = distributed.from_main_process(plan.job["job"])
    with distributed.raise_on_all_ranks():
        if plan.job["job"] != main_job:
            raise ValueError(
                "this process has another source, teacher or option than the main process: pass the same to all."
            )
    done: set[str] = set()
    with distributed.raise_on_all_ranks():
        if is_main:
            output.begin(plan.job)
            done = output.done()
    done = distributed.from_main_process(done)
    todo = [shard for shard in mine if plan.file(shard) not in done]
    with distributed.raise_on_all_ranks():
        _encode(encoder, plan, todo, output, engine, workers, show_progress)
    manifest, missing = None, 0
    with distributed.raise_on_all_ranks():
        if is_main:
            manifest, missing = _manifest(plan, output, anew=bool(todo))
    manifest, missing = distributed.from_main_process((manifest, missing))
    return Encoded(manifest, len(todo), len(mine) - len(todo), missing, time.monotonic() - start)


def _check_engine(engine: str, workers: int | None) -> None:
    check_choice("engine", engine, ENGINES)
    if engine == "ray" and distributed.is_distributed():
        raise ValueError(
            f"engine='ray' starts its own processes, and this is one of {distributed.world_size()}: start one, or pass "
            "engine='accelerate'."
        )
    if engine != "ray" and workers is not None:
        raise ValueError(
            f"workers={workers} is for engine='ray': start as many processes by `accelerate launch` or `torchrun` instead."
        )


def _encode(
    encoder: FrozenEncoder,
    plan: EncodingPlan,
    todo: Sequence[int],
    output: Output,
    engine: str,
    workers: int | None,
    show_progress: bool,
) -> None:
    if engine == "ray":
        from hf_colearn.teachers.encoded.ray_engine import encode_on_ray

        encode_on_ray(encoder, plan, output, todo, workers, show_progress)
        return
    share = todo[distributed.rank() :: distributed.world_size()]
    is_shown = show_progress and distributed.rank() == 0 and bool(share)
    try:
        for shard in tqdm(share, desc="Encoding", unit="shard", disable=not is_shown):
            encode_shard(encoder, plan, shard, output)
    finally:
        output.close()


def _manifest(plan: EncodingPlan, output: Output, anew: bool) -> tuple[Manifest | None, int]:
    """The manifest, written where all shards are there, and how many are not."""
    names = [plan.file(shard) for shard in range(plan.source.num_shards)]
    if missing := len(set(names) - output.done()):
        return None, missing
    manifest = None if anew else output.manifest()
    if manifest is None:
        manifest = Manifest.of(plan.job, output.files(names))
        output.finish(manifest)
    return manifest, 0


def summary(found: Encoded, num_shards: int) -> dict[str, Any]:
    """A finished run in a few numbers, for those who watch it."""
    facts: dict[str, Any] = {"shards": f"{found.encoded} encoded, {found.skipped} there before, of {num_shards}"}
    if found.manifest is None:
        return facts | {"missing": f"{found.missing}, which other runs encode; the last one writes the manifest"}
    manifest = found.manifest
    size = sum(shard["bytes"] for shard in manifest.shards)
    share = f"{manifest.distinct / max(1, manifest.paired):.1%}"
    return facts | {
        "rows": f"{manifest.rows:,}, of which {manifest.paired:,} have a latent",
        "distinct": f"{manifest.distinct:,} inputs, {share} of those rows",
        "latents": f"{manifest.dim} numbers as {manifest.dtype} in '{manifest.column}'",
        "bytes": f"{size:,} ({size / max(1, manifest.rows):,.0f} a row)",
        "time": f"{found.seconds:.1f} s",
    }
