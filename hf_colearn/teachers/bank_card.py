"""The dataset card of a published teacher bank."""

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from huggingface_hub import DatasetCard, DatasetCardData


def bank_card(
    description: Mapping[str, Any],
    repo_id: str,
    inputs: str | None = None,
    license: str | None = None,
    language: str | None = None,
    source_datasets: Sequence[str] = (),
    **numbers: int,
) -> DatasetCard:
    """What a bank is: its teacher, the origin of its inputs, its licence, and how to use it.

    [`TeacherBank.push_to_hub`] adds the rest. `description` has `has_index` (whether inputs repeat); the numbers are
    `num_rows`, `num_distinct` and `dim` of the bank.
    """
    data = DatasetCardData(
        pretty_name=f"Teacher bank {repo_id.split('/')[-1]}",
        language=language,
        license=license,
        source_datasets=list(source_datasets) or None,
        tags=["co-learning", "hf_colearn", "teacher-bank"],
    )
    modality = description.get("modality")
    known = f"{numbers['num_rows']} {modality} inputs, whose origin is not recorded" if modality else "not recorded"
    origin = ", ".join(source_datasets)
    return DatasetCard.from_template(
        data,
        template_path=str(Path(__file__).parent / "bank_card.md"),
        bank_name=data.pretty_name,
        repo_id=repo_id,
        teacher=without_folders(description.get("teacher", "not named")),
        revision=description.get("revision") or "none: local weights",
        inputs="; ".join(filter(None, [inputs or (None if origin else known), origin and f"from {origin}"])),
        pooling=description.get("pooling", "not recorded"),
        dtype=description.get("dtype", "not recorded"),
        scaling=_scaling(**description.get("scaling", {"how": "none"})),
        fingerprint=description["fingerprint"],
        license=license or "not recorded; it follows from those of the teacher and of its inputs",
        has_index=description["has_index"],
        **numbers,
    )


def _scaling(how: str, num_distinct: int = 0, **origin: str) -> str:
    words = {
        "none": "none",
        "l2": "l2: every latent has length 1",
        "standardized": f"standardized: mean 0 and standard deviation 1 over {num_distinct} distinct latents",
    }
    return words[how] + (f", of the bank `{origin['bank']}`" if "bank" in origin else "")


def without_folders(text: str) -> str:
    """The last part of a path from elsewhere (absolute, or `../`), which names a folder of the machine; other text as it is."""
    is_path = os.path.isabs(os.path.expanduser(text)) or re.match(r"([A-Za-z]:|\.\.)[\\/]", text)
    return re.split(r"[\\/]", text.rstrip("\\/"))[-1] if is_path else text
