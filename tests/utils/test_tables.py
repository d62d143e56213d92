"""Tables of text: alignment, and what Markdown takes for a column."""

import pytest

from hf_colearn.utils.tables import markdown_table, text_table


ROWS = [["arm", "x"], ["a|b", "1.50"], ["longer", ""]]


def test_columns_are_as_wide_as_their_widest_cell_and_lines_have_no_trailing_space():
    assert text_table(ROWS) == "arm     x\n------  ----\na|b     1.50\nlonger"


def test_pipes_of_cells_are_escaped_in_markdown():
    assert markdown_table(ROWS) == ("| arm    | x    |\n| ------ | ---- |\n| a\\|b   | 1.50 |\n| longer |      |")


def test_a_row_of_another_length_is_an_error():
    with pytest.raises(ValueError):
        text_table([["a", "b"], ["c"]])
