"""Texts of a dataset as the student's `input_ids`."""

from typing import Any

from datasets import Dataset

from hf_colearn.data.columns import map_columns


def with_input_ids(
    dataset: Dataset,
    tokenizer: Any,
    column: str = "text",
    label_column: str = "label",
    max_length: int | None = None,
    pair_column: str | None = None,
) -> Dataset:
    """Tokenizes all texts once, each at its own length; batches are padded by `DataCollatorWithPadding(tokenizer)`.

    Args:
        dataset ([`datasets.Dataset`]): With a column of texts.
        tokenizer: The student's.
        column, label_column (`str`, *optional*, defaults to `"text"` and `"label"`): Texts and labels.
        max_length (`int`, *optional*): In tokens; what is longer loses its end. The tokenizer's own limit by default.
        pair_column (`str`, *optional*): Of second texts, which is dropped too; BERT's tokenizer gives
            `[CLS] text [SEP] second [SEP]`. The limit is for both together, and the longer one loses its end.

    Returns:
        [`datasets.Dataset`]: In torch format, with what the tokenizer gives, `labels` and every other column.

    Raises:
        ValueError: If there are no samples, a column is missing, or a text is missing or empty; it names the row.
    """

    def tokenize(*texts_and_rows: list[Any]) -> dict[str, Any]:
        *texts, rows = texts_and_rows
        for *of_row, row in zip(*texts, rows, strict=True):
            for text in of_row:
                read_text(text, row)
        return dict(tokenizer(*texts, truncation=True, max_length=max_length))

    columns = [column] if pair_column is None else [column, pair_column]
    return map_columns(dataset, columns, label_column, tokenize, "text", as_arrays=False)


def read_text(cell: Any, row: int) -> str:
    """A cell of a column of texts; raises a ValueError that names the row if it is missing, empty or no text."""
    if cell is None or (isinstance(cell, str) and not cell.strip()):
        raise ValueError(f"the text in row {row} is missing or empty ({cell!r}): remove or mend it.")
    if not isinstance(cell, str):
        raise ValueError(f"row {row} holds {cell!r:.60} where a text should be: name the column of texts.")
    return cell
