"""The card of an encoded data set, which also tells `datasets` which of its files are rows."""

from huggingface_hub import DatasetCard, DatasetCardData

from hf_colearn.teachers.encoded.manifest import Manifest


_TEXT = """
# {name} with latents of {teacher}

{rows:,} rows with the latents of a teacher in the column `{column}`: {dim} numbers each, stored as {dtype}{scale}.
{unpaired}They were written by `hf-colearn encode`; `manifest.json` has the teacher's fingerprint, the mean and standard
deviation of every dimension, and the size and SHA-256 of every file.

| | |
|---|---|
| teacher | {teacher} ({architecture}, revision {revision}, pooling {pooling}, {teacher_dtype}) |
| source | {name}, column `{input_column}` |
| ids | `{id_column}` |
| rows, with a latent, distinct inputs (by shard) | {rows:,}, {paired:,}, {distinct:,} |
| job | `{job}` |

```python
from datasets import load_dataset
from hf_colearn import LatentColumn

train = load_dataset("{place}", split="train", streaming=True)
bank = LatentColumn.of("{place}")
```
"""


def card(manifest: Manifest, place: str = "THIS_FOLDER", licence: str | None = None) -> str:
    """The text of `README.md`.

    Args:
        manifest ([`Manifest`]): Of the data set.
        place (`str`): What `load_dataset` is given: a folder, or `owner/name`.
        licence (`str`, *optional*): That of the latents follows from the teacher's and the source's, which is not known here.
    """
    unpaired = manifest.rows - manifest.paired
    data = DatasetCardData(
        license=licence,
        tags=["co-learning", "hf_colearn", "teacher-latents"],
        configs=[{"config_name": "default", "data_files": [{"split": "train", "path": "data-*.parquet"}]}],
    )
    teacher = manifest.teacher
    text = _TEXT.format(
        **{name: getattr(manifest, name) for name in ("rows", "paired", "distinct", "column", "dim", "dtype", "job")},
        name=manifest.source.get("source") or "a data set",
        teacher=teacher["teacher"],
        architecture=teacher.get("architecture"),
        revision=teacher.get("revision") or "none: local weights",
        pooling=teacher.get("pooling"),
        teacher_dtype=teacher.get("dtype"),
        input_column=manifest.input_column,
        id_column=manifest.id_column,
        scale=f" with a scale a row in `{manifest.column}_scale`" if manifest.dtype == "int8" else "",
        unpaired=f"{unpaired:,} rows had no input for the teacher and have none. " if unpaired else "",
        place=place,
    )
    return str(DatasetCard(f"---\n{data.to_yaml()}\n---\n{text}"))
