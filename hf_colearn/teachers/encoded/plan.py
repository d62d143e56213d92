"""What is encoded, by which teacher and how: what all processes of an encoding share. It can be pickled."""

from dataclasses import asdict, dataclass, field
from typing import Any

from datasets import Features, List, Value

from hf_colearn.teachers import fingerprint
from hf_colearn.teachers.bank_card import without_folders
from hf_colearn.teachers.encoded.manifest import FORMAT, file_name
from hf_colearn.teachers.encoded.source import Source
from hf_colearn.teachers.encoder import FrozenEncoder
from hf_colearn.teachers.stored_latents import DTYPES
from hf_colearn.utils.checks import check_choice, check_integer


KEPT = ("all", "ids")


@dataclass(frozen=True)
class EncodingOptions:
    """What is written, and how.

    Args:
        input_column (`str`): The column that the teacher sees.
        keep (`str`, *optional*, defaults to `"all"`): Of the source, `"all"` columns, or the `"ids"` alone.
        id_column (`str`, *optional*, defaults to `"sample_id"`): The ids. Where the source has no such column it is made: the
            row of a data set that is not streamed, `s * 2**32 + r` of row r in shard s of a stream.
        dtype (`str`, *optional*, defaults to `"float32"`): `"float32"`, `"float16"`, or `"int8"` with a scale a row.
        latent_column (`str`, *optional*, defaults to `"teacher_latents"`): The latents'.
        batch_size (`int`, *optional*, defaults to 64): Inputs a forward pass.
    """

    input_column: str
    keep: str = "all"
    id_column: str = "sample_id"
    dtype: str = "float32"
    latent_column: str = "teacher_latents"
    batch_size: int = 64

    @property
    def scale_column(self) -> str:
        return f"{self.latent_column}_scale"

    @property
    def written(self) -> tuple[str, ...]:
        """The columns of latents."""
        return (self.latent_column, *([self.scale_column] if self.dtype == "int8" else []))

    def check(self, source: Source) -> None:
        """Refuses what cannot be written of a source."""
        check_choice("keep", self.keep, KEPT)
        check_choice("dtype", self.dtype, DTYPES)
        check_integer("batch_size", self.batch_size, least=1)
        columns = list(source.features)
        if self.input_column not in columns:
            raise ValueError(f"the source has no column '{self.input_column}': choose one of {', '.join(columns)}.")
        for name, column in (("latent_column", self.latent_column), ("id_column", self.id_column)):
            if not isinstance(column, str) or not column:
                raise ValueError(f"{name}={column!r} is no name of a column: pass one.")
        if self.id_column in self.written:
            raise ValueError(f"latent_column and id_column are both '{self.id_column}': pass another name for one.")
        if taken := [name for name in self.written if name in columns]:
            raise ValueError(f"the source has a column '{taken[0]}' already: pass another `latent_column`.")
        if self.id_column in columns:
            kind = source.features[self.id_column]
            if not isinstance(kind, Value) or "int" not in kind.dtype:
                shown = kind.dtype if isinstance(kind, Value) else type(kind).__name__
                raise ValueError(
                    f"the ids in column '{self.id_column}' are {shown}, and a sample's id is an integer: pass another "
                    "`id_column`; one that the source does not have is made."
                )


@dataclass(frozen=True, eq=False)
class EncodingPlan:
    """Source, options and teacher of an encoding.

    Args:
        source ([`Source`]): What is read.
        options ([`EncodingOptions`]): What is written.
        teacher (`dict`): [`FrozenEncoder.description`].
        dim (`int`): D, the width of the latents.
    """

    source: Source
    options: EncodingOptions
    teacher: dict[str, Any]
    dim: int
    job: dict[str, Any] = field(init=False)

    def __post_init__(self):
        options = asdict(self.options)
        options["column"] = options.pop("latent_column")
        options.pop("batch_size")  # which changes no latent but for rounding
        teacher = self.teacher | {"teacher": without_folders(self.teacher["teacher"])}
        facts = {"teacher": teacher, "source": self.source.description, **options, "dim": self.dim}
        facts |= {"format": FORMAT, "num_shards": self.source.num_shards}
        object.__setattr__(self, "job", {"job": fingerprint.of_json(facts), **facts})

    @classmethod
    def of(cls, source: Source, options: EncodingOptions, encoder: FrozenEncoder) -> "EncodingPlan":
        return cls(source, options, encoder.description(), encoder.dim)

    def file(self, shard: int) -> str:
        """The name of a shard's file."""
        return file_name(shard, self.source.num_shards)

    @property
    def features(self) -> Features:
        """Those of what is written: the kept columns, the ids, the latents, and the scales of int8."""
        options, features = self.options, Features(self.source.features)
        if options.keep == "ids":
            features = Features({name: kind for name, kind in features.items() if name == options.id_column})
        features.setdefault(options.id_column, Value("int64"))
        features[options.latent_column] = List(Value(options.dtype), length=self.dim)
        if options.dtype == "int8":
            features[options.scale_column] = Value("float32")
        return features
