"""A teacher bank's repository on the Hub: Parquet and JSON, and a card."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset, load_dataset
from huggingface_hub import CommitOperationAdd, DatasetCard, HfApi, hf_hub_download

from hf_colearn.teachers.bank_files import FORMAT, row_index
from hf_colearn.teachers.encoding import DESCRIPTION


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


def fetch(repo_id: str, revision: str | None, token: str | None) -> tuple[dict[str, Any], Dataset, np.ndarray | None]:
    """The description, the latents and the index of the rows where inputs repeat."""
    path = hf_hub_download(repo_id, DESCRIPTION, repo_type="dataset", revision=revision, token=token)
    description = json.loads(Path(path).read_text())
    if not isinstance(description, dict) or description.get("format") != FORMAT:
        raise ValueError(
            f"'{repo_id}' holds no bank of this version (format {FORMAT}): its {DESCRIPTION} begins with "
            f"{str(description)[:80]}. Publish one with `TeacherBank.push_to_hub`."
        )
    latents = load_dataset(repo_id, "latents", split="train", revision=revision, token=token)
    index = None
    if description["has_index"]:
        index = row_index(load_dataset(repo_id, "index", split="train", revision=revision, token=token))
    return description, latents, index
