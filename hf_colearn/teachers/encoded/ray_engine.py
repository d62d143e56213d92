"""Encoding on a Ray cluster: a Ray Data pipeline from the numbers of shards to what became of them."""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import Any

import numpy as np
from tqdm.auto import tqdm
from transformers.utils import logging

from hf_colearn.teachers.encoded.outputs import Output
from hf_colearn.teachers.encoded.plan import EncodingPlan
from hf_colearn.teachers.encoded.shard import encode_shard
from hf_colearn.teachers.encoder import FrozenEncoder
from hf_colearn.utils.checks import check_integer
from hf_colearn.utils.extras import extra


with extra("ray", "engine='ray' needs Ray Data"):
    import ray
    import ray.data


logger = logging.get_logger(__name__)

_TOLD_AS = {"ValueError": ValueError, "OSError": OSError, "PermissionError": OSError, "FileNotFoundError": OSError}


def encode_on_ray(
    encoder: FrozenEncoder,
    plan: EncodingPlan,
    output: Output,
    todo: Sequence[int],
    workers: int | None = None,
    show_progress: bool = True,
) -> None:
    """Encodes shards on the cluster that is running (`RAY_ADDRESS`, or the one of this machine), else on one of this machine.

    Each worker is a process that loads the teacher once, by its name or folder, and takes one GPU where the cluster has some,
    else one core. When a worker dies, Ray starts another one, which encodes its shard again.

    Args:
        encoder ([`~hf_colearn.FrozenEncoder`]): The plan's teacher, as [`~FrozenEncoder.from_pretrained`] has loaded it.
        plan ([`EncodingPlan`]): What is encoded.
        output ([`Output`]): Where to: of several machines, what all of them see.
        todo (`Sequence[int]`): The shards' numbers.
        workers (`int`, *optional*): By default as many as the cluster has GPUs, or cores where it has none.
        show_progress (`bool`, *optional*, defaults to `True`): Whether a progress bar is drawn.

    Raises:
        ImportError: Where Ray Data is not installed.
        ValueError: If a row cannot be read or encoded, or the workers load another teacher.
        OSError, RuntimeError: If a shard could not be written, or failed otherwise, with its number.
    """
    if workers is not None:
        check_integer("workers", workers, least=1)
    if not todo:
        return
    with _cluster():
        have = ray.cluster_resources()
        has_gpu = have.get("GPU", 0) >= 1
        workers = min(workers or int(have["GPU" if has_gpu else "CPU"]), len(todo))
        at_once = output.shards_a_commit  # a call's shards share a commit
        shards = ray.data.from_items(list(todo), override_num_blocks=math.ceil(len(todo) / at_once))
        done = shards.map_batches(
            _Worker,
            fn_constructor_args=(_name_of(encoder), plan, output),
            batch_size=at_once,
            compute=ray.data.ActorPoolStrategy(size=workers),
            num_cpus=1,
            num_gpus=1 if has_gpu else 0,
        )
        for row in tqdm(done.iter_rows(), total=len(todo), desc="Encoding", unit="shard", disable=not show_progress):
            if row["error"]:
                raise _TOLD_AS.get(row["kind"], RuntimeError)(row["error"])


@contextmanager
def _cluster() -> Iterator[None]:
    """Connects to a cluster, or starts one; leaves one that was there, and what Ray Data tells, as they were."""
    is_new = not ray.is_initialized()
    if is_new:
        ray.init(include_dashboard=False, logging_level=logging.WARNING, log_to_driver=False)
    context = ray.data.DataContext.get_current()
    before, context.enable_progress_bars = context.enable_progress_bars, False
    told = logging.logging.getLogger("ray.data")
    level = told.level
    told.setLevel("CRITICAL")
    try:
        yield
    finally:
        context.enable_progress_bars = before
        told.setLevel(level)
        if is_new:
            ray.shutdown()


def _name_of(encoder: FrozenEncoder) -> dict[str, Any]:
    """What [`FrozenEncoder.from_pretrained`] makes the same teacher of."""
    return {
        "name_or_path": encoder.model.config._name_or_path,
        "pooling": encoder.pooling,
        "revision": encoder.revision,
        "dtype": str(encoder.model.dtype).removeprefix("torch."),
        "background": encoder.background,
        "max_length_s": encoder.max_length_s,
        "modality": encoder.modality,
    }


class _Worker:
    """Encodes a batch of shards and tells of each what went wrong, if anything did; the others of the batch are left then."""

    def __init__(self, teacher: dict[str, Any], plan: EncodingPlan, output: Output):
        self.teacher, self.plan, self.output = teacher, plan, output

    @cached_property
    def encoder(self) -> FrozenEncoder:
        encoder = FrozenEncoder.from_pretrained(**self.teacher)
        if encoder.description() != self.plan.teacher:
            raise ValueError(
                f"the teacher that a worker loads from '{self.teacher['name_or_path']}' is another one: save the teacher to a "
                "folder that all workers see, and load it from there."
            )
        return encoder

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, list[Any]]:
        shards, failed, shard = batch["item"].tolist(), None, -1
        try:
            for shard in shards:
                encode_shard(self.encoder, self.plan, shard, self.output)
        except Exception as error:
            failed = error
        try:
            self.output.close()
        except Exception as error:
            failed = failed or error
        told = "" if failed is None else str(failed)
        if failed is not None and not told.startswith("shard "):
            told = f"shard {shard} of {self.plan.source.num_shards}: {told or type(failed).__name__}"
        return {"shard": shards, "kind": [type(failed).__name__] * len(shards), "error": [told] * len(shards)}
