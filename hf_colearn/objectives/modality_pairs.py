"""The pairs of modalities that an objective compares. Shapes: B samples, M modalities, D dimensions or classes."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import combinations
from typing import Any

import torch

from hf_colearn.models.lora import base_model


Pairs = tuple[tuple[str, str], ...]


def checked_pairs(owner: str, pairs: Any, ordered: bool = False) -> Pairs | None:
    """Some pairs of names as tuples, None for all; refuses what is no list of pairs, and a pair that is there twice.

    Args:
        owner (`str`): Whose they are, for the message.
        pairs (`Sequence[tuple[str, str]]`, *optional*): Each of two different modalities.
        ordered (`bool`, *optional*, defaults to `False`): Whether (a, b) is another pair than (b, a).
    """
    if pairs is None:
        return None
    is_list = isinstance(pairs, Sequence) and not isinstance(pairs, str) and len(pairs)
    if not is_list or not all(
        isinstance(pair, (tuple, list)) and len(pair) == 2 and all(isinstance(name, str) for name in pair)
        for pair in pairs
    ):
        raise TypeError(f"pairs={pairs!r} of {owner}: pass a list of two names each, such as [('image', 'text')].")
    seen: set[Any] = set()
    for pair in map(tuple, pairs):
        if pair[0] == pair[1]:
            raise ValueError(f"the pair {pair} of {owner} is of one modality: name two different ones.")
        key = pair if ordered else frozenset(pair)
        if key in seen:
            raise ValueError(f"the pair {pair} of {owner} is there twice: name each pair once.")
        seen.add(key)
    return tuple((first, second) for first, second in pairs)


def check_known(owner: str, pairs: Pairs | None, names: Collection[str] | None) -> None:
    """Refuses a pair of which a modality is none of these names; without names there is nothing to check."""
    if names is None:
        return
    for pair in pairs or ():
        if unknown := [name for name in pair if name not in names]:
            raise ValueError(
                f"{owner} is given the pair {pair}, and the model has no modality '{unknown[0]}': it has {', '.join(names)}."
            )


def modalities_of(model: Any) -> Collection[str] | None:
    """The names of a model's modalities; None of a model that is not ours."""
    return getattr(base_model(model), "modalities", None)


def modality_pairs(
    objective: str, outputs: Mapping[str, Any], key: str, pairs: Pairs | None = None
) -> Iterator[tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]]:
    """Every pair of modalities, or those that are named: both tensors, and which samples have both, `(B,)` booleans or None
    where all do."""
    values: dict[str, torch.Tensor] | None = outputs.get(key)
    if values is None or len(values) < 2:
        found = "nothing" if not values else f"only '{next(iter(values))}'"
        raise ValueError(
            f"{objective} compares modalities, but the model's output `{key}` holds {found}: train a model of at least "
            "two modalities, such as CoLearningForMultimodalClassification."
        )
    check_known(objective, pairs, values)
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
    place = {name: i for i, name in enumerate(values)}
    for a, b in combinations(values, 2) if pairs is None else pairs:
        both_B = None if mask_BM is None else mask_BM[:, place[a]] & mask_BM[:, place[b]]
        yield values[a], values[b], both_B
