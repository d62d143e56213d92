"""A teacher bank's repository on the Hub: Parquet and JSON, and a card."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset, load_dataset
from huggingface_hub import CommitOperationAdd, DatasetCard, HfApi, hf_hub_download

from hf_colearn.teachers.bank_files import FORMAT, latents_of
from hf_colearn.teachers.bank_writing import DESCRIPTION, latent_table
from hf_colearn.teachers.rows import LatentRows, StoredColumn, StoredRows


def as_datasets(
    rows: LatentRows, index: np.ndarray | StoredColumn | None, distinct_inputs: Sequence[str] | None
) -> tuple[Dataset, Dataset | None]:
    """Latents and index as they are published; latents in files are mapped."""
    if isinstance(rows, StoredRows):
        latents = latents_of(rows.paths)
    else:
        latents = Dataset(latent_table(*rows.stored(np.arange(len(rows))), distinct_inputs))
    return latents, None if index is None else Dataset.from_dict({"row": np.asarray(index)})


def publish(
    repo_id: str,
    latents: Dataset,
    index: Dataset | None,
    description: dict[str, Any],
    card: DatasetCard,
    private: bool | None,
    token: str | None,
) -> str:
    """Writes the configuration `latents`, and `index` where there is one, then card and description; the commit's id."""
    latents.push_to_hub(repo_id, "latents", split="train", private=private, token=token)
    if index is not None:
        index.push_to_hub(repo_id, "index", split="train", token=token)
    metadata = DatasetCard.load(repo_id, token=token).data  # where `datasets` has put the configurations
    card.data.configs, card.data.dataset_info = metadata.configs, metadata.dataset_info
    files = {"README.md": str(card), DESCRIPTION: json.dumps(description, indent=2)}
    additions = [CommitOperationAdd(name, text.encode()) for name, text in files.items()]
    message = "Card and description of the bank"
    return HfApi(token=token).create_commit(repo_id, additions, commit_message=message, repo_type="dataset").oid


def fetch(repo_id: str, revision: str | None, token: str | None) -> tuple[dict[str, Any], list[str], list[str]]:
    """The description, the Arrow files of the latents, and those of the index of the rows, none where no inputs repeat."""
    path = hf_hub_download(repo_id, DESCRIPTION, repo_type="dataset", revision=revision, token=token)
    description = json.loads(Path(path).read_text())
    if not isinstance(description, dict) or description.get("format") != FORMAT:
        raise ValueError(
            f"'{repo_id}' holds no bank of this version (format {FORMAT}): its {DESCRIPTION} begins with "
            f"{str(description)[:80]}. Publish one with `TeacherBank.push_to_hub`."
        )
    names = ("latents", "index") if description["has_index"] else ("latents",)
    parts = [load_dataset(repo_id, name, split="train", revision=revision, token=token) for name in names]
    files = [[file["filename"] for file in part.cache_files] for part in parts]
    return description, files[0], files[1] if description["has_index"] else []
