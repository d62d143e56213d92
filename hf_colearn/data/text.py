"""Texts of a dataset as the student's `input_ids`."""

from typing import Any

from datasets import Dataset


def with_input_ids(
    dataset: Dataset,
    tokenizer: Any,
    column: str = "text",
    label_column: str = "label",
    max_length: int | None = None,
) -> Dataset:
    """Tokenizes all texts once, each at its own length; batches are padded by `DataCollatorWithPadding(tokenizer)`.

    Args:
        dataset ([`datasets.Dataset`]): With a column of texts.
        tokenizer: The student's.
        column (`str`, *optional*, defaults to `"text"`): The texts' column, which is dropped.
        label_column (`str`, *optional*, defaults to `"label"`): The labels' column, which becomes `labels`.
        max_length (`int`, *optional*): In tokens; what is longer loses its end. The tokenizer's own limit by default.

    Returns:
        [`datasets.Dataset`]: With `input_ids`, what else the tokenizer gives, `labels` and every other column, in torch
        format.

    Raises:
        ValueError: If there are no samples, a column is missing, or a text is missing or empty; it names the row.
    """
    for name in (column, label_column):
        if name not in dataset.column_names:
            raise ValueError(f"the dataset has no column '{name}' (it has {dataset.column_names}): name it.")
    if not len(dataset):
        raise ValueError("the dataset is empty, so there is no text: look at its split, filter or selection.")

    def preprocess(texts: list[Any], rows: list[int]) -> dict[str, Any]:
        for text, row in zip(texts, rows, strict=True):
            read_text(text, row)
        return dict(tokenizer(texts, truncation=True, max_length=max_length))

    dataset = dataset.with_format(None)
    dataset = dataset if label_column == "labels" else dataset.rename_column(label_column, "labels")
    mapped = dataset.map(
        preprocess,
        batched=True,
        with_indices=True,
        input_columns=[column],
        remove_columns=[column],
        desc="Tokenizing",
    )
    return mapped.with_format("torch")


def read_text(cell: Any, row: int) -> str:
    """A cell of a column of texts.

    Raises:
        ValueError: If it is missing, empty or no text; it names the row.
    """
    if cell is None or (isinstance(cell, str) and not cell.strip()):
        raise ValueError(f"the text in row {row} is missing or empty ({cell!r}): remove or mend it.")
    if not isinstance(cell, str):
        raise ValueError(f"row {row} holds {cell!r:.60} where a text should be: name the column of texts.")
    return cell
