"""The pairs of modalities that an objective compares. Shapes: B samples, M modalities, D dimensions or classes."""

from collections.abc import Iterator, Mapping
from itertools import combinations
from typing import Any

import torch


def modality_pairs(
    objective: str, outputs: Mapping[str, Any], key: str
) -> Iterator[tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]]:
    """Every pair of modalities: both tensors, and which samples have both, `(B,)` booleans or None where all do."""
    values: dict[str, torch.Tensor] | None = outputs.get(key)
    if values is None or len(values) < 2:
        found = "nothing" if not values else f"only '{next(iter(values))}'"
        raise ValueError(
            f"{objective} compares modalities, but the model's output `{key}` holds {found}: train a model of at least "
            "two modalities, such as CoLearningForMultimodalClassification."
        )
    first = next(iter(values))
    size, width = len(values[first]), values[first].shape[-1]
    for name, z in values.items():
        if len(z) != size:
            raise ValueError(
                f"the batch has {size} samples of '{first}' but {len(z)} of '{name}': row i of every modality must be the "
                "same sample. Mark samples that lack a modality in `modality_mask`."
            )
        if z.shape != values[first].shape:
            raise ValueError(
                f"`{key}` of '{first}' are {width} wide and those of '{name}' {z.shape[-1]}: {objective} needs "
                "modalities of one width."
            )
    mask_BM: torch.Tensor | None = outputs.get("modality_mask")
    if mask_BM is not None and mask_BM.shape != (size, len(values)):
        raise ValueError(
            f"the model's output `modality_mask` has the shape {tuple(mask_BM.shape)}, but there are {size} samples of "
            f"{len(values)} modalities: {', '.join(values)}."
        )
    for (i, a), (j, b) in combinations(enumerate(values.values()), 2):
        yield a, b, None if mask_BM is None else mask_BM[:, i] & mask_BM[:, j]
