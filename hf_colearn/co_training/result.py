"""What a co-training came to. Shapes: N samples, C classes."""

from functools import cached_property
from typing import Any

import numpy as np
from datasets import Dataset

from hf_colearn.co_training.fits import probabilities, spread
from hf_colearn.co_training.rounds import ENSEMBLE, Rounds, ensemble
from hf_colearn.co_training.views import HELD_OUT, TEST, Part, without_labels
from hf_colearn.data.sample_ids import NO_LABEL
from hf_colearn.trainer import CoLearningTrainer
from hf_colearn.utils.tables import text_table


class CoTrainingResult:
    """The students of the kept round, their labels, and how they came about.

    Attributes:
        rounds (`list[dict]`): Of each round its number, and by view `labels` (how many it was fitted to), `gained` (of them in
            this round), `correct` (the share of all gained labels that are right, None where that is not known) and
            `conflicts` (samples that two views told unlike); the accuracies `held_out` and `test` by view and of the
            `"ensemble"`; and whether it `harmed`.
        kept (`int`), stopped (`str`): The round whose students these are, and why there was no further one.
        labels (`dict[str, np.ndarray]`): By view `(N,)`, what its student was fitted to, -100 where there is none.
        students (`dict[str, PreTrainedModel]`), trainers (`dict[str, CoLearningTrainer]`): By view that learns.
    """

    def __init__(self, done: Rounds):
        self._done, state = done, done.state
        self.rounds, self.kept, self.stopped, self.fits = state.rounds, state.kept, state.stopped, state.fits
        self.views = [*done.fits.students, *done.frozen]
        self.labels = {view: done.labels(view) for view in done.fits.students}

    @cached_property
    def trainers(self) -> dict[str, CoLearningTrainer]:
        state, fits = self._done.state, self._done.fits
        fitted = {view: state.fit_of(view, state.kept) for view in fits.students}
        return {
            view: fits.read(view, round_, self.labels[view]) for view, round_ in fitted.items() if round_ is not None
        }

    @property
    def students(self) -> dict[str, Any]:
        return {view: trainer.model for view, trainer in self.trainers.items()}

    def probabilities(self, dataset: Dataset) -> dict[str, np.ndarray]:
        """By view the class probabilities `(N, C)` of samples with `{view}_{input}` columns, NaN where the view is absent."""
        part = Part(dataset, np.full(len(dataset), NO_LABEL), np.zeros(len(dataset), dtype=bool))
        found = {view: probabilities(trainer, part, view) for view, trainer in self.trainers.items()}
        for view, frozen in self._done.frozen.items():
            seen, rows = part.view(view)
            found[view] = spread(frozen.probabilities(without_labels(seen)), rows, len(dataset))
        return found

    def predict(self, dataset: Dataset) -> np.ndarray:
        """The ensemble's class probabilities `(N, C)`: the mean over the views that a sample has."""
        return ensemble(self.probabilities(dataset))

    def table(self) -> str:
        """Labels gained, their correctness, and accuracies, a line a round."""
        return text_table(round_rows(self.rounds, list(self.labels), self.views))

    def __repr__(self) -> str:
        kept = f"kept is round {self.kept}: {self.stopped}."
        return f"{self.table()}\n{kept}"


def round_rows(rounds: list[dict[str, Any]], learning: list[str], views: list[str]) -> list[list[str]]:
    """A table's rows, the header first; what is not known in any round has no column."""
    part = next((name for name in (TEST, HELD_OUT) if any(record.get(name) for record in rounds)), None)
    knows = any(value is not None for record in rounds for value in record["correct"].values())
    header = ["round", *(f"{view}: labels" for view in learning)]
    header += [f"{view}: gained, correct [%]" for view in learning if knows]
    header += [f"{view}: {part.replace('_', '-')} accuracy [%]" for view in [*views, ENSEMBLE] if part is not None]
    rows = [header]
    for record in rounds:
        cells = [f"{record['labels'][view]} (+{record['gained'][view]})" for view in learning]
        cells += [_percent(record["correct"][view]) for view in learning if knows]
        cells += [_percent(record[part].get(view)) for view in [*views, ENSEMBLE] if part is not None]
        rows.append([f"{record['round']}{' (undone)' if record['harmed'] else ''}", *cells])
    return rows


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.1f}"
