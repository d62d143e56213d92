"""Encoding U distinct of N inputs once, across processes, into a folder that appears whole or not at all."""

import errno
import json
import os
import shutil
import time
import uuid
from collections.abc import Iterable, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
import xxhash
from datasets import Audio, Column, Dataset, Features, List, Value
from datasets.arrow_writer import ArrowWriter
from tqdm.auto import tqdm

from hf_colearn.data.columns import as_stored
from hf_colearn.teachers.encoder import FrozenEncoder
from hf_colearn.teachers.inputs import digest
from hf_colearn.utils import distributed


LATENTS, INDEX, DESCRIPTION = "latents.arrow", "index.arrow", "bank.json"
_RAW = "latents.f32"  # [U, D] while encoding, rows in any order; gone afterwards
_FAILED = "failed"  # beside it, once a process has failed, so that the others stop at their next batch
PARTIAL, _ABANDONED_S = ".partial", 24 * 3600
CHUNK_BYTES = 8 * 1024 * 1024
_DISK_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_FOLDER_ERRORS = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.ENOENT, errno.EEXIST}


def _as_stored(inputs: Sequence[Any]) -> Sequence[Any]:
    """A column of audio as paths and bytes, which soundfile reads too; `datasets` decodes by torchcodec alone."""
    if isinstance(inputs, Column) and isinstance(inputs.features, Audio) and isinstance(inputs.source, Dataset):
        return as_stored(inputs.source, inputs.column_name)[inputs.column_name]
    return inputs


@dataclass
class Distinct:
    """The distinct ones among N inputs: where each first stands, and which of them every input is."""

    positions: list[int]  # [U] into the inputs
    digests: list[bytes]  # [U]
    index: np.ndarray  # [N] int64 into the U
    fingerprint: str


def find_distinct(inputs: Sequence[Any], modality: str = "text") -> Distinct:
    """Reads every input once and finds the distinct ones by their digests; `modality` is the teacher's."""
    if isinstance(inputs, str):
        raise ValueError(f"inputs='{inputs}' is a single text: pass a list of inputs.")
    known: dict[bytes, int] = {}
    inputs = _as_stored(inputs)
    numbers = (known.setdefault(digest(item, position, modality), len(known)) for position, item in enumerate(inputs))
    index = np.fromiter(numbers, np.int64, len(inputs))
    if not known:
        raise ValueError(
            "there are no inputs to encode: the list is empty. Pass at least one text, image or waveform."
        )
    fingerprint = xxhash.xxh3_128(b"".join(known))
    fingerprint.update(index.data)
    positions = np.unique(index, return_index=True)[1].tolist()
    return Distinct(positions, list(known), index, fingerprint.hexdigest())


def encode_to_folder(
    encoder: FrozenEncoder,
    inputs: Sequence[Any],
    distinct: Distinct,
    description: dict[str, Any],
    folder: Path,
    batch_size: int,
    show_progress: bool,
) -> None:
    """Encodes this process's share and, on the main process, writes the folder; all processes leave together."""
    partial = folder.with_name(distributed.from_main_process(f"{folder.name}.{uuid.uuid4().hex}{PARTIAL}"))
    is_main = distributed.rank() == 0
    inputs = _as_stored(inputs)
    raw = partial / _RAW
    try:
        with distributed.raise_on_all_ranks():
            if is_main:
                _sweep(folder.parent)
                _prepare(partial, raw, rows=len(distinct.positions), dim=encoder.dim)
        with distributed.raise_on_all_ranks():
            try:
                _encode_share(encoder, inputs, distinct, raw, batch_size, show_progress and is_main)
            except Exception:
                with suppress(OSError):
                    (partial / _FAILED).touch()
                raise
        with distributed.raise_on_all_ranks():
            if is_main:
                names = [key.hex() for key in distinct.digests]
                if encoder.modality == "text":
                    names = [inputs[position] for position in distinct.positions]
                index = None if len(distinct.positions) == len(inputs) else distinct.index
                with _plain_disk_errors(partial):
                    write_bank(partial, _raw_chunks(raw, encoder.dim), names, index, description)
                    raw.unlink()
                    publish(partial, folder)
    finally:
        if is_main:
            shutil.rmtree(partial, ignore_errors=True)


