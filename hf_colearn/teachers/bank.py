"""The teacher's latents: encoded once, stored in Arrow with a fingerprint, read by row.

Shapes: N inputs in the order given, U <= N distinct ones, D dimensions, B rows of a look-up.
"""

import math
import os
from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
import xxhash
from datasets import Column, Dataset, concatenate_datasets
from huggingface_hub import constants

from hf_colearn.teachers import bank_files, bank_hub, encoding, fingerprint
from hf_colearn.teachers.bank_arguments import as_latents, check_encoding, stored_rows
from hf_colearn.teachers.bank_base import BankBase
from hf_colearn.teachers.bank_card import bank_card, without_folders
from hf_colearn.teachers.bank_files import FORMAT
from hf_colearn.teachers.bank_inputs import BankInputs, check_pairs, find_rows, keys_of
from hf_colearn.teachers.encoder import FrozenEncoder
from hf_colearn.teachers.encoding import DESCRIPTION, INDEX, LATENTS
from hf_colearn.teachers.latent_scale import first_zero, moments, standardization, unit_norm
from hf_colearn.teachers.rows import StoredRows
from hf_colearn.utils import distributed
from hf_colearn.utils.checks import check_path
from hf_colearn.utils.hub_names import check_repo_id


_IN_MEMORY = 64 * 1024 * 1024  # bytes; a smaller bank is read whole


def default_cache_dir() -> str:
    """Where banks are cached: `colearn/banks` in the Hugging Face home (`HF_HOME`)."""
    return os.path.join(constants.HF_HOME, "colearn", "banks")


