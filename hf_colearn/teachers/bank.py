"""The teacher's latents: encoded once, stored in Arrow with a fingerprint, read by row.

Shapes: N inputs in the order given, U <= N distinct ones, D dimensions, B rows of a look-up.
"""

import os
from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
import xxhash
from datasets import Column
from huggingface_hub import constants

from hf_colearn.teachers import bank_files, bank_hub, encoding, fingerprint
from hf_colearn.teachers.bank_arguments import as_latents, check_stored, stored_rows
from hf_colearn.teachers.bank_base import BankBase
from hf_colearn.teachers.bank_card import bank_card, without_folders
from hf_colearn.teachers.bank_files import FORMAT
from hf_colearn.teachers.bank_inputs import BankInputs, check_pairs, find_rows, keys_of
from hf_colearn.teachers.bank_of_encoded import encoded_bank
from hf_colearn.teachers.bank_writing import as_stored, index_chunks, write_bank
from hf_colearn.teachers.encoder import FrozenEncoder
from hf_colearn.teachers.latent_scale import counts_of, first_zero, moments, standardization, unit_norm
from hf_colearn.teachers.rows import CHUNK_BYTES, LatentRows, StoredColumn, StoredRows
from hf_colearn.teachers.stored_latents import StoredLatents
from hf_colearn.utils import distributed
from hf_colearn.utils.checks import check_path
from hf_colearn.utils.hub_names import check_repo_id


def default_cache_dir() -> str:
    """Where banks are cached: `colearn/banks` in the Hugging Face home (`HF_HOME`)."""
    return os.path.join(constants.HF_HOME, "colearn", "banks")


