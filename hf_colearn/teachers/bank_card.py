"""The dataset card of a published teacher bank."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from huggingface_hub import DatasetCard, DatasetCardData


def bank_card(
    description: Mapping[str, Any],
    *,
    repo_id: str,
    num_rows: int,
    num_distinct: int,
    dim: int,
    has_index: bool,
    inputs: str | None = None,
    license: str | None = None,
    language: str | None = None,
    source_datasets: Sequence[str] = (),
) -> DatasetCard:
    """What a bank is: its teacher, revision, pooling, the origin of its inputs, its licence, and how to use it.

    Args:
        description (`Mapping`): `bank.description`.
        repo_id (`str`): The dataset repository that the bank is loaded from.
        num_rows, num_distinct, dim (`int`): N, U and D of the bank.
        has_index (`bool`): Whether inputs repeat.
        inputs, license, language, source_datasets: As [`TeacherBank.push_to_hub`] takes them.

    Returns:
        `DatasetCard`: Without the configurations of the dataset, which `datasets` adds to the metadata.
    """
    data = DatasetCardData(
        pretty_name=f"Teacher bank {repo_id.split('/')[-1]}",
        language=language,
        license=license,
        source_datasets=list(source_datasets) or None,
        tags=["co-learning", "hf_colearn", "teacher-bank"],
    )
    modality = description.get("modality")
    known = f"{num_rows} {modality} inputs, whose origin was not told" if modality else "not told"
    origin = ", ".join(source_datasets)
    return DatasetCard.from_template(
        data,
        template_path=str(Path(__file__).parent / "bank_card.md"),
        bank_name=data.pretty_name,
        repo_id=repo_id,
        teacher=without_folder(description.get("teacher", "not named")),
        revision=description.get("revision") or "none: local weights",
        inputs="; ".join(filter(None, [inputs or (None if origin else known), origin and f"from {origin}"])),
        pooling=description.get("pooling", "not told"),
        dtype=description.get("dtype", "not told"),
        num_rows=num_rows,
        num_distinct=num_distinct,
        dim=dim,
        fingerprint=description["fingerprint"],
        license=license or "not told; it follows from those of the teacher and of its inputs",
        has_index=has_index,
    )


def without_folder(teacher: str) -> str:
    """The teacher's name without the folder of the machine that it was read from."""
    return os.path.basename(teacher.rstrip("/")) if os.path.isabs(teacher) else teacher
