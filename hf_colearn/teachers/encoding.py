"""Encoding U distinct of N inputs once, across processes, into a folder that appears whole or not at all."""

import errno
import os
import shutil
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Audio, Column, Dataset
from tqdm.auto import tqdm

from hf_colearn.data.columns import as_stored
from hf_colearn.teachers import fingerprint
from hf_colearn.teachers.bank_arguments import check_encoding
from hf_colearn.teachers.bank_files import FORMAT, described_dtype
from hf_colearn.teachers.bank_writing import DESCRIPTION, write_bank
from hf_colearn.teachers.distinct import IN_MEMORY, Distinct, find_distinct
from hf_colearn.teachers.encoder import FrozenEncoder
from hf_colearn.teachers.inputs import digest
from hf_colearn.teachers.rows import CHUNK_BYTES
from hf_colearn.teachers.stored_latents import StoredLatents, stored_latents
from hf_colearn.utils import distributed


_RAW = "latents.raw"  # U records while encoding, written in any order; gone afterwards
_FAILED = "failed"  # beside it, once a process has failed, so that the others stop at their next batch
PARTIAL, _ABANDONED_S = ".partial", 24 * 3600
_DISK_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_FOLDER_ERRORS = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.ENOENT, errno.EEXIST}


def _as_stored(inputs: Sequence[Any]) -> Sequence[Any]:
    """A column of audio as paths and bytes, which soundfile reads too; `datasets` decodes by torchcodec alone."""
    if isinstance(inputs, Column) and isinstance(inputs.features, Audio) and isinstance(inputs.source, Dataset):
        return as_stored(inputs.source, inputs.column_name)[inputs.column_name]
    return inputs


def distinct_of(encoder: FrozenEncoder, inputs: Sequence[Any], cache: Path | None = None) -> Distinct:
    """The distinct ones of a teacher's inputs, each of which is read once; files of many are in the folder `cache`."""
    if cache is not None and len(inputs) > IN_MEMORY:
        with plain_disk_errors(cache / "bank"):
            cache.mkdir(parents=True, exist_ok=True)
    return find_distinct(_as_stored(inputs), encoder.modality, cache)


def encoded_bank(
    encoder: FrozenEncoder,
    inputs: Sequence[Any],
    cache_dir: str | os.PathLike,
    batch_size: int,
    show_progress: bool,
    dtype: str,
) -> Path:
    """The folder of a bank in the cache, encoded where it is not there; see [`TeacherBank.encode`]."""
    with distributed.raise_on_all_ranks():
        check_encoding(encoder, inputs, cache_dir, batch_size, dtype)
        distinct = distinct_of(encoder, inputs, Path(cache_dir))
        facts = {"format": FORMAT, "inputs": distinct.fingerprint, **encoder.description(), **described_dtype(dtype)}
        folder = Path(cache_dir) / fingerprint.of_json(facts)
    main_name, is_cached = distributed.from_main_process((folder.name, folder.exists()))
    with distributed.raise_on_all_ranks():
        if folder.name != main_name:
            raise ValueError(
                "this process has other inputs or another teacher than the main process: pass the same to all."
            )
    if not is_cached:
        numbers = {"num_rows": len(inputs), "num_distinct": len(distinct.positions)}
        description = {**facts, "fingerprint": folder.name, **numbers}
        encode_to_folder(encoder, inputs, distinct, description, folder, batch_size, show_progress, dtype)
    return folder


def encode_to_folder(
    encoder: FrozenEncoder,
    inputs: Sequence[Any],
    distinct: Distinct,
    description: dict[str, Any],
    folder: Path,
    batch_size: int,
    show_progress: bool,
    dtype: str,
) -> None:
    """Encodes this process's share and, on the main process, writes the folder; all processes leave together."""
    partial = folder.with_name(distributed.from_main_process(f"{folder.name}.{uuid.uuid4().hex}{PARTIAL}"))
    is_main = distributed.rank() == 0
    inputs = _as_stored(inputs)
    raw = RawLatents(partial / _RAW, dtype, encoder.dim)
    try:
        with distributed.raise_on_all_ranks():
            if is_main:
                _sweep(folder.parent)
                _prepare(partial, raw, rows=len(distinct.positions))
        with distributed.raise_on_all_ranks():
            try:
                _encode_share(encoder, inputs, distinct, raw, batch_size, show_progress and is_main)
            except Exception:
                with suppress(OSError):
                    (partial / _FAILED).touch()
                raise
        with distributed.raise_on_all_ranks():
            if is_main:
                index = None if len(distinct.positions) == len(inputs) else distinct.index
                with plain_disk_errors(partial):
                    write_bank(partial, raw.chunks(), _Keys(encoder, inputs, distinct), index, description)
                    raw.path.unlink()
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


def _prepare(partial: Path, raw: "RawLatents", rows: int) -> None:
    """Makes the folder and reserves the disk space, so that a full disk shows before an hour of encoding."""
    needed = rows * raw.record.itemsize
    with plain_disk_errors(partial):
        partial.mkdir(parents=True)
        with open(raw.path, "wb") as file:
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file.fileno(), 0, needed)
            else:
                file.truncate(needed)
        free = shutil.disk_usage(partial).free
        if free < needed:
            raise OSError(errno.ENOSPC, f"{needed} more bytes are needed to finish the bank, {free} are free")