class TeacherBank(BankBase):
    """The latents of a frozen teacher, one row an input, stored on disk and read row by row (below 64 MB: read whole).

    Made by [`TeacherBank.encode`], [`TeacherBank.from_latents`], [`TeacherBank.load`] or [`TeacherBank.from_hub`].

    Attributes:
        dim (`int`): D, the latents' width.
        num_distinct (`int`): U, how many different latents are stored; `len(bank)` is N.
        inputs (`list[str]` or `None`): The text of every row (a digest for images and audio); `None` where unknown.
        fingerprint (`str`): Of the inputs and everything about the teacher and the scaling that shapes the latents.
        scaling (`str`): `"none"`, or how [`TeacherBank.scaled`] has scaled them: `"standardized"` or `"l2"`.
        description (`dict`): The teacher, its revision, pooling, dtype and preprocessing, as recorded, and the scaling.
    """

    def __init__(
        self,
        rows: StoredRows | np.ndarray,
        index: np.ndarray | None,
        description: dict[str, Any],
        distinct_inputs: Sequence[str] | None = None,
        scale: Callable[[np.ndarray], np.ndarray] | None = None,
    ):
        if isinstance(rows, StoredRows) and math.prod(rows.shape) * 4 <= _IN_MEMORY:
            rows = np.concatenate(list(rows.chunks()))
        self._rows, self._index, self._distinct_inputs, self._scale = rows, index, distinct_inputs, scale
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
    ) -> "TeacherBank":
        """Encodes every distinct input once, or opens the bank that an earlier call has left in the cache.

        The cache entry is named after a fingerprint of all inputs and of the teacher (the content of its weights, pooling,
        dtype, preprocessing), so it is never stale. Of several processes each encodes its share, into one `cache_dir`.

        Args:
            encoder ([`FrozenEncoder`]): The teacher.
            inputs (`Sequence` or column of a `datasets.Dataset`): N texts, images or waveforms, not augmented.
            cache_dir (`str`, *optional*): Where banks are cached; `HF_HOME/colearn/banks` by default.
            batch_size (`int`, *optional*, defaults to 64): Inputs a forward pass; the longest ones come first.
            show_progress (`bool`, *optional*, defaults to `True`): Whether to draw a progress bar.

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
        with distributed.raise_on_all_ranks():
            check_encoding(encoder, inputs, cache_dir, batch_size)
            distinct = encoding.find_distinct(inputs, encoder.modality)
            description = {"format": FORMAT, "inputs": distinct.fingerprint, **encoder.description()}
            name = fingerprint.of_json(description)
            folder = Path(cache_dir or default_cache_dir()) / name
        main_name, is_cached = distributed.from_main_process((name, folder.exists()))
        with distributed.raise_on_all_ranks():
            if name != main_name:
                raise ValueError(
                    "this process has other inputs or another teacher than the main process: pass the same to all."
                )
        if not is_cached:
            description |= {"fingerprint": name, "num_rows": len(inputs), "num_distinct": len(distinct.positions)}
            encoding.encode_to_folder(encoder, inputs, distinct, description, folder, batch_size, show_progress)
        with distributed.raise_on_all_ranks():
            bank = cls.load(folder)
            if bank.fingerprint != name:
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
    def load(cls, folder: str | os.PathLike) -> "TeacherBank":
        """Opens a bank that [`save`] or [`encode`] has written; refuses one that is truncated or of another version."""
        check_path("folder", folder)
        description, index = bank_files.read(Path(folder))
        latents = str(Path(folder) / LATENTS)
        return cls(StoredRows([latents]), index, description, bank_files.inputs_of(Dataset.from_file(latents)))

    def save(self, folder: str | os.PathLike) -> None:
        """Writes the bank for [`load`]: `latents.arrow`, `index.arrow` where inputs repeat, and `bank.json`."""
        check_path("folder", folder)
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        # Written apart first, since the bank may be open in this very folder.
        with TemporaryDirectory(dir=folder, suffix=encoding.PARTIAL) as partial:
            description = self.description | {"format": FORMAT}
            encoding.write_bank(Path(partial), self._chunks(), self._distinct_inputs, self._index, description)
            (folder / DESCRIPTION).unlink(missing_ok=True)
            for name in (LATENTS, INDEX, DESCRIPTION):
                if (Path(partial) / name).exists():
                    os.replace(Path(partial) / name, folder / name)

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
                row = zero if self._index is None else int((self._index == zero).argmax())
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
        if isinstance(self._rows, StoredRows):
            latents = concatenate_datasets([Dataset.from_file(path) for path in self._rows.paths])
        else:
            latents = Dataset(encoding.latent_table(self._rows, self._distinct_inputs))
        index = None if self._index is None else Dataset.from_dict({"row": self._index})
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
        description, latents, index = bank_hub.fetch(repo_id, revision, token)
        rows = StoredRows([file["filename"] for file in latents.cache_files])
        return cls(rows, index, description, bank_files.inputs_of(latents))

    # ---- using it ----
    @property
    def dim(self) -> int:
        return self._rows.shape[1]

    @property
    def num_distinct(self) -> int:
        return len(self._rows)

    @property
    def inputs(self) -> list[str] | None:
        if self._distinct_inputs is None:
            return None
        distinct = list(self._distinct_inputs)
        return distinct if self._index is None else [distinct[row] for row in self._index]

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
        counts_U = None if self._index is None else np.bincount(self._index).astype(np.float64)
        mean_D, std_D = moments(self._chunks(), counts_U)
        return torch.from_numpy(mean_D).float(), torch.from_numpy(std_D).float()

    def _chunks(self) -> Iterable[np.ndarray]:
        """All distinct latents in the order in which they are stored, piece by piece."""
        chunks = (
            self._rows.chunks() if isinstance(self._rows, StoredRows) else self._pieces(np.arange(len(self._rows)))
        )
        return chunks if self._scale is None else map(self._scale, chunks)

    def _pieces(self, stored: np.ndarray) -> Iterable[np.ndarray]:
        """Some of the stored rows, unscaled, piece by piece."""
        size = max(1, encoding.CHUNK_BYTES // (self.dim * 4))
        return (self._rows[stored[start : start + size]] for start in range(0, len(stored), size))
