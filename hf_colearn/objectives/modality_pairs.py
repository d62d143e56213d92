"""The pairs of modalities that an objective compares. Shapes: B samples, M modalities, D dimensions or classes."""

from collections.abc import Iterator, Mapping
from itertools import combinations
from typing import Any

import torch


def modality_pairs(
    objective: str, outputs: Mapping[str, Any], key: str
) -> Iterator[tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]]:
    """Every pair of modalities: both tensors, and which samples have both, `(B,)` booleans or None where all do.

    Raises:
        ValueError: If there are no two modalities, or if they or the mask do not fit together.
    """
    values: dict[str, torch.Tensor] | None = outputs.get(key)
    if values is None or len(values) < 2:
        found = "nothing" if not values else f"only '{next(iter(values))}'"
        raise ValueError(
            f"{objective} compares modalities, but the model's output `{key}` holds {found}: train a model of at least "
            "two modalities, such as CoLearningForMultimodalClassification."
        )
    shapes = {name: tuple(z.shape) for name, z in values.items()}
    first = next(iter(shapes))
    for name, shape in shapes.items():
        if shape[0] != shapes[first][0]:
            raise ValueError(
                f"the batch has {shapes[first][0]} samples of '{first}' but {shape[0]} of '{name}': row i of every "
                "modality must be the same sample. Mark samples that lack a modality in `modality_mask`."
            )
        if shape != shapes[first]:
            raise ValueError(
                f"`{key}` of '{first}' are {shapes[first][-1]} wide and those of '{name}' {shape[-1]}: {objective} "
                "needs modalities of one width."
            )
    mask_BM: torch.Tensor | None = outputs.get("modality_mask")
    if mask_BM is not None and mask_BM.shape != (shapes[first][0], len(shapes)):
        raise ValueError(
            f"the model's output `modality_mask` has the shape {tuple(mask_BM.shape)}, but there are {shapes[first][0]} "
            f"samples of {len(shapes)} modalities: {', '.join(shapes)}."
        )
    for (i, a), (j, b) in combinations(enumerate(values.values()), 2):
        yield a, b, None if mask_BM is None else mask_BM[:, i] & mask_BM[:, j]