def _sweep(cache: Path) -> None:
    """Removes what killed runs have left behind: folders that were not written to for a day."""
    for partial in cache.glob("?" * 32 + "." + "?" * 32 + PARTIAL):
        with suppress(OSError):  # gone in the meantime
            if time.time() - max(path.stat().st_mtime for path in (partial, *partial.iterdir())) > _ABANDONED_S:
                shutil.rmtree(partial, ignore_errors=True)


def _prepare(partial: Path, raw: Path, rows: int, dim: int) -> None:
    """Makes the folder and reserves the disk space, so that a full disk shows before an hour of encoding."""
    with _plain_disk_errors(partial):
        partial.mkdir(parents=True)
        with open(raw, "wb") as file:
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file.fileno(), 0, rows * dim * 4)
            else:
                file.truncate(rows * dim * 4)
        free, needed = shutil.disk_usage(partial).free, rows * dim * 4
        if free < needed:
            raise OSError(errno.ENOSPC, f"{needed} more bytes are needed to finish the bank, {free} are free")


@contextmanager
def _plain_disk_errors(folder: Path):
    try:
        yield
    except OSError as error:
        if error.errno in _DISK_ERRORS:
            why = (
                f"the disk under '{folder.parent}' is full, the bank was not written ({error.strerror}). Free some space, or "
                "pass another `cache_dir`; nothing half-written stays behind"
            )
        elif error.errno in _FOLDER_ERRORS:
            why = (
                f"the bank's folder '{folder.parent}' cannot be written ({error.strerror}): pass another `cache_dir` (the same "
                "for every process), or set HF_HOME to a folder of yours"
            )
        else:
            raise
        raise OSError(error.errno, why) from error


def _encode_share(
    encoder: FrozenEncoder, inputs: Sequence[Any], distinct: Distinct, raw: Path, batch_size: int, show_progress: bool
) -> None:
    batches = encoder.batches(inputs, distinct.positions, batch_size)
    share = batches[distributed.rank() :: distributed.world_size()]
    if share:
        position = distinct.positions[share[0][0]]
        encoder.check_deterministic(inputs[position], position)
    bar = tqdm(total=sum(map(len, share)), desc="Encoding teacher latents", unit="input", disable=not show_progress)
    with bar:
        for rows in share:
            if raw.with_name(_FAILED).exists():
                return  # the process that failed says why
            latents_BD = _encode_batch(encoder, inputs, distinct, rows)
            with _plain_disk_errors(raw.parent), open(raw, "r+b") as file:
                for row, latent_D in zip(rows, latents_BD.numpy(), strict=True):
                    file.seek(row * latent_D.nbytes)
                    file.write(latent_D.tobytes())
            bar.update(len(rows))


def encode_frames(
    encoder: FrozenEncoder, inputs: Sequence[Any], distinct: Distinct, batch_size: int
) -> list[np.ndarray]:
    """The frames of every distinct input, `(T, D)` each, on this process and in memory."""
    inputs = _as_stored(inputs)
    batches = encoder.batches(inputs, distinct.positions, batch_size)
    encoder.check_deterministic(inputs[distinct.positions[0]], distinct.positions[0])
    frames: dict[int, np.ndarray] = {}
    for rows in tqdm(batches, desc="Encoding teacher frames", unit="batch", disable=len(batches) < 2):
        batch, positions = _read_batch(encoder, inputs, distinct, rows)
        encoded = encoder.encode_frames(batch, positions)
        check_finite(torch.tensor([bool(torch.isfinite(each).all()) for each in encoded]), batch, positions)
        frames.update(zip(rows, (each.numpy() for each in encoded), strict=True))
    return [frames[row] for row in range(len(frames))]


