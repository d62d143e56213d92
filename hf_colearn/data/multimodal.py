"""Datasets of several modalities: batches for a multimodal model, samples that lack a modality, one modality alone.

A modality's columns are `{modality}_{input}`, such as `image_pixel_values`; a sample without it has `None` in all of
them. What a dataset lacks is read from Arrow's validity bits: nothing is decoded or loaded for it. Where a transform makes
the columns, the stored column `{modality}` is read instead, and the transform passes its `None` on.

Shapes: N samples of a dataset, B of a batch, P of those that have a modality, M modalities.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from datasets import Dataset, IterableDataset, concatenate_datasets
from transformers import PreTrainedTokenizerBase, default_data_collator

from hf_colearn.data.columns import LazyInputs
from hf_colearn.data.sample_ids import LABELS
from hf_colearn.utils.rng import preserve_rng_state


class MultimodalCollator:
    """Makes a batch of samples of several modalities, each padded or stacked by a collator of its own.

    The batch holds `labels` first, then every modality's columns, with zeros in the rows that lack it (and without the
    columns of a modality that the whole batch lacks), and `modality_mask` `[B, M]` where anything is absent. Columns of no
    modality are left out.

    Args:
        collators (`dict[str, Callable | None]`): By modality name, in the model's order (`model.modalities`). A collator
            sees a modality's columns without their prefix; None stacks them.

    Raises:
        ValueError: When called, if a sample has no modality, or a modality in only some of its columns.

    Example:

    ```python
    collator = MultimodalCollator({"image": None, "text": DataCollatorWithPadding(tokenizer)})
    ```
    """

    def __init__(self, collators: Mapping[str, Callable[[list[Any]], Mapping[str, Any]] | None]):
        if not isinstance(collators, Mapping) or not collators:
            raise TypeError(
                f"collators={collators!r} names no modality: pass one each by name, such as {{'image': None, 'text': collate}}."
            )
        for name, collator in collators.items():
            if isinstance(collator, PreTrainedTokenizerBase):
                raise TypeError(
                    f"the collator of '{name}' is a tokenizer, which makes no batch of what is tokenized: pass "
                    "`DataCollatorWithPadding(tokenizer)`."
                )
            if collator is not None and not callable(collator):
                raise TypeError(
                    f"the collator of '{name}' is a {type(collator).__name__}: pass a function, or None, which stacks."
                )
        self.collators = {name: collator or default_data_collator for name, collator in collators.items()}

    def __call__(self, features: list[dict[str, Any]]) -> dict[str, Any]:
        batch: dict[str, Any] = {}
        if label := next((name for name in LABELS if name in features[0]), None):
            batch |= default_data_collator([{"labels": feature[label]} for feature in features])
        by_modality = {
            name: [_inputs(feature, name, row) for row, feature in enumerate(features)] for name in self.collators
        }
        mask_BM = torch.tensor([[bool(x) for x in of_sample] for of_sample in zip(*by_modality.values(), strict=True)])
        if not mask_BM.any(1).all():
            row = int(mask_BM.any(1).int().argmin())
            raise ValueError(
                f"{_shown(features[row], row)} has none of the modalities {', '.join(self.collators)}: leave such samples "
                "out of the dataset."
            )
        for (name, collator), here_B in zip(self.collators.items(), mask_BM.unbind(1), strict=True):
            if not here_B.any():
                continue
            columns = collator([inputs for inputs in by_modality[name] if inputs])
            batch |= {f"{name}_{column}": _scatter(value, here_B) for column, value in columns.items()}
        return batch if mask_BM.all() else {**batch, "modality_mask": mask_BM}


def _inputs(feature: dict[str, Any], name: str, row: int) -> dict[str, Any]:
    """A sample's inputs of a modality without their prefix; none where it is absent."""
    prefix = f"{name}_"
    cells = {column: value for column, value in feature.items() if column.startswith(prefix)}
    absent = [column for column, value in cells.items() if value is None]
    if absent and len(absent) < len(cells):
        raise ValueError(
            f"{_shown(feature, row)} has '{name}' in part: {', '.join(absent)} is None and "
            f"{', '.join(cells.keys() - set(absent))} is not. An absent modality is None in all of its columns."
        )
    return {} if absent else {column[len(prefix) :]: value for column, value in cells.items()}


def _shown(feature: dict[str, Any], row: int) -> str:
    return f"sample {feature['sample_id']}" if "sample_id" in feature else f"sample {row} of the batch"


def _scatter(value_PX: torch.Tensor, here_B: torch.Tensor) -> torch.Tensor:
    """Rows of those that have the modality, at their places among all; zeros elsewhere."""
    if here_B.all():
        return value_PX
    value_BX = value_PX.new_zeros(len(here_B), *value_PX.shape[1:])
    value_BX[here_B] = value_PX
    return value_BX