class TeacherBank(BankBase):
    """The latents of a frozen teacher, one row an input, stored on disk and read row by row (below 64 MB: read whole).

    Made by [`TeacherBank.encode`], [`TeacherBank.from_latents`], [`TeacherBank.from_encoded`], [`TeacherBank.load`] or
    [`TeacherBank.from_hub`].

    Attributes:
        dim (`int`): D, the latents' width.
        dtype (`str`): What they are stored as: `"float32"`, `"float16"` or `"int8"`; read they are float32.
        num_distinct (`int`): U, how many different latents are stored; `len(bank)` is N.
        inputs (`list[str]` or `None`): The text of every row (a digest for images and audio); `None` where unknown.
        fingerprint (`str`): Of the inputs and everything about the teacher and the scaling that shapes the latents.
        scaling (`str`): `"none"`, or how [`TeacherBank.scaled`] has scaled them: `"standardized"` or `"l2"`.
        description (`dict`): The teacher, its revision, pooling, dtype and preprocessing, as recorded, and the scaling.
    """

    def __init__(
        self,
        rows: LatentRows | np.ndarray,
        index: np.ndarray | StoredColumn | None,
        description: dict[str, Any],
        distinct_inputs: Sequence[str] | None = None,
        scale: Callable[[np.ndarray], np.ndarray] | None = None,
    ):
        self._rows, self._index = bank_files.held_if_small(rows), index
        self._distinct_inputs, self._scale = distinct_inputs, scale
        self.description = description

    # ---- making one ----
    @classmethod
    def encode(
        cls,
        encoder: FrozenEncoder,
        inputs: Sequence[Any],
        cache_dir: str | os.PathLike | None = None,
        batch_size: int = 64,
        show_progress: bool = True,
        dtype: str = "float32",
    ) -> "TeacherBank":
        """Encodes every distinct input once, or opens the bank that an earlier call has left in the cache.

        The cache entry is named after a fingerprint of all inputs and of the teacher (the content of its weights, pooling,
        dtype, preprocessing), so it is never stale. Of several processes each encodes its share, into one `cache_dir`.
        Memory holds about 16 bytes an input.

        Args:
            encoder ([`FrozenEncoder`]): The teacher.
            inputs (`Sequence` or column of a `datasets.Dataset`): N texts, images or waveforms, not augmented.
            cache_dir (`str`, *optional*): Where banks are cached; `HF_HOME/colearn/banks` by default.
            batch_size (`int`, *optional*, defaults to 64): Inputs a forward pass; the longest ones come first.
            show_progress (`bool`, *optional*, defaults to `True`): Whether to draw a progress bar.
            dtype (`str`, *optional*, defaults to `"float32"`): What the latents are stored as: D numbers of `"float32"`,
                `"float16"` or `"int8"` with a scale a row, that is 4 D, 2 D or D + 4 bytes.

        Returns:
            [`TeacherBank`]: With N rows, in the order of `inputs`.

        Raises:
            ValueError: If an input cannot be read or is augmented, a latent is not finite, the cache entry is damaged, or
                the processes differ in inputs or teacher.
            RuntimeError: If another process failed, and why.
            OSError: If the cache folder is not writable or the disk is full; nothing half-written stays behind.

        Example:

        ```python
        teacher = FrozenEncoder.from_pretrained("google-bert/bert-large-uncased", pooling="cls")
        bank = TeacherBank.encode(teacher, [f"This is about class {i}." for i in range(1000)])
        ```
        """
        cache = cache_dir or default_cache_dir()
        folder = encoding.encoded_bank(encoder, inputs, cache, batch_size, show_progress, dtype)
        with distributed.raise_on_all_ranks():
            bank = cls.load(folder)
            if bank.fingerprint != folder.name:
                raise ValueError(
                    f"'{folder}' says that it is the bank {bank.fingerprint}: the cache entry was put there by hand "
                    "or altered. Delete the folder, and the bank is encoded anew."
                )
        if isinstance(inputs, Column):
            bank.description["input_column"] = inputs.column_name
        return bank

    @classmethod
    def from_latents(
        cls, latents: torch.Tensor | np.ndarray, inputs: Sequence[Any] | None = None, **description: Any
    ) -> "TeacherBank":
        """A bank in memory, of latents that were computed elsewhere.

        Args:
            latents (`torch.Tensor` or `np.ndarray` of shape `(N, D)`): One row an input, finite.
            inputs (`Sequence`, *optional*): The text, image or waveform that each row was encoded from, by which
                [`TeacherBank.rows_of`] finds rows and the trainer checks the pairs. Of images and waveforms a digest is kept.
            description: Anything worth recording, such as `teacher="..."`.
        """
        array_ND = as_latents(latents)
        keys = None if inputs is None else keys_of(BankInputs([], None, description.get("modality")), inputs)
        if keys is not None and len(keys) != len(array_ND):
            raise ValueError(f"{len(keys)} inputs for {len(array_ND)} latents: pass one input a row.")
        latents_digest = xxhash.xxh3_128_hexdigest(array_ND.data)
        name = fingerprint.of_json({"latents": latents_digest, "shape": array_ND.shape, **description})
        return cls(array_ND, None, {**description, "fingerprint": name}, keys)

    @classmethod
    def from_encoded(cls, folder: str | os.PathLike, cache_dir: str | os.PathLike | None = None) -> "TeacherBank":
        """A bank of the data set that `hf-colearn encode` has written, whose row i is that of its i-th row, for pairings that
        show other rows ([`Shuffled`]), or one bank for many runs.

        Parquet has no random access, so the latents are copied once, as they are stored, into the cache. A row without one has
        none here: whoever is shown it has no target (NaN), and `mean`, `std` and `scaled` leave it out.

        Args:
            folder (`str`): With the Parquet files and their `manifest.json`; one on the Hub is downloaded first.
            cache_dir (`str`, *optional*): Where banks are cached; `HF_HOME/colearn/banks` by default.

        Raises:
            ValueError: If the folder is no finished encoding, or its files are not those of the manifest.
            OSError: If the cache folder is not writable or the disk is full.

        Example:

        ```python
        trainer = CoLearningTrainer(..., bank=TeacherBank.from_encoded("encoded"), pairing=Shuffled())
        ```
        """
        check_path("folder", folder)
        return cls.load(encoded_bank(Path(folder), Path(cache_dir or default_cache_dir())))

    @classmethod
    def load(cls, folder: str | os.PathLike) -> "TeacherBank":
        """Opens a bank that [`save`] or [`encode`] has written; refuses one that is truncated or of another version."""
        check_path("folder", folder)
        description, index = bank_files.read(Path(folder))
        latents = [str(Path(folder) / name) for name in bank_files.names_of_latents(description["files"])]
        return cls(StoredRows(latents), index, description, bank_files.inputs_of(latents))

    def save(self, folder: str | os.PathLike, dtype: str | None = None, rows_per_file: int | None = None) -> None:
        """Writes the bank for [`load`]: `latents.arrow` or several such files, `index.arrow` where inputs repeat, `bank.json`.

        Args:
            folder (`str`): Where to; a bank that is there is replaced.
            dtype (`str`, *optional*): What the latents are stored as, see [`encode`]; by default as they are now. Another one
                has another fingerprint.
            rows_per_file (`int`, *optional*): By default as many as make 4 GB.
        """
        check_path("folder", folder)
        check_stored(dtype := dtype or self.dtype, rows_per_file)
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        # Written apart first, since the bank may be open in this very folder.
        with TemporaryDirectory(dir=folder, suffix=encoding.PARTIAL) as partial:
            stored, description = self._stored_chunks(dtype), self._described_as(dtype)
            write_bank(Path(partial), stored, self._distinct_inputs, self._index, description, rows_per_file)
            bank_files.replace(folder, Path(partial))

    def scaled(self, how: str, rows: Sequence[int] | np.ndarray | None = None) -> "TeacherBank":
        """The same bank with scaled latents: scaled as they are read, so a bank on the disk stays there.

        The trainer does so by `CoLearningArguments.latent_scaling`, unless it was done before. Saved and published scaled.

        Args:
            how (`str`): `"standardized"`: mean 0 and standard deviation 1 in every dimension over the distinct latents among
                `rows`, where a dimension in which they are equal becomes 0 everywhere. `"l2"`: every latent has length 1.
                `"none"`: as they are, whatever `latent_scaling` says.
            rows (`Sequence[int]`, *optional*): Those of the training samples, which the statistics are computed from; all
                by default. `"l2"` has no statistics.

        Raises:
            ValueError: If the bank is scaled already, its latents do not differ, or one is 0 throughout (`"l2"`).

        Example:

        ```python
        >>> import numpy as np
        >>> from hf_colearn import TeacherBank

        >>> bank = TeacherBank.from_latents(np.array([[1.0, 5.0], [3.0, 5.0], [6.0, 6.0]]))
        >>> bank.scaled("standardized", rows=[0, 1]).lookup([0, 1, 2]).tolist()
        [[-1.0, 0.0], [1.0, 0.0], [4.0, 0.0]]

        ```
        """
        self._check_scaling(how)
        scale: Callable[[np.ndarray], np.ndarray] | None = None
        scaling: dict[str, Any] = {"how": how}
        if how == "l2":
            if (zero := first_zero(self._chunks())) is not None:
                row = zero if self._index is None else int((np.asarray(self._index) == zero).argmax())
                of = "" if self._distinct_inputs is None else f" ('{self._distinct_inputs[zero][:80]}')"
                raise ValueError(
                    f"row {row} of the bank{of} is 0 in every dimension, so it has no direction: leave that input out, or "
                    "scale by 'standardized' or 'none'."
                )
            scale = unit_norm
        elif how == "standardized":
            stored = np.arange(self.num_distinct) if rows is None else np.unique(self._stored_rows(rows))
            scale = standardization(self._chunks() if rows is None else self._pieces(stored), len(stored))
            scaling |= {"num_distinct": len(stored), "rows": xxhash.xxh3_128_hexdigest(stored.data)}
        return TeacherBank(self._rows, self._index, self._scaled_description(scaling), self._distinct_inputs, scale)

    # ---- the Hub ----
    def push_to_hub(
        self,
        repo_id: str,
        private: bool | None = None,
        token: str | None = None,
        *,
        inputs: str | None = None,
        license: str | None = None,
        language: str | None = None,
        source_datasets: Sequence[str] = (),
    ) -> str:
        """Publishes the bank, with the texts of its rows, as a dataset: configuration `latents`, `index` where inputs repeat.

        Args:
            repo_id (`str`): Such as `"me/bert-large-imagenet-prompts"`.
            private (`bool`, *optional*): Whether the repository is made private.
            token (`str`, *optional*): By default the one that you are logged in with.
            inputs (`str`, *optional*): What the teacher was fed, in words, for the card: `"a prompt of every class"`.
            license (`str`, *optional*): Of the latents, which follows from the teacher's and the inputs'.
            language (`str`, *optional*): ISO 639 code of the inputs.
            source_datasets (`Sequence[str]`, *optional*): Hub ids of the data that the inputs come from.

        Returns:
            `str`: The commit's id.
        """
        check_repo_id(repo_id)
        if self._scale is not None:  # what is published is what is read
            words = {"inputs": inputs, "license": license, "language": language}
            with TemporaryDirectory() as folder:
                self.save(folder)
                written = TeacherBank.load(folder)
                return written.push_to_hub(repo_id, private, token, source_datasets=source_datasets, **words)
        latents, index = bank_hub.as_datasets(self._rows, self._index, self._distinct_inputs)
        description = {**self.description, "format": FORMAT, "has_index": index is not None}
        if "teacher" in description:
            description["teacher"] = without_folders(description["teacher"])
        numbers = {"num_rows": len(self), "num_distinct": self.num_distinct, "dim": self.dim}
        card = bank_card(description, repo_id, inputs, license, language, source_datasets, **numbers)
        return bank_hub.publish(repo_id, latents, index, description, card, private, token)

    @classmethod
    def from_hub(cls, repo_id: str, revision: str | None = None, token: str | None = None) -> "TeacherBank":
        """Opens a bank that [`push_to_hub`] has published; Parquet and JSON only, nothing is executed."""
        check_repo_id(repo_id)
        description, latents, parts = bank_hub.fetch(repo_id, revision, token)
        index = bank_files.row_index(parts) if parts else None
        return cls(StoredRows(latents), index, description, bank_files.inputs_of(latents))

    # ---- using it ----
    @property
    def dim(self) -> int:
        return self._rows.shape[1]

    @property
    def dtype(self) -> str:
        return self._rows.dtype

    @property
    def num_distinct(self) -> int:
        return len(self._rows)

    @property
    def inputs(self) -> list[str] | None:
        if self._distinct_inputs is None:
            return None
        distinct = list(self._distinct_inputs)
        return distinct if self._index is None else [distinct[row] for row in np.asarray(self._index)]

    @property
    def stored_inputs(self) -> BankInputs | None:
        """By what inputs are known again; `None` where they are unknown."""
        if self._distinct_inputs is None:
            return None
        return BankInputs(self._distinct_inputs, self._index, self.description.get("modality"))

    def rows_of(self, inputs: Sequence[Any]) -> np.ndarray:
        """The row of each input, found by what it is, for `Paired(bank.rows_of(train["text"]))`, `(B,)` int64.

        Sample id i then sees the latent of its own input whatever the order of the bank is, and samples of one thing, such as
        two photographs of what one sentence describes, share its row. Equal inputs get the first row that has them.

        Args:
            inputs (`Sequence` or column of a `datasets.Dataset`): B texts, images or waveforms, of sample id 0, 1, ...

        Raises:
            ValueError: If an input is not among those that the bank was encoded from, or these are unknown.

        Example:

        ```python
        >>> import numpy as np
        >>> from hf_colearn import TeacherBank

        >>> bank = TeacherBank.from_latents(np.eye(3), inputs=["a cat", "a dog", "a fox"])
        >>> bank.rows_of(["a fox", "a cat", "a fox"]).tolist()  # two photographs of the fox
        [2, 0, 2]

        ```
        """
        return find_rows(self.stored_inputs, inputs)

    def check_inputs(self, inputs: Sequence[Any], rows: Sequence[int] | np.ndarray | None = None) -> None:
        """Refuses, with the first one at fault, inputs that are not what the rows were encoded from.

        The trainer checks some samples so, where the training set has the inputs in a column.

        Args:
            inputs (`Sequence` or column of a `datasets.Dataset`): B texts, images or waveforms.
            rows (`Sequence[int]`, *optional*): The row of each; by default input i is that of row i, and B is N.
        """
        rows_B = np.arange(len(self)) if rows is None else np.asarray(rows)
        self._stored_rows(rows_B)
        check_pairs(self.stored_inputs, inputs, rows_B)

    def __len__(self) -> int:
        return self.num_distinct if self._index is None else len(self._index)

    def __repr__(self) -> str:
        shape = f"{len(self)} rows, {self.num_distinct} distinct, dim={self.dim}"
        return f"TeacherBank({shape}, scaling='{self.scaling}', fingerprint='{self.fingerprint}')"

    def lookup(self, rows: Sequence[int] | np.ndarray | torch.Tensor) -> torch.Tensor:
        """The latents of rows 0 to `len(bank) - 1`, `(B, D)` float32 on the CPU; read in the data loader's workers."""
        latents_BD = self._rows[self._stored_rows(rows)]
        return torch.from_numpy(latents_BD if self._scale is None else self._scale(latents_BD))

    def _stored_rows(self, rows: Sequence[int] | np.ndarray | torch.Tensor) -> np.ndarray:
        """Where the latents of rows are stored, `(B,)` int64; refuses rows that are not there."""
        rows_B = stored_rows(rows, len(self))
        return rows_B if self._index is None else self._index[rows_B]

    @cached_property
    def _moments(self) -> tuple[torch.Tensor, torch.Tensor]:
        counts_U = None if self._index is None else counts_of(index_chunks(self._index), self.num_distinct)
        mean_D, std_D = moments(self._chunks(), counts_U)
        return torch.from_numpy(mean_D).float(), torch.from_numpy(std_D).float()

    def _chunks(self) -> Iterable[np.ndarray]:
        """All distinct latents in the order in which they are stored, piece by piece."""
        return self._rows.chunks() if self._scale is None else map(self._scale, self._rows.chunks())

    def _pieces(self, stored: np.ndarray) -> Iterable[np.ndarray]:
        """Some of the stored rows, unscaled, piece by piece."""
        size = max(1, CHUNK_BYTES // (self.dim * 4))
        return (self._rows[stored[start : start + size]] for start in range(0, len(stored), size))

    def _stored_chunks(self, dtype: str) -> Iterable[StoredLatents]:
        """All distinct latents as they are to be stored; what is as it is stored now is not rounded twice."""
        if dtype == self.dtype and self._scale is None:
            return self._rows.stored_chunks()
        return as_stored(self._chunks(), dtype)

    def _described_as(self, dtype: str) -> dict[str, Any]:
        """What is recorded of the bank when it is stored so, under another fingerprint where its latents are rounded anew."""
        description = self.description | {"format": FORMAT}
        if dtype == self.dtype and (self._scale is None or dtype == "float32"):
            return description
        name = fingerprint.of_json({"bank": self.fingerprint, "latent_dtype": dtype})
        return description | {"latent_dtype": dtype, "fingerprint": name}
