"""A teacher's sequences: latents of frames or tokens, or their ids; rows of different lengths in Arrow, read by row.

Shapes: N rows of lengths T_i, M = sum T_i frames, D dimensions, B rows of a look-up, T the longest of them.
"""

import math
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
import xxhash
from datasets import Dataset, Features, LargeList, List, Value
from datasets.arrow_writer import ArrowWriter

from hf_colearn.data.sample_ids import NO_LABEL
from hf_colearn.teachers import bank_files, encoding, fingerprint
from hf_colearn.teachers.bank import TeacherBank, default_cache_dir
from hf_colearn.teachers.bank_arguments import as_ids, as_sequences, check_encoding, stored_rows
from hf_colearn.teachers.bank_base import BankBase
from hf_colearn.teachers.bank_files import FORMAT
from hf_colearn.teachers.bank_inputs import BankInputs, find_rows, keys_of
from hf_colearn.teachers.bank_writing import DESCRIPTION, write_description
from hf_colearn.teachers.encoder import FrozenEncoder
from hf_colearn.teachers.latent_scale import first_zero, moments, standardization, unit_norm
from hf_colearn.teachers.rows import CHUNK_BYTES
from hf_colearn.utils import distributed
from hf_colearn.utils.checks import check_path


SEQUENCES = "sequences.arrow"