def missing_as_none(batch: dict[str, list[Any]]) -> dict[str, list[Any]]:
    """A transform in place of the format "torch", which fails on missing cells: tensors, and None where a cell is.

    Use it as `dataset.with_transform(missing_as_none)`. What holds no numbers stays as it is.
    """
    return {name: [_tensor(cell) for cell in cells] for name, cells in batch.items()}


def _tensor(cell: Any) -> Any:
    array = np.asarray(cell) if isinstance(cell, (list, int, float)) else np.asarray(None)
    if array.dtype.kind not in "biuf":
        return cell
    return torch.as_tensor(array, dtype=torch.float32 if array.dtype.kind == "f" else None)


def without_modality(dataset: Dataset, name: str, share: float, seed: int = 0) -> Dataset:
    """Takes a modality from a share of the samples, drawn at random; their order stays.

    With one seed, the samples that lack it at a small share lack it at every larger one, so `1 - share` is a paired
    fraction to sweep over. In the formats "torch" and "numpy", which cannot show a missing cell, the dataset comes back
    with the transform [`missing_as_none`].

    Args:
        dataset ([`datasets.Dataset`]): With N samples.
        name (`str`): The modality.
        share (`float`): Of all samples, from 0 to 1; `round(share * N)` are drawn.
        seed (`int`, *optional*, defaults to 0): Of the draw.
    """
    columns = _columns_of(dataset.column_names, name)
    is_drawn = np.zeros(len(dataset), dtype=bool)
    is_drawn[_drawn(np.arange(len(dataset)), share, seed)] = True

    def empty(table: pa.Table, rows: list[int]) -> pa.Table:
        # Taking the row "null" gives a null cell, whatever the column's type.
        source = pa.array(np.arange(len(rows)), mask=is_drawn[rows])
        for column in columns:
            place = table.column_names.index(column)
            table = table.set_column(place, table.field(place), table.column(place).take(source))
        return table

    emptied = dataset.with_format("arrow").map(
        empty, batched=True, with_indices=True, features=dataset.features, desc=f"Taking '{name}' away"
    )
    if dataset.format["type"] in ("torch", "numpy"):
        return emptied.with_transform(missing_as_none)
    return emptied.with_format(**dataset.format)


def mismatched(dataset: Dataset, name: str, share: float, seed: int = 0) -> Dataset:
    """Assigns the modality of another sample to a share of the samples: for a sweep over wrong pairs.

    The samples that are drawn pass theirs on in one circle, so none keeps its own and each one's is seen as often as
    before; the new one may be of the same class. Labels, all other columns and the order stay. With one seed, the samples
    that are mismatched at a small share are so at every larger one. Samples that lack the modality go on lacking it.

    Args:
        dataset ([`datasets.Dataset`]): With the modality's columns stored; a transform stays and sees them moved.
        name, seed: As in [`without_modality`].
        share (`float`): Of the P samples that have the modality; `round(share * P)` are drawn, which is not 1.
    """
    columns = _columns_of(dataset.column_names, name)
    here_P = np.flatnonzero(_mask_of(dataset, name))
    drawn = _drawn(here_P, share, seed)
    if len(drawn) == 1:
        raise ValueError(
            f"share={share} of {len(here_P)} samples with '{name}' is a single one, which has no other to exchange it with: "
            "pass 0 or a larger share."
        )
    sources = np.arange(len(dataset))
    sources[drawn] = np.roll(drawn, -1)
    plain = dataset.with_format(None)
    moved = plain.select_columns(columns).select(sources)
    rest = plain.remove_columns(columns)
    both = concatenate_datasets([rest, moved], axis=1) if rest.column_names else moved
    return both.select_columns(dataset.column_names).with_format(**dataset.format)


def _drawn(rows: np.ndarray, share: float, seed: int) -> np.ndarray:
    """A share of the rows at random; of a larger share these are the first."""
    if not 0 <= share <= 1:
        raise ValueError(f"share={share} is no share of the samples: pass a number from 0 to 1.")
    return np.random.default_rng(seed).permutation(rows)[: round(share * len(rows))]


def only_modality(dataset: Dataset, name: str, id_column: str = "sample_id") -> Dataset:
    """The samples that have a modality, as its unimodal student takes them: columns without their prefix.

    A transform is applied first and then sees every stored column; of lazy inputs
    ([`~hf_colearn.data.columns.with_lazy_input`]) only those of the modality are made.

    Args:
        dataset ([`datasets.Dataset`]): Of several modalities.
        name (`str`): The modality to keep; without a column it is a ValueError.
        id_column (`str`, *optional*, defaults to `"sample_id"`): Kept where it is there, as are `labels` or `label`.
    """
    here_N = _mask_of(dataset, name)
    if not here_N.all():
        dataset = dataset.select(np.flatnonzero(here_N))
    if dataset.format["type"] == "custom" and dataset.format["format_kwargs"]["transform"] is not missing_as_none:
        transform = dataset.format["format_kwargs"]["transform"]
        if isinstance(transform, LazyInputs):  # the others need not be made
            transform = LazyInputs(tuple(step for step in transform.steps if step[1].startswith(f"{name}_")))
        return dataset.with_transform(partial(_keep_only, transform=transform, prefix=f"{name}_", id_column=id_column))
    columns = _columns_of(dataset.column_names, name, or_raw=False)
    kept = [column for column in (*LABELS, id_column) if column in dataset.column_names]
    dataset = dataset.select_columns([*columns, *kept])
    return dataset.rename_columns({column: column[len(name) + 1 :] for column in columns})


