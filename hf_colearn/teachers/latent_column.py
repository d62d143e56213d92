"""Targets that travel with the data: a column of a stream or of a data set in the place of a bank.

Shapes: B samples of a batch, D dimensions of a latent.
"""

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NoReturn

import numpy as np
import pyarrow.compute as pc
import torch
from datasets import Dataset, LargeList, List, Value

from hf_colearn.teachers import fingerprint
from hf_colearn.teachers.bank_base import BankBase
from hf_colearn.teachers.encoded.manifest import Manifest
from hf_colearn.teachers.latent_scale import Standardization, moments, unit_norm
from hf_colearn.teachers.stored_latents import DTYPES, restored_latents
from hf_colearn.utils.checks import check_choice, check_integer


_AT_ONCE = 8192  # rows that are read together


class NoOtherRows(ValueError):
    """A pairing asks a column for the latents of other samples."""


class LatentColumn(BankBase):
    """Latents of a frozen teacher in a column of the training data: a [`datasets.IterableDataset`] or a [`datasets.Dataset`].

    Takes the place of a [`TeacherBank`] in [`CoLearningTrainer`] and [`Teacher`], where no machine holds a bank of all samples:
    `hf-colearn encode` writes such a column. A sample sees the latent that it comes with; one whose cell is null, or NaN
    throughout, has no target. Pairings that show other rows, such as [`Shuffled`], are refused. With [`Paired`] no sample ids
    are needed.

    Args:
        column (`str`): Its name; a cell has D numbers, as a list, an array or a tensor.
        dim (`int`): D.
        dtype (`str`, *optional*, defaults to `"float32"`): What the column holds: `"float32"`, `"float16"` or `"int8"`, whose
            rows have a scale in the column `{column}_scale` ([`~hf_colearn.teachers.stored_latents.stored_latents`]).
        mean, std (`np.ndarray` of shape `(D,)`, *optional*): Over the training rows, for `latent_scaling="standardized"`,
            [`ConstantTarget`] and [`RandomPrototypes`]. A data set that is no stream can be [`measured`].
        description: Anything worth recording, such as `teacher="..."`.

    Example:

    ```python
    >>> import numpy as np
    >>> from hf_colearn import LatentColumn, Teacher

    >>> teacher = Teacher(LatentColumn("teacher_latents", dim=2, teacher="a language model"))
    >>> samples = [{"teacher_latents": [1.0, 2.0]}, {"teacher_latents": None}]
    >>> teacher.targets(np.array([7, 8]), epoch=0, seed=0, samples=samples).tolist()
    [[1.0, 2.0], [nan, nan]]

    ```
    """

    def __init__(
        self,
        column: str,
        dim: int,
        dtype: str = "float32",
        mean: Sequence[float] | np.ndarray | None = None,
        std: Sequence[float] | np.ndarray | None = None,
        **description: Any,
    ):
        if not isinstance(column, str) or not column:
            raise ValueError(f"column={column!r} is no name of a column: pass one such as 'teacher_latents'.")
        check_integer("dim", dim, least=1)
        check_choice("dtype", dtype, DTYPES)
        if (mean is None) != (std is None):
            raise ValueError(f"mean and std belong together, and {'mean' if mean is None else 'std'} is missing.")
        self.column, self.dim, self.dtype = column, int(dim), dtype
        self._mean, self._std = _vector("mean", mean, dim), _vector("std", std, dim)
        self._scale: Callable[[np.ndarray], np.ndarray] | None = None
        facts = {"column": column, "dim": self.dim, "stored_as": dtype, **description}
        name = fingerprint.of_json({**facts, "mean": _listed(self._mean), "std": _listed(self._std)})
        self.description = {"fingerprint": name, **facts}

    # ---- making one ----
    @classmethod
    def of(cls, folder_or_repo_id: str, revision: str | None = None, token: str | None = None) -> "LatentColumn":
        """The column of a data set that `hf-colearn encode` has written, in a folder or on the Hub, by its manifest.

        Args:
            folder_or_repo_id (`str`): Such as `"encoded/"` or `"me/pairs-with-latents"`.
            revision (`str`, *optional*): Of a Hub repository; the one that the data are read from.
            token (`str`, *optional*): By default the one that you are logged in with.
        """
        found = Manifest.read(folder_or_repo_id, revision=revision, token=token)
        column = cls(found.column, found.dim, found.dtype, found.mean, found.std)
        column.description |= {**found.teacher, "fingerprint": found.job}
        return column

    def measured(self, dataset: Dataset) -> "LatentColumn":
        """The same column with the mean and standard deviation over a data set's rows that have a latent; reads them all."""
        if not isinstance(dataset, Dataset) or not set(self.columns) <= set(dataset.column_names):
            raise ValueError(
                f"the moments of column '{self.column}' can be measured in a datasets.Dataset that stores it, and the data are "
                f"a {type(dataset).__name__}{'' if not isinstance(dataset, Dataset) else ' that does not'}: {_MOMENTS}."
            )
        chunks = self._stored(dataset)
        first = next(chunks, None)
        if first is None:
            raise ValueError(f"no row has a latent in column '{self.column}': encode the data anew.")
        measured = copy.copy(self)
        measured._mean, measured._std = moments(_preceded_by(first, chunks))
        return measured

    def _stored(self, dataset: Dataset) -> Iterator[np.ndarray]:
        """The latents of a data set's rows that have one, `(rows, D)` float32 each."""
        for table in dataset.select_columns(list(self.columns)).with_format("arrow").iter(_AT_ONCE):
            table = table.drop_null()
            values = pc.list_flatten(table[self.column]).to_numpy()
            if len(values) != len(table) * self.dim:
                raise ValueError(self._width(len(values) // max(1, len(table)), "a row"))
            scales = table[self._scale_column].to_numpy() if self.dtype == "int8" else None
            latents = restored_latents(values.reshape(-1, self.dim), scales)
            latents = latents[~np.isnan(latents).all(axis=1)]
            if len(latents):
                yield latents

    def scaled(self, how: str) -> "LatentColumn":
        """The same column with scaled latents, as [`TeacherBank.scaled`] scales them: scaled as they are read.

        Raises:
            ValueError: If it is scaled already, or `"standardized"` asks for moments that are not known.
        """
        self._check_scaling(how)
        scaled, scaling = copy.copy(self), {"how": how}
        if how == "l2":
            scaled._scale, scaled._mean, scaled._std = unit_norm, None, None  # of unit vectors they are other ones
        elif how == "standardized":
            mean_D, std_D = self._known()
            scale = Standardization(mean_D, std_D)
            if not scale.varies_D.any():
                raise ValueError(
                    f"the latents in column '{self.column}' cannot be standardized, since they have no variance (std=0): pass "
                    "latent_scaling='none' (or 'l2') to CoLearningArguments."
                )
            scaled._scale = scale
            scaled._mean, scaled._std = np.zeros(self.dim), np.where(scale.varies_D, 1.0, 0.0)
            scaling["moments"] = fingerprint.of_json([_listed(mean_D), _listed(std_D)])
        scaled.description = self._scaled_description(scaling)
        return scaled

    # ---- using it ----
    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that are read: of latents, and of int8 also of scales."""
        return (self.column, self._scale_column) if self.dtype == "int8" else (self.column,)

    @property
    def has_moments(self) -> bool:
        """Whether the mean and the standard deviation are known."""
        return self._mean is not None

    @property
    def _scale_column(self) -> str:
        return f"{self.column}_scale"

    @property
    def _moments(self) -> tuple[torch.Tensor, torch.Tensor]:
        mean_D, std_D = self._known()
        return torch.from_numpy(mean_D.astype(np.float32)), torch.from_numpy(std_D.astype(np.float32))

    def _known(self) -> tuple[np.ndarray, np.ndarray]:
        if self._mean is None or self._std is None:
            of_unit = " of vectors of length 1" if self.scaling == "l2" else ""
            way_out = (
                "use latent_scaling='standardized' or 'none'"
                if of_unit
                else f"{_MOMENTS}, or, to scale them, latent_scaling='l2'"
            )
            raise ValueError(f"the mean and the std of column '{self.column}'{of_unit} are not known: {way_out}.")
        return self._mean, self._std

    def own(self, sample_ids: np.ndarray, samples: Sequence[Mapping[str, Any]]) -> "OwnLatents":
        """What a pairing sees: the latents of a batch's samples.

        Args:
            sample_ids (`np.ndarray` of shape `(B,)`): Integers, by which errors name samples.
            samples (`Sequence[Mapping]`): B rows with the columns.
        """
        for name in self.columns:
            if name not in samples[0]:
                raise ValueError(missing_column(name, list(samples[0])))
        if self.dtype != "int8" and self._scale_column in samples[0]:
            raise ValueError(
                f"the samples have a column '{self._scale_column}': pass LatentColumn(..., dtype='int8')."
            )
        latents_BD = np.full((len(samples), self.dim), np.nan, dtype=np.float32)
        for latent_D, sample, sample_id in zip(latents_BD, samples, sample_ids, strict=True):
            cell = sample[self.column]
            if cell is None:
                continue
            if len(cell) != self.dim:
                raise ValueError(self._width(len(cell), f"sample id {sample_id}"))
            latent_D[:] = cell
        if self.dtype == "int8":
            scales = [sample[self._scale_column] for sample in samples]
            latents_BD = restored_latents(latents_BD, np.array([np.nan if s is None else s for s in scales]))
        self._check(latents_BD, sample_ids)
        return OwnLatents(self, sample_ids, latents_BD if self._scale is None else self._scale(latents_BD))

    def _check(self, latents_BD: np.ndarray, sample_ids: np.ndarray) -> None:
        """Refuses a latent that is broken in part, and one without a direction where it is divided by its length."""
        is_broken = ~np.isfinite(latents_BD).all(axis=1) & ~np.isnan(latents_BD).all(axis=1)
        if is_broken.any():
            raise ValueError(
                f"the latent of sample id {sample_ids[is_broken][0]} in column '{self.column}' has numbers that are not "
                "finite: encode it anew. A sample without a latent has null, or nothing but NaN."
            )
        if self.scaling == "l2" and not latents_BD.any(axis=1).all():
            zero = sample_ids[~latents_BD.any(axis=1)][0]
            raise ValueError(
                f"the latent of sample id {zero} in column '{self.column}' is 0 in every dimension, so it has no direction: "
                "leave the sample out, or scale by 'standardized' or 'none'."
            )

    def _width(self, found: int, whose: str) -> str:
        return f"column '{self.column}' has {found} numbers in {whose}, and dim={self.dim}: pass dim={found}."

    def check_features(self, columns: Sequence[str] | None, features: Mapping[str, Any] | None) -> None:
        """Refuses data without the columns, or whose cells are of another kind or width, as far as it is known."""
        for name in self.columns:
            if columns is not None and name not in columns:
                raise ValueError(missing_column(name, list(columns)))
        feature = None if features is None else features.get(self.column)
        if isinstance(feature, (List, LargeList)):
            width, feature = getattr(feature, "length", -1), feature.feature
            if width not in (-1, self.dim):
                raise ValueError(self._width(width, "a row"))
        elif feature is not None and type(feature) is not Value:
            return  # a transform or an array type of the user's: the first batch tells
        if isinstance(feature, Value) and feature.dtype == "int8" and self.dtype != "int8":
            raise ValueError(
                f"column '{self.column}' holds int8: pass LatentColumn(..., dtype='int8'), for its scales."
            )

    def __repr__(self) -> str:
        return f"LatentColumn('{self.column}', dim={self.dim}, dtype='{self.dtype}')"


class OwnLatents(BankBase):
    """A batch of a [`LatentColumn`] as a pairing sees it: every sample's own latent, and the moments; there are no other rows.

    Args:
        column ([`LatentColumn`]): Whose moments these are.
        sample_ids (`np.ndarray` of shape `(B,)`): Those that [`lookup`] gives the latents of.
        latents_BD (`np.ndarray` of shape `(B, D)`): float32, scaled; a row of NaN where a sample has none.
    """

    def __init__(self, column: LatentColumn, sample_ids: np.ndarray, latents_BD: np.ndarray):
        self._column, self._sample_ids, self._latents_BD = column, sample_ids, latents_BD
        self.description, self.dim = column.description, column.dim

    @property
    def _moments(self) -> tuple[torch.Tensor, torch.Tensor]:
        return self._column._moments

    @property
    def have_latent(self) -> np.ndarray:
        """Which samples have one, `(B,)` booleans."""
        return ~np.isnan(self._latents_BD).all(axis=1)

    def lookup(self, rows: np.ndarray) -> torch.Tensor:
        """The latents `(B, D)` where the rows are the sample ids as they were given."""
        if rows is not self._sample_ids:
            self._refuse()
        return torch.from_numpy(self._latents_BD)

    def __len__(self) -> int:
        self._refuse()

    def _refuse(self) -> NoReturn:
        raise NoOtherRows(
            f"shows samples other latents than their own, and column '{self._column.column}' holds each sample's own: "
            "use a bank (`TeacherBank.encode`), encode a permuted column, or take a control without other rows, "
            "`ConstantTarget()` or `RandomPrototypes(...)`."
        )


_MOMENTS = (
    "take them from the manifest, `LatentColumn.of(folder)`, or pass LatentColumn(..., mean=..., std=...), or of a data "
    "set that is no stream `column.measured(dataset)`"
)


def missing_column(column: str, found: Sequence[str]) -> str:
    """What to say where the data lack the latents."""
    return (
        f"the training samples have no column '{column}' (they have {', '.join(map(repr, found))}), so no teacher target comes "
        "with them: read the data that `hf-colearn encode` has written, let a transform pass the column on, or name another, "
        "`LatentColumn(column, dim=...)`."
    )


def _vector(name: str, values: Any, dim: int) -> np.ndarray | None:
    if values is None:
        return None
    vector_D = np.asarray(values, dtype=np.float64)
    if vector_D.shape != (dim,) or not np.isfinite(vector_D).all() or (name == "std" and (vector_D < 0).any()):
        raise ValueError(f"{name} has the shape {vector_D.shape}: pass {dim} finite numbers, one a dimension.")
    return vector_D


def _listed(vector_D: np.ndarray | None) -> list[float] | None:
    return None if vector_D is None else vector_D.tolist()


def _preceded_by(first: np.ndarray, chunks: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
    yield first
    yield from chunks
