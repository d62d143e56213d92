"""A bank of an encoded data set's rows: the latents of its Parquet files, copied to where they can be read by row.

Shapes: N rows, B of a piece, D dimensions.
"""

import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from hf_colearn.teachers import fingerprint
from hf_colearn.teachers.bank_files import FORMAT, described_dtype
from hf_colearn.teachers.bank_writing import write_bank
from hf_colearn.teachers.encoded.manifest import Manifest
from hf_colearn.teachers.encoding import PARTIAL, plain_disk_errors, publish
from hf_colearn.teachers.rows import CHUNK_BYTES, row_bytes
from hf_colearn.teachers.stored_latents import StoredLatents
from hf_colearn.utils import distributed


def encoded_bank(folder: Path, cache: Path) -> Path:
    """The folder of the bank in the cache, which the main process makes where there is none; see [`TeacherBank.from_encoded`].

    Memory holds one piece of 8 MB. The bank is known by the shards' content.
    """
    with distributed.raise_on_all_ranks():
        manifest = Manifest.read(folder)
        shards = [shard["sha256"] for shard in manifest.shards]
        facts = {"format": FORMAT, **manifest.teacher, "encoded": manifest.job, "shards": fingerprint.of_json(shards)}
        name = fingerprint.of_json(facts)
    with distributed.raise_on_all_ranks():
        if distributed.rank() == 0 and not (cache / name).exists():
            _check_files(folder, manifest)
            numbers = {"num_rows": manifest.rows, "num_distinct": manifest.rows}
            stored = described_dtype(manifest.dtype)
            partial = cache / f"{name}.{uuid.uuid4().hex}{PARTIAL}"
            try:
                with plain_disk_errors(partial):
                    write_bank(
                        partial,
                        _pieces(folder, manifest),
                        None,
                        None,
                        {**facts, **stored, **numbers, "fingerprint": name},
                    )
                    publish(partial, cache / name)
            finally:
                shutil.rmtree(partial, ignore_errors=True)
    return cache / name


def _check_files(folder: Path, manifest: Manifest) -> None:
    for shard in manifest.shards:
        path = folder / shard["file"]
        found = path.stat().st_size if path.is_file() else 0
        if found != shard["bytes"]:
            raise ValueError(
                f"'{path}' has {found} bytes, and the manifest says {shard['bytes']}: the file is missing, truncated or "
                "another one. Copy the encoded data set anew, or repeat its `hf-colearn encode`."
            )


def _pieces(folder: Path, manifest: Manifest) -> Iterator[StoredLatents]:
    """The latents of all shards in their order, as they are stored; a row without one has NaN."""
    is_int8 = manifest.dtype == "int8"
    columns = [manifest.column, *([f"{manifest.column}_scale"] if is_int8 else [])]
    size = max(1, CHUNK_BYTES // row_bytes(manifest.dtype, manifest.dim))
    for shard in manifest.shards:
        with pq.ParquetFile(folder / shard["file"]) as file:
            for batch in file.iter_batches(batch_size=size, columns=columns):
                if len(batch):
                    yield _stored(batch.column(0), batch.column(1) if is_int8 else None, manifest)


def _stored(latents: pa.Array, scales: pa.Array | None, manifest: Manifest) -> StoredLatents:
    has_latent_B = latents.is_valid().to_numpy(zero_copy_only=False)
    none = 0 if manifest.dtype == "int8" else np.nan
    values_BD = np.full((len(latents), manifest.dim), none, dtype=manifest.dtype)
    values_BD[has_latent_B] = latents.flatten().to_numpy(zero_copy_only=False).reshape(-1, manifest.dim)
    if scales is None:
        return values_BD, None
    return values_BD, np.where(has_latent_B, scales.to_numpy(zero_copy_only=False), np.nan).astype(np.float32)