def _keep_only(
    batch: dict[str, Any], transform: Callable[[dict[str, Any]], dict[str, Any]], prefix: str, id_column: str
):
    made = transform(batch)
    kept = {column: made[column] for column in (*LABELS, id_column) if column in made}
    return {column[len(prefix) :]: made[column] for column in made if column.startswith(prefix)} | kept


def complete_rows(dataset: Dataset, modalities: tuple[str, ...] | list[str]) -> np.ndarray:
    """The rows that have all modalities, from the stored columns' validity and a stored `modality_mask`; where a transform
    alone knows, all rows."""
    stored = [
        name for name in modalities if any(f"{column}_".startswith(f"{name}_") for column in dataset.column_names)
    ]
    here = [np.ones(len(dataset), dtype=bool), *(_mask_of(dataset, name) for name in stored)]
    if "modality_mask" in dataset.column_names:
        masks = dataset.select_columns("modality_mask").with_format("numpy")
        here.append(np.all(np.asarray(masks["modality_mask"][:]), axis=1))
    return np.flatnonzero(np.all(here, axis=0))


def check_modalities(dataset: Any, modalities: tuple[str, ...] | list[str]) -> None:
    """Refuses a dataset that cannot train or evaluate a model of these modalities.

    Of a [`datasets.Dataset`] Arrow's validity is read, of a stream the column names, where they are known. It is refused if
    a modality has no column, is absent in every sample or present in part, if a sample has none at all, or if the format
    cannot show missing cells.
    """
    if isinstance(dataset, IterableDataset) and dataset.column_names is not None:
        for name in modalities:
            _columns_of(dataset.column_names, name)
    if not isinstance(dataset, Dataset) or not len(dataset):
        return
    mask_MN = [_mask_for_training(dataset, name) for name in modalities]
    alone_N = ~np.any(mask_MN, axis=0)
    if alone_N.any():
        raise ValueError(
            f"{alone_N.sum()} samples have none of the modalities {', '.join(modalities)}, such as row "
            f"{int(alone_N.argmax())}: leave them out."
        )


def _mask_for_training(dataset: Dataset, name: str) -> np.ndarray:
    """Which samples have a modality, `[N]` bool; raises where a model cannot be trained with it."""
    kind = dataset.format["type"]
    if kind == "custom" and not any(f"{column}_".startswith(f"{name}_") for column in dataset.column_names):
        with preserve_rng_state(torch.device("cpu")):
            _columns_of(list(dataset[0]), name)
        return np.ones(len(dataset), dtype=bool)  # only the transform knows
    mask_N = _mask_of(dataset, name)
    if not mask_N.any():
        raise ValueError(
            f"'{name}' is absent in every one of the {len(dataset)} samples: build the model without it, or look at how "
            f"the dataset was made; it has {', '.join(dataset.column_names)}."
        )
    if kind in ("torch", "numpy") and not mask_N.all():
        raise ValueError(
            f"'{name}' is missing in {(~mask_N).sum()} samples, which the format '{kind}' of datasets cannot show: use "
            "`dataset.with_transform(missing_as_none)` of hf_colearn.data.multimodal."
        )
    return mask_N


def _columns_of(columns: list[str], name: str, or_raw: bool = True) -> list[str]:
    """A modality's columns, or else the raw one that a transform makes them of."""
    found = [column for column in columns if column.startswith(f"{name}_")]
    found = found or [column for column in columns if or_raw and column == name]
    if not found:
        raise ValueError(
            f"the modality '{name}' has no column: a column's name begins with its modality's, such as "
            f"'{name}_pixel_values', and there are {', '.join(columns)}."
        )
    return found


def _mask_of(dataset: Dataset, name: str) -> np.ndarray:
    """Which samples have a modality, `[N]` bool, from the stored columns' validity."""
    first, *others = _columns_of(dataset.column_names, name)
    valid_N = _valid(dataset, first)
    for column in others:
        differs_N = valid_N != _valid(dataset, column)
        if differs_N.any():
            raise ValueError(
                f"row {int(differs_N.argmax())} has '{name}' in part: one of {first} and {column} is None and the "
                "other is not. An absent modality is None in all of its columns."
            )
    return valid_N


def _valid(dataset: Dataset, column: str) -> np.ndarray:
    # The table's own bits, and then the rows that a selection or a shuffle points at: indexing would copy the data.
    valid = pc.is_valid(dataset.data.column(column)).to_numpy()
    return valid if dataset._indices is None else valid[dataset._indices.column(0).to_numpy()]