class RawLatents:
    """The file of U latents while they are encoded, a record each, written in any order and read in theirs.

    Args:
        path (`Path`): Where it is.
        dtype (`str`): As what the numbers are stored; of int8 with a scale.
        dim (`int`): D.
    """

    def __init__(self, path: Path, dtype: str, dim: int):
        self.path, self.dtype = path, dtype
        self.record = np.dtype([("values", dtype, dim), *([("scale", np.float32)] if dtype == "int8" else [])])

    def write(self, rows: Sequence[int], latents_BD: np.ndarray, positions: Sequence[int]) -> None:
        """Writes the latents of rows; an error names one by its input's position."""
        values_BD, scales_B = stored_latents(latents_BD, self.dtype, positions)
        records_B = np.empty(len(rows), self.record)
        records_B["values"] = values_BD
        if scales_B is not None:
            records_B["scale"] = scales_B
        with plain_disk_errors(self.path.parent), open(self.path, "r+b") as file:
            for row, record in zip(rows, records_B, strict=True):
                file.seek(row * self.record.itemsize)
                file.write(record.tobytes())

    def chunks(self) -> Iterator[StoredLatents]:
        """All of them, piece by piece."""
        size = max(1, CHUNK_BYTES // self.record.itemsize)
        with open(self.path, "rb") as file:
            while len(records := np.fromfile(file, dtype=self.record, count=size)):
                yield records["values"], records["scale"] if self.dtype == "int8" else None


class _Keys:
    """The keys of the distinct inputs by slice: texts themselves, of images and waveforms digests in hexadecimal."""

    def __init__(self, encoder: FrozenEncoder, inputs: Sequence[Any], distinct: Distinct):
        self._is_text, self._inputs, self._distinct = encoder.modality == "text", inputs, distinct

    def __getitem__(self, rows: slice) -> list[str]:
        positions = map(int, self._distinct.positions[rows])
        if self._is_text:
            return [self._inputs[position] for position in positions]
        return [self._distinct.digests[position].hex() for position in positions]


@contextmanager
def plain_disk_errors(folder: Path):
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
    encoder: FrozenEncoder,
    inputs: Sequence[Any],
    distinct: Distinct,
    raw: RawLatents,
    batch_size: int,
    show_progress: bool,
) -> None:
    batches = encoder.batches(inputs, distinct.positions, batch_size)
    share = range(distributed.rank(), len(batches), distributed.world_size())
    if share:
        position = int(distinct.positions[batches[share[0]][0]])
        encoder.check_deterministic(inputs[position], position)
    bar = tqdm(total=len(distinct.positions), desc="Encoding teacher latents", unit="input", disable=not show_progress)
    with bar:
        for number in share:
            if raw.path.with_name(_FAILED).exists():
                return  # the process that failed says why
            rows = batches[number]
            raw.write(rows, *_encode_batch(encoder, inputs, distinct, rows))
            bar.update(len(rows))


def encode_frames(
    encoder: FrozenEncoder, inputs: Sequence[Any], distinct: Distinct, batch_size: int
) -> list[np.ndarray]:
    """The frames of every distinct input, `(T, D)` each, on this process and in memory."""
    inputs = _as_stored(inputs)
    batches = encoder.batches(inputs, distinct.positions, batch_size)
    first = int(distinct.positions[0])
    encoder.check_deterministic(inputs[first], first)
    frames: dict[int, np.ndarray] = {}
    for rows in tqdm(batches, desc="Encoding teacher frames", unit="batch", disable=len(batches) < 2):
        batch, positions = _read_batch(encoder, inputs, distinct, rows)
        encoded = encoder.encode_frames(batch, positions)
        check_finite(torch.tensor([bool(torch.isfinite(each).all()) for each in encoded]), batch, positions)
        frames.update(zip(rows, (each.numpy() for each in encoded), strict=True))
    return [frames[row] for row in range(len(frames))]


def _encode_batch(
    encoder: FrozenEncoder, inputs: Sequence[Any], distinct: Distinct, rows: list[int]
) -> tuple[np.ndarray, list[int]]:
    """The latents of some of the distinct inputs, `(len(rows), D)`, and these' positions; refused where not exact."""
    batch, positions = _read_batch(encoder, inputs, distinct, rows)
    latents_BD = encoder.encode(batch, positions)
    check_finite(torch.isfinite(latents_BD).all(dim=1), batch, positions)
    return latents_BD.numpy(), positions


def _read_batch(
    encoder: FrozenEncoder, inputs: Sequence[Any], distinct: Distinct, rows: list[int]
) -> tuple[list[Any], list[int]]:
    """Some of the distinct inputs and their positions; refuses what is another one than at the first reading."""
    positions = [int(distinct.positions[row]) for row in rows]
    batch = [inputs[position] for position in positions]
    for position, item in zip(positions, batch, strict=True):
        if digest(item, position, encoder.modality) != distinct.digests[position]:
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


def publish(partial: Path, folder: Path) -> None:
    """Moves a whole bank to its place."""
    try:
        partial.rename(folder)
    except OSError:
        if not (folder / DESCRIPTION).is_file():  # else another run has finished the same bank first
            raise
