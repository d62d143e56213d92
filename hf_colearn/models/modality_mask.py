"""Which modality each sample of a batch has, and what a fusion may see of them; travels with every multimodal checkpoint.

Shapes: B samples, M modalities, H a backbone's width.
"""

from collections.abc import Mapping
from itertools import combinations
from typing import Any

import torch


ALL_SUBSETS_UP_TO = 5  # modalities: 30 proper subsets

Rows = torch.Tensor | None  # the samples that have a modality, by index; None for all of them


def by_modality(
    inputs: Mapping[str, torch.Tensor | None], known: Mapping[str, tuple[str, ...]]
) -> dict[str, dict[str, torch.Tensor]]:
    """The inputs that are given, by modality and without their prefix; `known` is what each modality's encoder takes."""
    given: dict[str, dict[str, torch.Tensor]] = {}
    for key, value in inputs.items():
        name = next((name for name in known if key.startswith(f"{name}_")), None)
        if name is None or key[len(name) + 1 :] not in known[name]:
            columns = ", ".join(f"{name}_{column}" for name, of_name in known.items() for column in of_name)
            raise TypeError(f"'{key}' is no input of this model, which takes {columns}.")
        if value is not None:
            given.setdefault(name, {})[key[len(name) + 1 :]] = value
    if not given:
        raise ValueError(f"there is nothing to classify: pass inputs of {' or '.join(known)}.")
    return given


def batch_size(given: Mapping[str, Mapping[str, torch.Tensor]], **others: torch.Tensor | None) -> int:
    """B, on which all inputs and `others` agree; a ValueError with each one's if they do not."""
    # `shape[0]` and not `len`, which would make the batch size of an exported program a constant
    sizes = {f"{name}_{column}": x.shape[0] for name, of_name in given.items() for column, x in of_name.items()}
    sizes |= {name: value.shape[0] for name, value in others.items() if value is not None}
    size = next(iter(sizes.values()))
    if any(other != size for other in sizes.values()):
        shown = ", ".join(f"{name}: {size}" for name, size in sizes.items())
        raise ValueError(
            f"the batch sizes disagree ({shown}): every input has a row for every sample, absent ones included."
        )
    return size


def mask_and_rows(
    names: tuple[str, ...],
    given: Mapping[str, Any],
    modality_mask: torch.Tensor | None,
    size: int,
    device: torch.device,
) -> tuple[torch.Tensor, list[Rows]]:
    """Which modalities each sample has, `[B, M]`, and the samples that each encoder runs on; no host synchronisation
    without a mask.
    """
    if modality_mask is None:
        if len(given) == len(names):
            return torch.ones(size, len(names), dtype=torch.bool, device=device), [None] * len(names)
        are_given = torch.tensor([name in given for name in names]).to(device, non_blocking=True)
        nothing = torch.empty(0, dtype=torch.long, device=device)
        return are_given.expand(size, -1), [None if name in given else nothing for name in names]
    if modality_mask.shape != (size, len(names)):
        raise ValueError(
            f"modality_mask has shape {tuple(modality_mask.shape)}: a row for each of the {size} samples and a column "
            f"for each of {', '.join(names)}."
        )
    mask_BM = modality_mask.bool()
    rows: list[Rows] = []
    for name, here_B in zip(names, mask_BM.unbind(1), strict=True):
        index = here_B.nonzero().squeeze(1)
        if len(index) and name not in given:
            raise ValueError(
                f"modality_mask says that {len(index)} of {size} samples have '{name}', and it has no inputs: pass them, or "
                "mark it absent."
            )
        rows.append(None if len(index) == size else index)
    if all(index is not None and not len(index) for index in rows):
        raise ValueError(f"modality_mask leaves none of the {size} samples any modality: pass some that have one.")
    return mask_BM, rows


def mask_of_batch(names: tuple[str, ...], inputs: Mapping[str, Any], size: int, device: torch.device) -> torch.Tensor:
    """Which modalities each sample of a batch has, `[B, M]`: by its `modality_mask`, or else those that have inputs."""
    if (mask_BM := inputs.get("modality_mask")) is not None:
        return mask_BM
    are_given = [any(key.startswith(f"{name}_") for key in inputs) for name in names]
    return torch.tensor(are_given, device=device).expand(size, -1)


def drop_modalities(here_BM: torch.Tensor, probability: float) -> torch.Tensor:
    """Leaves each modality of each sample out with a probability; of those present the highest draw always stays."""
    drawn_BM = torch.rand(here_BM.shape, device=here_BM.device).masked_fill(~here_BM, -1)
    highest_B1 = drawn_BM.argmax(1, keepdim=True)
    return (drawn_BM >= probability).scatter(1, highest_B1, True) & here_BM


def only(subset: tuple[int, ...], here_BM: torch.Tensor) -> torch.Tensor:
    """What is present of a subset of the modalities, by their places."""
    seen_BM = torch.zeros_like(here_BM)
    for i in subset:
        seen_BM[:, i] = here_BM[:, i]
    return seen_BM


def proper_subsets(count: int) -> list[tuple[int, ...]]:
    """Places of the modalities of every proper subset, smaller ones first; of many, those of one and of all but one."""
    sizes = range(1, count) if count <= ALL_SUBSETS_UP_TO else (1, count - 1)
    return [subset for size in sizes for subset in combinations(range(count), size)]