class SequenceBank(BankBase):
    """Sequences of a frozen teacher, one row an input: `[T_i, D]` latents of its frames, or `[T_i]` ids.

    Takes the place of a [`TeacherBank`] in [`Teacher`] and in pairings that choose rows. Made by [`SequenceBank.encode`],
    [`SequenceBank.from_sequences`], [`SequenceBank.from_ids`] or [`SequenceBank.load`].

    Attributes:
        dim (`int` or `None`): D; `None` of ids.
        num_ids (`int` or `None`): Of ids, how many there are: they are below it. `None` of latents.
        lengths (`np.ndarray` of shape `(N,)`): T_i of every row, int64.
        fingerprint (`str`): Of the sequences and what is recorded of them; of encoded ones of inputs and teacher.
        scaling (`str`): As of [`TeacherBank`].
        description (`dict`): What is recorded of the teacher, and the scaling.

    Example:

    ```python
    >>> import numpy as np
    >>> from hf_colearn.teachers.sequence_bank import SequenceBank

    >>> bank = SequenceBank.from_ids([[7, 8, 9], [4]])
    >>> bank.lookup([1, 0]).tolist()
    [[4, -100, -100], [7, 8, 9]]
    >>> SequenceBank.from_sequences([np.ones((3, 2)), np.zeros((1, 2))]).lookup([1]).shape
    torch.Size([1, 1, 2])

    ```
    """

    def __init__(
        self,
        data: Dataset,
        description: dict[str, Any],
        scale: Callable[[np.ndarray], np.ndarray] | None = None,
    ):
        self._data, self._scale, self.description = data.with_format("arrow"), scale, description
        column = data.data.column("sequence")
        self.lengths = pc.list_value_length(column).to_numpy().astype(np.int64)
        inner = column.type.value_type
        self.dim: int | None = inner.list_size if pa.types.is_fixed_size_list(inner) else None

    # ---- making one ----
    @classmethod
    def from_sequences(
        cls, sequences: Sequence[Any], inputs: Sequence[Any] | None = None, **description: Any
    ) -> "SequenceBank":
        """A bank in memory, of latents that were computed elsewhere.

        Args:
            sequences (`Sequence` of N arrays or tensors of shape `(T_i, D)`): One an input, of whatever length above 0,
                finite.
            inputs (`Sequence`, *optional*): The text, image or waveform of each; see [`TeacherBank.from_latents`].
            description: Anything worth recording, such as `teacher="..."`.
        """
        frames_MD, lengths_N = as_sequences(sequences)
        return cls._of(frames_MD, lengths_N, inputs, description)

    @classmethod
    def from_ids(
        cls, ids: Sequence[Any], inputs: Sequence[Any] | None = None, num_ids: int | None = None, **description: Any
    ) -> "SequenceBank":
        """A bank in memory, of ids such as tokens or clusters.

        Args:
            ids (`Sequence` of N lists of integers): One an input, of whatever length above 0. -100 says that a position
                has none.
            inputs (`Sequence`, *optional*): See [`SequenceBank.from_sequences`].
            num_ids (`int`, *optional*): How many there are, such as a tokenizer's; one more than the largest by default.
            description: Anything worth recording, such as `tokenizer="..."`.
        """
        ids_M, lengths_N, num_ids = as_ids(ids, num_ids)
        return cls._of(ids_M, lengths_N, inputs, {**description, "num_ids": num_ids})

    @classmethod
    def _of(
        cls, flat: np.ndarray, lengths_N: np.ndarray, inputs: Sequence[Any] | None, description: dict[str, Any]
    ) -> "SequenceBank":
        keys = None if inputs is None else keys_of(BankInputs([], None, description.get("modality")), inputs)
        if keys is not None and len(keys) != len(lengths_N):
            raise ValueError(f"{len(keys)} inputs for {len(lengths_N)} sequences: pass one input a row.")
        if "fingerprint" not in description:
            digests = [xxhash.xxh3_128_hexdigest(array.data) for array in (flat, lengths_N)]
            name = fingerprint.of_json({"sequences": digests, "shape": flat.shape[1:], **description})
            description = {**description, "fingerprint": name}
        return cls(Dataset(_table(flat, lengths_N, keys)), description)

    @classmethod
    def encode(
        cls,
        encoder: FrozenEncoder,
        inputs: Sequence[Any],
        cache_dir: str | os.PathLike | None = None,
        batch_size: int = 64,
    ) -> "SequenceBank":
        """The last hidden states of a frozen encoder, without pooling and without padding: `[T_i, D]` an input.

        Special tokens are positions like others; of a feature map its cells are, row by row. Opened from the cache where an
        earlier call has left the same inputs and teacher there, as [`TeacherBank.encode`]. Else the main process alone
        encodes every distinct input once, in batches, and holds all of them in memory before it writes them.

        Args:
            encoder ([`FrozenEncoder`]): The teacher; its pooling is not used.
            inputs (`Sequence` or column of a `datasets.Dataset`): N texts, images or waveforms, not augmented.
            cache_dir (`str`, *optional*): As of [`TeacherBank.encode`].
            batch_size (`int`, *optional*, defaults to 64): Inputs a forward pass; the longest ones come first.
        """
        with distributed.raise_on_all_ranks():
            check_encoding(encoder, inputs, cache_dir, batch_size)
            distinct = encoding.distinct_of(encoder, inputs)
            description = {"format": FORMAT, "of": SEQUENCES, "inputs": distinct.fingerprint, **encoder.description()}
            folder = Path(cache_dir or default_cache_dir()) / fingerprint.of_json(description)
        with distributed.raise_on_all_ranks():
            if distributed.rank() == 0 and not folder.exists():
                frames = encoding.encode_frames(encoder, inputs, distinct, batch_size)
                frames_MD, lengths_N = as_sequences([frames[row] for row in distinct.index])
                bank = cls._of(frames_MD, lengths_N, inputs, {**description, "fingerprint": folder.name})
                folder.parent.mkdir(parents=True, exist_ok=True)
                with TemporaryDirectory(dir=folder.parent, suffix=encoding.PARTIAL) as partial:
                    bank.save(Path(partial) / "whole")
                    encoding.publish(Path(partial) / "whole", folder)
        with distributed.raise_on_all_ranks():
            return cls.load(folder)

    @classmethod
    def load(cls, folder: str | os.PathLike) -> "SequenceBank":
        """Opens a bank that [`save`] or [`encode`] has written, mapped; refuses one that is damaged or of something else."""
        check_path("folder", folder)
        description, _ = bank_files.read(Path(folder), SEQUENCES)
        try:
            return cls(Dataset.from_file(str(Path(folder) / SEQUENCES)), description)
        except (pa.ArrowException, OSError, KeyError, AttributeError, ValueError) as error:
            raise ValueError(
                f"'{Path(folder) / SEQUENCES}' holds no complete bank of sequences ({error}): it is damaged or of another "
                "program. Delete its folder, and make the bank anew."
            ) from error

    def save(self, folder: str | os.PathLike) -> None:
        """Writes the bank for [`load`], scaled as it is read: `sequences.arrow` and `bank.json`."""
        check_path("folder", folder)
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        # Written apart first, since the bank may be open in this very folder.
        with TemporaryDirectory(dir=folder, suffix=encoding.PARTIAL) as partial:
            path = Path(partial) / SEQUENCES
            sequence: Any = Value("int64") if self.dim is None else List(Value("float32"), length=self.dim)
            features = Features({"sequence": LargeList(sequence), "input": Value("string")})
            with ArrowWriter(path=str(path), features=features) as writer:
                for rows in self._pieces(np.arange(len(self))):
                    keys = None if self.stored_inputs is None else self.stored_inputs.at(rows)
                    writer.write_table(_table(self._flat(rows), self.lengths[rows], keys))
                writer.finalize()
            description = self.description | {"format": FORMAT}
            (folder / DESCRIPTION).unlink(missing_ok=True)
            os.replace(path, folder / SEQUENCES)
            write_description(folder, description, [SEQUENCES])

    def scaled(self, how: str, rows: Sequence[int] | np.ndarray | None = None) -> "SequenceBank":
        """The same bank with scaled latents, as [`TeacherBank.scaled`]: a latent is that of a frame.

        Args:
            how (`str`): `"standardized"`, over the frames of the distinct ones among `rows`; `"l2"`, every frame's latent has
                length 1; or `"none"`, which alone is for ids.
            rows (`Sequence[int]`, *optional*): Those of the training samples; all by default.
        """
        self._check_scaling(how)
        if self.dim is None and how != "none":
            raise ValueError(f"the bank holds ids, which have no scale: leave it as it is, instead of '{how}'.")
        scale: Callable[[np.ndarray], np.ndarray] | None = None
        scaling: dict[str, Any] = {"how": how}
        if how == "l2":
            if (zero := first_zero(self._chunks())) is not None:
                row = int(np.searchsorted(np.cumsum(self.lengths), zero, side="right"))
                raise ValueError(
                    f"a frame of row {row} of the bank is 0 in every dimension, so it has no direction: leave that frame out, "
                    "or scale by 'standardized' or 'none'."
                )
            scale = unit_norm
        elif how == "standardized":
            chosen = np.arange(len(self)) if rows is None else np.unique(stored_rows(rows, len(self)))
            scale = standardization(self._chunks(chosen), int(self.lengths[chosen].sum()))
            scaling |= {"num_distinct": len(chosen), "rows": xxhash.xxh3_128_hexdigest(chosen.data)}
        return SequenceBank(self._data, self._scaled_description(scaling), scale)

    # ---- using it ----
    @property
    def num_ids(self) -> int | None:
        return None if self.dim is not None else self.description["num_ids"]

    @cached_property
    def stored_inputs(self) -> BankInputs | None:
        """By what inputs are known again; `None` where they are unknown."""
        keys = bank_files.known_inputs(self._data.with_format(None))
        return None if keys is None else BankInputs(keys, None, self.description.get("modality"))

    def rows_of(self, inputs: Sequence[Any]) -> np.ndarray:
        """The row of each input, found by what it is, `(B,)` int64; see [`TeacherBank.rows_of`]."""
        return find_rows(self.stored_inputs, inputs)

    def __len__(self) -> int:
        return len(self.lengths)

    def __repr__(self) -> str:
        of = f"num_ids={self.num_ids}" if self.dim is None else f"dim={self.dim}, scaling='{self.scaling}'"
        lengths = f"lengths {self.lengths.min()} to {self.lengths.max()}"
        return f"SequenceBank({len(self)} rows, {lengths}, {of}, fingerprint='{self.fingerprint}')"

    def lookup(self, rows: Sequence[int] | np.ndarray | torch.Tensor) -> torch.Tensor:
        """The sequences of rows on the CPU: `(B, T, D)` float32 padded with NaN, of ids `(B, T)` int64 padded with -100."""
        rows_B = stored_rows(rows, len(self))
        lengths_B = self.lengths[rows_B]
        is_frame_BT = np.arange(lengths_B.max(initial=0)) < lengths_B[:, None]
        width, none = ((), NO_LABEL) if self.dim is None else ((self.dim,), math.nan)
        out = np.full((*is_frame_BT.shape, *width), none, dtype=np.int64 if self.dim is None else np.float32)
        out[is_frame_BT] = self._flat(rows_B)
        return torch.from_numpy(out)

    @cached_property
    def _moments(self) -> tuple[torch.Tensor, torch.Tensor]:
        if self.dim is None:
            raise ValueError("the bank holds ids, which have no mean: use a bank of latents.")
        mean_D, std_D = moments(self._chunks())
        return torch.from_numpy(mean_D).float(), torch.from_numpy(std_D).float()

    def _flat(self, rows_B: np.ndarray) -> np.ndarray:
        """The frames of some rows one after another, scaled: `(sum T_i, D)`, of ids `(sum T_i,)`."""
        values = self._data[rows_B.tolist()]["sequence"].combine_chunks().flatten()
        if self.dim is None:
            return values.to_numpy(zero_copy_only=False)
        frames = values.flatten().to_numpy(zero_copy_only=False).reshape(-1, self.dim)
        return frames if self._scale is None else self._scale(frames)

    def _chunks(self, rows: np.ndarray | None = None) -> Iterable[np.ndarray]:
        """The frames of rows, of all by default, piece by piece."""
        return map(self._flat, self._pieces(np.arange(len(self)) if rows is None else rows))

    def _pieces(self, rows: np.ndarray) -> Iterator[np.ndarray]:
        """Rows that together make about 8 MB each."""
        most = max(1, CHUNK_BYTES // (4 * (self.dim or 2)))
        piece = np.cumsum(self.lengths[rows]) // most
        yield from (part for part in np.split(rows, np.flatnonzero(np.diff(piece)) + 1) if len(part))


AnyBank = TeacherBank | SequenceBank


def _table(flat: np.ndarray, lengths_N: np.ndarray, keys: Sequence[str] | None) -> pa.Table:
    """An Arrow table of the columns `sequence` (lists of ids, or of fixed-size lists) and `input`."""
    values = pa.array(np.ascontiguousarray(flat).reshape(-1))
    frames = values if flat.ndim == 1 else pa.FixedSizeListArray.from_arrays(values, flat.shape[1])
    offsets = pa.array(np.concatenate([[0], np.cumsum(lengths_N)]).astype(np.int64))
    texts = pa.nulls(len(lengths_N), pa.string()) if keys is None else pa.array(list(keys), pa.string())
    return pa.table({"sequence": pa.LargeListArray.from_arrays(offsets, frames), "input": texts})
