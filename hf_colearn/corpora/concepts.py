"""Tables of concepts: what is true of each class, as a language model or a person answers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from hf_colearn.corpora.base import table_rows


@dataclass(frozen=True)
class ConceptTable:
    """Answers to Q questions about each of C classes.

    Args:
        questions (`tuple[str, ...]`): Such as `"is it alive?"`.
        rows (`Mapping[str, torch.Tensor]`): The answers `(Q,)` of every class by its name, in [0, 1]; NaN where there is none.
    """

    questions: tuple[str, ...]
    rows: Mapping[str, torch.Tensor]

    def answers(self, classes: Sequence[str]) -> torch.Tensor:
        """The answers `(C, Q)` of these classes in their order, such as `dataset.features["label"].names`.

        Raises:
            ValueError: If the table has no row of a class.
        """
        if missing := [name for name in classes if name not in self.rows]:
            raise ValueError(
                f"the table has no row of class '{missing[0]}' (it has {', '.join(self.rows)}): ask the questions of it, too."
            )
        return torch.stack([self.rows[name] for name in classes])


def load_concepts(path: str | Path) -> ConceptTable:
    """Reads a table of concepts: a csv whose first column is the class's name and whose other columns are questions.

    ```text
    class,is it alive?,is it worn?
    animals,1,0.05
    clothing,0,1
    ```

    A cell is a number from 0 (no) to 1 (yes), such as the probability of "yes" by a language model; an empty one is no answer.

    Args:
        path (`str` or `Path`): Of the csv.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If there is no question or class, a class or question stands twice, a row has another length, a cell is
            no number of [0, 1], or a class or question has no answer at all.
    """
    lines = table_rows(Path(path), "pass a csv: a header of questions, and a class a line")
    _, header = next(lines, ("", []))
    questions = [cell.strip() for cell in header[1:]]
    if not questions or not all(questions) or len(set(questions)) < len(questions):
        raise ValueError(
            f"the header of '{path}' is {header}: write `class` and then the questions, each once and none of them empty."
        )
    rows: dict[str, torch.Tensor] = {}
    for where, cells in lines:
        name = cells[0].strip()
        if len(cells) != len(header) or not name:
            raise ValueError(
                f"{where} has {len(cells)} cells, of the class '{name}': write a class and an answer to each of the "
                f"{len(questions)} questions, empty where there is none."
            )
        if name in rows:
            raise ValueError(f"{where} is of the class '{name}', which stands above: leave one of them out.")
        rows[name] = torch.tensor([_answer(where, *cell) for cell in zip(questions, cells[1:], strict=True)])
    if not rows:
        raise ValueError(f"'{path}' has no class: write one a line below the header.")
    has_answer_CQ = ~torch.stack(list(rows.values())).isnan()
    for names, has_one in ((list(rows), has_answer_CQ.any(dim=1)), (questions, has_answer_CQ.any(dim=0))):
        if unanswered := [name for name, has in zip(names, has_one.tolist(), strict=True) if not has]:
            raise ValueError(f"'{path}' has no answer of '{unanswered[0]}': ask it, or leave it out.")
    return ConceptTable(tuple(questions), rows)


def _answer(where: str, question: str, cell: str) -> float:
    if not cell.strip():
        return float("nan")
    try:
        answer = float(cell)
    except ValueError:
        answer = -1.0
    if not 0 <= answer <= 1:
        raise ValueError(
            f"{where} answers '{question}' by '{cell}': write a number from 0 (no) to 1 (yes), or nothing."
        )
    return answer
