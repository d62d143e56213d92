"""One shard of a source becomes one Parquet file with the teacher's latents.

Shapes: B rows of a block, U <= B distinct inputs among them, D dimensions.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from datasets.features.features import require_storage_embed

from hf_colearn.teachers.encoded.manifest import METADATA_KEY, ShardRecord
from hf_colearn.teachers.encoded.moments import Moments
from hf_colearn.teachers.encoded.outputs import Output, told
from hf_colearn.teachers.encoded.plan import EncodingPlan
from hf_colearn.teachers.encoder import FrozenEncoder
from hf_colearn.teachers.encoding import check_finite
from hf_colearn.teachers.inputs import digest
from hf_colearn.teachers.stored_latents import restored_latents, stored_latents


# Rows that are read at once, and those of a row group, which `datasets` reads at once; of images and sounds fewer.
_BLOCK_ROWS, _GROUP_ROWS, _MEDIA_BLOCK_ROWS, _MEDIA_GROUP_ROWS = 10_000, 1_000, 500, 100


def encode_shard(encoder: FrozenEncoder, plan: EncodingPlan, shard: int, output: Output) -> ShardRecord:
    """Encodes a shard and puts its file in place, or leaves nothing. What every engine calls, once a shard.

    Args:
        encoder ([`~hf_colearn.FrozenEncoder`]): The plan's teacher, on the device of this process.
        plan ([`EncodingPlan`]): What is encoded.
        shard (`int`): Its number.
        output ([`Output`]): Where to.

    Raises:
        ValueError: If a row cannot be read or encoded, with the number of the shard and of the row in it.
        OSError: If the file cannot be written.
    """
    path = output.partial(plan.file(shard))
    try:
        with told(path.parent):
            record = write_shard(encoder, plan, shard, path)
            output.put(plan.file(shard), path)
        return record
    finally:
        path.unlink(missing_ok=True)


def write_shard(encoder: FrozenEncoder, plan: EncodingPlan, shard: int, path: Path) -> ShardRecord:
    """Writes a shard's Parquet file. The bytes depend on the plan and the shard alone, on one kind of device.

    Memory holds a block of 10,000 rows (500, where a column has images or sounds) and the latents of the shard's distinct
    inputs as they are stored: U (b D + 300) bytes, with b = 4, 2 or 1 bytes a number.
    """
    latents = _DistinctLatents(encoder, plan)
    moments, rows, paired = Moments.none(plan.dim), 0, 0
    read = [name for name in plan.source.features if name in plan.features or name == plan.options.input_column]
    is_media = any(require_storage_embed(plan.source.features[name]) for name in read)
    sizes = (_MEDIA_BLOCK_ROWS, _MEDIA_GROUP_ROWS) if is_media else (_BLOCK_ROWS, _GROUP_ROWS)
    written = {"use_content_defined_chunking": True, "write_page_index": True}
    with pq.ParquetWriter(path, plan.features.arrow_schema, **written) as writer:
        with _naming(plan, shard):
            for block in plan.source.blocks(shard, sizes[0], read):
                cells = block[plan.options.input_column].to_pylist()
                columns, of_block = latents.columns(cells, rows)
                table = _kept(block, plan, plan.source.first_id(shard) + rows, columns)
                writer.write_table(table, row_group_size=sizes[1])
                moments, rows, paired = moments + of_block, rows + len(block), paired + of_block.number
        record = ShardRecord(shard, plan.job["job"], rows, paired, len(latents), moments)
        facts = {"source": plan.source.description, "dim": plan.dim, "dtype": plan.options.dtype}
        text = record.as_json(**facts, column=plan.options.latent_column)
        writer.add_key_value_metadata({METADATA_KEY: text})
    return record


@contextmanager
def _naming(plan: EncodingPlan, shard: int) -> Iterator[None]:
    """Adds the shard to what is wrong with one of its rows, which are numbered from 0."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"shard {shard} of {plan.source.num_shards}: {error}") from error