def _encode_batch(encoder: FrozenEncoder, inputs: Sequence[Any], distinct: Distinct, rows: list[int]) -> torch.Tensor:
    """The latents of some of the distinct inputs, `(len(rows), D)`, refused where they would not be exact."""
    batch, positions = _read_batch(encoder, inputs, distinct, rows)
    latents_BD = encoder.encode(batch, positions)
    check_finite(torch.isfinite(latents_BD).all(dim=1), batch, positions)
    return latents_BD


def _read_batch(
    encoder: FrozenEncoder, inputs: Sequence[Any], distinct: Distinct, rows: list[int]
) -> tuple[list[Any], list[int]]:
    """Some of the distinct inputs and their positions; refuses what is another one than at the first reading."""
    positions = [distinct.positions[row] for row in rows]
    batch = [inputs[position] for position in positions]
    for row, position, item in zip(rows, positions, batch, strict=True):
        if digest(item, position, encoder.modality) != distinct.digests[row]:
            raise ValueError(
                f"teacher input {position} changed between two reads: it is augmented, and a bank of it would not be "
                "exact. Give the teacher the plain inputs; augment the student's only."
            )
    return batch, positions


def check_finite(is_finite_B: torch.Tensor, batch: list[Any], positions: list[int]) -> None:
    if not is_finite_B.all():
        first = int((~is_finite_B).nonzero()[0])
        shown = f" ('{batch[first][:80]}')" if isinstance(batch[first], str) else ""
        raise ValueError(
            f"the teacher gives NaN or infinite values for input {positions[first]}{shown}: encode with "
            'dtype="float32", or look at that input.'
        )


def _raw_chunks(raw: Path, dim: int) -> Iterable[np.ndarray]:
    with open(raw, "rb") as file:
        while len(chunk := np.fromfile(file, dtype=np.float32, count=max(1, CHUNK_BYTES // (dim * 4)) * dim)):
            yield chunk.reshape(-1, dim)


def publish(partial: Path, folder: Path) -> None:
    """Moves a whole bank to its place."""
    try:
        partial.rename(folder)
    except OSError:
        if not (folder / DESCRIPTION).is_file():  # else another run has finished the same bank first
            raise


def latent_table(latents_UD: np.ndarray, inputs: Sequence[str] | None) -> pa.Table:
    """An Arrow table of the columns `latent` (fixed-size lists) and `input` (text, or null where unknown)."""
    flat = pa.array(np.ascontiguousarray(latents_UD, dtype=np.float32).reshape(-1))
    latent = pa.FixedSizeListArray.from_arrays(flat, latents_UD.shape[1])
    texts = pa.nulls(len(latent), pa.string()) if inputs is None else pa.array(list(inputs), pa.string())
    return pa.table({"latent": latent, "input": texts})


def write_bank(
    folder: Path,
    chunks: Iterable[np.ndarray],
    distinct_inputs: Sequence[str] | None,
    index: np.ndarray | None,
    description: dict[str, Any],
) -> None:
    """Writes `latents.arrow`, `index.arrow` where rows repeat, and last `bank.json` with the sizes of the others."""
    folder.mkdir(parents=True, exist_ok=True)
    chunks, start = iter(chunks), 0
    first = next(chunks)  # a bank has at least one row
    features = Features({"latent": List(Value("float32"), length=first.shape[1]), "input": Value("string")})
    with ArrowWriter(path=str(folder / LATENTS), features=features) as writer:
        for chunk in chain([first], chunks):
            texts = None if distinct_inputs is None else distinct_inputs[start : start + len(chunk)]
            writer.write_table(latent_table(chunk, texts))
            start += len(chunk)
        writer.finalize()
    names = [LATENTS]
    if index is not None:
        with ArrowWriter(path=str(folder / INDEX), features=Features({"row": Value("int64")})) as writer:
            writer.write_table(pa.table({"row": pa.array(index)}))
            writer.finalize()
        names.append(INDEX)
    write_description(folder, description, names)


def write_description(folder: Path, description: dict[str, Any], names: Sequence[str]) -> None:
    """Writes `bank.json`, last, with the sizes of the files beside it."""
    sizes = {name: (folder / name).stat().st_size for name in names}
    (folder / DESCRIPTION).write_text(json.dumps(description | {"files": sizes}, indent=2, default=str))