def _kept(block: pa.Table, plan: EncodingPlan, first_id: int, latents: dict[str, pa.Array]) -> pa.Table:
    """The kept columns of a block, its ids and its latents, in the order of the plan's features."""
    id_column = plan.options.id_column
    columns = {name: block[name] for name in block.column_names}
    if id_column not in columns:
        columns[id_column] = pa.array(np.arange(first_id, first_id + len(block)))
    elif columns[id_column].null_count:
        raise ValueError(f"a row has no id in column '{id_column}': pass another `id_column`, which is made.")
    columns |= latents
    schema = plan.features.arrow_schema
    return pa.table([columns[name] for name in schema.names], schema=schema)


class _DistinctLatents:
    """The latents of a shard's distinct inputs, each encoded when it is first met; `len` is their number."""

    def __init__(self, encoder: FrozenEncoder, plan: EncodingPlan):
        self.encoder, self.plan = encoder, plan
        self._known: dict[bytes, tuple[np.ndarray, np.float32 | None]] = {}  # (D,) as stored, and its scale

    def __len__(self) -> int:
        return len(self._known)

    def columns(self, cells: list[Any], first_row: int) -> tuple[dict[str, pa.Array], Moments]:
        """The columns of latents of a block's inputs, null where one is None, and the moments of those that are not."""
        numbers: dict[bytes, int] = {}  # the block's distinct inputs
        new: dict[int, Any] = {}  # by their row in the shard
        digests: list[bytes] = []
        index_B = np.full(len(cells), -1)
        for i, cell in enumerate(cells):
            if cell is None:
                continue
            key = digest(cell, first_row + i, self.encoder.modality)
            if key not in numbers and key not in self._known:
                new[first_row + i] = cell
                digests.append(key)
            index_B[i] = numbers.setdefault(key, len(numbers))
        self._encode(new, digests)
        found = [self._known[key] for key in numbers]
        values_UD = np.stack([values for values, _ in found]) if found else np.empty((0, self.plan.dim), np.float32)
        is_int8 = self.plan.options.dtype == "int8"
        scales_U = np.array([scale for _, scale in found], np.float32) if is_int8 else None
        return self._arrays(values_UD, scales_U, index_B), self._moments(values_UD, scales_U, index_B)

    def _encode(self, inputs: dict[int, Any], digests: list[bytes]) -> None:
        positions, encoder = list(inputs), self.encoder
        if positions and not self._known:
            encoder.check_deterministic(inputs[positions[0]], positions[0])
        for numbers in encoder.batches(inputs, positions, self.plan.options.batch_size) if positions else ():
            rows = [positions[number] for number in numbers]
            batch = [inputs[row] for row in rows]
            latents_BD = encoder.encode(batch, rows)
            check_finite(latents_BD.isfinite().all(dim=1), batch, rows)
            values_BD, scales_B = stored_latents(latents_BD.numpy(), self.plan.options.dtype)
            for i, number in enumerate(numbers):
                self._known[digests[number]] = values_BD[i], None if scales_B is None else scales_B[i]

    def _arrays(self, values_UD: np.ndarray, scales_U: np.ndarray | None, index_B: np.ndarray) -> dict[str, pa.Array]:
        is_none_B = index_B < 0
        options, dim = self.plan.options, self.plan.dim
        values_BD = np.zeros((len(index_B), dim), dtype=options.dtype)
        values_BD[~is_none_B] = values_UD[index_B[~is_none_B]]
        mask = pa.array(is_none_B) if is_none_B.any() else None
        flat = pa.array(values_BD.reshape(-1))
        arrays = {options.latent_column: pa.FixedSizeListArray.from_arrays(flat, dim, mask=mask)}
        if scales_U is not None:
            scales_B = np.zeros(len(index_B), np.float32)
            scales_B[~is_none_B] = scales_U[index_B[~is_none_B]]
            arrays[options.scale_column] = pa.array(scales_B, mask=is_none_B)
        return arrays

    def _moments(self, values_UD: np.ndarray, scales_U: np.ndarray | None, index_B: np.ndarray) -> Moments:
        if not len(values_UD):
            return Moments.none(self.plan.dim)
        counts_U = np.bincount(index_B[index_B >= 0], minlength=len(values_UD))
        return Moments.of(restored_latents(values_UD, scales_U), counts_U)
